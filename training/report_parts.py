"""Parts that the reports of all kinds share: numbers as they are written, and curves of learning."""

import csv
from collections.abc import Iterable, Sequence

from inference.errors import DataError
from training import report_plots
from training.cv_evidence import Evidence, title_of
from training.predictions import CURVES
from training.report_page import Cell, Heading, Part, Picture

Points = dict[str, dict[int, tuple[list[float], list[float]]]]


def number(value: float | None, digits: int) -> str:
    """A number with so many decimals, a dash for none; never a negative zero."""
    return "-" if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 2) -> str:
    """A number with its sign, a dash for none."""
    text = number(value, digits)
    return f"+{text}" if value is not None and round(value, digits) > 0 else text


def with_interval(found: Sequence[float | None], digits: int, kind: str = "", *, signs: bool = False) -> Cell:
    """A cell of a figure [value, low, high], its interval small below it."""
    write = signed if signs else number
    value, low, high = found
    small = "" if low is None else f"{write(low, digits)} to {write(high, digits)}"
    return Cell(write(value, digits), small, kind)


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
