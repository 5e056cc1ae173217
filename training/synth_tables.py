"""The tables of a made MRKR, in the columns of the real one, with the dirt of the real one.

Exact duplicates, empty lateralities, -1, "2.0" for 2, dates of several forms, scores that are none, pains elsewhere.
Nothing of it changes what the rules must keep: a knee's truth is in the plan.
"""

import csv
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from training.synth_films import COLUMNS, ROWS
from training.synth_plan import CODES, Film, Patient
from training.synth_truth import identity, series_uid

FLAGS = (
    "autoimmune", "diabetes", "hypertension", "joint_infection", "knee_osteoarthritis", "knee_osteomyelitis",
    "obesity", "nicotine_use", "trauma_lower_extremity",
)  # fmt: skip
HEADERS = {
    "image_metadata": (
        "empi_anon", "StudyInstanceUID_anon", "SeriesInstanceUID_anon", "SOPInstanceUID_anon", "img_height",
        "img_width", "laterality", "view_position", "horizontal_flip", "weight_bearing", "inverted", "arthroplasty",
        "L_KLG_inference", "R_KLG_inference", "SeriesDescription", "StudyDescription", "StudyDate_anon",
        "age_at_exam", "dicom_path",
    ),
    "pain": ("empi_anon", "pain_location", "knee_pain", "pain_score", "laterality", "date_anon"),
    "demographics": ("empi_anon", "sex", "race", "ethnicity"),
    "ICD": ("empi_anon", "ICD9", "ICD10", "date_anon", "age_at_dx", "DX_LINE", "DX_ICD_SCOPE", *FLAGS),
    "CPT": ("empi_anon", "cpt_code", "cpt_group_modifier", "date_anon", "age_at_procedure"),
}  # fmt: skip
_ICD10 = ("M06.9", "M00.9", "M86.9", "S89.90XA")  # of CODES, in their order
_PLACES = {"R": "right knee", "L": "left knee", "B": "both knees"}
_VIEWS = {"F": "KNEE AP", "L": "KNEE LATERAL", "S": "KNEE SUNRISE", "I": "KNEE OBLIQUE", "E": "KNEE OBLIQUE"}


def write_tables(patients: Sequence[Patient], folder: Path, seed: int) -> dict[str, int]:
    """Write the five tables; returns how many rows each has. The same plan and seed give the same files."""
    rng = np.random.default_rng((seed, 1_000_003))
    rows = {
        "image_metadata": _dirty((_image(p, film, rng) for p in patients for film in p.films), 0.03, rng),
        "pain": _dirty((row for p in patients for row in _pain(p, rng)), 0.25, rng),
        "demographics": _dirty(([p.identifier, _sex(p), p.race, _ethnicity(rng)] for p in patients), 0.02, rng),
        "ICD": _dirty((row for p in patients for row in _codes(p, rng)), 0.1, rng),
        "CPT": _dirty(
            ([p.identifier, "73562", "", f"{p.films[0].day}", str(p.films[0].age)] for p in patients), 0, rng
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in rows.items():
        with (folder / f"MRKR_{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(HEADERS[name])
            writer.writerows(lines)
    return {name: len(lines) for name, lines in rows.items()}


def dicom_path(patient: Patient, film: Film) -> str:
    """Where a film lies below `images/`."""
    return f"{patient.identifier}/{film.study}/{identity(film).sop_uid}.dcm"


def _dirty(rows: Iterable[list[str]], share: float, rng: np.random.Generator) -> list[list[str]]:
    """The rows with some of them a second time, in another order."""
    every = list(rows)
    every += [row for row in every if rng.random() < share]
    return [every[place] for place in rng.permutation(len(every))]


def _image(patient: Patient, film: Film, rng: np.random.Generator) -> list[str]:
    uids = identity(film)
    left, right = ((f"{patient.knees[film.study, side].kl}.0" if film.graded else "") for side in "LR")
    yes = "1.0" if rng.random() < 0.1 else "1"
    return [
        patient.identifier, uids.study_uid, series_uid(film), uids.sop_uid, f"{ROWS}.0",
        f"{COLUMNS * len(film.shows.replace('B', 'RL'))}.0", film.laterality, film.view,
        yes if film.flipped else "0", yes if film.standing else "0", yes if film.inverted else "0",
        film.arthroplasty, left, right, _VIEWS[film.view], "XR KNEE", _written(film.day, rng),
        f"{film.age}.0", dicom_path(patient, film),
    ]  # fmt: skip


def _pain(patient: Patient, rng: np.random.Generator) -> list[list[str]]:
    """The scores that count, and beside them rows that must not: each kind of dirt for some patients."""
    who, day = patient.identifier, patient.films[0].day
    rows = [[who, _PLACES[s.laterality], "1", str(s.score), s.laterality, _written(s.day, rng)] for s in patient.scores]
    wrong = [
        [who, "", "0", "7", "", _written(day, rng)],
        [who, "low back", "0", "9", "", _written(day, rng)],
        [who, "right shoulder", "0", "8", "R", _written(day, rng)],
        [who, "left knee", "1", "-1", "L", _written(day, rng)],
        [who, "left knee", "1", "", "L", _written(day, rng)],
        [who, "knee", "1", "11", "B", _written(day, rng)],
        [who, "knee", "1", "6", "-1", _written(day, rng)],
        [who, "right knee", "1", "10", "R", ""],
    ]
    return rows + [row for row in wrong if rng.random() < 0.3]


def _codes(patient: Patient, rng: np.random.Generator) -> list[list[str]]:
    """The flagged codes, and others that no rule asks for."""
    rows = []
    for name, day in patient.codes:
        rows.append(_code(patient, _ICD10[CODES.index(name)], day, [str(int(flag == name)) for flag in FLAGS], rng))
    for flag, code in (("hypertension", "I10"), ("diabetes", "E11.9"), ("knee_osteoarthritis", "M17.0"), ("", "--")):
        day = patient.films[0].day + timedelta(days=int(rng.integers(-60, 60)))
        rows.append(_code(patient, code, day, [str(int(flag == name)) for name in FLAGS], rng))
    return rows


def _code(patient: Patient, code: str, day: date, flags: list[str], rng: np.random.Generator) -> list[str]:
    age = str(patient.films[0].age)
    return [patient.identifier, "--", code, _written(day, rng), age, "Secondary", "Billing Diagnosis", *flags]


def _written(day: date, rng: np.random.Generator) -> str:
    """A date: as the real tables have it, and now and then in another form."""
    return (
        f"{day:%Y-%m-%d}" if rng.random() < 0.9 else f"{day:{rng.choice(['%Y%m%d', '%m/%d/%Y', '%Y-%m-%d 00:00:00'])}}"
    )


def _sex(patient: Patient) -> str:
    return "Female" if patient.sex == "F" else "Male"


def _ethnicity(rng: np.random.Generator) -> str:
    return str(rng.choice(["Non-Hispanic or Latino", "Hispanic or Latino", "Unknown"], p=[0.8, 0.03, 0.17]))
