"""Made patients for a made MRKR: what is true of them, decided before a table or a film is written.

Everything that a rule may stumble over occurs on either side of its edge: scores 7 and 8 days off, codes 90 and 91 days
off, patients of 89 and 90 years. Pain follows the planted effects and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from types import MappingProxyType

import numpy as np

from inference.errors import UsageError

RACES = ("Caucasian or White", "African American or Black", "Unknown", "Asian", "Multiple")
_RACE_SHARES = (0.45, 0.38, 0.1, 0.05, 0.02)
CODES = ("autoimmune", "joint_infection", "knee_osteomyelitis", "trauma_lower_extremity")
_CODE_DAYS = (-400, -91, -90, -89, -20, 0, 45, 89, 90, 91, 300)
_PAIN_DAYS = (0, 0, 0, 0, 0, 0, 0, -1, 1, -3, 3, -5, 7, -7, 8, -8, -20, 40)
_AGES = (23, 34, 41, 47, 52, 55, 58, 60, 62, 64, 66, 68, 70, 73, 76, 79, 82, 85, 88, 89, 57, 61, 65, 90, 91)

EFFECTS: Mapping[str, float] = MappingProxyType({
    "base": 1.0,  # points of pain of a man of 60 years, not Black, with KL 0 and without effusion
    "kl": 1.2,  # points a KL grade; seen as narrowing of the joint space
    "image": 2.0,  # points from no effusion to a full one: seen in the pixels, independent of KL
    "age": 0.0,  # points a decade over 60
    "sex": 0.0,  # points for women
    "race": 0.0,  # points for African American or Black patients
    "noise": 1.0,  # standard deviation in points
})  # fmt: skip


@dataclass(frozen=True)
class KneeTruth:
    """One knee at one study: grade 0..4, effusion 0..1, expected pain without noise, the score 0..10 then given."""

    kl: int
    effusion: float
    expected: float
    score: int


@dataclass(frozen=True)
class Film:
    """One image: what its row says, and what becomes of its file ("kept", "lost", "unreadable").

    `laterality` is what the table says (-1 for unknown), `shows` what is drawn.
    """

    name: str
    study: str
    day: date
    age: int
    shows: str
    laterality: str
    view: str
    standing: bool
    flipped: bool
    inverted: bool
    arthroplasty: str
    graded: bool
    fate: str


@dataclass(frozen=True)
class Score:
    """One row of the pain table, before it is dirtied."""

    day: date
    laterality: str
    score: int


@dataclass
class Patient:
    """A made patient: films, scores, codes (name, day), and the truth of each knee of each study."""

    number: int
    sex: str
    race: str
    films: list[Film] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    codes: list[tuple[str, date]] = field(default_factory=list)
    knees: dict[tuple[str, str], KneeTruth] = field(default_factory=dict)

    @property
    def identifier(self) -> str:
        """Eight digits, as empi_anon has."""
        return str(10_000_000 + self.number)


def effects(changes: Mapping[str, float] | None = None) -> dict[str, float]:
    """The planted effects, some of them changed.

    Raises:
        UsageError: a name is none, or the noise is negative.
    """
    unknown = sorted(set(changes or {}) - set(EFFECTS))
    if unknown:
        raise UsageError(f"there is no effect {', '.join(unknown)}; there are {', '.join(EFFECTS)}.")
    result = {**EFFECTS, **(changes or {})}
    if result["noise"] < 0:
        raise UsageError(f"the effect noise is {result['noise']}; it is a standard deviation, 0 or more.")
    return result


def plan(patients: int, seed: int, planted: Mapping[str, float]) -> list[Patient]:
    """The patients; each depends on the seed and its number only."""
    return [_patient(number, np.random.default_rng((seed, number)), planted) for number in range(patients)]


def _patient(number: int, rng: np.random.Generator, planted: Mapping[str, float]) -> Patient:
    sex = "F" if rng.random() < 0.6 else "M"
    patient = Patient(number, sex, str(rng.choice(RACES, p=_RACE_SHARES)))
    age, day = int(rng.choice(_AGES)), date(2008, 1, 1) + timedelta(days=int(rng.integers(0, 1500)))
    grades = {side: int(rng.choice(5, p=(0.25, 0.15, 0.25, 0.2, 0.15))) for side in "LR"}
    for visit in range(int(rng.choice((1, 1, 1, 2)))):
        study = f"{patient.identifier}-{visit}"
        day, age = (day, age) if visit == 0 else (day + timedelta(days=int(rng.integers(500, 900))), age + 2)
        for side in "LR":
            patient.knees[study, side] = _knee(grades[side], age, patient, rng, planted)
            grades[side] = min(4, grades[side] + int(rng.random() < 0.3))
        _films(patient, study, day, age, rng)
        _scores(patient, study, day, rng)
        if rng.random() < 0.12:
            patient.codes.append((str(rng.choice(CODES[1:])), day + timedelta(days=int(rng.choice(_CODE_DAYS)))))
    if rng.random() < 0.06:
        patient.codes.append(("autoimmune", day - timedelta(days=int(rng.integers(0, 3000)))))
    return patient


def _knee(kl: int, age: int, patient: Patient, rng: np.random.Generator, planted: Mapping[str, float]) -> KneeTruth:
    effusion = float(rng.uniform(0, 1))
    expected = planted["base"] + planted["kl"] * kl + planted["image"] * effusion + planted["age"] * (age - 60) / 10
    expected += planted["sex"] * (patient.sex == "F") + planted["race"] * (patient.race == RACES[1])
    score = int(np.clip(np.rint(expected + rng.normal(0.0, planted["noise"])), 0, 10))
    return KneeTruth(kl, round(effusion, 4), round(expected, 4), score)


def _films(patient: Patient, study: str, day: date, age: int, rng: np.random.Generator) -> None:
    """A standing film of both knees as a rule; some studies have other views and films of one knee as well."""
    kinds = [("B", "F", True)]
    if rng.random() < 0.12:
        kinds = [(str(rng.choice(list("LR"))), "F", True)]
    if rng.random() < 0.25:
        kinds.append((str(rng.choice(list("LR"))), str(rng.choice(list("LLSIE"))), False))
    if rng.random() < 0.1:
        kinds.append((str(rng.choice(list("LRB"))), "F", False))
    implant = str(rng.choice(("L", "R", "B", "NL"), p=(0.4, 0.4, 0.15, 0.05))) if rng.random() < 0.12 else "0"
    for number, (shows, view, standing) in enumerate(kinds):
        here = implant if implant in ("NL", "B", "0") or shows in (implant, "B") else "0"
        patient.films.append(
            Film(
                name=f"{study}-{number}", study=study, day=day, age=age, shows=shows,
                laterality="-1" if rng.random() < 0.03 else shows,
                view=view, standing=standing,
                flipped=bool(rng.random() < 0.08), inverted=bool(rng.random() < 0.08), arthroplasty=here,
                graded=shows == "B" and standing and here == "0" and bool(rng.random() < 0.85),
                fate=str(rng.choice(("kept", "lost", "unreadable"), p=(0.96, 0.02, 0.02))),
            )
        )  # fmt: skip


def _scores(patient: Patient, study: str, day: date, rng: np.random.Generator) -> None:
    """Of most knees the score, some days off; sometimes a second one, further off; a few for both knees at once."""
    right, left = patient.knees[study, "R"].score, patient.knees[study, "L"].score
    if right == left and rng.random() < 0.5:
        patient.scores.append(Score(day + timedelta(days=int(rng.choice(_PAIN_DAYS))), "B", right))
        return
    for side, score in (("R", right), ("L", left)):
        if rng.random() < 0.12:
            continue
        off = int(rng.choice(_PAIN_DAYS))
        patient.scores.append(Score(day + timedelta(days=off), side, score))
        if rng.random() < 0.06:  # contradicts it on the same day, for this side or for both
            patient.scores.append(
                Score(day + timedelta(days=off), str(rng.choice([side, "B"])), int(np.clip(score + 2, 0, 10)))
            )
        if rng.random() < 0.2:
            further = (abs(off) + int(rng.integers(1, 30))) * int(rng.choice((-1, 1)))
            patient.scores.append(Score(day + timedelta(days=further), side, int(rng.integers(0, 11))))
