"""MR volumes as NIfTI-1, where they lie in the patient: for other programs and for looking at."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from inference.mr_series import MRSeries
from inference.volumes import source_volume

_NIFTI: Any = nibabel  # its functions are untyped


def write_nifti(series: MRSeries, path: Path) -> None:
    """One series as `.nii.gz`: every slice, as measured, neither mirrored nor corrected.

    Axes are column, row, slice; sform and qform lead to mm to the right, front and head (RAS), in the scanner's frame.
    Whole numbers are kept as int16 where they fit. The same series gives the same bytes.

    Raises RefusalError, UnreadableError and ResourceError as `inference.volumes.prepare_volume`.
    """
    values = source_volume(series)
    fits = float(values.min()) >= -32768 and float(values.max()) <= 32767
    whole = fits and np.array_equal(values, np.round(values))
    voxels: npt.NDArray[Any] = values.astype(np.int16) if whole else values
    affine = series.geometry.nifti_affine
    image = _NIFTI.Nifti1Image(np.ascontiguousarray(voxels.transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=5, mtime=0) as file:
        file.write(image.to_bytes())
    part.replace(path)
