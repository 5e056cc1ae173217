"""Series of an OAI export: whose knee, which side, which sequence, which visit, and which of several scans is the last.

The OAI's folders are `{visit}m/{group}/{ID}/{YYYYMMDD}/{8 digits}/001...`; a contents.csv beside the groups has, for
each folder of a series, ParticipantID, StudyDate, Barcode (or AccessionNumber) and SeriesDescription. Where list and
header name different series, neither is believed.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from inference.errors import DataError
from training.cohorts.columns import with_dates
from training.cohorts.oai_images import read_contents
from training.cohorts.series import read_series

SEQUENCES = {"COR_IW_TSE": "coronal", "SAG_IW_TSE": "sagittal", "SAG_3D_DESS": "sagittal"}
_NAME = rf"^({'|'.join(SEQUENCES)})(?:_(LEFT|RIGHT))?$"


def read_oai_series(
    index: Path, export: Path, visits: Sequence[int], least: int, cleaned: dict[str, int], unread: dict[str, int]
) -> tuple[pl.DataFrame, list[Path]]:
    """The series of an export, and the contents.csv files that were read.

    Args:
        index: of `genu-train index`.
        export: the folder that was indexed.
        visits: months of the visits that have tables.
        least: slices of a series that may be the last one of its kind; an aborted scan does not replace a whole one.
        cleaned: gets the counts of what was odd.
        unread: gets the counts of dates that cannot be read.

    Returns:
        What `read_series` gives, with PatientID, StudyDate, sequence, side, plane_agrees, visit (months, null where not
        known or without tables), last_scan.

    Raises:
        DataError: no series has a description, or none is of a visit with tables.
    """
    series = with_dates(read_series(index), ["StudyDate"], index.name, unread, strict=False)
    contents, listed = read_contents(export, unread)
    at_top = f"{export.resolve().name}/" if export.resolve().name[:2].isdigit() else ""  # an export of one visit
    series = series.join(contents, left_on="path", right_on="folder", how="left", maintain_order="left")
    whole_path = pl.lit(at_top) + pl.col("path") + "/"
    header, list_name = _description("SeriesDescription"), _description("listed_series")
    series = series.with_columns(
        contradicted=(header != list_name).fill_null(value=False), description=pl.coalesce(list_name, header),
        PatientID=pl.coalesce("participant", whole_path.str.extract(r"(?:^|/)(9\d{6})/", 1), "header_patient"),
        StudyDate=pl.coalesce("listed_date", "StudyDate"),
        months=whole_path.str.extract(r"(?:^|/)(\d\d)m/", 1).cast(pl.Int32),
    )  # fmt: skip
    cleaned["series whose header names another series than contents.csv"] = int(series["contradicted"].sum())
    _check(series, export, visits)
    name = pl.when(~pl.col("contradicted")).then(pl.col("description"))
    series = series.with_columns(sequence=name.str.extract(_NAME, 1), side=name.str.extract(_NAME, 2).str.slice(0, 1))
    planes = pl.col("sequence").replace_strict(SEQUENCES, default=None, return_dtype=pl.String)
    series = series.with_columns(
        plane_agrees=pl.col("plane") == planes,
        visit=pl.when(pl.col("months").is_in(list(visits))).then("months"),
    )
    return _with_last(series, least).drop("contradicted", "months", "participant"), listed


def _description(column: str) -> pl.Expr:
    """A series' name in its plain form: "COR IW TSE_left " is COR_IW_TSE_LEFT."""
    plain = pl.col(column).str.strip_chars().str.to_uppercase().str.replace_all(r"[\s_-]+", "_")
    return pl.when(plain != "").then(plain)


def _check(series: pl.DataFrame, export: Path, visits: Sequence[int]) -> None:
    if series["description"].null_count() == len(series):
        raise DataError(
            f"nothing says what the series of {export} are: neither its index has SeriesDescription nor has the export "
            "a contents.csv."
        )
    if not series["months"].is_in(list(visits)).any():
        found = ", ".join(f"{month:02d}m" for month in series["months"].drop_nulls().unique().sort()) or "none"
        raise DataError(
            f"no series of {export} is of a visit with tables ({', '.join(f'{month:02d}m' for month in visits)}): the "
            f"visit is the folder, and the export has {found}."
        )


def _with_last(series: pl.DataFrame, least: int) -> pl.DataFrame:
    """Adds `last_scan`: the last by date and folder of one knee, sequence and visit among those that may be taken."""
    group = ["PatientID", "visit", "side", "sequence"]
    named = pl.all_horizontal(pl.col("Modality") == "MR", *(pl.col(name).is_not_null() for name in group))
    agrees = pl.col("plane_agrees").fill_null(value=True)
    whole = named & agrees & (pl.col("unreadable") == 0) & (pl.col("slices") >= least)
    when = pl.concat_str(pl.col("StudyDate").cast(pl.String).fill_null(""), pl.lit(" "), "path")
    return series.with_columns(last_scan=whole & (when == when.filter(whole).max().over(group)).fill_null(value=False))
