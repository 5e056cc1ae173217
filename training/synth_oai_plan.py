"""Made participants for a made OAI: what is true of their knees, and what becomes of each series of each visit.

Everything that a rule may stumble over occurs on either side of its edge: changes of -0.499 and -0.5 mm, scores of 1
and 1.5 points, series of 3 slices, rescans of which the later one is broken. A knee's joint space narrows, and it
hurts, by the planted effects and by nothing else. Lengths are whole micrometres, so that labels have no rounding.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from types import MappingProxyType

import numpy as np

from inference.errors import UsageError

VISITS = {"00": 0, "01": 12, "03": 24, "05": 36, "06": 48}  # the last one has no tables
TABLES = ("00", "01", "03", "05")
SEQUENCES = ("COR_IW_TSE", "SAG_IW_TSE", "SAG_3D_DESS")
LEAST = 11  # slices of a series that may stay
ABORTED = 3  # slices of a scan that was given up, of a localiser, of a map
MEAN_SPACE = 4.2  # mm; at this joint space the effect `jsw` adds nothing
_EDGES = (-499, -500, -501, -600, -1100, -1101)  # µm of a year
_RACES = (1, 1, 1, 2, 3, 0, None)

EFFECTS: Mapping[str, float] = MappingProxyType({
    "base": -1.5,  # log odds of losing 0.5 mm in a year: joint space 4.2 mm, lesion 0.5, age 60, BMI 28
    "jsw": 0.5,  # for each mm of joint space less
    "image": 4.0,  # from no lesion to a full one; seen in the pixels, in no table
    "age": 0.0,  # a decade over 60
    "bmi": 0.0,  # 5 kg/m2 over 28
    "pain_base": -2.5,  # points of WOMAC pain at KL 0 without lesion
    "pain_image": 6.0,  # points from no lesion to a full one
    "pain_kl": 0.5,  # points a KL grade
    "pain_noise": 1.5,  # standard deviation in points
})  # fmt: skip


@dataclass(frozen=True)
class KneeVisit:
    """A knee at a visit.

    lesion 0..1; space is the minimum medial joint space in µm, None where it was not measured; kl None where not read;
    pain in points (halves occur), None where not asked; risk is the planted probability of losing 0.5 mm in the year to
    come, None where it cannot be had.
    """

    lesion: float
    drawn_space: int
    space: int | None
    kl: int
    kl_read: bool
    pain: float | None
    risk: float | None


@dataclass(frozen=True)
class Scan:
    """A series: where it lies, what its header and the contents.csv say, what is drawn.

    `sequence` is what is drawn, "" for a localiser, "film" for a radiograph; `header` and `listed` are the
    descriptions, None where there is none; `broken` has a slice that cannot be read; `lesion` is that of the pixels.
    """

    visit: str
    side: str
    sequence: str
    number: int
    header: str | None
    listed: str | None
    slices: int
    lesion: float
    broken: bool = False
    wrong_plane: bool = False


@dataclass
class Participant:
    """A made participant.

    `weight` is in kg by visit, None where not measured; `tables` says at which visits there is a row of clinical
    variables; `history` has injury_R and the like, None where not answered.
    """

    number: int
    sex: str
    race: int | None
    age: int
    height: int
    group: str
    first_day: date
    weight: dict[str, float | None] = field(default_factory=dict)
    tables: dict[str, bool] = field(default_factory=dict)
    history: dict[str, int | None] = field(default_factory=dict)
    knees: dict[tuple[str, str], KneeVisit] = field(default_factory=dict)
    scans: list[Scan] = field(default_factory=list)

    @property
    def identifier(self) -> str:
        """Seven digits from 9000000 on, as the OAI has."""
        return str(9_000_000 + 7 * self.number + 99)

    def bmi(self, visit: str) -> float | None:
        """kg/m2: with one decimal as in the tables, or, where they have none, from weight and height."""
        weight = self.weight[visit]
        if weight is None:
            return None
        bmi = weight / (self.height / 1000) ** 2
        return round(bmi, 1) if self.has_bmi(visit) else round(bmi, 6)

    def has_bmi(self, visit: str) -> bool:
        """Whether the tables have it."""
        return (self.number + VISITS[visit] // 12) % 9 != 0

    def day(self, visit: str) -> date:
        """The day of a visit."""
        return self.first_day + timedelta(days=round(VISITS[visit] * 30.44) + (self.number * 7) % 11)


def effects(changes: Mapping[str, float] | None = None) -> dict[str, float]:
    """The planted effects, some of them changed.

    Raises:
        UsageError: a name is none, a value is no number, or the noise is negative.
    """
    unknown = sorted(set(changes or {}) - set(EFFECTS))
    if unknown:
        raise UsageError(f"there is no effect {', '.join(unknown)}; there are {', '.join(EFFECTS)}.")
    result = {**EFFECTS, **(changes or {})}
    if odd := [name for name, value in result.items() if not math.isfinite(value)]:
        raise UsageError(f"the effect {odd[0]} is {result[odd[0]]}; it must be a finite number.")
    if result["pain_noise"] < 0:
        raise UsageError(f"the effect pain_noise is {result['pain_noise']}; it is a standard deviation, 0 or more.")
    return result


def plan(patients: int, seed: int, planted: Mapping[str, float], slices: int) -> list[Participant]:
    """The participants; each depends on the seed and its number only. `slices` are those of a TSE series."""
    return [_participant(number, np.random.default_rng((seed, number)), planted, slices) for number in range(patients)]


def _participant(number: int, rng: np.random.Generator, planted: Mapping[str, float], slices: int) -> Participant:
    sex = "F" if rng.random() < 0.58 else "M"
    person = Participant(
        number, sex, _RACES[int(rng.integers(len(_RACES)))], int(rng.integers(45, 80)),
        int(rng.normal(1640 if sex == "F" else 1770, 60)), str(rng.choice(["0.C.2", "0.E.1"])),
        date(2004, 3, 1) + timedelta(days=int(rng.integers(0, 800))),
    )  # fmt: skip
    bmi = float(np.clip(rng.normal(28.5, 4.5), 18, 45))
    for visit in TABLES:
        weight = round(bmi * (person.height / 1000) ** 2 + rng.normal(0, 1.5), 1)
        person.weight[visit] = None if rng.random() < 0.06 else weight
        person.tables[visit] = bool(rng.random() < 0.97)
    for what in ("injury", "surgery"):
        for side in "RL":
            yes = int(rng.random() < (0.25 if what == "injury" else 0.12))
            person.history[f"{what}_{side}"] = None if rng.random() < 0.05 else yes
    for side in "RL":
        _follow(person, side, bmi, rng, planted)
    _scan_visits(person, rng, slices)
    return person


def _follow(person: Participant, side: str, bmi: float, rng: np.random.Generator, planted: Mapping[str, float]) -> None:
    """A knee from visit to visit: each year it loses 0.5 mm or more with the planted probability."""
    lesion, space = float(rng.uniform(0, 1)), int(rng.integers(2500, 6500))
    if rng.random() < 0.02:
        space = 0  # no joint space left: nothing that could narrow
    for visit in TABLES:
        now = float(np.clip(lesion + rng.normal(0, 0.06), 0, 1))
        kl = int(np.clip(np.rint((6.4 - space / 1000) * 0.9 + rng.normal(0, 0.6)), 0, 4))
        pain = planted["pain_base"] + planted["pain_image"] * now + planted["pain_kl"] * kl
        pain = float(np.clip(np.rint(pain + rng.normal(0, planted["pain_noise"])), 0, 19))
        pain += 0.5 * (rng.random() < 0.06)  # an item not answered is filled in by the mean of the others
        chance = _risk(space, now, person.age + VISITS[visit] / 12, bmi, planted)
        change = _change(bool(rng.random() < chance), rng)
        person.knees[visit, side] = KneeVisit(
            round(now, 4), space, None if rng.random() < 0.04 else space, kl, bool(rng.random() < 0.95),
            None if rng.random() < 0.04 else pain, round(chance, 4) if space else None,
        )  # fmt: skip
        space = max(200, space + change) if space else 0


def _risk(space: int, lesion: float, age: float, bmi: float, planted: Mapping[str, float]) -> float:
    odds = planted["base"] + planted["jsw"] * (MEAN_SPACE - space / 1000) + planted["image"] * (lesion - 0.5)
    odds += planted["age"] * (age - 60) / 10 + planted["bmi"] * (bmi - 28) / 5
    return 1 / (1 + math.exp(-odds))


def _change(loses: bool, rng: np.random.Generator) -> int:
    """µm of a year; now and then exactly on an edge of a rule."""
    edges = [edge for edge in _EDGES if (edge <= -500) == loses]
    if rng.random() < 0.12:
        return int(rng.choice(edges))
    if loses:
        return -500 - int(min(rng.exponential(350), 1400))
    return max(-499, int(rng.normal(-40, 170)))


def _scan_visits(person: Participant, rng: np.random.Generator, slices: int) -> None:
    """MR at the first visit and at some of the later ones; the 8-digit numbers ascend in time."""
    for visit, share in {"00": 1.0, "01": 0.45, "03": 0.3, "05": 0.06}.items():
        if rng.random() < share:
            for side in "RL":
                for sequence in SEQUENCES:
                    many = 2 * slices if sequence == "SAG_3D_DESS" else slices
                    _scan(person, visit, side, sequence, many, rng)
            _others(person, visit, rng)
    if rng.random() < 0.06:
        _add(person, rng, "06", "R", SEQUENCES[0], slices, 0.5)


def _scan(person: Participant, visit: str, side: str, sequence: str, slices: int, rng: np.random.Generator) -> None:
    """One series as a rule; some were not taken, some taken twice, some given up, some described badly."""
    lesion = person.knees[visit, side].lesion
    what = rng.random()
    if what < 0.03:
        return
    if what < 0.05:
        _add(person, rng, visit, side, sequence, slices, lesion, said=sequence)
    elif what < 0.06:
        other = sequence + ("_LEFT" if side == "R" else "_RIGHT")
        _add(person, rng, visit, side, sequence, slices, lesion, listed=other)
    elif what < 0.07 and sequence != "SAG_3D_DESS":
        _add(person, rng, visit, side, sequence, slices, lesion, wrong_plane=True)
    elif what < 0.08:
        _add(person, rng, visit, side, sequence, slices, lesion, broken=True)
    else:
        if what < 0.11:  # taken again: the first scan shows something else, and the knee is the last one
            _add(person, rng, visit, side, sequence, slices, float(rng.uniform(0, 1)))
        _add(person, rng, visit, side, sequence, slices, lesion)
        if 0.11 < what < 0.125:
            _add(person, rng, visit, side, sequence, ABORTED, lesion)
        elif 0.125 < what < 0.14:
            _add(person, rng, visit, side, sequence, slices, float(rng.uniform(0, 1)), broken=True)


def _others(person: Participant, visit: str, rng: np.random.Generator) -> None:
    side = str(rng.choice(["R", "L"]))
    if rng.random() < 0.3:
        _add(person, rng, visit, side, "", ABORTED, 0.0, said="3-PLANE LOCALIZER")
    if rng.random() < 0.2:
        _add(person, rng, visit, side, "", ABORTED, 0.0, said="SAG_T2_MAP_" + {"R": "RIGHT", "L": "LEFT"}[side])
    if rng.random() < 0.25:
        _add(person, rng, visit, "", "film", 1, 0.0, said="Bilateral PA Fixed Flexion Knee")


def _add(
    person: Participant, rng: np.random.Generator, visit: str, side: str, sequence: str, slices: int, lesion: float,
    said: str | None = None, listed: str | None = None, broken: bool = False, wrong_plane: bool = False,
) -> None:  # fmt: skip
    """A series with its description in header and list; one of the two is sometimes missing, or in odd white space."""
    name = said or f"{sequence}_{'RIGHT' if side == 'R' else 'LEFT'}"
    header, in_list, luck = name, listed or name, rng.random()
    if listed is None and luck < 0.05:
        header = ""
    written: str | None = in_list if listed or luck < 0.9 else None
    if written and luck > 0.7:
        written = f"{written}  "
    if 0.1 < luck < 0.2:
        header = f" {header.replace('_', ' ')} "
    number = 10_000_000 + person.number * 1000 + 7 * len(person.scans)
    person.scans.append(
        Scan(visit, side, sequence, number, header or None, written, slices, round(lesion, 4), broken, wrong_plane)
    )
