"""`genu-train grade`: Kellgren-Lawrence grades of a cohort's knees by a bundle."""

import argparse
from pathlib import Path
from typing import Any

from training import export_names
from training.numbers_cli import positive
from training.progress_cli import Said


def add_command(commands: Any) -> None:
    """Register the command."""
    grade = commands.add_parser("grade", help="grade the knees of a cohort with a KL bundle; goes on where it stopped")
    grade.add_argument("--cohort", type=Path, required=True, help="folder with cohort.parquet")
    grade.add_argument(
        "--export", type=export_names.named, required=True, help="the DICOM export that the cohort was made of"
    )
    grade.add_argument("--out", type=Path, required=True, help="Parquet file of the grades; failures come beside it")
    grade.add_argument("--bundle", type=Path, default=None, help="folder of a KL bundle (default: the one that ships)")
    grade.add_argument("--batch", type=int, default=32, help="knees of one forward (default: 32)")
    grade.add_argument("--workers", type=int, default=2, help="decode processes, 0 for none (default: 2)")
    grade.add_argument("--device", choices=("cpu", "cuda"), default=None, help="default: a GPU where there is one")
    grade.add_argument("--threads", type=positive, default=None, help="torch threads (default: torch's choice)")
    grade.set_defaults(run_command=_grade)


def _grade(options: argparse.Namespace) -> None:
    import torch

    from training.grade import GradePlan, grade, read_grades

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    plan = GradePlan(
        cohort=options.cohort,
        export=options.export,
        out=options.out,
        bundle=options.bundle,
        batch=options.batch,
        workers=options.workers,
        device=options.device,
    )
    report = grade(plan, Said())
    if report.torn:
        print(f"{len(report.torn)} torn shard(s) made again: {', '.join(report.torn)}")
    found = read_grades(plan.out)
    counts = ", ".join(f"KL {kl}: {int((found.grades == kl).sum())}" for kl in range(5))
    print(f"{report.computed} knees went through the bundle, {report.cached} had before")
    print(f"{report.graded} of {report.knees} knees have a grade ({counts}), {report.failed} are in {plan.failures}")
    said = f"{found.about['bundle']} {found.about['version']}, digest {found.about['digest'][:12]}"
    print(f"by {said}" + ("; its weights are random, the grades mean nothing" if found.synthetic else ""))
