"""What was computed, on disk: shards of vectors beside the table of their knees, written whole, torn ones noticed.

A shard is `NAME.safetensors` and, written after it, `NAME.parquet`, which holds the hash of the former. A file without
its partner, cut off or changed is not believed: it is counted, removed, and its knees are computed again.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

_HASH = b"genu_tensors_sha256"
_SCHEMA = pa.schema(
    [(name, pa.int32() if name == "row" else pa.string())
     for name in ("knee", "source", "pixels", "key", "row", "code", "reason")]
)  # fmt: skip
Tensors = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Record:
    """One knee of a shard.

    `key` names its vectors, empty where there are none; `row` is where they are in this shard, -1 where another shard
    (or row) has them already: the same pixels. `code` and `reason` say why there are none.
    """

    knee: str
    source: str
    pixels: str
    key: str
    row: int
    code: str = ""
    reason: str = ""


@dataclass
class Shards:
    """All shards of one specification.

    `outcomes` by knee and source; `places` of the vectors, shard and row, by key; `torn` names what was not believed.
    """

    folder: Path
    outcomes: dict[tuple[str, str], Record] = field(default_factory=dict)
    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    torn: list[str] = field(default_factory=list)
    _next: int = 0

    @classmethod
    def open(cls, folder: Path) -> "Shards":
        """Read the tables, compare every hash, and remove what is torn."""
        folder.mkdir(parents=True, exist_ok=True)
        shards = cls(folder)
        names = {path.stem for path in folder.glob("shard-*") if path.suffix in (".safetensors", ".parquet")}
        for part in folder.glob("*.part"):
            part.unlink()
        for name in sorted(names):
            records = _read(folder, name)
            if records is None:
                shards.torn.append(name)
                for suffix in (".parquet", ".safetensors"):
                    (folder / f"{name}{suffix}").unlink(missing_ok=True)
            else:
                shards._add(name, records)
            shards._next = max(shards._next, int(name.removeprefix("shard-")) + 1)
        shards._forget_lost()
        return shards

    def write(self, records: Sequence[Record], tensors: Tensors) -> None:
        """Write one shard; `tensors` have the records' rows as their first axis."""
        name = f"shard-{self._next:06d}"
        self._next += 1
        weights = self.folder / f"{name}.safetensors"
        part = weights.with_suffix(".part")
        save_file({key: np.ascontiguousarray(values) for key, values in tensors.items()}, part)
        _settle(part, weights)
        columns = [asdict(record) for record in records]
        table = pa.Table.from_pylist(columns, schema=_SCHEMA.with_metadata({_HASH: _sha256(weights).encode()}))
        pq.write_table(table, part)
        _settle(part, self.folder / f"{name}.parquet")
        self._add(name, records)

    def known(self) -> dict[str, frozenset[str]]:
        """Sources that need not be read again, by knee."""
        found: dict[str, set[str]] = {}
        for knee, source in self.outcomes:
            found.setdefault(knee, set()).add(source)
        return {knee: frozenset(sources) for knee, sources in found.items()}

    def _add(self, name: str, records: Sequence[Record]) -> None:
        for record in records:
            self.outcomes[record.knee, record.source] = record
            if record.row >= 0:
                self.places[record.key] = (name, record.row)

    def _forget_lost(self) -> None:
        """Knees whose vectors were in a shard that is torn."""
        lost = [at for at, record in self.outcomes.items() if record.key and record.key not in self.places]
        for at in lost:
            del self.outcomes[at]


def _read(folder: Path, name: str) -> list[Record] | None:
    """The records of a shard; None when it is torn."""
    table, weights = folder / f"{name}.parquet", folder / f"{name}.safetensors"
    try:
        read = pq.read_table(table)
        if (read.schema.metadata or {}).get(_HASH) != _sha256(weights).encode():
            return None
        records = [Record(**row) for row in read.to_pylist()]
        with safe_open(weights, framework="numpy") as file:
            rows = {file.get_slice(key).get_shape()[0] for key in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, pa.ArrowException, SafetensorError, TypeError):
        return None
    used = sum(record.row >= 0 for record in records)
    return records if rows <= {used} else None


def _settle(part: Path, whole: Path) -> None:
    """Onto the disk, then under its name."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(whole)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
