"""A study of a knee MRI with results on it, made by hand: the stand-in of no model, to see how viewers show them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom import Dataset

from dicom_templates.compose import Composed, compose
from inference.findings import Box, Saliency
from inference.mr_findings import VolumeFinding
from tests.dicom_templates.factory import context, raw_file
from tests.dicom_templates.mr_findings import STAND_IN, progression, series, study, volume
from tests.mr_phantoms import Grid

STUDY = "1.2.826.0.1.3680043.8.498.77"
GRID = Grid(slices=13, rows=64, columns=64, row_mm=2.5, column_mm=2.5)
READ = (5, 6, 7, 8)
# Where each slice that was read is hot: row and column of the first pixel of a square.
HOT = {5: (10, 10), 6: (10, 42), 7: (42, 42), 8: (42, 10)}
SIDE = 10  # pixels


def source() -> list[Dataset]:
    """The series, its Instance Numbers against the order of places."""
    headers = series(grid=GRID)
    for number, header in enumerate(headers):
        header.StudyInstanceUID, header.PatientID, header.PatientName = STUDY, "PHANTOM-MR", "PHANTOM^CORONAL"
        header.StudyDate = header.SeriesDate = "20260105"
        header.StudyDescription, header.SeriesDescription = "PHANTOM Knee slices with results", "PHANTOM Knee coronal"
        header.InstanceNumber = len(headers) - number
    return headers


def finding(headers: list[Dataset]) -> VolumeFinding:
    """Squares on four slices, the first of them the hottest."""
    found = volume(headers, grid=GRID, read=READ, outcome=progression(STAND_IN))
    slices = tuple(replace(one, saliency=Saliency(square(one.index), one.saliency.box)) for one in found.slices)
    row, column = HOT[READ[0]]
    region = Box(float(column), float(row), float(column + SIDE), float(row + SIDE))
    return replace(found, slices=slices, peak=0, region=region)


def square(index: int) -> np.ndarray:
    """The saliency of a slice."""
    heat = np.zeros((GRID.rows, GRID.columns), np.float32)
    row, column = HOT[index]
    heat[row : row + SIDE, column : column + SIDE] = 1.0 if index == READ[0] else 0.9
    return heat


def composed(headers: list[Dataset]) -> Composed:
    """What Genu says of it."""
    return compose(study([finding(headers)], headers=headers), headers, context())


def write_mr(folder: Path) -> None:
    """Series and results as files."""
    folder.mkdir(parents=True, exist_ok=True)
    headers = source()
    for dataset in (*headers, *composed(headers).all):
        (folder / f"{dataset.SOPInstanceUID}.dcm").write_bytes(raw_file(dataset))
