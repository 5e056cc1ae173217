"""`genu-train finder`: fit the knee finder, choose its thresholds, measure it, write its files."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.numbers_cli import positive
from training.robustness_cli import write_into

if TYPE_CHECKING:
    from inference.finder import Thresholds


def add_command(commands: Any) -> None:
    """Register the command."""
    finder = commands.add_parser("finder", help="fit and write the knee finder; goes on where it stopped")
    finder.add_argument("--run", type=Path, required=True, help="run of `genu-train fit`, whose knees are used")
    finder.add_argument("--labels", type=Path, required=True, help="CSV of `dicomize`, with a column looks_inverted")
    finder.add_argument(
        "--others", type=Path, nargs="+", required=True, help="folders with DICOM files that show no frontal knee"
    )
    finder.add_argument("--initial-weights", type=Path, default=None, help="TFLite file of an ImageNet MobileNetV2")
    finder.add_argument("--work", type=Path, required=True, help="folder of checkpoints, log and figures")
    finder.add_argument("--out", type=Path, required=True, help="folder of the finder's files; replaced")
    finder.add_argument("--steps", type=int, default=3200, help="batches of 16 films (default: 3200)")
    finder.add_argument("--films", type=int, default=1000, help="made films to measure on (default: 1000)")
    finder.add_argument("--page", type=Path, default=None, help="Markdown page whose table of figures is written again")
    finder.add_argument("--threads", type=positive, default=None, help="torch threads (default: torch's choice)")
    finder.set_defaults(run_command=_finder)


def _finder(options: argparse.Namespace) -> None:
    import torch

    from inference.errors import UsageError
    from training import runs
    from training.finder_data import bright_boned, read_others
    from training.finder_export import write_finder
    from training.finder_figures import choose_thresholds, measure
    from training.finder_fit import FinderConfig, fit_finder
    from training.halves import rounded

    if options.steps < 1 or options.films < 1:
        raise UsageError(f"--steps {options.steps} --films {options.films}: both must be 1 or more.")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    parts = runs.data(runs.read(options.run))
    crops = {name: bright_boned(part, options.labels) for name, part in parts.items()}
    others = read_others(options.others)
    config = FinderConfig(steps=options.steps)
    net = rounded(fit_finder(config, crops["fit"], others.learnt, options.work, options.initial_weights, _report))
    thresholds = choose_thresholds(net, crops["tune"], others.learnt, options.films)
    metrics = measure(net, thresholds, crops["val"], others.unseen, options.films)
    text = json.dumps(metrics, indent=2)
    (options.work / "metrics.json").write_text(text + "\n", encoding="utf-8")
    write_finder(net, thresholds, metrics, config, options.out)
    print(f"{figures_table(metrics, thresholds)}\nknee finder in {options.out}")
    if options.page is not None:
        write_into(options.page, figures_table(metrics, thresholds))


def figures_table(metrics: Mapping[str, Any], thresholds: "Thresholds") -> str:
    """The figures as Markdown; those of a share that nothing entered are dashes."""
    centre, scale = metrics["centre_error_percentiles_50_95"], metrics["scale_error_percentiles_50_95"]
    tilt = metrics["tilt_error_degrees_percentiles_50_95"]
    limits = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in asdict(thresholds).items())
    rows = [
        (f"knees found, of {metrics['knees']} on {metrics['films']} films", _share(metrics["recall"])),
        ("centre, error in crop sizes, 50th and 95th percentile", f"{centre[0]:.1%}, {centre[1]:.1%}"),
        ("size, relative error, 50th and 95th percentile", f"{scale[0]:.1%}, {scale[1]:.1%}"),
        ("tilt, error in degrees, 50th and 95th percentile", f"{tilt[0]:.1f}, {tilt[1]:.1f}"),
        ("fibula on the right side", _share(metrics["fibula_side_right"])),
        ("fibula sure (0.9), and sure and wrong",
         f"{_share(metrics['fibula_side_sure'])}, {_share(metrics['fibula_side_sure_and_wrong'])}"),
        ("inversion told rightly", _share(metrics["inversion_right"])),
        ("further knees, per film", f"{metrics['further_knees_a_film']:.3f}"),
        (f"false knees on {metrics['films_without_knee']} made films without a frontal knee",
         _share(metrics["false_knees"])),
        (f"false knees on {metrics['real_images_without_knee']} real images without one (highest score "
         f"{metrics['highest_score_real']:.2f})", _share(metrics["false_knees_real"])),
        ("turned films seen", _share(metrics["turned_found"])),
        ("drawn lateral and axial views seen; other films called so",
         f"{_share(metrics['other_view_found'])}; {_share(metrics['other_view_false'])}"),
        ("drawn metal seen; knees without it called so",
         f"{_share(metrics['metal_found'])}; {_share(metrics['metal_false'])}"),
        ("drawn casts seen; knees without one called so",
         f"{_share(metrics['cast_found'])}; {_share(metrics['cast_false'])}"),
    ]  # fmt: skip
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*lines, "", f"Limits: {limits}."])


def _share(value: float) -> str:
    return "-" if value != value else f"{value:.1%}"  # noqa: PLR0124 - NaN is the only value unlike itself


def _report(figures: dict[str, float]) -> None:
    rest = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if name != "step")
    print(f"step {int(figures['step'])}: {rest}", flush=True)
