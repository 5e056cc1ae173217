"""`genu-train preprocess`: MR series to slices, as a network sees them."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from training import export_names


def add_command(commands: Any) -> None:
    """Register the command."""
    command = commands.add_parser(
        "preprocess", help="MR series of a cohort or an export to prepared slices; goes on where it stopped"
    )
    command.add_argument(
        "--export", type=export_names.named, required=True, help="folder, DICOMDIR, zip or URL of the DICOM files"
    )
    command.add_argument(
        "--index", type=Path, default=None, help="of that export (default: where index puts it; a folder needs none)"
    )
    command.add_argument(
        "--cohort", type=Path, default=None, help="folder with cohort.parquet of that export (default: every study)"
    )
    command.add_argument("--out", type=Path, required=True, help="folder of the slices; also their cache")
    command.add_argument(
        "--sequence", default="cor_iw_tse", help="cor_iw_tse, sag_iw_tse or sag_3d_dess (default: cor_iw_tse)"
    )
    command.add_argument(
        "--slices", type=int, default=None, help="how many (default: 8 of the turbo spin echoes, 64 of the DESS)"
    )
    command.add_argument(
        "--choice",
        choices=("middle", "whole"),
        default=None,
        help="consecutive slices around the middle, or spread over the volume (default: middle; whole of the DESS)",
    )
    command.add_argument("--size", type=int, default=224, help="rows and columns of the slices (default: 224)")
    command.add_argument(
        "--percentiles",
        type=float,
        nargs=2,
        default=(10.0, 80.0),
        metavar=("LOW", "HIGH"),
        help="of the slices, clipped to and stretched to 0..1 (default: 10 80)",
    )
    command.add_argument(
        "--extent", type=float, default=None, metavar="MM", help="side of the square shown (default: the whole image)"
    )
    command.add_argument("--no-n4", action="store_true", help="leave the bias field as it is")
    command.add_argument("--shrink", type=int, default=4, help="of N4: every so many voxels at most (default: 4)")
    command.add_argument(
        "--side", choices=("L", "R"), default=None, help="the side of series that do not say it; not with --cohort"
    )
    command.add_argument("--workers", type=int, default=2, help="processes, 0 for none (default: 2)")
    command.add_argument("--nifti", action="store_true", help="also write each series, as measured, to OUT/nifti")
    command.set_defaults(run_command=_preprocess)


def _preprocess(options: argparse.Namespace) -> None:
    from inference.errors import UsageError
    from inference.findings import Side
    from training.preprocess_mri import PreprocessPlan, default_spec, preprocess
    from training.progress_cli import Said

    if options.side is not None and options.cohort is not None:
        raise UsageError("--side is for an export without a cohort: the cohort says the sides.")
    plain = default_spec(options.sequence)
    try:
        spec = dataclasses.replace(
            plain,
            slices=plain.slices if options.slices is None else options.slices,
            choice=options.choice or plain.choice,
            size=options.size,
            low=options.percentiles[0],
            high=options.percentiles[1],
            extent_mm=options.extent,
            n4=not options.no_n4,
            bias=dataclasses.replace(plain.bias, shrink=options.shrink),
        )
    except ValueError as error:
        raise UsageError(f"{error}.") from None
    plan = PreprocessPlan(
        export=options.export,
        out=options.out,
        spec=spec,
        cohort=options.cohort,
        side=Side(options.side) if options.side else None,
        workers=options.workers,
        nifti=options.nifti,
        index=options.index,
    )
    report = preprocess(plan, Said())
    print(
        f"{report.prepared} series prepared in {report.seconds:.1f} s, {report.cached} of them there already; "
        f"{report.failed} in {options.out / 'failures.csv'}, {report.passed_over} passed over "
        f"({options.out / 'choices.csv'})"
    )
    if not report.prepared:
        print("genu-train: no series could be prepared.", file=sys.stderr)
