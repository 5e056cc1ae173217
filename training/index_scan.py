"""The quick way from a file's first bytes to a row: element heads are looked at, and of values only those of columns.

A file laid out like one before it is compared with that one (`training.index_layouts`); any other is walked element by
element (`training.index_elements`). Whatever is not quite ordinary (another value representation, big endian, an odd
character set, anything damaged) gives no row: the full reader decides then. So a row from here is the row that the full
reader would have given, and every refusal is the full reader's.
"""

from typing import Final

from inference.errors import UnreadableError
from inference.limits import Limits
from inference.sources import ByteSource, InflatedSource
from training.index_columns import Values
from training.index_elements import MEDIA_CLASS, SYNTAX, WANTED, Found, Walk
from training.index_fields import values
from training.index_layouts import Layouts
from training.index_values import OddError, is_uid

_BIG, _DICOMDIR = "1.2.840.10008.1.2.2", b"1.2.840.10008.1.3.10"
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
_LAYOUTS: Final = Layouts()
_GROUP_LENGTH, _AFTER_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00", 144
_INSTANCE_HEAD = b"\x02\x00\x03\x00UI"  # Media Storage SOP Instance UID
_LONGEST_META, _MOST_METAS = 1024, 8
Meta = tuple[str, bytes, int]  # Transfer Syntax UID, class, where the data set begins


def scan(source: ByteSource, limits: Limits, layouts: Layouts = _LAYOUTS) -> Values | None:
    """The values of one file, or None when the full reader has to look at it; raises OSError and ResourceError only.

    `layouts` are those of the files before it, and are added to.
    """
    try:
        walk = Walk(source, limits)
        syntax, media_class, start = _file_meta(walk, layouts)
        if syntax in _DEFLATED:
            walk = Walk(InflatedSource(source, start, limits.max_header_bytes), limits)
            start, explicit = 0, True
        else:
            letters = walk.data[start + 4 : start + 6]
            explicit = letters.isalpha() and letters.isupper()
        kind = syntax, media_class, explicit, walk.depth
        made = layouts.values(kind, walk, start)
        if made is not None:
            return made
        found: Found = {}
        walk.heads.clear()
        walk.elements(start, None, WANTED, explicit, 0, found)
        made = values(syntax, found)
        layouts.learn(kind, walk, found)
    except (OddError, UnreadableError, UnicodeDecodeError):
        return None
    return made


def _file_meta(walk: Walk, layouts: Layouts) -> Meta:
    data = walk.data
    if data[128:132] != b"DICM" or data[132:134] != b"\x02\x00":
        raise OddError
    for before, after, syntax, media_class in layouts.metas:
        if data.startswith(before, _AFTER_GROUP_LENGTH) and data.startswith(_GROUP_LENGTH, 132):
            uid = _AFTER_GROUP_LENGTH + len(before) + 2
            start = uid + int.from_bytes(data[uid - 2 : uid], "little")
            if data.startswith(after, start) and _is_data_set(data, start + len(after)):
                return syntax, media_class, start + len(after)
    return _walked_meta(walk, layouts)


def _is_data_set(data: bytes, start: int) -> bool:
    return len(data) >= start + 12 and data[start : start + 2] != b"\x02\x00"


def _walked_meta(walk: Walk, layouts: Layouts) -> Meta:
    found: Found = {}
    start = walk.meta(132, found)
    raw, media_class = found.get(SYNTAX, b"").rstrip(b"\0 "), found.get(MEDIA_CLASS, b"").rstrip(b"\0 ")
    if not is_uid(raw) or (syntax := raw.decode()) == _BIG or media_class == _DICOMDIR:
        raise OddError
    if len(walk.data) < start + 8:
        walk.more(start + 8)
    data, places = walk.data, {walk.data[pos : pos + 6]: (pos, value) for pos, value, _ in walk.heads}
    pos, value = places.get(_INSTANCE_HEAD, (0, 0))
    if pos and start < _LONGEST_META and data.startswith(_GROUP_LENGTH, 132):
        after = value + int.from_bytes(data[value - 2 : value], "little")
        met = data[_AFTER_GROUP_LENGTH : value - 2], data[after:start], syntax, media_class
        layouts.metas = met, *layouts.metas[: _MOST_METAS - 1]
    return syntax, media_class, start
