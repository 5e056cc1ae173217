"""Is a crop like the knees that the networks have learnt from? A score of the features that the grade is made of.

Pooled features are brought to length 1. Training knees lie near a plane of few dimensions: the score is the mean of
two squared distances, each 1 for an average training knee. One is taken within the plane, in units of the deviation
along each axis (Mahalanobis; Lee et al., 2018); the other is that from the plane (the residual of ViM; Wang et al.,
2022). The mean over the bundle's networks is compared with a limit (training/unlike.py, docs/uncertainty.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from inference.errors import BundleError
from inference.findings import FilmLook, RefusalCode, Side, Step
from inference.manifest import UNLIKE_FILE

_PARTS = ("mean", "axes", "spread", "rest")


@dataclass(frozen=True, eq=False)
class Familiar:
    """What pooled features of length 1 are like on training knees, for one network; all float32.

    mean: (C,). axes: (K, C), orthonormal. spread: variance along each axis, (K,). rest: mean squared distance from the
    plane, (1,).
    """

    mean: torch.Tensor
    axes: torch.Tensor
    spread: torch.Tensor
    rest: torch.Tensor

    def score(self, pooled: torch.Tensor) -> torch.Tensor:
        """Pooled features (N, C) to scores (N,), about 1 for training knees, larger for what is unlike them."""
        away = functional.normalize(pooled.float(), dim=1) - self.mean
        along = away @ self.axes.T
        within = (along.square() / self.spread).mean(dim=1)
        beyond = (away.square().sum(dim=1) - along.square().sum(dim=1)).clamp_min(0) / self.rest
        return 0.5 * (within + beyond)

    def to(self, device: torch.device) -> "Familiar":
        """On another device."""
        return Familiar(*(getattr(self, part).to(device) for part in _PARTS))

    def stored(self, name: str) -> dict[str, torch.Tensor]:
        """Tensors for `UNLIKE_FILE`: the axes, by far the largest, in half precision."""
        halves = {"axes": self.axes.half()}
        return {f"{name}.{part}": halves.get(part, getattr(self, part)).contiguous() for part in _PARTS}

    @classmethod
    def from_stored(cls, name: str, tensors: Mapping[str, torch.Tensor], width: int) -> "Familiar":
        """Of the network `name`, whose pooled features have `width` channels.

        Raises:
            BundleError: a tensor is missing, has another shape, or values that measure nothing.
        """
        found = [tensors.get(f"{name}.{part}") for part in _PARTS]
        mean, axes, spread, rest = found
        if mean is None or axes is None or spread is None or rest is None:
            raise BundleError(f"{UNLIKE_FILE} does not describe the network {name!r}: export the bundle again.")
        count = len(axes) if axes.ndim else 0
        if [tuple(t.shape) for t in (mean, axes, spread, rest)] != [(width,), (count, width), (count,), (1,)]:
            raise BundleError(f"{UNLIKE_FILE} does not fit the network {name!r}: export the bundle again.")
        finite = all(bool(t.isfinite().all()) for t in (mean, axes, spread, rest))
        if not finite or count == 0 or not all(bool((t > 0).all()) for t in (spread, rest)):
            raise BundleError(f"{UNLIKE_FILE} of the network {name!r} is no measure: export the bundle again.")
        return cls(mean.float(), axes.float(), spread.float(), rest.float())


def unlike_training(score: float, limit: float) -> tuple[RefusalCode, str] | None:
    """The refusal of a knee whose score is above the limit."""
    if score <= limit:
        return None
    found = f"the picture is unlike the knees that the model has learnt from (score {score:.1f}, limit {limit:.1f})"
    return RefusalCode.UNLIKE_TRAINING, f"{found}, so that a grade would mean nothing."


def asked(look: FilmLook, side: Side, score: float, limit: float) -> FilmLook:
    """The look at a film with this question about one of its knees, and what became of it."""
    question = "Left knee" if side is Side.LEFT else "Right knee"
    unfit = unlike_training(score, limit)
    if unfit is None:
        step = Step(question, f"like the knees that the model has learnt from: score {score:.1f} (limit {limit:.1f}).")
        return replace(look, steps=(*look.steps, step))
    code, reason = unfit
    step = Step(question, f"{code}: {reason}", passed=False)
    knees = tuple(replace(knee, code=code) if knee.side is side else knee for knee in look.knees)
    return replace(look, steps=(*look.steps, step), knees=knees)
