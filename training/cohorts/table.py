"""Any table of labels: CSV, tab-separated text or Parquet, one row a knee of an image.

| column | meaning |
|---|---|
| SOPInstanceUID or file | the image; `file` is its path in the export |
| side | L, R (also left, right), or B for a label of both knees of a film |
| one or more targets | numbers; named with --targets, otherwise every column of TARGETS that is there |
| PatientID | optional; otherwise that of the header |
| age, sex, race, kl, split, laterality, flipped, inverted, StudyDate | optional; sex M or F, kl 0..4 |
| further columns | rules may ask for them, as numbers |

`laterality` says what the image shows (R, L, B), as opposed to the row's `side`. Where it is missing, an image shows
both knees when it has rows of both sides, or a row of side B.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from inference.errors import DataError
from training.cohorts.columns import coded, date, grade, number, scan, truth
from training.cohorts.rows import Source, joined, read_index

TARGETS = ("pain", "womac_pain", "koos_pain", "nrs_pain", "kl")
_OPTIONAL = (
    "PatientID", "age", "sex", "race", "kl", "split", "laterality", "flipped", "inverted", "StudyDate", "days_between",
)  # fmt: skip
SIDES: dict[str, str | None] = {"L": "L", "R": "R", "B": "B", "left": "L", "right": "R", "both": "B", "-1": None}
SEXES: dict[str, str | None] = {"M": "M", "F": "F", "male": "M", "female": "F", "O": None, "unknown": None}


def read(table: Path, index: Path, export: Path, targets: Sequence[str] = ()) -> Source:
    """The knees of a table.

    Args:
        table: the file; .parquet, .tsv, or else comma-separated.
        index: of `genu-train index` over the export.
        export: the folder that was indexed; for messages.
        targets: columns with the labels, the first of them must be there for a knee to stay.

    Raises:
        DataError: a column is missing, a side or sex is none, or table and export do not meet.
    """
    there = names(table)
    chosen = tuple(targets) or tuple(name for name in TARGETS if name in there)
    if not chosen:
        raise DataError(f"{table} has no target: none of {', '.join(TARGETS)} is among {', '.join(there)}.")
    key = "SOPInstanceUID" if "SOPInstanceUID" in there else "file"
    known = {key, "side", *chosen, *_OPTIONAL}
    extra = [name for name in there if name not in known and name not in ("path", "in_export", "labelled", "file")]
    raw = scan(table, (key, "side", *chosen, *extra), separator(table), [n for n in _OPTIONAL if n not in chosen])
    frame = raw.collect()
    cleaned = {"duplicate rows dropped": len(frame) - len(frame := frame.unique(maintain_order=True))}
    for column, codes in {"side": SIDES, "laterality": SIDES, "sex": SEXES}.items():
        frame = coded(frame, column, codes, table.name)
    odd = frame.filter(pl.col("side").is_in(["L", "R", "B"]), pl.col("laterality") != pl.col("side")).filter(
        pl.col("laterality") != "B"
    )
    if len(odd):
        raise DataError(
            f"{table.name}: {len(odd)} row(s) have a side that their image, by its laterality, does not show."
        )
    headers = read_index(index, optional=("StudyDate",))
    frame = _keyed(frame, key, headers)
    frame = joined(frame, headers, export)
    frame = frame.join(
        headers.select("SOPInstanceUID", "StudyInstanceUID", header_patient="PatientID", header_date="StudyDate"),
        on="SOPInstanceUID", how="left", maintain_order="left",
    )  # fmt: skip
    frame = _typed(frame, chosen, extra)
    return Source("table", _knees(frame), chosen, (table, index), cleaned)


def names(table: Path) -> list[str]:
    """The columns of a table.

    Raises:
        DataError: it is missing, or no table.
    """
    if not table.is_file():
        raise DataError(f"the table {table} is missing.")
    try:
        if table.suffix.lower() == ".parquet":
            return pl.scan_parquet(table).collect_schema().names()
        return pl.scan_csv(table, separator=separator(table), infer_schema=False).collect_schema().names()
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{table} is not a table that can be read ({type(error).__name__}).") from error


def separator(table: Path) -> str:
    """What stands between the values of a text table."""
    return "\t" if table.suffix.lower() in (".tsv", ".tab") else ","


def _keyed(frame: pl.DataFrame, key: str, headers: pl.DataFrame) -> pl.DataFrame:
    """Rows with SOPInstanceUID; of a file that the index does not know it is the file's name, so that it is counted."""
    if key == "SOPInstanceUID":
        return frame
    paths = headers.select("SOPInstanceUID", file="path")
    found = frame.with_columns(pl.col("file").str.replace_all(r"\\", "/").str.strip_prefix("./"))
    found = found.join(paths, on="file", how="left", maintain_order="left")
    return found.with_columns(pl.col("SOPInstanceUID").fill_null(pl.col("file"))).drop("file")


def _typed(frame: pl.DataFrame, targets: Sequence[str], extra: Sequence[str]) -> pl.DataFrame:
    wanted = [number(pl.col(name)).alias(name) for name in (*targets, *extra, "days_between") if name != "kl"]
    first = grade(pl.col("kl")).is_not_null() if targets[0] == "kl" else number(pl.col(targets[0])).is_not_null()
    return frame.with_columns(
        *wanted,
        kl=grade(pl.col("kl")),
        age=number(pl.col("age"), 0, 130),
        PatientID=pl.coalesce("PatientID", "header_patient"),
        StudyDate=pl.coalesce(date(pl.col("StudyDate")), date(pl.col("header_date"))),
        flipped=truth(pl.col("flipped")).fill_null(value=False),
        inverted=truth(pl.col("inverted")).fill_null(value=False),
        labelled=first,
    ).drop("header_patient", "header_date")


def _knees(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of side B become both knees."""
    shows_both = (pl.col("side").drop_nulls().n_unique() > 1).or_((pl.col("side") == "B").any()).over("SOPInstanceUID")
    both = pl.when(pl.col("laterality").is_not_null()).then(pl.col("laterality") == "B").otherwise(shows_both)
    sides = pl.col("side").replace_strict(
        {"R": ["R"], "L": ["L"], "B": ["L", "R"]}, default=[None], return_dtype=pl.List(pl.String)
    )
    knees = frame.with_columns(bilateral=both.fill_null(value=False), side=sides).explode("side")
    return knees.with_columns(knee=pl.concat_str("SOPInstanceUID", pl.lit("/"), "side"))
