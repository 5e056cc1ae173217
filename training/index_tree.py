"""What an export holds: a folder, a zip (also within a folder), or what a DICOMDIR lists; remote trees are in
`training.index_remote`. Nothing is opened here but zip directories; what cannot be listed is an entry with its reason.
"""

import gc
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from inference.errors import DataError, UnreadableError
from inference.headers import items, texts
from inference.instances import VALUE_ERRORS
from inference.limits import DEFAULT_LIMITS, Limits
from inference.sources import FileSource
from inference.structure import Encoding, StructureReader

AGAIN = -1  # a time of change that no file has: the row is made again at the next run
_SKIPPED = (".csv", ".json", ".parquet")
_SPECIAL = (*_SKIPPED, ".zip", ".ZIP", "DICOMDIR")
ZIP_ERRORS: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError),
    *(RuntimeError, NotImplementedError, ValueError, LookupError),
)  # fmt: skip
_DAMAGED: tuple[type[Exception], ...] = (UnreadableError, *VALUE_ERRORS)


class Entry(NamedTuple):
    """One file of the export: `path` within it, bytes, time of change, where it is, which member of a zip there."""

    path: str
    size: int
    mtime_ns: int
    place: str
    member: int | None = None
    reason: str | None = None


_new = partial(tuple.__new__, Entry)  # of all fields at once: half the time, once a file


def entries(export: Path, skipped: Path, limits: Limits = DEFAULT_LIMITS) -> list[Entry]:
    """All files of a local export sorted by path; `skipped` is a folder left out (the shards of the index itself).

    Raises DataError when there is no such export.
    """
    if export.is_dir():
        found: list[Entry] = []
        with _uncollected():
            _folder(found, str(export), "", skipped.resolve(), limits)
    elif export.name.upper() == "DICOMDIR" and export.is_file():
        found = list(_listed(export, limits))
    elif export.is_file():
        found = list(zip_entries(str(export), "", export.stat(), limits))
    else:
        raise DataError(f"{export} is not there: name the folder, DICOMDIR, zip or URL that holds the DICOM export.")
    found.sort(key=itemgetter(0))
    return found


@contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing listed is garbage: a collection would only look at it, again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _folder(found: list[Entry], folder: str, prefix: str, skipped: Path, limits: Limits) -> None:
    inner: list[str] = []
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By the descriptor, so that the system does not look up the whole path of every file anew.
            with os.scandir(descriptor) as listing:
                for entry in list(listing):
                    _entry(found, inner, entry, folder, prefix, limits)
        finally:
            os.close(descriptor)
    except OSError as error:
        found.append(failed(storable(prefix) or ".", folder, f"The folder cannot be read ({error.strerror})."))
    for name in inner:
        if name != skipped.name or Path(folder, name).resolve() != skipped:
            _folder(found, f"{folder}/{name}", f"{prefix}{name}/", skipped, limits)


def _entry(
    found: list[Entry], inner: list[str], entry: os.DirEntry[str], folder: str, prefix: str, limits: Limits
) -> None:
    name = entry.name
    place, path = f"{folder}/{name}", f"{prefix}{name}"
    try:
        if entry.is_file(follow_symlinks=False) and path.isascii() and not name.endswith(_SPECIAL):
            status = entry.stat(follow_symlinks=False)
            found.append(_new((path, status.st_size, status.st_mtime_ns, place, None, None)))
        elif entry.is_dir(follow_symlinks=False):
            inner.append(name)
        elif entry.is_file():
            if name != "DICOMDIR" and not name.endswith(_SKIPPED):
                status = entry.stat()
                if name.endswith((".zip", ".ZIP")):
                    found.extend(zip_entries(place, f"{storable(path)}/", status, limits))
                else:
                    found.append(Entry(storable(path), status.st_size, status.st_mtime_ns, place))
        elif entry.is_symlink() and not entry.is_dir():
            found.append(failed(storable(path), place, "The link leads nowhere."))
    except OSError as error:
        found.append(failed(storable(path), place, f"The file cannot be looked at ({error.strerror})."))


def zip_entries(place: str, prefix: str, status: os.stat_result, limits: Limits) -> Iterator[Entry]:
    """The members of a zip; they bear the zip's time of change, so that one cannot change behind its own date."""
    whole = Entry(prefix.rstrip("/") or storable(Path(place).name), status.st_size, status.st_mtime_ns, place)
    try:
        with zipfile.ZipFile(place) as archive:
            members = archive.infolist()
    except ZIP_ERRORS:
        yield whole._replace(reason="The zip is damaged, or is no zip: its directory cannot be read.")
        return
    met: dict[str, int] = {}
    overlapping = _overlapping(members)
    for number, member in enumerate(members):
        name = storable(member.filename)
        if member.is_dir() or PurePosixPath(name).name == "DICOMDIR" or name.endswith(_SKIPPED):
            continue
        met[name] = met.get(name, 0) + 1
        path = f"{prefix}{name}" if met[name] == 1 else f"{prefix}{name}#{met[name]}"
        reason = None
        if member.file_size > limits.max_file_bytes:
            reason = f"The file is larger than the limit of {limits.max_file_bytes} bytes."
        elif number in overlapping:
            reason = "The member shares its bytes with another one, as in a zip bomb."
        yield Entry(path, member.file_size, status.st_mtime_ns, place, number, reason)


def member_reason(error: Exception) -> str:
    """Why a member of a zip cannot be read, of one of ZIP_ERRORS."""
    if isinstance(error, RuntimeError) and "password" in str(error):
        return "The member of the zip is encrypted."
    return "The member of the zip is damaged, or packed in a way that cannot be read here."


def _overlapping(members: list[zipfile.ZipInfo]) -> set[int]:
    """Members that begin before the one in front of them has ended."""
    found, end = set(), 0
    for number in sorted(range(len(members)), key=lambda number: members[number].header_offset):
        member = members[number]
        if member.header_offset < end:
            found.add(number)
        end = max(end, member.header_offset + 30 + member.compress_size)
    return found


def _listed(dicomdir: Path, limits: Limits) -> Iterator[Entry]:
    """The files that a DICOMDIR lists (PS3.3 F.3); one that is not there is an entry with its reason."""
    met = set()
    for name in _referenced(dicomdir, limits):
        if name in met:
            continue
        met.add(name)
        parts = PurePosixPath(name).parts
        place = dicomdir.parent / name
        if not parts or ".." in parts or PurePosixPath(name).is_absolute():
            yield failed(storable(name) or ".", str(place), "The DICOMDIR names a path outside of its own folder.")
            continue
        try:
            status = place.stat()
        except (OSError, ValueError):
            yield failed(storable(name), str(place), "The DICOMDIR lists the file, but it is not there.")
            continue
        yield Entry(storable(name), status.st_size, status.st_mtime_ns, str(place))


def _referenced(dicomdir: Path, limits: Limits) -> list[str]:
    """The paths in a DICOMDIR; it is one data set of many items, so that elements are limited by its size alone."""
    size = dicomdir.stat().st_size
    descriptor = os.open(dicomdir, os.O_RDONLY | os.O_CLOEXEC)
    try:
        source = FileSource(descriptor, size)
        if size > limits.max_header_bytes or source.read_at(128, 4) != b"DICM":
            raise DataError(f"{dicomdir} is no DICOMDIR, or is larger than {limits.max_header_bytes} bytes.")
        wide = replace(limits, max_elements=size, max_values=size)
        _, _, start = StructureReader(source, Encoding(False, True), wide, 132).read(only_group=2)
        dataset, _, _ = StructureReader(source, Encoding(False, True), wide, start).read()
        found = []
        for record in items(dataset, "DirectoryRecordSequence"):
            parts = texts(record, "ReferencedFileID")
            if parts:
                found.append("/".join(parts))
    except _DAMAGED as error:
        raise DataError(f"{dicomdir} is damaged. Index the folder that holds it instead.") from error
    finally:
        os.close(descriptor)
    return found


def failed(path: str, place: str, reason: str) -> Entry:
    """An entry for what could not be looked at; it is tried again at the next run."""
    return Entry(path, 0, AGAIN, place, None, reason)


def storable(name: str) -> str:
    """A name as text that can be stored: bytes that are no UTF-8 are written as \\xNN."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
