"""Prediction intervals of a score, from out-of-fold residuals: split conformal by patient, as CV+ lays it out.

Residuals truth - prediction come from models that saw no image of the patient (Barber, Candes, Ramdas and Tibshirani
2021, predictive inference with the jackknife+ and CV+). Both tails are cut off by themselves, since scores are skewed.
Each patient has the same weight however many knees there are, and one more patient, whose residual may be anything,
stands for the next one (the finite-sample correction of split conformal prediction; weights as Tibshirani et al. 2019).
The interval is cut to the bounds of the score, which loses no coverage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from inference.errors import DataError
from inference.pain_manifest import Calibration
from training.cv_subgroups import factors_of, patients_in
from training.resampling import PatientBootstrap, estimate

COVERAGE = 0.9
METHOD = "signed residual quantiles of cross-validation (CV+ style), by patient"
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Of knees (N,): prediction and truth in points, the fold that left the knee out, and the patient."""

    mean: Floats
    truth: Floats
    folds: Ints
    patients: Sequence[str]
    bounds: tuple[float, float]

    def interval(self, calibration: Calibration) -> tuple[Floats, Floats]:
        """Lower and upper limits (N,)."""
        low, high = self.bounds
        return np.clip(self.mean + calibration.low, low, high), np.clip(self.mean + calibration.high, low, high)

    def take(self, rows: npt.NDArray[np.bool_]) -> "OutOfFold":
        """Some of the knees."""
        patients = [patient for patient, wanted in zip(self.patients, rows, strict=True) if wanted]
        return OutOfFold(self.mean[rows], self.truth[rows], self.folds[rows], patients, self.bounds)


def calibrate(found: OutOfFold, coverage: float = COVERAGE) -> Calibration:
    """The offsets that hold `coverage` of the patients' scores; as wide as the scale where patients are too few.

    Raises:
        DataError: there is no knee.
    """
    if not len(found.truth):
        raise DataError("there is no out-of-fold prediction to calibrate an interval with.")
    residuals = found.truth - found.mean
    tail = (1 - coverage) / 2
    span = found.bounds[1] - found.bounds[0]
    high = patient_quantile(residuals, found.patients, 1 - tail)
    low = -patient_quantile(-residuals, found.patients, 1 - tail)
    return Calibration(METHOD, coverage, min(0.0, max(low, -span)), max(0.0, min(high, span)))


def patient_quantile(values: Floats, patients: Sequence[str], share: float) -> float:
    """The least value that `share` of the patients' mass reaches when one more patient has an infinite one."""
    _, codes, counts = np.unique(np.asarray(patients, np.str_), return_inverse=True, return_counts=True)
    weights = 1 / counts[codes] / (len(counts) + 1)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    place = int(np.searchsorted(reached, share - 1e-12))
    return float(values[order[place]]) if place < len(values) else float("inf")


def coverage_figures(found: OutOfFold, knees: pl.DataFrame, coverage: float = COVERAGE) -> dict[str, Any]:
    """How many scores the interval holds, and how wide it is, overall and by subgroup.

    Each fold's knees are judged by offsets from the other folds, so that no patient judges an interval that their own
    residual made. Shares of knees with 95 % patient-bootstrap intervals.
    """
    low, high = np.empty(len(found.truth)), np.empty(len(found.truth))
    for fold in np.unique(found.folds):
        held = found.folds == fold
        others = calibrate(found.take(~held), coverage)
        low[held], high[held] = found.take(held).interval(others)
    inside = (found.truth >= low) & (found.truth <= high)
    bootstrap = PatientBootstrap(found.patients)
    rows: list[Mapping[str, Any]] = []
    for factor in factors_of(knees):
        patients = patients_in(factor, found.patients)
        for place, group in enumerate(factor.groups):
            chosen = factor.places == place
            told = _figures(inside, high - low, chosen, bootstrap)
            rows.append({"factor": factor.name, "group": group, "patients": patients[place], **told})
    everybody = _figures(inside, high - low, np.ones(len(inside), np.bool_), bootstrap)
    return {"wanted": coverage, "patients": bootstrap.patients, **everybody, "subgroups": rows}


def _figures(
    inside: npt.NDArray[np.bool_], width: Floats, chosen: npt.NDArray[np.bool_], bootstrap: PatientBootstrap
) -> dict[str, Any]:
    sums = bootstrap.sums(np.stack([inside & chosen, chosen], axis=1).astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = sums[:, 0] / sums[:, 1]
    found = estimate(float(inside[chosen].mean()), draws)
    return {
        "knees": int(chosen.sum()),
        "coverage": found.value,
        "coverage_95": None if found.low is None else [found.low, found.high],
        "mean_width": float(width[chosen].mean()),
    }
