"""labels.csv of the grader: one row a knee, checked before anything is read of its film."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.errors import DataError
from inference.findings import Side
from training.dicomize import LABEL_COLUMNS

_GRADE = re.compile(r"([0-4])(?:\.0*)?")
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
    if not path.is_file():
        raise DataError(f"the label table {path} is missing: it has the columns {', '.join(LABEL_COLUMNS)}.")
    try:
        # Spreadsheets put a byte order mark in front.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in LABEL_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(reader.fieldnames or ())}."
                )
            found = [_label(f"{path}, row {number}", row) for number, row in enumerate(reader, start=2)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no CSV in UTF-8 ({error}): save it as one.") from error
    if not found:
        raise DataError(f"{path} has no row: write one a knee.")
    _check_films(path, found)
    return found


def _label(where: str, row: Mapping[str, str | None]) -> Label:
    values = {name: (row[name] or "").strip() for name in LABEL_COLUMNS}
    uid, grade = values["SOPInstanceUID"], _GRADE.fullmatch(values["kl"])
    if _UID.fullmatch(uid) is None:
        raise DataError(f"{where}: SOPInstanceUID is {uid!r}; it must be a DICOM UID, digits and dots.")
    if not values["PatientID"]:
        raise DataError(f"{where}: PatientID is empty; splits are by patient, so each row needs one.")
    if values["side"] not in ("L", "R"):
        raise DataError(
            f"{where}: side is {values['side']!r}; it must be L or R (a film of both knees has a row for each)."
        )
    if grade is None:
        raise DataError(f"{where}: kl is {values['kl']!r}; it must be a grade 0 to 4. Leave out knees without one.")
    if not values["split"]:
        raise DataError(f"{where}: split is empty; name train, val or another one.")
    return Label(uid, values["PatientID"], Side(values["side"]), int(grade[1]), values["split"])


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
