"""`genu-train uncertainty`: coverage of a bundle's conformal sets, and what it refuses as unlike its training knees."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from inference.manifest import SHIPPED
from training.numbers_cli import positive


def add_command(commands: Any) -> None:
    """Register the command."""
    command = commands.add_parser("uncertainty", help="measure a bundle's conformal sets and what it refuses")
    command.add_argument("--images", type=Path, required=True, help="folder with image files or .tar archives")
    command.add_argument("--labels", type=Path, required=True, help="CSV of `dicomize`, with a column looks_inverted")
    command.add_argument("--split", default="val", help="the split to take knees of (default: val)")
    command.add_argument(
        "--others", type=Path, nargs="+", default=[], help="folders with DICOM images that show no frontal knee"
    )
    command.add_argument("--bundle", type=Path, default=SHIPPED, help="bundle folder (default: the shipped one)")
    command.add_argument("--threads", type=positive, default=None, help="torch threads (default: torch's choice)")
    command.add_argument("--page", type=Path, default=None, help="Markdown page whose table is written again")
    command.set_defaults(run_command=_uncertainty)


def _uncertainty(options: argparse.Namespace) -> None:
    import torch

    from inference.bundle import Bundle
    from training.finder_data import bright_boned_images
    from training.robustness_cli import write_into
    from training.uncertainty import measure

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    bundle = Bundle.load(options.bundle)
    rows, crops = bright_boned_images(options.images, options.labels, options.split)
    text = table(measure(bundle, crops, rows, options.others, lambda said: print(said, flush=True)), options.split)
    print(text)
    if options.page is not None:
        write_into(options.page, text)


def table(results: Mapping[str, Any], split: str) -> str:
    """The figures as Markdown."""
    return "\n".join(_lines(results, split))


def _lines(results: Mapping[str, Any], split: str) -> Iterator[str]:
    sets = results["sets"]
    low, high = sets["coverage_95"]
    yield f"{results['bundle']}, {sets['n']} knees of `{split}`; 95 % patient bootstrap."
    yield ""
    yield "| knees | in their set | |"
    yield "|---|---:|---|"
    yield f"| all | {sets['coverage']:.1%} | {low:.1%} to {high:.1%}; wanted {sets['wanted']:.0%} |"
    for grade, share in enumerate(sets["by_grade"]):
        yield f"| KL {grade} | {'none' if share is None else f'{share:.1%}'} | |"
    for side, share in sets["by_side"].items():
        yield f"| side {side} | {share:.1%} | |"
    sizes = ", ".join(f"{size}: {count}" for size, count in enumerate(sets["sizes"], start=1) if count)
    yield ""
    yield f"Grades in a set: {sets['mean_size']:.2f} in the mean; knees by number of grades: {sizes}."
    yield ""
    yield f"Refused is what has a score above {results['limit']:.2f}:"
    yield ""
    yield "| pictures | number | refused | least score | median | largest |"
    yield "|---|---:|---:|---:|---:|---:|"
    rows = {f"**knees of `{split}`**": results["knees"]}
    rows |= {f"knees, {name}": row for name, row in results["varied"].items()} | dict(results["strangers"])
    for name, row in rows.items():
        least, middle, largest = row["scores"]
        yield f"| {name} | {row['n']} | {row['refused']:.1%} | {least:.1f} | {middle:.1f} | {largest:.1f} |"
