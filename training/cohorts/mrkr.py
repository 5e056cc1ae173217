"""MRKR, the Emory Knee Radiograph dataset (arXiv 2411.00866): its tables to knees with pain scores.

Columns are those of the data description that came with the release; laterality, view, flip, weight-bearing, inversion,
arthroplasty and KL grades there are themselves answers of networks. Dates are shifted per patient, so only differences
of days within a patient mean anything. MRKR_ICD.csv has 22 million rows: it is read lazily, flagged rows only.

What is cleaned, and how it is counted in cohort.json: `_pain` and `_images`.
"""

from pathlib import Path
from typing import Any

import polars as pl

from inference.errors import DataError
from training.cohorts.columns import (
    check_ids,
    coded,
    find_table,
    grade,
    number,
    odd_truth,
    truth,
    with_dates,
    with_truths,
)
from training.cohorts.reading import check_rows, collected, rows, scan
from training.cohorts.rows import Source, joined, one_knee_a_row, read_index

IMAGES = (
    "empi_anon", "StudyInstanceUID_anon", "SeriesInstanceUID_anon", "SOPInstanceUID_anon", "laterality",
    "view_position", "horizontal_flip", "weight_bearing", "inverted", "arthroplasty", "L_KLG_inference",
    "R_KLG_inference", "StudyDate_anon", "age_at_exam", "dicom_path",
)  # fmt: skip
PAIN = ("empi_anon", "pain_location", "knee_pain", "pain_score", "laterality", "date_anon")
DEMOGRAPHICS = ("empi_anon", "sex", "race", "ethnicity")
NEAR_CODES = ("joint_infection", "knee_osteomyelitis", "trauma_lower_extremity")
ICD = ("empi_anon", "date_anon", "autoimmune", *NEAR_CODES)
SAME_DAY = ("mean", "max", "min")

_WORDS = {"LEFT": "L", "RIGHT": "R", "BOTH": "B", "BILATERAL": "B"}
_SIDES: dict[str, str | None] = {"R": "R", "L": "L", "B": "B", "-1": None, "-1.0": None}
_VIEWS: dict[str, str | None] = {**{view: view for view in "FLSIE"}, "-1": None}
_IMPLANTS: dict[str, str | None] = {**{side: side for side in ("R", "L", "B", "NL")}, "0": None, "0.0": None}
_SEXES = {"male": "M", "m": "M", "1: male": "M", "female": "F", "f": "F", "2: female": "F"}


def read(tables: Path, index: Path, export: Path, same_day: str = "mean") -> Source:
    """The knees of MRKR with everything that its rules ask for.

    Args:
        tables: the folder of MRKR_image_metadata.csv, MRKR_pain.csv, MRKR_demographics.csv and MRKR_ICD.csv.
        index: of `genu-train index` over the images.
        export: the folder that was indexed; for messages.
        same_day: what becomes of differing scores of one side on one day.

    Raises:
        DataError: a table or column is missing, empty or cannot be read, a code is unknown, most dates of a column
            cannot be read, or tables and export do not meet.
    """
    if same_day not in SAME_DAY:
        raise DataError(f"same_day is {same_day!r}; it must be one of {', '.join(SAME_DAY)}.")
    paths = {name: find_table(tables, f"MRKR_{name}.csv") for name in ("image_metadata", "pain", "demographics", "ICD")}
    cleaned: dict[str, int] = {}
    unread: dict[str, int] = {}
    headers = read_index(index)
    images = joined(_images(paths["image_metadata"], cleaned, unread), headers, export)
    pairs = images.join(headers.select("SOPInstanceUID", header="PatientID"), on="SOPInstanceUID")
    cleaned["images whose header names another patient"] = pairs.filter(pl.col("header") != pl.col("PatientID")).height
    people = _demographics(paths["demographics"], cleaned)
    check_ids(images["PatientID"], people["PatientID"], paths["demographics"].name)
    images = images.join(people, on="PatientID", how="left", maintain_order="left")
    images = _with_codes(images, paths["ICD"], cleaned, unread)
    knees = one_knee_a_row(images).with_columns(
        kl=pl.when(pl.col("side") == "L").then("kl_left").when(pl.col("side") == "R").then("kl_right"),
        arthroplasty_here=pl.col("arthroplasty").is_not_null()
        & (pl.col("arthroplasty").is_in(["B", "NL"]) | (pl.col("arthroplasty") == pl.col("side"))).fill_null(
            value=True
        ),
    )
    scores = _pain(paths["pain"], cleaned, unread)
    check_ids(images["PatientID"], scores["PatientID"], paths["pain"].name)
    knees = with_nearest(knees, scores, same_day)
    return Source("MRKR", knees, ("pain",), (*paths.values(), index), cleaned, unread=unread)


def _images(path: Path, cleaned: dict[str, int], unread: dict[str, int]) -> pl.DataFrame:
    """One row an image. Exact duplicates are dropped; two different rows of one image are an error."""
    raw = rows(path, IMAGES)
    frame = raw.unique(maintain_order=True)
    cleaned["duplicate image rows dropped"] = len(raw) - len(frame)
    twice = frame.filter(pl.col("SOPInstanceUID_anon").is_duplicated())["SOPInstanceUID_anon"].n_unique()
    if twice:
        raise DataError(f"{path.name}: {twice} SOPInstanceUID_anon have rows that differ; one row an image is meant.")
    for column in ("empi_anon", "SOPInstanceUID_anon", "StudyInstanceUID_anon"):
        if lacking := frame[column].null_count():
            raise DataError(f"{path.name}: {column} is empty in {lacking} row(s).")
    frame = coded(frame, "laterality", _SIDES, path.name)
    frame = coded(frame, "view_position", _VIEWS, path.name)
    frame = coded(frame, "arthroplasty", _IMPLANTS, path.name)
    frame = with_truths(frame, ("horizontal_flip", "weight_bearing", "inverted"), path.name)
    frame = with_dates(frame, ["StudyDate_anon"], path.name, unread)
    result = frame.select(
        pl.col("SOPInstanceUID_anon").alias("SOPInstanceUID"),
        pl.col("StudyInstanceUID_anon").alias("StudyInstanceUID"),
        pl.col("empi_anon").alias("PatientID"),
        pl.col("StudyDate_anon").alias("StudyDate"),
        "laterality", "view_position", "weight_bearing", "arthroplasty",
        flipped=pl.col("horizontal_flip").fill_null(value=False),
        inverted=pl.col("inverted").fill_null(value=False),
        kl_left=grade(pl.col("L_KLG_inference")),
        kl_right=grade(pl.col("R_KLG_inference")),
        age=number(pl.col("age_at_exam"), 0, 130),
    )  # fmt: skip
    cleaned["images of unknown side"] = result["laterality"].null_count()
    cleaned["images without a readable age"] = result["age"].null_count()
    cleaned["images without a readable date"] = result["StudyDate"].null_count()
    return result


def _demographics(path: Path, cleaned: dict[str, int]) -> pl.DataFrame:
    """Sex (M, F) and race of each patient; rows that contradict one another leave both unknown."""
    sex = pl.col("sex").str.to_lowercase().replace_strict(_SEXES, default=None, return_dtype=pl.String)
    race = pl.when(pl.col("race").str.to_lowercase().is_in(["unknown", "unreported", "-1"]).not_()).then(pl.col("race"))
    frame = rows(path, DEMOGRAPHICS).select(PatientID="empi_anon", sex=sex, race=race).drop_nulls("PatientID")
    agreed = [pl.when(pl.col(name).drop_nulls().n_unique() == 1).then(pl.col(name).drop_nulls().first()).alias(name)
              for name in ("sex", "race")]  # fmt: skip
    result = frame.group_by("PatientID").agg(agreed)
    cleaned["patients with contradictory demographics"] = (
        frame.group_by("PatientID").agg(pl.col("sex", "race").drop_nulls().n_unique())
        .filter((pl.col("sex") > 1) | (pl.col("race") > 1)).height
    )  # fmt: skip
    return result


def _with_codes(images: pl.DataFrame, path: Path, cleaned: dict[str, int], unread: dict[str, int]) -> pl.DataFrame:
    """Adds `ever_autoimmune` and for each of NEAR_CODES the days to the nearest code, null where there is none.

    A code whose date cannot be read, or an image without one, counts as near (0 days): it cannot be shown to be far.
    """
    flags = ("autoimmune", *NEAR_CODES)
    check_rows(path, ["empi_anon"])
    set_or_odd = [truth(pl.col(name)).fill_null(value=False) | odd_truth(pl.col(name)) for name in flags]
    flagged = collected(scan(path, ICD).filter(pl.any_horizontal(set_or_odd)).unique(maintain_order=True), path)
    flagged = with_dates(with_truths(flagged, flags, path.name), ["date_anon"], path.name, unread)
    flagged = flagged.rename({"empi_anon": "PatientID", "date_anon": "code_date"}).unique(maintain_order=True)
    check_ids(images["PatientID"], flagged["PatientID"], path.name)
    cleaned["flagged codes without a readable date"] = flagged["code_date"].null_count()
    ever = flagged.filter(pl.col("autoimmune"))["PatientID"].unique()
    images = images.with_columns(ever_autoimmune=pl.col("PatientID").is_in(ever.implode()))
    for name in NEAR_CODES:
        pairs = images.select("SOPInstanceUID", "PatientID", "StudyDate").join(
            flagged.filter(pl.col(name)).select("PatientID", "code_date"), on="PatientID"
        )
        days = (pl.col("code_date") - pl.col("StudyDate")).dt.total_days().abs().fill_null(0)
        nearest = pairs.group_by("SOPInstanceUID").agg(days.min().alias(f"days_to_{name}"))
        images = images.join(nearest, on="SOPInstanceUID", how="left", maintain_order="left")
    return images


def _pain(path: Path, cleaned: dict[str, int], unread: dict[str, int]) -> pl.DataFrame:
    """Scores that say whose and which side's they are, exact duplicates dropped: PatientID, on, side, own, pain.

    Dropped and counted: rows without a side (most of the table), with a side that is none of R, L and B, with a score
    that is no number from 0 to 10 (-1, blanks), without a readable date, of a place that is known not to be a knee
    (knee_pain = 0).
    """
    check_rows(path, ["empi_anon"])
    raw = scan(path, PAIN)
    once = raw.unique()
    side = pl.col("laterality").str.to_uppercase().replace(_WORDS)
    frame = collected(once.filter(side.is_not_null()), path)
    total = collected(raw.select(pl.len()), path).item()
    distinct = collected(once.select(pl.len()), path).item()
    cleaned["duplicate pain rows dropped"] = total - distinct
    cleaned["pain rows without a side dropped"] = distinct - len(frame)
    frame = with_dates(with_truths(frame, ["knee_pain"], path.name), ["date_anon"], path.name, unread)
    frame = frame.select(
        PatientID="empi_anon", on="date_anon", laterality=side, pain=number(pl.col("pain_score"), 0, 10),
        knee="knee_pain",
    )  # fmt: skip
    for what, keep in {
        "of an unknown side": pl.col("laterality").is_in(["R", "L", "B"]),
        "without a score from 0 to 10": pl.col("pain").is_not_null(),
        "without a readable date": pl.col("on").is_not_null(),
        "of another place than a knee": pl.col("knee").fill_null(value=True),
    }.items():
        kept = frame.filter(keep)
        cleaned[f"pain rows {what} dropped"] = len(frame) - len(kept)
        frame = kept
    sides = {"R": ["R"], "L": ["L"], "B": ["L", "R"]}
    expanded = pl.col("laterality").replace_strict(sides, return_dtype=pl.List(pl.String))
    return frame.with_columns(side=expanded, own=pl.col("laterality") != "B").explode("side").drop("laterality", "knee")


def with_nearest(knees: pl.DataFrame, scores: pl.DataFrame, same_day: str) -> pl.DataFrame:
    """Adds `pain`, `days_between` (score minus image) and `pain_distance` of each knee's nearest score.

    Of scores equally near the one on or before the image's day wins; on that day, scores of this side go before scores
    of both; of differing ones left, their mean, maximum or minimum (`same_day`) is taken.
    """
    pairs = knees.select("knee", "PatientID", "side", "StudyDate").join(scores, on=["PatientID", "side"])
    pairs = pairs.with_columns(days_between=(pl.col("on") - pl.col("StudyDate")).dt.total_days()).drop_nulls(
        "days_between"
    )
    for order in (pl.col("days_between").abs(), pl.col("days_between"), pl.col("own").not_()):
        pairs = pairs.filter(order == order.min().over("knee"))
    merged: dict[str, Any] = {"mean": pl.col("pain").mean(), "max": pl.col("pain").max(), "min": pl.col("pain").min()}
    nearest = pairs.group_by("knee").agg(
        merged[same_day].alias("pain"),
        pl.col("days_between").first(),
        pl.col("days_between").first().abs().alias("pain_distance"),
    )
    return knees.join(nearest, on="knee", how="left", maintain_order="left")
