"""From a cohort's knees to something computed of each crop, kept in shards: what was done is not done again.

`genu-train embed` and `genu-train grade` both run on this, and so does the cache of crops that fine-tuning reads: one
decoding, one finder, one canonical side.
"""

import csv
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.errors import UsageError
from inference.preprocess import PreprocessSpec
from training.alone import alone
from training.embed_decode import prepared
from training.embed_knees import KneeRow, PreparedKnee, films
from training.embed_shards import Record, Shards
from training.export_names import Export
from training.exports import check

__all__ = ["Compute", "KneeWork", "Progress", "alone", "check_work", "write_failures"]

SHARD_BYTES = 64 << 20
SHARD_KNEES = 2048
SHARD_SECONDS = 60.0  # of work that a kill may cost
_FAILURES = ("knee", "SOPInstanceUID", "side", "code", "reason")
Crops = npt.NDArray[np.uint8]
Compute = Callable[[Crops], Mapping[str, npt.NDArray[Any]]]
Progress = Callable[[int, int, int], None]


@dataclass(eq=False)
class KneeWork:
    """The way of knees from crops to shards; holds one batch and one shard at most.

    shards: where things are kept. digest: of all but the pixels that decides what is computed.
    compute: of crops uint8 (N, S, S) on the canonical side arrays by name, their first axis N.
    batch: knees of one call.

    `found` has the key of every knee that has its values, `failures` code and reason of the others; `computed` knees
    went through `compute` in `batches` calls, `cached` ones were there already.
    """

    shards: Shards
    digest: str
    compute: Compute
    batch: int
    found: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[KneeRow, str, str]] = field(default_factory=list)
    computed: int = 0
    cached: int = 0
    batches: int = 0
    _batch: list[tuple[Record, Crops]] = field(default_factory=list)
    _pending: set[str] = field(default_factory=set)
    _records: list[Record] = field(default_factory=list)
    _parts: list[Mapping[str, npt.NDArray[Any]]] = field(default_factory=list)
    _rows: int = 0
    _bytes: int = 0
    _since: float = field(default_factory=time.monotonic)

    def run(
        self, export: Export, rows: Sequence[KneeRow], spec: PreprocessSpec, workers: int, progress: Progress | None
    ) -> None:
        """Every knee of a cohort, `spec` saying how it is cut out; `progress` gets knees done, all, and failures.

        Raises:
            DataError: there is no export; ResourceError: memory, disk, a store that does not answer, or a decode worker
                that was ended.
        """
        check(export)
        done = 0
        for knees in prepared(films(export, rows, spec, self.shards.known()), workers):
            for knee in knees:
                self.take(knee)
            done += len(knees)
            if progress is not None:
                progress(done, len(rows), len(self.failures))
        self.finish()

    def take(self, knee: PreparedKnee) -> None:
        """One knee: known, refused, or on its way to be computed."""
        name = knee.row.knee
        if knee.code:
            self.failures.append((knee.row, knee.code, knee.reason))
            if knee.source:
                self._records.append(Record(name, knee.source, "", "", -1, knee.code, knee.reason))
        elif knee.crop is None:
            known = self.shards.outcomes[name, knee.source]
            self.cached += not known.code
            if known.code:
                self.failures.append((knee.row, known.code, known.reason))
            else:
                self.found[name] = known.key
        else:
            key = hashlib.sha256(f"{knee.pixels}\n{self.digest}".encode()).hexdigest()
            self.found[name] = key
            if key in self.shards.places or key in self._pending:
                self.cached += 1
                self._records.append(Record(name, knee.source, knee.pixels, key, -1))
            else:
                self._pending.add(key)
                self._batch.append((Record(name, knee.source, knee.pixels, key, 0), knee.crop))
        if len(self._batch) >= self.batch:
            self._forward()
        full = self._bytes >= SHARD_BYTES or len(self._records) >= SHARD_KNEES
        if full or time.monotonic() - self._since > SHARD_SECONDS:
            self._flush()

    def finish(self) -> None:
        """The last batch and the last shard."""
        self._forward()
        self._flush()

    def _forward(self) -> None:
        if not self._batch:
            return
        part = self.compute(np.stack([crop for _, crop in self._batch]))
        self._parts.append(part)
        for record, _ in self._batch:
            self._records.append(Record(record.knee, record.source, record.pixels, record.key, self._rows))
            self._rows += 1
        self._bytes += sum(values.nbytes for values in part.values())
        self.computed += len(self._batch)
        self.batches += 1
        self._batch = []

    def _flush(self) -> None:
        if self._records:
            names = self._parts[0] if self._parts else {}
            self.shards.write(self._records, {name: np.concatenate([p[name] for p in self._parts]) for name in names})
        self._records, self._parts, self._rows, self._bytes = [], [], 0, 0
        self._pending = {record.key for record, _ in self._batch}
        self._since = time.monotonic()


def check_work(batch: int, workers: int) -> None:
    """Raises UsageError: there cannot be so many."""
    if batch < 1 or workers < 0:
        raise UsageError(f"--batch {batch} --workers {workers}: at least 1, and at least 0.")


def write_failures(path: Path, failures: Sequence[tuple[KneeRow, str, str]]) -> None:
    """The knees that have nothing, sorted: CSV of knee, SOPInstanceUID, side, code, reason."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_FAILURES)
        ordered = sorted(failures, key=lambda failure: failure[0].knee)
        writer.writerows([row.knee, row.sop_instance_uid, row.side, code, reason] for row, code, reason in ordered)
