"""labels.csv of the grader: one row a knee, checked before anything is read of its film."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.errors import DataError
from inference.findings import Side
from training.dicomize import LABEL_COLUMNS
from training.label_csv import grade_of, read_rows, side_of

_UID = re.compile(r"(?=.{1,64}$)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")


@dataclass(frozen=True)
class Label:
    """A knee: its film, the patient, the side, the Kellgren-Lawrence grade 0..4 and the split."""

    sop_instance_uid: str
    patient: str
    side: Side
    kl: int
    split: str


def read_label_table(path: Path) -> list[Label]:
    """The rows of labels.csv, in their order; a film has one row, or one for each of its two knees.

    Raises:
        DataError: the file or a column is missing, or a value cannot be: names row (the header is row 1) and value, but
            never a PatientID.
    """
    found = [_label(where, row) for where, row in read_rows(path, LABEL_COLUMNS)]
    _check_films(path, found)
    return found


def _label(where: str, row: Mapping[str, str]) -> Label:
    uid = row["SOPInstanceUID"]
    if _UID.fullmatch(uid) is None:
        raise DataError(f"{where}: SOPInstanceUID is {uid!r}; it must be a DICOM UID, digits and dots.")
    if not row["PatientID"]:
        raise DataError(f"{where}: PatientID is empty; splits are by patient, so each row needs one.")
    side, grade = side_of(where, row["side"]), grade_of(where, row["kl"])
    if not row["split"]:
        raise DataError(f"{where}: split is empty; name train, val or another one.")
    return Label(uid, row["PatientID"], side, grade, row["split"])


def _check_films(path: Path, labels: Sequence[Label]) -> None:
    """A knee has one row, and the knees of a film are one patient's."""
    rows: dict[tuple[str, Side], int] = {}
    patients: dict[str, tuple[str, int]] = {}
    for number, label in enumerate(labels, start=2):
        uid = label.sop_instance_uid
        first = rows.setdefault((uid, label.side), number)
        if first != number:
            raise DataError(f"{path}, row {number}: SOPInstanceUID {uid}, side {label.side} stands in row {first} too.")
        patient, at = patients.setdefault(uid, (label.patient, number))
        if patient != label.patient:
            raise DataError(f"{path}, row {number}: the film {uid} has another PatientID than in row {at}.")
