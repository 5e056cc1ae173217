"""Baselines that need no algebra: one number for everybody, one number for each Kellgren-Lawrence grade."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from training.regression_samples import UNKNOWN, Curve, Floats, Samples


@dataclass(frozen=True, eq=False)
class Table:
    """mean, median: (6,) by KL 0..4 and unknown."""

    mean: Floats
    median: Floats
    chosen: Mapping[str, Any]
    curves: Sequence[Curve] = ()

    def predict(self, samples: Samples) -> tuple[Floats, Floats]:
        """Mean and median of each knee's grade."""
        return self.mean[samples.grades], self.median[samples.grades]

    def final(self) -> None:
        """No image is looked at: nothing to export."""
        return


@dataclass(frozen=True)
class Constant:
    """The mean, or the median, of the training rows for both answers."""

    of: Literal["mean", "median"]

    @property
    def name(self) -> str:
        """As in system.json."""
        return self.of

    def fit(self, samples: Samples, target: Floats, seed: int) -> Table:
        """Learn one number."""
        value = float(np.mean(target) if self.of == "mean" else np.median(target))
        return Table(np.full(UNKNOWN + 1, value), np.full(UNKNOWN + 1, value), {"value": value})


@dataclass(frozen=True)
class ByGrade:
    """Mean and median of the training rows of the same grade; of all rows for a grade that none of them has."""

    name: str = "mean and median by grade"

    def fit(self, samples: Samples, target: Floats, seed: int) -> Table:
        """Learn six pairs of numbers."""
        mean, median = np.full(UNKNOWN + 1, np.mean(target)), np.full(UNKNOWN + 1, np.median(target))
        for grade in np.unique(samples.grades):
            here = target[samples.grades == grade]
            mean[grade], median[grade] = np.mean(here), np.median(here)
        knees = np.bincount(samples.grades, minlength=UNKNOWN + 1).tolist()
        return Table(mean, median, {"knees": knees, "mean": mean.tolist(), "median": median.tolist()})
