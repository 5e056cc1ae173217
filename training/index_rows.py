"""A row by the full reader: what `inference.reading` makes of a file, in the columns of the index."""

import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from inference.errors import RefusalError
from inference.headers import codes, items
from inference.instances import Instance
from inference.limits import Limits
from inference.reading import read_instance
from inference.sources import ByteSource
from training.index_columns import COLUMNS, NO_VALUES, Column, Kind, Values

_CHUNK = 1 << 20
_MOST_WHOLE = 2**63
_STARTS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
_OWN = {
    "SOPInstanceUID": "sop_instance_uid",
    "SOPClassUID": "sop_class_uid",
    "SeriesInstanceUID": "series_instance_uid",
    "StudyInstanceUID": "study_instance_uid",
}


def read_row(path: Path, limits: Limits) -> tuple[str | None, Values]:
    """Why the file cannot be read (or None), and its values; raises ResourceError."""
    try:
        return None, values_of(read_instance(path, limits))
    except RefusalError as error:
        return error.refusal.reason, NO_VALUES


def read_copied(source: ByteSource, size: int, limits: Limits) -> tuple[str | None, Values]:
    """The same for what is no local file: its head is copied beside, within the limits.

    Raises OSError, ResourceError, and what `source` raises.
    """
    if size > limits.max_file_bytes:
        return f"The file is larger than the limit of {limits.max_file_bytes} bytes.", NO_VALUES
    head = source.read_at(0, 4096)
    known = b"DICM" in (head[128:132], head[:4]) or head[:2] in _STARTS
    most = min(size, limits.max_header_bytes + _CHUNK) if known else len(head)
    with tempfile.NamedTemporaryFile(prefix="genu-index-") as file:
        copied = 0
        while copied < most and (part := source.read_at(copied, min(_CHUNK, most - copied))):
            copied += file.write(part)
        file.flush()
        if copied == most:
            os.truncate(file.name, size)  # what lies behind is pixels, which nobody reads here
        return read_row(Path(file.name), limits)


def values_of(instance: Instance) -> Values:
    """The values of a readable instance, in the order of the columns."""
    row: list[object] = [instance.transfer_syntax_uid]
    for column in COLUMNS:
        own = _OWN.get(column.name)
        row.append(_value(instance.header, column) if own is None else getattr(instance, own))
    return tuple(row)


def _value(header: Dataset, column: Column) -> object:
    for keyword in column.keywords[:-1]:
        found = next(items(header, keyword), None)
        if found is None:
            return None
        header = found
    keyword = column.keywords[-1]
    if column.kind is Kind.CODES:
        return [
            {"value": _clean(one.value), "scheme": _clean(one.scheme), "meaning": _clean(one.meaning)}
            for one in codes(header, keyword)
        ] or None
    value = header.get(keyword)
    values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    if column.kind is Kind.TEXT:
        return _clean("\\".join(str(one) for one in values if one is not None)) or None
    if column.kind is Kind.WHOLE:
        return _whole(values[0] if values else None)
    if column.kind is Kind.NUMBER:
        return _number(values[0] if values else None)
    return _list(values)


def _list(values: Iterable[object]) -> list[float | None] | None:
    numbers = [_number(value) for value in values]
    return None if all(number is None for number in numbers) else numbers


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, float | int) else None


def _whole(value: object) -> int | None:
    if not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        return None
    return int(value) if -_MOST_WHOLE <= value < _MOST_WHOLE else None


def _clean(text: str) -> str:
    """Text that can be stored: no half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode("utf-8")
