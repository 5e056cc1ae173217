"""Which study, series and instance a received data set belongs to, read from its raw bytes (PS3.5 section 7).

The listener decodes nothing. It only has to know four UIDs before it may answer, and they stand near the start of every
data set. This walk reads tags, lengths and these four values; everything else is stepped over. It does not recurse, so
nesting costs nothing, and it is bounded in elements and in inflated bytes, so a deflate bomb costs nothing either.
"""

import zlib
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from inference.errors import UnreadableError
from inference.findings import RefusalCode
from plugin.negotiation import MAX_UID_LENGTH, is_uid, text_of

IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

MAX_ELEMENTS = 200_000
MAX_DEPTH = 10_000
MAX_INFLATED_BYTES = 64 * 1024 * 1024
_BLOCK = 64 * 1024

_UNDEFINED = 0xFFFFFFFF
_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD

_SOP_CLASS = 0x00080016
_SOP_INSTANCE = 0x00080018
_STUDY = 0x0020000D
_SERIES = 0x0020000E
_NAMES = {
    _SOP_CLASS: "SOP Class UID (0008,0016)",
    _SOP_INSTANCE: "SOP Instance UID (0008,0018)",
    _STUDY: "Study Instance UID (0020,000D)",
    _SERIES: "Series Instance UID (0020,000E)",
}

# Value representations whose length has two bytes; all others, future ones too, have four (PS3.5 7.1.2).
SHORT_LENGTHS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split(),
)


@dataclass(frozen=True)
class Identifiers:
    """The four UIDs of an instance, as they stand in its data set; study and series are valid UIDs."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str


class _Source(Protocol):
    def read(self, count: int) -> bytes:
        """Up to `count` bytes, fewer only at the end."""

    def skip(self, count: int) -> None:
        """Step over `count` bytes; raises UnreadableError at the end."""


def unreadable(reason: str) -> UnreadableError:
    """The refusal of a data set that cannot be understood."""
    return UnreadableError(RefusalCode.UNREADABLE, reason)


class _Plain:
    """The bytes of a file from `offset` to its end."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._left = size - offset
        file.seek(offset)

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self._left -= len(data)
        return data

    def skip(self, count: int) -> None:
        if count > self._left:
            raise unreadable(f"an element of {count} bytes is longer than the rest of the data set ({self._left})")
        self._file.seek(count, 1)
        self._left -= count


class _Inflated:
    """The bytes of a deflated data set, inflated block by block and only as far as they are asked for."""

    def __init__(self, file: BinaryIO, offset: int) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._ready = b""
        self._total = 0
        file.seek(offset)

    def _next(self) -> bool:
        if self._inflate.eof:
            return False
        source = self._inflate.unconsumed_tail or self._file.read(_BLOCK)
        try:
            block = self._inflate.decompress(source, _BLOCK)
        except zlib.error as error:
            raise unreadable("the deflated data set does not inflate") from error
        self._total += len(block)
        if self._total > MAX_INFLATED_BYTES:
            raise unreadable(f"the deflated header is larger than {MAX_INFLATED_BYTES} bytes")
        self._ready += block
        return bool(block) or bool(source)

    def read(self, count: int) -> bytes:
        while len(self._ready) < count and self._next():
            pass
        data, self._ready = self._ready[:count], self._ready[count:]
        return data

    def skip(self, count: int) -> None:
        while count:
            step = len(self.read(min(count, _BLOCK)))
            if not step:
                raise unreadable("an element is longer than the rest of the deflated data set")
            count -= step


class _Walk:
    """The state of one walk: byte order, explicit or implicit, and the open sequences and items."""

    def __init__(self, source: _Source, transfer_syntax: str) -> None:
        self._source = source
        self._big = transfer_syntax == BIG_ENDIAN
        self._implicit = transfer_syntax == IMPLICIT
        self._open: list[bool] = []  # alternately a sequence and an item: what `_implicit` was outside of it
        self.found: dict[int, str] = {}

    def _number(self, raw: bytes) -> int:
        return int.from_bytes(raw, "big" if self._big else "little")

    def _exactly(self, count: int) -> bytes:
        raw = self._source.read(count)
        if len(raw) != count:
            raise unreadable("the data set ends in the middle of an element")
        return raw

    def _tag(self, raw: bytes) -> int:
        return (self._number(raw[:2]) << 16) | self._number(raw[2:])

    def _enter(self, *, implicit: bool) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise unreadable(f"sequences are nested more than {MAX_DEPTH} deep")
        self._open.append(self._implicit)
        self._implicit = implicit

    def _delimiter(self, tag: int) -> bool:
        """Handle what belongs to the inside of sequences; False when `tag` begins an ordinary element."""
        in_sequence = len(self._open) % 2 == 1
        if not in_sequence and tag != _ITEM_END:
            return False
        length = self._number(self._exactly(4))
        if tag == (_SEQUENCE_END if in_sequence else _ITEM_END) and self._open:
            self._implicit = self._open.pop()
        elif in_sequence and tag == _ITEM:
            if length == _UNDEFINED:
                self._enter(implicit=self._implicit)
            else:
                self._source.skip(length)
        else:
            raise unreadable(f"tag {tag:08X} stands where an item or the end of one should")
        return True

    def _length(self) -> tuple[int, bool]:
        """Length of the element whose tag was read, and whether its content would be implicit."""
        head = self._exactly(4)
        if self._implicit:
            return self._number(head), True
        representation = head[:2]
        if not (representation.isalpha() and representation.isupper()):
            raise unreadable("an element has no value representation where the transfer syntax demands one")
        if representation in SHORT_LENGTHS:
            return self._number(head[2:]), False
        # UN of undefined length is Implicit VR inside (PS3.5 6.2.2 note 4).
        return self._number(self._exactly(4)), representation == b"UN"

    def step(self) -> bool:
        """Read one tag and what belongs to it; False when the identifiers lie behind, or at the end."""
        raw = self._source.read(4)
        if not raw and not self._open:
            return False
        if len(raw) != 4:
            raise unreadable("the data set ends in the middle of an element")
        tag = self._tag(raw)
        if self._delimiter(tag):
            return True
        if not self._open and tag > _SERIES:
            return False
        length, implicit_inside = self._length()
        if length == _UNDEFINED:
            self._enter(implicit=implicit_inside)
        elif not self._open and tag in _NAMES:
            if length > MAX_UID_LENGTH + 1:
                raise unreadable(f"{_NAMES[tag]} is {length} bytes long")
            self.found[tag] = text_of(self._exactly(length))
        else:
            self._source.skip(length)
        return True


def identify(file: BinaryIO, offset: int, size: int, transfer_syntax: str) -> Identifiers:
    """The identifiers of the data set that begins at `offset` of a file of `size` bytes.

    Raises UnreadableError when one of the four is missing, is no UID, or cannot be reached within the limits.
    """
    source = _Inflated(file, offset) if transfer_syntax == DEFLATED else _Plain(file, offset, size)
    walk = _Walk(source, transfer_syntax)
    for _ in range(MAX_ELEMENTS):
        if not walk.step():
            break
    else:
        raise unreadable(f"the identifiers do not come within the first {MAX_ELEMENTS} elements")
    for tag, name in _NAMES.items():
        if not is_uid(walk.found.get(tag, "")):
            raise unreadable(f"{name} is missing or not a UID")
    return Identifiers(*(walk.found[tag] for tag in (_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES)))
