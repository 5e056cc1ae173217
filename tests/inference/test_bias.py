"""N4: the same field as SimpleITK's filter, and a planted one found again."""

import numpy as np
import pytest

from inference.bias import BiasSpec, Volume, correct_bias, otsu
from tests.bench.bench_n4 import difference, generated, simple_itk


@pytest.fixture(scope="module")
def volumes() -> tuple[Volume, Volume]:
    return generated(8, 64)


def test_the_same_as_simpleitk_at_full_size() -> None:
    """Not only alike: iteration by iteration the same method (noise and rounding stay)."""
    _, biased = generated(6, 40)
    inside = biased > otsu(biased)
    reference = simple_itk(biased, inside, shrink=1)
    found = correct_bias(biased, BiasSpec(shrink=1), inside)
    assert difference(found, reference, inside) < 0.003
    assert np.mean(np.abs(found - reference)[inside] / reference[inside]) < 0.005, "no factor taken out"
    assert difference(biased, reference, inside) > 0.05, "the test must be able to fail"


def test_a_planted_field_is_taken_out(volumes: tuple[Volume, Volume]) -> None:
    plain, biased = volumes
    inside = biased > otsu(biased)
    before, after = difference(biased, plain, inside), difference(correct_bias(biased, BiasSpec()), plain, inside)
    assert after < before / 2.5
    shrunk = correct_bias(biased, BiasSpec(fewest=32, fewest_slices=4))
    assert difference(shrunk, plain, inside) < before / 2
    assert after < 0.09


def test_otsu_is_simpleitks(volumes: tuple[Volume, Volume]) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(volumes[1])
    mask = SimpleITK.GetArrayFromImage(SimpleITK.OtsuThreshold(image, 0, 1, 200)) > 0
    assert np.mean(mask != (volumes[1] > otsu(volumes[1]))) < 0.002


def test_nothing_to_correct_stays_as_it_is() -> None:
    constant = np.full((8, 32, 32), 5, np.float32)
    assert np.array_equal(correct_bias(constant, BiasSpec()), constant)
    zeros = np.zeros((8, 32, 32), np.float32)
    assert np.array_equal(correct_bias(zeros, BiasSpec()), zeros)
    negative = -np.arange(8 * 32 * 32, dtype=np.float32).reshape(8, 32, 32)
    assert np.array_equal(correct_bias(negative, BiasSpec()), negative)


def test_the_same_twice_and_turned(volumes: tuple[Volume, Volume]) -> None:
    _, biased = volumes
    once = correct_bias(biased, BiasSpec())
    assert np.array_equal(once, correct_bias(biased, BiasSpec()))
    full = BiasSpec(shrink=1, iterations=(5, 5))
    flipped = correct_bias(np.ascontiguousarray(biased[:, ::-1]), full)[:, ::-1]
    assert np.abs(flipped / correct_bias(biased, full) - 1).max() < 1e-3
