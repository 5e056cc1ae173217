"""Cross-validated runs of kind "regression": what is measured (see cv_figures), as tables and in words."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from inference.errors import DataError
from training import cv_figures
from training.cv_evidence import Evidence, is_baseline, title_of
from training.cv_families import Evaluation, Figures
from training.cv_figures import FIGURES, Measured, Scores
from training.cv_subgroups import FEW, Factor, factors_of, patients_in
from training.cv_tables import flat
from training.report_regression import headline, sections, summary
from training.resampling import PatientBootstrap

__all__ = ["evaluate", "headline", "lines", "sections", "summary"]

# Which baseline a figure is held against, besides KL-only: each constant has the least of its own error.
CONSTANT: Final = {"rmse": "constant_mean", "mae": "constant_median"}
KL_ONLY: Final = "kl_only"
_BINS: Final = 10
_NAMES: Final = {"rmse": "RMSE", "mae": "MAE", "r2": "R²", "spearman": "Spearman"}


def evaluate(evidence: Evidence) -> Evaluation:
    """Measure all systems of a run of scores.

    Raises:
        DataError: a system's predictions are not scores.
    """
    bootstrap = PatientBootstrap(evidence.patients)
    scores = _scores(evidence)
    measured = cv_figures.measure(evidence.truth, scores, bootstrap)
    differences = list(_differences(measured))
    subgroups = [row for factor in factors_of(evidence.knees) for row in _groups(evidence, factor, scores, bootstrap)]
    calibration = list(_calibration(evidence, scores, bootstrap))
    folds = list(_folds(evidence, scores))
    systems = [
        {
            "system": system.system,
            "title": title_of(system),
            "role": "baseline" if is_baseline(system) else "system",
            "synthetic": bool(system.about.get("synthetic")),
            "ordered": scores[system.system].ordered,
            **measured[system.system].figures,
        }
        for system in evidence.systems
    ]
    size = {"knees": len(evidence.knees), "patients": bootstrap.patients}
    tables = {
        "figures.csv": flat([{**row, **size} for row in systems]),
        "differences.csv": flat(differences),
        "subgroups.csv": flat(subgroups),
        "calibration.csv": flat(calibration),
        "folds.csv": flat(folds),
    }
    figures = {
        **size,
        "rounds": bootstrap.rounds,
        "seed": bootstrap.seed,
        "systems": systems,
        "differences": differences,
        "subgroups": subgroups,
        "calibration": calibration,
        "folds": folds,
    }
    return Evaluation(tables, figures)


def lines(figures: Figures) -> list[str]:
    """A line a system."""
    return [f"{row['system']}: {', '.join(_said(row, name) for name in _NAMES)}" for row in figures["systems"]]


def _said(row: Mapping[str, Any], name: str) -> str:
    value, low, high = row[name]
    if value is None:
        return f"{_NAMES[name]} none"
    return f"{_NAMES[name]} {value:.3f}" + ("" if low is None else f" ({low:.3f} to {high:.3f})")


def _scores(evidence: Evidence) -> dict[str, Scores]:
    found = {}
    for system in evidence.systems:
        if system.mean is None or system.median is None:
            raise DataError(f"{system.system} of {evidence.run} predicts no scores, but the run's kind is regression.")
        if not (np.all(np.isfinite(system.mean)) and np.all(np.isfinite(system.median))):
            raise DataError(f"{system.system} of {evidence.run} has predictions that are no finite numbers.")
        ordered = cv_figures.is_ordered(system.mean, evidence.folds)
        found[system.system] = Scores(system.mean, system.median, ordered)
    return found


def _differences(measured: Mapping[str, Measured]) -> Iterable[dict[str, Any]]:
    for figure in _NAMES:
        for against in (CONSTANT.get(figure), KL_ONLY):
            for name in measured:
                if against is None or against not in measured or name == against:
                    continue
                found = cv_figures.difference(measured[name], measured[against], figure)
                better = cv_figures.is_better(found, figure)
                yield {"system": name, "against": against, "figure": figure, "difference": found, "better": better}


def _groups(
    evidence: Evidence, factor: Factor, scores: Mapping[str, Scores], bootstrap: PatientBootstrap
) -> Iterable[dict[str, Any]]:
    count, truth = len(factor.groups), evidence.truth
    values = [truth]
    for found in scores.values():
        values += [found.mean - truth, np.abs(found.median - truth)]
    means = cv_figures.group_means(values, factor.places, count, bootstrap)
    patients = patients_in(factor, evidence.patients)
    for place, group in enumerate(factor.groups):
        for number, name in enumerate(scores):
            yield {
                "system": name,
                "factor": factor.name,
                "group": group,
                "knees": int(np.sum(factor.places == place)),
                "patients": patients[place],
                "few": patients[place] < FEW,
                "truth": means[0][place],
                "signed_error": means[1 + 2 * number][place],
                "absolute_error": means[2 + 2 * number][place],
            }


def _calibration(
    evidence: Evidence, scores: Mapping[str, Scores], bootstrap: PatientBootstrap
) -> Iterable[dict[str, Any]]:
    for name, found in scores.items():
        if not found.ordered:
            continue
        places = cv_figures.bins_of(found.mean, _BINS)
        count = int(places.max()) + 1
        predicted, observed = cv_figures.group_means([found.mean, evidence.truth], places, count, bootstrap)
        for place in range(count):
            knees = int(np.sum(places == place))
            yield {
                "system": name,
                "bin": place,
                "knees": knees,
                "predicted": predicted[place].value,
                "observed": observed[place],
            }


def _folds(evidence: Evidence, scores: Mapping[str, Scores]) -> Iterable[dict[str, Any]]:
    patients = np.asarray(evidence.patients, dtype=np.str_)
    for name, found in scores.items():
        for fold in np.unique(evidence.folds):
            rows = evidence.folds == fold
            part = Scores(found.mean[rows], found.median[rows], found.ordered)
            values = cv_figures.point_figures(evidence.truth[rows], part)
            known = {key: value if np.isfinite(value) else None for key, value in values.items()}
            size = {"knees": int(rows.sum()), "patients": len(np.unique(patients[rows]))}
            yield {"system": name, "fold": int(fold), **size, **{key: known[key] for key in FIGURES}}
