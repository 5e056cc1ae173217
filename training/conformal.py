"""Chooses the limits of conformal sets on patients that the networks have not learnt from, and tells their coverage.

Two demands, both met on those patients alone. Over all knees: with a confidence of 95 % over the draw of the patients
the coverage is reached, since few hundred patients, with two knees each, leave a quantile uncertain by more than a
finite-sample correction says (Vovk, 2012, of the coverage given one calibration set). And for each grade by itself
(Mondrian), so that common grades do not pay for rare ones. A grade's limit is the larger of the two.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.bundle import decode
from inference.conformal import Conformal, growth
from training.metrics import bootstrap, resampled

COVERAGE = 0.9
CONFIDENCE = 0.95
_ROUNDS = 2000
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def calibrate_sets(
    probabilities: Floats, truth: Ints, subjects: Sequence[str], decoder: str, coverage: float = COVERAGE
) -> Conformal:
    """The limits.

    Args:
        probabilities: calibrated, (N, 5), of knees that were not learnt from.
        truth: their grades, (N,).
        subjects: their patients, (N,).
        decoder: how the reported grade is made.
        coverage: 0..1.
    """
    scores = growth(probabilities, decode(probabilities, decoder))[np.arange(len(truth)), truth]
    overall = _confident(scores, subjects, coverage)
    limits = [max(overall, quantile(scores[truth == grade], coverage)) for grade in range(probabilities.shape[1])]
    # A little more than the score itself, which decimals of another machine must not undo.
    return Conformal(coverage, tuple(round(min(1.0, limit) + 1e-6, 6) for limit in limits))


def quantile(scores: Floats, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest score, which n exchangeable ones promise; 1 where they are too few."""
    rank = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else 1.0


def _confident(scores: Floats, subjects: Sequence[str], coverage: float) -> float:
    """The upper end of the quantile over resampled patients."""
    draws = resampled(lambda rows: quantile(scores[rows], coverage), subjects, rounds=_ROUNDS)
    return float(np.quantile(draws, CONFIDENCE, method="higher"))


def set_figures(
    conformal: Conformal,
    probabilities: Floats,
    truth: Ints,
    sides: Sequence[str],
    subjects: Sequence[str],
    decoder: str,
) -> dict[str, Any]:
    """Coverage of the sets, with a 95 % patient-bootstrap interval, by grade and by side, and how large they are."""
    members = conformal.members(probabilities, decode(probabilities, decoder))
    covered = members[np.arange(len(truth)), truth]
    sizes = members.sum(axis=1)
    side = np.asarray(sides)
    return {
        "n": len(truth),
        "wanted": conformal.coverage,
        "coverage": float(covered.mean()),
        "coverage_95": bootstrap(lambda rows: float(covered[rows].mean()), subjects),
        "by_grade": [float(covered[truth == g].mean()) if (truth == g).any() else None for g in range(5)],
        "by_side": {name: float(covered[side == name].mean()) for name in sorted(set(sides))},
        "mean_size": float(sizes.mean()),
        "sizes": [int((sizes == size).sum()) for size in range(1, 6)],
    }
