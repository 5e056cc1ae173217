"""Tables as they come: found by name, columns verified, values cleaned, oddities counted or named.

Everything is read as text first, so that nothing is guessed: "-1", "2.0", "1: Male", ".A: Not Expected", blanks and
dates of several forms become what they mean or null.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from inference.errors import DataError

_NOTHING = ("", "nan", "na", "n/a", "#n/a", "<na>", "nat", "null", "none", "--", ".")
_TRUTH = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y"), True),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n"), False),
}
_UNKNOWN = ("-1", "-1.0")  # of what is true or false
_CLOCK = r"(?:[T ]+\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp][Mm])?(?: ?(?:Z|UTC|[+-]\d{2}:?\d{2}))?)?"
_DAYS = (  # four digits of the year, so that 1/5/13 is not one of the first century
    (r"(\d{4})-(\d{1,2})-(\d{1,2})", "$1-$2-$3"),
    (r"(\d{4})(\d{2})(\d{2})", "$1-$2-$3"),
    (r"(\d{4})\.(\d{2})\.(\d{2})", "$1-$2-$3"),  # DICOM before 1993 (PS3.5 6.2, DA)
    (r"(\d{1,2})/(\d{1,2})/(\d{4})", "$3-$1-$2"),
    (r"(\d{1,2})\.(\d{1,2})\.(\d{4})", "$3-$2-$1"),
)
_DAY_FIRST = r"^(?:1[3-9]|2\d|3[01])/(?:0?[1-9]|1[0-2])/\d{4}\b"
_DECIMAL_COMMA = r"^[+-]?\d+,\d+$"


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
    """A date in any of the usual forms, with or without a time, or null; 1/5/2013 is the fifth of January."""
    days = []
    for form, order in _DAYS:
        whole = f"^{form}{_CLOCK}$"
        days.append(pl.when(column.str.contains(whole)).then(column.str.replace(whole, order)))
    return pl.coalesce(days).str.to_date("%Y-%m-%d", strict=False, exact=True)


def with_dates(
    frame: pl.DataFrame, columns: Sequence[str], table: str, unread: dict[str, int], strict: bool = True
) -> pl.DataFrame:
    """Columns of text become dates; null where none can be read, which is counted in `unread`.

    Args:
        frame: with the columns.
        columns: their names.
        table: for messages.
        unread: gets the counts.
        strict: of headers, which nobody can mend, unreadable dates are only counted.

    Raises:
        DataError: most of a column's dates cannot be read, or it has the day before the month: rules that ask for days
            would drop or keep knees by accident.
    """
    for column in columns:
        values = frame[column]
        first = values.filter(values.str.contains(_DAY_FIRST).fill_null(value=False))
        if len(first) and strict:
            raise DataError(
                f"{table}: the column {column} has the day before the month, as in {first.min()!r}, so that others "
                "would be misread: write dates as YYYY-MM-DD."
            )
        frame = frame.with_columns(date(pl.col(column)))
        what = "dates; write them as YYYY-MM-DD" if strict else None
        _check(values, frame[column], f"{table}: the column {column}", what, unread)
    return frame


def with_numbers(
    frame: pl.DataFrame, columns: Mapping[str, pl.Expr], table: str, unread: dict[str, int]
) -> pl.DataFrame:
    """Columns of text become these numbers; null where there is none, which is counted in `unread`.

    Raises:
        DataError: most of a column's values are no such numbers, or some have a decimal comma.
    """
    for column, value in columns.items():
        values = frame[column]
        check_decimals(values, table)
        frame = frame.with_columns(value.alias(column))
        _check(values, frame[column], f"{table}: the column {column}", "numbers that may stand there", unread)
    return frame


def check_decimals(values: pl.Series, table: str) -> None:
    """That no number of a column has a decimal comma; of a column of words nothing is asked.

    Raises:
        DataError: one has.
    """
    comma = values.str.contains(_DECIMAL_COMMA).fill_null(value=False)
    numbers = values.cast(pl.Float64, strict=False).is_not_null()
    if comma.any() and (comma | numbers).sum() * 2 >= values.count():
        raise DataError(
            f"{table}: the column {values.name} has decimal commas, as in {values.filter(comma).min()!r}: write points."
        )


def _check(before: pl.Series, after: pl.Series, column: str, what: str | None, unread: dict[str, int]) -> None:
    odd = before.filter(before.is_not_null() & after.is_null())
    if not len(odd):
        return
    if what is not None and 2 * len(odd) > before.count():
        raise DataError(f"{column}: {len(odd)} of {before.count()} values, such as {odd.min()!r}, are no {what}.")
    unread[column] = unread.get(column, 0) + len(odd)


def truth(column: pl.Expr) -> pl.Expr:
    """0 and 1 in their spellings, or null."""
    lower = column.cast(pl.String).str.to_lowercase()
    return lower.replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean)


def odd_truth(column: pl.Expr) -> pl.Expr:
    """Whether a value is neither true nor false nor unknown (-1, null); never null."""
    lower = column.str.to_lowercase()
    return lower.is_not_null() & ~lower.is_in([*_TRUTH, *_UNKNOWN]).fill_null(value=False)


def with_truths(frame: pl.DataFrame, columns: Sequence[str], table: str) -> pl.DataFrame:
    """Columns of 0 and 1 in their spellings; -1 is null.

    Raises:
        DataError: a value is neither: a rule would otherwise drop or keep it by accident. Lists the values.
    """
    for column in columns:
        odd = frame.filter(odd_truth(pl.col(column)))[column].value_counts(sort=True).rows()
        if odd:
            listed = ", ".join(f"{value!r} ({times} times)" for value, times in odd[:20])
            raise DataError(f"{table}: the column {column} holds {listed}; it must be 0, 1, -1 or empty.")
    return frame.with_columns(truth(pl.col(name)).alias(name) for name in columns)


def check_ids(ours: pl.Series, theirs: pl.Series, table: str) -> None:
    """That a table writes patients as those they are to be joined with: 0012, 12 and 12.0 would never meet.

    Raises:
        DataError: some would only meet when leading zeros and a ".0" at the end are taken off; names none of them.
    """
    mine = pl.DataFrame({"ours": ours.drop_nulls().unique(maintain_order=True)})
    other = pl.DataFrame({"theirs": theirs.drop_nulls().unique(maintain_order=True)})
    other = other.filter(~pl.col("theirs").is_in(mine["ours"].implode()))
    met = mine.with_columns(key=bare_id(pl.col("ours"))).join(
        other.with_columns(key=bare_id(pl.col("theirs"))), on="key", maintain_order="left"
    )
    met = met.filter(~pl.col("ours").is_in(theirs.unique().implode()))
    if len(met):
        mine_long, theirs_long = (len(met[name][0]) for name in ("ours", "theirs"))
        how = 'with ".0" at the end' if met["theirs"][0].endswith(".0") else "with other zeros in front"
        # No identifier is named: messages end in logs.
        raise DataError(
            f"{table} writes {len(met)} patient(s) {how}, such as one of {mine_long} characters with {theirs_long}: "
            "read identifiers as text, not as numbers, when tables are written."
        )


def bare_id(column: pl.Expr) -> pl.Expr:
    """An identifier without leading zeros, and without the ".0" of a number."""
    return column.str.replace(r"\.0$", "").str.strip_chars_start("0")


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
