"""Ordinal conformal sets: neighbouring grades around the reported one that hold the true grade with a stated coverage.

From the reported grade the set grows to the more probable neighbour, as adaptive prediction sets do (Romano, Sesia and
Candes, 2020; ordinal: Lu, Angelopoulos and Pomerantz, 2022). A grade's score is the probability that the set holds
before the grade joins it; grades with a score of at most their limit are in. The limits are chosen on knees that the
networks have not learnt from (training/conformal.py, docs/uncertainty.md).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Conformal:
    """`limits` of the scores of each grade, and the coverage, 0..1, that they were chosen for."""

    coverage: float
    limits: tuple[float, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Conformal":
        """From bundle.json.

        Raises:
            KeyError, TypeError, ValueError: a value is missing or no such number; says which.
        """
        coverage, limits = float(values["coverage"]), tuple(float(limit) for limit in values["limits"])
        if not 0 < coverage < 1 or len(limits) != 5 or not all(0 <= limit < math.inf for limit in limits):
            raise ValueError(f"conformal coverage {coverage} or limits {limits} cannot be")
        return cls(coverage, limits)

    def to_json(self) -> dict[str, Any]:
        """Plain values for bundle.json."""
        return {"coverage": self.coverage, "limits": list(self.limits)}

    def members(self, probabilities: Floats, reported: Ints) -> Bools:
        """Which grades are in the sets, (N, 5); in each row neighbours, the reported one among them.

        Args:
            probabilities: (N, 5), each row sums to 1.
            reported: the reported grades, (N,).
        """
        within = growth(probabilities, reported) <= np.asarray(self.limits)
        grades = np.arange(within.shape[1])
        lowest = within.argmax(axis=1)
        highest = within.shape[1] - 1 - within[:, ::-1].argmax(axis=1)
        return np.asarray((grades >= lowest[:, None]) & (grades <= highest[:, None]))


def growth(probabilities: Floats, reported: Ints) -> Floats:
    """The scores (N, 5): the probability held by the set before each grade joins it; 0 for the reported one.

    Args:
        probabilities: (N, 5).
        reported: where each set starts, (N,).
    """
    count, grades = probabilities.shape
    rows = np.arange(count)
    scores = np.zeros((count, grades))
    low, high = reported.copy(), reported.copy()
    held = probabilities[rows, reported]
    edged = np.pad(probabilities, ((0, 0), (1, 1)), constant_values=-1.0)  # beyond both ends nothing can join
    for _ in range(grades - 1):
        below, above = edged[rows, low], edged[rows, high + 2]
        down = below >= above
        joined = np.where(down, low - 1, high + 1)
        scores[rows, joined] = held
        held = held + np.where(down, below, above)
        low, high = np.where(down, joined, low), np.where(down, high, joined)
    return scores
