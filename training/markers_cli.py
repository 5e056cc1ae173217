"""`genu-train markers`: make the reader of burned-in side letters, or only its figures."""

import argparse
from pathlib import Path
from typing import Any

from training.numbers_cli import seed


def add_command(commands: Any) -> None:
    """Register the command."""
    markers = commands.add_parser("markers", help="make the reader of burned-in side letters")
    markers.add_argument("--run", type=Path, required=True, help="run of `genu-train fit`: its crops are drawn around")
    markers.add_argument("--out", type=Path, required=True, help="the bundle's folder; its files are replaced")
    markers.add_argument("--windows", type=int, default=6500, help="drawn pieces of films (default: 6500)")
    markers.add_argument("--steps", type=int, default=2600, help="training steps (default: 2600)")
    markers.add_argument("--seed", type=seed, default=0, help="of everything that is drawn by chance (default: 0)")
    markers.add_argument("--films", type=int, default=1000, help="films for the figures at the end (default: 1000)")
    markers.add_argument("--evaluate-only", action="store_true", help="only the figures of the bundle in --out")
    markers.set_defaults(run_command=_markers)


def _markers(options: argparse.Namespace) -> None:
    from inference.markers import MarkerReader
    from training import runs
    from training.markers import Plan, make, report

    parts = runs.data(runs.read(options.run))
    if not options.evaluate_only:
        plan = Plan(options.windows, options.steps, seed=options.seed)
        make(parts["fit"].crops, parts["tune"].crops, plan, options.out, _say)
    crops = parts["val"].crops if "val" in parts else parts["tune"].crops
    for line in report(MarkerReader.load(options.out), crops, options.films, options.seed + 2):
        _say(line)


def _say(text: str) -> None:
    print(text, flush=True)
