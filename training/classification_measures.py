"""Figures of predicted probabilities of classes, with patient-bootstrap intervals.

Areas compare knees of one fold only: each fold has its own model, and scores of two models have no common scale. ROC
AUC is the share of pairs of a fold, one of the class and one not, that are ranked right, ties counting half; PR AUC
(average precision) is the mean over knees of the class of the precision in their fold at their score. Of one fold both
are those of scikit-learn, of several their mean weighted by pairs and by knees of the class. A predictor that is
constant in each fold has ROC AUC 0.5.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from training.resampling import PatientBootstrap

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_BLOCK: Final = 50  # resamples at a time; bounds memory
_LEAST: Final = 1e-12  # of a probability in the log loss


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rows in the order of fold and score, with which of them are of the class.

    order: (M,) rows of the run. positive: (M,). starts: of equal scores within a fold. folds: (T,) the fold of each of
    those, 0 and up.
    """

    order: npt.NDArray[np.intp]
    positive: Floats
    starts: npt.NDArray[np.intp]
    folds: npt.NDArray[np.intp]

    @classmethod
    def of(cls, positive: Bools, scores: Floats, folds: Ints, rows: Bools | None = None) -> "Ranking":
        """Of (N,) arrays, or of the chosen ones of these rows."""
        chosen = np.arange(len(scores)) if rows is None else np.flatnonzero(rows)
        order = chosen[np.lexsort((scores[chosen], folds[chosen]))]
        kept, parts = scores[order], np.unique(folds[order], return_inverse=True)[1]
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(kept) != 0) | (np.diff(parts) != 0)
        starts = np.flatnonzero(new)
        return cls(order, positive[order].astype(np.float64), starts, parts[starts])

    def areas(self, weights: Floats) -> tuple[Floats, Floats]:
        """ROC AUC and PR AUC, (R,) each, where row i occurs weights[r, i] times; NaN where there is none.

        Args:
            weights: (R, N), N being the rows of the run.
        """
        nothing = np.full(len(weights), np.nan)
        if not len(self.order):
            return nothing, nothing
        sorted_ = weights[:, self.order]
        of_class = np.add.reduceat(sorted_ * self.positive, self.starts, axis=1)
        others = np.add.reduceat(sorted_, self.starts, axis=1) - of_class
        first = np.flatnonzero(np.diff(self.folds, prepend=-1))
        above_class, total_class = _from_here(of_class, first, self.folds)
        above_others, total_others = _from_here(others, first, self.folds)
        below = total_others[:, self.folds] - above_others  # others of the fold with a lower score
        right = (of_class * (below + others / 2)).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.nan_to_num(above_class / (above_class + above_others))
            roc = right / (total_class * total_others).sum(axis=1)
            pr = (of_class * precision).sum(axis=1) / total_class.sum(axis=1)
        return roc, np.where(np.isfinite(roc), pr, np.nan)


def _from_here(values: Floats, first: npt.NDArray[np.intp], folds: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Sums from each place (R, T) to the end of its fold, and those of whole folds (R, F)."""
    totals = np.add.reduceat(values, first, axis=1)
    before = np.cumsum(values, axis=1) - values
    start = before[:, first]
    return totals[:, folds] - (before - start[:, folds]), totals


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure and its values in the resamples, (rounds,)."""

    value: float
    draws: Floats


def areas(rankings: Mapping[str, Ranking], bootstrap: PatientBootstrap) -> dict[str, tuple[Drawn, Drawn]]:
    """ROC AUC and PR AUC of each ranking, all on the same resamples."""
    count = len(bootstrap.codes)
    points = {name: ranking.areas(np.ones((1, count))) for name, ranking in rankings.items()}
    parts: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in rankings}
    for weights in _blocks(bootstrap):
        for name, ranking in rankings.items():
            parts[name].append(ranking.areas(weights))
    result = {}
    for name, found in parts.items():
        roc, pr = (np.concatenate([part[number] for part in found]) for number in (0, 1))
        result[name] = Drawn(float(points[name][0][0]), roc), Drawn(float(points[name][1][0]), pr)
    return result


def _blocks(bootstrap: PatientBootstrap) -> Iterator[Floats]:
    weights = bootstrap.weights()
    while block := list(islice(weights, _BLOCK)):
        yield np.stack(block)


def called(probabilities: Floats, folds: Ints, thresholds: Mapping[int, float] | None) -> Ints:
    """(N,) the class that is called: of two the second from its fold's threshold up, otherwise the most probable.

    Args:
        probabilities: (N, K). folds: (N,).
        thresholds: by fold; None for the most probable class.
    """
    if thresholds is None:
        best: Ints = probabilities.argmax(axis=1).astype(np.int64)
        return best
    limits = np.array([thresholds[int(fold)] for fold in folds])
    above: Ints = (probabilities[:, 1] >= limits).astype(np.int64)
    return above


def cells(truth: Ints, called_: Ints, count: int) -> Floats:
    """(N, K·K) one 1 a row, at truth·K + called."""
    return np.asarray(np.eye(count * count)[truth * count + called_])


def losses(truth: Ints, probabilities: Floats) -> tuple[Floats, Floats]:
    """(N,) log loss in nats, and Brier score: (p1 - y)² of two classes, the sum of squares over more."""
    count = probabilities.shape[1]
    logs = -np.log(np.clip(probabilities[np.arange(len(truth)), truth], _LEAST, 1))
    squares = ((probabilities - np.eye(count)[truth]) ** 2).sum(axis=1)
    return logs, squares / 2 if count == 2 else squares


def from_cells(sums: Floats, count: int) -> dict[str, Floats]:
    """Precision, recall, specificity and F1 of each class, (R, K), from sums of `cells`, (R, K·K).

    A figure without a denominator is NaN: precision of a class that is never called, recall of one that does not occur.
    """
    matrix = sums.reshape(-1, count, count)
    right = np.einsum("rkk->rk", matrix)
    true, called_, whole = matrix.sum(axis=2), matrix.sum(axis=1), matrix.sum(axis=(1, 2))[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "precision": right / called_,
            "recall": right / true,
            "specificity": (whole - true - called_ + right) / (whole - true),
            "f1": np.where(true > 0, 2 * right / (true + called_), np.nan),
            "share": true / whole,
        }


def overall(by_class: Mapping[str, Floats]) -> dict[str, Floats]:
    """The figures of a run, (R,): of two classes those of the second, of more the mean over classes (macro).

    weighted_f1 is F1 weighted by the classes' shares, of any number of classes.
    """
    count = by_class["share"].shape[1]
    found = {
        name: values[:, 1] if count == 2 else values.mean(axis=1)
        for name, values in by_class.items()
        if name != "share"
    }
    known = by_class["share"] > 0  # a class that does not occur has no weight
    found["weighted_f1"] = np.where(known, by_class["f1"] * by_class["share"], 0.0).sum(axis=1)
    return found


def macro(parts: Sequence[Drawn]) -> Drawn:
    """The mean of a figure over classes."""
    return Drawn(float(np.mean([part.value for part in parts])), np.mean([part.draws for part in parts], axis=0))
