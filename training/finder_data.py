"""The real images behind the made films: knees, dark ones inverted back, and images that show no frontal knee."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inference.errors import DataError, RefusalError
from inference.findings import Side
from inference.pixels import load_display
from inference.reading import read_instance
from training.crops import CropSet
from training.dicomize import LabelledImage, read_images, read_labels

Image = npt.NDArray[np.float32]

_LARGEST = 512  # pixels of the longer side of an image of no knee
_INVERTED = "looks_inverted"


@dataclass(frozen=True, eq=False)
class Others:
    """Real images without a frontal knee, (rows, columns), 0..1: to learn from, and to measure on."""

    learnt: tuple[Image, ...]
    unseen: tuple[Image, ...]


def bright_boned(knees: CropSet, labels: Path) -> npt.NDArray[np.uint8]:
    """The crops (N, S, S), with those that the CSV's column `looks_inverted` names inverted back.

    Raises:
        DataError: the CSV has no such column.
    """
    dark = _dark_files(labels)
    uids = {row.sop_instance_uid for row in read_labels(labels) if row.file in dark}
    crops = np.array(knees.crops)
    chosen = [number for number, uid in enumerate(knees.uids) if uid in uids]
    crops[chosen] = 255 - crops[chosen]
    return crops


def bright_boned_images(images: Path, labels: Path, split: str) -> tuple[list[LabelledImage], npt.NDArray[np.uint8]]:
    """The rows of one split of the CSV, and their images (N, S, S), each as a left knee with bright bones.

    Raises:
        DataError: a file is missing, the split is empty, or the CSV has no column `looks_inverted`.
    """
    dark = _dark_files(labels)
    rows = [row for row in read_labels(labels) if row.split == split]
    if not rows:
        raise DataError(f"{labels} has no rows of the split {split!r}.")
    found = dict(read_images(images, {row.file: row for row in rows}))
    if lost := [row.file for row in rows if row.file not in found]:
        raise DataError(f"{len(lost)} file(s) of {labels} are not in {images}, the first is {lost[0]!r}.")
    stored = [found[row.file] if row.side is Side.LEFT else found[row.file][:, ::-1] for row in rows]
    return rows, np.stack([255 - x if row.file in dark else x for row, x in zip(rows, stored, strict=True)])


def _dark_files(labels: Path) -> set[str]:
    with labels.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or _INVERTED not in rows[0]:
        raise DataError(f"{labels} has no column {_INVERTED}: add it (1 where bones are dark, else 0).")
    return {row["file"] for row in rows if row[_INVERTED].strip().lower() in ("1", "true")}


def read_others(folders: Sequence[Path]) -> Others:
    """Every readable single-frame DICOM file below the folders; of each folder every other one, by name, is not learnt.

    Raises:
        DataError: there is none.
    """
    read = [[image for path in sorted(folder.rglob("*")) if path.is_file() for image in _display(path)]
            for folder in folders]  # fmt: skip
    most = max(map(len, read))
    if not most:
        raise DataError(f"no readable DICOM image below {', '.join(map(str, folders))}: name other folders.")
    # Slices of one volume must not outnumber the rest: each folder is drawn from about as often.
    learnt = [image for found in read for image in found[::2] * (most // max(1, len(found)))]
    return Others(tuple(learnt), tuple(image for found in read for image in found[1::2]))


def _display(path: Path) -> list[Image]:
    try:
        values = load_display(read_instance(path)).values
    except RefusalError:
        return []
    factor = min(1.0, _LARGEST / max(values.shape))
    shape = (round(values.shape[1] * factor), round(values.shape[0] * factor))
    if min(shape) < 48:
        return []
    return [np.asarray(cv2.resize(values, shape, interpolation=cv2.INTER_AREA), np.float32)]
