"""Tables as they come: found by name, columns verified, values cleaned, oddities counted or named.

Everything is read as text first, so that nothing is guessed: "-1", "2.0", "1: Male", ".A: Not Expected", blanks and
dates of several forms become what they mean or null.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from inference.errors import DataError

_NOTHING = ("", "nan", "na", "n/a", "null", "none", "--", ".")
_DATES = ("%Y-%m-%d", "%Y%m%d", "%m/%d/%Y", "%d.%m.%Y", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")
_TRUTH = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}


def find_table(folder: Path, name: str) -> Path:
    """The file `name` in a folder, whatever the case of its letters.

    Raises:
        DataError: it is not there; lists what is.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name the one that holds {name}.")
    there = sorted(path for path in folder.iterdir() if path.is_file())
    found = [path for path in there if path.name.lower() == name.lower()]
    if not found:
        listed = ", ".join(path.name for path in there[:40]) or "nothing"
        raise DataError(f"{folder} lacks {name}; it holds {listed}.")
    return found[0]


def scan(path: Path, needed: Sequence[str], separator: str = ",", optional: Sequence[str] = ()) -> pl.LazyFrame:
    """The columns `needed` of a table, as text and under these names, read when asked for.

    Args:
        path: a CSV or other separated text, or a Parquet file.
        needed: names; the case of the file's letters does not matter.
        separator: between the values of a text file.
        optional: further columns, which become null where the table lacks them.

    Raises:
        DataError: the table cannot be read or lacks columns; lists what it has.
    """
    try:
        if path.suffix.lower() == ".parquet":
            frame = pl.scan_parquet(path)
        else:
            frame = pl.scan_csv(
                path, separator=separator, infer_schema=False, quote_char=None if separator == "|" else '"'
            )
        there = frame.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is not a table that can be read ({type(error).__name__}).") from error
    by_lower = {name.strip().lower(): name for name in reversed(there)}
    missing = [name for name in needed if name.lower() not in by_lower]
    if missing:
        raise DataError(f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(there)}.")
    known = [name for name in (*needed, *optional) if name.lower() in by_lower]
    absent = [name for name in optional if name.lower() not in by_lower]
    return frame.select(
        *(text(pl.col(by_lower[name.lower()])).alias(name) for name in known),
        *(pl.lit(None, pl.String).alias(name) for name in absent),
    )


def text(column: pl.Expr) -> pl.Expr:
    """Text without white space around it; what means nothing is null."""
    stripped = column.cast(pl.String).str.strip_chars()
    return pl.when(stripped.str.to_lowercase().is_in(_NOTHING)).then(None).otherwise(stripped)


def number(column: pl.Expr, low: float | None = None, high: float | None = None) -> pl.Expr:
    """A number, or null where there is none or it lies outside of `low` to `high`."""
    value = column.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    value = pl.when(value.is_finite()).then(value)
    inside = pl.lit(value=True)
    if low is not None:
        inside &= value >= low
    if high is not None:
        inside &= value <= high
    return pl.when(inside).then(value)


def grade(column: pl.Expr) -> pl.Expr:
    """A Kellgren-Lawrence grade 0 to 4, or null: "2.0" is 2, "1.5" and "-1" are none."""
    value = number(column, 0, 4)
    return pl.when(value == value.round()).then(value).cast(pl.Int8)


def date(column: pl.Expr) -> pl.Expr:
    """A date in any of the usual forms, or null."""
    return pl.coalesce(*(column.str.to_date(form, strict=False, exact=True) for form in _DATES))


def truth(column: pl.Expr) -> pl.Expr:
    """0 and 1 in their spellings, or null."""
    lower = column.cast(pl.String).str.to_lowercase()
    return lower.replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean)


def coded(frame: pl.DataFrame, column: str, meanings: Mapping[str, str | None], table: str) -> pl.DataFrame:
    """A column of codes, put into the meaning's words; null stays null.

    Raises:
        DataError: a value is none of the codes: a rule would otherwise drop or keep it by accident. Lists the values.
    """
    upper = {code.upper(): meaning for code, meaning in meanings.items()}
    values = frame[column].drop_nulls().str.to_uppercase()
    counts = values.value_counts(sort=True).rows()
    odd = [f"{value!r} ({times} times)" for value, times in counts if value not in upper]
    if odd:
        raise DataError(f"{table}: the column {column} holds {', '.join(odd[:20])}; known are {', '.join(meanings)}.")
    known = pl.col(column).str.to_uppercase().replace_strict(upper, default=None, return_dtype=pl.String)
    return frame.with_columns(known.alias(column))


def sha256(path: Path) -> str:
    """The hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
