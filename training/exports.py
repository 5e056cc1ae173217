"""What an index lists, opened by its path there: local files, members of zips, objects behind a URL.

Every process opens for itself; an `Item` is only a name. A name within a zip is never a path on disk. Bytes that are in
no file of their own are spooled: in memory at first, then in an unnamed temporary file, never beyond the limits.
"""

import errno
import functools
import hashlib
import os
import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from inference.errors import DataError, ResourceError
from inference.instances import Place
from inference.limits import DEFAULT_LIMITS, Limits
from inference.sources import ByteSource
from inference.structure import unreadable
from training.export_names import Export, is_dicomdir, is_url, shown
from training.index_remote import RemoteTree, library_errors, marks
from training.index_tree import ZIP_ERRORS, Entry, member_reason, storable, zip_entries

_PIECE, _REMOTE_PIECE, _IN_MEMORY = 1 << 20, 16 << 20, 64 << 20  # bytes
_SMALL_PIECE = 1 << 12  # other methods unpack all that was read: what 4 KiB can become is bounded
_WAITS = (0.5, 2.0)  # seconds before a store is asked again
_GONE = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES, IsADirectoryError: errno.EISDIR}
T = TypeVar("T")


def check(export: Export) -> None:
    """Raises DataError: there is no such export, or fsspec knows no such store."""
    if is_url(export):
        RemoteTree(str(export))
        return
    path = Path(export)
    if not path.is_dir() and not (path.is_file() and (is_dicomdir(path) or zipfile.is_zipfile(path))):
        raise DataError(
            f"{path} is no folder, zip, DICOMDIR or URL: name the DICOM export that the cohort was made of."
        )


@dataclass(frozen=True)
class Item:
    """The file of `export` that its index calls `path`; a `Place` that can be pickled.

    size, mtime_ns: as the index has them, None where it was not asked; for an object behind a URL they save a request.
    """

    export: Export
    path: str
    size: int | None = None
    mtime_ns: int | None = None

    @property
    def local(self) -> Path | None:
        """The file, where it is a local one; None in a zip and behind a URL.

        Raises UnreadableError: the path leads out of the export.
        """
        if is_url(self.export) or self._within() is not None:
            return None
        root = Path(self.export)
        return _there((root.parent if is_dicomdir(root) and root.is_file() else root) / _inside(self.path))

    @contextmanager
    def open(self, limits: Limits = DEFAULT_LIMITS) -> Iterator[tuple[ByteSource, int]]:
        """The bytes, read as far as they are asked for, and how many they are; not of a local file.

        Raises OSError (it is not there), UnreadableError (as `genu-train index` says it), ResourceError.
        """
        if is_url(self.export):
            tree = _remote(str(self.export))
            place, info = self._found(tree)
            yield _Asked(tree, place, size := _size(info)), size
            return
        with closing(self._spooled(limits)) as spooled:
            yield spooled, spooled.size

    def seen(self) -> str:
        """What changes with the content, which is not read: size and time, behind a URL those of the index.

        Raises OSError.
        """
        if is_url(self.export):
            return f"{self.path} {self.size} {self.mtime_ns}"
        within = self._within()
        place = within[0] if within is not None else self.local
        status = (place or Path(self.export)).stat()
        return f"{self.path} {status.st_size} {status.st_mtime_ns}"

    def digest(self, limits: Limits = DEFAULT_LIMITS) -> str:
        """SHA-256 of the content; of an object whose store tells of changes, of its name, size and marks instead.

        Raises as `open`.
        """
        local = self.local
        if local is not None:
            with local.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        with closing(self._spooled(limits)) as spooled:
            return spooled.mark or spooled.digest(keep=False)

    def _spooled(self, limits: Limits) -> "Spooled":
        if is_url(self.export):
            tree = _remote(str(self.export))
            place, info = self._found(tree)
            size, told = _size(info), marks(info)
            text = "\n".join([shown(place), str(size), *told])
            mark = hashlib.sha256(text.encode()).hexdigest() if told else ""
            pieces = _fetched(_Asked(tree, place, size), size)
        else:
            archive, entry = self._member()
            size, mark, pieces = entry.size, "", _unpacked(archive, entry)
        if size > limits.max_file_bytes:
            raise unreadable(f"The file is larger than the limit of {limits.max_file_bytes} bytes.")
        return Spooled(pieces, size, mark)

    def _found(self, tree: RemoteTree) -> tuple[str, dict[str, Any]]:
        _inside(self.path)
        return _asked(lambda: tree.found(self.path, self.size))

    def _within(self) -> tuple[Path, str] | None:
        """The zip that the path leads into, and the name there; None for a file of a folder or DICOMDIR."""
        place = Path(self.export)
        if place.is_file():
            return None if is_dicomdir(place) else (place, self.path)
        parts = self.path.split("/")
        for number, part in enumerate(parts[:-1]):
            _inside(part)
            place /= part
            if part.endswith((".zip", ".ZIP")) and place.is_file():
                return place, "/".join(parts[number + 1 :])
        return None

    def _member(self) -> tuple[zipfile.ZipFile, Entry]:
        place, name = self._within() or (Path(self.export), self.path)
        status = place.stat()
        archive, members = _archive(str(place), status.st_mtime_ns, status.st_size)
        if name not in members:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        entry = members[name]
        if entry.reason is not None:
            raise unreadable(entry.reason)
        return archive, entry


@dataclass(frozen=True)
class Held:
    """A file at hand, for `read_instance(path, place=place)`: `content` is its digest."""

    path: Path
    place: Place | None
    content: str


@contextmanager
def held(item: Item, limits: Limits = DEFAULT_LIMITS) -> Iterator[Held]:
    """A file to be read more than once: what is no local file is fetched or unpacked a single time.

    Raises as `Item.open`.
    """
    local = item.local
    if local is not None:
        yield Held(local, None, item.digest())
        return
    with closing(item._spooled(limits)) as spooled:
        yield Held(Path(item.path), spooled, spooled.mark or spooled.digest())


class Spooled:
    """Bytes that come in pieces, kept so that they can be read at any place; a `ByteSource` and a `Place`.

    `size` bytes; `mark` changes with the content where that is known without reading it, else empty.
    """

    def __init__(self, pieces: Iterator[bytes], size: int, mark: str = "") -> None:
        self.size, self.mark = size, mark
        self._pieces, self._filled, self._hash = pieces, 0, hashlib.sha256()
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="genu-export-")  # noqa: SIM115 - closed by `close`

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`."""
        self._fill(offset + count)
        self._file.seek(offset)
        return self._file.read(count)

    def holds(self, end: int) -> bool:
        """Whether there are at least `end` bytes."""
        return end <= self.size

    def digest(self, *, keep: bool = True) -> str:
        """SHA-256 of everything; without `keep` nothing can be read afterwards, and nothing is stored."""
        if keep:
            self._fill(self.size + 1)
        else:
            for piece in self._pieces:
                self._hash.update(piece)
        return self._hash.hexdigest()

    @contextmanager
    def open(self, limits: Limits) -> Iterator[tuple[ByteSource, int]]:
        """Itself; it stays open."""
        del limits  # they were met before anything was spooled
        yield self, self.size

    def close(self) -> None:
        """Let go of the bytes."""
        self._file.close()

    def _fill(self, end: int) -> None:
        while self._filled < end and (piece := next(self._pieces, b"")):
            self._hash.update(piece)
            try:
                self._file.seek(self._filled)
                self._file.write(piece)
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0, "unknown error")
                raise ResourceError(f"{tempfile.gettempdir()} cannot hold a file of the export ({name}).") from error
            self._filled += len(piece)


def _unpacked(archive: zipfile.ZipFile, entry: Entry) -> Iterator[bytes]:
    """A member in pieces, at most as many bytes as the zip's directory says. Raises UnreadableError."""
    try:
        member = archive.infolist()[entry.member or 0]
        bounded = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        with archive.open(member) as stream:
            while piece := stream.read(_PIECE if bounded else _SMALL_PIECE):
                yield piece
    except ZIP_ERRORS as error:
        raise unreadable(member_reason(error)) from None


class _Asked:
    """An object by ranges, each asked for again where the store does not give it."""

    def __init__(self, tree: RemoteTree, place: str, size: int) -> None:
        self._source, self._size = tree.at(place, size), size

    def read_at(self, offset: int, count: int) -> bytes:
        return _asked(functools.partial(self._source.read_at, offset, count))

    def holds(self, end: int) -> bool:
        return end <= self._size


def _fetched(source: _Asked, size: int) -> Iterator[bytes]:
    for start in range(0, size, _REMOTE_PIECE):
        wanted = min(_REMOTE_PIECE, size - start)
        piece = source.read_at(start, wanted)
        if len(piece) != wanted:
            raise ResourceError(f"The store gave {len(piece)} bytes of {wanted}: run again, it goes on.")
        yield piece


def _asked(call: Callable[[], T]) -> T:
    """What a store answers, asked three times; OSError where it says that the object is not there or not to be had."""
    for wait in (*_WAITS, None):
        try:
            with library_errors():
                return call()
        except ResourceError as error:
            for kind, number in _GONE.items():
                if isinstance(error.__cause__, kind):
                    raise OSError(number, os.strerror(number)) from None
            if wait is None:
                raise ResourceError(f"{error} What is done is kept; the same command goes on.") from error
            time.sleep(wait)
    raise AssertionError("unreachable")


def _size(info: dict[str, Any]) -> int:
    if info.get("size") is None:
        raise ResourceError("The store does not say how large an object is.")
    return int(info["size"])


def _inside(path: str) -> str:
    """A path within the export, as it is. Raises UnreadableError for one that leads out."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise unreadable("The path leads out of the export.")
    return path


def _there(place: Path) -> Path:
    """A file whose name is no UTF-8 stands in the index with \\xNN."""
    if "\\x" not in str(place) or place.exists():
        return place
    plain = re.sub(rb"\\x([89a-f][0-9a-f])", lambda found: bytes([int(found[1], 16)]), os.fsencode(place))
    return Path(os.fsdecode(plain))


@functools.lru_cache(maxsize=4)
def _archive(place: str, _mtime_ns: int, _size: int) -> tuple[zipfile.ZipFile, dict[str, Entry]]:
    """A zip and its members by name. Raises UnreadableError."""
    members = {entry.path: entry for entry in zip_entries(place, "", Path(place).stat(), DEFAULT_LIMITS)}
    try:
        return zipfile.ZipFile(place), members
    except ZIP_ERRORS:
        whole = members[storable(Path(place).name)]
        raise unreadable(whole.reason or "The zip is damaged, or is no zip: its directory cannot be read.") from None


@functools.lru_cache(maxsize=4)
def _remote(url: str) -> RemoteTree:
    return RemoteTree(url)
