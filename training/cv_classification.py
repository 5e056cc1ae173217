"""Cross-validated runs of kind "classification": what is measured (see classification_measures), as tables."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from inference.errors import DataError
from training import classification_measures as measures
from training.classification_measures import Bools, Drawn, Floats, Ints, Ranking
from training.classification_verdict import lines, summary
from training.cv_evidence import Evidence, is_baseline, title_of
from training.cv_families import Evaluation
from training.cv_figures import bins_of, group_means, is_better
from training.cv_subgroups import FEW, factors_of, patients_in
from training.cv_tables import flat
from training.report_classification import headline, sections
from training.resampling import Estimate, PatientBootstrap, estimate

__all__ = ["evaluate", "headline", "lines", "sections", "summary"]

AGAINST: Final = ("prevalence", "jsw_only", "kl_only", "clinical_only")
FIGURES: Final = (
    "roc_auc", "pr_auc", "f1", "weighted_f1", "precision", "recall", "specificity", "log_loss", "brier",
)  # fmt: skip
_BINS: Final = 10


@dataclass(frozen=True, eq=False)
class Judged:
    """What a system says.

    probabilities: (N, K). thresholds: by fold, of the second of two classes, chosen inside the fold's training rows.
    called: (N,) the class called; None where a fold of two classes tells no threshold.
    """

    probabilities: Floats
    thresholds: Mapping[int, float | None]
    called: Ints | None


@dataclass(frozen=True, eq=False)
class _Case:
    """All that is measured from. classes: their names. judged: by system."""

    evidence: Evidence
    bootstrap: PatientBootstrap
    truth: Ints
    classes: tuple[str, ...]
    judged: Mapping[str, Judged]

    @property
    def shown(self) -> range:
        """The classes that have areas of their own: of two the second."""
        return range(1, 2) if len(self.classes) == 2 else range(len(self.classes))


def evaluate(evidence: Evidence) -> Evaluation:
    """Measure all systems of a run of classes.

    Raises:
        DataError: a system's predictions are not probabilities of the run's classes, or the truth is none of them.
    """
    case = _case(evidence)
    found = _areas(case)
    drawn = {name: _drawn(case, name, found) for name in case.judged}
    systems = [
        {
            "system": system.system, "title": title_of(system),
            "role": "baseline" if is_baseline(system) else "system",
            "synthetic": bool(system.about.get("synthetic")),
            "ordered": is_ordered(case.judged[system.system].probabilities, evidence.folds),
            **{figure: estimate(one.value, one.draws) for figure, one in drawn[system.system].items()},
            "reasons": _reasons(case, system.system),
        }
        for system in evidence.systems
    ]  # fmt: skip
    parts: dict[str, list[dict[str, Any]]] = {
        "differences": list(_differences(drawn)),
        "classes": [row for name in case.judged for row in _classes(case, name, found)],
        "confusion": list(_confusion(case)),
        "subgroups": list(_subgroups(case)),
        "calibration": list(_calibration(case)),
        "folds": list(_folds(case)),
    }
    size = {"knees": len(evidence.knees), "patients": case.bootstrap.patients}
    shown = [{key: value for key, value in row.items() if key != "reasons"} | size for row in systems]
    tables = {"figures.csv": flat(shown), **{f"{name}.csv": flat(rows) for name, rows in parts.items() if rows}}
    figures = {
        **size, "rounds": case.bootstrap.rounds, "seed": case.bootstrap.seed, "class_names": list(case.classes),
        "shares": _shares(case), "systems": systems, **parts,
    }  # fmt: skip
    return Evaluation(tables, figures)


def is_ordered(probabilities: Floats, folds: Ints) -> bool:
    """Whether any probability differs between knees of one fold."""
    return any(float(np.ptp(probabilities[folds == fold], axis=0).max()) > 1e-9 for fold in np.unique(folds))


def _case(evidence: Evidence) -> _Case:
    names = tuple(str(name) for name in evidence.about.get("classes", ()))
    truth = evidence.truth.astype(np.int64)
    if len(names) < 2 or np.any(truth != evidence.truth) or truth.min() < 0 or truth.max() >= len(names):
        raise DataError(
            f"{evidence.run}: truth lies in {evidence.truth.min():g} to {evidence.truth.max():g}, and run.json names "
            f"{len(names)} classes, which are numbered from 0: run `genu-train fit` again."
        )
    judged = {}
    for system in evidence.systems:
        found = system.probabilities
        if found is None or found.shape[1] != len(names):
            raise DataError(
                f"{system.system} of {evidence.run} has no probabilities of {len(names)} classes, but the run's kind "
                "is classification: run `genu-train fit` again."
            )
        if not np.all(np.isfinite(found)) or float(np.abs(found.sum(axis=1) - 1).max()) > 1e-4:
            raise DataError(f"{system.system} of {evidence.run} has probabilities that do not sum to 1.")
        judged[system.system] = _judged(found, evidence.folds, system.about)
    return _Case(evidence, PatientBootstrap(evidence.patients), truth, names, judged)


def _judged(probabilities: Floats, folds: Ints, about: Mapping[str, Any]) -> Judged:
    told = {int(fold["fold"]): fold.get("threshold") for fold in about.get("folds", ())}
    if probabilities.shape[1] > 2:
        return Judged(probabilities, told, measures.called(probabilities, folds, None))
    known = {fold: float(limit) for fold, limit in told.items() if limit is not None}
    if not {int(fold) for fold in np.unique(folds)} <= set(known):
        return Judged(probabilities, told, None)
    return Judged(probabilities, told, measures.called(probabilities, folds, known))


def _areas(case: _Case) -> dict[str, tuple[Drawn, Drawn]]:
    """By "system class" ROC and PR AUC of each class against the rest; by "system ends" those of last against first."""
    folds, rankings = case.evidence.folds, {}
    for name, judged in case.judged.items():
        for place in case.shown:
            rankings[f"{name} {place}"] = Ranking.of(case.truth == place, judged.probabilities[:, place], folds)
        if len(case.classes) > 2:
            first, last = judged.probabilities[:, 0], judged.probabilities[:, -1]
            ends = (case.truth == 0) | (case.truth == len(case.classes) - 1)
            score = np.divide(last, first + last, out=np.full(len(last), 0.5), where=first + last > 0)
            rankings[f"{name} ends"] = Ranking.of(case.truth > 0, score, folds, ends)
    return measures.areas(rankings, case.bootstrap)


def _drawn(case: _Case, name: str, found: Mapping[str, tuple[Drawn, Drawn]]) -> dict[str, Drawn]:
    """FIGURES of a system with their resamples; NaN where there is none."""
    judged, bootstrap = case.judged[name], case.bootstrap
    parts = [found[f"{name} {place}"] for place in case.shown]
    result = {
        "roc_auc": measures.macro([part[0] for part in parts]),
        "pr_auc": measures.macro([part[1] for part in parts]),
    }
    by_class = _by_class(case, judged)
    if by_class is not None:
        points, draws = (measures.overall(values) for values in by_class)
        result |= {figure: Drawn(float(points[figure][0]), draws[figure]) for figure in points}
    columns = np.stack([np.ones(len(case.truth)), *measures.losses(case.truth, judged.probabilities)], axis=1)
    sums, whole = bootstrap.sums(columns), columns.mean(axis=0)
    for number, figure in ((1, "log_loss"), (2, "brier")):
        result[figure] = Drawn(float(whole[number]), sums[:, number] / sums[:, 0])
    nothing = Drawn(float("nan"), np.full(bootstrap.rounds, np.nan))
    return {figure: result.get(figure, nothing) for figure in FIGURES}


def _by_class(case: _Case, judged: Judged) -> tuple[dict[str, Floats], dict[str, Floats]] | None:
    """Figures of each class: of all rows (1, K), and of the resamples (rounds, K)."""
    if judged.called is None:
        return None
    count = len(case.classes)
    cells = measures.cells(case.truth, judged.called, count)
    whole = cells.sum(axis=0, keepdims=True)
    return measures.from_cells(whole, count), measures.from_cells(case.bootstrap.sums(cells), count)


def _reasons(case: _Case, name: str) -> dict[str, str]:
    """Why a figure that needs a call or a class has no value."""
    called = case.judged[name].called
    found: dict[str, str] = {}
    missing = [title for place, title in enumerate(case.classes) if not np.any(case.truth == place)]
    if missing:
        found |= dict.fromkeys(("roc_auc", "pr_auc", "recall", "f1"), f"no knee is of {', '.join(missing)}")
    elif len(np.unique(case.truth)) < 2:
        found |= dict.fromkeys(("roc_auc", "pr_auc"), "all knees are of one class")
    if called is None:
        told = dict.fromkeys(
            ("f1", "weighted_f1", "precision", "recall", "specificity"), "a fold tells no threshold in system.json"
        )
        return found | told
    shown = [place for place in case.shown if not np.any(called == place)]
    if shown:
        found["precision"] = f"no knee is called {', '.join(case.classes[place] for place in shown)}"
    return found


def _shares(case: _Case) -> list[dict[str, Any]]:
    """How common each class is."""
    places = np.zeros(len(case.truth), np.int64)
    values = [(case.truth == place).astype(np.float64) for place in range(len(case.classes))]
    found = group_means(values, places, 1, case.bootstrap)
    return [
        {"class": title, "knees": int(value.sum()), "share": share[0]}
        for title, value, share in zip(case.classes, values, found, strict=True)
    ]


def _differences(drawn: Mapping[str, Mapping[str, Drawn]]) -> Iterable[dict[str, Any]]:
    for against in AGAINST:
        for name in drawn:
            if against not in drawn or name == against:
                continue
            one, other = drawn[name]["roc_auc"], drawn[against]["roc_auc"]
            found = estimate(one.value - other.value, one.draws - other.draws)
            better = is_better(found, "roc_auc")
            yield {"system": name, "against": against, "figure": "roc_auc", "difference": found, "better": better}


def _classes(case: _Case, name: str, found: Mapping[str, tuple[Drawn, Drawn]]) -> Iterable[dict[str, Any]]:
    """Each class against the rest; of more than two also the last against the first, among knees of these two."""
    judged, count = case.judged[name], len(case.classes)
    by_class = _by_class(case, judged)
    for place in case.shown:
        row: dict[str, Any] = {"system": name, "class": case.classes[place], "against": "the rest"}
        row |= {key: _estimate(one) for key, one in zip(("roc_auc", "pr_auc"), found[f"{name} {place}"], strict=True)}
        for figure in ("precision", "recall", "specificity", "f1"):
            row[figure] = Estimate(None)
            if by_class is not None:
                row[figure] = estimate(float(by_class[0][figure][0, place]), by_class[1][figure][:, place])
        yield row
    if count > 2 and judged.called is not None:
        ends = (case.truth == 0) | (case.truth == count - 1)
        cells = measures.cells((case.truth > 0).astype(np.int64), (judged.called == count - 1).astype(np.int64), 2)
        cells *= ends[:, None]
        points = measures.from_cells(cells.sum(axis=0, keepdims=True), 2)
        draws = measures.from_cells(case.bootstrap.sums(cells), 2)
        row = {"system": name, "class": case.classes[-1], "against": case.classes[0]}
        row |= {key: _estimate(one) for key, one in zip(("roc_auc", "pr_auc"), found[f"{name} ends"], strict=True)}
        names = ("precision", "recall", "specificity", "f1")
        yield row | {key: estimate(float(points[key][0, 1]), draws[key][:, 1]) for key in names}


def _estimate(one: Drawn) -> Estimate:
    return estimate(one.value, one.draws)


def _confusion(case: _Case) -> Iterable[dict[str, Any]]:
    count = len(case.classes)
    for name, judged in case.judged.items():
        if judged.called is None:
            continue
        found = measures.cells(case.truth, judged.called, count).sum(axis=0).reshape(count, count)
        for true, row in enumerate(found):
            for called, knees in enumerate(row):
                titles = {"observed": case.classes[true], "called": case.classes[called]}
                yield {"system": name, **titles, "knees": int(knees)}


def _subgroups(case: _Case) -> Iterable[dict[str, Any]]:
    """AUC and predicted less observed share of the last class against the rest, in each group."""
    last, folds = len(case.classes) - 1, case.evidence.folds
    positive = case.truth == last
    for factor in factors_of(case.evidence.knees):
        patients = patients_in(factor, case.evidence.patients)
        rankings = {
            f"{name} {place}": Ranking.of(positive, judged.probabilities[:, last], folds, factor.places == place)
            for name, judged in case.judged.items()
            for place in range(len(factor.groups))
        }
        areas = measures.areas(rankings, case.bootstrap)
        values = [positive.astype(np.float64)]
        values += [judged.probabilities[:, last] - positive for judged in case.judged.values()]
        means = group_means(values, factor.places, len(factor.groups), case.bootstrap)
        for place, group in enumerate(factor.groups):
            here = factor.places == place
            for number, name in enumerate(case.judged):
                yield {
                    "system": name, "factor": factor.name, "group": group, "knees": int(here.sum()),
                    "patients": patients[place], "of_class": int(positive[here].sum()),
                    "few": bool(patients[place] < FEW or min(positive[here].sum(), (~positive[here]).sum()) < FEW),
                    "share": means[0][place], "roc_auc": _estimate(areas[f"{name} {place}"][0]),
                    "signed_error": means[1 + number][place],
                }  # fmt: skip


def _calibration(case: _Case) -> Iterable[dict[str, Any]]:
    for name, judged in case.judged.items():
        for place in case.shown:
            predicted = judged.probabilities[:, place]
            places = bins_of(predicted, _BINS)
            count = int(places.max()) + 1
            means = group_means([predicted, (case.truth == place).astype(np.float64)], places, count, case.bootstrap)
            for number in range(count):
                yield {
                    "system": name, "class": case.classes[place], "bin": number, "knees": int((places == number).sum()),
                    "predicted": means[0][number].value, "observed": means[1][number],
                }  # fmt: skip


def _folds(case: _Case) -> Iterable[dict[str, Any]]:
    folds, patients = case.evidence.folds, np.asarray(case.evidence.patients, dtype=np.str_)
    for name, judged in case.judged.items():
        for fold in np.unique(folds):
            rows = folds == fold
            values = _point_figures(case, judged, rows)
            yield {
                "system": name, "fold": int(fold), "knees": int(rows.sum()),
                "patients": len(np.unique(patients[rows])),
                "of_class": int((case.truth[rows] == len(case.classes) - 1).sum()),
                "threshold": judged.thresholds.get(int(fold)),
                **{key: value if np.isfinite(value) else None for key, value in values.items()},
            }  # fmt: skip


def _point_figures(case: _Case, judged: Judged, rows: Bools) -> dict[str, float]:
    """FIGURES of the chosen rows by themselves; NaN where there is none."""
    folds, weights, count = case.evidence.folds, rows[None].astype(np.float64), len(case.classes)
    found = dict.fromkeys(FIGURES, float("nan"))
    areas = [
        Ranking.of(case.truth == place, judged.probabilities[:, place], folds, rows).areas(weights)
        for place in case.shown
    ]
    found |= {key: float(np.mean([area[number][0] for area in areas])) for number, key in enumerate(FIGURES[:2])}
    if judged.called is not None:
        cells = measures.cells(case.truth[rows], judged.called[rows], count).sum(axis=0, keepdims=True)
        found |= {key: float(value[0]) for key, value in measures.overall(measures.from_cells(cells, count)).items()}
    logs, squares = measures.losses(case.truth[rows], judged.probabilities[rows])
    return found | {"log_loss": float(logs.mean()), "brier": float(squares.mean())}
