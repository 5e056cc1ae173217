"""Gradient boosting (scikit-learn) on the leading principal components of an image, beside grade and person.

The number of trees is chosen on inner patient-grouped folds: scikit-learn's own early stopping would hold back knees
whose patients it learns from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor

from training.regression_ridge import standard
from training.regression_samples import Curve, Design, Floats, Matrix, Samples, inner_folds, is_whole

COMPONENTS = 64
Loss = Literal["squared_error", "absolute_error"]


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of trees, decided on training rows: components of the standardised image, then all else as it is."""

    design: Design
    centre: Floats
    scale: Floats
    components: Matrix
    width: int

    @classmethod
    def of(cls, samples: Samples, parts: tuple[str, ...], components: int) -> "Columns":
        """Decide on these rows."""
        design, image = Design.of(samples, parts), samples.image if "image" in parts else samples.image[:, :0]
        centre, scale = standard(image, np.ones(image.shape[1]))
        count = min(components, len(image) - 1, image.shape[1])
        axes = np.zeros((0, image.shape[1]), np.float32)
        if count > 0:
            z = ((image - centre) / scale).astype(np.float32)
            axes = PCA(count, svd_solver="full" if min(z.shape) <= 500 else "covariance_eigh").fit(z).components_
        return cls(design, centre, scale, np.asarray(axes, np.float32), image.shape[1])

    def __call__(self, samples: Samples) -> Matrix:
        """(N, components + others)."""
        x = self.design.columns(samples)
        z = ((x[:, : self.width] - self.centre) / self.scale).astype(np.float32)
        return np.concatenate([z @ self.components.T, x[:, self.width :]], axis=1)


@dataclass(frozen=True, eq=False)
class FittedBoosting:
    """Of one fold: one ensemble for the mean, one for the median."""

    columns: Columns
    mean: HistGradientBoostingRegressor
    median: HistGradientBoostingRegressor
    whole: bool
    chosen: Mapping[str, Any]
    curves: Sequence[Curve] = ()

    def predict(self, samples: Samples) -> tuple[Floats, Floats]:
        """Mean and median."""
        x = self.columns(samples)
        mean, median = (np.asarray(trees.predict(x), np.float64) for trees in (self.mean, self.median))
        return mean, np.rint(median) if self.whole else median

    def final(self) -> None:
        """Trees have no place in a bundle: they would have to be unpickled."""
        return


@dataclass(frozen=True)
class BoostingHead:
    """parts: as of `RidgeHead`. trees: at most. components: of the image."""

    parts: tuple[str, ...] = ("image",)
    trees: int = 150
    components: int = COMPONENTS
    name: str = "gradient boosting"

    def fit(self, samples: Samples, target: Floats, seed: int) -> FittedBoosting:
        """Choose the numbers of trees by squared and by absolute error on inner folds, then fit on all rows.

        Raises:
            DataError: fewer than two patients.
        """
        inner, whole = inner_folds(samples, target, seed), is_whole(target)
        losses: tuple[Loss, Loss] = ("squared_error", "absolute_error")
        errors = {loss: np.zeros(self.trees) for loss in losses}
        for fold in np.unique(inner):
            rows, held = inner != fold, inner == fold
            columns = Columns.of(samples.take(rows), self.parts, self.components)
            x, seen = columns(samples.take(rows)), columns(samples.take(held))
            for loss in losses:
                stages = self._trees(loss, self.trees, seed).fit(x, target[rows]).staged_predict(seen)
                errors[loss] += [_error(stage, target[held], loss, whole=whole) for stage in stages]
        counts = {loss: int(np.argmin(errors[loss])) + 1 for loss in losses}
        columns = Columns.of(samples, self.parts, self.components)
        x = columns(samples)
        mean, median = (self._trees(loss, counts[loss], seed).fit(x, target) for loss in losses)
        chosen = {"trees": counts["squared_error"], "trees_of_median": counts["absolute_error"]}
        chosen["components"] = len(columns.components)
        return FittedBoosting(columns, mean, median, whole, chosen)

    def _trees(self, loss: Loss, count: int, seed: int) -> HistGradientBoostingRegressor:
        return HistGradientBoostingRegressor(
            loss=loss, max_iter=count, learning_rate=0.05, max_leaf_nodes=8, min_samples_leaf=20,
            l2_regularization=1.0, early_stopping=False, random_state=seed,
        )  # fmt: skip


def _error(found: Floats, target: Floats, loss: Loss, *, whole: bool) -> float:
    """Sum over knees; a median that will be rounded is judged as rounded."""
    if loss == "squared_error":
        return float(((found - target) ** 2).sum())
    return float(np.abs((np.rint(found) if whole else found) - target).sum())
