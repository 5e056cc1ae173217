"""Pictures of a report on predicted scores, as PNG. The same figures give the same bytes.

Colours are those of Okabe and Ito, told apart by everybody; every series has its own marker as well.
"""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from training.report_page import DPI
from training.resampling import Floats

Interval = Sequence[float | None]  # value, low, high
INK, GREY, LIGHT, BAND = "#14161A", "#6B717B", "#DFE2E7", "#F5D9A8"
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_WHOLE: Final = 30  # points: a longer scale has too many values for a bin each
_IN_LEGEND: Final = 8  # systems
_ACROSS: Final = 3  # panels beside each other
_DOT: Final = 0.02  # of the axis: how wide a dot is
_HEIGHTS: Final = (0.0, -0.32, 0.32)  # rows
MARKERS: Final = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "*")


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A figure of so many inches in the report's style, and the PNG it becomes when the block ends."""
    drawn = io.BytesIO()
    with mpl.rc_context({
        "font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
        "axes.edgecolor": GREY, "axes.titlesize": 10, "axes.titlelocation": "left",
        "axes.grid": True, "grid.color": LIGHT, "grid.linewidth": 0.6, "axes.axisbelow": True,
        "text.parse_math": False,
    }):  # fmt: skip
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, drawn
        raw = io.BytesIO()
        figure.savefig(raw, dpi=DPI, format="png")
    with Image.open(raw) as image:  # few colours are enough, and a third of the size
        image.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(drawn, "PNG", optimize=True)


def wrapped(text: str, width: int = 26) -> str:
    """A label in lines."""
    return "\n".join(textwrap.wrap(text, width)[:3])


def forest(
    rows: Sequence[Mapping[str, Any]],
    panels: Sequence[tuple[str, str, str | None]],
    bands: Mapping[str, tuple[float, float]],
) -> bytes:
    """Figures with intervals, a row a system, a panel a figure.

    Args:
        rows: title, role, and by figure [value, low, high].
        panels: the figure's name, the axis' label, and the system whose value is drawn through all rows.
        bands: by figure the published range, shaded.
    """
    with drawing(3.0 + 3.9 * len(panels), 0.9 + 0.36 * len(rows)) as (figure, drawn):
        places = np.arange(len(rows))
        for number, (name, label, reference) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), number + 1)
            line = next((row[name][0] for row in rows if row["system"] == reference), None)
            if name in bands:
                low, high = bands[name]
                axes.axvspan(low, high, color=BAND, zorder=0, label="published, other data")
            if line is not None:
                axes.axvline(line, color=INK, linestyle=":", linewidth=1)
            for place, row in zip(places, rows, strict=True):
                colour = GREY if row["role"] == "baseline" else COLOURS[0]
                _point(axes, row[name], float(place), colour, "s" if row["role"] == "baseline" else "o")
            axes.set_yticks(places, [wrapped(row["title"], 34) for row in rows] if number == 0 else [""] * len(rows))
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set_xlabel(label)
            if name in bands:
                axes.legend(
                    fontsize=7, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.99)
                )  # clear of intervals
    return drawn.getvalue()


def _point(axes: Axes, found: Interval, place: float, colour: str, marker: str, label: str | None = None) -> None:
    value, low, high = found
    if value is None:
        return
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=colour, linewidth=1.4)
    axes.plot([value], [place], marker, color=colour, markersize=5, label=label)


def signed_errors(groups: Sequence[tuple[str, Mapping[str, Interval]]], titles: Mapping[str, str], unit: str) -> bytes:
    """Signed error with intervals by group and system.

    Args:
        groups: name of a group, and the estimate of each system.
        titles: by system, in order; of it the first is the baseline that is drawn in grey.
        unit: of the error.

    Where a legend would be too long to be found one's way in, each group has a panel of its own with named rows.
    """
    if len(titles) > _IN_LEGEND:
        return _named_errors(groups, titles, unit)
    step = 0.8 / max(len(titles), 1)
    height = 1.2 + len(groups) * (0.25 + 0.13 * len(titles))
    with drawing(9.5, height) as (figure, drawn):
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linewidth=0.9)
        for number, (system, title) in enumerate(titles.items()):
            colour = GREY if number == 0 else COLOURS[(number - 1) % len(COLOURS)]
            marker = "s" if number == 0 else MARKERS[(number - 1) % len(MARKERS)]
            for place, (_, found) in enumerate(groups):
                label = title if place == 0 else None
                _point(axes, found[system], place + (number + 0.5) * step - 0.4, colour, marker, label)
        for place in range(1, len(groups)):
            axes.axhline(place - 0.5, color=LIGHT, linewidth=0.8)
        axes.set_yticks(range(len(groups)), [wrapped(name, 30) for name, _ in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"predicted less observed, {unit} (left: too little predicted; right: too much)")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles, [wrapped(label, 40) for label in labels], loc="outside right upper", fontsize=8, frameon=False
        )
    return drawn.getvalue()


def _named_errors(groups: Sequence[tuple[str, Mapping[str, Interval]]], titles: Mapping[str, str], unit: str) -> bytes:
    columns = min(_ACROSS, len(groups))
    lines = -(-len(groups) // columns)
    with drawing(10.8, lines * (0.9 + 0.3 * len(titles))) as (figure, drawn):
        first = None
        for number, (name, found) in enumerate(groups):
            axes = figure.add_subplot(lines, columns, number + 1, sharex=first)
            first = first or axes
            axes.axvline(0, color=INK, linewidth=0.9)
            for place, system in enumerate(titles):
                _point(axes, found[system], place, COLOURS[0] if place else GREY, "o" if place else "s")
            names = [wrapped(title, 40) for title in titles.values()]
            axes.set_yticks(range(len(titles)), names if number % columns == 0 else [""] * len(names), fontsize=8)
            axes.set_ylim(len(titles) - 0.5, -0.5)
            axes.set_title(wrapped(name, 26))
            axes.locator_params(axis="x", nbins=5)
        figure.supxlabel(f"predicted less observed, {unit} (left: too little predicted; right: too much)", fontsize=9)
    return drawn.getvalue()


@dataclass(frozen=True)
class Scale:
    """Of the target: its limits, its unit, and the limits of what the bins of all systems show."""

    limits: tuple[float, float]
    unit: str
    shown: tuple[float, float]

    @property
    def step(self) -> float:
        """A tenth of the target's range."""
        return (self.limits[1] - self.limits[0]) / 10 or 1.0


def system_panels(
    title: str,
    truth: Floats,
    mean: Floats,
    constant: Floats | None,
    bins: Sequence[Mapping[str, Any]],
    scale: Scale,
) -> bytes:
    """Of one system: observed against predicted, calibration in bins, and the errors.

    Args:
        title: of the system.
        truth, mean: (N,) observed and predicted.
        constant: (N,) the constant baseline's predictions, whose errors are drawn beside.
        bins: predicted and observed [value, low, high] of each bin.
        scale: of the axes.
    """
    low, high = scale.limits
    with drawing(11, 3.5) as (figure, drawn):
        figure.suptitle(textwrap.shorten(title, 90), fontsize=11, fontweight="bold", x=0.01, ha="left")
        first, second, third = (figure.add_subplot(1, 3, number) for number in (1, 2, 3))
        columns = np.linspace(low, high, 41)
        rows = edges_of(truth, low, high)
        counts, _, _ = np.histogram2d(mean.clip(low, high), truth, bins=(columns, rows))
        shades = np.ma.masked_equal(counts.T, 0)
        mesh = first.pcolormesh(columns, rows, shades, cmap="cividis_r", norm=PowerNorm(0.5, vmin=0))
        figure.colorbar(mesh, ax=first, label="knees", shrink=0.8, ticks=MaxNLocator(5, integer=True))
        first.set_title("observed against predicted")
        first.set(xlim=(low, high), ylim=(rows[0], rows[-1]))
        second.set_title("calibration")
        second.set(xlim=scale.shown, ylim=scale.shown)
        for axes in (first, second):
            axes.plot([low, high], [low, high], color=INK, linestyle=":", linewidth=1)
            axes.set(xlabel=f"predicted, {scale.unit}", ylabel=f"observed, {scale.unit}")
        for part in bins:
            value, bottom, top = part["observed"]
            if bottom is not None:
                second.plot([part["predicted"]] * 2, [bottom, top], color=COLOURS[0], linewidth=1.4)
            second.plot([part["predicted"]], [value], "o", color=COLOURS[0], markersize=4.5)
        _errors(third, truth, mean, constant, scale)
    return drawn.getvalue()


def _errors(axes: Axes, truth: Floats, mean: Floats, constant: Floats | None, scale: Scale) -> None:
    # Bins as wide as the steps of the scores: narrower ones would show nothing but that scores are whole numbers.
    largest = max(float(np.abs(one - truth).max()) for one in (mean, constant) if one is not None)
    reach = scale.step * np.ceil(largest / scale.step + 0.5)
    edges = np.arange(-reach - scale.step / 2, reach + scale.step, scale.step)
    axes.hist(mean - truth, bins=edges.tolist(), color=COLOURS[5], label="this system")
    if constant is not None:
        axes.hist(constant - truth, bins=edges.tolist(), histtype="step", color=INK, linewidth=1, label="constant mean")
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set(xlabel=f"predicted less observed, {scale.unit}", ylabel="knees")
    axes.set_title("errors")
    axes.legend(fontsize=7, frameon=False)


def fold_dots(titles: Mapping[str, str], values: Mapping[str, Sequence[float | None]], label: str) -> bytes:
    """A figure in each fold, a row a system; the numbers are those of the folds, beside each other where they agree."""
    every = [value for row in values.values() for value in row if value is not None] or [0.0]
    near = (max(every) - min(every)) * _DOT
    with drawing(9.5, 0.9 + 0.42 * len(titles)) as (figure, drawn):
        axes = figure.add_subplot()
        for place, system in enumerate(titles):
            known = [(number, value) for number, value in enumerate(values[system]) if value is not None]
            axes.plot([value for _, value in known], [place] * len(known), "-", color=LIGHT, linewidth=3, zorder=1)
            heights = apart([value for _, value in known], near)
            for (number, value), height in zip(known, heights, strict=True):
                colour = COLOURS[number % len(COLOURS)]
                axes.plot([value], [place + height], "o", color=colour, markersize=9, alpha=0.85)
                axes.text(
                    value, place + height, str(number), color="white", fontsize=6, ha="center", va="center",
                    fontweight="bold",
                )  # fmt: skip
        axes.set_yticks(range(len(titles)), [wrapped(title, 40) for title in titles.values()])
        axes.set_ylim(len(titles) - 0.5, -0.5)
        axes.set_xlabel(label)
    return drawn.getvalue()


def apart(values: Sequence[float], near: float) -> list[float]:
    """Heights, in rows, at which dots of these values do not lie upon each other: 0 where none is within `near`."""
    heights: list[float] = []
    for number, value in enumerate(values):
        taken = {heights[other] for other in range(number) if abs(values[other] - value) < near}
        heights.append(next((height for height in _HEIGHTS if height not in taken), 0.0))
    return heights


def curves(points: Mapping[str, Mapping[int, tuple[Sequence[float], Sequence[float]]]]) -> bytes:
    """Values by epoch: a panel a name, a line a fold (epochs, values)."""
    columns = 2 if len(points) == 4 else min(len(points), 3)
    lines = -(-len(points) // columns)
    with drawing(3.7 * columns, 2.7 * lines) as (figure, drawn):
        for number, (name, folds) in enumerate(points.items()):
            axes = figure.add_subplot(lines, columns, number + 1)
            for fold, (epochs, values) in folds.items():
                (line,) = axes.plot(epochs, values, markersize=3, linewidth=1.1, label=f"fold {fold}")
                line.set(color=COLOURS[fold % len(COLOURS)], marker=MARKERS[fold % len(MARKERS)])
            axes.set_title(name.replace("_", " "))
            axes.set_xlabel("epoch")
            axes.locator_params(axis="x", integer=True)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), fontsize=8, frameon=False)
    return drawn.getvalue()


def edges_of(truth: Floats, low: float, high: float) -> Floats:
    """Edges of bins of one width that leave no value out, (bins + 1,).

    A bin a value where scores are few whole numbers (0 to 10, 0 to 20), else twenty from end to end.

    Args:
        truth: (N,) the values. low, high: limits of the scale; values beyond them widen it.
    """
    low, high = min(low, float(truth.min())), max(high, float(truth.max()))
    if high - low <= _WHOLE and np.array_equal(truth, truth.round()):
        return np.arange(np.floor(low) - 0.5, np.ceil(high) + 1)
    room = 0.5 if low == high else 0.0
    return np.linspace(low - room, high + room, 21)


def histogram(truth: Floats, limits: Sequence[float], label: str) -> bytes:
    """How often each value of the target occurs."""
    with drawing(6.5, 2.3) as (figure, drawn):
        axes = figure.add_subplot()
        axes.hist(truth, bins=edges_of(truth, *limits).tolist(), color=COLOURS[0], rwidth=0.85)
        axes.set(xlabel=label, ylabel="knees")
    return drawn.getvalue()
