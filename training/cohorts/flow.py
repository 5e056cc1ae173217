"""The flow of a cohort: what each rule kept and dropped, as CSV, Markdown and picture (PNG, SVG).

The picture is drawn as STROBE's flow diagrams are: down the middle what stays, at the right what each rule drops.
"""

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from training.cohorts.rules import Counts, SeriesCounts, Step

_SINGLE = {"patients": "patient", "studies": "study", "images": "image", "series": "series", "knees": "knee"}
_KEPT, _DROPPED, _LINE = "#E8F1F8", "#FBEEE4", "#33475B"
_ROW = 0.98  # inches from box to box
_WIDTH = 10.5  # inches


def write(steps: Sequence[Step], out: Path, unread: Mapping[str, int] | None = None) -> None:
    """Write flow.csv, flow.md, flow.png and flow.svg into a folder that exists.

    Args:
        steps: of the rules, in their order.
        out: the folder.
        unread: how many values of a table's column could not be read; picture and flow.md tell them.
    """
    with (out / "flow.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        units = _units(steps[0].kept)
        writer.writerow(["rule", "sentence", *(f"kept_{name}" for name in units), *(f"dropped_{n}" for n in units)])
        writer.writerows((step.name, step.sentence, *astuple(step.kept), *astuple(step.dropped)) for step in steps)
    (out / "flow.md").write_text(markdown(steps, unread), encoding="utf-8")
    draw(steps, out / "flow.png", unread)
    draw(steps, out / "flow.svg", unread)


def notes(unread: Mapping[str, int] | None) -> list[str]:
    """A sentence for each column of which values could not be read."""
    return [
        f"{column}: {times:,} {'value' if times == 1 else 'values'} could not be read and "
        f"{'counts' if times == 1 else 'count'} as missing."
        for column, times in (unread or {}).items()
    ]


def markdown(steps: Sequence[Step], unread: Mapping[str, int] | None = None) -> str:
    """The flow as a table: of each rule what stays, and in brackets what it dropped; below it what was not read."""
    units = _units(steps[0].kept)
    lines = [f"| rule | {' | '.join(units)} |", "|---|" + "---:|" * len(units)]
    for step in steps:
        pairs = zip(astuple(step.kept), astuple(step.dropped), strict=True)
        cells = [f"{kept:,} (−{lost:,})" if lost else f"{kept:,}" for kept, lost in pairs]
        title = step.sentence if step is steps[0] else f"**{step.name}**: {step.sentence}"
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += [line for note in notes(unread) for line in ("", note)]
    return "\n".join(lines) + "\n"


def draw(steps: Sequence[Step], path: Path, unread: Mapping[str, int] | None = None) -> None:
    """Draw the flow; the ending of `path` says how it is stored. The same steps give the same file."""
    below = [line for note in notes(unread) for line in textwrap.wrap(note, 110)]
    height = _ROW * len(steps) + 0.2 + 0.22 * len(below)
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(height, 0)
    axes.axis("off")
    for number, step in enumerate(steps):
        middle = 0.1 + _ROW * (number + 0.5)
        title = step.sentence if number == 0 else step.name
        _box(axes, (2.9, middle), 4.9, [title, _counts(step.kept)], _KEPT)
        if number:
            above = middle - _ROW / 2
            _arrow(axes, (2.9, middle - _ROW + 0.32), (2.9, middle - 0.32))
            _arrow(axes, (2.9, above), (5.75, above))
            lines = [*textwrap.wrap(step.loss, 62)[:2], _counts(step.dropped)]
            _box(axes, (8.1, above), 4.6, lines, _DROPPED, bold=False)
    for number, line in enumerate(below):
        axes.text(0.45, _ROW * len(steps) + 0.2 + 0.22 * number, line, va="center", fontsize=9, color=_LINE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "genu", "svg.fonttype": "none", "font.family": "DejaVu Sans"}):
        if path.suffix == ".svg":
            figure.savefig(path, metadata={"Date": None})
            return
        figure.savefig(drawn := io.BytesIO(), dpi=100, format="png")
    with Image.open(drawn) as image:  # a few colours are enough, and a quarter of the size
        image.convert("RGB").quantize(32, dither=Image.Dither.NONE).save(path)


def _units(counts: Counts | SeriesCounts) -> tuple[str, ...]:
    return tuple(entry.name for entry in fields(counts))


def _counts(counts: Counts | SeriesCounts) -> str:
    pairs = ((getattr(counts, plural), plural, _SINGLE[plural]) for plural in _units(counts))
    return " · ".join(f"{number:,} {single if number == 1 else plural}" for number, plural, single in pairs)


def _box(
    axes: Axes, centre: tuple[float, float], width: float, lines: list[str], colour: str, bold: bool = True
) -> None:
    x, y = centre
    height = 0.22 * len(lines) + 0.18
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        "round,pad=0.02",
        facecolor=colour,
        edgecolor=_LINE,
        linewidth=0.8,
    )
    axes.add_patch(patch)
    for number, line in enumerate(lines):
        weight = "bold" if bold and number == 0 else "normal"
        row = y + 0.22 * (number - (len(lines) - 1) / 2)
        axes.text(x, row, line, ha="center", va="center", fontsize=9, fontweight=weight, color="#1B2733")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": _LINE, "linewidth": 0.9})
