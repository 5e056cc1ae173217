"""The quick way from a file's first bytes to a row: element heads are walked, only wanted values are looked at.

Every length, delimiter and limit is checked as `inference.structure` checks it. Whatever is not quite ordinary (another
value representation, big endian, an odd character set, anything damaged) gives no row: the full reader decides then.
So a row from here is the row that the full reader would have given, and every refusal is the full reader's.
"""

import struct
from typing import Any, Final

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import tag_for_keyword

from inference.errors import UnreadableError
from inference.limits import Limits
from inference.sources import ByteSource, InflatedSource
from training.index_columns import COLUMNS, Kind, Values
from training.index_values import CONVERTERS, OddError, Text, code, is_uid

_CHUNKS: Final = (1 << 14, 1 << 17)  # bytes read at first and by each later read
_MAX_DEPTH: Final = 16
_UNDEFINED: Final = 0xFFFFFFFF
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_BIG, _DICOMDIR = "1.2.840.10008.1.2.2", b"1.2.840.10008.1.3.10"
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SV UC UN UR UT UV".split())
_head_explicit = struct.Struct("<L2sH").unpack_from
_head_implicit = struct.Struct("<LL").unpack_from
_long_length = struct.Struct("<L").unpack_from

Found = dict[int, Any]  # key -> bytes of a value, or a list of Found, one an item
Wanted = dict[int, Any]  # key -> VR, or the Wanted of a sequence's items


def _key(tag: int) -> int:
    """A tag as its four bytes read as one little endian number: element first."""
    return (tag & 0xFFFF) << 16 | tag >> 16


def _keyword_key(keyword: str) -> int:
    return _key(tag_for_keyword(keyword) or 0)


_ITEM, _ITEM_END, _SEQUENCE_END = _key(0xFFFEE000), _key(0xFFFEE00D), _key(0xFFFEE0DD)
_PIXELS = frozenset(map(_key, (0x7FE00008, 0x7FE00009, 0x7FE00010)))
_SPECIAL_GROUPS = frozenset({0x0000, 0x7FE0, 0xFFFE})
_SEQUENCES = frozenset(_key(tag) for tag, entry in DicomDictionary.items() if entry[0] == "SQ") | frozenset(
    _key(group << 16 | 0x2600)
    for group in range(0x5000, 0x5100)  # of curves, by mask in PS3.6
)
_CHARSET = _keyword_key("SpecificCharacterSet")
_SYNTAX, _MEDIA_CLASS = _keyword_key("TransferSyntaxUID"), _keyword_key("MediaStorageSOPClassUID")
_META: Wanted = {_SYNTAX: b"UI", _MEDIA_CLASS: b"UI"}
_CODE_KEYS = tuple(map(_keyword_key, ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")))
_ODD_IN_CODE = tuple(map(_keyword_key, ("LongCodeValue", "URNCodeValue", "SpecificCharacterSet")))
_CODE: Wanted = dict(zip((*_CODE_KEYS, *_ODD_IN_CODE), (b"SH", b"SH", b"LO", b"UC", b"UR", b"CS"), strict=True))
_NOTHING: Wanted = {}
_UIDS = tuple(map(_keyword_key, ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")))


def _wanted() -> Wanted:
    wanted: Wanted = {_CHARSET: b"CS"}
    for column in COLUMNS:
        level = wanted
        for tag in column.tags[:-1]:
            level = level.setdefault(_key(tag), {_CHARSET: b"CS"})
        level[_key(column.tags[-1])] = _CODE if column.kind is Kind.CODES else column.vr.encode()
    return wanted


_WANTED = _wanted()
_TOP = tuple(
    (_key(column.tags[0]), None if column.kind is Kind.CODES else CONVERTERS[column.kind, column.vr])
    for column in COLUMNS
    if len(column.tags) == 1
)
_NESTED = tuple(
    (tuple(map(_key, column.tags)), CONVERTERS[column.kind, column.vr]) for column in COLUMNS if len(column.tags) > 1
)
_SHARED_GROUPS = _NESTED[0][0][0]
_NO_SHARED = (None,) * len(_NESTED)


def _ends_walk(key: int, depth: int) -> bool:
    """Delimiters end any walk; pixels and padding (group 0000) only that of the data set itself."""
    return key & 0xFFFF == 0xFFFE or (depth == 0 and (key in _PIXELS or key & 0xFFFF == 0))


def scan(source: ByteSource, limits: Limits) -> Values | None:
    """The values of one file, or None when the full reader has to look at it; raises OSError and ResourceError only."""
    try:
        head = _Walk(source, 0, limits)
        syntax, start = _file_meta(head)
        if syntax in _DEFLATED:
            body = _Walk(InflatedSource(source, start, limits.max_header_bytes), 0, limits)
            start, letters = 0, b"AA"
        else:
            body, letters = head, head.data[start + 4 : start + 6]
        found: Found = {}
        body.elements(start, None, _WANTED, letters.isalpha() and letters.isupper(), 0, found)
        return _values(syntax, found)
    except (OddError, UnreadableError, UnicodeDecodeError):
        return None


def _file_meta(walk: "_Walk") -> tuple[str, int]:
    """Transfer Syntax UID and where the data set begins."""
    if walk.data[128:132] != b"DICM" or walk.data[132:134] != b"\x02\x00":
        raise OddError
    found: Found = {}
    start = walk.meta(132, found)
    syntax = found.get(_SYNTAX, b"").rstrip(b"\0 ")
    if not is_uid(syntax) or syntax.decode() == _BIG or found.get(_MEDIA_CLASS, b"").rstrip(b"\0 ") == _DICOMDIR:
        raise OddError
    if len(walk.data) < start + 8:
        walk.more(start + 8)
    return syntax.decode(), start


class _Walk:
    """One pass over elements; `data` are the first bytes of the source, as many as were needed."""

    def __init__(self, source: ByteSource, start: int, limits: Limits) -> None:
        self._read = source.read_at
        # Within so many bytes neither elements nor values nor kept bytes can pass their limits.
        self._most = min(8 * limits.max_elements, limits.max_values, limits.max_header_bytes)
        self._depth = min(_MAX_DEPTH, limits.max_depth)
        self.data = self._read(start, min(_CHUNKS[0], self._most))

    def more(self, end: int) -> bytes:
        """The data with at least `end` bytes; OddError when there are not so many, or too many for here."""
        if end > self._most:
            raise OddError
        self.data += self._read(len(self.data), max(_CHUNKS[1], end - len(self.data)))
        if len(self.data) < end:
            raise OddError
        return self.data

    def meta(self, pos: int, found: Found) -> int:
        """Walk the group 0002, which is always explicit little endian; returns where it ends."""
        data = self.data
        while True:
            if len(data) < pos + 12:
                data = self.more(pos + 12)
            key, vr, length = _head_explicit(data, pos)
            if key & 0xFFFF != 2:
                return pos
            pos += 8
            if vr in _LONG_VRS:
                (length,) = _long_length(data, pos)
                pos += 4
            elif vr not in _SHORT_VRS:
                raise OddError
            end = pos + length
            if end > len(data):
                data = self.more(end)
            if key in _META:
                if key in found or vr != _META[key]:
                    raise OddError
                found[key] = data[pos:end]
            pos = end

    def elements(self, pos: int, end: int | None, wanted: Wanted, explicit: bool, depth: int, found: Found) -> int:
        """Walk elements up to `end`, to the item's delimiter, or at depth 0 to the pixels; returns where they end."""
        # Elements that nobody wants are stepped over: where one ends beyond the data, the next head tells.
        data = self.data
        while end is None or pos < end:
            try:
                if explicit:
                    key, vr, length = _head_explicit(data, pos)
                    value = pos + 8
                    if vr in _LONG_VRS or vr == b"SQ":
                        (length,) = _long_length(data, value)
                        value = pos + 12
                    elif vr not in _SHORT_VRS:
                        return self._delimited(key, pos, end, depth)
                else:
                    key, length = _head_implicit(data, pos)
                    value, vr = pos + 8, b"SQ" if key in _SEQUENCES else b""
            except struct.error:
                if depth == 0 and self._at_end(pos):
                    return pos
                data = self.more(pos + 12 if len(data) >= pos + 8 else pos + 8)
                continue
            if key & 0xFFFF in _SPECIAL_GROUPS and _ends_walk(key, depth):
                return self._delimited(key, pos, end, depth)
            if vr == b"SQ" or length == _UNDEFINED:
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
            elif vr == b"UN" and key in _SEQUENCES:
                raise OddError
        return pos

    def _delimited(self, key: int, pos: int, end: int | None, depth: int) -> int:
        """What a head that is no plain element means: the end of the walk, or something odd."""
        if depth and key == _ITEM_END and end is None:
            if len(self.data) < pos + 8:
                self.more(pos + 8)
            return pos + 8
        if depth == 0 and key in _PIXELS:
            return pos
        raise OddError

    def _at_end(self, pos: int) -> bool:
        """Whether the data set ends just here; fetches more of it when it does not."""
        while len(self.data) < min(pos + 8, self._most) and (part := self._read(len(self.data), _CHUNKS[1])):
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
        if depth >= self._depth or isinstance(wanted, bytes) or (wanted is not None and key in found):
            raise OddError
        if vr != b"SQ":  # of undefined length: PS3.5 section 6.2.2 note 2, or a private sequence in implicit VR
            if (explicit and vr != b"UN") or not private:
                raise OddError
            explicit = False
        stop = None if length == _UNDEFINED else pos + length
        if stop is not None and end is not None and stop > end:
            raise OddError
        items: list[Found] = []
        data = self.data
        while stop is None or pos < stop:
            if len(data) < pos + 8:
                data = self.more(pos + 8)
            tag, size = _head_implicit(data, pos)
            pos += 8
            if tag == _SEQUENCE_END and stop is None:
                break
            item_end = None if size == _UNDEFINED else pos + size
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


def _values(syntax: str, found: Found) -> Values:
    get = found.get
    for key in _UIDS:
        if not is_uid(get(key, b"").rstrip(b"\0 ")):
            raise OddError
    text = Text(_charset(found))
    row: list[object] = [syntax]
    append = row.append
    for key, convert in _TOP:
        raw = get(key)
        if not raw:
            append(None)
        elif convert is None:
            append(_codes(raw, text))
        else:
            append(convert(raw, text))
    if _SHARED_GROUPS not in found:
        return (*row, *_NO_SHARED)
    return (*row, *(_nested(keys, convert, found, text) for keys, convert in _NESTED))


def _charset(found: Found) -> bytes:
    """Specific Character Set; items are read with what stands before them, so it has to come before all sequences."""
    for key, value in found.items():
        if key == _CHARSET:
            return bytes(value)
        if isinstance(value, list):
            break
    if _CHARSET in found:
        raise OddError
    return b""


def _codes(items: list[Found], text: Text) -> list[dict[str, str]] | None:
    codes = []
    for item in items:
        if any(key in item for key in _ODD_IN_CODE):
            raise OddError
        made = code([item.get(key, b"") for key in _CODE_KEYS], text)
        if made is not None:
            codes.append(made)
    return codes or None


def _nested(keys: tuple[int, ...], convert: Any, found: Found, text: Text) -> object:
    for key in keys[:-1]:
        items = found.get(key)
        if not items:
            return None
        found = items[0]
        if _CHARSET in found:
            raise OddError
    raw = found.get(keys[-1])
    return convert(raw, text) if raw else None
