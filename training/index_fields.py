"""From the bytes of wanted elements to the values of a row, in the order of the columns."""

from functools import lru_cache, partial
from typing import Any, Final

from inference.limits import DEFAULT_LIMITS
from inference.sources import BytesSource
from training.index_columns import COLUMNS, NO_VALUES, Kind, Values
from training.index_elements import CHARSET, CODE_KEYS, ODD_IN_CODE, WANTED, Found, Walk, key_of, keyword_key
from training.index_values import Convert, OddError, Text, code, converters, known, required_uid

_MOST_CHARSETS: Final = 16
_REQUIRED = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")
_REQUIRED_SLOTS = tuple(1 + [column.name for column in COLUMNS].index(name) for name in _REQUIRED)
_NESTED = tuple((1 + number, column) for number, column in enumerate(COLUMNS) if len(column.tags) > 1)
_INSTANCE = keyword_key("SOPInstanceUID")
SHARED_GROUPS = key_of(_NESTED[0][1].tags[0])
Fields = dict[int, tuple[int, Any]]  # key -> place in the row, what makes the value of bytes (or of a sequence's items)


@lru_cache(maxsize=_MOST_CHARSETS)
def fields(charset: bytes) -> Fields:
    """The columns that are taken from the data set itself, in a data set of this Specific Character Set."""
    convert = converters(charset)
    found: Fields = {}
    for place, column in enumerate(COLUMNS, 1):
        if len(column.tags) == 1:
            codes = column.kind is Kind.CODES
            made = partial(_codes, Text(charset)) if codes else convert[column.kind, column.vr]
            found[key_of(column.tags[0])] = place, made
    for name in _REQUIRED:
        place, _ = found[keyword_key(name)]
        found[keyword_key(name)] = place, known(required_uid)
    found[_INSTANCE] = found[_INSTANCE][0], required_uid  # not remembered: no two files share it
    return found


@lru_cache(maxsize=2 * _MOST_CHARSETS)
def codes_of_element(charset: bytes, explicit: bool) -> Convert:
    """What makes codes of a whole sequence, its head included."""
    return known(partial(_codes_of_element, Text(charset), explicit))


def _codes_of_element(text: Text, explicit: bool, raw: bytes) -> object:
    found: Found = {}
    Walk(BytesSource(raw), DEFAULT_LIMITS).elements(0, None, WANTED, explicit, 0, found, until=1)
    (items,) = found.values()
    return _codes(text, items)


def values(syntax: str, found: Found) -> Values:
    """The row of what was found in a data set; OddError when the full reader has to look at it."""
    charset = charset_of(found)
    place_of = fields(charset).get
    row: list[object] = [syntax, *NO_VALUES[1:]]
    for key, raw in found.items():
        field = place_of(key)
        if field is not None and raw:
            row[field[0]] = field[1](raw)
    if SHARED_GROUPS in found:
        _fill_nested(row, found, charset)
    return finished(row)


def finished(row: list[object]) -> Values:
    """The row, unless it lacks what every image has."""
    for place in _REQUIRED_SLOTS:
        if row[place] is None:
            raise OddError
    return tuple(row)


def charset_of(found: Found) -> bytes:
    """Specific Character Set; items are read with what stands before them, so it has to come before all sequences."""
    for key, value in found.items():
        if key == CHARSET:
            return bytes(value)
        if isinstance(value, list):
            break
    if CHARSET in found:
        raise OddError
    return b""


def _codes(text: Text, items: list[Found]) -> list[dict[str, str]] | None:
    codes = []
    for item in items:
        if any(key in item for key in ODD_IN_CODE):
            raise OddError
        made = code([item.get(key, b"") for key in CODE_KEYS], text)
        if made is not None:
            codes.append(made)
    return codes or None


def _fill_nested(row: list[object], found: Found, charset: bytes) -> None:
    convert = converters(charset)
    for place, column in _NESTED:
        raw = _first(found, tuple(map(key_of, column.tags)))
        row[place] = convert[column.kind, column.vr](raw) if raw else None


def _first(found: Found, keys: tuple[int, ...]) -> bytes | None:
    for key in keys[:-1]:
        items = found.get(key)
        if not items:
            return None
        found = items[0]
        if CHARSET in found:
            raise OddError
    return found.get(keys[-1])
