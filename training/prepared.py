"""Prepared slices of MR series, as `genu-train preprocess` wrote them: by knee, and back to their source.

    store = PreparedStore(folder)
    store.keys                   # Series Instance UIDs, sorted
    store.slices(cohort["knee"]) # float16 (N, S, H, W), 0..1, canonical side

A key is a Series Instance UID, or the `knee` of a cohort that begins with one ("UID/side/window"): the windows of a
series share its slices. `failures.csv` beside them has the series without slices. The spec is that of
`inference.volumes.VolumeSpec`: it goes into the bundle as it is, and `inference.volumes.prepare_volume` gives the same
slices (rounded to half precision here) at inference.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from inference.errors import BundleError, DataError
from inference.volume_map import SliceMap
from inference.volumes import VolumeSpec
from training.preprocess_worker import SLICES

SPEC, SERIES, FAILURES, CHOICES = "spec.json", "series.parquet", "failures.csv", "choices.csv"
Slices = npt.NDArray[np.float16]


class PreparedStore:
    """Slices in a folder. `spec` says how they were prepared."""

    def __init__(self, folder: Path) -> None:
        """Open. Raises DataError when there are none, or of another version of Genu."""
        self.folder = folder
        try:
            self.spec = VolumeSpec.from_json(json.loads((folder / SPEC).read_text("utf-8"))["spec"])
            table = pq.read_table(folder / SERIES).to_pylist()
        except (OSError, ValueError, KeyError, TypeError, BundleError, pa.ArrowException) as error:
            raise DataError(f"{folder} holds no prepared slices ({error}): run `genu-train preprocess`.") from error
        self._rows: dict[str, Mapping[str, Any]] = {row["SeriesInstanceUID"]: row for row in table}

    @property
    def keys(self) -> tuple[str, ...]:
        """Series Instance UIDs that have slices, sorted."""
        return tuple(sorted(self._rows))

    def __contains__(self, key: str) -> bool:
        """Whether there are slices of a series, or of a knee of a cohort."""
        return series_of(key) in self._rows

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns of each."""
        return self.spec.slices, self.spec.size, self.spec.size

    def side(self, key: str) -> str:
        """ "L" or "R". Raises DataError for a key without slices."""
        return str(self._row(key)["side"])

    def slices(self, keys: Sequence[str]) -> Slices:
        """float16 (N, S, H, W), 0..1, in the order of `keys`; a key may come twice.

        Raises DataError: keys without slices (how many, and the first), or a file that is missing or damaged.
        """
        missing = [key for key in keys if key not in self]
        if missing:
            raise DataError(
                f"{self.folder} has no slices of {len(missing)} of {len(keys)} knees, the first is {missing[0]}: see "
                f"its {FAILURES}, or run `genu-train preprocess` for this cohort."
            )
        result = np.empty((len(keys), *self.shape), np.float16)
        for place, key in enumerate(keys):
            result[place] = self._read(key)[0]
        return result

    def map(self, key: str) -> SliceMap:
        """How the slices of a series lie on its images. Raises DataError as `slices`."""
        try:
            return SliceMap.from_json(self.about(key)["map"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the slices of {key} do not say where they were taken ({error}).") from error

    def about(self, key: str) -> dict[str, Any]:
        """Series, study, side, sequence, how it was chosen, spec and map. Raises DataError as `slices`."""
        about: dict[str, Any] = self._read(key, header_only=True)[1]
        return about

    def _row(self, key: str) -> Mapping[str, Any]:
        row = self._rows.get(series_of(key))
        if row is None:
            raise DataError(f"{self.folder} has no slices of {key}: see its {FAILURES}.")
        return row

    def _read(self, key: str, *, header_only: bool = False) -> tuple[Slices, dict[str, Any]]:
        path = self.folder / str(self._row(key)["file"])
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {})["about"])
                values = np.empty(0, np.float16) if header_only else file.get_tensor(SLICES)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}): run `genu-train preprocess` again.") from error
        if not header_only and (values.shape != self.shape or values.dtype != np.float16):
            raise DataError(f"{path} holds {values.dtype} {values.shape}, not float16 {self.shape}.")
        return values, about


def series_of(key: str) -> str:
    """The Series Instance UID that a key begins with."""
    return key.split("/", 1)[0]
