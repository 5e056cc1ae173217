"""Likelihoods by which planted effects are found again, with intervals that know of patients.

Rows of a patient (two knees, several visits) are alike; variances are those of clusters (Liang and Zeger 1986,
Biometrika 73:13, the sandwich of score sums by patient), intervals the estimate plus and minus 1.96 deviations.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_expit, ndtr

from training.resampling import Estimate

Floats = npt.NDArray[np.float64]
_STEP = 1e-4  # of numeric derivatives; parameters are of the order of 1
_LEAST = 1e-300


def logistic(columns: Floats, outcome: Floats, patients: Sequence[str]) -> list[Estimate]:
    """Log odds of each column.

    Args:
        columns: (N, P), a column of ones among them. outcome: (N,), 0 or 1. patients: (N,).
    """
    sign = 2 * outcome - 1
    return _maximum(lambda theta: log_expit(sign * (columns @ theta)), np.zeros(columns.shape[1]), patients)


def rounded_normal(
    columns: Floats, scores: Floats, most: int, patients: Sequence[str], absent: float | None = None
) -> list[Estimate]:
    """Effects on a normal value that is told rounded to whole points, and cut to 0 and `most`.

    Least squares on such scores finds less than there is, since all values below 0.5 are told as 0.

    Args:
        columns: (N, P), a column of ones among them. scores: (N,), whole numbers, 0 to most. patients: (N,).
        absent: a score that is left out of all rows, because it has no label; None where there is none.

    Returns:
        One estimate a column, and the standard deviation.
    """

    def mass(values: Floats, theta: Floats) -> Floats:
        middle, spread = columns @ theta[:-1], np.exp(theta[-1])
        lower, upper = np.where(values <= 0, -np.inf, values - 0.5), np.where(values >= most, np.inf, values + 0.5)
        low, high = (lower - middle) / spread, (upper - middle) / spread
        # In the upper tail the difference of two numbers near 1 is lost: the same area lies in the lower one.
        turned = low > 0
        low, high = np.where(turned, -high, low), np.where(turned, -low, high)
        return np.asarray(np.maximum(ndtr(high) - ndtr(low), _LEAST), np.float64)

    def each(theta: Floats) -> Floats:
        found = np.log(mass(scores, theta))
        if absent is not None:
            found -= np.log(np.maximum(1 - mass(np.full_like(scores, absent), theta), _LEAST))
        return np.asarray(found, np.float64)

    start = np.append(np.linalg.lstsq(columns, scores, rcond=None)[0], np.log(max(float(np.std(scores)), 0.1)))
    *found, spread = _maximum(each, start, patients)
    told = [None if value is None else float(np.exp(value)) for value in spread]
    return [*found, Estimate(*told)]


def _maximum(each: Callable[[Floats], Floats], start: Floats, patients: Sequence[str]) -> list[Estimate]:
    """Parameters of the greatest likelihood; `each` gives the log likelihoods of rows (N,) for parameters (P,)."""
    count = len(patients)

    def cost(theta: Floats) -> float:
        return -float(each(theta).sum()) / count

    theta = np.asarray(cast(Any, minimize)(cost, start, method="BFGS", options={"gtol": 1e-7}).x, np.float64)
    rows = _slopes(each, theta)
    curvature = np.stack([
        (_slopes(each, theta + step).sum(axis=0) - _slopes(each, theta - step).sum(axis=0)) / (2 * _STEP)
        for step in _STEP * np.eye(len(theta))
    ])  # fmt: skip
    codes = np.unique(np.asarray(patients, np.str_), return_inverse=True)[1]
    groups = int(codes.max()) + 1
    sums = np.zeros((groups, len(theta)))
    np.add.at(sums, codes, rows)
    inverse = np.linalg.pinv(-(curvature + curvature.T) / 2)
    spread = inverse @ (sums.T @ sums) @ inverse * groups / max(1, groups - 1)
    deviations = np.sqrt(np.maximum(np.diag(spread), 0))
    return [
        Estimate(float(value), float(value - 1.96 * one), float(value + 1.96 * one))
        for value, one in zip(theta, deviations, strict=True)
    ]


def _slopes(each: Callable[[Floats], Floats], theta: Floats) -> Floats:
    """(N, P) numeric derivatives of the log likelihoods of rows."""
    return np.stack([(each(theta + step) - each(theta - step)) / (2 * _STEP) for step in _STEP * np.eye(len(theta))], 1)
