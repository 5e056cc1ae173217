"""`genu-train acceptance`: make films of every kind, have them scored by `genu score`, and judge what came of them."""

import argparse
import csv
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.errors import GenuError, UsageError
from training.numbers_cli import seed
from training.robustness_cli import write_into

if TYPE_CHECKING:
    from training.acceptance import TrueFilm, Verdict


def add_command(commands: Any) -> None:
    """Register the command."""
    run = commands.add_parser("acceptance", help="make films of every kind, score them, and judge sides and refusals")
    run.add_argument("--images", type=Path, default=None, help="labelled knees: a folder, or a .tar archive")
    run.add_argument(
        "--labels", type=Path, default=None, help="CSV of `dicomize`; knees that look inverted are left out"
    )
    run.add_argument("--split", default="val", help="whose knees; one that was never learnt from (default: val)")
    run.add_argument("--out", type=Path, required=True, help="folder of films, truth.csv, results and verdict.csv")
    run.add_argument("--films", type=int, default=200, help="how many are made (default: 200)")
    run.add_argument("--seed", type=seed, default=0, help="of the films (default: 0)")
    run.add_argument(
        "--real",
        type=Path,
        nargs="+",
        default=(),
        help="DICOM files that show no frontal knee, films that we know, archives and folders of them",
    )
    run.add_argument("--only-films", action="store_true", help="write the films and truth.csv, score nothing")
    run.add_argument(
        "--judge", type=Path, default=None, help="only judge this results.jsonl, with the truth.csv of OUT"
    )
    run.add_argument("--page", type=Path, default=None, help="Markdown page whose table is written again")
    run.set_defaults(run_command=_acceptance)


def _acceptance(options: argparse.Namespace) -> None:
    from training.acceptance import TRUTH, judge, read_truth

    if options.judge is None:
        truth = _made(options)
        print(f"{len(truth)} films and {TRUTH} in {options.out}", flush=True)
        if options.only_films:
            return
        results = _scored(options.out)
    else:
        truth, results = read_truth(options.out / TRUTH), options.judge
    verdict = judge(truth, results)
    _write(verdict, options.out / "verdict.csv")
    print(table := _table(verdict))
    if options.page is not None:
        graders = ", ".join(sorted({name for judged in verdict.films for name in judged.models})) or "nothing graded"
        day = datetime.now().astimezone().date().isoformat()
        write_into(options.page, f"Measured on {day}; {graders}.\n\n{table}")
    if not verdict.passed:
        raise GenuError("not accepted: a side is wrong, what is no frontal knee was graded, or a result is missing")


def _made(options: argparse.Namespace) -> "list[TrueFilm]":
    from training.acceptance import FILMS, TRUTH, write_set, write_truth
    from training.acceptance_films import Knees
    from training.acceptance_real import write_real

    if options.images is None or options.labels is None:
        raise UsageError("--images and --labels: both are needed to make films (or --judge, to judge only).")
    if options.films < 1:
        raise UsageError(f"--films {options.films}: it must be 1 or more.")
    if (options.out / FILMS).exists() and any((options.out / FILMS).iterdir()):
        raise UsageError(f"--out {options.out}: there are films in it; name another folder, or remove them.")
    knees = Knees.read(options.images, options.labels, options.split)
    truth = write_set(knees, options.films, options.seed, options.out)
    truth += write_real(options.real, options.seed, options.out, len(truth))
    write_truth(truth, options.out / TRUTH)
    return truth


def _scored(out: Path) -> Path:
    """results.jsonl of `genu score`, run as a child process."""
    from training.acceptance import FILMS

    results = out / "results"
    command = [sys.executable, "-m", "plugin.cli", "score", str(out / FILMS), "--out", str(results)]
    subprocess.run(command, check=False)  # a study that failed is judged below
    return results / "results.jsonl"


def _write(verdict: "Verdict", path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "kind", "outcome", "shows", "said"))
        writer.writerows((j.film.file, j.film.kind, j.outcome.value, j.film.shows, j.said) for j in verdict.films)


def _table(verdict: "Verdict") -> str:
    """The films by kind and outcome, in Markdown; the films of which something else was expected below."""
    from training.acceptance import Outcome

    lines = [f"| kind | films | {' | '.join(Outcome)} |", f"|---|{'---:|' * (len(Outcome) + 1)}"]
    kinds = verdict.of_kinds()
    for kind, counts in kinds.items():
        lines.append(f"| {kind} | {counts.total()} | {' | '.join(str(counts[outcome] or '') for outcome in Outcome)} |")
    sums = [sum(counts[outcome] for counts in kinds.values()) for outcome in Outcome]
    lines += [f"| **all** | {sum(sums)} | {' | '.join(map(str, sums))} |", ""]
    lines += [f"- {j.outcome}: `{Path(j.film.file).name}`: {j.film.shows}; {j.said}" for j in verdict.unexpected()]
    return "\n".join(lines)
