"""Values of wanted elements from their bytes, as pydicom would have converted them; whatever is not plain is odd."""

import re
import struct
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

from pydicom.charset import python_encoding

from inference.errors import GenuError
from training.index_columns import Kind

_MOST_CACHED: Final = 20_000
_LONGEST_CACHED: Final = 256  # bytes; longer values are made anew
_MOST_CHARSETS: Final = 16
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


Convert = Callable[[bytes], object]


def is_uid(raw: bytes) -> bool:
    """Whether these bytes, without padding, are one UID."""
    return len(raw) <= 64 and _uid(raw) is not None


def code(parts: list[bytes], text: Text) -> dict[str, str] | None:
    """A code from the bytes of its value, scheme and meaning; None when it says nothing."""
    if any(b"\\" in part for part in parts):
        raise OddError
    value, scheme, meaning = (text.decode(part).strip(" \0") for part in parts)
    return {"value": value, "scheme": scheme, "meaning": meaning} if value or meaning else None


class _Known(dict[bytes, object]):
    """Values by their bytes, which the files of a study repeat; forgotten when they are many."""

    def __init__(self, convert: Convert) -> None:
        super().__init__()
        self._convert = convert

    def __missing__(self, raw: bytes) -> object:
        value = self._convert(raw)
        if len(raw) <= _LONGEST_CACHED:
            if len(self) >= _MOST_CACHED:
                self.clear()
            self[raw] = value
        return value


def known(convert: Convert) -> Convert:
    """The same conversion, remembered by its bytes."""
    return _Known(convert).__getitem__


def _plain_text(raw: bytes) -> str | None:
    return raw.decode("ascii").rstrip(" \0") or None


def _identifier(raw: bytes) -> str | None:
    stripped = raw.rstrip(b"\0 ")
    if _uids(stripped) is None:
        raise OddError
    return stripped.decode("ascii") or None


def required_uid(raw: bytes) -> str:
    """One UID, as every image has it; OddError when it is none."""
    stripped = raw.rstrip(b"\0 ")
    if not is_uid(stripped):
        raise OddError
    return stripped.decode("ascii")


def _described(text: Text, raw: bytes) -> str | None:
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


_uid_known, _text_known = known(_identifier), known(_plain_text)
_CONVERTERS: dict[tuple[Kind, str], Convert] = {
    (Kind.TEXT, "UI"): _uid_known,
    **dict.fromkeys(((Kind.TEXT, vr) for vr in ("AS", "CS", "DA", "DT", "TM")), _text_known),
    (Kind.WHOLE, "US"): known(_word_value),
    (Kind.WHOLE, "IS"): known(_whole_value),
    (Kind.NUMBER, "DS"): known(_number_value),
    (Kind.NUMBERS, "DS"): known(_number_list),
}


@lru_cache(maxsize=_MOST_CHARSETS)
def converters(charset: bytes) -> dict[tuple[Kind, str], Convert]:
    """What makes a value of its bytes, by kind of column and VR, in a data set of this Specific Character Set."""
    described = known(partial(_described, Text(charset)))
    return {**_CONVERTERS, (Kind.TEXT, "LO"): described, (Kind.TEXT, "SH"): described}
