"""Made run folders of kind "regression", as `genu-train fit` leaves them, for tests of what measures and reports."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from training.predictions import Predictions, write_predictions

FOLDS = 5


def knees_of(patients: int, seed: int = 0, *, planted: bool = True) -> pl.DataFrame:
    """Knees of so many patients, one or two each, with dirt: unknown ages, sexes, races and grades.

    planted: the grade and an effusion, which is in no table of a cohort, make a part of the pain.
    """
    draw = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), draw.integers(1, 3, patients))
    own = {
        "age": draw.normal(60, 14, patients).clip(20, 90),
        "sex": draw.choice(["F", "M", ""], patients, p=[0.55, 0.42, 0.03]),
        "race": draw.choice(
            ["White", "African American or Black", "Asian", "Other", ""], patients, p=[0.5, 0.38, 0.05, 0.02, 0.05]
        ),
        "kl": draw.choice([0, 1, 2, 3, 4, -1], patients, p=[0.2, 0.15, 0.25, 0.2, 0.1, 0.1]),
        "level": draw.normal(0, 1.2, patients),
    }
    count = len(owner)
    grade = own["kl"][owner]
    effusion = draw.uniform(0, 1, count)
    known = np.where(grade < 0, 1.7, grade)
    effect = 1.2 + 0.8 * known + 2.5 * effusion if planted else np.full(count, 3.5)
    pain = (effect + own["level"][owner] + draw.normal(0, 1.2, count)).round().clip(0, 10)
    return pl.DataFrame(
        {
            "knee": [f"2.25.{number}/{'RL'[number % 2]}" for number in range(count)],
            "PatientID": [f"P{number:05d}" for number in owner],
            "side": ["RL"[number % 2] for number in range(count)],
            "age": [None if number % 37 == 0 else float(own["age"][number]) for number in owner],
            "sex": [own["sex"][number] or None for number in owner],
            "race": [own["race"][number] or None for number in owner],
            "kl": [None if value < 0 else int(value) for value in grade],
            "fold": owner % FOLDS,
            "truth": pain,
            "effusion": effusion,
        }
    )


def out_of_fold(knees: pl.DataFrame, features: np.ndarray) -> np.ndarray:
    """(N,) least squares on features (N, K) of the other folds."""
    truth, folds = knees["truth"].to_numpy(), knees["fold"].to_numpy()
    inputs = np.column_stack([np.ones(len(truth)), features])
    found = np.zeros(len(truth))
    for fold in range(FOLDS):
        here = folds == fold
        weights, *_ = np.linalg.lstsq(inputs[~here], truth[~here], rcond=None)
        found[here] = inputs[here] @ weights
    return found.clip(0, 10)


def constants(knees: pl.DataFrame, figure: Any) -> np.ndarray:
    """(N,) a figure of the truth of the other folds."""
    truth, folds = knees["truth"].to_numpy(), knees["fold"].to_numpy()
    return np.array([figure(truth[folds != fold]) for fold in folds], np.float64)


def about(title: str, kind: str, **more: Any) -> dict[str, Any]:
    folds = [{"fold": fold, "knees": 10, "patients": 8, "chosen": {"alpha": 10.0**fold}} for fold in range(FOLDS)]
    values = {"title": title, "kind": kind, "head": "ridge", "synthetic": False, "backbone": None, "licence": None}
    return {**values, "deployed_use": True, "folds": folds, "seconds": 12.5, **more}


def write_run(
    run: Path,
    patients: int = 120,
    *,
    extra: Mapping[str, Any] | None = None,
    seed: int = 0,
    planted: bool = True,
    only: Sequence[str] = (),
) -> Path:
    """A run of three baselines, a system that sees effusion, one that sees nothing, and one that learns by epochs.

    only: names of those that are written, where it should not be all.
    """
    run.mkdir(parents=True)
    knees = knees_of(patients, seed, planted=planted)
    knees.write_parquet(run / "knees.parquet")
    draw = np.random.default_rng(seed + 1)
    grade = np.nan_to_num(knees["kl"].cast(pl.Float64).to_numpy(), nan=1.7)[:, None]
    seen = knees["effusion"].to_numpy()[:, None] + draw.normal(0, 0.2, (len(knees), 1))
    mean, median = constants(knees, np.mean), constants(knees, np.median)
    blind = out_of_fold(knees, draw.normal(0, 1, (len(knees), 1)))
    both = out_of_fold(knees, np.hstack([grade, seen]))
    frozen = {"backbone": "rad_dino", "licence": "MIT", "deployed_use": False}
    systems = {
        "constant_mean": (mean, median, about("Constant mean", "baseline", head="none")),
        "constant_median": (median, median, about("Constant median", "baseline", head="none")),
        "kl_only": (out_of_fold(knees, grade), None, about("KL grade alone", "baseline")),
        "rad_dino": (both, None, about("RAD-DINO, ridge", "system", **frozen)),
        "biomedclip": (blind, None, about("BiomedCLIP, ridge", "system", backbone="biomedclip", deployed_use=False)),
        "convnext": (
            (both + draw.normal(0, 0.5, len(knees))).clip(0, 10), None,
            about("ConvNeXt, fine-tuned", "system", backbone="convnext", licence="Apache-2.0", head="fine-tuned"),
        ),
    }  # fmt: skip
    systems = {name: parts for name, parts in systems.items() if not only or name in only}
    for name, (first, second, told) in systems.items():
        median_too = first if second is None else second
        found = Predictions(name, tuple(knees["knee"]), knees["fold"].to_numpy(), first, median_too, about=told)
        write_predictions(run, found)
    rows = [
        f"{fold},{epoch},{name},{start * 0.9**epoch + 0.05 * fold}"
        for fold in range(FOLDS)
        for epoch in range(8)
        for name, start in (("training loss", 4.0), ("held-back RMSE", 3.0))
    ]
    if "convnext" in systems:
        (run / "systems" / "convnext" / "curves.csv").write_text("\n".join(["fold,epoch,name,value", *rows]) + "\n")
    told = {
        "kind": "regression", "target": "pain", "bounds": [0, 10], "unit": "points", "cohort": "cohort", "folds": FOLDS,
        "seed": 0, "synthetic": True, "systems": list(systems), "embeddings": {}, "grades": None, **(extra or {}),
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(told))
    return run
