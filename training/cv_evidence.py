"""What a cross-validated run left behind, read and checked: all that `evaluate` and `report` work from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from inference.errors import DataError
from training import predictions
from training.predictions import Predictions

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BASELINES: Final = (
    "constant_mean", "constant_median", "prevalence", "demographics", "clinical_only", "jsw_only", "kl_only",
)  # fmt: skip
_NEEDED: Final = ("knee", "PatientID", "fold", "truth")


@dataclass(frozen=True, eq=False)
class Evidence:
    """A run as it lies on disk.

    about: run.json. knees: knees.parquet, (N) rows. systems: in the order of a table, baselines first, each in the
    order of `knees`. unfinished: asked for by run.json, but without predictions. inputs: SHA-256 of every file read.
    """

    run: Path
    about: Mapping[str, Any]
    knees: pl.DataFrame
    systems: tuple[Predictions, ...]
    unfinished: tuple[str, ...]
    inputs: Mapping[str, str]

    @property
    def truth(self) -> Floats:
        """(N,) what was to be predicted."""
        return self.knees["truth"].cast(pl.Float64).to_numpy()

    @property
    def folds(self) -> Ints:
        """(N,) the fold in which a knee was left out."""
        return self.knees["fold"].cast(pl.Int64).to_numpy()

    @property
    def patients(self) -> list[str]:
        """(N,) the patient of each knee."""
        return [str(patient) for patient in self.knees["PatientID"].to_list()]

    @property
    def synthetic(self) -> bool:
        """The knees, or the weights of a system, are made and not learned from patients."""
        return bool(self.about.get("synthetic")) or any(system.about.get("synthetic") for system in self.systems)


def kind_of(run: Path) -> str | None:
    """The kind in RUN/run.json ("regression", "classification"); None for a run of the KL grader or no run at all."""
    path = run / "run.json"
    return _about(path).get("kind") if path.is_file() else None


def read_evidence(run: Path) -> Evidence:
    """Read and check a run.

    Raises:
        DataError: a file is missing or unreadable, a knee has no patient or truth, a patient's knees lie in several
            folds, a system was predicted in other folds than the run's, or no system has been fitted.
    """
    about = _about(run / "run.json")
    path = run / "knees.parquet"
    try:
        knees = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read ({error}): run `genu-train fit` again.") from error
    _check(knees, path)
    names = predictions.systems_of(run)
    if not names:
        raise DataError(f"no system of {run} has predictions: run `genu-train fit` first.")
    listed = [str(name) for name in about.get("systems", ())]
    systems = [predictions.in_order(predictions.read_predictions(run, name), knees["knee"].to_list()) for name in names]
    for system in systems:
        if not np.array_equal(system.folds, knees["fold"].to_numpy()):
            raise DataError(f"{system.system} was fitted on other folds than {path} has: run `genu-train fit` again.")
    systems.sort(key=lambda system: _rank(system, listed))
    files = [run / "run.json", path]
    files += [run / "systems" / name / file for name in names for file in _FILES]
    return Evidence(
        run=run,
        about=about,
        knees=knees,
        systems=tuple(systems),
        unfinished=tuple(name for name in _wanted(about, listed) if name not in names),
        inputs={file.relative_to(run).as_posix(): _sha256(file) for file in files if file.is_file()},
    )


_FILES: Final = (predictions.PREDICTIONS, predictions.SYSTEM, predictions.CURVES)


def is_baseline(system: Predictions) -> bool:
    """A yardstick, not one of the systems that are compared."""
    return system.about.get("kind") == "baseline"


def title_of(system: Predictions) -> str:
    """The system's title, or its name where it has none."""
    return str(system.about.get("title") or system.system)


def _rank(system: Predictions, listed: list[str]) -> tuple[bool, int, int, str]:
    name = system.system
    fixed = BASELINES.index(name) if name in BASELINES else len(BASELINES)
    return not is_baseline(system), fixed, listed.index(name) if name in listed else len(listed), name


def _wanted(about: Mapping[str, Any], listed: list[str]) -> list[str]:
    """What any fit was asked for, and what was finished once; runs of before do not tell what they were asked for."""
    return list(dict.fromkeys([*listed, *map(str, about.get("asked") or ())]))


def _about(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): name the folder of a run with --run.") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is not the description of a run: name the folder of a run with --run.")
    return values


def _check(knees: pl.DataFrame, path: Path) -> None:
    missing = [name for name in _NEEDED if name not in knees.columns]
    if missing:
        raise DataError(f"{path} lacks the column(s) {', '.join(missing)}: run `genu-train fit` again.")
    for name in _NEEDED:
        if knees.is_empty() or knees[name].null_count():
            raise DataError(f"{path}: {knees[name].null_count()} of {len(knees)} knees have no {name}.")
    if not knees["truth"].cast(pl.Float64).is_finite().all():
        raise DataError(f"{path}: not every truth is a finite number.")
    leaked = knees.filter(pl.col("fold").n_unique().over("PatientID") > 1)
    if len(leaked):
        raise DataError(
            f"{path}: {leaked['PatientID'].n_unique()} patient(s) are in more than one fold (the first knee: "
            f"{leaked['knee'][0]}); the figures would be worth nothing. Run `genu-train fit` again in a new folder."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
