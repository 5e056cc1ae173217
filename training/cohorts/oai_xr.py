"""Radiographs of the Osteoarthritis Initiative (OAI, nda.nih.gov/oai): its tables to knees with KL and pain.

Read are kxr_sq_bu## (KL grades, one row a knee and reading project), AllClinical## (WOMAC, KOOS, pain of the last seven
days from 0 to 10) and Enrollees (sex, race), in any folder below the one that is named.

An image belongs to a visit by its path (`{visit}m/{group}/{ID}/{YYYYMMDD}/{8 digits}/001`, as the OAI publishes it), or
else by the barcode of the film that was read (V##BARCDBU).
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from inference.errors import DataError
from training.cohorts.columns import grade, number
from training.cohorts.oai_images import read_images
from training.cohorts.oai_tables import (
    PROJECTS,
    VISITS,
    code,
    find_table,
    find_visits,
    one_reading,
    one_row_each,
    people,
    read_table,
)  # fmt: skip
from training.cohorts.rows import Source

TARGETS = ("womac_pain", "koos_pain", "nrs_pain")


def read(tables: Path, index: Path, export: Path, projects: Sequence[int] = PROJECTS) -> Source:
    """The knees of the OAI's films with everything that its rules ask for.

    Args:
        tables: folder of the tables.
        index: of `genu-train index` over the export.
        export: the folder that was indexed; its contents.csv files are read where there are any.
        projects: reading projects whose grades are preferred, in this order.

    Raises:
        DataError: a table or column is missing, or no film of the export is of a visit that has tables.
    """
    readings, grades, films = find_visits(tables, "kxr_sq_bu"), [], []
    clinical, scores = find_visits(tables, "AllClinical"), []
    visits = [visit for visit in VISITS if visit in readings and visit in clinical]
    if not visits:
        raise DataError(
            f"{tables} holds kxr_sq_bu of the visits {', '.join(readings) or 'none'} and AllClinical of "
            f"{', '.join(clinical) or 'none'}: tables of both are needed for one visit at least."
        )
    cleaned: dict[str, int] = {}
    unread: dict[str, int] = {}
    for visit in visits:
        read_grades = _grades(readings[visit], visit, projects, cleaned)
        grades.append(read_grades.drop("barcode"))
        films.append(read_grades.select("PatientID", "visit", "barcode").drop_nulls().unique())
        scores.append(_scores(clinical[visit], visit))
    enrollees = find_table(tables, "Enrollees", "sex and race")
    images, listed = read_images(index, export, pl.concat(films), unread)
    knees = images.with_columns(side=pl.lit(["L", "R"]), bilateral=pl.lit(value=True)).explode("side")
    keys = ["PatientID", "visit", "side"]
    knees = knees.join(pl.concat(grades), on=keys, how="left", maintain_order="left")
    knees = knees.join(pl.concat(scores), on=keys, how="left", maintain_order="left")
    knees = knees.join(people(enrollees), on="PatientID", how="left", maintain_order="left").with_columns(
        knee=pl.concat_str("SOPInstanceUID", pl.lit("/"), "side"),
        flipped=pl.lit(value=False), inverted=pl.lit(value=False), days_between=pl.lit(None, pl.Int32),
    )  # fmt: skip
    inputs = (*(readings[visit] for visit in visits), *(clinical[visit] for visit in visits), enrollees, *listed, index)
    return Source("OAI radiographs", knees, TARGETS, inputs, cleaned, unread=unread)


def _grades(path: Path, visit: str, projects: Sequence[int], cleaned: dict[str, int]) -> pl.DataFrame:
    """One grade a knee: PatientID, visit, side, kl, barcode."""
    name = f"V{visit}XRKL"
    rows, twice = one_reading(path, (name, grade(code(name))), projects, f"V{visit}BARCDBU")
    what = "knees that one project graded twice and differently"
    cleaned[what] = cleaned.get(what, 0) + twice
    return rows.select("PatientID", pl.lit(VISITS[visit]).alias("visit"), "side", "barcode", kl="value")


def _scores(path: Path, visit: str) -> pl.DataFrame:
    """PatientID, visit, side, age and the targets; WOMAC pain 0..20, KOOS pain 0..100 (100: none), last week 0..10."""
    names = {side: (f"V{visit}WOMKP{side}", f"V{visit}KOOSKP{side}", f"V{visit}P7{side}KRCV") for side in ("R", "L")}
    needed = ("ID", *(name for side in names.values() for name in side[:2]))
    frame = read_table(path, needed, (f"V{visit}AGE", *(side[2] for side in names.values())))
    sides = [
        frame.select(
            PatientID=code("ID"),
            visit=pl.lit(VISITS[visit]),
            side=pl.lit(side),
            age=number(code(f"V{visit}AGE"), 0, 130),
            womac_pain=number(code(womac), 0, 20),
            koos_pain=number(code(koos), 0, 100),
            nrs_pain=number(code(week), 0, 10),
        )
        for side, (womac, koos, week) in names.items()
    ]
    return one_row_each(pl.concat(sides), ("PatientID", "side"), path)
