"""`genu-train search`: hyperparameters of the grader by cross-validation on `train`."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.numbers_cli import positive

if TYPE_CHECKING:
    from training.search_space import Space
    from training.search_table import Row


def add_command(commands: Any) -> None:
    """Register the command."""
    search = commands.add_parser(
        "search", help="compare hyperparameters of the KL grader by cross-validation on train; goes on where it stopped"
    )
    search.add_argument("--export", type=Path, required=True, help="the DICOM export; only its split train is read")
    search.add_argument("--index", type=Path, default=None, help="default: EXPORT/index.parquet")
    search.add_argument("--labels", type=Path, default=None, help="default: EXPORT/labels.csv")
    search.add_argument(
        "--space", type=Path, default=Path(__file__).parent / "kl_search.toml", help="TOML file of the candidates"
    )
    search.add_argument("--out", type=Path, required=True, help="the search's folder: crops, fits, tables")
    search.add_argument("--folds", type=positive, default=None, help="patient-grouped folds (default: the file's)")
    search.add_argument(
        "--only", metavar="NAME", action="append", default=[],
        help="only this candidate and its reference, or this member's; may be repeated",
    )  # fmt: skip
    search.add_argument(
        "--initial-weights", type=Path, nargs="+", default=[], help="ImageNet weights, as for fit (default: random)"
    )
    search.add_argument("--threads", type=positive, default=None, help="torch threads (default: torch's choice)")
    search.set_defaults(run_command=_search)


def _search(options: argparse.Namespace) -> None:
    import torch

    from training.alone import alone
    from training.crops import left_out_line
    from training.search import Source, search
    from training.search_space import read_space
    from training.search_text import as_markdown

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    space = read_space(options.space, options.folds)
    source = Source(
        options.export,
        options.index or options.export / "index.parquet",
        options.labels or options.export / "labels.csv",
        options.out,
        tuple(options.initial_weights),
    )
    with alone(options.out):
        (options.out / "space.toml").write_text(options.space.read_text("utf-8"), encoding="utf-8")
        rows = search(source, space, options.only, _Said(space, options.out))
        _write(space, rows, options.out)
    if line := left_out_line(options.out):
        print(line)
    print(as_markdown(space, rows))
    print(f"the same in {options.out / 'search.md'}, all columns in {options.out / 'candidates.csv'}")


def _write(space: "Space", rows: Sequence["Row"], out: Path) -> None:
    from training.search_text import as_csv, as_markdown

    (out / "candidates.csv").write_text(as_csv(rows), encoding="utf-8")
    (out / "search.md").write_text(as_markdown(space, rows), encoding="utf-8")


class _Said:
    """Tells people how far the search is, and keeps the tables of what is done."""

    def __init__(self, space: "Space", out: Path) -> None:
        self._space, self._out = space, out

    def read(self, done: int, total: int) -> None:
        if done == total or done % 1000 == 0:
            print(f"{done}/{total} knees read", flush=True)

    def fits(self, candidate: str, fold: int, place: int, total: int) -> None:
        print(f"{candidate}, fold {fold}: fit {place} of {total} of this stage", flush=True)

    def epoch(self, candidate: str, fold: int, epochs: int, figures: Mapping[str, float]) -> None:
        seconds, epoch = figures["seconds"], int(figures["epoch"])
        left = seconds * (epochs - epoch) / 60
        print(
            f"{candidate}, fold {fold}, epoch {epoch}/{epochs}: loss {figures['loss']:.3f}, {seconds:.0f} s, "
            f"{left:.1f} min left of this fit",
            flush=True,
        )

    def rows(self, rows: Sequence["Row"]) -> None:
        _write(self._space, rows, self._out)
