"""Tables that somebody hands in, opened and read: what is wrong with one is said with its name and, where known, line.

Text is UTF-8, with or without a byte order mark. Of another encoding it cannot be told which one it is without a guess
that may change names, so that it is refused with the command that converts it. What stands between the values is seen
in the header, so that an Excel with semicolons or tabs is read as it is.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import polars as pl

from inference.errors import DataError
from training.cohorts.columns import text

_SEPARATORS = (",", ";", "\t", "|")
_OWN = {".tsv": "\t", ".tab": "\t", ".txt": "|"}  # by the file's ending, where the header has it at all
_WIDE = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_PACKED = (
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"\x78\x9c",
    b"\x78\x01",
    b"\x78\xda",
)  # gzip, zstd, zlib: polars reads them
_AGAIN = re.compile(r"_duplicated_\d+$")  # what polars adds to a name that was there
_LONGEST = 1 << 20  # bytes of a header


def names(path: Path) -> list[str]:
    """The columns of a table, without white space around them.

    Raises:
        DataError: it is missing, or no table.
    """
    return [_bare(name, path) for name in _opened(path)[1]]


def scan(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> pl.LazyFrame:
    """The columns `needed` of a table, as text and under these names, read when asked for (`collected`).

    Rows in which all of these columns are empty are left out.

    Args:
        path: a CSV or other separated text, or a Parquet file.
        needed: names; the case of the file's letters does not matter.
        optional: further columns, which become null where the table lacks them.

    Raises:
        DataError: the table cannot be read, lacks columns or has one twice; lists what it has.
    """
    frame, there = _opened(path)
    wanted = (*needed, *optional)
    if again := sorted({name for name in wanted if wanted.count(name) > 1}):
        raise DataError(f"{path}: the column(s) {', '.join(again)} are asked for twice: name each of them once.")
    by_lower: dict[str, list[str]] = {}
    for name in there:
        by_lower.setdefault(_bare(name, path).lower(), []).append(name)
    missing = [name for name in needed if name.lower() not in by_lower]
    if missing:
        raise DataError(f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(map(str.strip, there))}.")
    known = [name for name in wanted if name.lower() in by_lower]
    if twice := [name for name in known if len(by_lower[name.lower()]) > 1]:
        raise DataError(f"{path} has the column(s) {', '.join(twice)} more than once: rename or remove one of them.")
    absent = [name for name in optional if name.lower() not in by_lower]
    chosen = frame.select(text(pl.col(by_lower[name.lower()][0])).alias(name) for name in known)
    filled = chosen.filter(pl.any_horizontal(pl.all().is_not_null()))
    return filled.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)


def collected(frame: pl.LazyFrame, path: Path, streaming: bool = False) -> pl.DataFrame:
    """What a lazy frame over a table's file gives.

    Raises:
        DataError: the file cannot be read; names it and, of a text, the line and what is wrong there.
    """
    try:
        return frame.collect(engine="streaming" if streaming else "auto")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, error) from error


def rows(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> pl.DataFrame:
    """`scan`, read at once.

    Raises:
        DataError: as `scan` and `collected`, or the table has no rows.
    """
    check_rows(path, needed[:1])
    return collected(scan(path, needed, optional), path)


def check_rows(path: Path, needed: Sequence[str]) -> None:
    """That a table has a row with one of these columns: an empty one would drop or keep knees in silence.

    Raises:
        DataError: it has none, or cannot be read.
    """
    if collected(scan(path, needed).head(1), path).is_empty():
        raise DataError(f"{path} has no rows with a value of {', '.join(needed)}: name the table that was filled.")


def separator(path: Path) -> str:
    """What stands between the values of a text table: that of its ending, or what its header has most of."""
    with path.open("rb") as file:
        header = _header(file)
    bare = re.sub(r'"[^"]*"', "", header)
    own = _OWN.get(path.suffix.lower())
    if own is not None and own in bare:
        return own
    return max(_SEPARATORS, key=bare.count)  # the first of those that are there as often


def _header(file: BinaryIO) -> str:
    while line := file.readline(_LONGEST):
        if line.strip():
            return "" if line.startswith(_PACKED) else line.decode("utf-8", errors="replace")
    return ""


def _opened(path: Path) -> tuple[pl.LazyFrame, list[str]]:
    if not path.is_file():
        raise DataError(f"the table {path} is missing, or no file: name the file.")
    try:
        if path.suffix.lower() == ".parquet":
            frame = pl.scan_parquet(path)
            return frame, frame.collect_schema().names()
        between = separator(path)
        frame = pl.scan_csv(path, separator=between, infer_schema=False, quote_char=None if between == "|" else '"')
        there = frame.collect_schema().names()
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path} is empty: name the table that was filled.") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, error) from error
    if any("\ufffd" in name or "\0" in name for name in there):
        raise _unreadable(path, ValueError("its header is no text in UTF-8"))
    return frame, there


def _bare(name: str, path: Path) -> str:
    """A column's name as the file has it, without white space around it."""
    return (name if path.suffix.lower() == ".parquet" else _AGAIN.sub("", name)).strip()


def _unreadable(path: Path, error: Exception) -> DataError:
    said = str(error).strip().splitlines() or [type(error).__name__]
    try:
        found = None if path.suffix.lower() == ".parquet" else _fault(path)
    except OSError:  # the reason is that of the first attempt
        found = None
    return DataError(found or f"{path} is not a table that can be read ({said[0]}): write or copy it again.")


def _fault(path: Path) -> str | None:
    """What is wrong with a text, and in which line; None where nothing is found."""
    with path.open("rb") as file:
        start = file.read(4)
        if start.startswith(_PACKED):
            return None
        if start[:2] in _WIDE:
            return f"{path} is {_WIDE[start[:2]]}, not UTF-8: {_convert(path, _WIDE[start[:2]])}."
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return (
                    f"{path}, line {number}: the byte 0x{line[error.start]:02X} is not UTF-8, the table is of another "
                    f"encoding: {_convert(path, 'WINDOWS-1252')} (or the encoding that it has)."
                )
    return _fault_of_rows(path)


def _convert(path: Path, encoding: str) -> str:
    return f'save it as "CSV UTF-8", or convert it with `iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}`'


def _fault_of_rows(path: Path) -> str | None:
    between = separator(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=between, quotechar=None if between == "|" else '"', strict=True)
        begun, width = 1, 0
        try:
            for row in reader:
                width = width or len(row)
                if len(row) > width:
                    return (
                        f"{path}, line {begun}: {len(row)} values, but the header has {width}: quote or mend the row."
                    )
                begun = reader.line_num + 1
        except csv.Error as error:
            return f"{path}, the row that begins in line {begun}: {error}; is a quotation mark not closed?"
    return None
