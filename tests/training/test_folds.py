"""Folds keep patients whole, and every leak that is planted is found and named without a patient."""

import numpy as np
import pytest

from inference.errors import DataError
from training import folds


def cohort(patients: int = 60, seed: int = 0) -> tuple[list[str], list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    owners = [f"patient-{number:03d}" for number in range(patients) for _ in range(int(rng.integers(1, 5)))]
    knees = [f"1.2.{number}/L" for number in range(len(owners))]
    return knees, owners, rng.integers(0, 11, len(owners)).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_patients_whole_and_the_target_alike(seed: int) -> None:
    knees, owners, target = cohort(seed=seed)
    found = folds.patient_folds(owners, target, 5, seed)
    assert set(found) == set(range(5))
    folds.check_folds(knees, owners, found)
    means = [target[found == fold].mean() for fold in range(5)]
    assert max(means) - min(means) < 1.5
    assert (found == folds.patient_folds(owners, target, 5, seed)).all()
    assert (found != folds.patient_folds(owners, target, 5, seed + 1)).any()


@pytest.mark.parametrize("target", [[3.0] * 20, [0.0] * 19 + [10.0], list(range(20))])
def test_any_spread_of_the_target_can_be_split(target: list[float]) -> None:
    found = folds.patient_folds([str(number // 2) for number in range(20)], np.array(target, float), 5, 0)
    assert np.bincount(found).min() > 0


@pytest.mark.parametrize(("patients", "count"), [(3, 5), (10, 1)])
def test_too_few_patients_or_folds_are_said(patients: int, count: int) -> None:
    owners = [str(number) for number in range(patients)]
    with pytest.raises(DataError, match=f"{count} folds of {patients} patient"):
        folds.patient_folds(owners, np.zeros(patients), count, 0)


def test_a_patient_in_two_folds_is_an_error_that_names_knees() -> None:
    knees, owners, target = cohort()
    found = folds.patient_folds(owners, target, 5, 0)
    place = next(n for n in range(1, len(owners)) if owners[n] == owners[n - 1])
    found[place] = (found[place] + 1) % 5
    with pytest.raises(DataError, match=r"1 patient\(s\) are in more than one fold") as caught:
        folds.check_folds(knees, owners, found)
    assert "1.2." in str(caught.value)
    assert "patient-" not in str(caught.value)


def test_the_same_pixels_under_two_patients_are_an_error_only_across_folds() -> None:
    knees, owners = ["1.1/L", "1.2/L", "1.3/L"], ["a", "b", "a"]
    pixels = {"1.1/L": "same", "1.2/L": "same", "1.3/L": "same"}
    folds.check_pixels(knees, owners, np.array([0, 0, 0]), pixels)
    folds.check_pixels(["1.1/L", "1.3/L"], ["a", "a"], np.array([0, 0]), pixels)
    with pytest.raises(DataError, match=r"1 knee.*another PatientID.*1\.1/L = 1\.2/L"):
        folds.check_pixels(knees, owners, np.array([0, 1, 0]), pixels)


def test_a_knee_whose_patient_was_learnt_from_is_not_predicted() -> None:
    knees, owners = ["1.1/L", "1.1/R", "1.2/L"], ["a", "a", "b"]
    folds.check_rows(knees, owners, np.array([True, True, False]), np.array([False, False, True]))
    with pytest.raises(DataError, match=r"1 knee.*their own patient: 1\.1/R"):
        folds.check_rows(knees, owners, np.array([True, False, False]), np.array([False, True, True]))


@pytest.mark.parametrize("copy", [lambda y: y, lambda y: -3 * y + 7, lambda y: y + 1e-3 * np.sin(y)])
def test_a_copy_of_the_target_among_the_columns_is_found(copy: object) -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 11, 200).astype(float)
    columns = rng.normal(size=(200, 600)).astype(np.float32)
    folds.check_features(columns, target, "embedding")
    columns[:, 555] = copy(target)  # type: ignore[operator]
    with pytest.raises(DataError, match=r"1 column.*another name.*embedding\[555\]"):
        folds.check_features(columns, target, "embedding")


def test_a_copy_is_found_beside_missing_values_and_named() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 11, 100).astype(float)
    columns = np.stack([rng.normal(size=100), np.where(rng.random(100) < 0.3, np.nan, target)], axis=1)
    with pytest.raises(DataError, match=r"pain_again"):
        folds.check_features(columns, target, ["age", "pain_again"])


def test_a_strong_but_honest_column_is_none() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=500)
    folds.check_features((target + 0.1 * rng.normal(size=500))[:, None], target, "embedding")
    folds.check_features(np.ones((500, 1)), target, "embedding")
