"""`genu-train synth`: a made export with its tables, planted effects and the truth about them."""

import argparse
from pathlib import Path
from typing import Any

from training.numbers_cli import seed

_PATIENTS = {"mrkr": 300, "oai": 60}


def add_command(commands: Any) -> None:
    """Register the command."""
    synth = commands.add_parser("synth", help="a made export with tables, planted effects and the truth about them")
    synth.add_argument("source", choices=tuple(_PATIENTS), help="whose tables it has: MRKR (films) or OAI (MR)")
    synth.add_argument("--out", type=Path, required=True, help="folder of images/, tables/ and truth.json")
    synth.add_argument("--patients", type=int, default=None, help="how many (default: 300 of mrkr, 60 of oai)")
    synth.add_argument("--seed", type=seed, default=0, help="decides everything (default: 0)")
    synth.add_argument(
        "--effect",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a planted effect, 0 for none; mrkr: base, kl, image, age, sex, race, noise; oai: base, jsw, image, age, "
        "bmi, pain_base, pain_image, pain_kl, pain_noise; may be repeated",
    )
    synth.add_argument(
        "--slices", type=int, default=None, help="oai: slices of a TSE series, half those of a DESS (default: 12)"
    )
    synth.add_argument("--size", type=int, default=None, help="oai: rows and columns of a slice (default: 96)")
    synth.set_defaults(run_command=_synth)


def _synth(options: argparse.Namespace) -> None:
    from inference.errors import UsageError

    changes = dict(_effect(text) for text in options.effect)
    patients = _PATIENTS[options.source] if options.patients is None else options.patients
    if options.source == "oai":
        _oai(options, patients, changes)
        return
    from training.synth import make_mrkr

    if options.slices is not None or options.size is not None:
        raise UsageError("--slices and --size are for oai; mrkr has films.")
    made = make_mrkr(options.out, patients, options.seed, changes)
    print(f"{made.films} films of {made.patients} patients in {options.out}; the rules must keep {made.knees} knees")


def _oai(options: argparse.Namespace, patients: int, changes: dict[str, float]) -> None:
    from training.synth_oai import SIZE, SLICES, make_oai

    slices = SLICES if options.slices is None else options.slices
    size = SIZE if options.size is None else options.size
    made = make_oai(options.out, patients, options.seed, changes, slices, size)
    print(
        f"{made.series} series ({made.files} files) of {made.patients} patients in {options.out}; the rules must keep "
        f"{made.rows} rows for progression_abs"
    )


def _effect(text: str) -> tuple[str, float]:
    from inference.errors import UsageError

    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise UsageError(f"--effect {text!r}: it is written NAME=VALUE, for example kl=0.5.") from error
