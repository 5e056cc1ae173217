"""`genu-train readers`: pairs of knees for readers; drawn, shown in a browser, judged."""

import argparse
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Any

from training.numbers_cli import seed

_SEQUENCES = ("cor_iw_tse", "sag_iw_tse", "sag_3d_dess")


def add_command(commands: Any) -> None:
    """Register the command and what it can do."""
    readers = commands.add_parser("readers", help="pairs of knees for readers: draw them, show them, judge the answers")
    steps = readers.add_subparsers(dest="step", required=True, help="what to do")
    _draw_options(steps)
    serve = steps.add_parser("serve", help="show the pairs to one reader, in a browser of this machine")
    serve.add_argument("bench", type=Path, help="folder of `genu-train readers draw`; truth.json may be missing")
    serve.add_argument("--reader", required=True, help="who reads; the same name goes on where it stopped")
    serve.add_argument("--port", type=int, default=0, help="of 127.0.0.1 (default: a free one)")
    serve.add_argument("--no-browser", action="store_true", help="only print the address")
    serve.add_argument("--no-ties", action="store_true", help="leave out the answer 'cannot tell'")
    serve.set_defaults(run_command=_serve)


def _draw_options(steps: Any) -> None:
    draw = steps.add_parser("draw", help="draw pairs of one knee that progressed and one that did not, with pictures")
    draw.add_argument("--cohort", type=Path, required=True, help="folder of cohort.parquet, of MR series")
    draw.add_argument("--export", type=Path, default=None, help="the DICOM export: whole series are shown, as measured")
    draw.add_argument(
        "--prepared", type=Path, default=None,
        help="folder of `genu-train preprocess`: only its series are drawn; shown are its slices without --export",
    )  # fmt: skip
    draw.add_argument("--out", type=Path, required=True, help="the new folder")
    draw.add_argument("--sequence", choices=_SEQUENCES, default=None, help="default: that of --prepared, or cor_iw_tse")
    draw.add_argument(
        "--strata", type=_counts, default=(10, 130, 10), metavar="N,N,N",
        help="pairs whose progressor is almost certain, likely, doubtful (default: 10,130,10)",
    )  # fmt: skip
    draw.add_argument(
        "--almost-certain", type=float, default=-1.1, metavar="MM",
        help="change of the joint space below which a loss is almost certain (default: -1.1; see reliable-change)",
    )  # fmt: skip
    draw.add_argument(
        "--likely", type=float, default=-0.6, metavar="MM", help="below it a loss is likely (default: -0.6)"
    )
    draw.add_argument(
        "--progression", type=float, default=-0.5, metavar="MM",
        help="below it a loss is doubtful; the other knee of a pair is above it (default: -0.5)",
    )  # fmt: skip
    draw.add_argument("--change", default="delta_mjsw", metavar="COLUMN", help="the change, mm (default: delta_mjsw)")
    draw.add_argument(
        "--match", nargs="+", default=[], metavar="COLUMN[:WITHIN]",
        help="both knees of a pair are alike in these columns, as in sex age:5 (default: matched on nothing)",
    )  # fmt: skip
    draw.add_argument("--both-knees", action="store_true", help="both knees of a patient may be drawn, into two pairs")
    draw.add_argument("--unmirrored", action="store_true", help="do not mirror right knees to look like left ones")
    draw.add_argument("--run", type=Path, default=None, help="only knees that --system of this run has predicted")
    draw.add_argument("--system", default=None, help="with --run; both knees of a pair are then of one fold")
    draw.add_argument("--seed", type=seed, default=0, help="decides which knees are drawn (default: 0)")
    draw.set_defaults(run_command=_draw)


def _counts(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: three whole numbers, as in 2,20,2")
    one, two, three = (int(part) for part in parts)
    return one, two, three


def _draw(options: argparse.Namespace) -> None:
    from training.progress_cli import Said
    from training.readers import STRATA, Strata
    from training.readers_draw import Match, Wish
    from training.readers_make import DrawPlan, make

    strata = Strata(options.strata, options.almost_certain, options.likely, options.progression)
    wish = Wish(strata, tuple(map(Match.read, options.match)), once=not options.both_knees)
    plan = DrawPlan(
        cohort=options.cohort, out=options.out, wish=wish, export=options.export, prepared=options.prepared,
        run=options.run, system=options.system, sequence=options.sequence, change=options.change,
        mirrored=not options.unmirrored, seed=options.seed,
    )  # fmt: skip
    drawn = make(plan, Said())
    for why, count in drawn.left_out.items():
        print(f"left out: {count} {why}")
    listed = ", ".join(f"{count} {name}" for name, count in zip(STRATA, drawn.counts, strict=True))
    print(f"{len(drawn.bench.pairs)} pairs in {options.out}: {listed}. Keep truth.json from readers.")


def _serve(options: argparse.Namespace) -> None:
    from inference.errors import UsageError
    from training.readers import read_bench
    from training.readers_answers import AnswerFile
    from training.readers_serve import ReaderServer

    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port {options.port}: 0 to 65535.")
    bench = read_bench(options.bench)
    with AnswerFile(bench, options.reader, ties=not options.no_ties) as answers:
        with ReaderServer(bench, answers, options.port) as server:
            said = f"{len(answers.answers)} of {len(bench.pairs)} pairs answered"
            print(f"{server.address}\n{said}; Ctrl-C ends, the same command goes on", flush=True)
            if not options.no_browser:
                webbrowser.open(server.address)
            with suppress(KeyboardInterrupt):
                server.serve_forever()
        print(f"\n{len(answers.answers)} of {len(bench.pairs)} pairs answered; kept in {bench.folder}")
