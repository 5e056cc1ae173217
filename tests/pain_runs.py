"""Made cross-validated runs with a final head, and bundles exported from them: small, random, and they say so."""

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.numpy import save_file

from inference.bert import describe
from inference.findings import Side
from inference.frozen import load_frozen
from training.embed import EmbedPlan, specification
from training.embed_standins import write_standin
from training.embeddings import KEYS, SPEC, TEXTS, shard_folder
from training.final_head import FINAL, FinalHead, write_head
from training.pain_export import export_run
from training.predictions import Predictions, write_predictions

PATIENTS = 60  # each with two knees
FOLDS = 4


@dataclass(frozen=True)
class Made:
    """What a run is made of."""

    backbone: str = "convnext_small"
    kind: str = "ridge"
    features: str = "pooled"
    grades: bool = False
    target: str = "pain"


def made_run(folder: Path, made: Made = Made()) -> tuple[Path, Path]:
    """A run with the baseline `constant_mean` and one system called `system`; returns it and the folder of weights."""
    torch.set_num_threads(1)  # small networks wait longer for a second thread than they gain
    rng = np.random.default_rng(4)
    weights = write_standin(made.backbone, folder / made.backbone)
    store, width = _store(folder / "store", made, weights)
    run = folder / "run"
    run.mkdir()
    knees = _knees(rng)
    knees.write_parquet(run / "knees.parquet")
    values = {
        "kind": "regression",
        "target": made.target,
        "bounds": [0.0, 10.0],
        "unit": "points",
        "cohort": str(folder / "cohort"),
        "cohort_sha256": "ab" * 32,
        "folds": FOLDS,
        "seed": 0,
        "synthetic": True,
        "embeddings": {"store": str(store)},
        "grades": None,
        "left_out": {"without a crop": 3},
        "systems": ["constant_mean", "system"],
        "asked": ["constant_mean", "system"],
        "fits": [],
    }
    (run / "run.json").write_text(json.dumps(values))
    truth, folds = knees["truth"].to_numpy(), knees["fold"].to_numpy().astype(np.int64)
    constant = np.full(len(truth), truth.mean())
    for name, mean in (("constant_mean", constant), ("system", np.clip(truth + rng.normal(0, 2, len(truth)), 0, 10))):
        about = {"title": name, "kind": "baseline" if name == "constant_mean" else "system", "synthetic": True}
        write_predictions(run, Predictions(name, tuple(knees["knee"]), folds, mean, mean, about=about))
    write_head(run / "systems" / "system" / FINAL, made_head(made, width, rng))
    return run, weights


def made_head(made: Made, width: int, rng: np.random.Generator) -> FinalHead:
    """A random head on `width` columns, whose answers spread over the scale."""
    columns = width + 6 * made.grades
    z = {"centre": np.zeros(columns, np.float32), "scale": np.ones(columns, np.float32)}
    shapes: dict[str, Mapping[str, tuple[int, ...]]] = {
        "ridge": {"weight": (columns,), "bias": (1,)},
        "corn": {"weight": (10, columns), "bias": (10,)},
        "attentive": {"query": (2, columns), "weight": (2, 2 * columns), "bias": (2,)},
    }
    drawn = {name: rng.normal(0, 2, shape) / np.sqrt(columns) for name, shape in shapes[made.kind].items()}
    tensors = {name: values.astype(np.float32) for name, values in drawn.items()}
    if made.kind == "corn":
        tensors["levels"] = np.arange(11, dtype=np.float32)
        tensors["bias"] = np.abs(tensors["bias"]) + 1
    else:
        tensors["bias"] = np.full(shapes[made.kind]["bias"], 5, np.float32)
    return FinalHead(
        kind=made.kind,
        features=made.features,
        embedding="store",
        target=made.target,
        bounds=(0.0, 10.0),
        unit="points",
        knees=2 * PATIENTS,
        patients=PATIENTS,
        tensors=tensors | z,
        synthetic=True,
        grades=made.grades,
        chosen={"alpha": 1.0},
    )


@functools.cache
def pain_bundle(made: Made = Made()) -> Path:
    """A bundle exported from a made run, once a test run."""
    folder = Path(tempfile.mkdtemp(prefix="genu-pain-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run, weights = made_run(folder, made)
    export_run(run, "system", folder / "bundle", weights=str(weights))
    return folder / "bundle"


def _knees(rng: np.random.Generator) -> pl.DataFrame:
    patients = np.repeat(np.arange(PATIENTS), 2)
    sides = np.tile(["L", "R"], PATIENTS)
    return pl.DataFrame(
        {
            "knee": [f"2.25.{patient}/{side}" for patient, side in zip(patients, sides, strict=True)],
            "PatientID": [f"P{patient}" for patient in patients],
            "side": sides,
            "age": rng.uniform(30, 85, len(patients)).round(),
            "sex": rng.choice(["F", "M"], len(patients)),
            "race": rng.choice(["Black", "White"], len(patients)),
            "kl": rng.integers(0, 5, len(patients)),
            "truth": rng.integers(0, 11, len(patients)).astype(np.float64),
            "fold": patients % FOLDS,
        }
    )


def _store(folder: Path, made: Made, weights: Path) -> tuple[Path, int]:
    """The specification of embeddings, and the descriptions; no knee has a vector. Returns the head's width, too."""
    backbone = load_frozen(made.backbone, weights)
    stored = "pooled" if made.features == "fused" else made.features
    plan = EmbedPlan(folder, folder, folder, made.backbone, features=stored)  # type: ignore[arg-type]
    spec = specification(plan, backbone, weights.name)
    place = shard_folder(folder, spec)
    place.mkdir(parents=True)
    (folder / SPEC).write_text(json.dumps(spec.to_json()))
    empty = {"knee": pl.String, "key": pl.String, "shard": pl.String, "row": pl.Int32}
    pl.DataFrame(schema=empty).write_parquet(folder / KEYS)
    if backbone.text is not None:
        texts = backbone.describe_all([describe(side, kl) for side in Side for kl in range(5)])
        save_file({"texts": texts.numpy().reshape(2, 5, -1)}, place / TEXTS)
    if made.features == "fused":
        return folder, 2 * backbone.width
    if made.features == "pooled":
        return folder, backbone.width
    seen = torch.zeros(1, 3, backbone.input.size, backbone.input.size)
    values = backbone.features(seen, made.features)[made.features]  # type: ignore[arg-type,index]
    return folder, values.shape[-1] if made.features == "patches" else values[0].numel()
