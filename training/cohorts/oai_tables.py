"""Tables of the Osteoarthritis Initiative (OAI): pipe-separated text, CSV or SAS, found by name and read as text.

The OAI releases every table as text (`_ASCII`) and as SAS (`.sas7bdat`); file and column names vary in case. Values
such as "1: Male", ".: Missing Form/Incomplete Workbook", ".A" and blanks are understood; missing values of SAS, .A to
.Z among them, are null. SAS is read by pyreadstat (ReadStat).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pyreadstat

from inference.errors import DataError
from training.cohorts.columns import check_decimals, number, text
from training.cohorts.reading import rows as read_rows

PROJECTS = (15, 37, 42)
VISITS = {"00": 0, "01": 12, "03": 24, "05": 36, "06": 48, "08": 72, "10": 96}  # visit: months after the first
SIDES = {"1": "R", "2": "L"}
RACES = {"0": "Other Non-white", "1": "White or Caucasian", "2": "Black or African American", "3": "Asian"}
_ENDINGS = ("txt", "csv", "sas7bdat")  # the first is preferred
_SAS_ERRORS = (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, UnicodeDecodeError, OSError)


def find_visits(folder: Path, name: str) -> dict[str, Path]:
    """Visit ("00", "01", ...) to file of the tables `name`##, anywhere below a folder; empty where there is none."""
    return _found(folder, rf"{name}(\d\d)")


def find_table(folder: Path, name: str, what: str) -> Path:
    """The one table of a name, anywhere below a folder.

    Raises:
        DataError: it is not there; says what it would hold.
    """
    found = _found(folder, f"({name})")
    if not found:
        raise DataError(f"{folder} lacks {name}.txt (or .csv, .sas7bdat), which holds {what}.")
    return next(iter(found.values()))


def _found(folder: Path, pattern: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name the one that holds the tables of the OAI.")
    found: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.rglob("*")):
        match = re.fullmatch(rf"{pattern}\.({'|'.join(_ENDINGS)})", path.name, re.IGNORECASE)
        if match and path.is_file():
            key, rank = match[1].lower(), _ENDINGS.index(match[2].lower())
            if key not in found or rank < found[key][0]:
                found[key] = (rank, path)
    return {key: path for key, (_, path) in sorted(found.items())}


def read_table(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> pl.DataFrame:
    """The columns `needed`, as text and under these names; `optional` ones are null where the table lacks them.

    Raises:
        DataError: the table cannot be read, is empty, lacks columns or has decimal commas; lists what it has.
    """
    if path.suffix.lower() != ".sas7bdat":
        frame = read_rows(path, needed, optional)
        for column in frame.columns:
            check_decimals(frame[column], path.name)
        return frame
    frame = _read_sas(path, needed, optional)
    if frame.is_empty():
        raise DataError(f"{path} has no rows: name the folder of the tables that were filled.")
    return frame


def _read_sas(path: Path, needed: Sequence[str], optional: Sequence[str]) -> pl.DataFrame:
    try:
        _, described = pyreadstat.read_sas7bdat(str(path), metadataonly=True, output_format="polars")
        there = {name.strip().lower(): name for name in reversed(described.column_names)}
        missing = [name for name in needed if name.lower() not in there]
        if missing:
            listed = ", ".join(described.column_names)
            raise DataError(f"{path} lacks the column(s) {', '.join(missing)}; it has {listed}.")
        known = [name for name in (*needed, *optional) if name.lower() in there]
        columns = [there[name.lower()] for name in known]
        frame, _ = pyreadstat.read_sas7bdat(
            str(path), usecols=columns, output_format="polars", disable_datetime_conversion=True
        )
    except _SAS_ERRORS as error:
        raise DataError(f"{path} is no SAS file that can be read ({type(error).__name__}).") from error
    absent = [pl.lit(None, pl.String).alias(name) for name in optional if name.lower() not in there]
    return frame.select(
        *(_plain(frame, column).alias(name) for name, column in zip(known, columns, strict=True)), *absent
    )


def _plain(frame: pl.DataFrame, column: str) -> pl.Expr:
    """A column of SAS as text: its numbers are all floating ones, so that a code 2 is written 2 and not 2.0."""
    if not frame.schema[column].is_numeric():
        return text(pl.col(column))
    value = pl.col(column).cast(pl.Float64)
    whole = value.cast(pl.Int64, strict=False)
    return pl.when(whole == value).then(whole.cast(pl.String)).when(value.is_finite()).then(value.cast(pl.String))


def code(column: str) -> pl.Expr:
    """The number in front: "1: Male" is 1, ".A: Not Expected" and "." are nothing."""
    return pl.col(column).str.extract(r"^\s*(-?(?:\d+\.?\d*|\.\d+))\s*(?::.*)?$", 1)


def coded(column: str, meanings: Mapping[str, str]) -> pl.Expr:
    """The meaning of the number in front, null where it has none."""
    return code(column).replace_strict(meanings, default=None, return_dtype=pl.String)


def measured(column: str, low: float, high: float) -> pl.Expr:
    """The number in front, null outside of `low` to `high`."""
    return number(code(column), low, high)


def one_reading(
    path: Path,
    value: tuple[str, pl.Expr],
    projects: Sequence[int],
    barcode: str | None = None,
    needs_project: bool = True,
) -> tuple[pl.DataFrame, int]:
    """One reading a knee of a table with a row for every knee and reading project.

    Of several projects the first in `projects` that has a value is taken, others come after them; a project that gives
    a knee two different values gives it none.

    Args:
        path: of the table, with ID, SIDE and READPRJ.
        value: the name of its column, and the value as an expression over it.
        projects: READPRJ, the preferred first.
        barcode: a column with the barcode of the image that was read, where the table has it.
        needs_project: READPRJ must be there.

    Returns:
        PatientID, side, value, barcode, sorted; and how many knees one project gave two different values.

    Raises:
        DataError: a column is missing, or a row has no ID or no side.
    """
    name, expression = value
    optional = [] if needs_project else ["READPRJ"]
    optional += [barcode] if barcode else []
    needed = ["ID", "SIDE", name, *(["READPRJ"] if needs_project else [])]
    frame = read_table(path, needed, optional).unique(maintain_order=True)
    rows = frame.select(
        PatientID=code("ID"), side=coded("SIDE", SIDES), project=number(code("READPRJ")), value=expression,
        barcode=pl.col(barcode) if barcode else pl.lit(None, pl.String),
    )  # fmt: skip
    if odd := rows.filter(pl.col("PatientID").is_null() | pl.col("side").is_null()).height:
        raise DataError(f"{path.name}: {odd} row(s) have no ID, or a SIDE that is neither 1 (right) nor 2 (left).")
    values = pl.col("value").drop_nulls()
    single = rows.group_by(["PatientID", "side", "project"], maintain_order=True).agg(
        value=pl.when(values.n_unique() == 1).then(values.first()),
        two=values.n_unique() > 1,
        barcode=pl.col("barcode").drop_nulls().first(),
    )
    ranks = {float(project): rank for rank, project in enumerate(projects)}
    order = pl.col("project").replace_strict(ranks, default=len(ranks), return_dtype=pl.Int64)
    best = single.sort(pl.col("value").is_null(), order, "project", nulls_last=True, maintain_order=True)
    best = best.unique(["PatientID", "side"], keep="first", maintain_order=True)
    return best.select("PatientID", "side", "value", "barcode"), single.filter("two").height


def people(path: Path) -> pl.DataFrame:
    """PatientID, sex (M, F), race of the table Enrollees."""
    frame = read_table(path, ("ID", "P02SEX", "P02RACE")).select(
        PatientID=code("ID"), sex=coded("P02SEX", {"1": "M", "2": "F"}), race=coded("P02RACE", RACES)
    )
    return frame.drop_nulls("PatientID").unique("PatientID", keep="first", maintain_order=True)


def one_row_each(frame: pl.DataFrame, keys: Sequence[str], path: Path) -> pl.DataFrame:
    """Rows without repetitions.

    Raises:
        DataError: a participant has rows that differ.
    """
    result = frame.drop_nulls("PatientID").unique(maintain_order=True)
    if twice := result.filter(pl.struct(*keys).is_duplicated())["PatientID"].n_unique():
        raise DataError(f"{path.name}: {twice} participant(s) have rows that differ; one row a participant is meant.")
    return result
