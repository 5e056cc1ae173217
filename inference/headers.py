"""Safe ways to ask a header: whatever stands in an attribute, a short text, a code or nothing comes back."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

_CONTROLLED = re.compile(r"[^A-Z0-9 _.\\/-]")
_DIRECTION = re.compile(r"[APLRHF]{1,3}")
_STANDARD_SCHEMES = frozenset({"SCT", "SRT", "SNM3", "99SDM"})


@dataclass(frozen=True)
class Code:
    """One coded concept (PS3.3 section 8); `meaning` is free text and must not leave the package."""

    value: str
    scheme: str
    meaning: str

    @property
    def is_snomed(self) -> bool:
        """Whether the value is to be read as SNOMED (CT number, or RT identifier)."""
        return self.scheme.upper() in _STANDARD_SCHEMES

    def __str__(self) -> str:
        return controlled(f"{self.value} {self.scheme}")


def texts(header: Dataset, keyword: str) -> tuple[str, ...]:
    """All values of one attribute as stripped texts, without empty ones."""
    value = header.get(keyword)
    if value is None:
        return ()
    parts = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    return tuple(text for part in parts if (text := str(part).strip(" \0")))


def first(header: Dataset, keyword: str) -> str:
    """The first value of one attribute as upper-case text; empty when there is none."""
    found = texts(header, keyword)
    return found[0].upper() if found else ""


def number(header: Dataset, keyword: str) -> int:
    """The first value of one attribute as a whole number; 0 when there is none."""
    found = texts(header, keyword)
    return int(found[0]) if found and len(found[0]) < 12 and found[0].isascii() and found[0].isdigit() else 0


def directions(header: Dataset) -> tuple[str, str] | None:
    """Where rows and columns run to, such as ("L", "F"), by Patient Orientation (PS3.3 C.7.6.1.1.1); else None."""
    found = [value.upper() for value in texts(header, "PatientOrientation")]
    return (found[0], found[1]) if len(found) == 2 and all(map(_DIRECTION.fullmatch, found)) else None


def items(header: Dataset, keyword: str) -> Iterator[Dataset]:
    """The items of a sequence; nothing when it is no sequence."""
    value = header.get(keyword)
    if value is not None and not isinstance(value, str | bytes):
        try:
            found = list(value)
        except TypeError:
            return
        yield from (item for item in found if isinstance(item, Dataset))


def codes(header: Dataset, keyword: str) -> tuple[Code, ...]:
    """The codes of a code sequence; the long and the URN form count too."""
    return tuple(code for item in items(header, keyword) if (code := _code(item)).value or code.meaning)


def _code(item: Dataset) -> Code:
    value = next((v[0] for k in ("CodeValue", "LongCodeValue", "URNCodeValue") if (v := texts(item, k))), "")
    scheme = next(iter(texts(item, "CodingSchemeDesignator")), "")
    return Code(value, scheme, next(iter(texts(item, "CodeMeaning")), ""))


def controlled(text: str) -> str:
    """A coded string as it may stand in a reason: upper case, ASCII, at most 32 characters, nothing odd."""
    return _CONTROLLED.sub("?", text.upper())[:32]
