"""What knees look like to a run's networks, and from which score on a crop is unlike them (`inference.unlike`).

The planes are fitted to knees that the networks have learnt from, the limit is chosen on the held-back patients: LARGER
times the score that one in a hundred of their knees exceeds. The factor leaves room for knees of other patients and
films; what is no knee lies far beyond (docs/uncertainty.md).
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from inference.errors import DataError
from inference.heads import KLGrader
from inference.manifest import UNLIKE_FILE
from inference.unlike import Familiar
from training.answers import pooled_features
from training.config import MemberConfig

Networks = Sequence[tuple[MemberConfig, KLGrader]]
Crops = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]

AXES = 64
ENOUGH = 2000  # knees, for so few axes
EXCEEDED, LARGER = 0.99, 1.25


def familiar_of(pooled: torch.Tensor) -> Familiar:
    """The plane near which these features (N, C) lie, as a bundle stores it.

    Raises:
        DataError: there are fewer than ten knees.
    """
    count, width = pooled.shape
    if count < 10:
        raise DataError(f"{count} knees are too few to say what knees look like; at least 10 are needed.")
    values = functional.normalize(pooled.double(), dim=1)
    mean = values.mean(dim=0)
    away = values - mean
    # Of few knees only as many axes as leave something beside them.
    kept = min(AXES, width // 4, count // 4)
    axes = torch.linalg.svd(away, full_matrices=False).Vh[:kept].half().double()
    along = away @ axes.T
    rest = (away.square().sum(dim=1) - along.square().sum(dim=1)).clamp_min(0).mean()
    spread = along.square().mean(dim=0)
    return Familiar(mean.float(), axes.float(), spread.float().clamp_min(1e-12), rest.float()[None].clamp_min(1e-12))


def learn(networks: Networks, crops: Crops, run: Path | None = None) -> dict[str, Familiar]:
    """Of each network by its name, from training crops (N, S, S), of which ENOUGH are looked at.

    `run` is the folder of a run, which keeps what the networks see.
    """
    crops = crops[:: max(1, len(crops) // ENOUGH)]
    return {config.name: familiar_of(pooled_features(model, config, crops, run)) for config, model in networks}


def scores(networks: Networks, known: Mapping[str, Familiar], crops: Crops, run: Path | None = None) -> Scores:
    """As the bundle gives them, (N,)."""
    found = [known[config.name].score(pooled_features(model, config, crops, run)) for config, model in networks]
    return np.asarray(torch.stack(found).mean(dim=0).numpy(), np.float64)


def choose_limit(held_back: Scores) -> float:
    """From the scores of knees that were not learnt from."""
    return round(float(np.quantile(held_back, EXCEEDED)) * LARGER, 4)


def refused(values: Scores, limit: float) -> dict[str, Any]:
    """How many pictures of one kind are refused, and their scores at the 0th, 50th and 100th percentile."""
    low, middle, high = (float(value) for value in np.quantile(values, (0, 0.5, 1)))
    return {"n": len(values), "refused": float(np.mean(values > limit)), "scores": [low, middle, high]}


def stored_familiar(known: Mapping[str, Familiar]) -> dict[str, torch.Tensor]:
    """All networks' planes in one safetensors file."""
    return {key: value for name, familiar in known.items() for key, value in familiar.stored(name).items()}


def write_familiar(folder: Path, known: Mapping[str, Familiar]) -> str:
    """Keep the planes with a run; returns the SHA-256 of the file, which its figures are to name."""
    save_file(stored_familiar(known), folder / UNLIKE_FILE)
    return hashlib.sha256((folder / UNLIKE_FILE).read_bytes()).hexdigest()


def read_familiar(folder: Path, figures: Mapping[str, Any], networks: Networks) -> dict[str, Familiar]:
    """The planes that were kept with a run.

    Raises:
        DataError: they are not those that the run's figures are of.
    """
    path = folder / UNLIKE_FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != figures["sha256"]:
        raise DataError(f"{path} is not what metrics.json is about: run `genu-train evaluate --run {folder}` again.")
    tensors = load_file(path)
    return {
        config.name: Familiar.from_stored(config.name, tensors, model.backbone.features) for config, model in networks
    }
