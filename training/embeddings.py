"""Frozen embeddings of a cohort, as `genu-train embed` wrote them: what they are, and matrices of them by knee."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from inference.backbones import InputSpec
from inference.bert import describe
from inference.errors import DataError
from inference.findings import Side
from inference.preprocess import PreprocessSpec

Matrix = npt.NDArray[np.float32]
SPEC, KEYS, TEXTS = "spec.json", "keys.parquet", "texts.safetensors"
SENTENCES = "sentences"  # in the metadata of TEXTS: `sentences_digest` of what was embedded
# Of the sentences of every version that wrote no such mark: a file without one holds these.
UNMARKED = "49ddf3b342b9ab1fedd66c5c742ca5acdb4a527e9e4dfdf27a87b8aef4fdb913"
FINE_TUNED = "fine-tuned from"  # begins what weights are called that were not frozen


@dataclass(frozen=True)
class EmbeddingSpec:
    """All that decides embeddings, and what is to be said of them.

    backbone: name in inference.backbones. weights: as they are called; weights_digest: SHA-256 of what they are.
    crop: how a knee is cut out of a film; input: what the backbone sees of it.
    features: "pooled", "layers" or "patches". precision: "fp32", "bf16" or "fp16" of the forward.
    width: of the pooled vector. synthetic: random weights, whose vectors mean nothing.
    licence, deployed_use: the terms of the weights; not deployed means: not in a running service.
    texts: whether there are embedded descriptions as well.
    """

    backbone: str
    weights: str
    weights_digest: str
    crop: PreprocessSpec
    input: InputSpec
    features: str
    precision: str
    width: int
    synthetic: bool
    licence: str
    deployed_use: bool
    texts: bool

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the vectors; pixels and this make a key."""
        parts = [self.backbone, self.weights_digest, self.crop.to_json(), self.input.to_json()]
        text = json.dumps([*parts, self.features, self.precision], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "digest": self.digest}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "EmbeddingSpec":
        """Rebuild.

        Raises:
            ValueError, TypeError, BundleError: the values are not those of this version.
        """
        plain = {name: value for name, value in values.items() if name != "digest"}
        crop, seen = PreprocessSpec.from_json(plain["crop"]), InputSpec.from_json(plain["input"])
        spec = cls(**{**plain, "crop": crop, "input": seen})
        if spec.digest != values.get("digest"):
            raise ValueError("its digest is not that of its values")
        return spec


def sentences_digest() -> str:
    """SHA-256 of the ten descriptions, as this version words them: two sides, five grades each."""
    return hashlib.sha256(json.dumps([describe(side, kl) for side in Side for kl in range(5)]).encode()).hexdigest()


def read_texts(path: Path) -> tuple[Matrix, str]:
    """Embedded descriptions, float32 (2 sides, 5 grades, D), and the digest of the sentences that were embedded.

    Raises:
        OSError, SafetensorError: the file is not there, or is torn.
    """
    with safe_open(path, framework="numpy") as file:
        told = (file.metadata() or {}).get(SENTENCES, UNMARKED)
        return np.asarray(file.get_tensor("texts"), np.float32), told


class EmbeddingStore:
    """Embeddings in a folder. `keys` are the knees that have one, sorted; `failures.csv` beside them has the others."""

    def __init__(self, folder: Path) -> None:
        """Read what is there, not yet the vectors.

        Raises:
            DataError: nothing is there, or it was not finished.
        """
        self.folder = folder
        try:
            self.spec = EmbeddingSpec.from_json(json.loads((folder / SPEC).read_text("utf-8")))
            rows = pq.read_table(folder / KEYS).to_pylist()
            self._places: dict[str, tuple[str, int]] = {row["knee"]: (row["shard"], row["row"]) for row in rows}
        except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
            raise DataError(
                f"{folder} holds no finished embeddings ({error}): run `genu-train embed --out {folder}`, it goes on "
                "where it stopped."
            ) from error
        self.keys = tuple(sorted(self._places))

    def __len__(self) -> int:
        return len(self.keys)

    def matrix(self, keys: Sequence[str], features: str | None = None) -> Matrix:
        """Vectors of knees, float32 (N, D), in the order of `keys`.

        Args:
            keys: knees.
            features: "pooled" (always there), or "layers" where they were asked for, laid out flat; None takes "layers"
                where they are there, else "pooled".

        Raises:
            DataError: a knee has no embedding, the features were not computed, or a shard cannot be read.
        """
        wanted = features or ("layers" if self.spec.features == "layers" else "pooled")
        found = self._rows(keys, wanted, np.float32)
        return found.reshape(len(keys), -1) if len(keys) else np.zeros((0, self.spec.width), np.float32)

    def patches(self, keys: Sequence[str]) -> npt.NDArray[np.float16]:
        """Patch tokens, float16 (N, P, C); about 2 MB a knee of RAD-DINO: ask for a batch at a time.

        Raises:
            DataError: as `matrix`.
        """
        return np.asarray(self._rows(keys, "patches", np.float16), np.float16)

    def texts(self, sides: Sequence[Side | str], grades: Sequence[int]) -> Matrix:
        """Embedded descriptions of sides and Kellgren-Lawrence grades 0..4, float32 (N, D), not normalised.

        Raises:
            DataError: there are none, or a grade is none of 0..4 (null, say): leave those knees out first.
        """
        table = self._texts
        if any(grade not in range(5) for grade in grades):
            raise DataError("a Kellgren-Lawrence grade is missing or not 0 to 4: only graded knees have a description.")
        rows = [table[list(Side).index(Side(side)), int(grade)] for side, grade in zip(sides, grades, strict=True)]
        return np.stack(rows) if rows else np.zeros((0, self.spec.width), np.float32)

    def fused(self, keys: Sequence[str], sides: Sequence[Side | str], grades: Sequence[int]) -> Matrix:
        """Image and description, each of length 1, beside each other: float32 (N, 2 D).

        Raises:
            DataError: as `matrix` and `texts`.
        """
        parts = (self.matrix(keys, "pooled"), self.texts(sides, grades))
        return np.concatenate([p / np.maximum(np.linalg.norm(p, axis=1, keepdims=True), 1e-12) for p in parts], axis=1)

    @cached_property
    def _texts(self) -> Matrix:
        if not self.spec.texts:
            raise DataError(
                f"{self.folder} has no embedded descriptions: {self.spec.backbone} had no text tower there."
            )
        try:
            texts, sentences = read_texts(shard_folder(self.folder, self.spec) / TEXTS)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"the descriptions of {self.folder} cannot be read: run `genu-train embed` again."
            ) from error
        if sentences != sentences_digest():
            raise DataError(
                f"the descriptions of {self.folder} are of other sentences than this version's: run `genu-train embed` "
                "again, it embeds these alone, and fit anew what sees them."
            )
        return texts

    def _rows(self, keys: Sequence[str], name: str, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
        missing = [key for key in keys if key not in self._places]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(keys)} knees have no embedding, {missing[0]} first: "
                f"{self.folder / 'failures.csv'} says why."
            )
        by_shard: dict[str, list[int]] = {}
        for number, key in enumerate(keys):
            by_shard.setdefault(self._places[key][0], []).append(number)
        result: npt.NDArray[Any] | None = None
        for shard, numbers in by_shard.items():
            path = shard_folder(self.folder, self.spec) / f"{shard}.safetensors"
            try:
                with safe_open(path, framework="numpy") as file:
                    values = file.get_tensor(name)
                rows = values[[self._places[keys[number]][1] for number in numbers]]
            except (OSError, SafetensorError, IndexError) as error:
                raise DataError(
                    f"{path.name} of {self.folder} has no usable {name} ({error}): run `genu-train embed` again, with "
                    f"--features {name}."
                ) from error
            if result is None:
                result = np.empty((len(keys), *rows.shape[1:]), dtype)
            result[numbers] = rows
        return result if result is not None else np.zeros((0,), dtype)


def shard_folder(folder: Path, spec: EmbeddingSpec) -> Path:
    """Where the shards of a specification lie: another specification has another place, so nothing is mixed up."""
    return folder / spec.digest[:16]
