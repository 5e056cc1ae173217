"""`genu-train recover`: does a run on a made cohort find what was planted, and nothing else?"""

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:
    """Register the command."""
    recover = commands.add_parser("recover", help="hold a run on a made cohort against its planted effects")
    recover.add_argument("--run", type=Path, required=True, help="the run's folder; figures go into RUN/recovery")
    recover.add_argument("--truth", type=Path, required=True, help="truth.json of `genu-train synth`")
    recover.set_defaults(run_command=_recover)


def _recover(options: argparse.Namespace) -> None:
    from inference.errors import DataError
    from training.cv_evidence import kind_of
    from training.cv_run import read
    from training.effects import recover
    from training.effects_classes import recover_classes

    classes = kind_of(options.run) == "classification"
    found = recover_classes(options.run, options.truth) if classes else recover(read(options.run), options.truth)
    for row in found.rows:
        interval = "no interval" if row.low is None else f"{row.low:.3f} to {row.high:.3f}"
        planted = "" if row.planted is None else f", planted {row.planted:g}"
        said = {True: "holds", False: "DOES NOT HOLD", None: "told"}[row.holds]
        value = "none" if row.value is None else f"{row.value:.3f}"
        print(f"{row.effect or 'all'} {row.system or 'cohort'}: {row.figure}: {value} ({interval}){planted}: {said}")
    if not found.recovered:
        raise DataError(
            f"not recovered from {found.knees} {'rows' if classes else 'knees'}: {'; '.join(found.failures)}."
        )
    print(f"recovered from {found.knees} {'rows' if classes else 'knees'} of {found.patients} patients")
