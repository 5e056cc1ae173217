"""`genu-train finder`: fit the knee finder, choose its thresholds, measure it, write its files."""

import argparse
import json
from pathlib import Path
from typing import Any


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
    finder.add_argument("--steps", type=int, default=3000, help="batches of 16 films (default: 3000)")
    finder.add_argument("--films", type=int, default=1000, help="made films to measure on (default: 1000)")
    finder.add_argument("--threads", type=int, default=None, help="torch threads (default: torch's choice)")
    finder.set_defaults(run_command=_finder)


def _finder(options: argparse.Namespace) -> None:
    import torch

    from inference.errors import UsageError
    from training import runs
    from training.finder_data import bright_boned, read_others
    from training.finder_export import rounded, write_finder
    from training.finder_figures import choose_thresholds, measure
    from training.finder_fit import FinderConfig, fit_finder

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
    print(f"{text}\nknee finder in {options.out}")


def _report(figures: dict[str, float]) -> None:
    rest = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if name != "step")
    print(f"step {int(figures['step'])}: {rest}", flush=True)
