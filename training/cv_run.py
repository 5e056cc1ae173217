"""A cross-validated run on radiographs: RUN/run.json, RUN/knees.parquet, and the folds that every system shares.

run.json says what the run is made from ("kind": "regression"); knees.parquet has the cohort's rows that take part, in
the cohort's order, with `grade` (KL that systems may use, null for unknown), `fold` and `truth`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from inference.errors import DataError, UsageError
from training.cohorts.columns import sha256
from training.cohorts.made import is_made
from training.cv_evidence import kind_of
from training.embeddings import EmbeddingStore
from training.fit_record import Fit, added
from training.folds import check_folds, check_pixels, patient_folds
from training.regression_features import pixel_keys
from training.regression_samples import Floats, Ints

KIND = "regression"
RUN, KNEES = "run.json", "knees.parquet"
BOUNDS: Mapping[str, tuple[float, float, str]] = {
    "pain": (0.0, 10.0, "points"),
    "nrs_pain": (0.0, 10.0, "points"),
    "womac_pain": (0.0, 20.0, "points"),
    "koos_pain": (0.0, 100.0, "points"),
    "kl": (0.0, 4.0, "grades"),
}
_COLUMNS = ("knee", "SOPInstanceUID", "path", "PatientID", "side", "age", "sex", "race", "kl")


@dataclass(frozen=True)
class CVRun:
    """What run.json holds. `folder` is where it lies.

    cohort: folder of cohort.parquet; cohort_sha256 of that file. bounds, unit: of the target. embeddings: name to
    folder. grades: a Parquet of `genu-train grade`, or None for the cohort's KL. synthetic: random weights or made
    knees are in it. left_out: why how many knees of the cohort do not take part. systems: those that are finished;
    asked: those that any fit was asked for, finished or not. fits: command and versions of each fit
    (training.fit_record).
    """

    folder: Path
    target: str
    bounds: tuple[float, float]
    unit: str
    cohort: Path
    cohort_sha256: str
    folds: int = 5
    seed: int = 0
    synthetic: bool = False
    embeddings: Mapping[str, str] = field(default_factory=dict)
    grades: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    systems: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    fits: tuple[Fit, ...] = ()
    kind: str = KIND

    @property
    def graded(self) -> bool:
        """Whether systems may see a KL grade: not where the cohort's is what they are to predict."""
        return _graded_by(self.target, self.grades)

    def knees(self) -> pl.DataFrame:
        """The rows that take part.

        Raises:
            DataError: knees.parquet cannot be read, or a patient is in two folds.
        """
        try:
            table = pl.read_parquet(self.folder / KNEES)
            folds = table["fold"].to_numpy().astype(np.int64)
            check_folds(table["knee"].to_list(), table["PatientID"].to_list(), folds)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{self.folder / KNEES} cannot be read ({error}): fit into another folder.") from error
        return table

    def stores(self) -> dict[str, EmbeddingStore]:
        """The embeddings by name.

        Raises:
            DataError: one of them is not finished.
        """
        return {name: EmbeddingStore(Path(folder)) for name, folder in self.embeddings.items()}

    def write(self) -> None:
        """Write run.json."""
        values = {name: value for name, value in asdict(self).items() if name != "folder"}
        values |= {"cohort": str(self.cohort), "systems": sorted(self.systems), "asked": sorted(self.asked)}
        part = self.folder / (RUN + ".part")
        part.write_text(json.dumps({"kind": self.kind, **values}, indent=2) + "\n", encoding="utf-8")
        part.replace(self.folder / RUN)


def read(folder: Path) -> CVRun:
    """The run in a folder.

    Raises:
        DataError: there is none, it is of another kind, or it was changed by hand.
    """
    if kind_of(folder) != KIND:
        raise DataError(f"{folder} holds no cross-validated run: make one with `genu-train fit --cohort`.")
    values = json.loads((folder / RUN).read_text("utf-8"))
    try:
        low, high = values.pop("bounds")
        values |= {"cohort": Path(values["cohort"])}
        values |= {name: tuple(values[name]) for name in ("systems", "asked", "fits")}
        return CVRun(folder=folder, bounds=(float(low), float(high)), **values)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / RUN} was changed ({error!r}): fit into another folder.") from error


def create(
    folder: Path,
    cohort: Path,
    embeddings: Mapping[str, Path],
    *,
    target: str = "pain",
    grades: Path | None = None,
    folds: int = 5,
    seed: int = 0,
    bounds: tuple[float, float] | None = None,
    synthetic: bool = False,
    command: Sequence[str] = (),
) -> CVRun:
    """Make a run, or go on with the one that is there: its embeddings and systems stay and are added to.

    `command` are the words of the command line, which run.json keeps.

    A run is synthetic when the caller says so, when the weights of a store or of the grader are random, and when
    the cohort is of made knees (training.cohorts.made).

    Raises:
        UsageError: the target's bounds are not known and not given.
        DataError: cohort, embeddings or grades are not what they should be; the folder holds another run; a leak.
    """
    there = read(folder) if kind_of(folder) else None
    if there is None and (folder / RUN).exists():
        raise DataError(f"{folder} holds a run of the KL grader: name another folder with --run.")
    low, high, unit = _bounds(target, bounds)
    known = {} if there is None else dict(there.embeddings)
    named = _named(folder, known, embeddings)
    path = cohort / "cohort.parquet"
    table = _read_cohort(path, target)
    run = CVRun(
        folder=folder, target=target, bounds=(low, high), unit=unit, cohort=cohort.resolve(),
        cohort_sha256=sha256(path), folds=folds, seed=seed, embeddings=named,
        grades=None if grades is None else str(grades.resolve()),
        systems=() if there is None else there.systems, asked=() if there is None else there.asked,
        fits=added(() if there is None else there.fits, command),
    )  # fmt: skip
    stores = run.stores()
    knees, left_out = _taking_part(_graded(table, target, grades), target, (low, high), stores)
    if grades is not None and knees["grade"].is_null().all():
        raise DataError(
            f"none of the {len(knees)} knees has a grade in {grades}: it is of another cohort, or all were refused "
            "(see its .failures.csv); give the grades of this cohort, or leave --grades out for the cohort's own."
        )
    knees = _folded(knees, target, run)
    _check_pixels(knees, stores)
    made = [synthetic, there is not None and there.synthetic, is_made(cohort), grades is not None and _random(grades)]
    made += [store.spec.synthetic for store in stores.values()]
    run = replace(run, left_out=left_out, synthetic=any(made))
    folder.mkdir(parents=True, exist_ok=True)
    if there is not None:
        _same(there, run, knees)
    else:
        knees.write_parquet(folder / (KNEES + ".part"))
        (folder / (KNEES + ".part")).replace(folder / KNEES)
    run.write()
    return run


def _bounds(target: str, bounds: tuple[float, float] | None) -> tuple[float, float, str]:
    low, high, unit = BOUNDS.get(target, (None, None, "units"))
    if bounds is not None:
        low, high = bounds
    if low is None or high is None:
        raise UsageError(f"the bounds of {target!r} are not known: give --bounds LOW HIGH.")
    if not -math.inf < low < high < math.inf:
        raise UsageError(f"--bounds {low} {high}: two numbers, the first less than the second.")
    return low, high, unit


def _read_cohort(path: Path, target: str) -> pl.DataFrame:
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read ({error}): make it with `genu-train cohort`.") from error
    missing = [name for name in (*_COLUMNS, target) if name not in table.columns]
    if missing:
        raise DataError(f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(table.columns)}.")
    if table["knee"].is_duplicated().any() or table["PatientID"].null_count() or table["knee"].null_count():
        raise DataError(f"{path}: a knee is there twice, or a knee has no PatientID: folds are made by it.")
    try:
        table.select(pl.col("age").cast(pl.Float64))
        return table.sort("knee").with_columns(pl.col(target).cast(pl.Float64).alias("truth"))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: {target} and age must be numbers ({error}): make the cohort again.") from error


def _graded_by(target: str, grades: object) -> bool:
    return target != "kl" or grades is not None


def _graded(table: pl.DataFrame, target: str, grades: Path | None) -> pl.DataFrame:
    """With `grade`: the cohort's KL, or that of --grades; null for unknown, and where the cohort's is the target."""
    if grades is None:
        kept = pl.col("kl") if _graded_by(target, grades) else pl.lit(None)
        found = table.with_columns(kept.cast(pl.Int8).alias("grade"))
    else:
        if not grades.is_file():
            raise DataError(f"{grades} is no file: --grades names the Parquet file that `genu-train grade` wrote.")
        try:
            given = pl.read_parquet(grades, columns=["knee", "grade"]).with_columns(pl.col("grade").cast(pl.Int8))
            found = table.join(given, on="knee", how="left", maintain_order="left", validate="m:1")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{grades} is no table of knee and grade ({error}): `genu-train grade` makes it."
            ) from error
    if not found["grade"].drop_nulls().is_between(0, 4).all():
        raise DataError("a Kellgren-Lawrence grade is not 0 to 4.")
    return found


def _taking_part(
    table: pl.DataFrame, target: str, bounds: tuple[float, float], stores: Mapping[str, EmbeddingStore]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The knees with a target and with an embedding in every store, so that all systems are judged by the same."""
    counts: dict[str, int] = {}
    rows = table.filter(pl.col("truth").is_finite())
    counts[f"without {target}"] = len(table) - len(rows)
    outside = rows.filter(~pl.col("truth").is_between(*bounds))
    if len(outside):
        raise DataError(
            f"{len(outside)} knee(s) have {target} outside of {bounds[0]:g} to {bounds[1]:g}, {outside['knee'][0]} "
            f"{outside['truth'][0]:g} first."
        )
    for name, store in stores.items():
        kept = rows.filter(pl.col("knee").is_in(list(store.keys)))
        counts[f"without an embedding in {name}"] = len(rows) - len(kept)
        rows = kept
    if rows.is_empty():
        raise DataError(f"no knee of the cohort has {target} and an embedding in each of {', '.join(stores)}.")
    return rows, counts


def _folded(knees: pl.DataFrame, target: str, run: CVRun) -> pl.DataFrame:
    patients, truth = knees["PatientID"].cast(pl.String).to_list(), knees["truth"].to_numpy().astype(np.float64)
    folds = patient_folds(patients, truth, run.folds, run.seed)
    check_folds(knees["knee"].to_list(), patients, folds)
    return knees.with_columns(pl.Series("fold", folds, pl.Int64))


def _check_pixels(knees: pl.DataFrame, stores: Mapping[str, EmbeddingStore]) -> None:
    names, patients = knees["knee"].to_list(), knees["PatientID"].cast(pl.String).to_list()
    folds = knees["fold"].to_numpy().astype(np.int64)
    for store in stores.values():
        check_pixels(names, patients, folds, pixel_keys(store))


def _named(folder: Path, known: Mapping[str, str], embeddings: Mapping[str, Path]) -> dict[str, str]:
    """Those of the run and more; a name keeps its folder, as systems are called by it."""
    more = {name: str(path.resolve()) for name, path in embeddings.items()}
    for name, path in more.items():
        if known.get(name, path) != path:
            raise DataError(
                f"{folder} has systems of other embeddings called {name!r} ({known[name]}): give these another NAME, "
                "or name another folder with --run."
            )
    return {**known, **more}


def _random(grades: Path) -> bool:
    """Whether a grader with random weights made them; `genu-train grade` says so in the table."""
    told = (pq.read_schema(grades).metadata or {}).get(b"genu", b"{}")
    try:
        return bool(json.loads(told).get("synthetic"))
    except (ValueError, AttributeError):
        return False


def _same(there: CVRun, run: CVRun, knees: pl.DataFrame) -> None:
    fixed = ("target", "bounds", "folds", "seed", "cohort_sha256", "grades")
    other = [name for name in fixed if getattr(there, name) != getattr(run, name)]
    if other or not there.knees().equals(knees):
        raise DataError(
            f"{run.folder} holds a run with other {', '.join(other) or 'knees'}: name another folder with --run."
        )


def asked(run: CVRun, names: Sequence[str]) -> CVRun:
    """The run with more systems that are wanted, run.json written: until they are finished, the run is not."""
    found = replace(run, asked=tuple(sorted({*run.asked, *run.systems, *names})))
    found.write()
    return found


def finished(run: CVRun, names: Sequence[str]) -> CVRun:
    """The run with more finished systems, run.json written."""
    found = replace(run, systems=tuple(sorted({*run.systems, *names})))
    found.write()
    return found


def truth_of(knees: pl.DataFrame) -> tuple[Floats, Ints]:
    """Target and fold of each knee, (N,)."""
    return knees["truth"].to_numpy().astype(np.float64), knees["fold"].to_numpy().astype(np.int64)
