"""Received bytes on disk, durably, and free space (PS3.10 files as the peer's bytes behind our file meta).

    data_dir/incoming/<random>.part    being received
    data_dir/instances/<random>.dcm    complete, fsynced, and named in the queue

No name is made of anything that came from the network. A file is written, renamed and fsynced, then the folder is
fsynced; the caller commits the row after that. What a crash leaves between these steps has no row: it is removed at
the next start.
"""

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from inference.errors import ConfigurationError, ResourceError
from plugin.negotiation import IMPLEMENTATION_CLASS, IMPLEMENTATION_VERSION

INCOMING = "incoming"
INSTANCES = "instances"
LOCK = "listener.lock"
HOLD_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Kept:
    """A file that is durable: path relative to data_dir, its size in bytes, SHA-256 of the data set as received."""

    relative_path: str
    size: int
    sha256: str


def _element(number: int, representation: bytes, value: bytes) -> bytes:
    """One group 0002 element of a short representation, padded to even length."""
    value += (b"\0" if representation == b"UI" else b" ") * (len(value) % 2)
    return b"\2\0" + number.to_bytes(2, "little") + representation + len(value).to_bytes(2, "little") + value


def file_meta(sop_class: str, sop_instance: str, transfer_syntax: str, calling_ae: str) -> bytes:
    """Preamble, prefix and file meta information (PS3.10 section 7.1) to stand before a received data set."""
    group = (
        b"\2\0\1\0OB\0\0\2\0\0\0\0\1"
        + _element(0x0002, b"UI", sop_class.encode("ascii"))
        + _element(0x0003, b"UI", sop_instance.encode("ascii"))
        + _element(0x0010, b"UI", transfer_syntax.encode("ascii"))
        + _element(0x0012, b"UI", IMPLEMENTATION_CLASS.encode("ascii"))
        + _element(0x0013, b"SH", IMPLEMENTATION_VERSION.encode("ascii"))
        + (_element(0x0016, b"AE", calling_ae.encode("ascii")) if calling_ae else b"")
    )
    return bytes(128) + b"DICM" + _element(0x0000, b"UL", len(group).to_bytes(4, "little")) + group


class _FolderSync:
    """fsync of one folder; threads that wait at the same time share one."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._count = threading.Lock()
        self._syncing = threading.Lock()
        self._asked = 0
        self._done = 0

    def wait(self) -> None:
        """Return once everything that was renamed before this call is durable."""
        with self._count:
            self._asked += 1
            mine = self._asked
        with self._syncing:
            if self._done >= mine:
                return
            with self._count:
                covered = self._asked
            os.fsync(self._descriptor)
            self._done = covered

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


class Part:
    """One file being received. A context manager: what was not kept is removed on the way out."""

    def __init__(self, store: "InstanceStore", meta: bytes) -> None:
        self._store = store
        self.path = store.incoming / f"{uuid.uuid4().hex}.part"
        self._final: Path | None = None
        self._digest = hashlib.sha256()
        self.data_offset = len(meta)
        self.size = 0
        with _resources(f"creating a file in {store.incoming}"):
            self._descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o640)
        self._closed = False
        try:
            with _resources(f"writing to {store.incoming}"):
                self._put(memoryview(meta))
        except ResourceError:
            self.discard()
            raise

    def _put(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]

    def write(self, chunk: memoryview) -> None:
        """Append bytes of the data set; raises ResourceError when the disk does not take them."""
        with _resources(f"writing to {self._store.incoming}"):
            self._put(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)

    def reader(self) -> io.BufferedReader:
        """The file from its beginning, for reading; close it before `keep`."""
        return self.path.open("rb")

    def keep(self) -> Kept:
        """Make the file durable under its final name; raises ResourceError and leaves nothing behind when it cannot."""
        with _resources(f"storing in {self._store.instances}"):
            final = self._store.instances / f"{uuid.uuid4().hex}.dcm"
            self.path.rename(final)
            self._final = final
            # In this order one journal transaction carries both: the second fsync finds little left to do.
            os.fsync(self._descriptor)
            self._store.sync_instances()
            self._close()
        relative = final.relative_to(self._store.data_dir).as_posix()
        return Kept(relative, self.data_offset + self.size, self._digest.hexdigest())

    def release(self) -> None:
        """The file is named in the queue now: leaving the context does not remove it."""
        self._final = None

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove the file unless it was kept and released."""
        self._close()
        for path in (self.path, self._final):
            if path is not None:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _resources(doing: str) -> Iterator[None]:
    """The boundary to the file system: an OSError is a ResourceError that says what was being done."""
    try:
        yield
    except OSError as error:
        raise ResourceError(f"{doing} failed: {error.strerror}; check the disk under data_dir") from error


def make_data_dir(data_dir: Path) -> None:
    """Make it where it is missing, closed to other users: patients' data lie below. Raises OSError."""
    data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)


@contextlib.contextmanager
def hold(data_dir: Path, patience: float = 0.0, over: Callable[[], bool] = bool) -> Iterator[None]:
    """Be the only service on a data folder; an earlier one may take up to `patience` seconds to end.

    The wait is given up when `over` says so.

    Raises ConfigurationError when another holds it, or when it cannot be written.
    """
    try:
        make_data_dir(data_dir)
        lock = (data_dir / LOCK).open("w")
    except OSError as error:
        raise _no_data_dir(data_dir, error) from error
    with lock:
        end = time.monotonic() + patience
        while not _locked(lock.fileno()):
            if time.monotonic() >= end or over():
                raise ConfigurationError(
                    f"data_dir {data_dir} is in use by another service: stop it, or give this one its own data_dir"
                )
            time.sleep(HOLD_POLL_SECONDS)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _no_data_dir(data_dir: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"data_dir {data_dir}: {error.strerror}; choose a folder Genu may write")


class InstanceStore:
    """The folders of received instances under one data_dir, held by one listener at a time."""

    def __init__(self, data_dir: Path, *, min_free_bytes: int = 0) -> None:
        self.data_dir = data_dir
        self.incoming = data_dir / INCOMING
        self.instances = data_dir / INSTANCES
        self._min_free_bytes = min_free_bytes
        try:
            make_data_dir(data_dir)
            for folder in (self.incoming, self.instances):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise _no_data_dir(data_dir, error) from error
        self._hold = contextlib.ExitStack()
        self._hold.enter_context(hold(data_dir))
        self._sync = _FolderSync(self.instances)

    def sync_instances(self) -> None:
        """fsync the folder of complete instances."""
        self._sync.wait()

    def part(self, meta: bytes) -> Part:
        """A new file to receive into; raises ResourceError when less than `min_free_bytes` are free."""
        with _resources(f"reading the free space of {self.data_dir}"):
            free = shutil.disk_usage(self.incoming).free
        if free < self._min_free_bytes:
            raise ResourceError(
                f"{free} bytes are free in {self.data_dir}, fewer than listener.min_free_bytes "
                f"({self._min_free_bytes}): make room"
            )
        return Part(self, meta)

    def clean(self, known: Iterable[str], *, most: int) -> int:
        """Remove what a crash left: unfinished files, and complete ones that no row names. Returns how many.

        Raises ConfigurationError, and removes nothing, when more than `most` complete files have no row: a crash leaves
        one for each association, but a queue that was lost or restored from a backup leaves instances that we answered
        for.
        """
        named = frozenset(known)
        nameless = [
            path for path in self.instances.iterdir() if path.relative_to(self.data_dir).as_posix() not in named
        ]
        if len(nameless) > most:
            raise ConfigurationError(
                f"data_dir {self.data_dir}: the queue does not know {len(nameless)} of the files in {self.instances}, "
                "it is not the one that received them: restore that one, or move these files away and send them again"
            )
        orphans = [*self.incoming.iterdir(), *nameless]
        for path in orphans:
            path.unlink(missing_ok=True)
        return len(orphans)

    def close(self) -> None:
        """Let another listener have the folder."""
        self._sync.close()
        self._hold.close()
