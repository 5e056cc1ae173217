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


def scan(source: ByteSource, limits: Limits, layouts: Layouts = _LAYOUTS) -> Values | None:
    """The values of one file, or None when the full reader has to look at it; raises OSError and ResourceError only.

    `layouts` are those of the files before it, and are added to.
    """
    try:
        walk = Walk(source, limits)
        syntax, media_class, start = _file_meta(walk)
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


def _file_meta(walk: Walk) -> tuple[str, bytes, int]:
    """Transfer Syntax UID, class, and where the data set begins."""
    if walk.data[128:132] != b"DICM" or walk.data[132:134] != b"\x02\x00":
        raise OddError
    found: Found = {}
    start = walk.meta(132, found)
    syntax, media_class = found.get(SYNTAX, b"").rstrip(b"\0 "), found.get(MEDIA_CLASS, b"").rstrip(b"\0 ")
    if not is_uid(syntax) or syntax.decode() == _BIG or media_class == _DICOMDIR:
        raise OddError
    if len(walk.data) < start + 8:
        walk.more(start + 8)
    return syntax.decode(), media_class, start
