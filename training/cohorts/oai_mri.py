"""MR examinations of the Osteoarthritis Initiative (OAI, nda.nih.gov/oai): its tables and series to labelled knees.

Read are kxr_qjsw_duryea## (minimum medial joint space width, mm), kxr_sq_bu## (KL grades), AllClinical## (age, size,
WOMAC pain, injuries, surgery) and Enrollees (sex, race), in any folder below the one that is named; the folders of the
export say whose series it is and of which visit. Labels and windows are those of Schiratti et al. 2021
(Arthritis Res Ther 23:262): the knee `followup` months after the image against the knee at the image.
"""

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any

import polars as pl

from inference.errors import DataError
from training.cohorts import series
from training.cohorts.columns import grade
from training.cohorts.oai_mri_series import read_oai_series
from training.cohorts.oai_tables import (
    PROJECTS,
    VISITS,
    code,
    find_table,
    find_visits,
    measured,
    one_reading,
    one_row_each,
    people,
    read_table,
)
from training.cohorts.rows import Source

TARGETS = ("progression_abs", "progression_rel", "womac_pain_binary", "womac_pain_class")
_TABLES = {"kxr_qjsw_duryea": "joint space widths", "kxr_sq_bu": "KL grades", "AllClinical": "clinical variables"}
_DIGITS = 6  # of differences: 4.1 - 4.6 is -0.5, and not a little less
_KNEE = ["PatientID", "visit", "side"]


def read(tables: Path, index: Path, export: Path, parameters: Mapping[str, Any]) -> Source:
    """The series of the OAI with everything that its rules ask for.

    Args:
        tables: folder of the tables.
        index: of `genu-train index` over the export.
        export: the folder that was indexed; its contents.csv files are read where there are any.
        parameters: of the rules: target, followup, projects, least_slices, progression_mm, progression_share,
            pain_below, pain_from, pain_cuts (docs/cohorts.md).

    Raises:
        DataError: a parameter, table or column is missing or odd, or no series of the export is of a visit with tables.
    """
    settings = _Parameters(parameters)
    found = {name: find_visits(tables, name) for name in _TABLES}
    visits = [visit for visit in VISITS if all(visit in files for files in found.values())]
    if not visits:
        held = "; ".join(
            f"{name} ({what}) of the visits {', '.join(found[name]) or 'none'}" for name, what in _TABLES.items()
        )
        raise DataError(f"{tables} holds {held}: all three are needed for one visit at least.")
    cleaned: dict[str, int] = {}
    unread: dict[str, int] = {}
    widths = pl.concat(
        _widths(path, visit, settings.projects, cleaned) for visit, path in found["kxr_qjsw_duryea"].items()
    )
    grades = pl.concat(_grades(found["kxr_sq_bu"][visit], visit, settings.projects, cleaned) for visit in visits)
    baseline = _baseline(found["AllClinical"])
    clinical = pl.concat(_clinical(found["AllClinical"][visit], visit, baseline) for visit in visits)
    enrollees = find_table(tables, "Enrollees", "sex and race")
    months = [VISITS[visit] for visit in visits]
    rows, listed = read_oai_series(index, export, months, settings.least, cleaned, unread)
    add = partial(pl.DataFrame.join, how="left", maintain_order="left")
    rows = reduce(lambda frame, table: add(frame, table, on=_KNEE), (widths, grades, clinical), rows)
    rows = add(rows, people(enrollees), on="PatientID")
    rows = _named(_labelled(add(rows, _later(widths, settings.followup), on=_KNEE), settings), settings.followup)
    cleaned["series of participants who are in no table"] = rows.filter(
        pl.col("visit").is_not_null() & ~pl.col("PatientID").is_in(clinical["PatientID"].unique().implode())
    ).height
    inputs = (*(path for files in found.values() for path in files.values()), enrollees, *listed, index)
    return Source("OAI MRI", rows, (settings.target, *(name for name in TARGETS if name != settings.target)),
                  inputs, cleaned, _COLUMNS, unread)  # fmt: skip


_COLUMNS: dict[str, pl.DataType] = {
    **series.COLUMNS,
    "mjsw_followup": pl.Float64(),
    "delta_mjsw": pl.Float64(),
    "delta_mjsw_rel": pl.Float64(),
    **{name: pl.Int8() for name in TARGETS},
}


class _Parameters:
    """The parameters of the rules, checked."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self.target = str(given.get("target"))
        if self.target not in TARGETS:
            raise DataError(f"the target is {self.target!r}; it must be one of {', '.join(TARGETS)}.")
        self.followup = int(self._number("followup"))
        if self.followup not in VISITS.values() or self.followup < 1:
            raise DataError(f"followup is {self.followup} months; visits are {', '.join(map(str, VISITS.values()))}.")
        self.least = int(self._number("least_slices"))
        self.change, self.share = self._number("progression_mm"), self._number("progression_share")
        self.below, self.high = self._number("pain_below"), self._number("pain_from")
        projects = given.get("projects", list(PROJECTS))
        self.projects: Sequence[int] = self._list("projects", projects)
        self.cuts = self._list("pain_cuts", given.get("pain_cuts"))
        if len(self.cuts) != 2 or self.cuts[0] > self.cuts[1] or self.below > self.high:
            raise DataError(f"pain_cuts {self.cuts}, pain_below {self.below}, pain_from {self.high}: they must ascend.")

    def _number(self, name: str) -> float:
        value = self._given.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"the parameter {name} of the rules is {value!r}; it must be a number.")
        return value

    def _list(self, name: str, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple) or not all(isinstance(entry, int | float) for entry in value):
            raise DataError(f"the parameter {name} of the rules is {value!r}; it must be a list of numbers.")
        return list(value)


def _widths(path: Path, visit: str, projects: Sequence[int], cleaned: dict[str, int]) -> pl.DataFrame:
    """PatientID, visit, side, mjsw (mm, 0 to 20)."""
    name = f"V{visit}MCMJSW"
    rows, twice = one_reading(path, (name, measured(name, 0, 20)), projects, needs_project=False)
    what = "knees that one project measured twice and differently"
    cleaned[what] = cleaned.get(what, 0) + twice
    return rows.select("PatientID", pl.lit(VISITS[visit]).alias("visit"), "side", mjsw="value")


def _grades(path: Path, visit: str, projects: Sequence[int], cleaned: dict[str, int]) -> pl.DataFrame:
    """PatientID, visit, side, kl."""
    name = f"V{visit}XRKL"
    rows, twice = one_reading(path, (name, grade(code(name))), projects)
    what = "knees that one project graded twice and differently"
    cleaned[what] = cleaned.get(what, 0) + twice
    return rows.select("PatientID", pl.lit(VISITS[visit]).alias("visit"), "side", kl="value")


def _baseline(files: Mapping[str, Path]) -> pl.DataFrame:
    """What was asked at the first visits only: PatientID, first_* and, by side, injury_* and surgery_*.

    Raises:
        DataError: AllClinical00 is missing, or lacks a column.
    """
    path = files.get("00")
    if path is None:
        raise DataError("AllClinical00 is missing: it holds height, injuries and surgery, asked at the first visit.")
    names = {"first_age": "V00AGE", "first_bmi": "P01BMI", "first_height": "P01HEIGHT", "first_weight": "P01WEIGHT"}
    yes = {f"{what}_{side}": f"{column}{side}" for what, column in _ASKED.items() for side in "RL"}
    frame = read_table(path, ("ID", *names.values(), *yes.values()))
    rows = frame.select(
        PatientID=code("ID"),
        first_age=measured(names["first_age"], 0, 130), first_bmi=measured(names["first_bmi"], 5, 150),
        first_height=measured(names["first_height"], 500, 2500) / 1000,
        first_weight=measured(names["first_weight"], 20, 400),
        **{name: measured(column, 0, 1) for name, column in yes.items()},
    )  # fmt: skip
    return one_row_each(rows, ["PatientID"], path)


_ASKED = {"injury": "P01INJ", "surgery": "P01KSURG"}


def _clinical(path: Path, visit: str, baseline: pl.DataFrame) -> pl.DataFrame:
    """PatientID, visit, side and the clinical variables of a visit; height in m, weight in kg.

    A height that was not measured again is that of the first visit, an age is counted on from it; weight and BMI are of
    the visit, and a BMI that is missing follows from weight and height.
    """
    pain = {side: f"V{visit}WOMKP{side}" for side in "RL"}
    own = {name: f"V{visit}{name.upper()}" for name in ("age", "bmi", "height", "weight")}
    frame = read_table(path, ("ID", *pain.values()), tuple(own.values()))
    rows = one_row_each(
        frame.select(
            PatientID=code("ID"), own_age=measured(own["age"], 0, 130), own_bmi=measured(own["bmi"], 5, 150),
            own_height=measured(own["height"], 500, 2500) / 1000, own_weight=measured(own["weight"], 20, 400),
            **{side: measured(name, 0, 20) for side, name in pain.items()},
        ), ["PatientID"], path,
    )  # fmt: skip
    rows = rows.join(baseline, on="PatientID", how="left", maintain_order="left")
    first = visit == "00"
    height = pl.coalesce("own_height", "first_height").round(4)
    weight = pl.coalesce("own_weight", "first_weight") if first else pl.col("own_weight")
    bmi = pl.coalesce("own_bmi", *(["first_bmi"] if first else []), weight / height**2)
    age = pl.coalesce("own_age", pl.col("first_age") + VISITS[visit] / 12)
    rows = rows.with_columns(visit=pl.lit(VISITS[visit]), age=age, bmi=bmi.round(_DIGITS), height=height, weight=weight)
    common = ("PatientID", "visit", "age", "bmi", "height", "weight")
    return pl.concat(
        rows.select(
            *common, side=pl.lit(side), womac_pain=pl.col(side), **{what: pl.col(f"{what}_{side}") for what in _ASKED}
        )
        for side in "RL"
    )


def _later(widths: pl.DataFrame, followup: int) -> pl.DataFrame:
    """Joint space widths under the visit `followup` months before them."""
    return widths.select("PatientID", pl.col("visit") - followup, "side", mjsw_followup="mjsw")


def _labelled(rows: pl.DataFrame, given: _Parameters) -> pl.DataFrame:
    """Adds changes and labels, and what the rules ask about them."""
    change = (pl.col("mjsw_followup") - pl.col("mjsw")).round(_DIGITS)
    share = pl.when(pl.col("mjsw") > 0).then(
        ((pl.col("mjsw_followup") - pl.col("mjsw")) / pl.col("mjsw")).round(_DIGITS)
    )
    rows = rows.with_columns(delta_mjsw=change, delta_mjsw_rel=share)
    pain, cuts = pl.col("womac_pain"), given.cuts
    rows = rows.with_columns(
        progression_abs=(pl.col("delta_mjsw") <= given.change).cast(pl.Int8),
        progression_rel=(pl.col("delta_mjsw_rel") <= given.share).cast(pl.Int8),
        womac_pain_binary=pl.when(pain < given.below).then(0).when(pain >= given.high).then(1),
        womac_pain_class=(pain >= cuts[0]).cast(pl.Int8) + (pain >= cuts[1]).cast(pl.Int8),
    )
    changes = given.target.startswith("progression")
    return rows.with_columns(
        start_known=pl.col("mjsw" if changes else "womac_pain").is_not_null(),
        end_known=pl.col("mjsw_followup").is_not_null() if changes else pl.lit(value=True),
        labelled=pl.col(given.target).is_not_null(),
    )


def _named(rows: pl.DataFrame, followup: int) -> pl.DataFrame:
    """Adds window, its end, and the key of the row; null where side, visit or the visit after it is not known."""
    names = {months: f"V{visit}" for visit, months in VISITS.items()}
    end = pl.col("visit") + followup
    start_name, end_name = (
        months.replace_strict(names, default=None, return_dtype=pl.String) for months in (pl.col("visit"), end)
    )
    rows = rows.with_columns(
        followup=pl.lit(followup), window=pl.concat_str(start_name, pl.lit("-"), end_name),
        window_end=pl.when(end_name.is_not_null()).then(end),
        of_knee=pl.concat_str("PatientID", pl.lit("/"), "side"),
    )  # fmt: skip
    return rows.with_columns(knee=pl.concat_str("SeriesInstanceUID", pl.lit("/"), "side", pl.lit("/"), "window"))
