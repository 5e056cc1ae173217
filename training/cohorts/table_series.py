"""Any table of labels of MR series: CSV, tab-separated text or Parquet, one row a series of a knee.

| column | meaning |
|---|---|
| SeriesInstanceUID or folder | the series, or the folder in the export that holds its files |
| side | L or R (also left, right) |
| one or more targets | numbers; named with --targets, otherwise every column of TARGETS that is there |
| PatientID, StudyDate, sequence | optional; otherwise PatientID, StudyDate and SeriesDescription of the header |
| visit, followup, window, split | optional: months, months, a name; a series may have a row for each window |
| age, sex, bmi, height, weight, mjsw, kl, womac_pain, injury, surgery, race | optional; height in m, weight in kg |
| further columns | rules may ask for them, as numbers |
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from inference.errors import DataError
from training.cohorts import series
from training.cohorts.columns import check_decimals, coded, grade, number, with_dates, with_numbers
from training.cohorts.oai_mri import TARGETS as OF_OAI
from training.cohorts.reading import names, rows
from training.cohorts.rows import Source
from training.cohorts.table import SEXES, check_key, check_patients, chosen_targets, further, has

TARGETS = (*OF_OAI, "pain", "womac_pain", "koos_pain", "nrs_pain", "kl")
_SIDES: dict[str, str | None] = {"L": "L", "R": "R", "left": "L", "right": "R", "-1": None}
_TEXTS = ("PatientID", "StudyDate", "sequence", "window", "split", "sex", "race")
_WHOLE = ("visit", "followup")
_GIVEN = (*_TEXTS, *_WHOLE, *(name for name in series.CLINICAL if name != "sex"))
_OWN = {  # of the export: a column of that name is not read
    "path", "in_export", "labelled", "slices", "unreadable", "plane", "knee", "of_knee", "folder", "StudyInstanceUID",
    "header_patient", "header_date", "header_name",
}  # fmt: skip


def is_one(table: Path) -> bool:
    """Whether the rows of a table are series rather than images."""
    there = names(table)
    of_images = any(has(there, name) for name in ("SOPInstanceUID", "file"))
    return not of_images and any(has(there, name) for name in ("SeriesInstanceUID", "folder"))


def read(table: Path, index: Path, export: Path, targets: Sequence[str] = ()) -> Source:
    """The series of a table.

    Args:
        table: the file; .parquet, or text whose header shows what stands between values.
        index: of `genu-train index` over the export.
        export: the folder that was indexed; for messages.
        targets: columns with the labels; the first of them must be there for a series to stay.

    Raises:
        DataError: a column is missing or most of its values cannot be read, a side or sex is none, a patient is named
            in two ways, or table and export do not meet.
    """
    there = names(table)
    chosen = chosen_targets(table, there, targets, TARGETS, {*_TEXTS, *_OWN, "SeriesInstanceUID", "side"})
    key = "SeriesInstanceUID" if has(there, "SeriesInstanceUID") else "folder"
    extra = further(there, {key, "side", *chosen, *_GIVEN, *_OWN})
    frame = rows(table, (key, "side", *chosen, *extra), [name for name in _GIVEN if name not in chosen])
    check_key(frame, key, table)
    unread: dict[str, int] = {}
    cleaned = {"duplicate rows dropped": len(frame) - len(frame := frame.unique(maintain_order=True))}
    for column, codes in {"side": _SIDES, "sex": SEXES}.items():
        frame = coded(frame, column, codes, table.name)
    wanted = {name: number(pl.col(name)) for name in (*_GIVEN, *chosen) if name not in _TEXTS}
    frame = with_numbers(frame, wanted | {"kl": grade(pl.col("kl"))}, table.name, unread)
    for name in extra:
        check_decimals(frame[name], table.name)
    frame = with_dates(frame, ["StudyDate"], table.name, unread).with_columns(number(pl.col(name)) for name in extra)
    found = series.read_series(index)
    found = with_dates(found, ["StudyDate"], index.name, unread, strict=False)
    joined = _joined(frame, found, key, export, table)
    joined = joined.with_columns(
        labelled=pl.col(chosen[0]).is_not_null(),
        of_knee=pl.concat_str("PatientID", pl.lit("/"), "side"),
        knee=pl.concat_str("SeriesInstanceUID", "side", "window", separator="/", ignore_nulls=True),
    )
    joined = joined.with_columns(knee=pl.when(pl.col("side").is_not_null()).then("knee"))
    if joined["split"].null_count() == len(joined):
        joined = joined.drop("split")
    return Source("table", joined, chosen, (table, index), cleaned, series.COLUMNS, unread)


def _joined(frame: pl.DataFrame, found: pl.DataFrame, key: str, export: Path, table: Path) -> pl.DataFrame:
    """Rows with their series of the export; a series that is not there keeps its name, so that it is counted."""
    headers = found.select(
        "SeriesInstanceUID", "StudyInstanceUID", "path", "slices", "unreadable", "plane", "header_patient",
        header_date="StudyDate", header_name=pl.col("SeriesDescription").str.strip_chars(),
    )  # fmt: skip
    if key == "folder":
        place = pl.col("folder").str.replace_all(r"\\", "/").str.strip_prefix("./").str.strip_chars_end("/")
        several = headers.filter(
            pl.col("path").is_duplicated() & pl.col("path").is_in(frame.select(place).to_series().implode())
        )
        if len(several):
            raise DataError(
                f"{several['path'].n_unique()} folder(s) of the table hold more than one series "
                f"({several['path'][0]}): name the series by SeriesInstanceUID."
            )
        frame = frame.with_columns(place).join(
            headers.select("SeriesInstanceUID", folder="path"), on="folder", how="left", maintain_order="left"
        )
        frame = frame.with_columns(pl.col("SeriesInstanceUID").fill_null(pl.col("folder"))).drop("folder")
    result = frame.join(headers, on="SeriesInstanceUID", how="left", maintain_order="left")
    if result["path"].null_count() == len(result):
        raise DataError(
            f"none of the {len(frame)} series of the table is in the index of {export} ({len(found)} series): table "
            "and files differ, or another export was indexed."
        )
    check_patients(result, "SeriesInstanceUID", table)
    return result.with_columns(
        in_export=pl.col("path").is_not_null(),
        PatientID=pl.coalesce("PatientID", "header_patient"),
        StudyDate=pl.coalesce("StudyDate", "header_date"),
        sequence=pl.coalesce("sequence", "header_name"),
    ).drop("header_patient", "header_date", "header_name")
