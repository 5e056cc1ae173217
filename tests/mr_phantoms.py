"""Generated MR series of a knee that is no patient's: asymmetric, and taken in any orientation, of either side.

The knee is a function of places in the patient (mm, LPS), a right one the mirror image of a left one. What a series
shows is that function on its grid, so a landmark is where it is however the grid lies.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from tests.phantoms import MR, uid

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
CENTRE = (12.0, -5.0, 8.0)  # of every knee, whichever it is: near the isocentre, so that its place tells no side
# Landmarks of a left knee relative to the centre: lateral is +x, the back +y, the head +z.
LANDMARKS = {"fibula": (24.0, 18.0, -30.0), "patella": (2.0, -34.0, 14.0), "medial spot": (-20.0, 8.0, -12.0)}
_WIDTHS = {"fibula": 7.0, "patella": 8.0, "medial spot": 4.0}
_HEIGHTS = {"fibula": 900.0, "patella": 600.0, "medial spot": 1200.0}
_AXES = {
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "axial": ((1, 0, 0), (0, 1, 0)),
}
_TIMING: dict[str, dict[str, Any]] = {
    "tse": {
        "ScanningSequence": "SE",
        "SequenceVariant": "SK",
        "MRAcquisitionType": "2D",
        "RepetitionTime": 3700,
        "EchoTime": 29,
        "EchoTrainLength": 7,
        "FlipAngle": 180,
    },
    "dess": {
        "ScanningSequence": "GR",
        "SequenceVariant": "SS",
        "MRAcquisitionType": "3D",
        "RepetitionTime": 16.3,
        "EchoTime": 4.7,
        "EchoTrainLength": 1,
        "FlipAngle": 25,
    },
}


@dataclass(frozen=True)
class Grid:
    """How a series is taken.

    flip_across, flip_down: the direction of columns, of rows turned round. transpose: columns run where rows did.
    tilt: degrees by which the whole grid is turned about each axis of the patient, in turn.
    """

    plane: str = "coronal"
    slices: int = 13
    rows: int = 40
    columns: int = 48
    row_mm: float = 3.0
    column_mm: float = 2.5
    step_mm: float = 6.0
    flip_across: bool = False
    flip_down: bool = False
    transpose: bool = False
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def directions(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Unit vectors of increasing columns and rows."""
        across, down = (np.array(axis, float) for axis in _AXES[self.plane])
        if self.transpose:
            across, down = down, across
        across, down = (-across if self.flip_across else across), (-down if self.flip_down else down)
        turn = np.eye(3)
        for axis, degrees in enumerate(self.tilt):
            angle = np.deg2rad(degrees)
            one, other = [index for index in range(3) if index != axis]
            about = np.eye(3)
            about[one, one] = about[other, other] = np.cos(angle)
            about[one, other], about[other, one] = -np.sin(angle), np.sin(angle)
            turn = about @ turn
        return turn @ across, turn @ down

    def positions(self) -> list[npt.NDArray[np.float64]]:
        """Centres of the first pixels, in the order of the normal; the middle of the volume is CENTRE."""
        across, down = self.directions
        normal = np.cross(across, down)
        corner = (
            np.array(CENTRE)
            - across * self.column_mm * (self.columns - 1) / 2
            - down * self.row_mm * (self.rows - 1) / 2
        )
        return [corner + normal * self.step_mm * (index - (self.slices - 1) / 2) for index in range(self.slices)]


def landmark(name: str, side: str) -> npt.NDArray[np.float64]:
    """Where a landmark of a knee is in the patient, mm, LPS."""
    x, y, z = LANDMARKS[name]
    return np.array(CENTRE) + np.array([x if side == "L" else -x, y, z])


def knee_at(points: npt.NDArray[np.float64], side: str) -> npt.NDArray[np.float64]:
    """Signal at places (..., 3): a limb, a darker joint, three landmarks."""
    local = points - np.array(CENTRE)
    if side == "R":
        local = local * [-1, 1, 1]
    x, y, z = local[..., 0], local[..., 1], local[..., 2]
    limb = 300 / (1 + np.exp((np.hypot(x * 1.05, y) - 46) / 2))
    signal = 20 + limb * (1 - 0.5 * np.exp(-((z + 2) ** 2) / 18))
    for name, place in LANDMARKS.items():
        distance = ((local - np.array(place)) ** 2).sum(axis=-1)
        signal = signal + _HEIGHTS[name] * np.exp(-distance / (2 * _WIDTHS[name] ** 2))
    return np.asarray(signal)


def sampled(grid: Grid, side: str) -> npt.NDArray[np.uint16]:
    """The knee on the grid, (slices, rows, columns), in the order of the normal."""
    across, down = grid.directions
    rows = np.arange(grid.rows)[:, None, None] * grid.row_mm * down
    columns = np.arange(grid.columns)[None, :, None] * grid.column_mm * across
    found = [knee_at(position + rows + columns, side) for position in grid.positions()]
    return np.stack(found).round().astype(np.uint16)


def mr_series(
    side: str = "L",
    grid: Grid | None = None,
    *,
    identity: str = "mr",
    description: str = "COR_IW_TSE",
    timing: str = "tse",
    laterality: str | None = "same",
    shuffle: int | None = None,
    pixels: npt.NDArray[np.uint16] | None = None,
    attributes: dict[str, Any] | None = None,
) -> list[Dataset]:
    """A classic MR series, one object a slice, in the order of the normal.

    laterality: what the attribute says; "same" is the side, None leaves it out. shuffle: a seed for Instance Numbers
    in any order. pixels: in place of the knee. attributes: set last on every slice; None removes one.
    """
    grid = grid or Grid()
    volume = sampled(grid, side) if pixels is None else pixels
    numbers = list(range(1, grid.slices + 1))
    if shuffle is not None:
        random.Random(shuffle).shuffle(numbers)
    found = []
    for index, position in enumerate(grid.positions()):
        ds = _common(identity, description, timing, side if laterality == "same" else laterality)
        _set_image(ds, volume[index])
        _identify(ds, MR, uid(identity, "slice", index))
        across, down = grid.directions
        ds.ImageOrientationPatient = [f"{value:.10f}"[:16] for value in (*across, *down)]
        ds.ImagePositionPatient = [f"{value:.8f}"[:16] for value in position]
        ds.PixelSpacing, ds.SliceThickness = [grid.row_mm, grid.column_mm], grid.step_mm / 2
        ds.InstanceNumber = numbers[index]
        _set(ds, attributes)
        found.append(ds)
    return found


def enhanced_series(
    side: str = "L",
    grid: Grid | None = None,
    *,
    identity: str = "enhanced",
    description: str = "COR_IW_TSE",
    timing: str = "tse",
    laterality: str | None = "same",
    stacks: Sequence[Grid] = (),
    shuffle: int | None = None,
    slope: float = 1.0,
    compressed: bool = False,
) -> Dataset:
    """One Enhanced MR object: orientation of a single stack and timing shared, positions and rescaling by frame.

    stacks: further stacks of the same size in the same object. shuffle: a seed for the order of the frames.
    """
    grids = [grid or Grid(), *stacks]
    ds = _common(identity, description, timing, None)
    _identify(ds, ENHANCED_MR, uid(identity, "enhanced"))
    frames = [
        (number, index, position, volume[index])
        for number, one in enumerate(grids)
        for volume in [sampled(one, side)]
        for index, position in enumerate(one.positions())
    ]
    if shuffle is not None:
        random.Random(shuffle).shuffle(frames)
    shared = Dataset()
    shared.MRTimingAndRelatedParametersSequence = [_moved(ds, ("RepetitionTime", "FlipAngle", "EchoTrainLength"))]
    shared.MREchoSequence = [_item(EffectiveEchoTime=float(ds.EchoTime))]
    shared.PixelMeasuresSequence = [
        _item(PixelSpacing=[grids[0].row_mm, grids[0].column_mm], SliceThickness=grids[0].step_mm / 2)
    ]
    said = side if laterality == "same" else laterality
    region = _item(CodeValue="72696002", CodingSchemeDesignator="SCT", CodeMeaning="Knee region")
    anatomy = _item(AnatomicRegionSequence=[region])
    if said is not None:
        anatomy.FrameLaterality = said
    shared.FrameAnatomySequence = [anatomy]
    if len(grids) == 1:
        shared.PlaneOrientationSequence = [_orientation(grids[0])]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [
        _frame(grids[number], number, index, position, slope, oriented=len(grids) > 1)
        for number, index, position, _ in frames
    ]
    for keyword in ("EchoTime", "BodyPartExamined"):
        delattr(ds, keyword)
    _set_image(ds, np.stack([image for _, _, _, image in frames]))
    ds.NumberOfFrames = len(frames)
    if compressed:
        from pydicom.pixels import compress

        compress(ds, RLELossless)
    return ds


def write(series: Sequence[Dataset] | Dataset, folder: Path) -> list[Path]:
    """One file an object; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for ds in [series] if isinstance(series, Dataset) else series:
        path = folder / f"{ds.SOPInstanceUID}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def mirrored(grid: Grid, **changes: Any) -> Grid:
    """The same grid with some of its fields changed."""
    return replace(grid, **changes)


def _common(identity: str, description: str, timing: str, laterality: str | None) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM"]
    ds.StudyDate = ds.SeriesDate = "20240102"
    ds.StudyTime = ds.SeriesTime = "101500"
    ds.AccessionNumber, ds.Modality, ds.Manufacturer = "", "MR", "Phantom"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription, ds.SeriesDescription = "PHANTOM", description
    ds.PatientName, ds.PatientID = f"Phantom^{identity}", f"phantom-{identity}"
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.BodyPartExamined = "KNEE"
    for keyword, value in _TIMING[timing].items():
        setattr(ds, keyword, value)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(identity, "study"), uid(identity, "series")
    ds.FrameOfReferenceUID, ds.StudyID, ds.SeriesNumber = uid(identity, "frame"), "1", 1
    if laterality is not None:
        ds.Laterality = laterality
    return ds


def _identify(ds: Dataset, sop_class: str, sop_instance: str) -> None:
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, sop_instance
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = sop_class, sop_instance
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def _set_image(ds: Dataset, pixels: npt.NDArray[np.uint16]) -> None:
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelData = np.ascontiguousarray(pixels, "<u2").tobytes()


def _set(ds: Dataset, attributes: dict[str, Any] | None) -> None:
    for keyword, value in (attributes or {}).items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _moved(ds: Dataset, keywords: Sequence[str]) -> Dataset:
    item = _item(**{keyword: ds[keyword].value for keyword in keywords})
    for keyword in keywords:
        delattr(ds, keyword)
    return item


def _orientation(grid: Grid) -> Dataset:
    across, down = grid.directions
    return _item(ImageOrientationPatient=[f"{value:.10f}"[:16] for value in (*across, *down)])


def _frame(grid: Grid, stack: int, index: int, position: Any, slope: float, *, oriented: bool) -> Dataset:
    frame = _item(
        FrameContentSequence=[
            _item(StackID=str(stack + 1), InStackPositionNumber=index + 1, DimensionIndexValues=[stack + 1, index + 1])
        ],
        PlanePositionSequence=[_item(ImagePositionPatient=[f"{value:.8f}"[:16] for value in position])],
        PixelValueTransformationSequence=[_item(RescaleSlope=slope, RescaleIntercept=0, RescaleType="US")],
    )
    if oriented:
        frame.PlaneOrientationSequence = [_orientation(grid)]
    return frame


__all__ = ["CENTRE", "LANDMARKS", "Grid", "enhanced_series", "landmark", "mr_series", "sampled", "write"]
