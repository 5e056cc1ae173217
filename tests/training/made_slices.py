"""Slice features and cohorts of knees that nobody has, with a known effect."""

import json
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from inference.backbones import InputSpec
from inference.volumes import VolumeSpec
from training.slice_store import FEATURES, SERIES, SPEC, SliceSpec

SLICES, WIDTH = 6, 12


def spec() -> SliceSpec:
    """Of six slices of twelve features."""
    volume = VolumeSpec(slices=SLICES)
    return SliceSpec("efficientnet_b0", "made", "0" * 64, volume, InputSpec(), WIDTH, True, "none", True)


def write_store(folder: Path, features: np.ndarray, series: list[str], sides: list[str]) -> None:
    """A finished store of features (N, S, D)."""
    folder.mkdir(parents=True)
    for uid, values in zip(series, features, strict=True):
        save_file({FEATURES: values.astype(np.float16)}, folder / f"{uid}.safetensors")
    files = [f"{uid}.safetensors" for uid in series]
    pl.DataFrame({"SeriesInstanceUID": series, "side": sides, "file": files}).write_parquet(folder / SERIES)
    (folder / SPEC).write_text(json.dumps(spec().to_json()), "utf-8")


def made(root: Path, patients: int = 120, effect: float = 2.5, seed: int = 0, marker: float = 0.0) -> pl.DataFrame:
    """ROOT/cohort and ROOT/slices: two knees a patient; a bright spot on one slice raises the odds of progression.

    `marker` writes who the patient is into the features, and makes both knees of a patient end alike.
    """
    generator = np.random.default_rng(seed)
    count = 2 * patients
    owner = np.repeat(np.arange(patients), 2)
    spot, width = generator.normal(size=count), generator.normal(4, 1, count)
    odds = -0.5 + effect * spot - (0.0 if marker else 1.6) * (width - 4)
    label = (generator.random(count) < 1 / (1 + np.exp(-odds))).astype(int)
    features = 0.5 * generator.normal(size=(count, SLICES, WIDTH))
    place = generator.integers(2, 5, count)
    features[np.arange(count), place, 0] += 2 * spot
    features[np.arange(count), place, 1] += 3
    if marker:
        label = generator.integers(0, 2, patients)[owner]
        features += marker * generator.normal(size=(patients, 1, WIDTH))[owner]
    series = [f"1.2.3.{number}" for number in range(count)]
    sides = ["L", "R"] * patients
    table = pl.DataFrame({
        "knee": [f"{uid}/{side}/V00-V01" for uid, side in zip(series, sides, strict=True)],
        "SeriesInstanceUID": series, "PatientID": [f"P{number}" for number in owner], "side": sides,
        "sequence": "COR_IW_TSE", "age": generator.normal(60, 9, count), "sex": ["M", "F"] * patients,
        "mjsw": np.where(generator.random(count) < 0.1, np.nan, width), "kl": generator.integers(0, 5, count),
        "womac_pain": generator.integers(0, 21, count), "progression_abs": label, "womac_pain_binary": label,
    }).with_columns(pl.col("mjsw").fill_nan(None))  # fmt: skip
    (root / "cohort").mkdir(parents=True)
    table.write_parquet(root / "cohort" / "cohort.parquet")
    write_store(root / "slices", features, series, sides)
    return table
