"""A made MRKR with planted effects: DX films, the tables, and the truth (`genu-train synth mrkr`).

OUT/images holds the films, OUT/tables the tables in MRKR's columns, OUT/truth.json what was planted and what the rules
must keep. No patient is in it. The pixels of a flipped or inverted film lie about its header, as those of MRKR do: only
the table says so. The same arguments write the same files.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from inference.errors import UsageError
from training.acceptance_dicom import Encoding, Header, to_dicom
from training.synth_films import draw_film
from training.synth_plan import Film, Patient, effects, plan
from training.synth_tables import dicom_path, write_tables
from training.synth_truth import identity, series_uid, truth

TRUTH = "truth.json"


@dataclass(frozen=True)
class Written:
    """What was written: patients, films on disk, knees that the rules must keep."""

    patients: int
    films: int
    knees: int


def make_mrkr(
    out: Path,
    patients: int = 300,
    seed: int = 0,
    changes: Mapping[str, float] | None = None,
) -> Written:
    """Write a made MRKR into `out`; its images and tables are replaced when they are there.

    Args:
        out: the folder.
        patients: how many.
        seed: decides everything.
        changes: planted effects that differ from `training.synth_plan.EFFECTS`.

    Raises:
        UsageError: no patient is asked for, an effect is none, or `out` holds images or tables of another origin.
    """
    if patients < 1:
        raise UsageError(f"{patients} patients: there must be 1 or more.")
    planted = effects(changes)
    people = plan(patients, seed, planted)
    clear(out)
    written = sum(_write_films(patient, out / "images", seed) for patient in people)
    rows = write_tables(people, out / "tables", seed)
    known = truth(people)
    content = {"source": "made MRKR", "patients": patients, "seed": seed, "effects": planted, "rows": rows, **known}
    (out / TRUTH).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return Written(patients, written, len(known["knees"]))


def clear(out: Path) -> None:
    """Remove an older made export; truth.json, which marks one, is there before anything else is.

    Raises:
        UsageError: there are images or tables that were not made here.
    """
    folders = [out / name for name in ("images", "tables") if (out / name).exists()]
    if folders and not (out / TRUTH).is_file():
        raise UsageError(f"--out {out}: {folders[0]} was not made here and would be deleted; name another folder.")
    for folder in folders:
        shutil.rmtree(folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / TRUTH).write_text('{"source": "unfinished"}\n', encoding="utf-8")


def _write_films(patient: Patient, images: Path, seed: int) -> int:
    written = 0
    for number, film in enumerate(patient.films):
        if film.fate == "lost":
            continue
        path = images / dicom_path(patient, film)
        path.parent.mkdir(parents=True, exist_ok=True)
        if film.fate == "unreadable":
            path.write_bytes(b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL")
        else:
            rng = np.random.default_rng((seed, patient.number, number))
            _dataset(patient, film, rng).save_as(path, enforce_file_format=True)
        written += 1
    return written


def _dataset(patient: Patient, film: Film, rng: np.random.Generator) -> Dataset:
    knees = {side: patient.knees[film.study, side] for side in "LR"}
    encoding = Encoding(
        bits=12 if rng.random() < 0.3 else 8, monochrome1=bool(rng.random() < 0.15), window=True, low=0.02, high=0.95,
        syntax=ExplicitVRLittleEndian,
    )  # fmt: skip
    view = {"L": "LL", "S": ""}.get(film.view, "PA" if film.standing else "AP")
    orientation = ("A", "F") if film.view == "L" else ("L", "F")
    day = f"{film.day:%Y%m%d}"
    attributes = {
        "PatientID": patient.identifier, "PatientName": "SYNTH^FICTITIOUS", "PatientBirthDate": "",
        "PatientSex": patient.sex, "PatientAge": f"{film.age:03d}Y", "Manufacturer": "Genu Synth",
        "SeriesInstanceUID": series_uid(film), "DetectorID": "SYNTH",
        "StudyDate": day, "SeriesDate": day, "AcquisitionDate": day, "ContentDate": day,
    }  # fmt: skip
    header = Header(side=film.shows, orientation=orientation, view=view, study="XR KNEE", attributes=attributes)
    return to_dicom(draw_film(film, knees, rng), header, encoding, identity(film))
