"""What the label tables of the grader have in common: CSV with named columns, a side and a grade in each row."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from inference.errors import DataError
from inference.findings import Side

_GRADE = re.compile(r"([0-4])(?:\.0*)?")


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The rows, each with where it stands ("PATH, row 2"; the header is row 1) and its stripped values of `columns`.

    Raises:
        DataError: the file or a column is missing, it is no CSV in UTF-8, or it has no row.
    """
    if not path.is_file():
        raise DataError(f"the label table {path} is missing: it has the columns {', '.join(columns)}.")
    try:
        # Spreadsheets put a byte order mark in front.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(reader.fieldnames or ())}."
                )
            found = [
                (f"{path}, row {number}", {name: (row[name] or "").strip() for name in columns})
                for number, row in enumerate(reader, start=2)
            ]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no CSV in UTF-8 ({error}): save it as one.") from error
    if not found:
        raise DataError(f"{path} has no row: write one a knee.")
    return found


def side_of(where: str, value: str) -> Side:
    """A knee's side.

    Raises:
        DataError: it is not L or R.
    """
    if value not in ("L", "R"):
        raise DataError(f"{where}: side is {value!r}; it must be L or R, the knee's.")
    return Side(value)


def grade_of(where: str, value: str) -> int:
    """A Kellgren-Lawrence grade; "2.0" is 2.

    Raises:
        DataError: it is not 0 to 4.
    """
    grade = _GRADE.fullmatch(value)
    if grade is None:
        raise DataError(f"{where}: kl is {value!r}; it must be a grade 0 to 4. Leave out knees without one.")
    return int(grade[1])
