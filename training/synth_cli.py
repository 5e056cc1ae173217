"""`genu-train synth`: a made export with its tables, planted effects and the truth about them."""

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:
    """Register the command."""
    synth = commands.add_parser("synth", help="a made export with tables, planted effects and the truth about them")
    synth.add_argument("source", choices=("mrkr",), help="whose tables it has")
    synth.add_argument("--out", type=Path, required=True, help="folder of images/, tables/ and truth.json")
    synth.add_argument("--patients", type=int, default=300, help="how many (default: 300)")
    synth.add_argument("--seed", type=int, default=0, help="decides everything (default: 0)")
    synth.add_argument(
        "--effect",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a planted effect on pain: base, kl, image, age, sex, race, noise; 0 for none; may be repeated",
    )
    synth.set_defaults(run_command=_synth)


def _synth(options: argparse.Namespace) -> None:
    from training.synth import make_mrkr

    changes = dict(_effect(text) for text in options.effect)
    made = make_mrkr(options.out, options.patients, options.seed, changes)
    print(f"{made.films} films of {made.patients} patients in {options.out}; the rules must keep {made.knees} knees")


def _effect(text: str) -> tuple[str, float]:
    from inference.errors import UsageError

    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise UsageError(f"--effect {text!r}: it is written NAME=VALUE, for example kl=0.5.") from error
