"""Of a report: how much each slice weighs, where a system has left its attention behind.

RUN/systems/NAME/attention.parquet has knee, slice (0 and up, in the order of the prepared slices) and weight.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from inference.errors import DataError
from training import classification_plots as plots
from training.cv_evidence import Evidence, title_of
from training.report_page import Heading, Part, Picture

ATTENTION: Final = "attention.parquet"


def attention(evidence: Evidence) -> Iterable[Part]:
    """A picture for each system that has one, a line a class.

    Raises:
        DataError: it is not a table of knee, slice and weight, or of other knees.
    """
    names = [str(name) for name in evidence.about.get("classes", ())]
    for system in evidence.systems:
        path = evidence.run / "systems" / system.system / ATTENTION
        if not path.is_file():
            continue
        table = _read(path, evidence)
        slices = int(table["slice"].max()) + 1  # type: ignore[arg-type]
        curves = []
        for place, name in enumerate(names):
            of_class = table.filter(pl.col("truth") == place)
            if of_class.is_empty():
                continue
            weights = pl.col("weight")
            found = of_class.group_by("slice").agg(
                weights.mean().alias("mean"), weights.quantile(0.1).alias("low"), weights.quantile(0.9).alias("high")
            )
            every = pl.DataFrame({"slice": np.arange(slices)}).join(found, on="slice", how="left").sort("slice")
            mean, low, high = (
                every[column].fill_null(np.nan).to_numpy().astype(np.float64) for column in ("mean", "low", "high")
            )
            curves.append((name, mean, low, high))
        if curves:
            heaviest = ", ".join(f"{name}: slice {int(np.nanargmax(mean)) + 1}" for name, mean, _, _ in curves)
            yield Heading(f"{title_of(system)}, attention by slice")
            yield Picture(
                f"attention-{system.system}", plots.attention(curves),
                f"Mean attention of {title_of(system)} by slice; the heaviest: {heaviest}.",
                f"{title_of(system)}: mean weight of each slice; shaded from the 10th to the 90th percentile of knees; "
                "dotted: all slices alike.",
            )  # fmt: skip


def _read(path: Path, evidence: Evidence) -> pl.DataFrame:
    try:
        table = pl.read_parquet(path).select("knee", pl.col("slice").cast(pl.Int64), pl.col("weight").cast(pl.Float64))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} is not a table of knee, slice and weight ({error}): run `genu-train fit`.") from error
    joined = table.join(evidence.knees.select("knee", "truth"), on="knee", how="left")
    wrong = joined["truth"].null_count() or not joined["weight"].is_finite().all() or joined.is_empty()
    if wrong or joined["slice"].min() < 0:  # type: ignore[operator]
        raise DataError(f"{path} has other knees than the run, or no finite weights: run `genu-train fit` again.")
    return joined
