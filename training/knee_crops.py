"""Crops of a cohort's knees on disk, for training that looks at them again and again: `gather`, then `KneeCrops.take`.

They are what `genu-train embed` and the service cut out: same decoding, finder, refusals and canonical side. A second
gathering reads and hashes the files only; of the crops nothing is held in memory but what is asked for.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from inference.errors import DataError
from inference.preprocess import PreprocessSpec
from training.embed_knees import KneeRow
from training.embed_shards import Shards
from training.export_names import Export
from training.knee_work import Crops, KneeWork, Progress, alone, write_failures

_BATCH = 64
_NAME = "crops"


@dataclass(eq=False)
class KneeCrops:
    """Crops by knee, uint8 (S, S) on the canonical side; read from disk when asked for.

    `spec` says how they were cut out. `failures` has a code and a reason of each knee that has none.
    """

    folder: Path
    spec: PreprocessSpec
    failures: Mapping[str, tuple[str, str]]
    _places: Mapping[str, tuple[str, int]]
    _keys: Mapping[str, str]
    _open: dict[str, Any] = field(default_factory=dict)

    def __contains__(self, knee: str) -> bool:
        return knee in self._keys

    def take(self, knees: Sequence[str]) -> Crops:
        """Crops uint8 (N, S, S) in the order of `knees`; from one thread at a time.

        Raises:
            DataError: a knee has no crop, or a shard cannot be read.
        """
        size = self.spec.crop_size
        result: npt.NDArray[np.uint8] = np.empty((len(knees), size, size), np.uint8)
        for number, knee in enumerate(knees):
            if knee not in self._keys:
                code, reason = self.failures.get(knee, ("", "it is not of this cohort."))
                raise DataError(f"the knee {knee} has no crop: {code} {reason}")
            shard, row = self._places[self._keys[knee]]
            try:
                result[number] = self._slice(shard)[row : row + 1][0]
            except (OSError, SafetensorError, IndexError) as error:
                raise DataError(
                    f"{shard} of {self.folder} cannot be read ({error}): run the same command again, it makes the "
                    "shard again."
                ) from error
        return result

    def pixels(self, knees: Sequence[str]) -> dict[str, str]:
        """A hash of the pixels of each knee that has a crop."""
        return {knee: self._keys[knee] for knee in knees if knee in self._keys}

    def digest(self, knees: Sequence[str]) -> str:
        """SHA-256 of which knees, and of their pixels."""
        text = json.dumps([self.spec.to_json(), [[knee, self._keys.get(knee)] for knee in knees]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _slice(self, shard: str) -> Any:
        if shard not in self._open:
            # Mapped, not read: the system takes the pages back when memory is short.
            file: Any = safe_open(self.folder / f"{shard}.safetensors", framework="numpy")
            self._open[shard] = file.get_slice(_NAME)
        return self._open[shard]


def gather(
    export: Export,
    rows: Sequence[KneeRow],
    spec: PreprocessSpec,
    cache: Path,
    *,
    workers: int = 0,
    progress: Progress | None = None,
) -> KneeCrops:
    """Cut out the knees of a cohort, going on where an earlier gathering stopped.

    Args:
        export: the DICOM export of the cohort.
        rows: its knees, of `embed_knees.read_cohort`.
        spec: how they are cut out.
        cache: folder of the crops; another `spec` has its own place in it. failures.csv is of the last gathering.
        workers: decode processes, 0 for none.
        progress: gets knees done, knees in all, and failures.

    Raises:
        DataError: no export, or another gathering is at work; ResourceError: memory, disk, or an ended worker.
    """
    digest = hashlib.sha256(json.dumps(spec.to_json(), sort_keys=True).encode()).hexdigest()
    with alone(cache):
        shards = Shards.open(cache / digest[:16])
        work = KneeWork(shards, digest, lambda crops: {_NAME: crops}, _BATCH)
        work.run(export, rows, spec, workers, progress)
        write_failures(cache / "failures.csv", work.failures)
    failures = {row.knee: (str(code), reason) for row, code, reason in work.failures}
    return KneeCrops(shards.folder, spec, failures, shards.places, work.found)
