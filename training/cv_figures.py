"""Figures of predicted scores: RMSE, MAE, R², Spearman, signed error, calibration; with patient-bootstrap intervals.

RMSE, R², signed error and calibration are those of the predicted mean, MAE that of the predicted median: each is
judged by what minimises it. R² is 1 - SSE / SST over all knees, SST about their own mean; it is below 0 for what is
worse than that mean. Spearman's coefficient is that of scipy (ties share their mean rank); a predictor that is constant
within every fold orders nothing and has none, nor a calibration line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from training.resampling import NONE, Estimate, Floats, PatientBootstrap, estimate

FIGURES: Final = ("rmse", "mae", "r2", "spearman", "bias", "slope", "intercept")
LESS_IS_BETTER: Final = ("rmse", "mae")
_COLUMNS: Final = 7  # of the features of one system
Draws = Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class Scores:
    """Predictions of one system. mean, median: (N,). ordered: it tells knees of one fold apart."""

    mean: Floats
    median: Floats
    ordered: bool


@dataclass(frozen=True, eq=False)
class Measured:
    """Figures of one system and their values in each resample, (rounds,)."""

    figures: Mapping[str, Estimate]
    draws: Draws


def is_ordered(mean: Floats, folds: npt.NDArray[np.int64]) -> bool:
    """Whether predictions differ within any fold."""
    return any(np.ptp(mean[folds == fold]) > 1e-9 for fold in np.unique(folds))


def point_figures(truth: Floats, scores: Scores) -> dict[str, float]:
    """The figures of FIGURES without intervals; NaN where one has no value."""
    sums = _features(truth, scores).sum(axis=0, keepdims=True)
    values = {name: float(draws[0]) for name, draws in _from_sums(sums, scores.ordered, truth.mean()).items()}
    rank = spearman(_codes(scores.mean), _codes(truth), np.ones(len(truth))) if scores.ordered else np.nan
    return {**values, "spearman": rank}


def measure(truth: Floats, systems: Mapping[str, Scores], bootstrap: PatientBootstrap) -> dict[str, Measured]:
    """Figures of systems on the same resamples.

    Args:
        truth: (N,) in the target's units.
        systems: their predictions for the same N knees.
        bootstrap: of the patients of these knees.
    """
    sums = bootstrap.sums(np.concatenate([_features(truth, scores) for scores in systems.values()], axis=1))
    ranks = _rank_draws(truth, systems, bootstrap)
    result = {}
    for number, (name, scores) in enumerate(systems.items()):
        draws = _from_sums(sums[:, number * _COLUMNS : (number + 1) * _COLUMNS], scores.ordered, truth.mean())
        draws["spearman"] = ranks[name]
        values = point_figures(truth, scores)
        result[name] = Measured({key: estimate(values[key], draws[key]) for key in FIGURES}, draws)
    return result


def difference(one: Measured, other: Measured, figure: str) -> Estimate:
    """`one` less `other`, with the interval of the paired difference over the same resamples."""
    values = [measured.figures[figure].value for measured in (one, other)]
    if values[0] is None or values[1] is None:
        return NONE
    return estimate(values[0] - values[1], one.draws[figure] - other.draws[figure])


def is_better(found: Estimate, figure: str) -> bool | None:
    """What a difference says beyond its interval: better, worse, or neither (None)."""
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return None
    return (found.high < 0) == (figure in LESS_IS_BETTER)


def spearman(one: npt.NDArray[np.intp], other: npt.NDArray[np.intp], weights: Floats) -> float:
    """Spearman's coefficient where knee i occurs weights[i] times; NaN where either is constant.

    Args:
        one, other: (N,) places of the values among the distinct values in their order, as np.unique returns.
        weights: (N,) whole numbers.
    """
    first, second = _ranks(one, weights), _ranks(other, weights)
    product = np.sqrt((weights @ first**2) * (weights @ second**2))
    return float(weights @ (first * second) / product) if product > 0 else float("nan")


def _ranks(codes: npt.NDArray[np.intp], weights: Floats) -> Floats:
    """Mean ranks less their mean."""
    totals = np.bincount(codes, weights)
    return np.asarray((np.cumsum(totals) - totals / 2 - totals.sum() / 2)[codes])


def _codes(values: Floats) -> npt.NDArray[np.intp]:
    return np.unique(values, return_inverse=True)[1]


def _rank_draws(truth: Floats, systems: Mapping[str, Scores], bootstrap: PatientBootstrap) -> dict[str, Floats]:
    codes = {name: _codes(scores.mean) for name, scores in systems.items() if scores.ordered}
    target = _codes(truth)
    draws = {name: np.full(bootstrap.rounds, np.nan) for name in systems}
    for number, weights in enumerate(bootstrap.weights()):
        here = weights > 0
        kept, goal = weights[here], target[here]
        for name, places in codes.items():
            draws[name][number] = spearman(places[here], goal, kept)
    return draws


def _features(truth: Floats, scores: Scores) -> Floats:
    """(N, 7): 1, e², |e of the median|, y, y², p, p² with y and p about the middle of the truth, for precision."""
    middle = truth.mean()
    y, p = truth - middle, scores.mean - middle
    columns = [np.ones(len(truth)), (p - y) ** 2, np.abs(scores.median - truth), y, y**2, p, p**2]
    return np.stack(columns, axis=1)


def _from_sums(sums: Floats, ordered: bool, middle: float) -> dict[str, Floats]:
    """Figures (but Spearman) from sums of `_features`, (rounds, 7), and the middle that was taken off."""
    n, squares, absolute, y, yy, p, pp = sums.T
    nothing = np.full(len(sums), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = yy - y**2 / n
        spread = pp - p**2 / n
        both = (yy + pp - squares) / 2 - y * p / n  # sum of (y - mean y)(p - mean p)
        slope = np.where(spread > 1e-9, both / spread, np.nan) if ordered else nothing
        return {
            "rmse": np.sqrt(squares / n),
            "mae": absolute / n,
            "r2": np.where(total > 1e-9, 1 - squares / total, np.nan),
            "bias": (p - y) / n,
            "slope": slope,
            "intercept": (y - slope * p) / n + middle * (1 - slope),
        }


def bins_of(mean: Floats, count: int) -> npt.NDArray[np.int64]:
    """(N,) the number of each knee's bin: about equally many in each, equal predictions in one; 0 is the lowest."""
    edges = np.unique(np.quantile(mean, np.linspace(0, 1, count + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, mean, side="left"), return_inverse=True)[1].astype(np.int64)


def group_means(
    values: Sequence[Floats], groups: npt.NDArray[np.int64], count: int, bootstrap: PatientBootstrap
) -> list[list[Estimate]]:
    """Means of each of `values` (N,) in each group, with intervals; a knee with a group below 0 is in none.

    Returns:
        One list a value, of `count` estimates.
    """
    member = (groups[:, None] == np.arange(count)).astype(np.float64)
    features = np.concatenate([member, *(member * value[:, None] for value in values)], axis=1)
    sums, whole = bootstrap.sums(features), features.sum(axis=0)
    result = []
    with np.errstate(divide="ignore", invalid="ignore"):
        means = sums[:, count:] / np.tile(sums[:, :count], len(values))
        points = whole[count:] / np.tile(whole[:count], len(values))
    for number in range(len(values)):
        places = range(number * count, (number + 1) * count)
        result.append([estimate(float(points[place]), means[:, place]) for place in places])
    return result
