"""Films of an OAI export: whose they are, of which visit, of which series, and which of a visit's films is meant.

The OAI's folders are `{visit}m/{group}/{ID}/{YYYYMMDD}/{8 digits}/001`; a contents.csv beside the groups has, for each
folder of a series, ParticipantID, StudyDate, Barcode (or AccessionNumber) and SeriesDescription.
"""

from pathlib import Path

import polars as pl

from inference.errors import DataError
from training.cohorts.columns import with_dates
from training.cohorts.reading import collected, scan
from training.cohorts.rows import read_index

_MONTHS = (0, 12, 24, 36, 48, 72, 96)
_SERIES = r"(?i)bilateral\s+pa\s+fixed\s+flexion"


def read_images(
    index: Path, export: Path, films: pl.DataFrame, unread: dict[str, int]
) -> tuple[pl.DataFrame, list[Path]]:
    """The films of an export, and the contents.csv files that were read.

    Args:
        index: of `genu-train index`.
        export: the folder that was indexed.
        films: PatientID, visit (months) and barcode of the films that were read.
        unread: gets the counts of dates that cannot be read.

    Returns:
        SOPInstanceUID, StudyInstanceUID, path, PatientID, StudyDate, visit (months, null where not known or without
        readings), fixed_flexion, chosen_film.

    Raises:
        DataError: nothing says which series a film is of, no film is of a visit with readings, or a contents.csv or
            most of its dates cannot be read.
    """
    rows = read_index(index, optional=("StudyDate", "SeriesDescription", "AccessionNumber"))
    rows = with_dates(rows, ["StudyDate"], index.name, unread, strict=False)
    contents, listed = read_contents(export, unread)
    folder = pl.col("path").str.replace_all(r"\\", "/").str.replace(r"/[^/]*$", "")
    rows = rows.with_columns(folder=folder).join(contents, on="folder", how="left", maintain_order="left")
    series = pl.coalesce("listed_series", "SeriesDescription").str.strip_chars()
    rows = rows.with_columns(
        PatientID=pl.coalesce("participant", pl.col("path").str.extract(r"(?:^|/)(9\d{6})/", 1), "PatientID"),
        StudyDate=pl.coalesce("listed_date", "StudyDate"),
        film=_barcode(pl.coalesce("listed_barcode", "AccessionNumber")),
        fixed_flexion=series.str.contains(_SERIES),
        path_visit=pl.col("path").str.extract(r"(?:^|/)(\d\d)m/", 1).cast(pl.Int32),
    )
    if rows["fixed_flexion"].null_count() == len(rows):
        raise DataError(
            f"nothing says of which series the films of {export} are: neither its index has SeriesDescription nor has "
            "the export a contents.csv."
        )
    read = films.with_columns(_barcode(pl.col("barcode")), pl.col("visit").cast(pl.Int32))
    return _chosen(rows, read, export), listed


def _barcode(column: pl.Expr) -> pl.Expr:
    """Without leading zeros, which some tables lose."""
    return column.str.strip_chars().str.strip_chars_start("0")


def read_contents(export: Path, unread: dict[str, int]) -> tuple[pl.DataFrame, list[Path]]:
    """The contents.csv files of an export: folder, participant, listed_date, listed_barcode, listed_series.

    Raises:
        DataError: one of them cannot be read or lacks a column, or most dates cannot be read.
    """
    listed = sorted(path for depth in ("", "*/", "*/*/") for path in export.glob(f"{depth}contents.csv"))
    parts = []
    for path in listed:
        table = scan(
            path, ("Folder", "ParticipantID", "StudyDate", "SeriesDescription"), ("Barcode", "AccessionNumber")
        )
        above = path.parent.relative_to(export).as_posix()
        prefix = "" if above == "." else f"{above}/"
        chosen = (
            table.select(
                folder=pl.lit(prefix) + pl.col("Folder").str.replace_all(r"\\", "/").str.strip_chars("/"),
                participant="ParticipantID",
                listed_date="StudyDate",
                listed_barcode=pl.coalesce("Barcode", "AccessionNumber"),
                listed_series="SeriesDescription",
            )
        )  # fmt: skip
        parts.append(collected(chosen, path))
    names = ("folder", "participant", "listed_date", "listed_barcode", "listed_series")
    nothing = pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    rows = pl.concat([nothing, *parts]).unique("folder", keep="first", maintain_order=True)
    return with_dates(rows, ["listed_date"], "contents.csv", unread), listed


def _chosen(rows: pl.DataFrame, read: pl.DataFrame, export: Path) -> pl.DataFrame:
    """Adds `visit` and `chosen_film`: the film with the barcode of the readings, else the last of its visit."""
    known = read["visit"].unique().to_list()
    by_film = read.select("PatientID", film="barcode", film_visit="visit").unique(["PatientID", "film"])
    rows = rows.join(by_film, on=["PatientID", "film"], how="left", maintain_order="left")
    visit = pl.coalesce("path_visit", "film_visit")
    visit = pl.when(visit.is_in(known) & visit.is_in(_MONTHS)).then(visit)
    rows = rows.with_columns(
        visit=visit, was_read=pl.col("film_visit").is_not_null().and_(pl.col("film_visit") == visit)
    )
    if rows["visit"].null_count() == len(rows):
        raise DataError(
            f"no film of {export} is of a visit with readings ({', '.join(map(str, sorted(known)))} months): the "
            "visit is the folder (00m, 12m, ...), or follows from the barcode of the readings."
        )
    of_series = pl.col("fixed_flexion").fill_null(value=False)
    group = ["PatientID", "visit"]
    last = pl.col("path") == pl.col("path").filter(of_series).max().over(group)
    any_read = (pl.col("was_read").fill_null(value=False) & of_series).any().over(group)
    chosen = pl.when(any_read).then(pl.col("was_read").fill_null(value=False)).otherwise(last.fill_null(value=False))
    return rows.with_columns(chosen_film=chosen & of_series).select(
        "SOPInstanceUID", "StudyInstanceUID", "path", "PatientID", "StudyDate", "visit", "fixed_flexion", "chosen_film"
    )
