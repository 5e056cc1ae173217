"""Venn-Abers intervals of probabilities, looked up in the tables of a bundle. numpy alone; no torch.

Vovk and Petej, Venn-Abers predictors (UAI 2014): the new knee is added once with the label 0 and once with the label 1,
isotonic regression is fitted either time, and its two values p0 and p1 at the new knee's score bound the probability:
the one of its true label is calibrated, whatever the model. Scores are rounded to thousandths, so that all answers fit
into two tables; `training.slice_calibration` makes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.errors import BundleError

Floats = npt.NDArray[np.float64]
SCORES = 1001  # from 0 to 1 in thousandths
P0, P1 = "calibration.p0", "calibration.p1"  # names of the tables among a bundle's weights


@dataclass(frozen=True, eq=False)
class VennAbers:
    """The tables, (K, 1001) each: class k against the rest, at scores of 0, 0.001, ... 1.

    With two classes row 1 decides; row 0 is its complement: 1 less the other table's row 1, from its end.
    """

    p0: Floats
    p1: Floats

    @classmethod
    def of(cls, tensors: Mapping[str, npt.NDArray[np.floating]], classes: int) -> "VennAbers":
        """The tables among the tensors of a bundle.

        Raises:
            BundleError: one is missing, of another shape, not within 0..1, falls with the score, or p0 is above p1.
        """
        tables = []
        for name in (P0, P1):
            table = np.asarray(tensors.get(name, np.empty(0)), np.float64)
            if table.shape != (classes, SCORES):
                raise BundleError(
                    f"{name} has the shape {table.shape}, not {(classes, SCORES)}: export the bundle again."
                )
            if not np.all((table >= 0) & (table <= 1)) or np.any(np.diff(table, axis=1) < 0):
                raise BundleError(f"{name} does not rise from 0 to 1 with the score: export the bundle again.")
            tables.append(table)
        if np.any(tables[0] > tables[1]):
            raise BundleError(f"{P0} is above {P1}: export the bundle again.")
        return cls(*tables)

    def interval(self, probabilities: npt.NDArray[np.floating]) -> tuple[Floats, Floats, Floats]:
        """Calibrated probabilities of one knee and their bounds.

        Args:
            probabilities: (K,) of the network.

        Returns:
            point, low, high, (K,) each; the points sum to 1, low <= point <= high.

        Raises:
            ValueError: they are not K numbers within 0..1.
        """
        point, low, high = self.intervals(np.asarray(probabilities, np.float64)[None])
        return point[0], low[0], high[0]

    def intervals(self, probabilities: Floats) -> tuple[Floats, Floats, Floats]:
        """As `interval` of many knees, (N, K) each."""
        classes = len(self.p0)
        if probabilities.ndim != 2 or probabilities.shape[1] != classes:
            raise ValueError(f"probabilities of the shape {probabilities.shape}, not {classes} of each knee")
        if not np.all((probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)):
            raise ValueError("probabilities that are not within 0..1")
        if classes == 2:
            low, high = self._bounds(probabilities[:, 1:], slice(1, 2))
            point = merged(low, high)
            point, low, high = (
                np.concatenate([1 - other, one], axis=1) for one, other in ((point, point), (low, high), (high, low))
            )
            return point, low, high
        low, high = self._bounds(probabilities, slice(None))
        point = merged(low, high)
        total = point.sum(axis=1, keepdims=True)
        point = np.where(total > 0, point / np.where(total > 0, total, 1), 1 / classes)
        return point, np.minimum(low, point), np.maximum(high, point)

    def _bounds(self, scores: Floats, classes: slice) -> tuple[Floats, Floats]:
        places = np.clip(np.rint((SCORES - 1) * scores), 0, SCORES - 1).astype(np.int64)
        p0, p1 = (np.take_along_axis(table[classes].T, places, axis=0) for table in (self.p0, self.p1))
        return p0, p1


def merged(p0: Floats, p1: Floats) -> Floats:
    """One probability of the two: of the least regret in log loss (Vovk, Petej and Fedorova, NIPS 2015, section 4)."""
    return np.clip(p1 / (1 - p0 + p1), p0, p1)
