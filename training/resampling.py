"""Patient bootstrap: patients are drawn with replacement, all knees of a patient together.

One object holds the draws, so that every system, group and difference is judged on the same resamples (paired). Most
figures are functions of sums over knees: those are formed per patient once, and a thousand resamples are one product of
matrices. Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval).
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
ROUNDS: Final = 1000
_BLOCK: Final = 100  # rounds in one product; bounds memory


class Estimate(NamedTuple):
    """A figure with its 95 % interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


NONE: Final = Estimate(None)


class PatientBootstrap:
    """The resamples.

    Args:
        patients: the patient of each knee, (N,).
        rounds, seed: how many resamples, and of which random sequence.
    """

    def __init__(self, patients: Sequence[str], *, rounds: int = ROUNDS, seed: int = 0) -> None:
        names, codes = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
        self.rounds, self.seed, self.patients = rounds, seed, len(names)
        self.codes: npt.NDArray[np.intp] = codes
        self._order = np.argsort(codes, kind="stable")
        self._starts = np.searchsorted(codes[self._order], np.arange(len(names)))
        generator = np.random.default_rng(seed)
        self._counts = np.stack(
            [
                np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names)).astype(np.uint16)
                for _ in range(rounds)
            ]
        )

    def sums(self, features: Floats) -> Floats:
        """Sums of (N, K) features over the knees of each resample, (rounds, K)."""
        by_patient = np.add.reduceat(features[self._order], self._starts, axis=0)
        blocks = [
            self._counts[start : start + _BLOCK].astype(np.float64) @ by_patient
            for start in range(0, self.rounds, _BLOCK)
        ]
        return np.concatenate(blocks)

    def weights(self) -> Iterator[Floats]:
        """Of each resample, how often each knee is in it, (N,)."""
        for counts in self._counts:
            yield counts[self.codes].astype(np.float64)


def estimate(value: float, draws: Floats) -> Estimate:
    """A figure and the 2.5th and 97.5th percentile of its values (rounds,) in the resamples.

    Resamples in which the figure has no value (no patient of a group, say) are left out; where that is more than half
    of them there is no interval.
    """
    if not np.isfinite(value):
        return NONE
    known = draws[np.isfinite(draws)]
    if 2 * len(known) <= len(draws):
        return Estimate(float(value))
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))
