"""What a bundle's conformal sets and its score of unlike knees are worth, on knees it has not learnt from.

The bundle is loaded as the service loads it; knees go through what the service does after it has found them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from inference.bundle import Bundle
from inference.errors import DataError
from inference.preprocess import equalise_flat
from training.conformal import set_figures
from training.dicomize import LabelledImage
from training.strangers import drawn_strangers, real_strangers
from training.unlike import refused

Crops = npt.NDArray[np.uint8]
Image = npt.NDArray[np.float32]
Progress = Callable[[str], None]
_VARIED = 200  # knees of each variation


def measure(
    bundle: Bundle, crops: Crops, rows: Sequence[LabelledImage], others: Sequence[Path], progress: Progress
) -> dict[str, Any]:
    """Figures of a bundle.

    Args:
        bundle: with conformal sets and a limit for unlike knees.
        crops: (N, S, S), each knee as a left one, bright bone.
        rows: what each one is.
        others: folders with DICOM images that show no frontal knee; none for drawn ones only.
        progress: told what is being measured.

    Raises:
        DataError: the bundle has no sets or no limit.
    """
    manifest = bundle.manifest
    if manifest.conformal is None or manifest.unlike_limit is None:
        raise DataError(f"{manifest.name} {manifest.version} carries no conformal sets: evaluate and export it again.")
    limit = manifest.unlike_limit
    progress(f"{len(crops)} knees")
    probabilities, scores = answers(bundle, crops)
    truth = np.asarray([row.kl for row in rows], np.int64)
    sides, subjects = [str(row.side) for row in rows], [row.subject for row in rows]
    figures = set_figures(manifest.conformal, probabilities, truth, sides, subjects, manifest.decoder)
    results: dict[str, Any] = {
        "bundle": f"{manifest.name} {manifest.version} ({manifest.digest[:12]})",
        "limit": limit,
        "sets": figures,
        "knees": refused(scores, limit),
        "varied": {},
        "strangers": {},
    }
    some = crops[np.sort(np.random.default_rng(0).permutation(len(crops))[:_VARIED])]
    for name, change in variations().items():
        progress(name)
        changed = np.stack([_changed(bundle, crop, change, number) for number, crop in enumerate(some)])
        results["varied"][name] = refused(answers(bundle, changed)[1], limit)
    strangers = drawn_strangers(crops, bundle.spec, min(40, len(crops)))
    for name, pictures in {**strangers, **(real_strangers(others, bundle.spec) if others else {})}.items():
        progress(name)
        results["strangers"][name] = refused(answers(bundle, pictures)[1], limit)
    return results


def answers(bundle: Bundle, crops: Crops) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Probabilities (N, 5), each row summing to 1, and scores of unlikeness (N,) of uint8 crops."""
    found = [
        bundle.answer(torch.from_numpy(crops[start : start + 32]).float()[:, None] / 255)
        for start in range(0, len(crops), 32)
    ]
    chances = torch.cat([answer.probabilities for answer in found]).double()
    scores = [answer.unlike for answer in found if answer.unlike is not None]
    return (chances / chances.sum(dim=1, keepdim=True)).numpy(), torch.cat(scores).double().numpy()


def variations() -> Mapping[str, Callable[[Image, np.random.Generator], Image]]:
    """Ordinary differences between films of the same knee; float (S, S), 0..1."""
    return {
        "gamma 0.5": lambda crop, _: crop ** np.float32(0.5),
        "gamma 2": lambda crop, _: crop**2,
        "a third of the range": lambda crop, _: 0.35 + 0.3 * crop,
        "noise, deviation 0.05": lambda crop, rng: _noisy(crop, rng, 0.05),
        "noise, deviation 0.2": lambda crop, rng: _noisy(crop, rng, 0.2),
        "blurred by 2 pixels": lambda crop, _: np.asarray(cv2.GaussianBlur(crop, (0, 0), 2)),
        "tilted by 10 degrees": lambda crop, _: _moved(crop, degrees=10),
        "tilted by 20 degrees": lambda crop, _: _moved(crop, degrees=20),
        "a fifth larger": lambda crop, _: _moved(crop, factor=1.2),
        "a fifth smaller": lambda crop, _: _moved(crop, factor=0.8),
        "a tenth beside": lambda crop, _: _moved(crop, across=0.1),
        "three tenths below": lambda crop, _: _moved(crop, down=0.3),
        "grey values inverted": lambda crop, _: 1 - crop,
        "the wrong side": lambda crop, _: np.ascontiguousarray(crop[:, ::-1]),
    }


def _changed(bundle: Bundle, crop: Crops, change: Callable[[Image, np.random.Generator], Image], number: int) -> Crops:
    """A changed crop, equalised where a film's crop of its flatness would be."""
    values = change(crop.astype(np.float32) / np.float32(255), np.random.default_rng(number))
    seen = equalise_flat(np.ascontiguousarray(np.clip(values, 0, 1), np.float32), bundle.spec)
    return np.asarray((seen * 255).round(), np.uint8)


def _noisy(crop: Image, rng: np.random.Generator, deviation: float) -> Image:
    return np.asarray(crop + deviation * rng.standard_normal(crop.shape, dtype=np.float32), np.float32)


def _moved(crop: Image, *, degrees: float = 0, factor: float = 1, across: float = 0, down: float = 0) -> Image:
    size = crop.shape[0]
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), degrees, factor)
    matrix[:, 2] += (across * size, down * size)
    return np.asarray(cv2.warpAffine(crop, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE), np.float32)
