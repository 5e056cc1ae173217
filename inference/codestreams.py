"""What a compressed frame says about itself, read before any codec sees it: a header's 10 kB may ask for 10 GB.

JPEG and JPEG-LS frame headers (ISO 10918-1 B.2.2, ISO 14495-1 C.2.2), JPEG 2000 SIZ (ISO 15444-1 A.5.1).
"""

import struct
from dataclasses import dataclass

_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}) | {0xF7}
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_SIZ = b"\xff\x4f\xff\x51"
_MAX_TILES = 65_535


@dataclass(frozen=True)
class FrameHeader:
    """Size of one compressed frame as its codestream declares it."""

    rows: int
    columns: int
    components: int
    precision: int


def read_frame_header(frame: bytes) -> FrameHeader | None:
    """The declared size of a JPEG, JPEG-LS or JPEG 2000 frame; None when it is none of them or is damaged."""
    if frame[:2] == b"\xff\xd8":
        return _jpeg(frame)
    start = frame.find(_SIZ, 0, 4096) if frame.startswith(_JP2_SIGNATURE) else 0
    return _jpeg_2000(frame, start) if start >= 0 and frame[start : start + 4] == _SIZ else None


def _jpeg(frame: bytes) -> FrameHeader | None:
    position = 2
    while position + 4 <= len(frame):
        if frame[position] != 0xFF:
            return None
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _STANDALONE:
            position += 2
        elif marker in (_END_OF_IMAGE, _START_OF_SCAN):
            return None
        elif marker in _FRAME_HEADERS:
            if position + 10 > len(frame):
                return None
            precision, rows, columns, components = struct.unpack(">BHHB", frame[position + 4 : position + 10])
            return FrameHeader(rows, columns, components, precision)
        else:
            (length,) = struct.unpack(">H", frame[position + 2 : position + 4])
            position += 2 + max(2, length)
    return None


def _jpeg_2000(frame: bytes, start: int) -> FrameHeader | None:
    fixed = frame[start + 4 : start + 42]
    if len(fixed) < 38:
        return None
    _, _, x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0, components = struct.unpack(">HHLLLLLLLLH", fixed)
    per_component = frame[start + 42 : start + 42 + 3 * components]
    if x <= x0 or y <= y0 or tile_x == 0 or tile_y == 0 or not 0 < components <= 4 or len(per_component) < 3:
        return None
    if tile_x0 > x0 or tile_y0 > y0 or -(-(x - tile_x0) // tile_x) * -(-(y - tile_y0) // tile_y) > _MAX_TILES:
        return None
    return FrameHeader(y - y0, x - x0, components, (per_component[0] & 0x7F) + 1)
