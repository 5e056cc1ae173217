"""Whether a run found what `genu-train synth` planted: `genu-train recover --run RUN --truth truth.json`.

Three questions, each with a patient-bootstrap interval (95 %):

- KL: the slope of pain on the cohort's grade, points a grade. Its interval must cover what was planted.
- Image, read perfectly (the oracle): the slope of pain on the true effusion beside the true grade, points from no
  effusion to a full one. Its interval must cover what was planted: labels, sides and joins are right.
- Image, as a system reads it: out-of-fold scores are a noisy reading, so their slope is not the planted one
  (regression dilution; Carroll et al., Measurement Error in Nonlinear Models, 2006). Told are the coefficient of the
  score beside the true grade (above 0 when something was planted, not above when nothing was), the gain in R² of image
  and grade over the grade alone (or over the constant, where that is better), and the planted effect with the score as
  an instrument for the effusion, cov(pain, score | KL) / cov(effusion, score | KL), which a noisy reading does not
  dilute; its interval must cover what was planted, for the system that reads the effusion best.

The grade is held fixed because a score that reads the grade from the pixels would otherwise pass for an image effect.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from inference.errors import DataError
from training.cv_evidence import read_evidence
from training.cv_run import CVRun
from training.predictions import Predictions, in_order, read_predictions, systems_of
from training.regression_samples import Floats
from training.resampling import Estimate, PatientBootstrap, estimate

FOLDER, JSON, CSV = "recovery", "recovery.json", "recovery.csv"
FEWEST = 20
Claim = Literal["covers", "above", "not above", "above chance", "chance", "told"]


@dataclass(frozen=True)
class Row:
    """One figure with its interval.

    claim: what the interval must do: cover `planted`, lie above 0 or not, lie above 0.5 or hold it (areas under the
    curve), or nothing. holds: whether it does.
    """

    effect: str
    system: str
    figure: str
    claim: Claim
    planted: float | None
    value: float | None
    low: float | None
    high: float | None
    holds: bool | None


@dataclass(frozen=True)
class Recovery:
    """All rows, and in one word each: what was planted and is found, what was not planted and is not found."""

    rows: tuple[Row, ...]
    knees: int
    patients: int
    failures: tuple[str, ...]

    @property
    def recovered(self) -> bool:
        """Whether everything holds that has to."""
        return not self.failures


@dataclass(frozen=True, eq=False)
class _Case:
    """Knees of the run with their truth, (N,) each. graded: the grade that systems saw is the true one."""

    pain: Floats
    kl: Floats
    known: Floats
    effusion: Floats
    graded: Floats
    bootstrap: PatientBootstrap


def recover(run: CVRun, truth: Path) -> Recovery:
    """Hold a finished run against the truth, and write RUN/recovery.

    Args:
        run: of a cohort made by `genu-train synth mrkr`.
        truth: its truth.json.

    Raises:
        DataError: the truth cannot be read or is of other knees, or its pain is not the cohort's.
    """
    inputs = read_evidence(run.folder).inputs  # by their hashes the report knows figures of other predictions
    knees = run.knees()
    effects, known = _read_truth(truth)
    case = _case(knees, known, truth)
    names = [str(knee) for knee in knees["knee"].to_list()]
    systems = [in_order(read_predictions(run.folder, name), names) for name in systems_of(run.folder)]
    rows = [*_table_rows(case, effects), *_gains(case, systems, effects["image"])]
    readers = [system for system in systems if _reads_images(system)]
    readings = {system.system: _reading(case, system) for system in readers}
    best = max(readings, key=lambda name: abs(readings[name].value or 0.0), default=None)
    for system in readers:
        rows += _image_rows(case, system, readings[system.system], effects["image"], chosen=system.system == best)
    result = Recovery(tuple(rows), len(knees), case.bootstrap.patients, tuple(_failures(rows, effects["image"])))
    write(run.folder / FOLDER, result, effects, inputs)
    return result


def _read_truth(path: Path) -> tuple[Mapping[str, float], Mapping[str, Mapping[str, Any]]]:
    try:
        content = json.loads(path.read_text("utf-8"))
        effects = {str(name): float(value) for name, value in content["effects"].items()}
        knees = content["knees"]
        if {"kl", "image"} - set(effects) or not isinstance(knees, dict):
            raise ValueError("it names no effects of kl and image")  # noqa: TRY301
        if not all(map(math.isfinite, effects.values())):
            raise ValueError("an effect is no finite number")  # noqa: TRY301
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no truth of `genu-train synth mrkr` ({error}).") from error
    return effects, knees


def _case(knees: pl.DataFrame, known: Mapping[str, Mapping[str, Any]], path: Path) -> _Case:
    names = [str(knee) for knee in knees["knee"].to_list()]
    missing = [name for name in names if name not in known]
    if missing or len(names) < FEWEST:
        raise DataError(
            f"{len(missing)} of the run's {len(names)} knees are not in {path}, {(missing or names)[0]} first: it is "
            f"the truth of another export, or there are fewer than {FEWEST} knees."
        )
    pain = knees["truth"].to_numpy().astype(np.float64)
    pain_told, kl, effusion = (told(known, names, key, path) for key in ("pain", "kl", "effusion"))
    wrong = np.flatnonzero(np.abs(pain_told - pain) > 1e-6)
    if len(wrong):
        raise DataError(
            f"{len(wrong)} knee(s) have another pain than {path} says, {names[wrong[0]]} first: {pain[wrong[0]]:g} "
            f"instead of {pain_told[wrong[0]]:g}. The cohort has another window, or scores were joined to other knees."
        )
    grade = knees["grade"].cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64)
    table = knees["kl"].cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64)
    patients = [str(patient) for patient in knees["PatientID"].to_list()]
    bootstrap = PatientBootstrap(patients)
    return _Case(pain, kl, table, effusion, (grade == kl).astype(np.float64), bootstrap)


def told(
    known: Mapping[str, Mapping[str, Any]], names: Sequence[str], key: str, path: Path, *, unknown: bool = False
) -> Floats:
    """(N,) what the truth says of each knee; NaN where it says null and `unknown` allows it.

    Raises:
        DataError: it says nothing of one, or no number.
    """
    found = np.full(len(names), np.nan)
    for number, name in enumerate(names):
        knee = known[name]
        value = knee.get(key) if isinstance(knee, dict) else None
        if unknown and isinstance(knee, dict) and key in knee and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise DataError(f"{path}: {key} of knee {name} is {value!r}, no number: make the truth again.")
        found[number] = value
    return found


def slopes(
    bootstrap: PatientBootstrap, columns: Floats, target: Floats, instruments: Floats | None = None,
    weight: Floats | None = None,
) -> list[Estimate]:  # fmt: skip
    """Least squares of `target` (N,) on `columns` (N, P), each coefficient with its interval.

    Args:
        bootstrap: of the knees' patients.
        columns, target: as above; no constant is added.
        instruments: (N, P), the method of instrumental variables; None for the columns themselves.
        weight: (N,), 0 leaves a knee out.
    """
    z = columns if instruments is None else instruments
    z = z if weight is None else z * weight[:, None]
    width = columns.shape[1]
    products = np.einsum("np,nq->npq", z, np.concatenate([columns, target[:, None]], axis=1))
    flat = products.reshape(len(target), -1)

    def solved(sums: Floats) -> Floats:
        matrices = sums.reshape(-1, width, width + 1)
        return np.asarray(np.einsum("rpq,rq->rp", np.linalg.pinv(matrices[:, :, :-1]), matrices[:, :, -1]))

    whole, draws = solved(flat.sum(axis=0)), solved(bootstrap.sums(flat))
    return [estimate(float(whole[0, place]), draws[:, place]) for place in range(width)]


def _table_rows(case: _Case, effects: Mapping[str, float]) -> list[Row]:
    one = np.ones(len(case.pain))
    usable = np.isfinite(case.known).astype(np.float64)
    rows = []
    if usable.sum() >= FEWEST:
        grade = np.nan_to_num(case.known)
        found = slopes(case.bootstrap, np.stack([one, grade], axis=1), case.pain, weight=usable)[1]
        rows.append(_row("kl", "", "points a grade, by the cohort's KL", "covers", found, effects["kl"]))
    columns = np.stack([one, case.kl, case.effusion], axis=1)
    by_truth = slopes(case.bootstrap, columns, case.pain)
    rows.append(
        _row("kl", "", "points a grade, by the true KL beside the effusion", "covers", by_truth[1], effects["kl"])
    )
    figure = "points from no effusion to a full one, by the true effusion"
    return [*rows, _row("image", "", figure, "covers", by_truth[2], effects["image"])]


def _gains(case: _Case, systems: Sequence[Predictions], planted: float) -> list[Row]:
    """R² of image and grade less that of the grade alone, over the knees whose grade is right.

    Where the grade tells nothing, means by grade err more than one mean for all, and what is shrunk to that mean would
    pass for seeing something: the better of the two is what has to be beaten.
    """
    named = {system.system: system for system in systems}
    alone = named.get("kl_only")
    if alone is None or alone.mean is None or case.graded.sum() < FEWEST:
        return []
    constant = named.get("constant_mean", alone).mean
    constant = alone.mean if constant is None else constant
    figure = "gain in R² over KL alone, or over the constant where that is better"
    rows = []
    for name, system in named.items():
        if name.startswith("image_kl_") and system.mean is not None:
            errors = [(mean - case.pain) ** 2 for mean in (system.mean, alone.mean, constant)]
            sums = np.stack([case.pain, case.pain**2, np.ones(len(case.pain)), *errors], axis=1)
            sums *= case.graded[:, None]
            found = estimate(float(_gain(sums.sum(axis=0)[None])[0]), _gain(case.bootstrap.sums(sums)))
            rows.append(_row("image", name, figure, "above" if planted else "not above", found))
    return rows


def _gain(sums: Floats) -> Floats:
    pain, squares, count, error, alone, constant = sums.T
    spread = squares - pain**2 / np.maximum(count, 1)
    return np.asarray((np.minimum(alone, constant) - error) / np.where(spread > 0, spread, np.nan))


def _image_rows(case: _Case, system: Predictions, reading: Estimate, planted: float, *, chosen: bool) -> list[Row]:
    assert system.mean is not None  # noqa: S101 - `_reads_images` asked
    levels = (case.kl[:, None] == np.arange(5)).astype(np.float64)
    score = np.concatenate([levels, system.mean[:, None]], axis=1)
    effusion = np.concatenate([levels, case.effusion[:, None]], axis=1)
    beside = slopes(case.bootstrap, score, case.pain)[-1]
    claim: Claim = "above" if planted else "not above"
    rows = [
        _row("image", system.system, "correlation of the score with the effusion, KL held fixed", "told", reading),
        _row("image", system.system, "coefficient of the score beside KL", claim, beside),
    ]
    if planted:
        through = slopes(case.bootstrap, effusion, case.pain, instruments=score)[-1]
        figure = "points from no effusion to a full one, the score as instrument"
        rows.append(_row("image", system.system, figure, "covers" if chosen else "told", through, planted))
    return rows


def _reading(case: _Case, system: Predictions) -> Estimate:
    """Correlation of score and effusion within grades."""
    assert system.mean is not None  # noqa: S101 - `_reads_images` asked
    levels = (case.kl[:, None] == np.arange(5)).astype(np.float64)
    centres = levels.T @ np.stack([system.mean, case.effusion], axis=1) / np.maximum(levels.sum(axis=0), 1)[:, None]
    score, effusion = system.mean - levels @ centres[:, 0], case.effusion - levels @ centres[:, 1]
    parts = np.stack([score * effusion, score**2, effusion**2], axis=1)

    def correlation(sums: Floats) -> Floats:
        spread = np.sqrt(sums[:, 1] * sums[:, 2])
        return np.asarray(sums[:, 0] / np.where(spread > 1e-12, spread, np.nan))

    return estimate(float(correlation(parts.sum(axis=0)[None])[0]), correlation(case.bootstrap.sums(parts)))


def _reads_images(system: Predictions) -> bool:
    """A system that sees an image and is no baseline; those told age, sex and race are left out."""
    known = system.about.get("kind") == "system" and system.about.get("backbone") is not None
    return known and system.mean is not None and not system.system.startswith("all_")


def _row(
    effect: str, system: str, figure: str, claim: Claim, found: Estimate, planted: float | None = None
) -> Row:  # fmt: skip
    value, low, high = found
    holds: bool | None = None
    if claim != "told":
        known = low is not None and high is not None
        if claim == "covers":
            holds = bool(known and planted is not None and low <= planted <= high)  # type: ignore[operator]
        else:
            holds = bool(known and (low > 0) == (claim == "above"))  # type: ignore[operator]
    return Row(effect, system, figure, claim, planted, value, low, high, holds)


def _failures(rows: Sequence[Row], planted: float) -> list[str]:
    """What does not hold. A planted image effect has to be found by one system at least; several may be blind to it."""
    found = [f"{row.system or 'the cohort'}: {row.figure}" for row in rows if row.claim == "covers" and not row.holds]
    claims = [row for row in rows if row.claim in ("above", "not above")]
    if planted and claims and not any(row.holds for row in claims):
        found.append("no system finds the planted image effect")
    if not planted:
        found += [f"{row.system}: {row.figure}, although none was planted" for row in claims if not row.holds]
    return found


def write(folder: Path, result: Recovery, effects: Mapping[str, float], inputs: Mapping[str, str]) -> None:
    """Write the figures into a folder, as JSON and CSV; `inputs` are SHA-256 of the files that they come from."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(row) for row in result.rows]
    pl.DataFrame(rows, infer_schema_length=None).write_csv(folder / CSV)
    content = {
        "planted": dict(effects), "recovered": result.recovered, "failures": list(result.failures),
        "knees": result.knees, "patients": result.patients, "rows": rows, "inputs": dict(inputs),
    }  # fmt: skip
    (folder / JSON).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
