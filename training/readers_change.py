"""How great a change must be to be no error of measurement: Parsons' reliable change, from test-retest data.

A change is reliable where |change| / (sqrt(2) SEM) > 1.96, SEM = SD sqrt(1 - r) (Jacobson and Truax 1991, J Consult
Clin Psychol 59:12; Parsons et al. 2009, Int J Neurosci 119:492). SD is that of all measurements; r is the intraclass
correlation for absolute agreement of single measurements, ICC(2,1) of Shrout and Fleiss 1979: unlike Pearson's r it
also counts a shift between the two sessions as error, and a joint space is followed up in another session.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from inference.errors import DataError, UsageError
from training.resampling import Estimate, Floats, PatientBootstrap, estimate

RELIABILITIES: Final = ("icc", "pearson")
_TIMES: Final = 1.96
_LEAST: Final = 3  # knees
_COLUMNS: Final = ("first", "second")
_MOST: Final = 1_000_000  # rows


@dataclass(frozen=True, eq=False)
class TestRetest:
    """Knees measured twice, without a change in between. first, second: (N,) mm. patients: (N,)."""

    __test__ = False  # no test of pytest's

    first: Floats
    second: Floats
    patients: tuple[str, ...]


@dataclass(frozen=True)
class ReliableChange:
    """What follows from test-retest data. sd, sem, limits, cut: mm.

    r: of the kind that was asked for. sem: standard error of measurement. cut: 1.96 sqrt(2) sem, with its interval from
    a bootstrap over patients. repeatability: 1.96 times the standard deviation of the differences (Bland and Altman
    1986), which needs no r and should be near.
    """

    knees: int
    patients: int
    reliability: str
    r: float
    icc: float
    pearson: float
    sd: float
    sem: float
    cut: Estimate
    repeatability: float
    shift: float


def read_test_retest(path: Path) -> TestRetest:
    """A CSV with the columns first and second, mm, and patient where knees of one patient are in several rows.

    Raises:
        DataError: it cannot be read, lacks a column, or holds what is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or ())
            if missing := [name for name in _COLUMNS if name not in names]:
                raise DataError(
                    f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(names) or 'none'}."
                )
            rows = [row for row, _ in zip(reader, range(_MOST), strict=False)]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}): give a CSV with the columns first, second.") from error
    values = np.array([[_number(row[name], place, path) for name in _COLUMNS] for place, row in enumerate(rows, 2)])
    if len(values) < _LEAST:
        raise DataError(f"{path} has {len(values)} knees measured twice: at least {_LEAST} are needed.")
    patients = tuple(row["patient"] or f"row {place}" for place, row in enumerate(rows)) if "patient" in names else (
        tuple(f"row {place}" for place in range(len(rows)))
    )  # fmt: skip
    return TestRetest(values[:, 0], values[:, 1], patients)


def reliable_change(data: TestRetest, *, reliability: str = "icc", rounds: int = 2000, seed: int = 0) -> ReliableChange:
    """The change beyond which 5 % of unchanged knees would lie, half of them as losses.

    Raises:
        UsageError: the kind of reliability is none.
        DataError: all measurements are equal, so that there is nothing to tell.
    """
    if reliability not in RELIABILITIES:
        raise UsageError(f"--reliability {reliability}: one of {', '.join(RELIABILITIES)}.")
    count = len(data.first)
    middle = np.concatenate([data.first, data.second]).mean()  # sums of squares lose fewer digits around it
    x, y = data.first - middle, data.second - middle
    moments = np.stack([np.ones(count), x, y, x**2, y**2, x * y], axis=1)
    bootstrap = PatientBootstrap(data.patients, rounds=rounds, seed=seed)
    sums = np.concatenate([moments.sum(axis=0, keepdims=True), bootstrap.sums(moments)])
    found = _figures(sums)
    r = found[reliability]
    sems = found["sd"] * np.sqrt(np.maximum(1 - r, 0))
    if not found["sd"][0] > 0 or not np.isfinite(r[0]):
        raise DataError("all measurements are equal: a reliability cannot be computed from them.")
    cuts = _TIMES * math.sqrt(2) * sems
    return ReliableChange(
        knees=count, patients=bootstrap.patients, reliability=reliability, r=float(r[0]), icc=float(found["icc"][0]),
        pearson=float(found["pearson"][0]), sd=float(found["sd"][0]), sem=float(sems[0]),
        cut=estimate(float(cuts[0]), cuts[1:]),
        repeatability=_TIMES * float(np.std(data.second - data.first, ddof=1)),
        shift=float(np.mean(data.second - data.first)),
    )  # fmt: skip


def _figures(sums: Floats) -> dict[str, Floats]:
    """SD of all measurements, ICC(2,1) and Pearson's r from sums of 1, x, y, x², y², xy, (R, 6)."""
    n, x, y, xx, yy, xy = sums.T
    grand = (x + y) / (2 * n)
    total = xx + yy - 2 * n * grand**2
    between = (xx + 2 * xy + yy) / 2 - 2 * n * grand**2  # sums of squares: knees, sessions, what is left
    sessions = (x**2 + y**2) / n - 2 * n * grand**2
    with np.errstate(invalid="ignore", divide="ignore"):
        rows, columns = between / (n - 1), sessions
        error = np.maximum(total - between - sessions, 0) / (n - 1)
        icc = (rows - error) / (rows + error + 2 * (columns - error) / n)
        pearson = (xy - x * y / n) / np.sqrt(np.maximum(xx - x**2 / n, 0) * np.maximum(yy - y**2 / n, 0))
        sd = np.sqrt(np.maximum(total, 0) / (2 * n - 1))
    return {"sd": sd, "icc": icc, "pearson": pearson}


def _number(text: str | None, line: int, path: Path) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}, line {line}: {text!r} is no number; take such knees out.")
    return value
