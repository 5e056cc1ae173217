"""The one preprocessing: geometry by hand-computed places, contrast by invariance."""

import numpy as np
import pytest
import torch

from inference.errors import BundleError
from inference.findings import Box, Side
from inference.preprocess import (
    PreprocessSpec,
    apply,
    crop,
    equalise,
    equalise_flat,
    local_contrast,
    local_normalise,
    prepare,
    whole,
)


def spot(rows: int, columns: int, row: int, column: int, size: int = 6) -> np.ndarray:
    image = np.zeros((rows, columns), np.float32)
    image[row : row + size, column : column + size] = 1
    return image


def centre_of_mass(image: np.ndarray) -> tuple[float, float]:
    rows, columns = np.indices(image.shape) + 0.5
    return float((rows * image).sum() / image.sum()), float((columns * image).sum() / image.sum())


def test_crop_puts_a_spot_where_the_box_says() -> None:
    image = spot(400, 300, row=197, column=97)  # centre (200, 100)
    cropped = crop(image, Box(left=50, top=100, right=250, bottom=300), 100, mirror=False)
    assert cropped.shape == (100, 100)
    assert centre_of_mass(cropped) == pytest.approx((50, 25), abs=0.1)


def test_crop_mirrors_columns_only() -> None:
    image = spot(400, 300, row=147, column=97)
    cropped = crop(image, Box(50, 100, 250, 300), 100, mirror=True)
    assert centre_of_mass(cropped) == pytest.approx((25, 75), abs=0.1)


def test_crop_repeats_the_edge_outside_of_the_image() -> None:
    image = np.full((50, 50), 0.7, np.float32)
    cropped = crop(image, Box(-25, -25, 75, 75), 64, mirror=False)
    assert np.allclose(cropped, 0.7, atol=1e-6)


def test_crop_beyond_the_image_is_empty_not_an_error() -> None:
    assert crop(np.ones((50, 50), np.float32), Box(60, 60, 90, 90), 32, mirror=False).max() == 0


def test_whole_is_square_and_centred() -> None:
    assert whole(100, 60) == Box(-20, 0, 80, 100)


@pytest.mark.parametrize(("gain", "offset"), [(0.3, 0.35), (0.9, 0.0), (0.05, 0.5)])
def test_local_normalisation_ignores_linear_contrast(gain: float, offset: float) -> None:
    image = torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(1))
    spec = PreprocessSpec()
    assert torch.allclose(apply(image, spec), apply(image * gain + offset, spec), atol=2e-3)


def test_local_normalisation_removes_an_illumination_field() -> None:
    generator = torch.Generator().manual_seed(2)
    image = 0.5 + 0.1 * torch.randn(1, 1, 224, 224, generator=generator)
    tilted = image + 0.4 * torch.linspace(-1, 1, 224)
    plain, other = (apply(x, PreprocessSpec())[0, 0].flatten() for x in (image, tilted))
    assert float(torch.corrcoef(torch.stack([plain, other]))[0, 1]) > 0.98


def test_constant_crop_gives_nothing_but_rounding() -> None:
    assert float(local_normalise(torch.full((1, 1, 64, 64), 0.4), sigma=0.1, floor=0.1, clip=3).abs().max()) < 0.02


def test_apply_has_the_shape_and_range_of_its_specification() -> None:
    spec = PreprocessSpec(band=(0.25, 0.75), size=(64, 128))
    result = apply(torch.rand(3, 1, 224, 224), spec)
    assert result.shape == (3, 3, 64, 128)
    assert float(result.abs().max()) <= 1


def test_apply_does_not_mix_the_images_of_a_batch() -> None:
    images = torch.rand(4, 1, 224, 224)
    assert torch.allclose(apply(images, PreprocessSpec())[2:3], apply(images[2:3], PreprocessSpec()), atol=1e-5)


def test_specification_survives_json() -> None:
    spec = PreprocessSpec(canonical_side=Side.RIGHT, band=(0.1, 0.9), size=(10, 20))
    assert PreprocessSpec.from_json(spec.to_json()) == spec


def test_specification_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(BundleError, match="export the bundle again"):
        PreprocessSpec.from_json({**PreprocessSpec().to_json(), "gamma": 2})


def flat_film(seed: int = 0) -> np.ndarray:
    """A bright limb with faint detail, as before equalisation."""
    across = np.linspace(-1, 1, 224)
    detail = np.random.default_rng(seed).normal(0, 0.01, (224, 224))
    return np.asarray(0.1 + 0.5 * np.exp(-((across / 0.6) ** 4)) + detail, np.float32)


def test_a_flat_film_is_equalised_and_an_equalised_one_is_left_alone() -> None:
    film = flat_film()
    spec = PreprocessSpec()
    assert local_contrast(film) < spec.flat_below
    equalised = equalise_flat(film, spec)
    assert local_contrast(equalised) > spec.flat_below
    assert np.array_equal(equalise_flat(equalised, spec), equalised)
    assert np.array_equal(equalise_flat(film, PreprocessSpec(flat_below=0)), film)


@pytest.mark.parametrize(("gain", "offset"), [(0.2, 0.0), (0.5, 0.4)])
def test_equalisation_does_not_depend_on_linear_contrast(gain: float, offset: float) -> None:
    film = flat_film(1)
    assert local_contrast(film * gain + offset) == pytest.approx(local_contrast(film), abs=1e-3)
    assert np.mean(np.abs(equalise(film * gain + offset, 5) - equalise(film, 5))) < 0.01


def test_equalisation_and_mirroring_can_be_exchanged() -> None:
    film = flat_film(2)
    box = Box(0, 0, 224, 224)
    mirrored = prepare(film, box, PreprocessSpec(), mirror=True)
    plain = prepare(film, box, PreprocessSpec(), mirror=False)
    assert np.mean(np.abs(mirrored - plain[:, ::-1])) < 0.03
    assert np.mean(np.abs(mirrored - plain)) > 0.05


def test_a_constant_crop_is_not_equalised() -> None:
    assert local_contrast(np.full((224, 224), 0.3, np.float32)) == 1.0
