"""`genu-train report`, and `genu-train evaluate` of cross-validated runs."""

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:
    """Register the command."""
    report = commands.add_parser(
        "report", help="a cross-validated run as one HTML page with its tables and pictures, systems beside baselines"
    )
    report.add_argument("--run", type=Path, required=True, help="the run's folder; the report goes into RUN/report")
    report.add_argument(
        "--published", action=argparse.BooleanOptionalAction, default=True,
        help="show published figures in the same table, marked as of other data (default: yes)",
    )  # fmt: skip
    report.set_defaults(run_command=_report)


def is_cross_validated(run: Path) -> bool:
    """Whether run.json names a kind; without one it is a run of the KL grader."""
    from training.cv_evidence import kind_of

    return kind_of(run) is not None


def evaluate(run: Path) -> None:
    """Measure a cross-validated run and print its chief figures."""
    from training.cv_evaluate import FOLDER, evaluate_run, unfinished
    from training.cv_families import family_of

    figures = evaluate_run(run)
    for line in family_of(figures["kind"]).lines(figures):
        print(line)
    if (missing := unfinished(figures)) is not None:
        print(missing)
    print(f"{figures['knees']} knees of {figures['patients']} patients; figures in {run / FOLDER}")


def _report(options: argparse.Namespace) -> None:
    from training.report import write_report

    print(write_report(options.run, published=options.published))
