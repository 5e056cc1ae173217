"""From a pixel of a prepared slice to the pixel, the image and the place in the patient that it shows, and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.findings import Box, SourceImage
from inference.mr_geometry import Turn, VolumeGeometry


@dataclass(frozen=True)
class SourcePoint:
    """A place on a source image; whole numbers are centres of pixels. `index` counts slices in order of place."""

    image: SourceImage
    index: int
    row: float
    column: float


@dataclass(frozen=True)
class SliceMap:
    """How prepared slices (S, size, size) lie on their source.

    sources: the image or frame of each prepared slice. indices: its number among the slices in order of place.
    geometry: of the whole source volume. turn: from it to the prepared slices.
    box: the square that the prepared slices show, in source pixels (corners, as `Box` has them).
    """

    sources: tuple[SourceImage, ...]
    indices: tuple[int, ...]
    geometry: VolumeGeometry
    turn: Turn
    box: Box
    size: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` makes the same map of them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SliceMap":
        """Rebuild. Raises KeyError, TypeError or ValueError for values that `to_json` did not make."""
        geometry: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values["geometry"].items()
        }
        return cls(
            sources=tuple(SourceImage(**source) for source in values["sources"]),
            indices=tuple(int(index) for index in values["indices"]),
            geometry=VolumeGeometry(**geometry),
            turn=Turn(**values["turn"]),
            box=Box(**values["box"]),
            size=int(values["size"]),
        )

    @property
    def turned_box(self) -> Box:
        """The same square in the pixels of the turned image."""
        box, geometry = self.box, self.geometry
        rows, columns = geometry.rows, geometry.columns
        if self.turn.transpose:
            box, rows, columns = Box(box.top, box.left, box.bottom, box.right), columns, rows
        left, right = (columns - box.right, columns - box.left) if self.turn.reverse_columns else (box.left, box.right)
        top, bottom = (rows - box.bottom, rows - box.top) if self.turn.reverse_rows else (box.top, box.bottom)
        return Box(left, top, right, bottom)

    def to_source(self, place: int, row: float, column: float) -> SourcePoint:
        """Where a point of prepared slice `place` was taken; whole numbers are centres of pixels on both sides."""
        down, right = (row + 0.5) / self.size, (column + 0.5) / self.size
        if self.turn.reverse_rows:
            down = 1.0 - down
        if self.turn.reverse_columns:
            right = 1.0 - right
        if self.turn.transpose:
            down, right = right, down
        box = self.box
        return SourcePoint(
            self.sources[place],
            self.indices[place],
            box.top + down * box.height - 0.5,
            box.left + right * box.width - 0.5,
        )

    def from_source(self, image: SourceImage, row: float, column: float) -> tuple[tuple[int, ...], float, float]:
        """The prepared slices made of an image (none, one, or two of a short volume), and the row and column there."""
        places = tuple(place for place, source in enumerate(self.sources) if source == image)
        down, right = (row + 0.5 - self.box.top) / self.box.height, (column + 0.5 - self.box.left) / self.box.width
        if self.turn.transpose:
            down, right = right, down
        if self.turn.reverse_rows:
            down = 1.0 - down
        if self.turn.reverse_columns:
            right = 1.0 - right
        return places, down * self.size - 0.5, right * self.size - 0.5

    def to_patient(self, place: int, row: float, column: float) -> tuple[float, float, float]:
        """The same point in the patient: mm, LPS, in the frame of reference of the series."""
        point = self.to_source(place, row, column)
        x, y, z, _ = self.geometry.affine @ (point.index, point.row, point.column, 1.0)
        return float(x), float(y), float(z)

    def back(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A map (h, w), or (S, h, w), over prepared slices as it lies on the source images: stretch it over `box`.

        The inverse of the turn within each image; slices keep their places, `sources` names the image of each.
        """
        rows, columns = self.turn.reverse_rows, self.turn.reverse_columns
        flipped = values[..., :: -1 if rows else 1, :: -1 if columns else 1]
        turned = np.swapaxes(flipped, -1, -2) if self.turn.transpose else flipped
        return np.ascontiguousarray(turned)

    def resampled(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A map (h, w) over a prepared slice, on every pixel of its source image: bilinear; 0 outside of the box."""
        spread = self.back(values)
        rows = _weights(self.geometry.rows, self.box.top, self.box.bottom, spread.shape[0])
        columns = _weights(self.geometry.columns, self.box.left, self.box.right, spread.shape[1])
        result: npt.NDArray[np.float32] = (rows @ spread @ columns.T).astype(np.float32)
        return result


def _weights(pixels: int, start: float, end: float, cells: int) -> npt.NDArray[np.float64]:
    """(pixels, cells): linear interpolation of cells that stretch from start to end, at the centres of pixels."""
    place = (np.arange(pixels) + 0.5 - start) / (end - start) * cells - 0.5
    inside = (place >= -0.5) & (place <= cells - 0.5)
    place = np.clip(place, 0, cells - 1)
    first = np.minimum(np.floor(place).astype(int), max(cells - 2, 0))
    result = np.zeros((pixels, cells))
    at = np.arange(pixels)
    np.add.at(result, (at, first), 1 - (place - first))
    if cells > 1:
        np.add.at(result, (at, first + 1), place - first)
    result[~inside] = 0
    return result
