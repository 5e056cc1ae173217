"""Features of knees out of embedding stores: vectors, vectors with a description, patch tokens in bounded pieces."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from inference.errors import DataError
from training.embeddings import KEYS, EmbeddingStore
from training.regression_samples import UNKNOWN, Ints, Matrix

GRADES = range(UNKNOWN)


def fused(store: EmbeddingStore, knees: Sequence[str], sides: Sequence[str], grades: Ints) -> Matrix:
    """Image and description, each of length 1, beside each other: float32 (N, 2 D).

    A knee of unknown grade has the mean of the five unit descriptions of its side.

    Raises:
        DataError: as `EmbeddingStore.fused`.
    """
    known = grades != UNKNOWN
    result = store.fused(knees, sides, np.where(known, grades, 0).tolist())
    width = result.shape[1] // 2
    for side in {side for side, graded in zip(sides, known, strict=True) if not graded}:
        texts = store.texts([side] * UNKNOWN, list(GRADES))
        unit = texts / np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-12)
        result[~known & (np.asarray(sides) == side), width:] = unit.mean(axis=0)
    return result


def pixel_keys(store: EmbeddingStore) -> Mapping[str, str]:
    """Knee to the hash of its pixels and of the preprocessing.

    Raises:
        DataError: the store's table cannot be read.
    """
    return {row["knee"]: row["key"] for row in _rows(store.folder)}


@dataclass(frozen=True, eq=False)
class StoredTokens:
    """Patch tokens of a store, one shard in memory at a time."""

    store: EmbeddingStore
    shards: Mapping[str, str]

    @classmethod
    def of(cls, store: EmbeddingStore) -> "StoredTokens":
        """Those of a store.

        Raises:
            DataError: it holds none.
        """
        if store.spec.features != "patches":
            raise DataError(f"{store.folder} has no patch tokens: run `genu-train embed` with --features patches.")
        return cls(store, {row["knee"]: row["shard"] for row in _rows(store.folder)})

    @property
    def digest(self) -> str:
        """Of all that decides the tokens of each knee."""
        keys = sorted(pixel_keys(self.store).items())
        return hashlib.sha256(repr(keys).encode()).hexdigest()

    def batches(self, knees: Sequence[str], size: int, seed: int | None) -> Iterator[tuple[Ints, Matrix]]:
        """(places among `knees`, tokens float32 (n, P, C)): shard by shard; with a seed both are mixed.

        Raises:
            DataError: a knee has none, or a shard cannot be read.
        """
        rng = None if seed is None else np.random.default_rng(seed)
        by_shard: dict[str, list[int]] = {}
        for place, knee in enumerate(knees):
            by_shard.setdefault(self.shards.get(knee, ""), []).append(place)
        names = sorted(by_shard)
        for name in names if rng is None else rng.permutation(names).tolist():
            places = np.asarray(by_shard[name], np.int64)
            if rng is not None:
                places = rng.permutation(places)
            held: npt.NDArray[np.float16] = self.store.patches([knees[place] for place in places])
            for start in range(0, len(places), size):
                yield places[start : start + size], held[start : start + size].astype(np.float32)


def _rows(folder: Path) -> list[dict[str, str]]:
    try:
        rows: list[dict[str, str]] = pq.read_table(folder / KEYS, columns=["knee", "key", "shard"]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{folder / KEYS} cannot be read ({error}): run `genu-train embed` again.") from error
    return rows
