"""Pictures of a report on predicted classes, as PNG: ROC, PR, reliability, confusion, attention over slices."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from sklearn.metrics import precision_recall_curve, roc_curve

from training.classification_measures import Bools, Floats, Ints
from training.report_plots import COLOURS, GREY, INK, LIGHT, MARKERS, drawing, wrapped

_GRID: Final = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Curve:
    """One class of one system: positive (N,), scores (N,), bins of predicted and observed [value, low, high]."""

    title: str
    positive: Bools
    scores: Floats
    bins: Sequence[Mapping[str, Any]]


def mean_roc(positive: Bools, scores: Floats, folds: Ints) -> Floats | None:
    """Recall at 101 even false positive rates with 0 before them, mean over folds that have both classes; None without.

    Args:
        positive, scores, folds: (N,).
    """
    found = []
    for fold in np.unique(folds):
        rows = folds == fold
        if len(np.unique(positive[rows])) == 2:
            false, true, _ = roc_curve(positive[rows], scores[rows])
            found.append(np.interp(_GRID, false, true))
    return np.concatenate([[0.0], np.mean(found, axis=0)]) if found else None


def system_panels(title: str, curves: Sequence[Curve], folds: Ints) -> bytes:
    """Of one system: ROC, PR and reliability; of one class by fold, of several a colour each."""
    with drawing(11, 3.9) as (figure, drawn):
        figure.suptitle(textwrap.shorten(title, 90), fontsize=11, fontweight="bold", x=0.01, ha="left")
        first, second, third = (figure.add_subplot(1, 3, number) for number in (1, 2, 3))
        for number, curve in enumerate(curves):
            colour = COLOURS[number % len(COLOURS)]
            _by_fold(first, second, curve, folds, colour if len(curves) > 1 else None)
            mean = mean_roc(curve.positive, curve.scores, folds)
            if mean is not None:
                label = "mean of the folds" if len(curves) == 1 else wrapped(curve.title, 30)
                line = INK if len(curves) == 1 else colour
                first.plot(np.concatenate([[0.0], _GRID]), mean, color=line, linewidth=1.8, label=label)
            share = float(curve.positive.mean())
            second.axhline(share, color=INK if len(curves) == 1 else colour, linestyle=":", linewidth=1)
            _reliability(third, curve, colour, MARKERS[number])
        first.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1)
        first.set(xlabel="1 − specificity", ylabel="recall", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title="ROC")
        if first.get_legend_handles_labels()[0]:  # none where no fold has both classes
            first.legend(fontsize=7, frameon=False, loc="lower right")
        second.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title="PR")
        _square(third, curves)
    return drawn.getvalue()


def _by_fold(roc: Axes, pr: Axes, curve: Curve, folds: Ints, colour: str | None) -> None:
    for number, fold in enumerate(np.unique(folds)):
        rows = folds == fold
        positive, scores = curve.positive[rows], curve.scores[rows]
        if len(np.unique(positive)) < 2:
            continue
        shown = colour or COLOURS[number % len(COLOURS)]
        false, true, _ = roc_curve(positive, scores)
        precision, recall, _ = precision_recall_curve(positive, scores)
        label = None if colour else f"fold {fold}"
        roc.plot(false, true, color=shown, linewidth=0.9, alpha=0.4 if colour else 0.8, label=label)
        pr.step(recall, precision, where="post", color=shown, linewidth=0.9, alpha=0.4 if colour else 0.8)


def _reliability(axes: Axes, curve: Curve, colour: str, marker: str) -> None:
    for part in curve.bins:
        value, low, high = part["observed"]
        if low is not None:
            axes.plot([part["predicted"]] * 2, [low, high], color=colour, linewidth=1.3)
        axes.plot([part["predicted"]], [value], marker, color=colour, markersize=4.5)


def _square(axes: Axes, curves: Sequence[Curve]) -> None:
    seen = [value for curve in curves for part in curve.bins for value in (part["predicted"], *part["observed"])]
    top = min(1.0, 1.05 * max((value for value in seen if value is not None), default=1.0))
    axes.plot([0, top], [0, top], color=INK, linestyle=":", linewidth=1)
    axes.set(xlabel="predicted probability", ylabel="observed share", title="reliability")
    axes.set(xlim=(-0.02 * top, top), ylim=(-0.02 * top, top))


def compared(systems: Sequence[tuple[str, str, Floats]]) -> bytes:
    """Mean ROC of several systems: title, role ("baseline" or "system") and what `mean_roc` returns."""
    with drawing(8.2, 4.4) as (figure, drawn):
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=LIGHT, linewidth=1)
        styles = {"baseline": ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))), "system": ("-",)}
        numbers = {"baseline": 0, "system": 0}
        for title, role, curve in systems:
            number, kinds = numbers[role], styles[role]
            colour = GREY if role == "baseline" else COLOURS[number % len(COLOURS)]
            numbers[role] += 1
            axes.plot(
                np.concatenate([[0.0], _GRID]), curve, color=colour, linewidth=1.6,
                linestyle=kinds[number % len(kinds)], label=wrapped(title, 34),
            )  # fmt: skip
        axes.set(xlabel="1 − specificity", ylabel="recall", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.set_aspect("equal")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    return drawn.getvalue()


def confusions(systems: Sequence[tuple[str, Ints]], classes: Sequence[str]) -> bytes:
    """Confusion matrices (K, K), observed by called: counts, shaded by the share of the observed class."""
    columns = min(4, len(systems))
    lines = -(-len(systems) // columns)
    with drawing(2.9 * columns, 2.9 * lines) as (figure, drawn):
        for number, (title, matrix) in enumerate(systems):
            axes = figure.add_subplot(lines, columns, number + 1)
            total = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            axes.imshow(matrix / total, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
            for row, values in enumerate(matrix):
                for column, knees in enumerate(values):
                    share = knees / total[row, 0]
                    axes.text(
                        column, row, f"{knees:,}\n{share:.0%}", ha="center", va="center", fontsize=8,
                        color="white" if share > 0.55 else INK,
                    )  # fmt: skip
            names = [wrapped(name, 14) for name in classes]
            axes.set_xticks(range(len(classes)), names, fontsize=7)
            axes.set_yticks(range(len(classes)), names if number % columns == 0 else [""] * len(classes), fontsize=7)
            axes.grid(visible=False)
            axes.set_title(wrapped(title, 30), fontsize=9)
            axes.set_xlabel("called", fontsize=8)
            if number % columns == 0:
                axes.set_ylabel("observed", fontsize=8)
    return drawn.getvalue()


def attention(curves: Sequence[tuple[str, Floats, Floats, Floats]]) -> bytes:
    """Attention by slice, a line a class: title, mean, 10th and 90th percentile, (S,) each."""
    with drawing(7.5, 3.0) as (figure, drawn):
        axes = figure.add_subplot()
        slices = len(curves[0][1])
        axes.axhline(1 / slices, color=INK, linestyle=":", linewidth=1)
        for number, (title, mean, low, high) in enumerate(curves):
            places, colour = np.arange(1, slices + 1), COLOURS[number % len(COLOURS)]
            axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(places, mean, color=colour, marker=MARKERS[number], markersize=4, label=wrapped(title, 40))
        axes.set(xlabel="slice, in the order in which it was prepared", ylabel="weight")
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True)
        axes.legend(fontsize=8, frameon=False)
    return drawn.getvalue()
