"""Parts that the reports of several kinds share: curves of learning."""

import csv
from collections.abc import Iterable

from inference.errors import DataError
from training import report_plots
from training.cv_evidence import Evidence, title_of
from training.predictions import CURVES
from training.report_page import Heading, Part, Picture

Points = dict[str, dict[int, tuple[list[float], list[float]]]]


def learning(evidence: Evidence) -> Iterable[Part]:
    """Curves of the systems that learn by epochs.

    Raises:
        DataError: curves.csv of a system is not what fit writes.
    """
    for system in evidence.systems:
        path = evidence.run / "systems" / system.system / CURVES
        if not path.is_file():
            continue
        points: Points = {}
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    epochs, values = points.setdefault(row["name"], {}).setdefault(int(row["fold"]), ([], []))
                    epochs.append(float(row["epoch"]))
                    values.append(float(row["value"]))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is not a table of fold, epoch, name, value ({error}).") from error
        if points:
            yield Heading(f"{title_of(system)}, by epoch")
            yield Picture(
                f"curves-{system.system}",
                report_plots.curves(points),
                f"{', '.join(points)} of {title_of(system)} by epoch, a line a fold.",
                f"{title_of(system)}: {', '.join(points)} by epoch, a line a fold.",
            )
