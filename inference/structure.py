"""The element structure of a data set (PS3.5 section 7), walked without recursion and within limits.

pydicom reads hostile structure recursively and believes declared lengths; here every length is checked against the
bytes that are there before anything is allocated, and nesting is a list. Values are left to pydicom's converters.
"""

import struct
from dataclasses import dataclass, field

from pydicom.charset import convert_encodings, default_encoding, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from inference.errors import UnreadableError
from inference.findings import RefusalCode
from inference.limits import Limits
from inference.sources import ByteSource

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_CHARACTER_SET = 0x00080005
_UN_CONVERTED_BELOW = 0xFFFF  # pydicom converts shorter UN values to the dictionary's VR
_LONG_VRS = frozenset(str(vr) for vr in EXPLICIT_VR_LENGTH_32)
_KNOWN_VRS = frozenset(str(vr) for vr in STANDARD_VR)
_OPAQUE_VRS = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "OB or OW"})
_NUMBER_SIZES = {"UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 4, "UV": 8, "SV": 8}
_NUMBER_SIZES |= dict.fromkeys(("US", "SS", "US or SS", "US or OW", "US or SS or OW", "UN"), 2)
_PYTHON_ENCODINGS = frozenset(python_encoding.values())


@dataclass(frozen=True)
class Encoding:
    """How elements are written: a transfer syntax without its pixel part."""

    implicit: bool
    little: bool

    @property
    def order(self) -> str:
        """The byte order sign of `struct`."""
        return "<" if self.little else ">"


@dataclass(frozen=True)
class PixelElement:
    """Where the pixels lie: `length` None means encapsulated (undefined length)."""

    tag: int
    vr: str
    offset: int
    length: int | None


@dataclass(frozen=True)
class _Head:
    tag: int
    vr: str
    offset: int
    length: int


@dataclass
class _Level:
    """An open item (`elements` fill up) or an open sequence (`items` fill up)."""

    end: int | None
    encoding: Encoding
    charset: str | list[str]
    sequence_tag: int = 0
    elements: dict[BaseTag, RawDataElement | DataElement] | None = None
    items: list[Dataset] = field(default_factory=list)


def unreadable(reason: str) -> UnreadableError:
    """An error with the code UNREADABLE."""
    return UnreadableError(RefusalCode.UNREADABLE, reason)


def tag_name(tag: int) -> str:
    """A tag as PS3.6 writes it, for reasons."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class StructureReader:
    """One pass over one data set, up to Pixel Data; `read` may be called once."""

    def __init__(self, source: ByteSource, encoding: Encoding, limits: Limits, start: int = 0) -> None:
        self._source = source
        self._limits = limits
        self._position = start
        self._levels = [_Level(None, encoding, default_encoding, elements={})]
        self._elements = 0
        self._values = 0
        self._bytes = 0

    def read(self, only_group: int | None = None) -> tuple[Dataset, PixelElement | None, int]:
        """The data set without private elements, overlays, curves and pixels; where the pixels are; where it ended.

        With `only_group` reading stops before the first element of another group (file meta, PS3.10 section 7.1).
        Raises UnreadableError for lengths beyond the file, nesting or counts beyond the limits, and stray delimiters.
        """
        while True:
            self._close_finished()
            level = self._levels[-1]
            raw = self._source.read_at(self._position, 8)
            if len(raw) < 8:
                if len(self._levels) > 1 or any(raw):
                    raise unreadable(f"The data set ends inside of an element at byte {self._position}: truncated.")
                break
            if level.elements is None:
                self._open_item(raw)
                continue
            tag = self._tag(raw, level.encoding)
            if tag == ITEM_END and len(self._levels) > 1 and level.end is None:
                self._position += 8
                self._close()
                continue
            if len(self._levels) == 1:
                if tag >> 16 == 0 or (only_group is not None and tag >> 16 != only_group):
                    break  # padding after the last element, or the end of the group
                if tag in PIXEL_TAGS:
                    head = self._head(raw, level.encoding)
                    length = None if head.length == UNDEFINED else head.length
                    return self._finish(), PixelElement(tag, head.vr, head.offset, length), self._position
            self._element(self._head(raw, level.encoding), level)
        return self._finish(), None, self._position

    def _tag(self, raw: bytes, encoding: Encoding) -> int:
        group, element = struct.unpack(encoding.order + "HH", raw[:4])
        return int(group << 16 | element)

    def _head(self, raw: bytes, encoding: Encoding) -> _Head:
        tag, letters = self._tag(raw, encoding), raw[4:6]
        # A VR that is not two capitals: some writers switch to implicit VR inside of sequences.
        if encoding.implicit or not (letters.isalpha() and letters.isupper() and letters.isascii()):
            (length,) = struct.unpack(encoding.order + "L", raw[4:])
            return _Head(tag, _implicit_vr(tag), self._position + 8, length)
        vr = letters.decode("ascii")
        if vr not in _LONG_VRS:
            (length,) = struct.unpack(encoding.order + "H", raw[6:])
            return _Head(tag, vr, self._position + 8, length)
        extra = self._source.read_at(self._position + 8, 4)
        if len(extra) < 4:
            raise unreadable(f"The data set ends inside of element {tag_name(tag)}: truncated.")
        return _Head(tag, vr, self._position + 12, struct.unpack(encoding.order + "L", extra)[0])

    def _element(self, head: _Head, level: _Level) -> None:
        self._elements += 1
        if self._elements > self._limits.max_elements:
            raise unreadable(f"The data set holds more than {self._limits.max_elements} elements.")
        if head.tag >> 16 == 0xFFFE:
            raise unreadable(f"A delimiter {tag_name(head.tag)} stands where an element should, at {self._position}.")
        if head.length == UNDEFINED or _is_sequence(head):
            self._open_sequence(head, level)
            return
        end = head.offset + head.length
        if level.end is not None and end > level.end:
            raise unreadable(f"Element {tag_name(head.tag)} is longer than the item that holds it.")
        if not self._source.holds(end):
            raise unreadable(
                f"Element {tag_name(head.tag)} declares {head.length} bytes, more than the file has: truncated."
            )
        self._position = end
        if _is_kept(head.tag) and level.elements is not None:
            self._keep(head, level, level.elements)

    def _keep(self, head: _Head, level: _Level, elements: dict[BaseTag, RawDataElement | DataElement]) -> None:
        self._bytes += head.length
        if self._bytes > self._limits.max_header_bytes:
            raise unreadable(f"The header is larger than the limit of {self._limits.max_header_bytes} bytes.")
        value = self._source.read_at(head.offset, head.length)
        if head.vr not in _OPAQUE_VRS and not (head.vr == "UN" and head.length >= _UN_CONVERTED_BELOW):
            size = _NUMBER_SIZES.get(head.vr)
            self._values += value.count(b"\\") + 1 if size is None else len(value) // size
            if self._values > self._limits.max_values:
                raise unreadable(f"The header holds more than {self._limits.max_values} values.")
        tag, encoding = BaseTag(head.tag), level.encoding
        found = value or _empty(head.vr)
        elements[tag] = RawDataElement(
            tag, head.vr, head.length, found, head.offset, encoding.implicit, encoding.little
        )
        if head.tag == _CHARACTER_SET:
            level.charset = _charset(value)

    def _open_sequence(self, head: _Head, level: _Level) -> None:
        # Each nesting level of DICOM is a sequence and an item: two entries of the stack.
        if len(self._levels) // 2 >= self._limits.max_depth:
            raise unreadable(f"Sequences are nested deeper than {self._limits.max_depth} levels.")
        encoding = level.encoding
        if head.vr == "UN":
            encoding = Encoding(implicit=True, little=True)  # PS3.5 section 6.2.2 note 2
        end = None if head.length == UNDEFINED else head.offset + head.length
        if end is not None and ((level.end is not None and end > level.end) or not self._source.holds(end)):
            raise unreadable(f"Sequence {tag_name(head.tag)} declares {head.length} bytes, more than there are.")
        self._position = head.offset
        self._levels.append(_Level(end, encoding, level.charset, sequence_tag=head.tag))
        if end is None and head.vr in ("OB", "OW"):
            self._skip_fragments(head)

    def _skip_fragments(self, head: _Head) -> None:
        """Encapsulated pixels of an icon: not kept."""
        self._levels.pop()
        self._position = fragments_end(self._source, head.offset, head.tag, self._limits.max_elements)

    def _open_item(self, raw: bytes) -> None:
        sequence = self._levels[-1]
        tag = self._tag(raw, sequence.encoding)
        (length,) = struct.unpack(sequence.encoding.order + "L", raw[4:])
        self._position += 8
        self._elements += 1
        if tag == SEQUENCE_END and sequence.end is None:
            self._close()
            return
        if tag != ITEM:
            raise unreadable(f"Sequence {tag_name(sequence.sequence_tag)} holds {tag_name(tag)} instead of an item.")
        if self._elements > self._limits.max_elements:
            raise unreadable(f"The data set holds more than {self._limits.max_elements} elements.")
        end = None if length == UNDEFINED else self._position + length
        if end is not None and ((sequence.end is not None and end > sequence.end) or not self._source.holds(end)):
            raise unreadable(f"An item of sequence {tag_name(sequence.sequence_tag)} is longer than what is there.")
        encoding = self._item_encoding(sequence.encoding)
        self._levels.append(_Level(end, encoding, sequence.charset, elements={}))

    def _item_encoding(self, encoding: Encoding) -> Encoding:
        letters = self._source.read_at(self._position + 4, 2)
        if encoding.implicit or letters.decode("latin-1") in _KNOWN_VRS or len(letters) < 2 or not any(letters):
            return encoding
        return encoding if letters.isalpha() and letters.isupper() else Encoding(implicit=True, little=encoding.little)

    def _close_finished(self) -> None:
        while len(self._levels) > 1:
            level = self._levels[-1]
            if level.end is None or self._position < level.end:
                return
            self._close()

    def _close(self) -> None:
        level = self._levels.pop()
        parent = self._levels[-1]
        if level.elements is not None:
            parent.items.append(_dataset(level))
        elif parent.elements is not None and _is_kept(level.sequence_tag):
            tag = BaseTag(level.sequence_tag)
            parent.elements[tag] = DataElement(tag, "SQ", Sequence(level.items))

    def _finish(self) -> Dataset:
        return _dataset(self._levels[0])


def fragments_end(source: ByteSource, offset: int, tag: int, max_fragments: int) -> int:
    """The byte after the sequence delimiter of encapsulated pixels (PS3.5 A.4); raises UnreadableError."""
    for _ in range(max_fragments):
        raw = source.read_at(offset, 8)
        if len(raw) < 8:
            break
        group, element, length = struct.unpack("<HHL", raw)
        found = group << 16 | element
        offset += 8
        if found == SEQUENCE_END:
            return offset
        if found != ITEM or length == UNDEFINED or not source.holds(offset + length):
            break
        offset += length
    raise unreadable(f"The fragments of {tag_name(tag)} are damaged or truncated.")


def _dataset(level: _Level) -> Dataset:
    dataset = Dataset(level.elements or {})
    dataset.set_original_encoding(level.encoding.implicit, level.encoding.little, level.charset)
    return dataset


def _implicit_vr(tag: int) -> str:
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UN"


def _is_sequence(head: _Head) -> bool:
    return head.vr == "SQ" or (head.vr == "UN" and _is_kept(head.tag) and _implicit_vr(head.tag) == "SQ")


def _is_kept(tag: int) -> bool:
    """Neither private, nor a group length, nor a curve or overlay plane: none of them says which knee it is."""
    group = tag >> 16
    return group % 2 == 0 and bool(tag & 0xFFFF) and group & 0xFF00 not in (0x5000, 0x6000)


def _empty(vr: str) -> bytes | None:
    value = empty_value_for_VR(vr, raw=True)
    return value if isinstance(value, bytes) else None


def _charset(value: bytes) -> str | list[str]:
    names: list[str] = [name.strip(" \0") for name in value.decode("latin-1").split("\\")]
    found = convert_encodings(names)
    # pydicom accepts any codec name of Python here, "idna" and its like included: only those of PS3.3 C.12.1.1.2 count.
    return found if _PYTHON_ENCODINGS.issuperset(found) else default_encoding
