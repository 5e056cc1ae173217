"""Finding knees on films made from phantoms, and on real ones where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference.findings import Box
from inference.knees import find, make_template, settle
from inference.manifest import SHIPPED


def drawn_knee(size: int = 224, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    down, across = np.mgrid[-1 : 1 : complex(size), -1 : 1 : complex(size)]
    bone = 1 / (1 + np.exp(-(0.8 - np.abs(across)) * 14))
    gap = np.exp(-(((down - 0.05 - 0.05 * np.cos(6 * across)) / 0.05) ** 2))
    image = 0.15 + 0.55 * bone * (1 - 0.8 * gap) + 0.15 * np.exp(-(((np.abs(down) - 0.2) / 0.06) ** 2)) * bone
    return np.clip(image + generator.normal(0, 0.01, image.shape), 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def template() -> torch.Tensor:
    return make_template((np.stack([drawn_knee(seed=s) for s in range(4)]) * 255).astype(np.uint8))


def film_with(knee: np.ndarray, rows: int, columns: int, top: int, left: int) -> np.ndarray:
    """The knee on a limb that goes on above and below it."""
    film = np.full((rows, columns), 0.05, np.float32)
    size = knee.shape[0]
    film[:, left : left + size] = np.concatenate(
        [np.repeat(knee[:1], top, 0), knee, np.repeat(knee[-1:], rows - top - size, 0)]
    )
    return film


@pytest.mark.parametrize(("top", "left"), [(150, 40), (260, 10), (200, 120)])
def test_a_knee_in_a_film_is_found(template: torch.Tensor, top: int, left: int) -> None:
    film = film_with(drawn_knee(seed=9), 700, 400, top, left)
    best = find(film, template)[0][0]
    centre = ((best.box.left + best.box.right) / 2, (best.box.top + best.box.bottom) / 2)
    assert centre == pytest.approx((left + 112, top + 112), abs=0.08 * 224)
    assert best.box.width == pytest.approx(224, rel=0.2)
    assert best.score > 0.4


def test_both_halves_are_searched_by_themselves(template: torch.Tensor) -> None:
    left, right = film_with(drawn_knee(seed=1), 600, 320, 150, 40), film_with(drawn_knee(seed=2), 600, 320, 220, 60)
    found = find(np.concatenate([left, right], axis=1), template, ((0.0, 0.5), (0.5, 1.0)))
    centres = [(f[0].box.left + f[0].box.right) / 2 for f in found]
    assert centres == pytest.approx([152, 320 + 172], abs=25)


def test_a_crop_is_taken_as_a_whole(template: torch.Tensor) -> None:
    knee = drawn_knee(seed=3)
    assert settle(find(knee, template)[0][0], knee, template) == Box(0, 0, 224, 224)


def test_nothing_is_found_in_noise_or_on_an_empty_film(template: torch.Tensor) -> None:
    noise = np.random.default_rng(0).random((400, 300)).astype(np.float32)
    for film in (noise, np.full((300, 300), 0.5, np.float32)):
        assert all(found.score < 0.2 for found in find(film, template)[0])


def test_mean_knee_says_nothing_about_the_side(template: torch.Tensor) -> None:
    assert torch.allclose(template, template.flip(-1), atol=1e-6)
    assert float(template.norm()) == pytest.approx(1, abs=1e-5)


def test_both_knees_of_the_real_film_are_found(shared_data: Path) -> None:
    from inference.bundle import Bundle

    path = shared_data / "radiographs" / "mrkr_bilateral_frontal_mirrored.png"
    film = np.asarray(Image.open(path).convert("L"), np.float32) / 255
    shipped = Bundle.load(SHIPPED, "cpu").template
    found = [match[0] for match in find(film, shipped, ((0.0, 0.5), (0.5, 1.0)))]
    # The joint spaces lie at about (195, 318) and (402, 322) of the 512 pixels.
    for match, (x, y) in zip(found, [(195, 318), (402, 322)], strict=True):
        assert (match.box.left + match.box.right) / 2 == pytest.approx(x, abs=15)
        assert (match.box.top + match.box.bottom) / 2 == pytest.approx(y, abs=20)
        assert 115 < match.box.width < 165
