"""Ordinal conformal sets: neighbours around the reported grade, and what a manifest may say of them."""

import numpy as np
import pytest

from inference.bundle import decode
from inference.conformal import Conformal, growth
from inference.findings import KLFinding


def probabilities(count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).gamma(0.5, size=(count, 5)) + 1e-6
    return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))


def test_a_set_grows_to_the_more_probable_neighbour() -> None:
    row = np.array([[0.05, 0.2, 0.5, 0.15, 0.1]])
    scores = growth(row, np.array([2]))[0]
    assert scores == pytest.approx([0.95, 0.5, 0.0, 0.7, 0.85])


def test_a_set_at_the_end_of_the_scale_grows_inwards() -> None:
    scores = growth(np.array([[0.6, 0.1, 0.1, 0.1, 0.1]]), np.array([0]))[0]
    assert scores == pytest.approx([0.0, 0.6, 0.7, 0.8, 0.9])


@pytest.mark.parametrize("decoder", ["argmax", "median", "expected"])
def test_sets_are_neighbours_with_the_reported_grade(decoder: str) -> None:
    chances = probabilities(500)
    reported = decode(chances, decoder)
    members = Conformal(0.9, (0.2, 0.9, 0.05, 0.95, 0.6)).members(chances, reported)
    assert members[np.arange(500), reported].all()
    for row in members:
        found = np.flatnonzero(row)
        assert found.tolist() == list(range(found[0], found[-1] + 1))


def test_larger_limits_give_larger_sets() -> None:
    chances = probabilities(500)
    reported = decode(chances, "median")
    sizes = [Conformal(0.9, (limit,) * 5).members(chances, reported).sum(axis=1) for limit in (0.0, 0.5, 0.8, 1.0)]
    assert (sizes[0] == 1).all()
    assert (np.diff(np.stack(sizes), axis=0) >= 0).all()
    assert (sizes[-1] == 5).all()


@pytest.mark.parametrize(
    "values",
    [
        {"coverage": 1.0, "limits": [0.5] * 5},
        {"coverage": 0.9, "limits": [0.5]},
        {"coverage": 0.9, "limits": [-1] * 5},
        {"coverage": 0.9, "limits": [float("inf")] * 5},
    ],
)
def test_impossible_values_are_named(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="conformal coverage"):
        Conformal.from_json(values)


def test_what_was_stored_is_read() -> None:
    stored = Conformal(0.9, (0.1, 0.2, 0.3, 0.4, 0.5))
    assert Conformal.from_json(stored.to_json()) == stored


@pytest.mark.parametrize(
    ("grades", "coverage", "words"),
    [
        ((2, 3), 0.9, "KL 2 (2-3, 90 %)"),
        ((2,), 0.9, "KL 2 (2, 90 %)"),
        ((1, 2, 3), 0.925, "KL 2 (1-3, 92.5 %)"),
        (None, None, "KL 2"),
    ],
)
def test_how_a_set_is_told(grades: tuple[int, ...] | None, coverage: float | None, words: str) -> None:
    assert KLFinding(2, (0.1, 0.1, 0.5, 0.2, 0.1), 2.1, grades, coverage).words == words
