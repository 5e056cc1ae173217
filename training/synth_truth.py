"""What the rules must keep of a made MRKR: worked out from the plan, without tables and without the cohort's code.

Plain loops over patients, films and sides in the order of the published rules, so that the cohort has something
independent to be held against.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.uid import generate_uid

from training.acceptance_dicom import Identity
from training.synth_plan import Film, Patient, Score

RULES = (
    "in the export", "frontal", "weight-bearing", "side known", "age", "no autoimmune disease", "no infection",
    "no osteomyelitis", "no trauma", "no arthroplasty", "pain score of this side", "pain score in time",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One knee of an image; `side` is empty where the table does not know it."""

    patient: Patient
    film: Film
    side: str

    @property
    def uid(self) -> str:
        """The image's SOP Instance UID."""
        return identity(self.film).sop_uid


def identity(film: Film) -> Identity:
    """The UIDs of a film."""
    return Identity(f"synth {film.name}", f"synth {film.study}", 0)


def series_uid(film: Film) -> str:
    """The series of a film: that of its study."""
    return str(generate_uid(entropy_srcs=["genu synth series", film.study]))


def truth(patients: list[Patient], window: int = 7) -> dict[str, Any]:
    """The kept knees with what is true of them, and the counts that each rule leaves.

    Args:
        patients: the plan.
        window: days between image and score.
    """
    rows = [
        Row(patient, film, side)
        for patient in patients
        for film in patient.films
        for side in {"B": "LR", "-1": " "}.get(film.laterality, film.laterality)
    ]
    flow = [{"rule": "source", **_counts(rows)}]
    for name, keeps in _rules(window).items():
        rows = [row for row in rows if keeps(row)]
        flow.append({"rule": name, **_counts(rows)})
    return {"window": window, "flow": flow, "knees": {f"{row.uid}/{row.side}": _entry(row) for row in rows}}


def _rules(window: int) -> Mapping[str, Callable[[Row], bool]]:
    checks: tuple[Callable[[Row], bool], ...] = (
        lambda row: row.film.fate == "kept",
        lambda row: row.film.view == "F",
        lambda row: row.film.standing,
        lambda row: row.film.laterality != "-1",
        lambda row: row.film.age < 90,
        lambda row: all(code != "autoimmune" for code, _ in row.patient.codes),
        lambda row: not _coded(row, "joint_infection"),
        lambda row: not _coded(row, "knee_osteomyelitis"),
        lambda row: not _coded(row, "trauma_lower_extremity"),
        lambda row: row.film.arthroplasty not in (row.side, "B", "NL"),
        lambda row: bool(nearest(row)),
        lambda row: abs(_off(row, nearest(row)[0])) <= window,
    )
    return dict(zip(RULES, checks, strict=True))


def _coded(row: Row, name: str) -> bool:
    return any(code == name and abs((day - row.film.day).days) <= 90 for code, day in row.patient.codes)


def nearest(row: Row) -> list[Score]:
    """The scores that decide: nearest, then earlier, then of this side alone; more than one when they contradict."""
    scores = {score for score in row.patient.scores if score.laterality in (row.side, "B")}
    order = {score: (abs(_off(row, score)), _off(row, score), score.laterality == "B") for score in scores}
    best = min(order.values(), default=None)
    return [score for score, rank in order.items() if rank == best]


def _off(row: Row, score: Score) -> int:
    return (score.day - row.film.day).days


def _entry(row: Row) -> dict[str, Any]:
    knee, scores = row.patient.knees[row.film.study, row.side], nearest(row)
    return {
        "PatientID": row.patient.identifier,
        "side": row.side,
        "age": row.film.age,
        "sex": row.patient.sex,
        "race": row.patient.race,
        "kl": knee.kl,
        "kl_in_table": row.film.graded,
        "flipped": row.film.flipped,
        "inverted": row.film.inverted,
        "effusion": knee.effusion,
        "expected": knee.expected,
        "score": knee.score,
        "pain": sum(score.score for score in scores) / len(scores),
        "days_between": _off(row, scores[0]),
    }


def _counts(rows: list[Row]) -> dict[str, int]:
    return {
        "patients": len({row.patient.number for row in rows}),
        "studies": len({row.film.study for row in rows}),
        "images": len({row.film.name for row in rows}),
        "knees": sum(row.side != " " for row in rows),
    }
