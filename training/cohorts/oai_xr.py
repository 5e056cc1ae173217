"""Radiographs of the Osteoarthritis Initiative (OAI, nda.nih.gov/oai): its text tables to knees with KL and pain.

Read are kxr_sq_bu## (KL grades, one row a knee and reading project), AllClinical## (WOMAC, KOOS, pain of the last seven
days from 0 to 10) and Enrollees (sex, race) as pipe-separated text or CSV, in any folder below the one that is named
and in either case. SAS files are not read. Values such as "1: Male", ".A: Not Expected" and blanks are understood.

An image belongs to a visit by its path (`{visit}m/{group}/{ID}/{YYYYMMDD}/{8 digits}/001`, as the OAI publishes it), or
else by the barcode of the film that was read (V##BARCDBU).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from inference.errors import DataError
from training.cohorts.columns import grade, number, scan
from training.cohorts.oai_images import read_images
from training.cohorts.rows import Source

PROJECTS = (15, 37, 42)
VISITS = {"00": 0, "01": 12, "03": 24, "05": 36, "06": 48, "08": 72, "10": 96}  # visit: months after the first
TARGETS = ("womac_pain", "koos_pain", "nrs_pain")
_RACES = {"0": "Other Non-white", "1": "White or Caucasian", "2": "Black or African American", "3": "Asian"}


def read(tables: Path, index: Path, export: Path, projects: Sequence[int] = PROJECTS) -> Source:
    """The knees of the OAI's films with everything that its rules ask for.

    Args:
        tables: folder of the text tables.
        index: of `genu-train index` over the export.
        export: the folder that was indexed; its contents.csv files are read where there are any.
        projects: reading projects whose grades are preferred, in this order.

    Raises:
        DataError: a table or column is missing, or no film of the export is of a visit that has tables.
    """
    readings, grades, films = _tables(tables, "kxr_sq_bu"), [], []
    clinical, scores = _tables(tables, "AllClinical"), []
    visits = [visit for visit in VISITS if visit in readings and visit in clinical]
    if not visits:
        raise DataError(
            f"{tables} holds kxr_sq_bu of the visits {', '.join(readings) or 'none'} and AllClinical of "
            f"{', '.join(clinical) or 'none'}: text tables of both are needed for one visit at least."
        )
    cleaned: dict[str, int] = {}
    for visit in visits:
        read_grades = _grades(readings[visit], visit, projects, cleaned)
        grades.append(read_grades.drop("barcode"))
        films.append(read_grades.select("PatientID", "visit", "barcode").drop_nulls().unique())
        scores.append(_scores(clinical[visit], visit))
    enrollees = _table(tables, "Enrollees")
    images, listed = read_images(index, export, pl.concat(films))
    knees = images.with_columns(side=pl.lit(["L", "R"]), bilateral=pl.lit(value=True)).explode("side")
    keys = ["PatientID", "visit", "side"]
    knees = knees.join(pl.concat(grades), on=keys, how="left", maintain_order="left")
    knees = knees.join(pl.concat(scores), on=keys, how="left", maintain_order="left")
    knees = knees.join(_people(enrollees), on="PatientID", how="left", maintain_order="left").with_columns(
        knee=pl.concat_str("SOPInstanceUID", pl.lit("/"), "side"),
        flipped=pl.lit(value=False), inverted=pl.lit(value=False), days_between=pl.lit(None, pl.Int32),
    )  # fmt: skip
    inputs = (*(readings[visit] for visit in visits), *(clinical[visit] for visit in visits), enrollees, *listed, index)
    return Source("OAI radiographs", knees, TARGETS, inputs, cleaned)


def _tables(folder: Path, name: str) -> dict[str, Path]:
    """Visit to file of the text tables `name`##, anywhere below a folder."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        match = re.fullmatch(rf"{name}(\d\d)\.(txt|csv)", path.name, re.IGNORECASE)
        if match and path.is_file():
            found.setdefault(match[1], path)
    if not found and any(folder.rglob("*.sas7bdat")):
        raise DataError(
            f"{folder} holds SAS files; Genu reads the text release of the OAI (ASCII), or CSV made of them."
        )
    return found


def _table(folder: Path, name: str) -> Path:
    found = [p for p in sorted(folder.rglob("*")) if p.name.lower() in (f"{name.lower()}.txt", f"{name.lower()}.csv")]
    if not found:
        raise DataError(f"{folder} lacks {name}.txt (or .csv), which holds sex and race.")
    return found[0]


def _read(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> pl.DataFrame:
    return scan(path, needed, "," if path.suffix.lower() == ".csv" else "|", optional).collect()


def _code(column: str) -> pl.Expr:
    """The number in front: "1: Male" is 1, ".A: Not Expected" and "." are nothing."""
    return pl.col(column).str.extract(r"^\s*(-?(?:\d+\.?\d*|\.\d+))\s*(?::.*)?$", 1)


def _grades(path: Path, visit: str, projects: Sequence[int], cleaned: dict[str, int]) -> pl.DataFrame:
    """One grade a knee: PatientID, visit, side, kl, barcode.

    Of several reading projects the first in `projects` that has a grade is taken; a project that gives a knee two
    different grades gives it none.
    """
    needed = ("ID", "SIDE", "READPRJ", f"V{visit}XRKL")
    frame = _read(path, needed, (f"V{visit}BARCDBU",)).unique(maintain_order=True)
    rows = frame.select(
        PatientID=_code("ID"),
        side=_code("SIDE").replace_strict({"1": "R", "2": "L"}, default=None, return_dtype=pl.String),
        project=number(_code("READPRJ")),
        kl=grade(_code(needed[3])),
        barcode=pl.col(f"V{visit}BARCDBU"),
    )
    if odd := rows.filter(pl.col("PatientID").is_null() | pl.col("side").is_null()).height:
        raise DataError(f"{path.name}: {odd} row(s) have no ID, or a SIDE that is neither 1 (right) nor 2 (left).")
    keys = ["PatientID", "side", "project"]
    single = rows.group_by(keys, maintain_order=True).agg(
        kl=pl.when(pl.col("kl").drop_nulls().n_unique() == 1).then(pl.col("kl").drop_nulls().first()),
        two=pl.col("kl").drop_nulls().n_unique() > 1,
        barcode=pl.col("barcode").drop_nulls().first(),
    )
    name = "knees that one project graded twice and differently"
    cleaned[name] = cleaned.get(name, 0) + single.filter("two").height
    ranks: dict[Any, int] = {float(project): rank for rank, project in enumerate(projects)}
    order = pl.col("project").replace_strict(ranks, default=len(ranks), return_dtype=pl.Int64)
    single = single.sort(pl.col("kl").is_null(), order, "project", nulls_last=True, maintain_order=True)
    best = single.unique(["PatientID", "side"], keep="first", maintain_order=True)
    return best.select("PatientID", pl.lit(VISITS[visit]).alias("visit"), "side", "kl", "barcode")


def _scores(path: Path, visit: str) -> pl.DataFrame:
    """PatientID, visit, side, age and the targets; WOMAC pain 0..20, KOOS pain 0..100 (100: none), last week 0..10."""
    names = {side: (f"V{visit}WOMKP{side}", f"V{visit}KOOSKP{side}", f"V{visit}P7{side}KRCV") for side in ("R", "L")}
    needed = ("ID", *(name for side in names.values() for name in side[:2]))
    frame = _read(path, needed, (f"V{visit}AGE", *(side[2] for side in names.values())))
    sides = [
        frame.select(
            PatientID=_code("ID"),
            visit=pl.lit(VISITS[visit]),
            side=pl.lit(side),
            age=number(_code(f"V{visit}AGE"), 0, 130),
            womac_pain=number(_code(womac), 0, 20),
            koos_pain=number(_code(koos), 0, 100),
            nrs_pain=number(_code(week), 0, 10),
        )
        for side, (womac, koos, week) in names.items()
    ]
    result = pl.concat(sides).drop_nulls("PatientID").unique(maintain_order=True)
    if twice := result.filter(pl.struct("PatientID", "side").is_duplicated())["PatientID"].n_unique():
        raise DataError(f"{path.name}: {twice} participant(s) have rows that differ; one row a participant is meant.")
    return result


def _people(path: Path) -> pl.DataFrame:
    """PatientID, sex, race."""
    frame = _read(path, ("ID", "P02SEX", "P02RACE")).select(
        PatientID=_code("ID"),
        sex=_code("P02SEX").replace_strict({"1": "M", "2": "F"}, default=None, return_dtype=pl.String),
        race=_code("P02RACE").replace_strict(_RACES, default=None, return_dtype=pl.String),
    )
    return frame.drop_nulls("PatientID").unique("PatientID", keep="first", maintain_order=True)
