"""A head fitted on all knees of a run, on disk: RUN/systems/NAME/final/head.json and head.safetensors.

`head.json` has

| name | meaning |
|---|---|
| format | 1 |
| kind | "ridge", "corn" or "attentive" |
| features | of the embedding store: "pooled", "layers", "fused" (each of length 1, image and description) or "patches" |
| embedding | name of the store in run.json's "embeddings" |
| grades | true: six columns follow the D image columns: KL 0, 1, 2, 3, 4, unknown, each 0 or 1 |
| target, bounds, unit | of the run; both answers are cut to the bounds |
| knees, patients | it was fitted on |
| chosen | what inner cross-validation chose |
| synthetic | random weights or made knees: its answers mean nothing |
| whole | ridge and attentive: the median is rounded to a whole number, as the target is |
| inputs | SHA-256 of what it was fitted on: the same is not fitted again |
| slope, intercept | ridge only: median = intercept + slope * (mean before it is cut) |

and `head.safetensors`, float32, with D the number of columns and z = (x - centre) / scale:

| kind | tensors | answer |
|---|---|---|
| ridge | weight (D,), bias (1,), centre (D,), scale (D,) | mean = z . weight + bias |
| corn | weight (K-1, D), bias (K-1,), centre (D,), scale (D,), levels (K,) | s_k = P(y > level k given y > level k-1) = sigmoid(z . weight_k + bias_k); P(y > level k) = s_0 ... s_k; mean of the distribution, and its least level with half of the mass |
| attentive | query (H, C), weight (2, H C), bias (2,), centre (C,), scale (C,) | tokens z (P, C); attention softmax over P of z . query_h / sqrt(C); the H pooled tokens beside each other; rows of weight: mean and median |

A knee of unknown grade has, among "fused" features, the mean of the five unit descriptions of its side.
"""  # noqa: E501 - tables

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from inference.errors import DataError

Floats = npt.NDArray[np.float64]
Tensors = Mapping[str, npt.NDArray[np.float32]]
FINAL, JSON, TENSORS = "final", "head.json", "head.safetensors"
_SHAPES = {
    "ridge": {"weight", "bias", "centre", "scale"},
    "corn": {"weight", "bias", "centre", "scale", "levels"},
    "attentive": {"query", "weight", "bias", "centre", "scale"},
}


@dataclass(frozen=True, eq=False)
class FinalHead:
    """What the module's docstring says of each field."""

    kind: str
    features: str
    embedding: str
    target: str
    bounds: tuple[float, float]
    unit: str
    knees: int
    patients: int
    tensors: Tensors
    synthetic: bool
    grades: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    whole: bool = False
    chosen: Mapping[str, Any] = field(default_factory=dict)
    inputs: str = ""

    def predict(self, features: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
        """Mean and median, (N,) each, of features (N, D), or of tokens (N, P, C) for an attentive probe."""
        t = {name: np.asarray(values, np.float64) for name, values in self.tensors.items()}
        z = (np.asarray(features, np.float64) - t["centre"]) / t["scale"]
        if self.kind == "ridge":
            mean = z @ t["weight"] + t["bias"][0]
            median = self.intercept + self.slope * mean
        elif self.kind == "corn":
            mean, median = corn_answers(z @ t["weight"].T + t["bias"], t["levels"])
        else:
            mean, median = _attend(z, t)
        median = np.rint(median) if self.whole else median
        return np.clip(mean, *self.bounds), np.clip(median, *self.bounds)


def corn_answers(logits: Floats, levels: Floats) -> tuple[Floats, Floats]:
    """Mean and median of the distribution that conditional logits (N, K-1) give over `levels` (K,)."""
    above = np.cumprod(1 / (1 + np.exp(-np.clip(logits, -50, 50))), axis=1)
    mean = levels[0] + above @ np.diff(levels)
    return mean, levels[(above > 0.5).sum(axis=1)]


def _attend(z: Floats, t: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    scores = np.einsum("npc,hc->nhp", z, t["query"]) / np.sqrt(z.shape[2])
    scores = np.exp(scores - scores.max(axis=2, keepdims=True))
    pooled = np.einsum("nhp,npc->nhc", scores / scores.sum(axis=2, keepdims=True), z).reshape(len(z), -1)
    both = pooled @ t["weight"].T + t["bias"]
    return both[:, 0], both[:, 1]


def write_head(folder: Path, head: FinalHead) -> None:
    """Write into RUN/systems/NAME/final; head.json last, with it the folder is finished."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON).unlink(missing_ok=True)
    save_file({name: np.ascontiguousarray(v, np.float32) for name, v in head.tensors.items()}, folder / TENSORS)
    values = {name: value for name, value in asdict(head).items() if name != "tensors"}
    (folder / JSON).write_text(json.dumps({"format": 1, **values}, indent=2) + "\n", encoding="utf-8")


def read_head(folder: Path) -> FinalHead:
    """What `write_head` wrote.

    Raises:
        DataError: it is not there, not finished, or of another version.
    """
    try:
        values = json.loads((folder / JSON).read_text("utf-8"))
        tensors = load_file(folder / TENSORS)
        if values.pop("format") != 1 or set(tensors) != _SHAPES[values["kind"]]:
            raise ValueError("it is of another version")  # noqa: TRY301
        low, high = values.pop("bounds")
        return FinalHead(tensors=tensors, bounds=(float(low), float(high)), **values)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{folder} holds no finished head ({error}): run `genu-train fit` again.") from error
