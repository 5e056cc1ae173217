"""Out-of-fold predictions: what every system of a cross-validated run leaves behind, and all that is evaluated.

    RUN/run.json                            what the run is made from (training.cv_run)
    RUN/knees.parquet                       the cohort's rows that take part, with `fold` (0..k-1) and `truth`
    RUN/systems/NAME/predictions.parquet    one row a knee of knees.parquet, in its order
    RUN/systems/NAME/system.json            title, kind, what was chosen in each fold, synthetic or not
    RUN/systems/NAME/curves.csv             fold, epoch, name, value: only of systems that learn by epochs

`predictions.parquet` has the columns knee, fold, and either mean and median (a score: the value of least squared and of
least absolute error) or p0 .. pC-1 (probabilities of classes).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from inference.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PREDICTIONS, SYSTEM, CURVES = "predictions.parquet", "system.json", "curves.csv"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of one system, for each knee by a model that saw no image of its patient.

    knees: keys, (N,). folds: (N,), the fold in which the knee was left out.
    mean, median: (N,) scores in the target's units; None for classes.
    probabilities: (N, C), rows sum to 1; None for scores.
    about: contents of system.json: "title", "kind" ("baseline" or "system"), "synthetic", "folds" and whatever else.
    """

    system: str
    knees: tuple[str, ...]
    folds: Ints
    mean: Floats | None = None
    median: Floats | None = None
    probabilities: Floats | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.knees)


def write_predictions(run: Path, found: Predictions) -> None:
    """Write one system's predictions into its folder of the run, replacing what is there.

    Raises:
        DataError: a prediction is missing or not finite, or probabilities do not sum to 1.
    """
    columns = _columns(found)
    for name, values in columns.items():
        if len(values) != len(found) or not np.all(np.isfinite(values)):
            raise DataError(
                f"{found.system}: {name} has {len(values)} values for {len(found)} knees, or some not finite."
            )
    if found.probabilities is not None and np.abs(found.probabilities.sum(axis=1) - 1).max(initial=0) > 1e-4:
        raise DataError(f"{found.system}: the probabilities of a knee do not sum to 1.")
    folder = run / "systems" / found.system
    folder.mkdir(parents=True, exist_ok=True)
    table = pl.DataFrame({"knee": list(found.knees), "fold": found.folds, **columns})
    part = folder / (PREDICTIONS + ".part")
    table.write_parquet(part)
    (folder / SYSTEM).write_text(json.dumps(dict(found.about), indent=2) + "\n", encoding="utf-8")
    part.replace(folder / PREDICTIONS)


def read_predictions(run: Path, system: str) -> Predictions:
    """What `write_predictions` wrote.

    Raises:
        DataError: it is not there or cannot be read.
    """
    folder = run / "systems" / system
    try:
        table = pl.read_parquet(folder / PREDICTIONS)
        about = json.loads((folder / SYSTEM).read_text("utf-8"))
        classes = [name for name in table.columns if name[:1] == "p" and name[1:].isdigit()]
        scored = "mean" in table.columns
        return Predictions(
            system=system,
            knees=tuple(table["knee"].to_list()),
            folds=table["fold"].to_numpy().astype(np.int64),
            mean=table["mean"].to_numpy().astype(np.float64) if scored else None,
            median=table["median"].to_numpy().astype(np.float64) if scored else None,
            probabilities=table.select(classes).to_numpy().astype(np.float64) if classes else None,
            about=about,
        )
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{folder} holds no finished predictions ({error}): run `genu-train fit` again.") from error


def systems_of(run: Path) -> tuple[str, ...]:
    """Names of the systems that have predictions, sorted."""
    return tuple(sorted(path.parent.name for path in (run / "systems").glob(f"*/{PREDICTIONS}")))


def _columns(found: Predictions) -> dict[str, Floats]:
    if found.probabilities is not None:
        return {f"p{number}": found.probabilities[:, number] for number in range(found.probabilities.shape[1])}
    if found.mean is None or found.median is None:
        raise DataError(f"{found.system} has neither scores nor probabilities.")
    return {"mean": found.mean, "median": found.median}


def in_order(found: Predictions, knees: Sequence[str]) -> Predictions:
    """The same predictions in the order of `knees`.

    Raises:
        DataError: the knees are not the same.
    """
    places = {knee: number for number, knee in enumerate(found.knees)}
    if len(places) != len(knees) or set(places) != set(knees):
        raise DataError(f"{found.system} was predicted for other knees than the run's: run `genu-train fit` again.")
    rows = np.array([places[knee] for knee in knees], np.int64)

    def pick(values: Floats | None) -> Floats | None:
        return None if values is None else values[rows]

    return Predictions(
        found.system, tuple(knees), found.folds[rows], pick(found.mean), pick(found.median), pick(found.probabilities),
        found.about,
    )  # fmt: skip
