"""One file in, one header out; whatever a file does, only UnreadableError (or ResourceError) comes out.

Structure is walked by `inference.structure` within `Limits`; pydicom only converts values. Private elements, curves and
overlays are left out of the header. Nothing of a path or of a text value ever stands in a reason.
"""

import errno
import os
import re
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID

from inference.errors import ResourceError, UnreadableError
from inference.limits import DEFAULT_LIMITS, Limits
from inference.sources import ByteSource, FileSource, InflatedSource
from inference.structure import Encoding, PixelElement, StructureReader, tag_name, unreadable

# What pydicom's value converters and data set accessors are known to raise on hostile values (seen by fuzzing).
VALUE_ERRORS: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    RecursionError,
    EOFError,
    struct.error,
    BytesLengthException,
    InvalidDicomError,
)
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
_DICOMDIR = "1.2.840.10008.1.3.10"
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EINTR, errno.EAGAIN})


class Place(Protocol):
    """Where a file's bytes are when they are in no local file of their own, as in an archive or a store."""

    def open(self, limits: Limits) -> AbstractContextManager[tuple[ByteSource, int]]:
        """The bytes and how many they are; raises OSError, UnreadableError and ResourceError."""


@dataclass(frozen=True, eq=False)
class Instance:
    """The header of one readable DICOM file.

    `header` has no pixel data, no private elements, and `file_meta` set; `damaged` names the elements that were left
    out because their values cannot be converted to their VR. Where there is a `place`, the bytes are there, and `path`
    is only what the file is called.
    """

    path: Path
    header: Dataset
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    damaged: tuple[str, ...] = ()
    place: Place | None = None


@dataclass(frozen=True, eq=False)
class OpenInstance:
    """An instance whose bytes are still at hand: `pixels` says where they lie in `source`."""

    instance: Instance
    source: ByteSource
    pixels: PixelElement | None
    encoding: Encoding


def read_instance(path: Path, limits: Limits = DEFAULT_LIMITS, place: Place | None = None) -> Instance:
    """The header of one file, or of what is at `place` and called `path`.

    Raises UnreadableError when the file is no DICOM object that can be trusted within `limits`, and ResourceError when
    this machine is short of descriptors or its disk fails.
    """
    with open_instance(path, limits, place=place) as opened:
        return opened.instance


@contextmanager
def open_instance(
    path: Path, limits: Limits = DEFAULT_LIMITS, pixel_bytes: int = 0, place: Place | None = None
) -> Iterator[OpenInstance]:
    """The header, with the file held open so that pixels can be read; raises as `read_instance`.

    `pixel_bytes` is how much a deflated data set may grow beyond the header's limit.
    """
    try:
        with _local(path) if place is None else place.open(limits) as (source, size):
            if size == 0:
                raise unreadable("The file is empty. Send the image again.")
            if size > limits.max_file_bytes:
                raise unreadable(f"The file is larger than the limit of {limits.max_file_bytes} bytes.")
            opened = _parse(path, source, limits, pixel_bytes)
            if place is not None:
                opened = replace(opened, instance=replace(opened.instance, place=place))
            yield opened
    except OSError as error:
        raise _os_error(error) from None


@contextmanager
def _local(path: Path) -> Iterator[tuple[ByteSource, int]]:
    descriptor = _open(path)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise unreadable("The path is not a regular file. Give a DICOM file or a folder of them.")
        yield FileSource(descriptor, status.st_size), status.st_size
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        # Non-blocking, so that a FIFO does not wait for a writer.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise _os_error(error) from None
    except ValueError:  # a zero byte in the path
        raise unreadable("The path is not valid.") from None


def _os_error(error: OSError) -> UnreadableError | ResourceError:
    name = errno.errorcode.get(error.errno or 0, "unknown error")
    if error.errno in _OUT_OF_RESOURCES:
        return ResourceError(f"A file could not be read just now ({name}); it will be tried again.")
    return unreadable(f"The file cannot be opened ({name}). Check that it exists and may be read.")


def _parse(path: Path, file: ByteSource, limits: Limits, pixel_bytes: int) -> OpenInstance:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values, and values may be names
        meta, start = _file_meta(file, limits)
        syntax, encoding = _syntax(meta, file, start)
        if str(meta.get("MediaStorageSOPClassUID", "")) == _DICOMDIR:
            raise unreadable("The file is a DICOMDIR, not an image. Give the images that it lists.")
        source: ByteSource = file
        if syntax in _DEFLATED:
            source, start = InflatedSource(file, start, limits.max_header_bytes + pixel_bytes), 0
        header, pixels, _ = StructureReader(source, encoding, limits, start).read()
        damaged = _convert(header)
    header.file_meta = meta
    instance = Instance(path, header, *_uids(header, meta), syntax, damaged)
    return OpenInstance(instance, source, pixels, encoding)


def _file_meta(file: ByteSource, limits: Limits) -> tuple[FileMetaDataset, int]:
    """File Meta Information (PS3.10 section 7.1) and where the data set begins; either may be missing."""
    if file.read_at(128, 4) == b"DICM":
        start = 132
    elif file.read_at(0, 4) == b"DICM":
        start = 4
    elif file.read_at(0, 2) in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        start = 0
    else:
        raise unreadable("The file is not a DICOM file: neither a preamble nor a data set begins it.")
    if file.read_at(start, 2) != b"\x02\x00":
        return FileMetaDataset(), start
    found, _, end = StructureReader(file, Encoding(implicit=False, little=True), limits, start).read(only_group=2)
    _convert(found)
    meta = FileMetaDataset()
    for element in found:
        if element.tag.group == 2:
            meta.add(element)
    return meta, end


def _syntax(meta: FileMetaDataset, file: ByteSource, start: int) -> tuple[str, Encoding]:
    """The transfer syntax UID, guessed from the first element where the meta does not say, and the encoding."""
    declared = str(meta.get("TransferSyntaxUID", "") or "").strip()
    first = file.read_at(start, 6)
    if len(first) < 6:
        raise unreadable("The file ends before its data set begins: truncated.")
    letters = first[4:6]
    looks_explicit = letters.isalpha() and letters.isupper()
    if not declared:
        if first[:2] == b"\x00\x08":
            declared = _EXPLICIT_BIG
        else:
            declared = _EXPLICIT_LITTLE if looks_explicit else _IMPLICIT_LITTLE
        meta.TransferSyntaxUID = UID(declared)
    if not _is_uid(declared):
        raise unreadable("Transfer Syntax UID (0002,0010) is not a valid UID.")
    if declared in _DEFLATED:
        return declared, Encoding(implicit=False, little=True)
    # As pydicom does: what stands there outweighs what is declared.
    return declared, Encoding(implicit=not looks_explicit, little=declared != _EXPLICIT_BIG)


def _convert(dataset: Dataset) -> tuple[str, ...]:
    """Convert all values now, inside of the guard; what cannot be converted is left out and named."""
    damaged: list[str] = []
    pending = [dataset]
    while pending:
        current = pending.pop()
        for tag in list(current.keys()):
            try:
                element = current[tag]
                if element.VR == "PN":
                    str(element.value)  # decoded only when asked for
            except VALUE_ERRORS:
                damaged.append(keyword_for_tag(tag) or tag_name(tag))
                del current[tag]
                continue
            if element.VR == "SQ" and element.value:
                pending.extend(element.value)
    return tuple(damaged)


def _uids(header: Dataset, meta: FileMetaDataset) -> tuple[str, str, str, str]:
    sop_instance = _uid(header, "SOPInstanceUID", str(meta.get("MediaStorageSOPInstanceUID", "")))
    sop_class = _uid(header, "SOPClassUID", str(meta.get("MediaStorageSOPClassUID", "")))
    return sop_instance, sop_class, _uid(header, "SeriesInstanceUID"), _uid(header, "StudyInstanceUID")


def _uid(header: Dataset, keyword: str, fallback: str = "") -> str:
    value = header.get(keyword)
    text = value if isinstance(value, str) and value else fallback
    if not text:
        raise unreadable(f"{keyword} is missing. The sending system must set it.")
    if not _is_uid(text):
        raise unreadable(f"{keyword} is not a valid UID (digits and dots, at most 64 characters).")
    return str(text)


def _is_uid(text: str) -> bool:
    return len(text) <= 64 and _UID.fullmatch(text) is not None
