"""`genu-train fit --cohort`: cross-validated systems and baselines."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inference.errors import UsageError
from training.numbers_cli import seed

if TYPE_CHECKING:
    from training.finetune import FinetuneOptions

HEADS = ("ridge", "corn", "attentive", "boosting")
_TUNING = (
    "backbone", "weights", "epochs", "patience", "batch", "learning_rate", "loss", "precision", "device", "workers",
)  # fmt: skip
_RECIPE = ("loss", "epochs", "patience", "batch", "learning_rate")
_SYSTEMS = ("embeddings", "grades", "bounds", "heads")


def add_options(fit: argparse.ArgumentParser) -> None:
    """The options of `fit --cohort`, in groups of their own."""
    group = fit.add_argument_group("cross-validated systems on a cohort")
    group.add_argument("--cohort", type=Path, help="folder with cohort.parquet: fit systems and baselines by folds")
    group.add_argument(
        "--embeddings", metavar="NAME=FOLDER", action="append", default=[],
        help="embeddings of `genu-train embed`; NAME is the system's; may be repeated",
    )  # fmt: skip
    group.add_argument("--grades", type=Path, help="Parquet of `genu-train grade` (default: the cohort's KL)")
    group.add_argument("--target", help="the column to predict (default: pain; with --slices progression_abs)")
    group.add_argument(
        "--bounds", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of the target (default: those of its scale)"
    )
    group.add_argument(
        "--systems", nargs="+", metavar="NAME",
        help="only these, and the baselines; convnext is fine-tuned, with --export (default: all of the embeddings)",
    )  # fmt: skip
    group.add_argument(
        "--heads", nargs="+", metavar="HEAD",
        help=f"on frozen embeddings: {', '.join(HEADS)} (default: ridge)",
    )  # fmt: skip
    group.add_argument("--folds", type=int, default=5, help="patient-grouped folds (default: 5)")
    group.add_argument("--seed", type=seed, default=0, help="of folds and heads (default: 0)")
    group.add_argument("--synthetic", action="store_true", help="say everywhere that the knees are made")
    tuned = fit.add_argument_group("fine-tuning (--systems convnext)")
    tuned.add_argument("--backbone", help="what is fine-tuned (default: convnext_small)")
    tuned.add_argument("--weights", help="folder or hub name it begins with, as for embed (default: the usual)")
    tuned.add_argument("--epochs", type=int, help="at most (default: 30)")
    tuned.add_argument("--patience", type=int, help="epochs without a gain before it ends (default: 6)")
    tuned.add_argument("--batch", type=int, help="knees of a step (default: 32)")
    tuned.add_argument("--learning-rate", type=float, help="the highest (default: 1e-4)")
    tuned.add_argument("--loss", choices=("mse", "huber"), help="(default: mse)")
    tuned.add_argument("--precision", choices=("fp32", "bf16-mixed", "fp16-mixed"), help="(default: fp32)")
    tuned.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    tuned.add_argument("--workers", type=int, help="decode processes, 0 for none (default: 2)")


def fit(options: argparse.Namespace) -> None:
    """Fit what the command line asks for.

    Raises:
        UsageError, DataError: as `training.cv_run.create`, `training.cv_fit.fit_systems` and `training.finetune`.
    """
    from training import cv_fit, cv_run
    from training.systems import Store, systems, with_baselines

    _limit_threads(options.threads)
    tuned = _finetune_options(options)
    run = cv_run.create(
        options.run, options.cohort, _embeddings(options.embeddings), target=options.target or "pain",
        grades=options.grades, folds=options.folds, seed=options.seed,
        bounds=None if options.bounds is None else tuple(options.bounds),
        synthetic=options.synthetic, command=options.words,
    )  # fmt: skip
    stores = [Store(name, s.spec.backbone, s.spec.features, s.spec.texts) for name, s in run.stores().items()]
    table = systems(stores, options.heads, run.bounds, graded=run.graded)
    if tuned is not None and tuned.system in {system.name for system in table}:
        raise UsageError(f"embeddings are called {tuned.system}, as what is fine-tuned: give them another NAME.")
    known = {system.name for system in table} | {tuned.system if tuned else "convnext (with --export)"}
    unknown = sorted(set(options.systems or ()) - known)
    if unknown:
        raise UsageError(f"there is no system {', '.join(unknown)} here; there are {', '.join(sorted(known))}.")
    wanted = with_baselines(table, options.systems)
    run = cv_run.asked(run, [*wanted, *([tuned.system] if tuned else [])])
    knees = run.knees()
    left_out = "".join(f", {count} {why} left out" for why, count in run.left_out.items() if count)
    _say(f"{len(knees)} knees of {knees['PatientID'].n_unique()} patients in {run.folds} folds{left_out}")
    if run.graded and (ungraded := knees["grade"].null_count()):
        _say(f"{ungraded} of these knees have no KL grade: systems that see grades see none there")
    run = cv_fit.fit_systems(run, [system for system in table if system.name in wanted], _say)
    if tuned is not None:
        from training.finetune import finetune

        finetune(run.folder, tuned, _say)
        run = cv_run.finished(run, [tuned.system])
    print(f"{len(run.systems)} systems in {run.folder}: {', '.join(run.systems)}")


def refuse_systems(options: argparse.Namespace, why: str, *, export: bool) -> None:
    """Options of systems on radiographs, where none is fitted; `export`: whether --export is one of them.

    Raises:
        UsageError: one is given; says which, and `why` it would do nothing.
    """
    given = _given(options, (*_SYSTEMS, *_TUNING, *(("export",) if export else ())))
    if given:
        raise UsageError(f"{', '.join(given)}: {why}")


def _given(options: argparse.Namespace, names: Sequence[str]) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in (None, [])]


def _finetune_options(options: argparse.Namespace) -> "FinetuneOptions | None":
    """What is fine-tuned; None where `--systems` names nothing that is, or there is no export.

    Raises:
        UsageError: options of fine-tuning are given without the system that they are of, or make no sense.
    """
    given = _given(options, ("export", *_TUNING))
    if not given:
        return None
    from training.finetune import FinetuneOptions
    from training.finetune_fit import Recipe

    told = {name: getattr(options, name) for name in (*_TUNING, "export") if getattr(options, name) is not None}
    recipe = Recipe(**{name: told.pop(name) for name in _RECIPE if name in told})
    tuned = FinetuneOptions(**{"export": Path(), "workers": 2, "seed": options.seed, "recipe": recipe, **told})
    if tuned.system not in (options.systems or ()) or options.export is None:
        raise UsageError(
            f"{', '.join(given)}: of fine-tuning, which needs --systems {tuned.system} and --export EXPORT; give both, "
            "or leave these out."
        )
    tuned.check()
    return tuned


def _limit_threads(threads: int | None) -> None:
    if threads is None:
        return
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _embeddings(texts: list[str]) -> Mapping[str, Path]:
    found: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not folder or not name.replace("_", "").isalnum() or not name.isascii() or name in found:
            raise UsageError(
                f"--embeddings {text!r}: it is written NAME=FOLDER; each name once, of letters, digits, _."
            )
        found[name] = Path(folder)
    return found
