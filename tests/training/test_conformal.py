"""The limits of conformal sets: chosen so that the coverage is reached on patients that were not used."""

import numpy as np
import pytest

from training.conformal import calibrate_sets, quantile, set_figures


def readings(patients: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Two knees a patient, alike; probabilities too sure of themselves, and grade 3 read worst."""
    rng = np.random.default_rng(seed)
    grades = np.repeat(rng.choice(5, size=patients, p=[0.4, 0.2, 0.2, 0.1, 0.1]), 2)
    error = np.repeat(rng.normal(0, 0.6, patients), 2) + rng.normal(0, 0.3, 2 * patients)
    seen = grades + error * np.where(grades == 3, 1.6, 1.0)
    logits = -1.5 * np.abs(np.arange(5) - seen[:, None]) * 2
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    names = [str(number // 2) for number in range(2 * patients)]
    return chances / chances.sum(axis=1, keepdims=True), grades, names, ["L", "R"] * patients


def test_the_quantile_is_that_of_finite_samples() -> None:
    scores = np.arange(1, 20) / 20  # 19 of them: the 18th of 20 places
    assert quantile(scores, 0.9) == pytest.approx(0.9)
    assert quantile(scores[:8], 0.9) == 1.0  # nine in ten cannot be promised by eight


def test_the_coverage_is_reached_on_other_patients_and_for_each_grade() -> None:
    chances, grades, names, _ = readings(300, 0)
    sets = calibrate_sets(chances, grades, names, "median")
    others, truth, subjects, sides = readings(2000, 1)
    found = set_figures(sets, others, truth, sides, subjects, "median")
    assert 0.9 <= found["coverage"] < 0.97
    assert min(found["by_grade"]) > 0.86
    assert found["coverage_95"][0] < found["coverage"] < found["coverage_95"][1]
    assert set(found["by_side"]) == {"L", "R"}
    assert sum(found["sizes"]) == found["n"] == 4000
    assert found["mean_size"] == pytest.approx(sum(k * n for k, n in enumerate(found["sizes"], start=1)) / 4000)


def test_few_patients_ask_for_wider_sets_than_many() -> None:
    few, many = (calibrate_sets(*readings(patients, 2)[:3], "median").limits[0] for patients in (60, 600))
    assert few > many


def test_the_same_knees_give_the_same_limits() -> None:
    chances, grades, names, _ = readings(100, 3)
    assert calibrate_sets(chances, grades, names, "median") == calibrate_sets(chances, grades, names, "median")
