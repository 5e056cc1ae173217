"""A cross-validated run on knee MRI, kind "classification": `genu-train fit --cohort COHORT --slices FOLDER`.

RUN/run.json, RUN/knees.parquet and RUN/systems/NAME are those of training.predictions; system.json has for each fold
the threshold that was chosen inside of it. A fold that was fitted from the same things is not fitted again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from inference.errors import DataError
from training.cohorts.columns import sha256
from training.cohorts.made import is_made
from training.fit_record import Fit, added
from training.folds import check_features, check_folds, check_rows, patient_folds
from training.predictions import CURVES, Predictions, write_predictions
from training.slice_fit import Ints, SliceFitConfig
from training.slice_store import SliceStore
from training.slice_systems import CLINICAL, SliceSamples, SliceSystem, fit_fold

KIND = "classification"
CLASSES: Mapping[str, tuple[str, ...]] = {
    "progression_abs": ("no progression", "progression of 0.5 mm or more"),
    "progression_rel": ("no progression", "progression of a quarter or more"),
    "womac_pain_binary": ("WOMAC pain below 1", "WOMAC pain of 2 or more"),
    "womac_pain_class": ("no pain", "some pain", "much pain"),
}
_NEEDED = ("knee", "SeriesInstanceUID", "PatientID", "side", "sequence")
_VERSION = 2
ATTENTION = "attention.parquet"
Say = Callable[[str], None]


@dataclass(frozen=True)
class SliceRun:
    """What run.json holds. `folder` is where it lies.

    target: the cohort's column, 0..K-1. classes: their names. sequence: of the series that take part. slices: folder of
    slice features. bidirectional: the GRU reads both ways. left_out: why how many rows do not take part. systems:
    those that are finished; asked: those that any fit was asked for. fits: command and versions of each fit
    (training.fit_record).
    """

    folder: Path
    target: str
    classes: tuple[str, ...]
    sequence: str
    cohort: Path
    cohort_sha256: str
    slices: str
    slices_digest: str
    folds: int = 5
    seed: int = 0
    synthetic: bool = False
    bidirectional: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)
    fitting: Mapping[str, Any] = field(default_factory=dict)
    systems: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    fits: tuple[Fit, ...] = ()
    kind: str = KIND

    def knees(self) -> pl.DataFrame:
        """The rows that take part, with fold and truth.

        Raises:
            DataError: knees.parquet cannot be read, or a patient is in two folds.
        """
        try:
            table = pl.read_parquet(self.folder / "knees.parquet")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{self.folder / 'knees.parquet'} cannot be read ({error}): fit into another folder."
            ) from error
        check_folds(table["knee"].to_list(), table["PatientID"].to_list(), table["fold"].to_numpy().astype(np.int64))
        return table

    def write(self) -> None:
        """Write run.json."""
        values = {name: value for name, value in asdict(self).items() if name not in ("folder", "kind")}
        values |= {"cohort": str(self.cohort), "classes": list(self.classes)}
        values |= {name: list(getattr(self, name)) for name in ("systems", "asked", "fits")}
        part = self.folder / "run.json.part"
        part.write_text(json.dumps({"kind": KIND, **values}, indent=2) + "\n", encoding="utf-8")
        part.replace(self.folder / "run.json")


def read(folder: Path) -> SliceRun:
    """The run in a folder.

    Raises:
        DataError: there is none, or one of another kind.
    """
    try:
        values = json.loads((folder / "run.json").read_text("utf-8"))
        if values.pop("kind", None) != KIND:
            raise DataError(f"{folder} holds no run on knee MRI: make one with `genu-train fit --cohort --slices`.")
        values |= {"cohort": Path(values["cohort"])}
        values |= {name: tuple(values[name]) for name in ("systems", "classes", "asked", "fits")}
        return SliceRun(folder=folder, **values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{folder / 'run.json'} cannot be read ({error}): fit into another folder.") from error


def create(
    folder: Path, cohort: Path, slices: Path, *, target: str, sequence: str, folds: int = 5, seed: int = 0,
    bidirectional: bool = False, config: SliceFitConfig | None = None, synthetic: bool = False,
    command: Sequence[str] = (),
) -> SliceRun:  # fmt: skip
    """Make a run, or go on with the same one.

    `command` are the words of the command line, which run.json keeps.

    It is synthetic when the caller says so, when the backbone's weights are random, and when the knees are made.

    Raises:
        DataError: cohort or features are not what they should be, or the folder holds another run.
    """
    store = SliceStore(slices)
    path = cohort / "cohort.parquet"
    knees, left_out = _taking_part(_read_cohort(path, target), target, sequence, store)
    labels = knees["truth"].to_numpy().astype(np.int64)
    patients = knees["PatientID"].cast(pl.String).to_list()
    parts = patient_folds(patients, labels.astype(np.float64), folds, seed)
    knees = knees.with_columns(pl.Series("fold", parts, pl.Int64))
    run = SliceRun(
        folder=folder, target=target, classes=_classes(target, labels), sequence=sequence, cohort=cohort.resolve(),
        cohort_sha256=sha256(path), slices=str(slices.resolve()), slices_digest=store.digest, folds=folds, seed=seed,
        synthetic=synthetic or store.spec.synthetic or is_made(cohort), bidirectional=bidirectional, left_out=left_out,
        fitting=asdict(config or SliceFitConfig()),
    )  # fmt: skip
    if (folder / "run.json").exists():
        there = read(folder)
        run = replace(run, synthetic=run.synthetic or there.synthetic)
        if replace(there, systems=(), asked=(), fits=()) != run or not there.knees().equals(knees):
            raise DataError(f"{folder} holds a run with other inputs or options: name another folder with --run.")
        run = replace(there, fits=added(there.fits, command))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        knees.write_parquet(folder / "knees.parquet")
        run = replace(run, fits=added((), command))
    run.write()
    return run


def fit_systems(run: SliceRun, systems: Sequence[SliceSystem], say: Say) -> SliceRun:
    """Fit one after another; run.json names all as asked for first, and each as soon as it is finished.

    Raises:
        DataError: a leak.
    """
    wanted = [*run.asked, *run.systems, *(system.name for system in systems)]
    run = replace(run, asked=tuple(dict.fromkeys(wanted)))
    run.write()
    knees = run.knees()
    samples, labels = samples_of(run, knees), knees["truth"].to_numpy().astype(np.int64)
    for system in systems:
        _fit_system(run, knees, samples, labels, system, say)
        if system.name not in run.systems:
            run = replace(run, systems=(*run.systems, system.name))
            run.write()
    return run


def samples_of(run: SliceRun, knees: pl.DataFrame) -> SliceSamples:
    """What systems see of the run's rows.

    Raises:
        DataError: the features are not those that the run was made with.
    """
    store = SliceStore(Path(run.slices))
    if store.digest != run.slices_digest:
        raise DataError(f"{run.slices} holds other features than when {run.folder} was made: fit into another folder.")
    patients = np.asarray(knees["PatientID"].cast(pl.String).to_list(), np.str_)
    return SliceSamples(store.matrix(_series(knees)), clinical_columns(knees), patients)


def clinical_columns(knees: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(N, len(CLINICAL)) in the cohort's units, NaN for missing or for a column that the cohort lacks; F is 1, M 0."""
    columns = []
    for name in CLINICAL:
        if name not in knees.columns:
            columns.append(np.full(len(knees), np.nan))
            continue
        values = knees[name]
        if name == "sex":
            values = values.replace_strict({"M": 0.0, "F": 1.0}, default=None, return_dtype=pl.Float64)
        columns.append(values.cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64))
    return np.stack(columns, axis=1)


def _fit_system(
    run: SliceRun, knees: pl.DataFrame, samples: SliceSamples, labels: Ints, system: SliceSystem, say: Say
) -> None:
    names, folds = knees["knee"].to_list(), knees["fold"].to_numpy().astype(np.int64)
    if system.clinical:
        check_features(samples.columns(system.clinical), labels.astype(np.float64), system.clinical)
    found = np.zeros((len(names), len(run.classes)))
    told: list[dict[str, Any]] = []
    curves: list[tuple[int, int, str, float]] = []
    weights: list[pl.DataFrame] = []
    for fold in range(run.folds):
        held = folds == fold
        check_rows(names, samples.patients.tolist(), ~held, held)
        result = _fold(run, samples, labels, system, held, fold)
        found[held] = result["probabilities"]
        if result["attention"] is not None:
            weights.append(_long(knees["knee"].filter(pl.Series(held)), result["attention"]))
        told.append({
            "fold": fold, "knees": int(held.sum()), "patients": len(np.unique(samples.patients[held])),
            "chosen": result["chosen"], "threshold": result["threshold"], "seconds": result["seconds"],
        })  # fmt: skip
        curves += [(fold, *curve) for curve in result["curves"]]
        say(f"{system.name} fold {fold + 1}/{run.folds}: {int(held.sum())} rows in {result['seconds']:.1f} s")
    store = SliceStore(Path(run.slices))
    about = {
        "title": system.title, "kind": system.kind, "head": system.head, "clinical": list(system.clinical),
        "image": system.image, "synthetic": run.synthetic, "backbone": store.spec.backbone if system.image else None,
        "licence": store.spec.licence if system.image else None,
        "deployed_use": store.spec.deployed_use or not system.image,
        "exported": system.image, "folds": told, "seconds": round(sum(fold["seconds"] for fold in told), 3),
    }  # fmt: skip
    if weights:
        pl.concat(weights).write_parquet(run.folder / "systems" / system.name / ATTENTION)
    if curves:
        path = run.folder / "systems" / system.name / CURVES
        pl.DataFrame(curves, schema=["fold", "epoch", "name", "value"], orient="row").write_csv(path)
    write_predictions(run.folder, Predictions(system.name, tuple(names), folds, probabilities=found, about=about))


def _fold(
    run: SliceRun, samples: SliceSamples, labels: Ints, system: SliceSystem, held: Any, fold: int
) -> dict[str, Any]:
    """One fold: what is kept when it was made of the same things, otherwise fitted and kept."""
    path = run.folder / "systems" / system.name / "folds" / f"fold-{fold}.parquet"
    config = SliceFitConfig(**run.fitting)
    said = [_VERSION, asdict(system), run.slices_digest, run.fitting, run.bidirectional, run.seed, len(run.classes)]
    inputs = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for values in (held, labels[~held], samples.columns(system.clinical)):
        inputs.update(np.ascontiguousarray(values).tobytes())
    inputs.update(json.dumps(samples.patients.tolist()).encode())
    there = _read_fold(path, inputs.hexdigest(), len(run.classes))
    if there is not None:
        return there
    began = time.monotonic()
    fitted = fit_fold(
        system, samples.take(~held), labels[~held], len(run.classes), config, run.seed, bidirectional=run.bidirectional
    )
    result = {
        "probabilities": fitted.probabilities(samples.take(held)), "attention": fitted.attention(samples.take(held)),
        "chosen": dict(fitted.chosen),
        "threshold": fitted.threshold, "curves": [[c.epoch, c.name, c.value] for c in fitted.curves],
        "seconds": round(time.monotonic() - began, 3),
    }  # fmt: skip
    _write_fold(path, inputs.hexdigest(), result)
    return result


def _write_fold(path: Path, inputs: str, result: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"p": result["probabilities"], "a": result["attention"]}
    kept = {"inputs": inputs, **{name: result[name] for name in ("chosen", "threshold", "curves", "seconds")}}
    columns = {f"{name}{n}": values[:, n] for name, values in arrays.items() if values is not None
               for n in range(values.shape[1])}  # fmt: skip
    table = pa.table(columns)
    part = path.with_suffix(".part")
    pq.write_table(table.replace_schema_metadata({"genu": json.dumps(kept)}), part)
    part.replace(path)


def _read_fold(path: Path, inputs: str, classes: int) -> dict[str, Any] | None:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return None
    kept: dict[str, Any] = json.loads((table.schema.metadata or {}).get(b"genu", b"{}"))
    if kept.pop("inputs", None) != inputs:
        return None
    slices = sum(name.startswith("a") for name in table.column_names)
    probabilities, attention = (
        np.stack([table[f"{name}{n}"].to_numpy() for n in range(count)], axis=1) if count else None
        for name, count in (("p", classes), ("a", slices))
    )
    return {**kept, "probabilities": probabilities, "attention": attention}


def _long(knees: pl.Series, weights: np.ndarray[Any, np.dtype[np.float64]]) -> pl.DataFrame:
    """knee, slice (0 and up), weight."""
    count, slices = weights.shape
    return pl.DataFrame({
        "knee": np.repeat(knees.to_numpy(), slices), "slice": np.tile(np.arange(slices), count),
        "weight": weights.reshape(-1),
    })  # fmt: skip


def _read_cohort(path: Path, target: str) -> pl.DataFrame:
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read ({error}): make it with `genu-train cohort`.") from error
    missing = [name for name in (*_NEEDED, target) if name not in table.columns]
    if missing:
        raise DataError(f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(table.columns)}.")
    if table["knee"].is_duplicated().any() or table["PatientID"].null_count():
        raise DataError(f"{path}: a row is there twice, or has no PatientID: folds are made by it.")
    return table.sort("knee")


def _taking_part(
    table: pl.DataFrame, target: str, sequence: str, store: SliceStore
) -> tuple[pl.DataFrame, dict[str, int]]:
    rows = table.filter(pl.col("sequence") == sequence)
    if rows.is_empty():
        there = ", ".join(sorted(str(name) for name in table["sequence"].drop_nulls().unique()))
        raise DataError(f"the cohort has no series of {sequence!r}; it has {there or 'none'}.")
    left_out = {"of another sequence": len(table) - len(rows)}
    known = rows.filter(pl.col(target).is_not_null())
    left_out[f"without {target}"] = len(rows) - len(known)
    kept = known.filter(pl.Series(_series(known)).is_in(list(store.keys)))
    left_out["without slice features"] = len(known) - len(kept)
    sides = [store.sides[series] for series in _series(kept)]
    same = kept.filter(kept["side"].cast(pl.String) == pl.Series(sides, dtype=pl.String))
    left_out["prepared as the other side"], kept = len(kept) - len(same), same
    if kept.is_empty():
        raise DataError(f"no row of the cohort has both {target} and slice features in {store.folder}.")
    return kept.with_columns(pl.col(target).cast(pl.Int64).alias("truth")), left_out


def _series(knees: pl.DataFrame) -> list[str]:
    """Keys of slice features; the windows of a series share them."""
    return [str(series) for series in knees["SeriesInstanceUID"].to_list()]


def _classes(target: str, labels: Ints) -> tuple[str, ...]:
    if labels.min() < 0 or labels.max() > 9:
        raise DataError(f"{target} holds {labels.min()} to {labels.max()}: classes are numbered from 0.")
    names = CLASSES.get(target, tuple(f"class {number}" for number in range(max(2, int(labels.max()) + 1))))
    if labels.max() >= len(names):
        raise DataError(f"{target} holds {labels.max()}; its classes are 0 to {len(names) - 1}.")
    return names
