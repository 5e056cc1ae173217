"""What every source gives, and what every cohort is: columns of the knees, the export's index, the files written.

`OUT/cohort.parquet` has one row per knee of an image, sorted by `knee`:

| column | type | meaning |
|---|---|---|
| knee | string | SOPInstanceUID + "/" + side |
| SOPInstanceUID, StudyInstanceUID | string | as in the export |
| path | string | in the export |
| PatientID | string | as in the source's tables; what splits are made by |
| StudyDate | date | of the image, null where nobody says |
| side | string | L or R, the patient's |
| age | float | years at the image, nullable |
| sex | string | M, F or null |
| race | string | the source's own words, nullable |
| kl | int | Kellgren-Lawrence grade 0..4, nullable |
| bilateral | bool | the image shows both knees |
| flipped | bool | the pixels are mirrored: the patient's left is at the left |
| inverted | bool | the pixels are inverted: bone is dark |
| targets (pain, ...) | float | what the source's labels are, nullable but for the first |
| days_between | int | days from the image to the label, negative before it; nullable |
| split | string | only of sources that have one |
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from inference.errors import DataError, UsageError
from training.cohorts import flow
from training.cohorts.columns import sha256
from training.cohorts.made import beside
from training.cohorts.reading import collected
from training.cohorts.rules import Rules, Step, apply

COLUMNS: dict[str, pl.DataType] = {
    "knee": pl.String(),
    "SOPInstanceUID": pl.String(),
    "path": pl.String(),
    "PatientID": pl.String(),
    "StudyInstanceUID": pl.String(),
    "StudyDate": pl.Date(),
    "side": pl.String(),
    "age": pl.Float64(),
    "sex": pl.String(),
    "race": pl.String(),
    "kl": pl.Int8(),
    "bilateral": pl.Boolean(),
    "flipped": pl.Boolean(),
    "inverted": pl.Boolean(),
}
_LAST: dict[str, pl.DataType] = {"days_between": pl.Int32(), "split": pl.String()}  # of sources that have them
_INDEX = ("path", "reason", "SOPInstanceUID", "StudyInstanceUID", "PatientID")


@dataclass(frozen=True)
class Source:
    """What a source found: its knees before any rule, the names of its targets, what was cleaned, the files read.

    `columns` are those of cohort.parquet, with their types, before the targets. `unread` are how many values of a
    table's column could not be read and count as missing; the flow tells them.
    """

    name: str
    knees: pl.DataFrame
    targets: tuple[str, ...]
    inputs: tuple[Path, ...]
    cleaned: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, pl.DataType] = field(default_factory=lambda: dict(COLUMNS))
    unread: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Cohort:
    """The knees that stayed, and the flow that led to them."""

    knees: pl.DataFrame
    steps: list[Step]
    targets: tuple[str, ...]


def read_index(path: Path, optional: Sequence[str] = ()) -> pl.DataFrame:
    """The readable images of an index of `genu-train index`, one row an image.

    Raises:
        DataError: the file is missing or no index.
    """
    frame, there = open_index(path)
    chosen = [*_INDEX, *(name for name in optional if name in there)]
    absent = [pl.lit(None, pl.String).alias(name) for name in optional if name not in there]
    rows = collected(frame.select(chosen).with_columns(absent).filter(pl.col("reason").is_null()), path)
    return rows.drop("reason").sort("path").unique("SOPInstanceUID", keep="first", maintain_order=True)


def open_index(path: Path) -> tuple[pl.LazyFrame, list[str]]:
    """An index of `genu-train index`, not yet read, and its columns.

    Raises:
        DataError: the file is missing or no index.
    """
    if not path.is_file():
        raise DataError(f"the index {path} is missing: make it with `genu-train index`.")
    try:
        frame = pl.scan_parquet(path)
        there = frame.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is no index that can be read ({type(error).__name__}).") from error
    missing = [name for name in _INDEX if name not in there]
    if missing:
        raise DataError(f"{path} lacks the column(s) {', '.join(missing)}: make it again with `genu-train index`.")
    return frame, there


def joined(images: pl.DataFrame, index: pl.DataFrame, export: Path) -> pl.DataFrame:
    """Images with `path` of the export and `in_export`; joined by SOPInstanceUID.

    Raises:
        DataError: not one of the images is in the index.
    """
    result = images.join(index.select("SOPInstanceUID", "path"), on="SOPInstanceUID", how="left", maintain_order="left")
    result = result.with_columns(in_export=pl.col("path").is_not_null())
    if not result["in_export"].any():
        raise DataError(
            f"none of the {len(images)} images of the tables is in the index of {export} ({len(index)} images): the "
            "SOP Instance UIDs of tables and files differ, or another export was indexed."
        )
    return result


def one_knee_a_row(images: pl.DataFrame) -> pl.DataFrame:
    """Images to knees by `laterality` (R, L, B): both knees of B; an image of unknown side keeps one row, no knee."""
    sides = pl.col("laterality").replace_strict(
        {"R": ["R"], "L": ["L"], "B": ["L", "R"]}, default=[None], return_dtype=pl.List(pl.String)
    )
    rows = images.with_columns(side=sides, bilateral=pl.col("laterality").eq_missing("B")).explode("side")
    return rows.with_columns(knee=pl.concat_str("SOPInstanceUID", pl.lit("/"), "side"))


def select(source: Source, rules: Rules) -> Cohort:
    """Apply the rules.

    Raises:
        DataError: a rule does not fit the source, the rules keep no knee, or they keep one without side, path or label.
    """
    kept, steps = apply(source.knees, rules)
    if kept.is_empty():
        last = next(step.name for step in steps if astuple(step.kept)[2] == 0)
        raise DataError(f"the rules keep no knee of {source.name}: after {last!r} none is left.")
    for column in ("side", "path", source.targets[0]):
        lacking = kept[column].null_count()
        if lacking:
            raise DataError(f"the rules keep {lacking} knee(s) without {column}: add a rule that drops them.")
    kinds = {**source.columns, **{name: pl.Float64() for name in source.targets if name not in source.columns}}
    kinds |= {name: kind for name, kind in _LAST.items() if name in kept.columns}
    knees = kept.select(pl.col(name).cast(kind) for name, kind in kinds.items()).sort("knee")
    twice = knees.filter(pl.col("knee").is_duplicated())["knee"].n_unique()
    if twice:
        raise DataError(f"{twice} knee(s) are in {source.name} more than once: one row an image and side is meant.")
    return Cohort(knees, steps, source.targets)


def check_out(out: Path) -> None:
    """That `out` is a folder or can become one.

    Raises:
        UsageError: it, or what it would lie in, is a file.
    """
    taken = next((path for path in (out, *out.parents) if path.exists() and not path.is_dir()), None)
    if taken is not None:
        raise UsageError(f"--out {out}: {taken} is a file; name a folder.")


def write(cohort: Cohort, source: Source, rules: Rules, out: Path) -> None:
    """Write cohort.parquet, flow.csv, flow.md, flow.png, flow.svg, rules.toml and cohort.json into `out`.

    Raises:
        UsageError: `out`, or what it would lie in, is a file.
    """
    check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    part = out / "cohort.parquet.part"
    cohort.knees.write_parquet(part)
    part.replace(out / "cohort.parquet")
    flow.write(cohort.steps, out, source.unread)
    (out / "rules.toml").write_text(rules.text, encoding="utf-8")
    content: dict[str, Any] = {
        "source": source.name,
        "data": rules.data,
        "licence": rules.licence,
        "made": beside(source.inputs),
        "parameters": dict(rules.parameters),
        "targets": list(cohort.targets),
        "counts": asdict(cohort.steps[-1].kept),
        "cleaned": dict(source.cleaned),
        "unreadable": dict(source.unread),
        "flow": [asdict(step) for step in cohort.steps],
        "inputs": {path.name: sha256(path) for path in source.inputs},
    }
    (out / "cohort.json").write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
