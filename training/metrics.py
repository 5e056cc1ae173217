"""Figures for ordinal grades: quadratic kappa, accuracy, recall, calibration error, and patient bootstrap intervals."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import cohen_kappa_score

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
GRADES = 5


def quadratic_kappa(truth: Ints, grade: Ints) -> float:
    """Cohen's kappa with quadratic weights over grades 0..4; 0 for a constant prediction."""
    if len(set(truth.tolist()) | set(grade.tolist())) < 2:
        return 0.0  # undefined
    return float(cohen_kappa_score(truth, grade, weights="quadratic", labels=list(range(GRADES))))


def accuracy(truth: Ints, grade: Ints) -> float:
    """Share of equal grades."""
    return float(np.mean(truth == grade))


def recalls(truth: Ints, grade: Ints) -> list[float | None]:
    """Recall per grade 0..4; None where a grade does not occur."""
    return [float(np.mean(grade[truth == k] == k)) if bool(np.any(truth == k)) else None for k in range(GRADES)]


def expected_calibration_error(truth: Ints, probabilities: Floats, bins: int = 15) -> float:
    """ECE of the most probable grade (Naeini 2015): equal-width confidence bins, weighted by their share.

    Args:
        truth: (N,) grades.
        probabilities: (N, 5).
        bins: number of bins over 0..1.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = [abs(correct[index == b].mean() - confidence[index == b].mean()) * np.mean(index == b) for b in set(index)]
    return float(np.sum(gaps))


def log_loss(truth: Ints, probabilities: Floats) -> float:
    """Mean negative log-likelihood, in nats."""
    return float(-np.mean(np.log(np.clip(probabilities[np.arange(len(truth)), truth], 1e-12, 1))))


def bootstrap(
    figure: Callable[[Ints], float], subjects: Sequence[str], *, rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of `figure(rows)` under resampling of patients, both knees together."""
    draws = resampled(figure, subjects, rounds=rounds, seed=seed)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def resampled(figure: Callable[[Ints], float], subjects: Sequence[str], *, rounds: int, seed: int = 0) -> list[float]:
    """`figure(rows)` of `rounds` draws of as many patients, with replacement."""
    generator = np.random.default_rng(seed)
    _, codes = np.unique(np.asarray(subjects), return_inverse=True)
    count, every = int(codes.max()) + 1, np.arange(len(codes))
    draws = []
    for _ in range(rounds):
        times = np.bincount(generator.integers(0, count, count), minlength=count)
        draws.append(figure(np.repeat(every, times[codes])))
    return draws
