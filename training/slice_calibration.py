"""Venn-Abers tables of a system on knee MRI, from the out-of-fold probabilities of its run, and how well they hold.

The scores are of networks that saw no image of the patient. Every patient has the weight 1 in all, which its rows (two
knees, several windows) share; the new knee counts as one more patient. What is told of the intervals is cross-fitted:
the rows of a fold are judged by tables of the other folds. See `inference.venn_abers` for the method.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.optimize import isotonic_regression

from inference.errors import DataError
from inference.venn_abers import P0, P1, SCORES, VennAbers
from training.cv_figures import bins_of
from training.cv_subgroups import factors_of, patients_in
from training.resampling import PatientBootstrap, estimate
from training.slice_fit import best_threshold

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BINS = 10


@dataclass(frozen=True, eq=False)
class Scored:
    """Out-of-fold rows: probabilities (N, K), truth (N,) 0..K-1, folds (N,), patients (N,)."""

    probabilities: Floats
    truth: Ints
    folds: Ints
    patients: npt.NDArray[np.str_]

    def take(self, rows: npt.NDArray[np.bool_]) -> "Scored":
        """The chosen rows."""
        return Scored(self.probabilities[rows], self.truth[rows], self.folds[rows], self.patients[rows])

    @property
    def weights(self) -> Floats:
        """(N,) each row's share of its patient."""
        _, codes, counts = np.unique(self.patients, return_inverse=True, return_counts=True)
        return np.asarray(1 / counts[codes], np.float64)


def calibrate(found: Scored) -> VennAbers:
    """The tables of all rows; values are rounded to single precision, as a bundle keeps them.

    Raises:
        DataError: there is no row.
    """
    if not len(found.truth):
        raise DataError("there is no out-of-fold probability to calibrate with.")
    classes, weights = found.probabilities.shape[1], found.weights
    places = np.clip(np.rint((SCORES - 1) * found.probabilities), 0, SCORES - 1).astype(np.int64)
    rows = [1] if classes == 2 else range(classes)
    tables = {k: _tables(places[:, k], (found.truth == k).astype(np.float64), weights) for k in rows}
    if classes == 2:
        p0, p1 = tables[1]
        tables[0] = (1 - p1[::-1], 1 - p0[::-1])
    below, above = (np.stack([tables[k][part] for k in range(classes)]).astype(np.float32) for part in (0, 1))
    return VennAbers.of({P0: below, P1: above}, classes)


def _tables(places: Ints, labels: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """p0 and p1 at every score; places (N,) are scores in thousandths."""
    mass = np.bincount(places, weights, minlength=SCORES)
    ones = np.bincount(places, weights * labels, minlength=SCORES)
    found = np.empty((2, SCORES))
    for label in (0, 1):
        for score in range(SCORES):
            # The new knee is one more patient, of the weight 1.
            total, positive = mass.copy(), ones.copy()
            total[score] += 1
            positive[score] += label
            there = np.flatnonzero(total)
            fitted = isotonic_regression(positive[there] / total[there], weights=total[there])
            found[label, score] = fitted.x[np.searchsorted(there, score)]
    # Rising by theory; sums of floating point numbers may fall in the last digit.
    found = np.maximum.accumulate(np.clip(found, 0, 1), axis=1)
    return found[0], np.maximum(found[0], found[1])


@dataclass(frozen=True)
class Threshold:
    """On the calibrated probability of the last of two classes: greatest F1 over all out-of-fold rows.

    precision, recall, f1: cross-fitted, tables and threshold of each fold from the other folds.
    """

    value: float
    precision: float
    recall: float
    f1: float

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return {"value": self.value, "precision": self.precision, "recall": self.recall, "f1": self.f1}


def choose_threshold(found: Scored, tables: VennAbers) -> Threshold | None:
    """The threshold and what it finds; None for more than two classes."""
    if found.probabilities.shape[1] != 2:
        return None
    called = np.zeros(len(found.truth), np.bool_)
    for held, others in _others(found):
        known = found.take(~held)
        limit = best_threshold(known.truth, others.intervals(known.probabilities)[0][:, 1])
        called[held] = others.intervals(found.probabilities[held])[0][:, 1] >= limit
    hit, positive = float(np.sum(called & (found.truth == 1))), float(np.sum(found.truth == 1))
    precision, recall = hit / max(1.0, float(called.sum())), hit / max(1.0, positive)
    f1 = 2 * hit / max(1.0, float(called.sum()) + positive)
    value = best_threshold(found.truth, tables.intervals(found.probabilities)[0][:, 1])
    return Threshold(value, precision, recall, f1)


def interval_figures(found: Scored, knees: pl.DataFrame) -> dict[str, Any]:
    """Whether the intervals hold the observed share: overall, in tenths of the prediction, and by subgroup.

    Args:
        found: out-of-fold rows. knees: the same rows of knees.parquet, for subgroups.

    Returns:
        For each class of which there is a table ("classes"): mean point, low and high, the observed share with its 95 %
        patient-bootstrap interval, and whether the mean interval holds it ("holds") or at least overlaps with its
        bootstrap interval ("agrees"). Patients weigh the same, as in the tables.
    """
    point, low, high = np.empty((3, *found.probabilities.shape))
    for held, others in _others(found):
        point[held], low[held], high[held] = others.intervals(found.probabilities[held])
    bootstrap = PatientBootstrap(found.patients.tolist())
    classes = found.probabilities.shape[1]
    result: list[dict[str, Any]] = []
    for k in range(1, 2) if classes == 2 else range(classes):
        one = _Judge((found.truth == k).astype(np.float64), point[:, k], low[:, k], high[:, k], found, bootstrap)
        bins = bins_of(point[:, k], BINS)
        groups = []
        for factor in factors_of(knees):
            counts = patients_in(factor, found.patients.tolist())
            rows = one.groups(factor.places, len(factor.groups))
            groups += [
                {"factor": factor.name, "group": group, "patients": counts[place], **rows[place]}
                for place, group in enumerate(factor.groups)
            ]
        whole = one.groups(np.zeros(len(found.truth), np.int64), 1)[0]
        result.append({"class": k, **whole, "bins": one.groups(bins, int(bins.max()) + 1), "subgroups": groups})
    return {"patients": bootstrap.patients, "rows": len(found.truth), "classes": result}


@dataclass(frozen=True, eq=False)
class _Judge:
    truth: Floats
    point: Floats
    low: Floats
    high: Floats
    found: Scored
    bootstrap: PatientBootstrap

    def groups(self, places: Ints, count: int) -> list[dict[str, Any]]:
        """One row a group, 0..count-1."""
        weights = self.found.weights
        member = (places[:, None] == np.arange(count)) * weights[:, None]
        sums = self.bootstrap.sums(np.concatenate([member, member * self.truth[:, None]], axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = sums[:, count:] / sums[:, :count]
        rows = []
        for place in range(count):
            here = member[:, place] / member[:, place].sum()
            values = {name: float(here @ getattr(self, name)) for name in ("point", "low", "high")}
            share = estimate(float(here @ self.truth), draws[:, place])
            least, most = (share.value if value is None else value for value in (share.low, share.high))
            rows.append({
                "rows": int((places == place).sum()), **values, "width": values["high"] - values["low"],
                "observed": list(share), "holds": bool(values["low"] <= (share.value or 0.0) <= values["high"]),
                "agrees": bool((least or 0.0) <= values["high"] and values["low"] <= (most or 0.0)),
            })  # fmt: skip
        return rows


def _others(found: Scored) -> Sequence[tuple[npt.NDArray[np.bool_], VennAbers]]:
    """Rows of each fold, and tables of all other folds."""
    folds = np.unique(found.folds)
    if len(folds) < 2:
        raise DataError(f"all rows are of fold {folds.tolist()}: intervals are judged by other folds than their own.")
    return [(found.folds == fold, calibrate(found.take(found.folds != fold))) for fold in folds]


def tables_of(tables: VennAbers) -> Mapping[str, npt.NDArray[np.float32]]:
    """As tensors of a bundle."""
    return {P0: tables.p0.astype(np.float32), P1: tables.p1.astype(np.float32)}
