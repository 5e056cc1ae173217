"""Films made from crops: the knee lies where the film says it does, and the finder's figures mean what they say."""

import numpy as np
import torch

from inference.knees import make_template
from tests import phantom_pixels
from training.crops import CropSet
from training.films import lay_into_film, measure


def knees(count: int) -> CropSet:
    films = [phantom_pixels.knee("L", 336, 336, seed=seed)[50:274, 56:280] for seed in range(count)]
    crops = (np.clip(np.stack(films), 0, 1) * 255).astype(np.uint8)
    names = tuple(str(number) for number in range(count))
    return CropSet(crops, np.zeros(count, np.int64), names, ("L",) * count, names)


def test_the_knee_lies_in_its_box() -> None:
    knee = knees(1).crops[0].astype(np.float32) / 255
    film = lay_into_film(knee, np.random.default_rng(1))
    top, left = int(film.truth.top), int(film.truth.left)
    assert np.array_equal(film.pixels[top : top + 224, left : left + 224], knee)


def test_a_template_of_the_same_knees_finds_them() -> None:
    data = knees(6)
    figures, found = measure(data, make_template(data.crops))
    assert figures["missed"] == 0
    assert figures["crops_kept_whole"] == 1
    assert np.corrcoef(found[0].ravel(), data.crops[0].ravel())[0, 1] > 0.8


def test_a_template_of_nothing_misses() -> None:
    template = torch.randn(48, 48, generator=torch.Generator().manual_seed(0))
    figures, _ = measure(knees(6), (template - template.mean()) / template.norm())
    assert figures["missed"] > 0.3
