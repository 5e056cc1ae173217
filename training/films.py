"""How well the knee finder crops: `val` crops laid into larger films, found again, and graded.

The films are made, not real: the crop's first and last rows go on as shafts, its sides fade out. They show what the
finder's error costs the grader, not what hospitals send.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inference.findings import Box
from inference.knees import find, settle
from inference.preprocess import PreprocessSpec, prepare
from training.crops import CropSet

Image = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Film:
    """A film and where its knee's crop lies in it."""

    pixels: Image
    truth: Box


def lay_into_film(knee: Image, generator: np.random.Generator) -> Film:
    """A film 1.8 to 3.2 times as high as the crop (S, S) and 1.3 to 1.9 times as wide, the knee not in its middle."""
    size = knee.shape[0]
    high, wide = size * generator.uniform(0.8, 2.2), size * generator.uniform(0.3, 0.9)
    top, left = int(high * generator.uniform(0.2, 0.8)), int(wide * generator.uniform(0.2, 0.8))
    tall = np.pad(knee, ((top, int(high) - top), (0, 0)), mode="edge")
    film = np.pad(tall, ((0, 0), (left, int(wide) - left)), mode="linear_ramp", end_values=0)
    return Film(np.asarray(film, np.float32), Box(float(left), float(top), float(left + size), float(top + size)))


def measure(
    knees: CropSet, template: torch.Tensor, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
    """Figures of the finder on crops and on films made from them, and the crops that it cut from the films.

    Errors are fractions of the crop's size; `crops_kept_whole` is the share of crops that are taken as they are.
    """
    generator, spec = np.random.default_rng(seed), PreprocessSpec(crop_size=knees.crops.shape[1])
    scales, offsets, scores, kept = [], [], [], []
    found = np.empty_like(knees.crops)
    for number, stored in enumerate(knees.crops):
        knee = np.asarray(stored, np.float32) / np.float32(255)
        best = find(knee, template)[0][0]
        scores.append(best.score)
        kept.append(settle(best, knee, template).width == knee.shape[0])
        film = lay_into_film(knee, generator)
        box = settle(find(film.pixels, template)[0][0], film.pixels, template)
        scales.append(box.width / film.truth.width - 1)
        offsets.append(_distance(box, film.truth) / film.truth.width)
        found[number] = (prepare(film.pixels, box, spec, mirror=False) * 255).round()
        if progress is not None:
            progress(number + 1, len(knees))
    figures = {
        "crops_kept_whole": float(np.mean(kept)),
        "lowest_score": float(np.min(scores)),
        "scale_error_percentiles_5_50_95": [float(v) for v in np.percentile(scales, [5, 50, 95])],
        "centre_error_percentiles_50_95_99": [float(v) for v in np.percentile(offsets, [50, 95, 99])],
        "missed": float(np.mean((np.asarray(offsets) > 0.25) | (np.abs(scales) > 0.4))),
    }
    return figures, found


def _distance(first: Box, second: Box) -> float:
    across = (first.left + first.right - second.left - second.right) / 2
    down = (first.top + first.bottom - second.top - second.bottom) / 2
    return float(np.hypot(across, down))
