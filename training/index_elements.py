"""Element heads of a data set (PS3.5 section 7), walked within the first bytes of a file; only wanted values are kept.

Every length, delimiter and limit is checked as `inference.structure` checks it. Whatever is not quite ordinary raises
OddError: the full reader has to look at the file.
"""

import struct
from typing import Any, Final

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import tag_for_keyword

from inference.limits import Limits
from inference.sources import ByteSource
from training.index_columns import COLUMNS, Kind
from training.index_values import OddError

CHUNKS: Final = (1 << 14, 1 << 17)  # bytes read at first and by each later read
_FAR: Final = 1 << 62
_MAX_DEPTH: Final = 16
UNDEFINED: Final = 0xFFFFFFFF
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_VRS = frozenset(b"OB OD OF OL OV OW SV UC UN UR UT UV".split())
head_explicit = struct.Struct("<L2sH").unpack_from
head_implicit = struct.Struct("<LL").unpack_from
_long_length = struct.Struct("<L").unpack_from

Found = dict[int, Any]  # key -> bytes of a value, or a list of Found, one an item
Wanted = dict[int, Any]  # key -> VR, or the Wanted of a sequence's items
Head = tuple[int, int, int]  # where it begins, where its value does, how deep in sequences


def key_of(tag: int) -> int:
    """A tag as its four bytes read as one little endian number: element first."""
    return (tag & 0xFFFF) << 16 | tag >> 16


def keyword_key(keyword: str) -> int:
    """The key of a keyword of PS3.6."""
    return key_of(tag_for_keyword(keyword) or 0)


_ITEM, _ITEM_END, _SEQUENCE_END = key_of(0xFFFEE000), key_of(0xFFFEE00D), key_of(0xFFFEE0DD)
PIXELS = frozenset(map(key_of, (0x7FE00008, 0x7FE00009, 0x7FE00010)))
SPECIAL_GROUPS = frozenset({0x0000, 0x7FE0, 0xFFFE})
SEQUENCES = frozenset(key_of(tag) for tag, entry in DicomDictionary.items() if entry[0] == "SQ") | frozenset(
    key_of(group << 16 | 0x2600)
    for group in range(0x5000, 0x5100)  # of curves, by mask in PS3.6
)
CHARSET = keyword_key("SpecificCharacterSet")
SYNTAX, MEDIA_CLASS = keyword_key("TransferSyntaxUID"), keyword_key("MediaStorageSOPClassUID")
_META: Wanted = {SYNTAX: b"UI", MEDIA_CLASS: b"UI"}
CODE_KEYS = tuple(map(keyword_key, ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")))
ODD_IN_CODE = tuple(map(keyword_key, ("LongCodeValue", "URNCodeValue", "SpecificCharacterSet")))
_CODE: Wanted = dict(zip((*CODE_KEYS, *ODD_IN_CODE), (b"SH", b"SH", b"LO", b"UC", b"UR", b"CS"), strict=True))
_NOTHING: Wanted = {}


def _wanted() -> Wanted:
    wanted: Wanted = {CHARSET: b"CS"}
    for column in COLUMNS:
        level = wanted
        for tag in column.tags[:-1]:
            level = level.setdefault(key_of(tag), {CHARSET: b"CS"})
        level[key_of(column.tags[-1])] = _CODE if column.kind is Kind.CODES else column.vr.encode()
    return wanted


WANTED = _wanted()


def _ends_walk(key: int, depth: int) -> bool:
    """Delimiters end any walk; pixels and padding (group 0000) only that of the data set itself."""
    return key & 0xFFFF == 0xFFFE or (depth == 0 and (key in PIXELS or key & 0xFFFF == 0))


class Walk:
    """One pass over elements; `data` are the first bytes, as many as were needed, `heads` all element heads met."""

    def __init__(self, source: ByteSource, limits: Limits) -> None:
        self._read = source.read_at
        # Within so many bytes neither elements nor values nor kept bytes can pass their limits.
        self._most = min(8 * limits.max_elements, limits.max_values, limits.max_header_bytes)
        self.depth = min(_MAX_DEPTH, limits.max_depth)
        self.heads: list[Head] = []
        self.data = self._read(0, min(CHUNKS[0], self._most))

    def reaches(self, end: int) -> bool:
        """Whether there are so many bytes, and not too many for here; then they are in `data`."""
        have = len(self.data)
        if have < end <= self._most:
            self.data += self._read(have, min(max(CHUNKS[1], end - have), self._most - have))
        return len(self.data) >= end

    def more(self, end: int) -> bytes:
        """The data with at least `end` bytes; OddError when there are not so many, or too many for here."""
        if not self.reaches(end):
            raise OddError
        return self.data

    def meta(self, pos: int, found: Found) -> int:
        """Walk the group 0002, which is always explicit little endian; returns where it ends."""
        data = self.data
        while True:
            if len(data) < pos + 12:
                data = self.more(pos + 12)
            key, vr, length = head_explicit(data, pos)
            if key & 0xFFFF != 2:
                return pos
            begin, pos = pos, pos + 8
            if vr in LONG_VRS:
                (length,) = _long_length(data, pos)
                pos += 4
            elif vr not in _SHORT_VRS:
                raise OddError
            self.heads.append((begin, pos, 0))
            end = pos + length
            if end > len(data):
                data = self.more(end)
            if key in _META:
                if key in found or vr != _META[key]:
                    raise OddError
                found[key] = data[pos:end]
            pos = end

    def elements(
        self, pos: int, end: int | None, wanted: Wanted, explicit: bool, depth: int, found: Found, until: int = _FAR
    ) -> int:
        """Walk elements up to `end`, to the item's delimiter, or at depth 0 to the pixels; returns where they end.

        `until` stops the walk behind the element that reaches it.
        """
        # Elements that nobody wants are stepped over: where one ends beyond the data, the next head tells.
        data, note = self.data, self.heads.append
        if end is not None:
            until = end
        while pos < until:
            try:
                if explicit:
                    key, vr, length = head_explicit(data, pos)
                    value = pos + 8
                    if vr in LONG_VRS or vr == b"SQ":
                        (length,) = _long_length(data, value)
                        value = pos + 12
                    elif vr not in _SHORT_VRS:
                        return self._delimited(key, pos, end, depth)
                else:
                    key, length = head_implicit(data, pos)
                    value, vr = pos + 8, b"SQ" if key in SEQUENCES else b""
            except struct.error:
                if depth == 0 and self._at_end(pos):
                    return pos
                data = self.more(pos + 12 if len(data) >= pos + 8 else pos + 8)
                continue
            if key & 0xFFFF in SPECIAL_GROUPS and _ends_walk(key, depth):
                return self._delimited(key, pos, end, depth)
            note((pos, value, depth))
            if vr == b"SQ" or length == UNDEFINED:
                pos = self._sequence(key, vr, value, length, end, wanted.get(key), explicit, depth, found)
                data = self.data
                continue
            pos = value + length
            if end is not None and pos > end:
                raise OddError
            if key in wanted:
                if key in found or (explicit and vr != wanted[key]):
                    raise OddError
                if pos > len(data):
                    data = self.more(pos)
                found[key] = data[value:pos]
            elif vr == b"UN" and key in SEQUENCES:
                raise OddError
        return pos

    def _delimited(self, key: int, pos: int, end: int | None, depth: int) -> int:
        """What a head that is no plain element means: the end of the walk, or something odd."""
        self.heads.append((pos, pos + 8, depth))
        if depth and key == _ITEM_END and end is None:
            if len(self.data) < pos + 8:
                self.more(pos + 8)
            return pos + 8
        if depth == 0 and key in PIXELS:
            return pos
        raise OddError

    def _at_end(self, pos: int) -> bool:
        """Whether the data set ends just here; fetches more of it when it does not."""
        while len(self.data) < min(pos + 8, self._most) and (
            part := self._read(len(self.data), min(CHUNKS[1], self._most - len(self.data)))
        ):
            self.data += part
        if len(self.data) < pos + 8 and (len(self.data) != pos or pos >= self._most):
            raise OddError
        return len(self.data) == pos

    def _sequence(
        self, key: int, vr: bytes, pos: int, length: int, end: int | None, wanted: Any, explicit: bool, depth: int,
        found: Found,
    ) -> int:  # fmt: skip
        """Walk a sequence; its items are kept when they are wanted."""
        private = key & 1
        if depth >= self.depth or isinstance(wanted, bytes) or (wanted is not None and key in found):
            raise OddError
        if vr != b"SQ":  # of undefined length: PS3.5 section 6.2.2 note 2, or a private sequence in implicit VR
            if (explicit and vr != b"UN") or not private:
                raise OddError
            explicit = False
        stop = None if length == UNDEFINED else pos + length
        if stop is not None and end is not None and stop > end:
            raise OddError
        items: list[Found] = []
        data, note = self.data, self.heads.append
        while stop is None or pos < stop:
            if len(data) < pos + 8:
                data = self.more(pos + 8)
            tag, size = head_implicit(data, pos)
            pos += 8
            note((pos - 8, pos, depth + 1))
            if tag == _SEQUENCE_END and stop is None:
                break
            item_end = None if size == UNDEFINED else pos + size
            if tag != _ITEM or (item_end is not None and stop is not None and item_end > stop):
                raise OddError
            if item_end is not None and item_end > len(data):
                self.more(item_end)
            item: Found = {}
            pos = self.elements(pos, item_end, wanted or _NOTHING, explicit, depth + 1, item)
            data = self.data
            items.append(item)
        if wanted is not None:
            found[key] = items
        return pos
