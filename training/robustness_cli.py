"""`genu-train robustness`: what changes of a film cost, as a table in a page and as a picture."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.manifest import SHIPPED
from training.numbers_cli import positive

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def add_command(commands: Any) -> None:
    """Register the command."""
    robustness = commands.add_parser("robustness", help="measure what changes of a film cost, with a bundle")
    robustness.add_argument("--images", type=Path, required=True, help="folder with image files or .tar archives")
    robustness.add_argument(
        "--labels", type=Path, required=True, help="CSV of `dicomize`, with a column looks_inverted"
    )
    robustness.add_argument("--split", default="val", help="the split to take knees of (default: val)")
    robustness.add_argument("--knees", type=int, default=400, help="number of knees (default: 400)")
    robustness.add_argument("--bundle", type=Path, default=SHIPPED, help="bundle folder (default: the shipped one)")
    robustness.add_argument("--threads", type=positive, default=None, help="torch threads (default: torch's choice)")
    robustness.add_argument("--out", type=Path, required=True, help="folder of robustness.json and robustness.png")
    robustness.add_argument("--page", type=Path, default=None, help="Markdown page whose table is written again")
    robustness.set_defaults(run_command=_robustness)


def _robustness(options: argparse.Namespace) -> None:
    import numpy as np

    from inference.errors import UsageError
    from inference.predictor import Predictor
    from training.finder_data import bright_boned_images
    from training.robustness import run
    from training.robustness_picture import draw

    if options.knees < 2:
        raise UsageError(f"--knees {options.knees}: at least 2 are needed.")
    rows, crops = bright_boned_images(options.images, options.labels, options.split)
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[: options.knees])
    predictor = Predictor.load([options.bundle], threads=options.threads)
    results = run(crops[chosen], [rows[int(number)] for number in chosen], predictor, _say)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "robustness.json").write_text(json.dumps(results) + "\n", encoding="utf-8")
    draw(results, options.out / "robustness.png")
    text = table(results)
    print(text)
    if options.page is not None:
        write_into(options.page, text)


def table(results: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    films = results["films"]
    lines = [
        f"{results['bundle']}, {results['knees']} knees of {results['patients']} patients.",
        "",
        "| | quadratic kappa (95 %) | accuracy | refused | wrong sides |",
        "|---|---|---|---|---|",
        f"| crops as published | {_kappa(results['crops'])} | {results['crops']['accuracy']:.3f} | | |",
        f"| crops as published, through the service | {_kappa(results['films_of_crops'])} | "
        f"{_number(results['films_of_crops']['accuracy'])} | {results['films_of_crops']['refused']:.1%} | "
        f"{results['films_of_crops']['wrong_sides']} |",
        f"| made films, true box | {_kappa(results['true_box'])} | {results['true_box']['accuracy']:.3f} | | |",
        f"| made films, through the service | {_kappa(films)} | {_number(films['accuracy'])} | "
        f"{films['refused']:.1%} | {films['wrong_sides']} |",
        "",
        "| change | step | quadratic kappa | the same knees unchanged | same grade | refused | reasons | wrong sides |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results["changes"]:
        codes = ", ".join(f"`{code}` {count}" for code, count in row["codes"].items())
        lines.append(
            f"| {row['kind']} | {row['step']} | {_number(row['quadratic_kappa'])} | "
            f"{_number(row['quadratic_kappa_unchanged'])} | {_percent(row['same_grade'])} | {row['refused']:.1%} | "
            f"{codes} | {row['wrong_sides']} |"
        )
    return "\n".join(lines)


def write_into(page: Path, text: str) -> None:
    """Replace what stands between the marks of a page.

    Raises:
        DataError: the page has no such marks.
    """
    from inference.errors import DataError

    before, mark, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise DataError(f"{page} has no lines {BEGIN} and {END}: put them where the table belongs.")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _kappa(row: Mapping[str, Any]) -> str:
    if row["quadratic_kappa"] is None:
        return "-"
    low, high = row["quadratic_kappa_95"]
    return f"{row['quadratic_kappa']:.3f} ({low:.3f} to {high:.3f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _say(text: str) -> None:
    print(text, flush=True)
