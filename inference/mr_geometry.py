"""Where MR slices lie: their order, the volume they make, and how it is turned to look like every other one. Pure.

Millimetres, in coordinates of the patient: x to the left, y to the back, z to the head (LPS, PS3.3 C.7.6.2.1.1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from inference.errors import RefusalError
from inference.findings import RefusalCode, Side
from inference.headers import texts

Matrix = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

_SAME_DIRECTION = 0.9998  # cosine: slices of one volume differ by less than about 1.1 degrees
_SQUARE = 0.01  # of the cosine between the two directions of an image
_STEP = 0.2  # a step that differs from the usual one by more than this part of it is a gap or an overlap
_SIDEWAYS_MM = 1.0  # how far a slice may lie beside the line of the others
_SAME_SPACING = 1e-3
_LARGEST_MM = 1e5
# Of pixels: beyond these it is a slip, and the square of the patient that is read would have millions of rows.
_SPACING_MM = (0.02, 10.0)
_LONGEST_PIXEL = 10.0


class Plane(StrEnum):
    """The plane of slices, by the axis of the patient that their normal is nearest to."""

    SAGITTAL = "sagittal"
    CORONAL = "coronal"
    AXIAL = "axial"


@dataclass(frozen=True)
class Place:
    """Where one image lies (Image Plane module, PS3.3 C.7.6.2).

    `position`: centre of the first pixel; `across`: unit vector of increasing columns; `down`: of increasing rows.
    """

    position: Vector
    across: Vector
    down: Vector
    rows: int
    columns: int
    row_mm: float
    column_mm: float


@dataclass(frozen=True)
class VolumeGeometry:
    """The grid of a volume: `origin` is the centre of the first voxel, `step` leads from slice to slice (mm)."""

    origin: Vector
    step: Vector
    across: Vector
    down: Vector
    slices: int
    rows: int
    columns: int
    row_mm: float
    column_mm: float

    @property
    def affine(self) -> Matrix:
        """4 x 4: (slice, row, column, 1) to patient coordinates in mm, LPS."""
        columns = (self.step, np.multiply(self.down, self.row_mm), np.multiply(self.across, self.column_mm))
        result = np.eye(4)
        result[:3, :3] = np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
        result[:3, 3] = self.origin
        return result

    @property
    def nifti_affine(self) -> Matrix:
        """4 x 4 as NIfTI has it: (column, row, slice, 1) to x right to left, y back to front, z to the head (RAS)."""
        turned = self.affine[:, [2, 1, 0, 3]]
        result: Matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ turned
        return result

    @property
    def spacing(self) -> Vector:
        """Millimetres between slices, rows and columns."""
        return math.hypot(*self.step), self.row_mm, self.column_mm


@dataclass(frozen=True)
class Turn:
    """From a volume as it was taken to one as all others look; undone by `inverse`.

    Axes are (slice, row, column). Transposed first, then reversed, so that the flags speak of the turned volume.
    """

    transpose: bool
    reverse_slices: bool
    reverse_rows: bool
    reverse_columns: bool

    def apply(self, volume: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """A view of (S, R, C) or (R, C), turned; a single image has no slices to reverse."""
        turned = np.swapaxes(volume, -1, -2) if self.transpose else volume
        return turned[self._steps(volume.ndim)]

    def inverse(self, volume: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """A view of a turned (S, R, C) or (R, C) as it was taken."""
        back = volume[self._steps(volume.ndim)]
        return np.swapaxes(back, -1, -2) if self.transpose else back

    def _steps(self, dimensions: int) -> tuple[slice, ...]:
        flags = (self.reverse_slices, self.reverse_rows, self.reverse_columns)[-dimensions:]
        return tuple(slice(None, None, -1 if flag else 1) for flag in flags)


def place_of(header: Dataset, source: str | None = None) -> Place:
    """The place of one image or frame (the attributes of its functional groups beside the others).

    Raises RefusalError INCONSISTENT_GEOMETRY naming the attribute that is missing or makes no sense.
    """
    orientation = _numbers(header, "ImageOrientationPatient", 6, source)
    across, down = _unit(orientation[:3], source), _unit(orientation[3:], source)
    if abs(float(np.dot(across, down))) > _SQUARE:
        raise _wrong("the two directions of ImageOrientationPatient are not at right angles", source)
    x, y, z = _numbers(header, "ImagePositionPatient", 3, source)
    row_mm, column_mm = _numbers(header, "PixelSpacing", 2, source)
    within = all(_SPACING_MM[0] <= value <= _SPACING_MM[1] for value in (row_mm, column_mm))
    if not within or max(row_mm, column_mm) > _LONGEST_PIXEL * min(row_mm, column_mm):
        raise _wrong(f"PixelSpacing is {row_mm:g}\\{column_mm:g}", source)
    rows, columns = header.get("Rows"), header.get("Columns")
    if not (isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0):
        raise _wrong("Rows and Columns do not describe an image", source)
    return Place((x, y, z), across, down, rows, columns, row_mm, column_mm)


def plane_of(place: Place, tolerance_degrees: float = 30.0) -> Plane | None:
    """The plane whose normal lies within the tolerance of that of the image; None for any other oblique one."""
    normal = np.abs(np.cross(place.across, place.down))
    axis = int(np.argmax(normal))
    # A hair more, so that exactly 30 degrees with rounded cosines is within.
    near = math.cos(math.radians(tolerance_degrees)) - 1e-4
    return (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)[axis] if normal[axis] >= near else None


def arrange(places: Sequence[Place]) -> tuple[VolumeGeometry, tuple[int, ...]]:
    """The volume that images make, and their order along its normal: `order[0]` is the index of the first slice.

    Order is by ImagePositionPatient along the normal of the images; Instance Number plays no part (PS3.3 C.7.6.2.1.1).

    Raises RefusalError INCONSISTENT_GEOMETRY: fewer than two slices; sizes, spacings or orientations differ; two slices
    in one place; a slice is missing; slices beside the line of the others.
    """
    if len(places) < 2:
        raise _wrong(f"{len(places)} slice makes no volume")
    first = places[0]
    _check_alike(places)
    normal = np.cross(first.across, first.down)
    along = np.array([float(np.dot(place.position, normal)) for place in places])
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    usual = float(np.median(steps))
    if usual < 1e-3 or float(steps.min()) < 1e-3:
        doubled = 1 + int(np.sum(steps < 1e-3))
        raise _wrong(f"{doubled} of {len(places)} slices lie in one place or in pairs")
    off = int(np.argmax(np.abs(steps - usual)))
    if abs(float(steps[off]) - usual) > _STEP * usual:
        raise _wrong(
            f"slices are {usual:.2f} mm apart, but {steps[off]:.2f} mm between the {off + 1}. and the {off + 2}. of "
            f"{len(places)}: {'a slice is missing' if steps[off] > usual else 'slices overlap'}"
        )
    positions = np.array([places[index].position for index in order])
    step = (positions[-1] - positions[0]) / (len(places) - 1)
    beside = float(np.abs(positions - positions[0] - np.arange(len(places))[:, None] * step).max())
    if beside > max(_SIDEWAYS_MM, _STEP * usual):
        raise _wrong(f"a slice lies {beside:.1f} mm beside the line of the others")
    if float(np.linalg.norm(np.cross(step, normal))) > _STEP * usual:
        raise _wrong("the slices are not stacked along their normal")
    geometry = VolumeGeometry(
        origin=_vector(positions[0]),
        step=_vector(step),
        across=first.across,
        down=first.down,
        slices=len(places),
        rows=first.rows,
        columns=first.columns,
        row_mm=first.row_mm,
        column_mm=first.column_mm,
    )
    return geometry, tuple(int(index) for index in order)


def canonical_turn(geometry: VolumeGeometry, side: Side, canonical_side: Side) -> Turn:
    """How a coronal or sagittal volume is turned so that all knees look like those of `canonical_side`.

    Turned, rows run to the feet. Of coronal volumes slices run to the back and columns to the patient's left; of
    sagittal ones columns run to the back and slices to the patient's left. For a knee of the other side that one axis
    runs to the patient's right instead: its mirror image. Each axis of the patient is that of the grid nearest to it.

    Raises RefusalError WRONG_PLANE for slices of other planes.
    """
    place = Place(
        geometry.origin, geometry.across, geometry.down, geometry.rows, geometry.columns, geometry.row_mm, 1.0
    )
    plane = plane_of(place)
    lateral = np.array([1.0 if side is canonical_side else -1.0, 0.0, 0.0])
    back, feet = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0])
    if plane is Plane.CORONAL:
        slices, columns = back, lateral
    elif plane is Plane.SAGITTAL:
        slices, columns = lateral, back
    else:
        reason = f"The slices are {plane or 'oblique'}: only coronal and sagittal ones are read."
        raise RefusalError(RefusalCode.WRONG_PLANE, reason)
    across, down = np.asarray(geometry.across), np.asarray(geometry.down)
    transpose = abs(float(across @ feet)) > abs(float(down @ feet))
    if transpose:
        across, down = down, across
    return Turn(
        transpose=transpose,
        reverse_slices=float(np.asarray(geometry.step) @ slices) < 0,
        reverse_rows=float(down @ feet) < 0,
        reverse_columns=float(across @ columns) < 0,
    )


def _check_alike(places: Sequence[Place]) -> None:
    first = places[0]
    sizes = sorted({(place.rows, place.columns) for place in places})
    if len(sizes) > 1:
        listed = ", ".join(f"{rows} x {columns}" for rows, columns in sizes[:4])
        raise _wrong(f"the slices have {len(sizes)} different sizes ({listed})")
    for place in places:
        cosines = (np.dot(place.across, first.across), np.dot(place.down, first.down))
        if min(map(float, cosines)) < _SAME_DIRECTION:
            raise _wrong("the slices have different orientations")
        spacings = ((place.row_mm, first.row_mm), (place.column_mm, first.column_mm))
        if not all(math.isclose(one, other, rel_tol=_SAME_SPACING) for one, other in spacings):
            raise _wrong("the slices have different values of PixelSpacing")


def _numbers(header: Dataset, keyword: str, count: int, source: str | None) -> list[float]:
    found = texts(header, keyword)
    if len(found) != count:
        raise _wrong(
            f"{keyword} has {len(found)} values instead of {count}" if found else f"{keyword} is missing", source
        )
    try:
        values = [float(text) for text in found]
    except ValueError:
        raise _wrong(f"{keyword} holds what is no number", source) from None
    if not all(math.isfinite(value) and abs(value) < _LARGEST_MM for value in values):
        raise _wrong(f"{keyword} holds a number that makes no sense", source)
    return values


def _unit(values: Sequence[float], source: str | None) -> Vector:
    length = math.hypot(*values)
    if not 0.9 < length < 1.1:
        raise _wrong("a direction of ImageOrientationPatient is no unit vector", source)
    return values[0] / length, values[1] / length, values[2] / length


def _vector(values: Matrix) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])


def _wrong(what: str, source: str | None = None) -> RefusalError:
    reason = f"The slices make no volume: {what}. Send the whole series again, every slice once."
    return RefusalError(RefusalCode.INCONSISTENT_GEOMETRY, reason, source=source)
