"""Exports behind a URL that fsspec knows: s3://bucket/prefix, gs://, https://, memory:// ...

Only the heads of objects are fetched. Whatever a store's library raises for one object is that object's reason.
"""

import hashlib
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import Any

import fsspec

from inference.errors import DataError, ResourceError
from training.export_names import shown
from training.index_tree import AGAIN, Entry, storable

_LIBRARY_ERRORS: tuple[type[Exception], ...] = (
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, EOFError, ImportError),
)
_OWN = frozenset({"builtins", "inference", "training"})
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
_MARKS = ("ETag", "etag", "md5Hash", "checksum", "uid", "sha256")
_SKIPPED = ("DICOMDIR", ".csv", ".json", ".parquet")
_AHEAD = 1 << 16  # bytes of one request: a round trip costs more than they do


class library_errors(AbstractContextManager[None]):  # noqa: N801 - reads as a function
    """Errors of a store's library, which have no common class, become ResourceError without their own words."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, Exception):
            return
        if issubclass(kind, _LIBRARY_ERRORS) or kind.__module__.partition(".")[0] not in _OWN:
            raise ResourceError(f"The store did not give it ({kind.__name__}).") from error


class RemoteTree:
    """All objects below a URL."""

    def __init__(self, url: str) -> None:
        """Find the store.

        Raises DataError when fsspec does not know the scheme, or the store's own package is missing.
        """
        self.url = shown(url)
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise DataError(f"{self.url}: no store of this kind ({error}).") from error

    def entries(self) -> list[Entry]:
        """All objects sorted by path.

        Raises DataError when there are none, ResourceError when the store does not answer.
        """
        with library_errors():
            self._fs.invalidate_cache()
            found: dict[str, dict[str, Any]] = self._fs.find(self._root, detail=True)
        entries = [self._entry(name, info) for name, info in found.items() if not name.endswith(_SKIPPED)]
        if not entries:
            raise DataError(f"{self.url} holds no file: name the prefix that holds the DICOM export.")
        entries.sort()
        return entries

    def _entry(self, name: str, info: dict[str, Any]) -> Entry:
        inner = name.removeprefix(self._root).lstrip("/") or name.rpartition("/")[2]
        size = info.get("size")
        if size is None:  # some listings leave it out
            with library_errors():
                size = self._fs.size(name)
        return Entry(storable(inner), int(size or 0), _changed(info), name)

    def found(self, path: str, size: int | None = None) -> tuple[str, dict[str, Any]]:
        """Where the object is that the index calls `path`, and what the store says of it, unless its `size` is known.

        Raises what the store's library raises.
        """
        below, alone = f"{self._root.rstrip('/')}/{path}", self._root.rpartition("/")[2] == path
        if size is not None and not alone:
            return below, {"size": size}
        try:
            return below, self._fs.info(below)
        except FileNotFoundError:
            if not alone:
                raise
            return self._root, self._fs.info(self._root)  # the URL names one object

    def at(self, place: str, size: int) -> "RemoteSource":
        """The bytes of the object at a place that `found` gave."""
        return RemoteSource(self._fs, place, size)

    def source(self, entry: Entry) -> "RemoteSource":
        """The bytes of one object."""
        return RemoteSource(self._fs, entry.place, entry.size)


class RemoteSource:
    """An object by ranges, read ahead; raises ResourceError when the store does not give it."""

    def __init__(self, fs: Any, place: str, size: int) -> None:
        self._fs, self._place, self._size = fs, place, size
        self._data, self._start = b"", 0

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`."""
        end = min(offset + count, self._size)
        if offset >= end:
            return b""
        if offset < self._start or end > self._start + len(self._data):
            with library_errors():
                ahead = min(max(end, offset + _AHEAD), self._size)
                data = bytes(self._fs.cat_file(self._place, start=offset, end=ahead))
            if len(data) > ahead - offset:
                raise ResourceError("The store gives whole objects where a part is asked for.")
            self._data, self._start = data, offset
        begin = offset - self._start
        return self._data[begin : begin + end - offset]

    def holds(self, end: int) -> bool:
        """Whether the object has at least `end` bytes."""
        return end <= self._size


def marks(info: dict[str, Any]) -> list[str]:
    """Times and tags of an object that change with its content; none where the store tells none."""
    return [f"{name}={info[name]}" for name in (*_TIMES, *_MARKS) if info.get(name)]


def _changed(info: dict[str, Any]) -> int:
    """When an object was changed, in nanoseconds; a number from its tag where the store knows no time."""
    for name in _TIMES:
        value = info.get(name)
        if isinstance(value, datetime):
            return int(value.timestamp() * 1_000_000) * 1000
        if isinstance(value, int | float):
            return int(value * 1_000_000) * 1000
        if value:
            return _number(str(value))
    for name in _MARKS:
        if info.get(name):
            return _number(str(info[name]))
    return AGAIN


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
