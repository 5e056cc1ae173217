"""Made cohorts and embedding stores, written directly: no film, no network. Their vectors hold what a test plants."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from inference.backbones import InputSpec
from inference.preprocess import PreprocessSpec
from training.embeddings import KEYS, SPEC, TEXTS, EmbeddingSpec, shard_folder

Array = npt.NDArray[Any]


def people(patients: int, seed: int = 0, kl: float = 1.0, image: float = 2.0, noise: float = 1.0) -> pl.DataFrame:
    """Two knees a patient with KL, effusion (in no table) and pain that both of them make."""
    rng = np.random.default_rng(seed)
    count = 2 * patients
    grade, effusion = rng.integers(0, 5, count), rng.uniform(0, 1, count)
    pain = 1 + kl * grade + image * effusion + rng.normal(0, noise, count)
    return pl.DataFrame(
        {
            "knee": [f"1.2.{number // 2}/{'LR'[number % 2]}" for number in range(count)],
            "SOPInstanceUID": [f"1.2.{number // 2}" for number in range(count)],
            "path": [f"{number // 2}.dcm" for number in range(count)],
            "PatientID": [f"p{number // 2:05d}" for number in range(count)],
            "StudyInstanceUID": [f"1.3.{number // 2}" for number in range(count)],
            "StudyDate": [None] * count,
            "side": ["LR"[number % 2] for number in range(count)],
            "age": rng.integers(30, 90, count).astype(np.float64),
            "sex": rng.choice(["F", "M"], count),
            "race": rng.choice(["A", "B"], count),
            "kl": grade.astype(np.int8),
            "bilateral": [True] * count,
            "flipped": [False] * count,
            "inverted": [False] * count,
            "effusion": effusion,
            "pain": np.clip(np.rint(pain), 0, 10),
        },
        schema_overrides={"StudyDate": pl.Date},
    ).sort("knee")


def write_cohort(folder: Path, knees: pl.DataFrame) -> Path:
    """cohort.parquet without what no table knows."""
    folder.mkdir(parents=True, exist_ok=True)
    knees.drop("effusion", strict=False).write_parquet(folder / "cohort.parquet")
    return folder


def vectors(knees: pl.DataFrame, width: int = 8, seed: int = 1, spread: float = 0.1) -> Array:
    """(N, width): the grade and the effusion, mixed, with noise."""
    rng = np.random.default_rng(seed)
    hidden = np.stack([knees["kl"].fill_null(2).to_numpy() / 4, knees["effusion"].to_numpy()], axis=1)
    mixed = hidden @ rng.normal(size=(2, width)) + 0.5
    return (mixed + spread * rng.normal(size=mixed.shape)).astype(np.float32)


def write_store(
    folder: Path,
    knees: Sequence[str],
    pooled: Array,
    *,
    patches: Array | None = None,
    texts: Array | None = None,
    pixels: Mapping[str, str] | None = None,
    backbone: str = "rad_dino",
    shards: int = 2,
) -> Path:
    """A finished store of these vectors (N, D), tokens (N, P, C) and texts (2, 5, D)."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = EmbeddingSpec(
        backbone=backbone, weights="made by a test", weights_digest="0" * 64,
        crop=PreprocessSpec(crop_size=32, size=(32, 32)), input=InputSpec(size=32),
        features="pooled" if patches is None else "patches", precision="fp32", width=pooled.shape[1], synthetic=True,
        licence="none", deployed_use=False, texts=texts is not None,
    )  # fmt: skip
    place = shard_folder(folder, spec)
    place.mkdir(exist_ok=True)
    rows = []
    for number, part in enumerate(np.array_split(np.arange(len(knees)), shards)):
        tensors = {"pooled": np.ascontiguousarray(pooled[part], np.float32)}
        if patches is not None:
            tensors["patches"] = np.ascontiguousarray(patches[part], np.float16)
        save_file(tensors, place / f"shard-{number}.safetensors")
        rows += [
            {
                "knee": knees[n],
                "key": (pixels or {}).get(knees[n], f"pixels of {knees[n]}"),
                "shard": f"shard-{number}",
                "row": row,
            }
            for row, n in enumerate(part)
        ]
    if texts is not None:
        save_file({"texts": np.ascontiguousarray(texts, np.float32)}, place / TEXTS)
    pq.write_table(pa.Table.from_pylist(rows), folder / KEYS)
    (folder / SPEC).write_text(json.dumps(spec.to_json()), encoding="utf-8")
    return folder
