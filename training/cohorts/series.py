"""Series of an export, one row each: what a cohort of MR examinations is made of.

`OUT/cohort.parquet` of such a cohort has one row per series of a knee, sorted by `knee`; docs/cohorts.md says what the
columns are.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from inference.errors import DataError
from training.cohorts.rows import read_index

COLUMNS: dict[str, pl.DataType] = {
    "knee": pl.String(),
    "SeriesInstanceUID": pl.String(),
    "StudyInstanceUID": pl.String(),
    "PatientID": pl.String(),
    "path": pl.String(),
    "StudyDate": pl.Date(),
    "sequence": pl.String(),
    "side": pl.String(),
    "visit": pl.Int32(),
    "followup": pl.Int32(),
    "window": pl.String(),
    "slices": pl.Int32(),
    "age": pl.Float64(),
    "sex": pl.String(),
    "race": pl.String(),
    "bmi": pl.Float64(),
    "height": pl.Float64(),
    "weight": pl.Float64(),
    "mjsw": pl.Float64(),
    "kl": pl.Int8(),
    "womac_pain": pl.Float64(),
    "injury": pl.Int8(),
    "surgery": pl.Int8(),
}
CLINICAL = ("age", "sex", "bmi", "height", "weight", "mjsw", "kl", "womac_pain", "injury", "surgery")
PLANES = ("sagittal", "coronal", "axial")  # of a normal along x, y, z of the patient (PS3.3 C.7.6.2.1.1)
_INDEX = (
    "SeriesInstanceUID", "Modality", "SeriesDescription", "StudyDate", "Laterality", "NumberOfFrames",
    "ImageOrientationPatient", "SharedImageOrientationPatient",
)  # fmt: skip


def read_series(index: Path) -> pl.DataFrame:
    """The series of an index of `genu-train index`, one row each, sorted by `path`.

    Returns:
        SeriesInstanceUID, StudyInstanceUID, header_patient, Modality, SeriesDescription, StudyDate (text), Laterality;
        path (the folder that all of its files lie in), slices (frames counted), plane (of the first file that has an
        orientation, null where none has), unreadable (files of that folder whose header cannot be read).

    Raises:
        DataError: the file is missing, no index, or an index without SeriesInstanceUID.
    """
    rows = read_index(index, optional=_INDEX)
    if rows.is_empty() or rows["SeriesInstanceUID"].null_count() == len(rows):
        raise DataError(f"{index} names no series: make it again with `genu-train index`.")
    orientation = pl.coalesce(*(_numbers(rows, name) for name in _INDEX[-2:]))
    rows = rows.drop_nulls("SeriesInstanceUID").with_columns(
        orientation=orientation, folder=folder(pl.col("path")),
        frames=pl.col("NumberOfFrames").cast(pl.Int64).fill_null(1).clip(lower_bound=1),
    )  # fmt: skip
    first = [pl.col(name).drop_nulls().first() for name in ("StudyInstanceUID", "Modality", "SeriesDescription")]
    grouped = rows.group_by("SeriesInstanceUID", maintain_order=True).agg(
        *first,
        pl.col("StudyDate", "Laterality").drop_nulls().first(),
        header_patient=pl.col("PatientID").drop_nulls().first(),
        orientation=pl.col("orientation").drop_nulls().first(),
        folders=pl.col("folder").unique().sort(),
        slices=pl.col("frames").sum(),
    )
    shared = [os.path.commonpath(folders) if len(folders) > 1 else folders[0] for folders in grouped["folders"]]
    planes = [plane(values) for values in grouped["orientation"].to_list()]
    series = grouped.with_columns(path=pl.Series(shared, dtype=pl.String), plane=pl.Series(planes, dtype=pl.String))
    series = series.join(_unreadable(index), on="path", how="left", maintain_order="left")
    return series.with_columns(pl.col("unreadable").fill_null(0)).drop("folders", "orientation").sort("path")


def folder(path: pl.Expr) -> pl.Expr:
    """The folder of a path of the index, with slashes; empty at the top."""
    return path.str.replace_all(r"\\", "/").str.replace(r"/?[^/]*$", "")


def plane(orientation: Sequence[float | None] | None) -> str | None:
    """The plane nearest to six direction cosines (Image Orientation (Patient)), null where there are none."""
    if orientation is None or len(orientation) != 6 or None in orientation:
        return None
    cosines: Any = np.asarray(orientation, float)
    normal = np.abs(np.cross(cosines[:3], cosines[3:]))
    return PLANES[int(normal.argmax())] if np.isfinite(normal).all() and normal.max() > 0.5 else None


def _numbers(rows: pl.DataFrame, name: str) -> pl.Expr:
    """A column of lists; an index that has it not gives empty ones."""
    kind = pl.List(pl.Float64())
    return pl.col(name) if rows.schema[name] == kind else pl.lit(None, kind)


def _unreadable(index: Path) -> pl.DataFrame:
    """Files whose header cannot be read, by folder: path, unreadable."""
    rows = pl.scan_parquet(index).filter(pl.col("reason").is_not_null()).select(path=folder(pl.col("path"))).collect()
    return rows.group_by("path").agg(unreadable=pl.len().cast(pl.Int64))
