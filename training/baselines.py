"""What a grader must be compared with: the majority class, and a linear model on the pixels."""

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from inference.preprocess import local_normalise
from training.crops import CropSet
from training.metrics import log_loss

Floats = npt.NDArray[np.float64]


def majority(train: CropSet, count: int) -> Floats:
    """The training set's class shares for everyone, (count, 5)."""
    shares = np.bincount(train.grades, minlength=5) / len(train)
    return np.tile(shares, (count, 1))


def linear(train: CropSet, tune: CropSet, test: CropSet, size: int = 24) -> Floats:
    """Multinomial logistic regression on locally normalised crops of `size` pixels; strength chosen on `tune`."""
    parts = [_pixels(part.crops, size) for part in (train, tune, test)]
    best: tuple[float, Floats] | None = None
    for strength in (1e-4, 1e-3, 1e-2):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        model.fit(parts[0], train.grades)
        loss = log_loss(tune.grades, model.predict_proba(parts[1]))
        if best is None or loss < best[0]:
            best = (loss, model.predict_proba(parts[2]))
    assert best is not None  # noqa: S101 - for the type checker
    return best[1]


def _pixels(crops: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.float32]:
    parts = []
    for start in range(0, len(crops), 256):
        images = torch.from_numpy(crops[start : start + 256]).float()[:, None] / 255
        values = local_normalise(images, sigma=0.08, floor=0.1, clip=3.0)
        parts.append(functional.interpolate(values, size=(size, size), mode="area").flatten(1).numpy())
    return np.concatenate(parts)
