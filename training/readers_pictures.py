"""What a reader sees of a knee: every slice of its series as measured, as 16-bit PNG without a header of its own.

All knees look like left ones (mirrored as for networks, `inference.mr_geometry.canonical_turn`), so that the side gives
nothing away. A PNG of Genu holds size and grey values and nothing else: no text, no date, no name.
"""

import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference.errors import DataError, RefusalError
from inference.findings import Side
from inference.headers import texts
from inference.mr_geometry import Plane, canonical_turn
from inference.mr_sequences import MRSequence
from inference.mr_series import MRSeries, select_series
from inference.reading import group_studies
from inference.volumes import source_volume
from training.prepared import PreparedStore
from training.readers import Knee

Shown = npt.NDArray[np.uint16]
_WHITE = 65535
_DARK, _BRIGHT = 1.0, 99.5  # percentiles of what was measured that begin as black and white


class UnfitError(DataError):
    """A series that cannot be shown to readers; another knee is drawn."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Slices (S, R, C) in the order and direction in which they are shown, and the size of a pixel, mm."""

    values: Shown
    row_mm: float
    column_mm: float
    edges: tuple[str, str]
    order: tuple[str, str]

    @property
    def window(self) -> tuple[int, int]:
        """The grey values that begin as black and white: percentiles of what lies above the darkest value."""
        inside = self.values[self.values > self.values.min()]
        low, high = np.percentile(inside, (_DARK, _BRIGHT)) if inside.size else (0.0, 1.0)
        return int(low), max(int(np.ceil(high)), int(low) + 1)


def from_series(export: Path, row: dict[str, Any], sequence: MRSequence, *, mirrored: bool = True) -> Pictures:
    """All slices of a cohort's series, from its files.

    Args:
        export: the DICOM export.
        row: of cohort.parquet: SeriesInstanceUID, path, side.
        sequence: that the series must be.
        mirrored: right knees look like left ones; else each knee is seen from the front as it is.

    Raises:
        UnfitError: the series cannot be read, is another one, or its header says that names may be burned in.
        ResourceError: memory or disk are short.
    """
    series = _series(export, row, sequence)
    try:
        values = source_volume(series)
        turn = canonical_turn(series.geometry, series.side, Side.LEFT if mirrored else series.side)
    except RefusalError as error:
        raise UnfitError(error.refusal.reason) from error
    geometry = series.geometry
    sizes = (geometry.column_mm, geometry.row_mm) if turn.transpose else (geometry.row_mm, geometry.column_mm)
    turned = np.ascontiguousarray(turn.apply(_grey(values)))
    outside_left = not mirrored and series.side is Side.RIGHT
    return Pictures(turned, *sizes, *_words(sequence, outside_left=outside_left))


def from_prepared(store: PreparedStore, key: str) -> Pictures:
    """The slices of a network's input, with the side that they were turned to.

    Raises:
        UnfitError: there are none of this series, or they cannot be read.
    """
    try:
        slices, map_ = store.slices([key])[0], store.map(key)
    except DataError as error:
        raise UnfitError("its prepared slices are missing or damaged") from error
    size_mm = map_.box.height * map_.geometry.row_mm / store.spec.size  # a square in the patient
    values = np.round(np.clip(slices.astype(np.float64), 0, 1) * _WHITE).astype(np.uint16)
    outside_left = store.spec.canonical_side is Side.RIGHT
    return Pictures(values, size_mm, size_mm, *_words(store.spec.sequence, outside_left=outside_left))


def write_pictures(folder: Path, pictures: Pictures) -> Knee:
    """Write 001.png, 002.png ... and say what they are; the same pictures give the same bytes.

    Run lengths and Huffman codes suit noise: a quarter of the usual method's time, and files no larger.
    """
    folder.mkdir(parents=True)
    seen = hashlib.sha256()
    for number, values in enumerate(pictures.values, 1):
        drawn = io.BytesIO()
        Image.fromarray(values).save(drawn, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
        seen.update(drawn.getbuffer())
        (folder / f"{number:03d}.png").write_bytes(drawn.getvalue())
    slices, rows, columns = pictures.values.shape
    return Knee(
        slices=slices, rows=rows, columns=columns, row_mm=round(pictures.row_mm, 6),
        column_mm=round(pictures.column_mm, 6), window=pictures.window, edges=pictures.edges, order=pictures.order,
        sha256=seen.hexdigest(),
    )  # fmt: skip


def _series(export: Path, row: dict[str, Any], sequence: MRSequence) -> MRSeries:
    place, uid = PurePosixPath(str(row["path"])), row["SeriesInstanceUID"]
    if place.is_absolute() or ".." in place.parts:
        raise DataError(f"the path of the series {uid} leads out of the export: {str(place)!r}.")
    found = [
        one for study in group_studies([export / place]) for one in study.instances if one.series_instance_uid == uid
    ]
    for one in found:
        if any(said.upper() == "YES" for said in texts(one.header, "BurnedInAnnotation")):  # PS3.3 C.7.6.1.1.1
            raise UnfitError("Burned In Annotation is YES: a name may be in the picture.")
    if not found:
        raise UnfitError("none of its files is in the export, or can be read")
    selection = select_series(found, sequence, side=Side(row["side"]))
    if not selection.chosen:
        raise UnfitError(selection.refusal.reason if selection.refusal is not None else "it holds no MR image")
    return selection.chosen[0]


def _grey(values: npt.NDArray[np.float32]) -> Shown:
    """Whole numbers as they are, from 0 up; others spread over 16 bits."""
    low, high = float(values.min()), float(values.max())
    if high - low <= _WHITE and np.array_equal(values, np.round(values)):
        return (values - min(low, 0.0) if high - min(low, 0.0) <= _WHITE else values - low).astype(np.uint16)
    return np.round((values.astype(np.float64) - low) * (_WHITE / max(high - low, 1e-9))).astype(np.uint16)


def _words(sequence: MRSequence, *, outside_left: bool) -> tuple[tuple[str, str], tuple[str, str]]:
    """What lies at the left and right border of a slice, and at the first and last slice (canonical_turn)."""
    sides = ("lateral", "medial") if outside_left else ("medial", "lateral")
    return (sides, ("front", "back")) if sequence.plane is Plane.CORONAL else (("front", "back"), sides)
