"""Series of an export, one row each: what a cohort of MR examinations is made of.

`OUT/cohort.parquet` of such a cohort has one row per series of a knee, sorted by `knee`; docs/cohorts.md says what the
columns are.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from inference.errors import DataError
from training.cohorts.reading import collected
from training.cohorts.rows import open_index

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
_TEXTS = ("StudyInstanceUID", "Modality", "SeriesDescription", "StudyDate", "Laterality")
_ORIENTATION = ("ImageOrientationPatient", "SharedImageOrientationPatient")


def read_series(index: Path) -> pl.DataFrame:
    """The series of an index of `genu-train index`, one row each, sorted by `path`.

    Returns:
        SeriesInstanceUID, StudyInstanceUID, header_patient, Modality, SeriesDescription, StudyDate (text), Laterality;
        path (the folder that all of its files lie in), slices (frames counted), plane (of PLANES, `mixed`, null where
        no orientation is known), unreadable (files of that folder whose header cannot be read).

    Raises:
        DataError: the file is missing, no index, or names no series.
    """
    frame, there = open_index(index)
    texts = [pl.col(name) if name in there else pl.lit(None, pl.String).alias(name) for name in _TEXTS]
    frames = pl.col("NumberOfFrames").fill_null(1).clip(lower_bound=1) if "NumberOfFrames" in there else pl.lit(1)
    uid = pl.col("SeriesInstanceUID") if "SeriesInstanceUID" in there else pl.lit(None, pl.String)
    rows = frame.filter(pl.col("reason").is_null()).select(
        *texts, "SOPInstanceUID", SeriesInstanceUID=uid, header_patient="PatientID", folder=folder(pl.col("path")),
        frames=frames.cast(pl.Int64), plane=plane([pl.col(name) for name in _ORIENTATION if name in there]),
    )  # fmt: skip
    grouped = (
        rows.drop_nulls("SeriesInstanceUID")
        .group_by("SeriesInstanceUID")
        .agg(
            pl.col(*_TEXTS, "header_patient").min(),
            folders=pl.col("folder").unique().sort(),
            slices=pl.when(pl.col("frames").max() > 1).then(pl.col("frames").sum()).otherwise(
                pl.col("SOPInstanceUID").n_unique().cast(pl.Int64)  # a file copied twice is one slice
            ),
            plane=pl.when(pl.col("plane").drop_nulls().n_unique() > 1).then(pl.lit("mixed")).otherwise(
                pl.col("plane").min()
            ),
        )
    )  # fmt: skip
    series = collected(grouped, index, streaming=True)
    if series.is_empty():
        raise DataError(f"{index} names no series: make it again with `genu-train index`.")
    shared = [os.path.commonpath(folders) for folders in series["folders"].to_list()]
    series = series.with_columns(path=pl.Series(shared, dtype=pl.String))
    series = series.join(_unreadable(frame, index), on="path", how="left", maintain_order="left")
    return series.with_columns(pl.col("unreadable").fill_null(0)).drop("folders").sort("path", "SeriesInstanceUID")


def folder(path: pl.Expr) -> pl.Expr:
    """The folder of a path of the index, with slashes; empty at the top."""
    return path.str.replace_all(r"\\", "/").str.replace(r"/?[^/]*$", "")


def plane(orientations: Sequence[pl.Expr]) -> pl.Expr:
    """The plane nearest to Image Orientation (Patient): `axial` and so on, null where there are no six cosines."""
    if not orientations:
        return pl.lit(None, pl.String)
    known = pl.coalesce(*orientations)
    a, b, c, d, e, f = (known.list.get(place, null_on_oob=True) for place in range(6))
    normal = ((b * f - c * e).abs(), (c * d - a * f).abs(), (a * e - b * d).abs())
    largest = pl.max_horizontal(normal)
    nearest = pl.coalesce(
        *(pl.when(part == largest).then(pl.lit(name)) for name, part in zip(PLANES, normal, strict=True))
    )
    return pl.when(pl.all_horizontal(part.is_not_null() for part in normal) & (largest > 0.5)).then(nearest)


def _unreadable(frame: pl.LazyFrame, index: Path) -> pl.DataFrame:
    """Files whose header cannot be read, by folder: path, unreadable."""
    rows = collected(frame.filter(pl.col("reason").is_not_null()).select(path=folder(pl.col("path"))), index)
    return rows.group_by("path").agg(unreadable=pl.len().cast(pl.Int64))
