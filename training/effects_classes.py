"""Whether a run on made knee MRI found what `genu-train synth oai` planted: `genu-train recover` of a run of classes.

Four questions, intervals of 95 %:

- Tables and labels: the log odds of losing 0.5 mm in a year by joint space, age and BMI as the cohort has them, beside
  the true lesion; for WOMAC pain, points by KL grade. Each interval must cover what was planted: labels, sides, visits
  and joins are right.
- Image, read perfectly (the oracle): log odds, or points, from no lesion to a full one. The same.
- Image, as a network reads it out of fold: the coefficient of its log odds beside what else was planted, above 0 where
  an effect of the image was planted, for one system at least; not above 0 where none was, for all that see slices.
- Chance: the area under the curve of every system holds 0.5 where nothing at all was planted for the target; and the
  area of one system that sees slices at least lies above 0.5 where an effect of the image was.

The joint space is in the pixels too: what is planted on it is held fixed when the image is judged. The planted risk
itself has an area below 1, which is told: no system can be expected to pass it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from inference.errors import DataError
from training.classification_measures import Ranking, areas
from training.cv_evidence import Evidence, read_evidence
from training.effects import FEWEST, FOLDER, Claim, Recovery, Row, told, write
from training.effects_models import Floats, logistic, rounded_normal
from training.resampling import Estimate, PatientBootstrap, estimate
from training.synth_oai_plan import MEAN_SPACE

YEAR = "12"  # months; the planted odds are those of a year
_MOST = 19  # points that a made participant can tell
Truth = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class _Case:
    """Rows of the run with their truth. columns: what was planted beside the lesion, (N,) each, NaN for not known."""

    evidence: Evidence
    planted: Mapping[str, float]
    lesion: Floats
    risk: Floats
    columns: Mapping[str, Floats]
    names: Mapping[str, str]
    pain: bool
    bootstrap: PatientBootstrap

    @property
    def image(self) -> float:
        """What the lesion does."""
        return self.planted["pain_image" if self.pain else "image"]

    @property
    def nothing(self) -> bool:
        """Whether nothing was planted for the target."""
        return self.image == 0 and not any(self.planted[name] for name in self.columns)


def recover_classes(run: Path, truth: Path) -> Recovery:
    """Hold a finished run against the truth, and write RUN/recovery.

    Args:
        run: of the kind "classification", on progression_abs (a year) or WOMAC pain of a made OAI.
        truth: truth.json of `genu-train synth oai`.

    Raises:
        DataError: the truth cannot be read or is of other knees, its labels are not the cohort's, or the target is
            one for which nothing was planted directly.
    """
    evidence = read_evidence(run)
    case = _case(evidence, truth)
    rows = [*_tables(case), *_areas(case), *_readings(case)]
    result = Recovery(tuple(rows), len(evidence.knees), case.bootstrap.patients, tuple(_failures(case, rows)))
    write(run / FOLDER, result, case.planted, evidence.inputs)
    return result


def _case(evidence: Evidence, path: Path) -> _Case:
    target = str(evidence.about.get("target"))
    planted, known = _read_truth(path, target)
    knees = evidence.knees
    names = [str(knee) for knee in knees["knee"].to_list()]
    missing = [name for name in names if name not in known]
    if missing or len(names) < FEWEST:
        raise DataError(
            f"{len(missing)} of the run's {len(names)} rows are not in {path}, {(missing or names)[0]} first: it is "
            f"the truth of another export, its windows are not of a year, or there are fewer than {FEWEST} rows."
        )
    labels = told(known, names, target, path, unknown=True)
    wrong = [name for name, label, own in zip(names, evidence.truth, labels, strict=True) if own != int(label)]
    if wrong:
        raise DataError(
            f"{len(wrong)} row(s) have another {target} than {path} says, {wrong[0]} first: labels were joined to "
            "other knees or visits."
        )
    lesion, risk = (told(known, names, key, path, unknown=True) for key in ("lesion", "risk"))
    pain = target.startswith("womac")
    wanted = {"pain_kl": "points a KL grade"} if pain else {
        "jsw": "log odds a mm of joint space less", "age": "log odds a decade of age", "bmi": "log odds 5 kg/m2 of BMI",
    }  # fmt: skip
    table = {name: _column(knees, name) for name in ("kl", "mjsw", "age", "bmi")}
    columns = {
        "jsw": MEAN_SPACE - table["mjsw"], "age": (table["age"] - 60) / 10, "bmi": (table["bmi"] - 28) / 5,
        "pain_kl": table["kl"],
    }  # fmt: skip
    kept = {name: columns[name] for name in wanted}
    return _Case(evidence, planted, lesion, risk, kept, wanted, pain, PatientBootstrap(evidence.patients))


def _read_truth(path: Path, target: str) -> tuple[Mapping[str, float], Truth]:
    try:
        content = json.loads(path.read_text("utf-8"))
        planted = {str(name): float(value) for name, value in content["effects"].items()}
        known = content["rows"][YEAR]
        if {"image", "jsw", "age", "bmi", "pain_image", "pain_kl"} - set(planted) or not isinstance(known, dict):
            raise ValueError("it names no effects of image and pain_image")  # noqa: TRY301
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no truth of `genu-train synth oai` ({error}).") from error
    if target not in ("progression_abs", "womac_pain_binary", "womac_pain_class"):
        raise DataError(f"nothing was planted on {target}: hold runs on progression_abs or WOMAC pain against {path}.")
    return planted, known


def _column(knees: pl.DataFrame, name: str) -> Floats:
    if name not in knees.columns:
        return np.full(len(knees), np.nan)
    return knees[name].cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64)


def _tables(case: _Case) -> list[Row]:
    """What the cohort's own columns and the true lesion say of the outcome."""
    columns = np.stack([np.ones(len(case.lesion)), case.lesion, *case.columns.values()], axis=1)
    outcome = _column(case.evidence.knees, "womac_pain") if case.pain else case.evidence.truth
    usable = np.isfinite(columns).all(axis=1) & np.isfinite(outcome) & (case.pain | np.isfinite(case.risk))
    patients = [one for one, kept in zip(case.evidence.patients, usable, strict=True) if kept]
    if usable.sum() < FEWEST:
        return []
    if case.pain:
        # A half point stands for an item that was filled in, whole ones are what was drawn.
        absent = 1 if case.evidence.about["target"] == "womac_pain_binary" else None  # neither pain nor none
        found = rounded_normal(columns[usable], np.floor(outcome[usable]), _MOST, patients, absent)
        image = ("pain_image", "points from no lesion to a full one, by the true lesion")
    else:
        found = logistic(columns[usable], outcome[usable], patients)
        image = ("image", "log odds from no lesion to a full one, by the true lesion")
    rows = [_row(*image, "covers", found[1], planted=case.planted[image[0]])]
    for place, (name, figure) in enumerate(case.names.items(), start=2):
        rows.append(_row(name, f"{figure}, as the cohort has it", "covers", found[place], planted=case.planted[name]))
    return rows


def _areas(case: _Case) -> list[Row]:
    """Areas under the curve of all systems, and of the planted risk, which is the most that can be hoped for."""
    evidence = case.evidence
    positive = evidence.truth == len(evidence.about["classes"]) - 1
    rankings = {
        system.system: Ranking.of(positive, _log_odds(system.probabilities), evidence.folds)
        for system in evidence.systems
    }
    if not case.pain:
        one_fold = np.zeros(len(positive), np.int64)
        rankings[""] = Ranking.of(positive, case.risk, one_fold, np.isfinite(case.risk))
    found = areas(rankings, case.bootstrap)
    seen = {system.system for system in evidence.systems if system.about.get("image")}
    rows = []
    for name, (roc, _) in found.items():
        claim: Claim = "told"
        if case.nothing:
            claim = "chance"
        elif case.image and name in seen:
            claim = "above chance"
        figure = "area under the curve" if name else "area under the curve of the planted risk itself"
        rows.append(_row("image" if name in seen else "", figure, claim, estimate(roc.value, roc.draws), system=name))
    return rows


def _readings(case: _Case) -> list[Row]:
    """The log odds of what sees slices alone, beside what else was planted, and how they go with the lesion."""
    rows = []
    for system in case.evidence.systems:
        if not system.about.get("image") or system.about.get("clinical"):
            continue
        score = _log_odds(system.probabilities)
        spread = float(np.std(score))
        score = (score - score.mean()) / (spread if spread > 0 else 1.0)
        known = [np.nan_to_num(column, nan=float(np.nanmean(column))) for column in case.columns.values()]
        columns = np.stack([np.ones(len(score)), score, *known], axis=1)
        positive = (case.evidence.truth == len(case.evidence.about["classes"]) - 1).astype(np.float64)
        beside = logistic(columns, positive, case.evidence.patients)[1]
        claim: Claim = "above" if case.image else "not above"
        figure = "log odds a deviation of the score, beside what else was planted"
        rows.append(_row("image", figure, claim, beside, system=system.system))
        rows.append(_row("image", "correlation of the score with the lesion", "told", _correlation(case, score),
                         system=system.system))  # fmt: skip
    return rows


def _correlation(case: _Case, score: Floats) -> Estimate:
    ones = np.ones(len(score))
    parts = np.stack([ones, score, case.lesion, score**2, case.lesion**2, score * case.lesion], axis=1)

    def of(sums: Floats) -> Floats:
        n, a, b, aa, bb, ab = sums.T
        return np.asarray((ab - a * b / n) / np.sqrt(np.maximum((aa - a**2 / n) * (bb - b**2 / n), 1e-12)))

    return estimate(float(of(parts.sum(axis=0)[None])[0]), of(case.bootstrap.sums(parts)))


def _log_odds(probabilities: Floats | None) -> Floats:
    """Of the last class against the others, (N,)."""
    assert probabilities is not None  # noqa: S101 - a run of classes has them
    last = np.clip(probabilities[:, -1], 1e-6, 1 - 1e-6)
    return np.asarray(np.log(last / (1 - last)))


def _row(
    effect: str, figure: str, claim: Claim, found: Estimate, *, system: str = "", planted: float | None = None
) -> Row:  # fmt: skip
    value, low, high = found
    holds: bool | None = None
    if claim != "told":
        aim = {"covers": planted, "chance": 0.5, "above chance": 0.5}.get(claim, 0.0)
        known = low is not None and high is not None and aim is not None
        inside = known and low <= aim <= high  # type: ignore[operator]
        above = known and low > aim  # type: ignore[operator]
        holds = bool({"covers": inside, "chance": inside, "not above": known and not above}.get(claim, above))
    return Row(effect, system, figure, claim, planted, value, low, high, holds)


def _failures(case: _Case, rows: Sequence[Row]) -> list[str]:
    """What does not hold. A planted effect of the image has to be found by one system at least, by each figure."""
    strict = [row for row in rows if row.claim in ("covers", "chance", "not above") and not row.holds]
    found = [f"{row.system or 'the cohort'}: {row.figure}" for row in strict]
    for claim, what in (("above", "beside the rest"), ("above chance", "by its area under the curve")):
        claims = [row for row in rows if row.claim == claim]
        if claims and not any(row.holds for row in claims):
            found.append(f"no system finds the planted image effect {what}")
    if case.image and not any(row.claim == "above chance" for row in rows):
        found.append("no system that sees slices was fitted")
    return found
