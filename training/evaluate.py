"""Figures of a run, on patients it has not seen: `genu-train evaluate`.

Everything that is chosen (temperature, the linear baseline's strength) is chosen on the held-back patients of `train`;
the test split is only reported on. Weights are rounded first as the bundle stores them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inference.bundle import decode
from inference.heads import KLGrader
from inference.manifest import DECODERS
from training import baselines, contrast, unlike
from training.answers import logits_of
from training.config import MemberConfig
from training.conformal import calibrate_sets, set_figures
from training.crops import CropSet
from training.metrics import (
    accuracy,
    bootstrap,
    expected_calibration_error,
    log_loss,
    quadratic_kappa,
    recalls,
    resampled,
)
from training.strangers import drawn_strangers

Networks = Sequence[tuple[MemberConfig, KLGrader]]
Floats = npt.NDArray[np.float64]
Progress = Callable[[str], None]
_STRANGERS = 40  # of each kind
_MODESTY = 0.95  # quantile of the temperature over resampled patients


@dataclass(frozen=True)
class Calibration:
    """The temperature, chosen by likelihood on held-back training patients, and the run's decoder."""

    temperature: float
    decoder: str


def ensemble_logits(networks: Networks, crops: npt.NDArray[np.uint8], folder: Path | None = None) -> torch.Tensor:
    """Mean logits (N, 5) of the members; `folder` of a run keeps what they see in the crops."""
    return torch.stack([logits_of(model, config, crops, folder) for config, model in networks]).mean(dim=0)


def probabilities_of(logits: torch.Tensor, temperature: float) -> Floats:
    """Calibrated probabilities (N, 5)."""
    return np.asarray((logits.double() / temperature).softmax(dim=1).numpy(), np.float64)


def calibrate(logits: torch.Tensor, truth: npt.NDArray[np.int64], subjects: Sequence[str], decoder: str) -> Calibration:
    """Choose the temperature from logits (N, 5) of patients that were held back, on the modest side.

    It is the likelihood's choice, or rather the upper end of that choice over resampled patients: a few hundred of them
    leave it uncertain, and answers that are too sure are worse than such that are not sure enough.
    """
    temperatures = np.geomspace(0.3, 3.0, 200)
    rows = np.arange(len(truth))
    chances = np.stack([probabilities_of(logits, float(t))[rows, truth] for t in temperatures])
    logs = np.log(chances.clip(1e-12))
    drawn = resampled(lambda chosen: temperatures[int(logs[:, chosen].mean(axis=1).argmax())], subjects, rounds=1000)
    return Calibration(float(np.quantile(drawn, _MODESTY)), decoder)


def figures(
    truth: npt.NDArray[np.int64], probabilities: Floats, decoder: str, subjects: Sequence[str]
) -> dict[str, Any]:
    """All figures of one set of predictions, with 95 % patient-bootstrap intervals of kappa and accuracy."""
    grade = decode(probabilities, decoder)
    return {
        "n": len(truth),
        "patients": len(set(subjects)),
        "quadratic_kappa": quadratic_kappa(truth, grade),
        "quadratic_kappa_95": bootstrap(lambda rows: quadratic_kappa(truth[rows], grade[rows]), subjects),
        "accuracy": accuracy(truth, grade),
        "accuracy_95": bootstrap(lambda rows: accuracy(truth[rows], grade[rows]), subjects),
        "mean_absolute_error": float(np.mean(np.abs(truth - grade))),
        "recall_by_grade": recalls(truth, grade),
        "expected_calibration_error": expected_calibration_error(truth, probabilities),
        "log_loss": log_loss(truth, probabilities),
        "confusion": [[int(np.sum((truth == t) & (grade == g))) for g in range(5)] for t in range(5)],
    }


def evaluate(
    networks: Networks, parts: dict[str, CropSet], test: str, decoder: str, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Figures of the ensemble, of each member, of the baselines, and under changed contrast.

    Args:
        networks: (configuration, rounded model) of each member.
        parts: "fit", "tune" and the test split's crops.
        test: name of the test split in `parts`.
        decoder: how probabilities become a grade, one of `inference.manifest.DECODERS`.
        folder: of the run; what training knees look like is kept there.
        progress: told what is being measured.
    """
    tune, held = parts["tune"], parts[test]
    progress("calibration on held-back training patients")
    tuned = ensemble_logits(networks, tune.crops, folder)
    calibration = calibrate(tuned, tune.grades, tune.subjects, decoder)
    progress(f"{test}: {len(held)} knees")
    logits = ensemble_logits(networks, held.crops, folder)
    probabilities = probabilities_of(logits, calibration.temperature)
    results: dict[str, Any] = {
        "split": test,
        "temperature": calibration.temperature,
        "decoder": calibration.decoder,
        "model": figures(held.grades, probabilities, calibration.decoder, held.subjects),
        "uncalibrated_ece": expected_calibration_error(held.grades, probabilities_of(logits, 1.0)),
        "decoders": {
            name: [
                quadratic_kappa(held.grades, decode(probabilities, name)),
                accuracy(held.grades, decode(probabilities, name)),
            ]
            for name in DECODERS
        },
    }
    sets = calibrate_sets(probabilities_of(tuned, calibration.temperature), tune.grades, tune.subjects, decoder)
    results["conformal"] = {
        **sets.to_json(),
        "chosen_on": {"knees": len(tune), "patients": len(set(tune.subjects))},
        "figures": set_figures(sets, probabilities, held.grades, held.sides, held.subjects, decoder),
    }
    results["unlike"] = _unlike(networks, parts, test, folder, progress)
    results["members"] = {
        config.name: _brief(
            held, probabilities_of(logits_of(model, config, held.crops, folder), calibration.temperature), calibration
        )
        for config, model in networks
    }
    progress("baselines")
    results["baselines"] = {
        "majority class": figures(held.grades, baselines.majority(parts["fit"], len(held)), "argmax", held.subjects),
        "linear on pixels": figures(held.grades, baselines.linear(parts["fit"], tune, held), "argmax", held.subjects),
    }
    results["contrast"] = _contrast(networks, held, probabilities, calibration, folder, progress)
    return results


def _unlike(
    networks: Networks, parts: dict[str, CropSet], test: str, folder: Path, progress: Progress
) -> dict[str, Any]:
    """What training knees look like, the limit, and how many pictures of each kind lie beyond it."""
    progress("what training knees look like")
    known = unlike.learn(networks, parts["fit"].crops, folder)
    held_back = unlike.scores(networks, known, parts["tune"].crops, folder)
    limit = unlike.choose_limit(held_back)
    strangers = drawn_strangers(parts[test].crops, networks[0][0].spec, min(_STRANGERS, len(parts[test])))
    return {
        "limit": limit,
        "sha256": unlike.write_familiar(folder, known),
        "held_back": unlike.refused(held_back, limit),
        test: unlike.refused(unlike.scores(networks, known, parts[test].crops, folder), limit),
        "strangers": {
            name: unlike.refused(unlike.scores(networks, known, crops), limit) for name, crops in strangers.items()
        },
    }


def _brief(held: CropSet, probabilities: Floats, calibration: Calibration) -> dict[str, float]:
    grade = decode(probabilities, calibration.decoder)
    return {"quadratic_kappa": quadratic_kappa(held.grades, grade), "accuracy": accuracy(held.grades, grade)}


def _contrast(
    networks: Networks, held: CropSet, published: Floats, calibration: Calibration, folder: Path, progress: Progress
) -> dict[str, Any]:
    grades = np.arange(5)
    reference = decode(published, calibration.decoder)
    rows: dict[str, Any] = {}
    for name, change in contrast.changes().items():
        progress(f"contrast: {name}")
        logits = ensemble_logits(networks, contrast.change_all(held.crops, change), folder)
        probabilities = probabilities_of(logits, calibration.temperature)
        grade = decode(probabilities, calibration.decoder)
        rows[name] = {
            **_brief(held, probabilities, calibration),
            "same_grade": float(np.mean(grade == reference)),
            "mean_shift": float(np.mean((probabilities - published) @ grades)),
            "mean_absolute_shift": float(np.mean(np.abs((probabilities - published) @ grades))),
        }
    return {"look_alike_correlation": contrast.agreement_with_published(held.crops), "rows": rows}
