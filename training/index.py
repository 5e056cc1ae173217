"""A DICOM export to a Parquet index, one row an instance: `genu-train index`.

Only the heads of files are read. A file that cannot be read is a row with its reason, never a silent gap. Files that
have not changed since (path, size, time) keep their rows. Rows are written as shards beside the index while they are
made, so that a run that was stopped goes on where it was. See docs/index-of-exports.md.
"""

import errno
import multiprocessing
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from inference.errors import DataError, ResourceError, UsageError
from training.index_columns import is_current
from training.index_remote import RemoteTree
from training.index_store import Store, locked, unchanged
from training.index_tree import Entry, entries
from training.index_worker import watch_parent, write_shard

Progress = Callable[[int, int], None]
Chunk = tuple[Sequence[Entry], Path]  # what is read, and the shard that it becomes
_LOCAL_CHUNK, _REMOTE_CHUNK = 512, 64
_ALONE_SECONDS = 2.0  # a process starts in a second or two: others are worth it where twice as long is left
_REMOTE_WORKERS = 32


class IndexSummary(NamedTuple):
    """What an index holds: rows, how many of them are unreadable files, and how many files were read this time."""

    rows: int
    unreadable: int
    read: int


def index_export(
    export: Path | str, out: Path, progress: Progress | None = None, workers: int | None = None
) -> IndexSummary:
    """Index every file of `export` (a folder, a zip, a DICOMDIR or a URL) into the Parquet file `out`.

    `progress` is called with files done and files to do. `workers` are processes for local files (default: one a CPU),
    this one among them, and threads for a URL (default: 32).

    Raises:
        DataError: there is no such export, it holds no file, `out` is something else, or another run writes it.
        ResourceError: the disk is full, a store does not answer, or a worker was killed. Run it again: it goes on.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers: there must be 1 or more.")
    try:
        return _index(export, out, progress or (lambda _done, _all: None), workers)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown error")
        raise ResourceError(f"the index {out} could not be written ({name}): run again, it goes on.") from error


def _index(export: Path | str, out: Path, progress: Progress, workers: int | None) -> IndexSummary:
    remote = RemoteTree(str(export)) if "://" in str(export) else None
    shards = out.with_name(out.name + ".shards")
    listed = entries(Path(export), shards) if remote is None else remote.entries()
    if not listed:
        raise DataError(f"{export} holds no DICOM file: name the folder that holds the export.")
    if not shards.exists() and (bad := unchanged(listed, out)) is not None:
        return IndexSummary(len(listed), bad, 0)
    store = Store()
    store.add_index(out)
    with locked(shards):
        kept = [path for path in sorted(shards.glob("*.arrow")) if store.add_shard(path)]
        todo = store.missing(listed)
        first = int(kept[-1].stem) + 1 if kept else 0
        for path in _read(todo, shards, first, remote, workers, progress):
            store.add_shard(path)
        bad = store.write(listed, out)
        shutil.rmtree(shards)
    return IndexSummary(len(listed), bad, len(todo))


def _read(
    todo: Sequence[Entry], shards: Path, first: int, remote: RemoteTree | None, workers: int | None, progress: Progress
) -> Iterator[Path]:
    """Read all entries, some at a time; gives every shard when it is whole."""
    size = _LOCAL_CHUNK if remote is None else _REMOTE_CHUNK
    starts = range(0, len(todo), size)
    chunks = deque((todo[start : start + size], shards / f"{first + start // size:08}.arrow") for start in starts)
    done = 0
    progress(0, len(todo))
    workers = workers or (len(os.sched_getaffinity(0)) if remote is None else _REMOTE_WORKERS)
    began = time.monotonic()
    while chunks and (workers == 1 or (remote is None and _alone(time.monotonic() - began, done, len(todo)))):
        chunk, shard = chunks.popleft()
        done += write_shard(chunk, shard, remote)
        progress(done, len(todo))
        yield shard
    if chunks:
        for read, shard in _shared(chunks, remote, workers):
            done += read
            progress(done, len(todo))
            yield shard


def _alone(took: float, done: int, all_: int) -> bool:
    """Whether this process goes on alone: it has only begun, or will be at the end soon."""
    return took < _ALONE_SECONDS or took * (all_ - done) < 2 * _ALONE_SECONDS * done


def _shared(chunks: deque[Chunk], remote: RemoteTree | None, workers: int) -> Iterator[tuple[int, Path]]:
    """Read chunks in workers; of local files this process reads its share, also while the others start."""
    own = remote is None
    others = min(workers - own, len(chunks))
    with _pool(others, remote) as pool:
        waiting: dict[Future[int], Path] = {}
        while chunks or waiting:
            while chunks and len(waiting) < 2 * others:
                chunk, shard = chunks.popleft()
                waiting[pool.submit(write_shard, chunk, shard, remote)] = shard
            if own and chunks:
                chunk, shard = chunks.popleft()
                yield write_shard(chunk, shard), shard
            finished, _ = wait(waiting, 0 if own and chunks else None, FIRST_COMPLETED)
            for future in finished:
                yield future.result(), waiting.pop(future)


@contextmanager
def _pool(workers: int, remote: RemoteTree | None) -> Iterator[Executor]:
    """Threads where the network is waited for, fresh processes where the CPU is; none is left behind."""
    pool: Executor
    if remote is not None:
        pool = ThreadPoolExecutor(workers, thread_name_prefix="index")
    else:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=watch_parent)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise ResourceError("a worker was killed (memory?): run again, it goes on; try fewer --workers.") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_index(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of an index, with all columns or those named.

    Raises:
        DataError: the file is missing or not an index of this version.
    """
    if not path.exists():
        raise DataError(f"the index {path} is missing: make it with `genu-train index`.")
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is no Parquet file: make the index again with `genu-train index`.") from error
    with file:
        if not is_current(file.schema_arrow):
            raise DataError(f"{path} is an index of another version: make it again with `genu-train index`.")
        rows: list[dict[str, Any]] = file.read(columns=None if columns is None else list(columns)).to_pylist()
    return rows
