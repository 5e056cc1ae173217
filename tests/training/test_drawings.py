"""Drawn radiographs: decided by their generator, in range, at any size, and visible where they should be."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from tests import phantom_pixels
from training import drawings, metalwork, sheets
from training.sheets import Image

Draw = Callable[[tuple[int, int], np.random.Generator, Image | None], Image]
Change = Callable[[Image, np.random.Generator], Image]
DRAWN: list[Draw] = [drawings.lateral_knee, drawings.axial_knee, drawings.elsewhere]
CHANGED: list[Change] = [metalwork.with_implant, metalwork.with_cast, drawings.scrambled]


def knee(side: int = 224) -> Image:
    film = phantom_pixels.knee("L", 224, 224)
    return np.clip(cv2.resize(film, (side, side)), 0, 1).astype(np.float32)


@pytest.mark.parametrize("draw", DRAWN)
@pytest.mark.parametrize("textured", [False, True])
def test_drawings_are_films_decided_by_their_generator(draw: Draw, textured: bool) -> None:
    texture = knee() if textured else None
    for seed in range(20):
        first, again = (draw((200, 160), np.random.default_rng(seed), texture) for _ in range(2))
        assert np.array_equal(first, again)
        assert first.shape == (200, 160) and first.dtype == np.float32
        assert first.min() >= 0 and first.max() <= 1
        assert np.ptp(first) > 0.3
        assert not np.allclose(first, draw((200, 160), np.random.default_rng(seed + 100), texture), atol=0.2)


@pytest.mark.parametrize("draw", DRAWN)
@pytest.mark.parametrize("shape", [(64, 64), (1000, 1000), (64, 100)])
def test_drawings_work_at_any_size(draw: Draw, shape: tuple[int, int]) -> None:
    for seed in range(8):
        film = draw(shape, np.random.default_rng(seed), knee())
        assert film.shape == shape
        assert np.isfinite(film).all() and np.ptp(film) > 0.3


def test_a_drawing_looks_the_same_at_any_resolution() -> None:
    for seed in range(6):
        coarse, fine = (drawings.lateral_knee((s, s), np.random.default_rng(seed), None) for s in (128, 512))
        small = cv2.resize(fine, (128, 128), interpolation=cv2.INTER_AREA)
        assert np.corrcoef(cv2.blur(coarse, (7, 7)).ravel(), cv2.blur(small, (7, 7)).ravel())[0, 1] > 0.9


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("side", [64, 224, 1000])
def test_changed_crops_are_crops_decided_by_their_generator(change: Change, side: int) -> None:
    crop, same = knee(side), 0
    for seed in range(30 if side < 1000 else 8):
        first, again, other = (change(crop.copy(), np.random.default_rng(s)) for s in (seed, seed, seed + 100))
        assert np.array_equal(first, again)
        assert first.shape == crop.shape and first.dtype == np.float32
        assert first.min() >= 0 and first.max() <= 1
        same += np.allclose(first, other, atol=0.05)
        assert np.abs(first - crop).mean() > 0.01
    assert same <= 2
    assert np.array_equal(crop, knee(side)), "the crop given is left alone"


def test_metal_is_brighter_than_all_bone() -> None:
    crop = np.clip(knee() * 2, 0, 1).astype(np.float32)
    assert crop.max() == 1
    for seed in range(60):
        film = metalwork.with_implant(crop, np.random.default_rng(seed))
        metal = film > 0.92
        assert 0.001 < metal.mean() < 0.6, seed
        assert np.median(film[~metal]) < 0.85


def test_metal_leaves_most_of_the_knee_where_it_was() -> None:
    crop = knee()
    kept = [
        np.corrcoef(crop.ravel(), metalwork.with_implant(crop, np.random.default_rng(s)).ravel())[0, 1]
        for s in range(40)
    ]
    assert np.median(kept) > 0.6


def test_a_cast_lies_on_films_that_are_not_square() -> None:
    film = phantom_pixels.bilateral(200, 320)
    for seed in range(20):
        assert metalwork.with_cast(film, np.random.default_rng(seed)).shape == film.shape


def test_the_joint_gap_is_found() -> None:
    assert 0.44 < drawings.joint_row(knee()) / 224 < 0.6


def test_a_texture_goes_into_the_bones_alone() -> None:
    noise = np.random.default_rng(0).random((224, 224)).astype(np.float32)
    frame = np.array([[100.0, 0, 100], [0, 100, 100]])
    films = []
    for texture in (noise, np.full((224, 224), 0.5, np.float32)):
        drawn = sheets.sheet((200, 200), np.random.default_rng(3), frame, texture)
        drawn.bone(sheets.disc(0, 0, 0.5))
        films.append(drawn.film)
    difference = np.abs(films[0] - films[1])
    assert difference[60:140, 60:140].mean() > 0.005
    assert difference[:40].max() == 0


def test_tiles_stretches_and_corners_hold_no_whole_knee() -> None:
    crop = knee()
    for seed in range(60):
        film = drawings.scrambled(crop, np.random.default_rng(seed))
        assert np.corrcoef(film.ravel(), crop.ravel())[0, 1] < 0.9, seed
