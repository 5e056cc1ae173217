"""Heads that turn frozen features into a score: what `genu-train fit` leaves as final heads, in double precision.

With D columns, K levels, P tokens of C columns, H queries, and z = (x - centre) / scale:

    ridge      weight (D,), bias (1,)                        score = z . weight + bias
    corn       weight (K-1, D), bias (K-1,), levels (K,)     P(y > level k | y > level k-1) = sigmoid(z . weight_k +
               bias_k) (Shi, Cao and Raschka 2021); score = mean of the distribution over the levels
    attentive  query (H, C), weight (2, H C), bias (2,)      tokens pooled by softmax of z . query_h / sqrt(C); the
               first row of weight gives the mean
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.errors import BundleError

Floats = npt.NDArray[np.float64]
_SHAPES = {
    "ridge": {"weight": 1, "bias": 1, "centre": 1, "scale": 1},
    "corn": {"weight": 2, "bias": 1, "centre": 1, "scale": 1, "levels": 1},
    "attentive": {"query": 2, "weight": 2, "bias": 1, "centre": 1, "scale": 1},
}


@dataclass(frozen=True, eq=False)
class ScoreHead:
    """`kind` of the module's table and its tensors; answers are cut to `bounds`."""

    kind: str
    tensors: Mapping[str, Floats]
    bounds: tuple[float, float]

    @classmethod
    def of(cls, kind: str, tensors: Mapping[str, npt.NDArray[np.floating]], bounds: tuple[float, float]) -> "ScoreHead":
        """Check names and shapes, that all values are finite, and scales above 0.

        Raises:
            BundleError: they are not those of the kind.
        """
        expected = _SHAPES.get(kind, {})
        if not expected or {name: values.ndim for name, values in tensors.items()} != expected:
            shapes = {name: values.shape for name, values in tensors.items()}
            raise BundleError(f"a head of the kind {kind!r} with the tensors {shapes} is not known: export it again.")
        if not all(np.isfinite(values).all() for values in tensors.values()):
            raise BundleError(f"the {kind} head holds values that are not finite: export it again.")
        if not _fits(kind, tensors) or not (tensors["scale"] > 0).all():
            shapes = {name: values.shape for name, values in tensors.items()}
            raise BundleError(f"the {kind} head with the tensors {shapes} does not fit itself: export it again.")
        return cls(kind, {name: np.asarray(values, np.float64) for name, values in tensors.items()}, bounds)

    @property
    def columns(self) -> int:
        """How many columns its features have."""
        return int(self.tensors["centre"].shape[0])

    def scores(self, features: npt.NDArray[np.floating]) -> Floats:
        """Scores (N,) of features (N, D), or of tokens (N, P, C) for an attentive probe.

        Raises:
            BundleError: the features have another width.
        """
        if features.shape[-1] != self.columns:
            raise BundleError(
                f"the head takes {self.columns} columns, the backbone gives {features.shape[-1]}: export it again."
            )
        t = self.tensors
        z = (np.asarray(features, np.float64) - t["centre"]) / t["scale"]
        if self.kind == "ridge":
            found = z @ t["weight"] + t["bias"][0]
        elif self.kind == "corn":
            logits = np.clip(z @ t["weight"].T + t["bias"], -50, 50)
            above = np.cumprod(1 / (1 + np.exp(-logits)), axis=1)
            found = t["levels"][0] + above @ np.diff(t["levels"])
        else:
            found = _attended(z, t) @ t["weight"][0] + t["bias"][0]
        return np.asarray(np.clip(found, *self.bounds), np.float64)


def _fits(kind: str, tensors: Mapping[str, npt.NDArray[np.floating]]) -> bool:
    """Whether the shapes are those of the module's table; the axes have been counted."""
    shapes = {name: values.shape for name, values in tensors.items()}
    width = shapes["centre"][0]
    expected: dict[str, tuple[int, ...]] = {"weight": (width,), "bias": (1,)}
    if kind == "corn":
        levels = shapes["levels"][0]
        expected = {"weight": (levels - 1, width), "bias": (levels - 1,)}
    if kind == "attentive":
        queries = shapes["query"][0]
        expected = {"query": (queries, width), "weight": (2, queries * width), "bias": (2,)}
    return width > 0 and all(shapes[name] == shape for name, shape in {**expected, "scale": (width,)}.items())


def _attended(z: Floats, t: Mapping[str, Floats]) -> Floats:
    """The pooled tokens of all queries beside each other, (N, H C)."""
    weights = np.einsum("npc,hc->nhp", z, t["query"]) / np.sqrt(z.shape[2])
    weights = np.exp(weights - weights.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    return np.asarray(np.einsum("nhp,npc->nhc", weights, z).reshape(len(z), -1))
