"""Made runs on knee MRI with a random EfficientNet-B0, and bundles exported from them: small, and they say so.

Slice features are drawn, not computed: what the system finds in them is known; the bundle's own answers mean nothing.
"""

import atexit
import functools
import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.numpy import save_file

from inference.frozen import load_frozen
from inference.mr_sequences import MRSequence
from inference.volumes import VolumeSpec
from training import slice_run
from training.embed_standins import write_standin
from training.slice_export import export_slices
from training.slice_fit import SliceFitConfig
from training.slice_store import FEATURES, SERIES, SPEC, SliceSpec
from training.slice_systems import chosen_systems

PATIENTS = 32  # each with two knees
FOLDS = 4


@dataclass(frozen=True)
class MadeSlices:
    """What a run is made of. `full`: the backbone sees slices at its own size, 224, as with published weights."""

    target: str = "progression_abs"
    sequence: MRSequence = MRSequence.COR_IW_TSE
    system: str = "image_header"
    slices: int = 4
    size: int = 64
    full: bool = False


def made_slice_run(folder: Path, made: MadeSlices = MadeSlices()) -> tuple[Path, Path]:
    """A finished run with all baselines and one system; returns its folder and that of the weights."""
    torch.set_num_threads(1)  # small networks wait longer for a second thread than they gain
    weights = write_standin("efficientnet_b0", folder / "efficientnet_b0", full=made.full)
    backbone = load_frozen("efficientnet_b0", weights)
    volume = replace(VolumeSpec.default(made.sequence), slices=made.slices, size=made.size)
    spec = SliceSpec(
        backbone.name, weights.name, backbone.digest, volume, backbone.input, backbone.width, True, "Apache-2.0", True
    )
    rng = np.random.default_rng(3)
    spot = rng.normal(size=2 * PATIENTS)
    features = (0.3 * rng.normal(size=(len(spot), made.slices, backbone.width))).astype(np.float16)
    features[:, :, :40] += (0.5 * spot[:, None, None]).astype(np.float16)
    table = _cohort(made, spot, rng)
    (folder / "cohort").mkdir()
    table.write_parquet(folder / "cohort" / "cohort.parquet")
    told = {"source": "table", "data": "Made series", "licence": "by nobody's leave"}
    (folder / "cohort" / "cohort.json").write_text(json.dumps(told), "utf-8")
    store = folder / "slices"
    store.mkdir()
    for uid, values in zip(table["SeriesInstanceUID"], features, strict=True):
        save_file({FEATURES: values}, store / f"{uid}.safetensors")
    files = [f"{uid}.safetensors" for uid in table["SeriesInstanceUID"]]
    table.select("SeriesInstanceUID", "side").with_columns(pl.Series("file", files)).write_parquet(store / SERIES)
    (store / SPEC).write_text(json.dumps(spec.to_json()), "utf-8")
    quick = SliceFitConfig(epochs=4, patience=3, seeds=2, batch=32, inner=4)
    run = slice_run.create(
        folder / "run", folder / "cohort", store, target=made.target, sequence=made.sequence.name, folds=FOLDS,
        config=quick,
    )  # fmt: skip
    slice_run.fit_systems(run, chosen_systems(made.target, [made.system]), lambda _: None)
    return run.folder, weights


@functools.cache
def slice_bundle(made: MadeSlices = MadeSlices()) -> Path:
    """A bundle exported from a made run, once a test run."""
    folder = Path(tempfile.mkdtemp(prefix="genu-slices-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run, weights = made_slice_run(folder, made)
    export_slices(run, made.system, folder / "bundle", lambda _: None, weights=str(weights))
    return folder / "bundle"


def _cohort(made: MadeSlices, spot: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    """Two knees a patient; what the slices show raises the odds of every outcome."""
    count = len(spot)
    binary = (rng.random(count) < 1 / (1 + np.exp(0.5 - 2 * spot))).astype(int)
    three = np.clip(np.rint(1 + spot + 0.5 * rng.normal(size=count)), 0, 2).astype(int)
    series = [f"1.2.826.0.1.3680043.8.498.7.{number}" for number in range(count)]
    sides = ["L", "R"] * PATIENTS
    return pl.DataFrame({
        "knee": [f"{uid}/{side}/V00-V01" for uid, side in zip(series, sides, strict=True)],
        "SeriesInstanceUID": series, "PatientID": [f"P{number // 2}" for number in range(count)], "side": sides,
        "sequence": made.sequence.name, "sex": ["M", "M", "F", "F"] * (PATIENTS // 2), "age": rng.normal(60, 9, count),
        "bmi": rng.normal(28, 4, count), "height": rng.normal(1.7, 0.1, count), "weight": rng.normal(82, 12, count),
        "mjsw": rng.normal(4, 1, count), "kl": rng.integers(0, 5, count), "womac_pain": rng.integers(0, 21, count),
        made.target: three if made.target == "womac_pain_class" else binary,
    }).with_columns(pl.when(pl.int_range(pl.len()) % 7 > 0).then("bmi").alias("bmi"))  # fmt: skip
