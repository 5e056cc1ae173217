"""The knees of an indexed export as crops in memory, by the same selection, pixels and cropping as inference.

Kept beside the run as one .npy file, keyed by the files and by everything that decides the crops.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.errors import DataError, RefusalError
from inference.pixels import load_display
from inference.preprocess import PreprocessSpec, prepare, whole
from inference.reading import StudyInput, read_instance
from inference.studies import select
from training.dicomize import LABEL_COLUMNS

_VERSION = 2


@dataclass(frozen=True, eq=False)
class CropSet:
    """Knees: `crops` uint8 (N, S, S) on the canonical side, `grades` (N,), patients and SOP Instance UIDs."""

    crops: npt.NDArray[np.uint8]
    grades: npt.NDArray[np.int64]
    subjects: tuple[str, ...]
    sides: tuple[str, ...]
    uids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.grades)

    def where(self, mask: Sequence[bool]) -> "CropSet":
        """The knees for which `mask` is true."""
        rows = np.flatnonzero(np.asarray(mask))
        return CropSet(
            self.crops[rows],
            self.grades[rows],
            *(tuple(values[i] for i in rows) for values in (self.subjects, self.sides, self.uids)),
        )


def read_label_table(path: Path) -> dict[str, dict[str, str]]:
    """SOP Instance UID to row of labels.csv.

    Raises:
        DataError: the file or a column is missing.
    """
    if not path.is_file():
        raise DataError(f"the label table {path} is missing: it has the columns {', '.join(LABEL_COLUMNS)}.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in LABEL_COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(reader.fieldnames or ())}."
            )
        return {row["SOPInstanceUID"]: row for row in reader}


def load_crops(
    export: Path,
    index: Sequence[dict[str, Any]],
    labels: dict[str, dict[str, str]],
    cache: Path,
    *,
    spec: PreprocessSpec = PreprocessSpec(),  # noqa: B008 - frozen
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, CropSet]:
    """Crops of all labelled knees, by split.

    Raises:
        DataError: no labelled image is in the index, a labelled image is refused by the selection, or its header
            names another side than the label.
    """
    rows = [row for row in index if row["SOPInstanceUID"] in labels]
    if not rows:
        raise DataError(f"none of the {len(labels)} labelled images is in the index of {export}: index that export.")
    crops = _cached(export, rows, labels, cache, spec, progress)
    chosen = [labels[row["SOPInstanceUID"]] for row in rows]
    everything = CropSet(
        crops,
        np.asarray([int(row["kl"]) for row in chosen], np.int64),
        tuple(row["PatientID"] for row in chosen),
        tuple(row["side"] for row in chosen),
        tuple(row["SOPInstanceUID"] for row in chosen),
    )
    splits = sorted({row["split"] for row in chosen})
    return {split: everything.where([row["split"] == split for row in chosen]) for split in splits}


def _cached(
    export: Path,
    rows: Sequence[dict[str, Any]],
    labels: dict[str, dict[str, str]],
    cache: Path,
    spec: PreprocessSpec,
    progress: Callable[[int, int], None] | None,
) -> npt.NDArray[np.uint8]:
    parts = [[row["path"], row["size"], row["mtime_ns"], labels[row["SOPInstanceUID"]]["side"]] for row in rows]
    key = hashlib.sha256(json.dumps([_VERSION, spec.to_json(), parts]).encode()).hexdigest()[:16]
    path = cache / f"crops-{key}.npy"
    if path.exists():
        stored: npt.NDArray[np.uint8] = np.load(path, allow_pickle=False)
        return stored
    crops = np.empty((len(rows), spec.crop_size, spec.crop_size), np.uint8)
    for number, row in enumerate(rows):
        crops[number] = _one(export / row["path"], labels[row["SOPInstanceUID"]]["side"], spec)
        if progress is not None:
            progress(number + 1, len(rows))
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npy")
    np.save(part, crops)
    part.replace(path)
    return crops


def _one(path: Path, side: str, spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    try:
        instance = read_instance(path)
        selection = select(StudyInput(instance.study_instance_uid, (instance,), ()))
        if not selection.candidates:
            raise DataError(f"{path} has a label but is refused: {selection.refusals[0].reason}")
        if (stated := selection.candidates[0].stating.side) != side:
            raise DataError(f"{path}: the label says {side}, the header {stated}.")
        image = load_display(instance)
    except RefusalError as error:
        raise DataError(f"{path} has a label but is refused: {error.refusal.reason}") from error
    values = prepare(image.values, whole(*image.values.shape), spec, mirror=side != spec.canonical_side)
    return np.asarray((values * 255).round(), np.uint8)
