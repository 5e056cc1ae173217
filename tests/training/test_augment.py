"""Augmentation and the contrast sweep's look-alikes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.preprocess import equalise
from tests import phantom_pixels
from training.augment import AugmentConfig, augment
from training.contrast import agreement_with_published, change_all, changes, unequalised

STILL = AugmentConfig(0, 0, 0, 0, 0, 0, 0, 0, 0)


def knees(count: int = 4) -> torch.Tensor:
    films = [phantom_pixels.knee("L", 224, 224, seed=seed) for seed in range(count)]
    return torch.from_numpy(np.stack(films).astype(np.float32))[:, None].clamp(0, 1)


def test_nothing_switched_on_changes_nothing() -> None:
    crops = knees()
    assert torch.allclose(augment(crops, STILL, torch.Generator().manual_seed(0)), crops, atol=1e-4)


def test_the_generator_decides_everything() -> None:
    crops = knees()
    first, second, third = (augment(crops, AugmentConfig(), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.allclose(first, third)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


def test_left_and_right_are_never_swapped() -> None:
    crops = torch.zeros(32, 1, 224, 224)
    crops[..., :60] = 1
    config = AugmentConfig(p_unequalise=0, p_equalise=0, p_invert=0)
    changed = augment(crops, config, torch.Generator().manual_seed(3))
    assert bool((changed[..., 20].mean(dim=(1, 2)) > changed[..., 200].mean(dim=(1, 2))).all())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_look_alike_gives_the_published_crop_back(seed: int) -> None:
    raw = phantom_pixels.knee("L", 224, 224, seed=seed).astype(np.float32).clip(0, 1)
    published = equalise(raw, 5)
    film = unequalised(published)
    again = np.corrcoef(equalise(film, 5).ravel(), published.ravel())[0, 1]
    assert again > 0.9
    assert np.corrcoef(film.ravel(), published.ravel())[0, 1] < again


def test_every_change_keeps_shape_and_range() -> None:
    crops = (knees(2)[:, 0].numpy() * 255).astype(np.uint8)
    for name, change in changes().items():
        changed = change_all(crops, change)
        assert changed.shape == crops.shape, name
        assert changed.dtype == np.uint8
        assert (name == "as published") == np.array_equal(changed, crops), name


def test_look_alikes_of_real_knees(shared_data: Path) -> None:
    import io
    import tarfile

    from PIL import Image

    crops = []
    with tarfile.open(shared_data / "kl224" / "val.tar") as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None and len(crops) < 12:
                crops.append(np.asarray(Image.open(io.BytesIO(stream.read())).convert("L")))
    assert agreement_with_published(np.stack(crops), every=1) > 0.95
