"""Groups of knees in which errors are looked at: age, sex and race as in the paper's figure 2, and the KL grade.

Of Chavoshi et al., knee radiographs to pain scores: signed error by age (under 45, 45 to 70, over 70), sex and race.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

FEW: Final = 10  # patients; below it an interval says little
UNKNOWN: Final = "not known"
_SEXES: Final = {"F": "women", "M": "men"}
_AGES: Final = ("under 45", "45 to 70", "over 70")


@dataclass(frozen=True, eq=False)
class Factor:
    """One way of grouping. groups: their names, in order. places: (N,) the group of each knee."""

    name: str
    groups: tuple[str, ...]
    places: npt.NDArray[np.int64]


def factors_of(knees: pl.DataFrame) -> list[Factor]:
    """The factors for which the table has a column; knees without a value are a group of their own, the last.

    The grade is that which the systems were given (`grade`), or the cohort's own (`kl`).
    """
    found = []
    if "age" in knees.columns:
        ages = [
            None if age is None or not math.isfinite(age) else _AGES[(age >= 45) + (age > 70)]
            for age in knees["age"].to_list()
        ]
        found.append(_factor("age", ages, _AGES))
    if "sex" in knees.columns:
        sexes = [None if sex is None else _SEXES.get(str(sex), str(sex)) for sex in knees["sex"].to_list()]
        found.append(_factor("sex", sexes, (*_SEXES.values(), *_by_size(sexes))))
    if "race" in knees.columns:
        races = [None if race is None else str(race) for race in knees["race"].to_list()]
        found.append(_factor("race", races, _by_size(races)))
    column = "grade" if "grade" in knees.columns else "kl"
    if column in knees.columns:
        grades = [None if grade is None else f"KL {int(grade)}" for grade in knees[column].to_list()]
        found.append(_factor("KL grade", grades, tuple(f"KL {grade}" for grade in range(5))))
    return found


def patients_in(factor: Factor, patients: Sequence[str]) -> list[int]:
    """How many patients have a knee in each group."""
    names = np.asarray(patients, dtype=np.str_)
    return [len(np.unique(names[factor.places == place])) for place in range(len(factor.groups))]


def _factor(name: str, values: Sequence[str | None], order: Sequence[str]) -> Factor:
    there = {UNKNOWN if value is None else value for value in values}
    groups = [group for group in dict.fromkeys((*order, UNKNOWN)) if group in there]
    places = {group: number for number, group in enumerate(groups)}
    codes = [places[UNKNOWN if value is None else value] for value in values]
    return Factor(name, tuple(groups), np.array(codes, np.int64))


def _by_size(values: Sequence[str | None]) -> tuple[str, ...]:
    """Values that there are, the commonest first."""
    names = [value for value in values if value is not None]
    return tuple(sorted(set(names), key=lambda name: (-names.count(name), name)))
