"""Numbers as reports write them."""

from collections.abc import Sequence

from training.report_page import Cell


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
