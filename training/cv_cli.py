"""`genu-train fit --cohort`: cross-validated systems and baselines."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from inference.errors import UsageError

HEADS = ("ridge", "corn", "attentive", "boosting")
CONVNEXT = "convnext"


def add_options(fit: argparse.ArgumentParser) -> None:
    """The options of `fit --cohort`, in a group of their own."""
    group = fit.add_argument_group("cross-validated systems on a cohort")
    group.add_argument("--cohort", type=Path, help="folder with cohort.parquet: fit systems and baselines by folds")
    group.add_argument(
        "--embeddings", metavar="NAME=FOLDER", action="append", default=[],
        help="embeddings of `genu-train embed`; NAME is the system's; may be repeated",
    )  # fmt: skip
    group.add_argument("--grades", type=Path, help="Parquet of `genu-train grade` (default: the cohort's KL)")
    group.add_argument("--target", default="pain", help="the column to predict (default: pain)")
    group.add_argument(
        "--bounds", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of the target (default: those of its scale)"
    )
    group.add_argument(
        "--systems", nargs="+", metavar="NAME",
        help=f"only these, and the baselines; {CONVNEXT} is fine-tuned (default: all that the embeddings allow)",
    )  # fmt: skip
    group.add_argument(
        "--heads", nargs="+", default=["ridge"], metavar="HEAD",
        help=f"on frozen embeddings: {', '.join(HEADS)} (default: ridge)",
    )  # fmt: skip
    group.add_argument("--folds", type=int, default=5, help="patient-grouped folds (default: 5)")
    group.add_argument("--seed", type=int, default=0, help="of folds and heads (default: 0)")


def fit(options: argparse.Namespace) -> None:
    """Fit what the command line asks for.

    Raises:
        UsageError, DataError: as `training.cv_run.create` and `training.cv_fit.fit_systems`.
    """
    from training import cv_fit, cv_run
    from training.systems import BASELINES, Store, systems

    if options.threads is not None:
        import torch
        from threadpoolctl import threadpool_limits

        torch.set_num_threads(options.threads)
        threadpool_limits(options.threads)
    run = cv_run.create(
        options.run, options.cohort, _embeddings(options.embeddings), target=options.target, grades=options.grades,
        folds=options.folds, seed=options.seed, bounds=None if options.bounds is None else tuple(options.bounds),
    )  # fmt: skip
    stores = [Store(name, s.spec.backbone, s.spec.features, s.spec.texts) for name, s in run.stores().items()]
    table = systems(stores, options.heads, run.bounds)
    wanted = [*(system.name for system in BASELINES), *(options.systems or (system.name for system in table))]
    known = {system.name for system in table} | {CONVNEXT}
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise UsageError(f"there is no system {', '.join(unknown)}; there are {', '.join(sorted(known))}.")
    knees = run.knees()
    print(f"{len(knees)} knees of {knees['PatientID'].n_unique()} patients in {run.folds} folds; "
          + "; ".join(f"{count} {why}" for why, count in run.left_out.items()), file=sys.stderr)  # fmt: skip
    run = cv_fit.fit_systems(run, [system for system in table if system.name in wanted], _say)
    if CONVNEXT in wanted:
        from training.finetune import finetune

        finetune(run.folder, options)
        run = cv_run.finished(run, [CONVNEXT])
    print(f"{len(run.systems)} systems in {run.folder}: {', '.join(run.systems)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _embeddings(texts: list[str]) -> Mapping[str, Path]:
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or not name.replace("_", "").replace("-", "").isalnum() or name in found:
            raise UsageError(
                f"--embeddings {text!r}: it is written NAME=FOLDER, each name once, of letters, digits, _."
            )
        found[name] = Path(folder)
    return found
