"""Figures against values worked out by hand."""

import numpy as np
import pytest

from training.metrics import accuracy, bootstrap, expected_calibration_error, log_loss, quadratic_kappa, recalls

TRUTH = np.array([0, 0, 1, 2, 3, 4])


def test_kappa_of_perfect_constant_and_reversed_grades() -> None:
    assert quadratic_kappa(TRUTH, TRUTH) == 1
    assert quadratic_kappa(TRUTH, np.zeros_like(TRUTH)) == 0
    assert quadratic_kappa(np.array([0, 4]), np.array([4, 0])) == -1


def test_kappa_by_hand() -> None:
    # Observed squared error 1; expected by chance sum over pairs (t - g)^2 / n = (0+1+4+0+1+4... )/4.
    truth, grade = np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1])
    observed = 1
    chance = sum((t - g) ** 2 for t in truth for g in grade) / 4
    assert quadratic_kappa(truth, grade) == pytest.approx(1 - observed / chance)


def test_recall_is_none_where_a_grade_is_missing() -> None:
    assert recalls(np.array([0, 0, 2]), np.array([0, 1, 2])) == [0.5, None, 1.0, None, None]


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2, 0, 0, 0], [0.8, 0.2, 0, 0, 0]])
    assert expected_calibration_error(np.array([0, 1]), probabilities) == pytest.approx(0.3)
    assert expected_calibration_error(np.array([0, 0]), probabilities) == pytest.approx(0.2)


def test_log_loss_by_hand() -> None:
    assert log_loss(np.array([0, 1]), np.array([[0.5, 0.5, 0, 0, 0], [0.75, 0.25, 0, 0, 0]])) == pytest.approx(
        (np.log(2) + np.log(4)) / 2
    )


def test_bootstrap_takes_both_knees_of_a_patient_together() -> None:
    truth = np.array([0, 0, 1, 1] * 10)
    grade = np.array([0, 0, 0, 0] * 10)
    patients, knees = [str(n // 2) for n in range(40)], [str(n) for n in range(40)]
    by_patient, by_knee = (
        bootstrap(lambda rows: accuracy(truth[rows], grade[rows]), group, rounds=300) for group in (patients, knees)
    )
    assert by_patient[0] < 0.5 < by_patient[1]
    assert by_patient[1] - by_patient[0] > by_knee[1] - by_knee[0]
