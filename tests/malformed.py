"""Files that are broken on purpose; every one keeps the phantom's identity where it still has one."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests import phantoms

_PIXELS = b"\xe0\x7f\x10\x00OW"


def encoded(ds: Dataset) -> bytes:
    """The object as the bytes of a file."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def small(side: str = "L", **attributes: object) -> Dataset:
    """A knee of few pixels: quick to write and to mutate."""
    image = np.linspace(0, 1, 64 * 48).reshape(64, 48)
    return phantoms.wrap_dx(image, side, bits=12, identity="malformed", attributes=attributes)


def nested_bytes(levels: int) -> bytes:
    """`levels` sequences inside of one another, spliced by hand: pydicom cannot write that many."""
    opening = b"\x08\x00\x18\x22SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    data = encoded(small(AnatomicRegionSequence=None))
    where = data.index(b"\x10\x00\x10\x00PN")
    return data[:where] + opening * levels + closing * levels + data[where:]


def deflated(payload: bytes) -> bytes:
    """A deflated file whose data set ends with `payload`."""
    plain = encoded(small())
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return _deflated_head() + packer.compress(plain[_meta_end(plain) :] + payload) + packer.flush()


def deflate_bomb(megabytes: int = 400) -> bytes:
    """A small file that grows to `megabytes` before its pixels: a huge element comes in front of them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [packer.compress(b"\x08\x00\x05\x00UT\x00\x00" + struct.pack("<L", megabytes << 20))]
    block = b" " * (1 << 20)
    parts += [packer.compress(block) for _ in range(megabytes)]
    return _deflated_head() + b"".join(parts) + packer.flush()


def _meta_end(data: bytes) -> int:
    return 132 + 12 + int(struct.unpack("<L", data[140:144])[0])


def _deflated_head() -> bytes:
    ds = small()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    whole = encoded(ds)
    return whole[: _meta_end(whole)]


def _declaring(tag: bytes, vr: bytes, length: int) -> bytes:
    data = encoded(small())
    where = data.index(b"\x10\x00\x10\x00PN")
    return data[:where] + tag + vr + b"\0\0" + struct.pack("<L", length) + b"x" * 100


def _raw_element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def _replaced(keyword: str, tag: int, vr: bytes, value: bytes) -> bytes:
    """The small knee with one element's encoding replaced by a wrong one."""
    data = encoded(small())
    start = data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF) + small()[keyword].VR.encode(), 200)
    (length,) = struct.unpack("<H", data[start + 6 : start + 8])
    return data[:start] + _raw_element(tag, vr, value) + data[start + 8 + length :]


def _bomb(rows: int, columns: int) -> bytes:
    """A JPEG whose frame header asks for far more than Rows and Columns say."""
    ds = small(BitsAllocated=8, BitsStored=8, HighBit=7)
    frame = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, rows, columns, 1) + b"\x01\x11\x00\xff\xd9"
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    return encoded(ds)


def _truncated_pixels() -> bytes:
    data = encoded(small())
    return data[: data.index(_PIXELS) + 40]


# Names and how to make the bytes; UNREADABLE_NAMES are refused by the reader, the others later or not at all.
MAKERS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one_byte": lambda: b"\x00",
    "text": lambda: b"This is not DICOM.\n" * 40,
    "preamble_only": lambda: b"\0" * 128 + b"DICM",
    "zeros": lambda: b"\0" * 4096,
    "truncated_header": lambda: encoded(small())[:700],
    "four_gigabyte_element": lambda: _declaring(b"\x08\x00\x81\x00", b"UT", 0xFFFFFFFE),
    "undefined_length_junk": lambda: _declaring(b"\x08\x00\x81\x00", b"UN", 0xFFFFFFFF),
    "undefined_length_text": lambda: _declaring(b"\x08\x00\x81\x00", b"UT", 0xFFFFFFFF),
    "sequence_longer_than_file": lambda: _declaring(b"\x08\x00\x18\x22", b"SQ", 0x7FFFFFFF),
    "nested_200": lambda: nested_bytes(200),
    "nested_5000": lambda: nested_bytes(5000),
    "deflate_bomb": deflate_bomb,
    "deflate_junk": lambda: deflated(b"")[:400] + b"\xff" * 500,
    "no_sop_instance_uid": lambda: _without_uids("SOPInstanceUID", "MediaStorageSOPInstanceUID"),
    "no_study_uid": lambda: encoded(small(StudyInstanceUID=None)),
    "path_as_uid": lambda: encoded(small()).replace(small().StudyInstanceUID.encode()[:20], b"../../../../etc/pass"),
    "rows_65535_frames_million": lambda: encoded(small(Rows=65535, Columns=65535, NumberOfFrames=1_000_000)),
    "no_pixel_data": lambda: encoded(small(PixelData=None)),
    "empty_pixel_data": lambda: encoded(small(PixelData=b"")),
    "truncated_pixels": _truncated_pixels,
    "rows_as_text": lambda: _replaced("Rows", 0x00280010, b"LO", b"many"),
    "rows_three_bytes": lambda: _replaced("Rows", 0x00280010, b"US", b"\1\2\3"),
    "window_as_words": lambda: _replaced("WindowCenter", 0x00281050, b"DS", b"middle"),
    "body_part_as_sequence": lambda: _replaced("BodyPartExamined", 0x00180015, b"US", b"\1\0"),
    "jpeg_bomb": lambda: _bomb(65535, 65535),
    "jpeg_other_size": lambda: _bomb(65, 48),
}
UNREADABLE_NAMES = frozenset(
    {"empty", "one_byte", "text", "preamble_only", "zeros", "truncated_header", "four_gigabyte_element"}
    | {"undefined_length_junk", "undefined_length_text", "sequence_longer_than_file", "nested_200", "nested_5000"}
    | {"deflate_bomb", "deflate_junk", "no_sop_instance_uid", "no_study_uid", "path_as_uid"}
)


def write_malformed(folder: Path) -> dict[str, Path]:
    """All malformed files, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, make in MAKERS.items():
        found[name] = folder / f"{name}.dcm"
        found[name].write_bytes(make())
    return found


def _without_uids(*keywords: str) -> bytes:
    ds = small()
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    for keyword in keywords:
        if keyword in ds:
            delattr(ds, keyword)
    data = encoded_loosely(ds)
    return data.replace(b"\x02\x00\x03\x00UI\x06\x001.2.3\x00", b"")


def encoded_loosely(ds: Dataset) -> bytes:
    """The object as bytes without pydicom's insistence on complete file meta."""
    writer = DicomBytesIO()
    writer.is_implicit_VR, writer.is_little_endian = False, True
    write_file_meta_info(writer, ds.file_meta, enforce_standard=False)
    write_dataset(writer, ds)
    return b"\0" * 128 + b"DICM" + writer.getvalue()
