"""Figures of readers on pairs: share right, agreement, exact tests; with intervals. Numbers only.

A pair counts 1 where the knee that progressed was named, 1/2 for a tie, 0 otherwise; the mean over pairs is the area
under the ROC curve of Mann and Whitney, taken over the pairs that were shown instead of over all pairs there could be.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, binomtest

from training.resampling import NONE, Estimate, PatientBootstrap, estimate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
RIGHT, HALF, WRONG = 1.0, 0.5, 0.0
_TAIL: Final = 0.025


def auc(outcomes: Floats) -> Estimate:
    """Of (N,) outcomes 1, 1/2 or 0, with the 95 % interval of Clopper and Pearson (1934, Biometrika 26:404).

    The pairs are independent, so the interval is exact without ties; a tie counts as half a success, which spreads less
    than a success or a failure would: with ties the interval is somewhat too wide.
    """
    count = len(outcomes)
    if not count:
        return NONE
    right = float(outcomes.sum())
    low = 0.0 if right == 0 else float(beta.ppf(_TAIL, right, count - right + 1))
    high = 1.0 if right == count else float(beta.ppf(1 - _TAIL, right + 1, count - right))
    return Estimate(right / count, low, high)


def mean_difference(one: Floats, other: Floats, *, rounds: int = 2000, seed: int = 0) -> Estimate:
    """Mean of `one` less mean of `other`, (N,) outcomes of the same pairs; bootstrap over pairs, percentiles."""
    if not len(one):
        return NONE
    drawn = _bootstrap(len(one), rounds, seed)
    features = np.stack([one - other, np.ones(len(one))], axis=1)
    sums = drawn.sums(features)
    return estimate(float((one - other).mean()), sums[:, 0] / sums[:, 1])


def mean_of_readers(outcomes: Floats, *, rounds: int = 2000, seed: int = 0) -> Estimate:
    """Mean over readers of their areas; bootstrap over pairs, the readers being these and no sample of others.

    Args:
        outcomes: (N, R), NaN where a reader has not answered.
    """
    known = ~np.isnan(outcomes)
    if not known.any(axis=0).all() or not outcomes.shape[1]:
        return NONE
    values = np.where(known, outcomes, 0.0)
    sums = _bootstrap(len(outcomes), rounds, seed).sums(np.concatenate([values, known.astype(np.float64)], axis=1))
    readers = outcomes.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = (sums[:, :readers] / sums[:, readers:]).mean(axis=1)
    return estimate(float((values.sum(axis=0) / known.sum(axis=0)).mean()), draws)


class Agreement(NamedTuple):
    """Of readers on the same pairs. share: of pairs (of pairs of readers, where there are more) with equal answers."""

    pairs: int
    share: Estimate
    kappa: Estimate


def cohen(one: Ints, other: Ints, classes: int, *, rounds: int = 2000, seed: int = 0) -> Agreement:
    """Two readers' answers 0 .. classes - 1 on the same (N,) pairs: Cohen's kappa (1960), bootstrap over pairs.

    Kappa has no value where both gave one and the same answer throughout.
    """
    count = len(one)
    if not count:
        return Agreement(0, NONE, NONE)
    cells = np.eye(classes * classes)[one * classes + other]
    sums = np.concatenate([cells.sum(axis=0, keepdims=True), _bootstrap(count, rounds, seed).sums(cells)])
    table = sums.reshape(-1, classes, classes) / sums.sum(axis=1)[:, None, None]
    observed = np.einsum("rkk->r", table)
    expected = (table.sum(axis=1) * table.sum(axis=2)).sum(axis=1)
    return _agreement(count, observed, expected)


def fleiss(answers: Ints, classes: int, *, rounds: int = 2000, seed: int = 0) -> Agreement:
    """(N, R) answers of two or more readers, all on the same pairs: Fleiss' kappa (1971), bootstrap over pairs."""
    count, readers = answers.shape
    if not count:
        return Agreement(0, NONE, NONE)
    votes = np.stack([(answers == one).sum(axis=1) for one in range(classes)], axis=1).astype(np.float64)
    same = (votes * (votes - 1)).sum(axis=1) / (readers * (readers - 1))
    features = np.concatenate([votes / readers, same[:, None]], axis=1)
    sums = np.concatenate([features.sum(axis=0, keepdims=True), _bootstrap(count, rounds, seed).sums(features)])
    means = sums / count  # every resample has as many pairs
    return _agreement(count, means[:, -1], (means[:, :-1] ** 2).sum(axis=1))


class McNemar(NamedTuple):
    """Pairs by who was right; ties of either are left out and counted. p: exact, two-sided."""

    both: int
    one_only: int
    other_only: int
    neither: int
    ties: int
    p: float | None


def mcnemar(one: Floats, other: Floats) -> McNemar:
    """Exact test of McNemar (1947) on (N,) outcomes of the same pairs; no p without a pair that only one had right."""
    tied = (one == HALF) | (other == HALF)
    first, second = one[~tied] == RIGHT, other[~tied] == RIGHT
    only, others = int((first & ~second).sum()), int((~first & second).sum())
    p = float(binomtest(only, only + others, 0.5).pvalue) if only + others else None
    return McNemar(int((first & second).sum()), only, others, int((~first & ~second).sum()), int(tied.sum()), p)


def _agreement(count: int, observed: Floats, expected: Floats) -> Agreement:
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = np.where(expected < 1 - 1e-12, (observed - expected) / (1 - expected), np.nan)
    return Agreement(count, estimate(float(observed[0]), observed[1:]), estimate(float(kappa[0]), kappa[1:]))


def _bootstrap(count: int, rounds: int, seed: int) -> PatientBootstrap:
    names: Sequence[str] = [str(number) for number in range(count)]
    return PatientBootstrap(names, rounds=rounds, seed=seed)
