"""What a fine-tuning leaves behind of each fold, and the predictions and curves that are made of them."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.errors import DataError
from training.finetune_data import Samples
from training.finetune_fit import Curve
from training.predictions import CURVES, Predictions


@dataclass(frozen=True)
class FoldResult:
    """Of the knees that were left out: mean and median, not cut to the bounds.

    epoch: the best one. to_mean, to_median: what the inner validation patients moved the network's answer by.
    blind: how many of the knees, the last ones, had no crop. curve: rows of epoch, name, value.
    """

    fold: int
    knees: tuple[str, ...]
    mean: list[float]
    median: list[float]
    epoch: int
    to_mean: float
    to_median: float
    blind: int
    curve: Curve


def write_fold(path: Path, result: FoldResult) -> None:
    """Write it whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(result)) + "\n", encoding="utf-8")
    part.replace(path)


def read_fold(path: Path) -> FoldResult | None:
    """What `write_fold` wrote; None where nothing is.

    Raises:
        DataError: it cannot be read.
    """
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
        return FoldResult(**{**values, "knees": tuple(values["knees"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}): remove it, that fold is then trained again.") from error


def predictions(
    system: str,
    samples: Samples,
    folds: npt.NDArray[np.int64],
    results: Sequence[FoldResult],
    bounds: tuple[float, float],
) -> Predictions:
    """Of all knees in their order, cut to the bounds.

    Raises:
        DataError: a fold was finished for other knees.
    """
    found: dict[str, tuple[float, float]] = {}
    for result in results:
        found |= dict(zip(result.knees, zip(result.mean, result.median, strict=True), strict=True))
    if set(found) != set(samples.knees):
        raise DataError(f"the folds of {system} were finished for other knees: remove its folder, or use another run.")
    both = np.clip(np.array([found[knee] for knee in samples.knees], np.float64), *bounds)
    return Predictions(system, samples.knees, folds, both[:, 0], both[:, 1])


def write_curves(folder: Path, results: Sequence[FoldResult]) -> None:
    """curves.csv: fold, epoch, name, value."""
    with (folder / CURVES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("fold", "epoch", "name", "value"))
        for result in results:
            writer.writerows([result.fold, *row] for row in result.curve)
