"""Rows that are known already, from an earlier index and from the shards of a run that was stopped.

Rows are found by path and taken from where they lie, so that an index of millions of rows is merged in little memory.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inference.errors import DataError
from training.index_columns import SCHEMA, is_current
from training.index_tree import AGAIN, Entry

_KEYS = ["path", "size", "mtime_ns"]
_BLOCK = 8192


class Store:
    """Tables on disk and, by path, (size, time of change, table, row); later ones replace earlier ones."""

    def __init__(self) -> None:
        self._parts: list[tuple[pq.ParquetFile, int] | pa.Table] = []
        self._known: dict[str, tuple[int, int, int, int]] = {}
        self._loaded: tuple[int, pa.Table] | None = None

    def add_index(self, path: Path) -> None:
        """Know the rows of an index; one of another version is left alone.

        Raises:
            DataError: the file is no index at all.
        """
        if not path.exists():
            return
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} is there and is no index: name another file, or remove it.") from error
        if not set(_KEYS) <= set(file.schema_arrow.names):
            raise DataError(f"{path} is a table, but no index of DICOM files: name another file, or remove it.")
        if is_current(file.schema_arrow):
            for group in range(file.num_row_groups):
                self._add((file, group), file.read_row_group(group, columns=_KEYS))

    def add_shard(self, path: Path) -> bool:
        """Know the rows of a shard; one that is damaged or of another version is removed, and False returned."""
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except pa.ArrowInvalid:
            path.unlink()
            return False
        if not is_current(table.schema):
            path.unlink()
            return False
        self._add(table, table.select(_KEYS))
        return True

    def _add(self, part: "tuple[pq.ParquetFile, int] | pa.Table", keys: pa.Table) -> None:
        number = len(self._parts)
        self._parts.append(part)
        rows = zip(*(keys.column(name).to_pylist() for name in _KEYS), strict=True)
        self._known.update({path: (size, time, number, row) for row, (path, size, time) in enumerate(rows)})

    def missing(self, listed: Sequence[Entry]) -> list[Entry]:
        """The entries that are not known, or have changed."""
        known = self._known.get
        return [
            entry
            for entry in listed
            if (row := known(entry.path)) is None or row[:2] != entry[1:3] or entry.mtime_ns == AGAIN
        ]

    def write(self, listed: Sequence[Entry], out: Path) -> int:
        """Write the rows of all entries, in their order, as one index; returns how many of them are unreadable."""
        bad = 0
        part = out.with_name(out.name + ".part")
        with pq.ParquetWriter(part, SCHEMA, compression="zstd") as writer:
            for start in range(0, len(listed), _BLOCK):
                table = self._rows(listed[start : start + _BLOCK])
                bad += len(table) - table.column("reason").null_count
                writer.write_table(table, row_group_size=_BLOCK)
        _settle(part)
        part.replace(out)
        return bad

    def _rows(self, listed: Sequence[Entry]) -> pa.Table:
        places = np.asarray([self._known[entry.path][2:] for entry in listed], np.int64)
        tables, taken = [], []
        for number in np.unique(places[:, 0]):
            chosen = np.flatnonzero(places[:, 0] == number)
            tables.append(self._part(int(number)).take(pa.array(places[chosen, 1])))
            taken.append(chosen)
        order = np.argsort(np.concatenate(taken))
        together = pa.concat_tables(tables).combine_chunks()
        return together.take(pa.array(order)).replace_schema_metadata(SCHEMA.metadata)

    def _part(self, number: int) -> pa.Table:
        part = self._parts[number]
        if isinstance(part, pa.Table):
            return part
        if self._loaded is None or self._loaded[0] != number:
            self._loaded = number, part[0].read_row_group(part[1])
        return self._loaded[1]


def unchanged(listed: Sequence[Entry], out: Path) -> int | None:
    """How many rows of the index are unreadable when it has just these entries; None when it has not."""
    try:
        file = pq.ParquetFile(out)
    except (pa.ArrowInvalid, OSError):
        return None
    if not is_current(file.schema_arrow) or file.metadata.num_rows != len(listed):
        return None
    if any(entry.mtime_ns == AGAIN for entry in listed):
        return None
    table = file.read(columns=[*_KEYS, "reason"])
    for number, name in enumerate(_KEYS):
        if (
            not table.column(name)
            .combine_chunks()
            .equals(pa.chunked_array([[e[number] for e in listed]]).combine_chunks())
        ):
            return None
    return int(pc.sum(pc.is_valid(table.column("reason"))).as_py() or 0)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder of shards and hold it: two runs must not write one index.

    Raises:
        DataError: another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another `genu-train index` is writing into {folder}: wait for it.") from None
        yield
    finally:
        os.close(descriptor)


def _settle(path: Path) -> None:
    """On disk before it takes the place of the old index."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
