"""Ordinal regression by conditional probabilities: CORN (Shi, Cao and Raschka, arXiv 2111.08851), here linear.

Level by level it learns P(y > level k given y > level k-1) from the knees that got so far; the products are a
distribution over the levels. Its mean has least squared error, its median least absolute error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from inference.errors import UsageError
from training.final_head import corn_answers
from training.regression_ridge import standard
from training.regression_samples import Curve, Design, Floats, Ints, Matrix, Samples, inner_folds

STRENGTHS = (1.0, 0.1, 0.03, 0.01, 0.001)
MOST_LEVELS = 21
_PRIOR = 1e-3  # keeps the bias of a level that nobody, or everybody, passes
_STEPS = 40
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Weights:
    """weight (K-1, D), bias (K-1,) on standardised columns."""

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True, eq=False)
class FittedCorn:
    """Of one fold."""

    design: Design
    centre: Floats
    scale: Floats
    weights: Weights
    levels: Floats
    chosen: Mapping[str, Any]
    curves: Sequence[Curve] = ()

    def predict(self, samples: Samples) -> tuple[Floats, Floats]:
        """Mean and median of each knee's distribution."""
        z = _standardised(self.design.columns(samples), self.centre, self.scale)
        return corn_answers(_logits(z, self.weights), self.levels)

    def final(self) -> Mapping[str, Any] | None:
        """Fields of a `FinalHead`."""
        if "people" in self.design.parts or "image" not in self.design.parts:
            return None
        tensors = {
            "weight": self.weights.weight.numpy(),
            "bias": self.weights.bias.numpy(),
            "centre": self.centre,
            "scale": self.scale,
            "levels": self.levels,
        }
        return {"kind": "corn", "tensors": tensors}


@dataclass(frozen=True)
class CornHead:
    """parts: as of `RidgeHead`. bounds: of the target; the integers within are the levels.

    A target between two integers (the mean of scores that contradict one another) counts as the nearest, a half as the
    even one.
    """

    parts: tuple[str, ...]
    bounds: tuple[float, float]
    strengths: tuple[float, ...] = field(default=STRENGTHS)
    name: str = "corn"

    def fit(self, samples: Samples, target: Floats, seed: int) -> FittedCorn:
        """Choose the penalty by the ranked probability score on inner folds, then fit on all rows.

        Raises:
            UsageError: the target has too many levels; DataError: fewer than two patients.
        """
        levels = self.levels()
        ranks = np.rint(target - levels[0]).astype(np.int64)
        inner = inner_folds(samples, target, seed)
        scores = np.zeros(len(self.strengths))
        for fold in np.unique(inner):
            rows, held = samples.take(inner != fold), samples.take(inner == fold)
            design = Design.of(rows, self.parts)
            columns = design.columns(rows)
            centre, scale = standard(columns, design.ease(rows))
            path = corn_path(_standardised(columns, centre, scale), ranks[inner != fold], len(levels), self.strengths)
            z = _standardised(design.columns(held), centre, scale)
            scores += [_ranked_score(_logits(z, weights), ranks[inner == fold]) for weights in path]
        best = int(np.argmin(scores))  # of equal ones the first, which is the strongest
        design = Design.of(samples, self.parts)
        columns = design.columns(samples)
        centre, scale = standard(columns, design.ease(samples))
        z = _standardised(columns, centre, scale)
        weights = corn_path(z, ranks, len(levels), self.strengths[: best + 1])[-1]
        chosen = {"strength": self.strengths[best], "inner_ranked_score": float(scores[best] / len(samples))}
        return FittedCorn(design, centre, scale, weights, levels, chosen)

    def levels(self) -> Floats:
        """The integers within the bounds, (K,).

        Raises:
            UsageError: they are too many, or fewer than two.
        """
        low, high = int(np.ceil(self.bounds[0])), int(np.floor(self.bounds[1]))
        if not 2 <= high - low + 1 <= MOST_LEVELS:
            raise UsageError(
                f"--heads corn: {self.bounds[0]:g} to {self.bounds[1]:g} has {high - low + 1} integers, "
                f"2 to {MOST_LEVELS} are levels that can be told apart: take another head."
            )
        return np.arange(low, high + 1, dtype=np.float64)


def corn_path(z: torch.Tensor, ranks: Ints, levels: int, strengths: Sequence[float]) -> list[Weights]:
    """Weights for each penalty, one begun where the one before it ended; the loss is convex.

    Args:
        z: (N, D) float32, standardised. ranks: (N,), 0..levels-1. strengths: of strength / 2 |weight|^2 per knee.
    """
    rank = torch.from_numpy(ranks)[:, None]
    steps = torch.arange(levels - 1)
    reached, passed = (rank >= steps).float(), (rank > steps).float()
    start = torch.logit((passed.sum(0) + 0.5) / (reached.sum(0) + 1.0))
    weight = torch.zeros(levels - 1, z.shape[1], requires_grad=True)
    bias = start.clone().requires_grad_(True)
    found = []
    for strength in strengths:
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=_STEPS, tolerance_change=1e-7, line_search_fn="strong_wolfe"
        )

        def loss(strength: float = strength, solver: torch.optim.LBFGS = solver) -> torch.Tensor:
            solver.zero_grad()
            losses = binary_cross_entropy_with_logits(z @ weight.T + bias, passed, weight=reached, reduction="sum")
            value = losses / len(z) + strength / 2 * weight.square().sum() + _PRIOR / 2 * (bias - start).square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        solver.step(loss)  # type: ignore[no-untyped-call]
        found.append(Weights(weight.detach().clone(), bias.detach().clone()))
    return found


def _standardised(x: Matrix, centre: Floats, scale: Floats) -> torch.Tensor:
    result = np.empty(x.shape, np.float32)
    for start in range(0, len(x), _ROWS):
        result[start : start + _ROWS] = (x[start : start + _ROWS] - centre) / scale
    return torch.from_numpy(result)


def _logits(z: torch.Tensor, weights: Weights) -> Floats:
    return np.asarray((z @ weights.weight.T + weights.bias).numpy(), np.float64)


def _ranked_score(logits: Floats, ranks: Ints) -> float:
    """Sum over knees of the ranked probability score."""
    above = np.cumprod(1 / (1 + np.exp(-np.clip(logits, -50, 50))), axis=1)
    truth = ranks[:, None] > np.arange(logits.shape[1])
    return float(((above - truth) ** 2).sum())
