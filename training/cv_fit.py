"""The loop over folds: every system learns from all folds but one and predicts that one; what is done is kept.

RUN/systems/NAME/folds/fold-K.parquet holds what a fold gave, with the hash of all that went into it. A fold with the
same hash is not fitted again; a changed target, feature, fold or option is a miss.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from inference.errors import DataError
from training.cv_run import CVRun, asked, finished, truth_of
from training.embeddings import EmbeddingStore, sentences_digest
from training.final_head import FINAL, JSON, FinalHead, read_head, write_head
from training.folds import Bools, check_features, check_rows
from training.predictions import CURVES, Predictions, write_predictions
from training.regression_features import StoredTokens, fused
from training.regression_samples import UNKNOWN, Curve, Design, Floats, Ints, Samples
from training.systems import System

VERSION = 3  # of what a head does with the same numbers; a change of it is a miss
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class FoldResult:
    """Of the held-out knees of one fold, in the run's order; chosen and seconds of the fit."""

    mean: Floats
    median: Floats
    chosen: Mapping[str, Any]
    curves: tuple[Curve, ...]
    seconds: float


def samples_of(run: CVRun, knees: pl.DataFrame, system: System) -> Samples:
    """What a system sees of the run's knees.

    Raises:
        DataError: a store lacks a knee or features.
    """
    names = [str(knee) for knee in knees["knee"].to_list()]
    grades = knees["grade"].fill_null(UNKNOWN).to_numpy().astype(np.int64)
    image, tokens = np.zeros((len(names), 0), np.float32), None
    if system.embedding is not None:
        store = EmbeddingStore(Path(run.embeddings[system.embedding]))
        if system.features == "patches":
            tokens = StoredTokens.of(store)
        elif system.features == "fused":
            image = fused(store, names, knees["side"].to_list(), grades)
        else:
            image = store.matrix(names)
    return Samples(
        knees=np.asarray(names, np.str_),
        patients=np.asarray(knees["PatientID"].cast(pl.String).to_list(), np.str_),
        image=image,
        grades=grades,
        age=knees["age"].cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64),
        sex=np.asarray(knees["sex"].cast(pl.String).fill_null("").to_list(), np.str_),
        race=np.asarray(knees["race"].cast(pl.String).fill_null("").to_list(), np.str_),
        tokens=tokens,
    )


def fit_system(run: CVRun, knees: pl.DataFrame, system: System, say: Say) -> Predictions:
    """Fit one system in every fold, write its predictions and its final head.

    Raises:
        DataError: a leak, or features that are not there.
    """
    samples = samples_of(run, knees, system)
    target, folds = truth_of(knees)
    _check_columns(samples, target, system, run)
    folder = run.folder / "systems" / system.name
    results = {}
    for fold in range(run.folds):
        held = folds == fold
        results[fold] = fit_fold(samples, target, ~held, held, system, run, folder / "folds" / f"fold-{fold}.parquet")
        error = float(np.sqrt(np.mean((results[fold].mean - target[held]) ** 2)))
        say(f"{system.name} fold {fold + 1}/{run.folds}: {held.sum()} knees, RMSE {error:.3f} {run.unit}")
    final = _final(samples, target, system, run, folder / FINAL) if system.exported else None
    found = _gathered(samples, folds, results, system, run, final)
    _write_curves(folder / CURVES, results)
    write_predictions(run.folder, found)
    return found


def fit_fold(
    samples: Samples, target: Floats, train: Bools, held: Bools, system: System, run: CVRun, path: Path
) -> FoldResult:
    """One fold: what is at `path` when it was made of the same things, otherwise fitted and written there.

    Raises:
        DataError: a held-out knee is of a patient who is learnt from.
    """
    check_rows(samples.knees.tolist(), samples.patients.tolist(), train, held)
    inputs = _digest(samples, target, train, held, system, run)
    there = _read_fold(path, inputs)
    if there is not None:
        return there
    began = time.monotonic()
    fitted = system.head.fit(samples.take(train), target[train], run.seed)
    mean, median = (np.clip(values, *run.bounds) for values in fitted.predict(samples.take(held)))
    result = FoldResult(mean, median, fitted.chosen, tuple(fitted.curves), time.monotonic() - began)
    _write_fold(path, inputs, result)
    return result


def _check_columns(samples: Samples, target: Floats, system: System, run: CVRun) -> None:
    """No copy of the target among what this system sees."""
    parts = getattr(system.head, "parts", ())
    if system.embedding is not None and samples.image.shape[1]:
        check_features(samples.image, target, f"{system.embedding} column")
    if "grades" in parts or system.name == "kl_only" or system.features == "fused":
        grade = np.where(samples.grades == UNKNOWN, np.nan, samples.grades)[:, None]
        check_features(grade, target, ["grade"])
    if "people" in parts:
        columns = Design.of(samples, ("people",)).columns(samples)
        check_features(columns, target, "age, sex, race column")


def _digest(samples: Samples, target: Floats, train: Bools, held: Bools, system: System, run: CVRun) -> str:
    """SHA-256 of all that decides a fold's predictions."""
    said = [VERSION, repr(system.head), system.embedding, system.features, run.seed, list(run.bounds)]
    result = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    if samples.tokens is not None:
        result.update(samples.tokens.digest.encode())
    texts = (samples.knees, samples.patients, samples.sex, samples.race)
    for values in texts:
        result.update(json.dumps(values.tolist()).encode())
    for numbers in (samples.image, samples.grades, samples.age, target[train], train, held):
        result.update(np.ascontiguousarray(numbers).tobytes())
    return result.hexdigest()


def _read_fold(path: Path, inputs: str) -> FoldResult | None:
    """What was kept, when it was made of the same things."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return None
    kept = json.loads((table.schema.metadata or {}).get(b"genu", b"{}"))
    if kept.get("inputs") != inputs:
        return None
    mean, median = (np.asarray(table[name].to_numpy(), np.float64) for name in ("mean", "median"))
    return FoldResult(mean, median, kept["chosen"], tuple(Curve(*row) for row in kept["curves"]), kept["seconds"])


def _write_fold(path: Path, inputs: str, result: FoldResult) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    curves = [[curve.epoch, curve.name, curve.value] for curve in result.curves]
    kept = {"inputs": inputs, "chosen": dict(result.chosen), "curves": curves, "seconds": round(result.seconds, 3)}
    table = pa.table({"mean": result.mean, "median": result.median})
    part = path.with_suffix(".part")
    pq.write_table(table.replace_schema_metadata({"genu": json.dumps(kept)}), part)
    part.replace(path)


def _final(samples: Samples, target: Floats, system: System, run: CVRun, folder: Path) -> dict[str, Any]:
    """Fit on all knees and keep the head, unless the same is there; returns what was chosen."""
    every = np.ones(len(samples), np.bool_)
    inputs = _digest(samples, target, every, ~every, system, run)
    if (folder / JSON).exists() and (there := read_head(folder)).inputs == inputs:
        return dict(there.chosen)
    fitted = system.head.fit(samples, target, run.seed)
    parts = fitted.final()
    if parts is None or system.embedding is None:
        raise DataError(f"{system.name} has a head that cannot be exported.")
    features = system.features
    if features == "pooled":
        features = _pooled(run, system.embedding, samples.image.shape[1])
    head = FinalHead(
        features=features, embedding=system.embedding, target=run.target, bounds=run.bounds, unit=run.unit,
        knees=len(samples), patients=len(np.unique(samples.patients)), synthetic=run.synthetic,
        grades="grades" in getattr(system.head, "parts", ()), chosen=dict(fitted.chosen), inputs=inputs, **parts,
    )  # fmt: skip
    write_head(folder, head)
    return dict(fitted.chosen)


def _pooled(run: CVRun, embedding: str, width: int) -> str:
    store = EmbeddingStore(Path(run.embeddings[embedding]))
    return "pooled" if width == store.spec.width else "layers"


def _gathered(
    samples: Samples, folds: Ints, results: Mapping[int, FoldResult], system: System, run: CVRun,
    final: Mapping[str, Any] | None,
) -> Predictions:  # fmt: skip
    mean, median = np.zeros(len(samples)), np.zeros(len(samples))
    for fold, result in results.items():
        mean[folds == fold], median[folds == fold] = result.mean, result.median
    about = {
        "title": system.title,
        "kind": system.kind,
        "head": system.head.name,
        "features": system.features if system.embedding else None,
        "embedding": system.embedding,
        **_terms(run, system),
        "exported": system.exported,
        "final": final,
        "folds": [
            {
                "fold": fold,
                "knees": int((folds == fold).sum()),
                "patients": len(np.unique(samples.patients[folds == fold])),
                "chosen": dict(result.chosen),
            }
            for fold, result in results.items()
        ],
        "seconds": round(sum(result.seconds for result in results.values()), 3),
    }
    return Predictions(system.name, tuple(samples.knees.tolist()), folds, mean, median, about=about)


def _terms(run: CVRun, system: System) -> dict[str, Any]:
    """Synthetic or not, and what the weights' licence allows."""
    if system.embedding is None:
        return {"synthetic": run.synthetic, "backbone": None, "licence": None, "deployed_use": True}
    spec = EmbeddingStore(Path(run.embeddings[system.embedding])).spec
    return {
        "synthetic": run.synthetic or spec.synthetic,
        "backbone": spec.backbone,
        "specification": spec.digest,
        **({"sentences": sentences_digest()} if system.features == "fused" else {}),
        "licence": spec.licence,
        "deployed_use": spec.deployed_use,
    }


def _write_curves(path: Path, results: Mapping[int, FoldResult]) -> None:
    rows = [(fold, c.epoch, c.name, c.value) for fold, result in results.items() for c in result.curves]
    if rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows, schema=["fold", "epoch", "name", "value"], orient="row").write_csv(path)


def fit_systems(run: CVRun, systems: Sequence[System], say: Say) -> CVRun:
    """Fit them one after another; run.json names all as asked for first, and each as soon as it is finished.

    Raises:
        DataError: as `fit_system`.
    """
    run = asked(run, [system.name for system in systems])
    knees = run.knees()
    for system in systems:
        fit_system(run, knees, system, say)
        run = finished(run, [system.name])
    return run
