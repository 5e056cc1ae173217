"""Slice features of MR series: `genu-train embed --prepared` writes them, the slice networks learn from them.

    OUT/spec.json            backbone, hash of its weights, how slices were prepared, terms, synthetic or not
    OUT/series.parquet       SeriesInstanceUID, side, file
    OUT/<digest>/*.safetensors   float16 (S, D) of one series; its header names the slices' hash

A series is computed again where its slices, the weights or the preprocessing changed. A kill costs one series.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from inference.backbones import InputSpec, entry
from inference.errors import BundleError, DataError
from inference.frozen import FrozenBackbone
from inference.slice_features import slice_features
from inference.volumes import VolumeSpec
from training.prepared import PreparedStore

SPEC, SERIES, FEATURES = "spec.json", "series.parquet", "features"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SliceSpec:
    """All that decides slice features, and what is to be said of them; the words are those of EmbeddingSpec."""

    backbone: str
    weights: str
    weights_digest: str
    volume: VolumeSpec
    input: InputSpec
    width: int
    synthetic: bool
    licence: str
    deployed_use: bool

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the vectors."""
        parts = [self.backbone, self.weights_digest, self.volume.digest, self.input.to_json()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "backbone": self.backbone,
            "weights": self.weights,
            "weights_digest": self.weights_digest,
            "volume": self.volume.to_json(),
            "input": self.input.to_json(),
            "width": self.width,
            "synthetic": self.synthetic,
            "licence": self.licence,
            "deployed_use": self.deployed_use,
            "digest": self.digest,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SliceSpec":
        """Rebuild.

        Raises:
            ValueError, TypeError, KeyError, BundleError: the values are not those of this version.
        """
        plain = {name: value for name, value in values.items() if name != "digest"}
        seen = {"volume": VolumeSpec.from_json(plain["volume"]), "input": InputSpec.from_json(plain["input"])}
        spec = cls(**{**plain, **seen})
        if spec.digest != values.get("digest"):
            raise ValueError("its digest is not that of its values")
        return spec


class SliceStore:
    """Slice features in a folder. `keys` are Series Instance UIDs, sorted."""

    def __init__(self, folder: Path) -> None:
        """Read what is there, not yet the vectors.

        Raises:
            DataError: nothing is there, or it was not finished.
        """
        self.folder = folder
        try:
            self.spec = SliceSpec.from_json(json.loads((folder / SPEC).read_text("utf-8")))
            table = pl.read_parquet(folder / SERIES)
            self._files: dict[str, str] = dict(zip(table["SeriesInstanceUID"], table["file"], strict=True))
            self.sides: dict[str, str] = dict(zip(table["SeriesInstanceUID"], table["side"], strict=True))
        except (OSError, ValueError, TypeError, KeyError, BundleError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{folder} holds no finished slice features ({error}): run `genu-train embed --prepared`."
            ) from error
        self.keys = tuple(sorted(self._files))

    @property
    def digest(self) -> str:
        """SHA-256 of specification, series and their files' names, which hold the hashes of the slices."""
        said = [self.spec.digest, *(f"{key} {self._files[key]}" for key in self.keys)]
        return hashlib.sha256("\n".join(said).encode()).hexdigest()

    def matrix(self, keys: Sequence[str]) -> npt.NDArray[np.float16]:
        """float16 (N, S, D) in the order of `keys`; a key may come twice.

        Raises:
            DataError: a series has no features, or a file cannot be read.
        """
        missing = [key for key in keys if key not in self._files]
        if missing:
            raise DataError(f"{len(missing)} of {len(keys)} series have no features, {missing[0]} first.")
        read = {key: self._read(key) for key in dict.fromkeys(keys)}
        shape = (self.spec.volume.slices, self.spec.width)
        return np.stack([read[key] for key in keys]) if keys else np.zeros((0, *shape), np.float16)

    def _read(self, key: str) -> npt.NDArray[np.float16]:
        path = self.folder / self._files[key]
        found = _features(path)
        if found is None or found.shape != (self.spec.volume.slices, self.spec.width):
            raise DataError(f"{path} cannot be read or is of another shape: run `genu-train embed --prepared` again.")
        return found


def embed_slices(
    prepared: PreparedStore, backbone: FrozenBackbone, called: str, out: Path, *, batch: int = 16,
    device: str | None = None, progress: Progress | None = None,
) -> tuple[int, int]:  # fmt: skip
    """Compute what is missing, and say what is there.

    Args:
        prepared: the slices.
        backbone: frozen; `called` is the name of its weights.
        out: folder.
        batch: slices of one forward.
        device: "cpu", "cuda"; None takes a GPU when there is one.
        progress: called with series done and all.

    Returns:
        Series computed, and series that were there already.

    Raises:
        DataError: slices cannot be read.
    """
    terms = entry(backbone.name).terms
    spec = SliceSpec(
        backbone.name, called, backbone.digest, prepared.spec, backbone.input, backbone.width, backbone.synthetic,
        terms.licence, terms.deployed,
    )  # fmt: skip
    folder = out / spec.digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    backbone.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    rows, computed = [], 0
    for number, key in enumerate(prepared.keys):
        slices = prepared.slices([key])[0]
        # The hash of the slices is the name: a file of that name holds their features and no others'.
        name = hashlib.sha256(key.encode() + np.ascontiguousarray(slices).tobytes()).hexdigest()[:32]
        path = folder / f"{name}.safetensors"
        if _features(path) is None:
            found = slice_features(backbone, slices, batch)
            part = path.with_suffix(f".part{os.getpid()}")
            save_file({FEATURES: found}, part)
            part.replace(path)
            computed += 1
        rows.append((key, prepared.side(key), str(path.relative_to(out))))
        if progress is not None:
            progress(number + 1, len(prepared.keys))
    table = pl.DataFrame(rows, schema=["SeriesInstanceUID", "side", "file"], orient="row")
    table.write_parquet(out / SERIES)
    (out / SPEC).write_text(json.dumps(spec.to_json(), indent=2) + "\n", encoding="utf-8")
    return computed, len(rows) - computed


def _features(path: Path) -> npt.NDArray[np.float16] | None:
    """None where there is no such file, or a torn one."""
    try:
        with safe_open(path, framework="numpy") as file:
            return np.asarray(file.get_tensor(FEATURES), np.float16)
    except (OSError, SafetensorError):
        return None
