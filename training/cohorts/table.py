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
from training.cohorts.columns import (
    check_decimals,
    coded,
    grade,
    number,
    with_dates,
    with_numbers,
    with_truths,
)
from training.cohorts.reading import names, rows
from training.cohorts.rows import COLUMNS, Source, joined, read_index

TARGETS = ("pain", "womac_pain", "koos_pain", "nrs_pain", "kl")
_OPTIONAL = (
    "PatientID", "age", "sex", "race", "kl", "split", "laterality", "flipped", "inverted", "StudyDate", "days_between",
)  # fmt: skip
_FLAGS = ("flipped", "inverted")
_OWN = {  # of the export or of what is made here: a column of that name is not read
    *COLUMNS, "path", "in_export", "labelled", "file", "SeriesInstanceUID", "header_patient", "header_date",
}  # fmt: skip
SIDES: dict[str, str | None] = {"L": "L", "R": "R", "B": "B", "left": "L", "right": "R", "both": "B", "-1": None}
SEXES: dict[str, str | None] = {"M": "M", "F": "F", "male": "M", "female": "F", "O": None, "unknown": None}


def read(table: Path, index: Path, export: Path, targets: Sequence[str] = ()) -> Source:
    """The knees of a table.

    Args:
        table: the file; .parquet, or text whose header shows what stands between values.
        index: of `genu-train index` over the export.
        export: the folder that was indexed; for messages.
        targets: columns with the labels, the first of them must be there for a knee to stay.

    Raises:
        DataError: a column is missing or most of its values cannot be read, a side or sex is none, a patient is named
            in two ways, or table and export do not meet.
    """
    there = names(table)
    chosen = chosen_targets(table, there, targets, TARGETS, {*_OWN, "side", "sex", *_FLAGS} - {"age", "kl"})
    key = "SOPInstanceUID" if has(there, "SOPInstanceUID") else "file"
    extra = further(there, {key, "side", *chosen, *_OPTIONAL, *_OWN})
    frame = rows(table, (key, "side", *chosen, *extra), [name for name in _OPTIONAL if name not in chosen])
    check_key(frame, key, table)
    unread: dict[str, int] = {}
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
    check_patients(frame, "SOPInstanceUID", table)
    frame = _typed(frame, chosen, extra, table.name, unread)
    return Source("table", _knees(frame), chosen, (table, index), cleaned, unread=unread)


def has(there: Sequence[str], name: str) -> bool:
    """Whether a column is there, whatever the case of its letters."""
    return name.lower() in {each.lower() for each in there}


def chosen_targets(
    table: Path, there: Sequence[str], asked: Sequence[str], known: Sequence[str], never: set[str]
) -> tuple[str, ...]:
    """The targets: those asked for, otherwise the known ones that the table has.

    Raises:
        DataError: there is none, one is asked for twice, or one is of those that are never a label.
    """
    chosen = tuple(asked) or tuple(name for name in known if has(there, name))
    if not chosen:
        raise DataError(f"{table} has no target: none of {', '.join(known)} is among {', '.join(there)}.")
    if odd := sorted({name for name in chosen if chosen.count(name) > 1 or has(tuple(never), name)}):
        raise DataError(f"--targets {' '.join(chosen)}: {', '.join(odd)} is no label, or asked for twice.")
    return chosen


def further(there: Sequence[str], known: set[str]) -> list[str]:
    """The columns that nothing is known of; unnamed ones and those that are there twice cannot be asked for."""
    lower = [name.lower() for name in there]
    taken = {name.lower() for name in known}
    return [name for name in there if name and name.lower() not in taken and lower.count(name.lower()) == 1]


def check_key(frame: pl.DataFrame, key: str, table: Path) -> None:
    """That every row says what it is of.

    Raises:
        DataError: one does not.
    """
    if lacking := frame[key].null_count():
        raise DataError(f"{table.name}: {key} is empty in {lacking} row(s): fill it, or remove them.")


def check_patients(frame: pl.DataFrame, of: str, table: Path) -> None:
    """That PatientID of the table and that of the headers are not mixed: a patient of two names would be split.

    Args:
        frame: rows with PatientID, header_patient and `of`.
        of: the column of images or series.
        table: for messages.

    Raises:
        DataError: PatientID is given in part of the rows and differs from the headers', or one image has two.
    """
    given = pl.col("PatientID").is_not_null()
    empty = frame.filter(~given & pl.col("header_patient").is_not_null()).height
    differ = frame.filter(given & (pl.col("PatientID") != pl.col("header_patient")))
    if empty and len(differ):
        mine, header = differ.select("PatientID", "header_patient").row(0)
        raise DataError(
            f"{table.name}: PatientID is empty in {empty} row(s), and elsewhere differs from the headers ({mine!r} in "
            f"the table, {header!r} in the header): fill it everywhere, as text, or leave the column out."
        )
    several = frame.filter(pl.col("PatientID").drop_nulls().n_unique().over(of) > 1)
    if len(several):
        found = ", ".join(map(repr, several["PatientID"].drop_nulls().unique().sort()[:2]))
        raise DataError(f"{table.name}: rows of one {of} name different patients, such as {found}: one is meant.")


def _keyed(frame: pl.DataFrame, key: str, headers: pl.DataFrame) -> pl.DataFrame:
    """Rows with SOPInstanceUID; of a file that the index does not know it is the file's name, so that it is counted."""
    if key == "SOPInstanceUID":
        return frame
    paths = headers.select("SOPInstanceUID", file="path")
    found = frame.with_columns(pl.col("file").str.replace_all(r"\\", "/").str.strip_prefix("./"))
    found = found.join(paths, on="file", how="left", maintain_order="left")
    return found.with_columns(pl.col("SOPInstanceUID").fill_null(pl.col("file"))).drop("file")


def _typed(
    frame: pl.DataFrame, targets: Sequence[str], extra: Sequence[str], table: str, unread: dict[str, int]
) -> pl.DataFrame:
    wanted = {name: number(pl.col(name)) for name in (*targets, "days_between")}
    wanted |= {"kl": grade(pl.col("kl")), "age": number(pl.col("age"), 0, 130)}
    frame = with_numbers(frame, wanted, table, unread)
    for name in extra:
        check_decimals(frame[name], table)
    frame = with_truths(with_dates(frame, ["StudyDate"], table, unread), _FLAGS, table)
    frame = with_dates(frame, ["header_date"], "the index", unread, strict=False)
    return frame.with_columns(
        *(number(pl.col(name)).alias(name) for name in extra),
        *(pl.col(name).fill_null(value=False) for name in _FLAGS),
        PatientID=pl.coalesce("PatientID", "header_patient"),
        StudyDate=pl.coalesce("StudyDate", "header_date"),
        labelled=pl.col(targets[0]).is_not_null(),
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
