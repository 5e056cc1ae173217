"""The robustness table as a picture: kappa and share refused, one panel for each kind of change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_KAPPA, _REFUSED = "#0072B2", "#D55E00"  # Okabe and Ito: told apart by everybody
_COLUMNS = 4


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Write a PNG of what `training.robustness.run` returned."""
    kinds = list(dict.fromkeys(row["kind"] for row in results["changes"]))
    lines = -(-len(kinds) // _COLUMNS)
    figure = Figure(figsize=(3.4 * _COLUMNS, 2.9 * lines), layout="constrained")
    base = results["films"]["quadratic_kappa"]
    for number, kind in enumerate(kinds):
        axes = figure.add_subplot(lines, _COLUMNS, number + 1)
        rows = [row for row in results["changes"] if row["kind"] == kind]
        places = list(range(len(rows)))
        axes.bar(places, [row["refused"] for row in rows], color=_REFUSED, alpha=0.35, label="share refused")
        kappas = [(p, row["quadratic_kappa"]) for p, row in zip(places, rows, strict=True)]
        kept = [(place, kappa) for place, kappa in kappas if kappa is not None]
        axes.plot([p for p, _ in kept], [kappa for _, kappa in kept], "o-", color=_KAPPA, label="quadratic kappa")
        if base is not None:
            axes.axhline(base, color=_KAPPA, linestyle=":", linewidth=1, label="kappa of unchanged films")
        axes.set_xticks(places, [row["step"] for row in rows], rotation=45, ha="right", fontsize=7)
        axes.set_ylim(0, 1.02)
        axes.set_title(kind, fontsize=10)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
