"""Ridge regression, its penalty chosen by an inner patient-grouped cross-validation, and the median beside the mean.

All penalties of a fold come from one eigendecomposition of the smaller Gram matrix; columns are standardised by the
rows that are learnt from. The penalty is `strength` times the number of rows, so that one choice suits both a fold and
all knees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize

from training.regression_samples import Curve, Design, Floats, Matrix, Samples, inner_folds, is_whole

STRENGTHS = tuple(float(10.0**power) for power in np.arange(-4.0, 3.01, 0.5))
_ROWS = 4096  # standardised at once
_STEEPEST = 2.0


@dataclass(frozen=True, eq=False)
class Linear:
    """z . weight + bias with z = (x - centre) / scale; one column of weight for each penalty."""

    centre: Floats
    scale: Floats
    weight: Floats
    bias: float

    def predict(self, x: Matrix) -> Floats:
        """(N, number of penalties)."""
        parts = [((x[n : n + _ROWS] - self.centre) / self.scale) @ self.weight for n in range(0, len(x), _ROWS)]
        return np.asarray(np.concatenate([np.zeros((0, self.weight.shape[1])), *parts]) + self.bias, np.float64)


def standard(x: Matrix, ease: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of columns (D,); 1 for constant ones; divided by `ease`."""
    centre = x.mean(axis=0, dtype=np.float64)
    spread = np.sqrt(np.maximum(_sum_of_squares(x, centre) / max(len(x), 1), 0))
    scale = np.where(spread > 1e-6 * np.maximum(np.abs(centre), 1e-6), spread, 1.0)
    return centre, scale / ease


def ridge(x: Matrix, y: Floats, strengths: Sequence[float], ease: Floats) -> Linear:
    """Least squares with penalty strength * N * |weight|^2 on standardised columns, the bias free.

    Args:
        x: (N, D). y: (N,). strengths: penalties. ease: (D,), see `Design.ease`.
    """
    centre, scale = standard(x, ease)
    bias = float(y.mean())
    target = y - bias
    penalties = np.asarray(strengths) * len(x)
    if len(x) <= x.shape[1]:
        z = (x - centre) / scale
        values, vectors = scipy.linalg.eigh(z @ z.T)
        shrunk = (vectors.T @ target)[:, None] / (np.maximum(values, 0)[:, None] + penalties)
        return Linear(centre, scale, np.asarray(z.T @ (vectors @ shrunk), np.float64), bias)
    gram, moment = np.zeros((x.shape[1], x.shape[1])), np.zeros(x.shape[1])
    for start in range(0, len(x), _ROWS):
        z = (x[start : start + _ROWS] - centre) / scale
        gram += z.T @ z
        moment += z.T @ target[start : start + _ROWS]
    values, vectors = scipy.linalg.eigh(gram)
    shrunk = (vectors.T @ moment)[:, None] / (np.maximum(values, 0)[:, None] + penalties)
    return Linear(centre, scale, np.asarray(vectors @ shrunk, np.float64), bias)


def median_line(score: Floats, target: Floats) -> tuple[float, float]:
    """Slope (0 to 2) and intercept of the line through out-of-fold scores with least absolute error.

    Raises nothing; for a given slope the best intercept is the median of what is left, and the loss is convex.
    """

    def loss(slope: float) -> float:
        rest = target - slope * score
        return float(np.abs(rest - np.median(rest)).mean())

    found = scipy.optimize.minimize_scalar(loss, bounds=(0.0, _STEEPEST), method="bounded", options={"xatol": 1e-4})
    slope = float(found.x)
    return slope, float(np.median(target - slope * score))


@dataclass(frozen=True, eq=False)
class FittedRidge:
    """Of one fold; `line` makes the median out of the mean, `whole` rounds it."""

    design: Design
    linear: Linear
    line: tuple[float, float]
    whole: bool
    chosen: Mapping[str, Any]
    curves: Sequence[Curve] = ()

    def predict(self, samples: Samples) -> tuple[Floats, Floats]:
        """Mean and median."""
        mean = self.linear.predict(self.design.columns(samples))[:, 0]
        median = self.line[1] + self.line[0] * mean
        return mean, np.rint(median) if self.whole else median

    def final(self) -> Mapping[str, Any] | None:
        """Fields of a `FinalHead`; the person's columns have no place in a bundle."""
        if "people" in self.design.parts or "image" not in self.design.parts:
            return None
        tensors = {
            "weight": self.linear.weight[:, 0],
            "bias": np.array([self.linear.bias]),
            "centre": self.linear.centre,
            "scale": self.linear.scale,
        }
        return {
            "kind": "ridge",
            "tensors": tensors,
            "slope": self.line[0],
            "intercept": self.line[1],
            "whole": self.whole,
        }


@dataclass(frozen=True)
class RidgeHead:
    """parts: of "image", "grades", "people"."""

    parts: tuple[str, ...] = ("image",)
    strengths: tuple[float, ...] = field(default=STRENGTHS)
    name: str = "ridge"

    def fit(self, samples: Samples, target: Floats, seed: int) -> FittedRidge:
        """Choose the penalty by squared error on inner folds, then fit on all rows.

        Raises:
            DataError: fewer than two patients.
        """
        inner = inner_folds(samples, target, seed)
        scores = np.zeros((len(samples), len(self.strengths)))
        for fold in np.unique(inner):
            rows, held = samples.take(inner != fold), samples.take(inner == fold)
            design = Design.of(rows, self.parts)
            linear = ridge(design.columns(rows), target[inner != fold], self.strengths, design.ease(rows))
            scores[inner == fold] = linear.predict(design.columns(held))
        errors = ((scores - target[:, None]) ** 2).mean(axis=0)
        best = int(len(errors) - 1 - np.argmin(errors[::-1]))  # of equal ones the strongest
        design = Design.of(samples, self.parts)
        linear = ridge(design.columns(samples), target, self.strengths[best : best + 1], design.ease(samples))
        chosen = {"strength": self.strengths[best], "inner_rmse": float(np.sqrt(errors[best]))}
        return FittedRidge(design, linear, median_line(scores[:, best], target), is_whole(target), chosen)


def _sum_of_squares(x: Matrix, centre: Floats) -> Floats:
    result = np.zeros(x.shape[1])
    for start in range(0, len(x), _ROWS):
        result += ((x[start : start + _ROWS] - centre) ** 2).sum(axis=0)
    return result
