"""Values of wanted elements from their bytes, as pydicom would have converted them; whatever is not plain is odd."""

import re
import struct
from collections.abc import Callable
from typing import Final

from pydicom.charset import python_encoding

from inference.errors import GenuError
from training.index_columns import Kind

_MOST_CACHED: Final = 20_000
_ESCAPE: Final = b"\x1b"
_uid = re.compile(rb"[0-9]+(?:\.[0-9]+)+").fullmatch
_uids = re.compile(rb"[0-9.\\]*").fullmatch
_number = re.compile(rb" *[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? *").fullmatch
_whole = re.compile(rb" *[+-]?[0-9]{1,18} *").fullmatch
_word = struct.Struct("<H").unpack


class OddError(GenuError):
    """Not an ordinary file: the full reader has to look at it."""


class Text:
    """How the text of one data set is decoded (PS3.3 C.12.1.1.2)."""

    def __init__(self, charset: bytes) -> None:
        self.charset = charset

    def decode(self, raw: bytes) -> str:
        """The text; UnicodeDecodeError or OddError where pydicom would mend or convert."""
        if raw.isascii():
            if _ESCAPE in raw:
                raise OddError
            return raw.decode("ascii")
        if _ESCAPE in raw or b"\\" in self.charset:
            raise OddError
        name = self.charset.decode("ascii").strip(" \0")
        encoding = python_encoding.get(name)
        if encoding is None:
            raise OddError
        return raw.decode(encoding)


Converter = Callable[[bytes, Text], object]


def is_uid(raw: bytes) -> bool:
    """Whether these bytes, without padding, are one UID."""
    return len(raw) <= 64 and _uid(raw) is not None


def code(parts: list[bytes], text: Text) -> dict[str, str] | None:
    """A code from the bytes of its value, scheme and meaning; None when it says nothing."""
    if any(b"\\" in part for part in parts):
        raise OddError
    value, scheme, meaning = (text.decode(part).strip(" \0") for part in parts)
    return {"value": value, "scheme": scheme, "meaning": meaning} if value or meaning else None


def _cached(convert: Callable[[bytes], object]) -> Converter:
    known: dict[bytes, object] = {}

    def look_up(raw: bytes, _: Text) -> object:
        try:
            return known[raw]
        except KeyError:
            if len(known) >= _MOST_CACHED:
                known.clear()
            value = known[raw] = convert(raw)
            return value

    return look_up


def _plain_text(raw: bytes) -> str | None:
    return raw.decode("ascii").rstrip(" \0") or None


def _identifier(raw: bytes, _: Text) -> str | None:
    stripped = raw.rstrip(b"\0 ")
    if _uids(stripped) is None:
        raise OddError
    return stripped.decode("ascii") or None


def _described(raw: bytes, text: Text) -> str | None:
    decoded = text.decode(raw)
    if "\\" in decoded:
        return "\\".join(part.rstrip("\0 ") for part in decoded.split("\\")) or None
    return decoded.rstrip("\0 ") or None


def _word_value(raw: bytes) -> int:
    if len(raw) != 2:
        raise OddError
    return int(_word(raw)[0])


def _whole_value(raw: bytes) -> int | None:
    first = raw.rstrip(b" \0").split(b"\\")
    if not first[0].strip(b" "):
        if len(first) > 1:
            raise OddError
        return None
    if any(_whole(part) is None for part in first):
        raise OddError
    return int(first[0])


def _number_list(raw: bytes) -> list[float] | None:
    stripped = raw.rstrip(b" \0").lstrip(b" ")
    if not stripped:
        return None
    parts = stripped.split(b"\\")
    if any(_number(part) is None for part in parts):
        raise OddError
    return [float(part) for part in parts]


def _number_value(raw: bytes) -> float | None:
    found = _number_list(raw)
    return None if found is None else found[0]


CONVERTERS: dict[tuple[Kind, str], Converter] = {
    (Kind.TEXT, "UI"): _identifier,
    **{(Kind.TEXT, vr): _cached(_plain_text) for vr in ("AS", "CS", "DA", "DT", "TM")},
    (Kind.TEXT, "LO"): _described,
    (Kind.TEXT, "SH"): _described,
    (Kind.WHOLE, "US"): _cached(_word_value),
    (Kind.WHOLE, "IS"): _cached(_whole_value),
    (Kind.NUMBER, "DS"): _cached(_number_value),
    (Kind.NUMBERS, "DS"): _cached(_number_list),
}
