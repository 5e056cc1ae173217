"""Some entries of an export read into one shard of the index: what every worker does.

It runs in processes of their own, and brings neither torch nor a progress bar into them.
"""

import errno
import functools
import os
import signal
import threading
import zipfile
from collections.abc import Sequence
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import IO

import pyarrow as pa

from inference.errors import ResourceError, UnreadableError
from inference.limits import DEFAULT_LIMITS, Limits
from inference.sources import ByteSource
from inference.structure import unreadable
from training.index_columns import NO_VALUES, SCHEMA, Values
from training.index_remote import RemoteTree
from training.index_rows import read_copied, read_row
from training.index_scan import scan
from training.index_tree import AGAIN, ZIP_ERRORS, Entry, member_reason

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
Row = tuple[object, ...]


def watch_parent() -> None:
    """End this process when the one that started it is gone, however it ended; set up once in each worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt of the terminal is the parent's to handle
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def write_shard(
    chosen: Sequence[Entry], shard: Path, remote: RemoteTree | None = None, limits: Limits = DEFAULT_LIMITS
) -> int:
    """Read the entries and write their rows as the file `shard`, whole or not at all; returns how many.

    Raises OSError when the shard cannot be written.
    """
    rows = [row_of(entry, remote, limits) for entry in chosen]
    columns = zip(*rows, strict=True)
    table = pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
    part = shard.with_suffix(".part")
    with pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_table(table)
    part.replace(shard)
    return len(rows)


def row_of(entry: Entry, remote: RemoteTree | None, limits: Limits) -> Row:
    """The row of one entry. What could not be read just now gets the time AGAIN, so that the next run reads it."""
    mtime = entry.mtime_ns
    reason, values = entry.reason, NO_VALUES
    if reason is None:
        try:
            if remote is not None:
                reason, values = _values(remote.source(entry), entry.size, limits)
            elif entry.member is not None:
                reason, values = _of_member(entry, limits)
            else:
                reason, values = _of_file(entry, limits)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "unknown error")
            reason, mtime = f"The file cannot be opened ({name}). Check that it exists and may be read.", AGAIN
        except ResourceError as error:
            reason, mtime = str(error), AGAIN
    return (entry.path, entry.size, mtime, reason, *values)


class _Descriptor:
    """An open file, without a window: the scanner reads its head once."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size = descriptor, size

    def read_at(self, offset: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, offset)

    def holds(self, end: int) -> bool:
        return end <= self._size


def _of_file(entry: Entry, limits: Limits) -> tuple[str | None, Values]:
    values = None
    if entry.size <= limits.max_file_bytes:
        descriptor = os.open(entry.place, _FLAGS)
        try:
            values = scan(_Descriptor(descriptor, entry.size), limits)
        finally:
            os.close(descriptor)
    return (None, values) if values is not None else read_row(Path(entry.place), limits)


def _of_member(entry: Entry, limits: Limits) -> tuple[str | None, Values]:
    try:
        archive = _archive(entry.place, entry.mtime_ns)
        with archive.open(archive.infolist()[entry.member or 0]) as stream:
            return _values(_Stream(stream, entry.size, limits), entry.size, limits)
    except ZIP_ERRORS as error:
        return member_reason(error), NO_VALUES


@functools.lru_cache(maxsize=2)
def _archive(place: str, _mtime_ns: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(place)


class _Stream:
    """The head of a packed member, unpacked only as far as it is asked for and never past the limit of headers."""

    def __init__(self, stream: IO[bytes], size: int, limits: Limits) -> None:
        self._stream, self._size, self._data = stream, size, bytearray()
        self._most = limits.max_header_bytes + (1 << 21)

    def read_at(self, offset: int, count: int) -> bytes:
        if offset + count > self._most:
            raise unreadable(f"The header is larger than the limit of {self._most} bytes.")
        while len(self._data) < offset + count and (part := self._stream.read(offset + count - len(self._data))):
            self._data += part
        return bytes(self._data[offset : offset + count])

    def holds(self, end: int) -> bool:
        return end <= self._size


def _values(source: ByteSource, size: int, limits: Limits) -> tuple[str | None, Values]:
    if size == 0:
        return "The file is empty. Send the image again.", NO_VALUES
    values = scan(source, limits) if size <= limits.max_file_bytes else None
    if values is not None:
        return None, values
    try:
        return read_copied(source, size, limits)
    except UnreadableError as error:
        return error.refusal.reason, NO_VALUES
