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
    evaluate = steps.add_parser("evaluate", help="judge the answers, and a run's systems on the same pairs")
    evaluate.add_argument(
        "bench", type=Path, help="folder of `genu-train readers draw`; figures go into its evaluation/"
    )
    evaluate.add_argument("--run", type=Path, default=None, help="a cross-validated run on progression")
    evaluate.add_argument("--system", nargs="+", default=[], help="of --run (default: all of them)")
    evaluate.set_defaults(run_command=_evaluate)
    change = steps.add_parser("reliable-change", help="the least change that is no error, from test-retest data")
    change.add_argument(
        "data", type=Path, help="CSV: first, second (mm), and patient where there are several knees of one"
    )
    change.add_argument(
        "--reliability", choices=("icc", "pearson"), default="icc",
        help="intraclass correlation (absolute agreement), or Pearson's (default: icc)",
    )  # fmt: skip
    change.add_argument("--seed", type=seed, default=0, help="of the bootstrap (default: 0)")
    change.set_defaults(run_command=_reliable_change)


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


def _evaluate(options: argparse.Namespace) -> None:
    from inference.errors import UsageError
    from training.readers_evaluate import evaluate
    from training.readers_report import write_report

    if options.system and options.run is None:
        raise UsageError(f"--system {' '.join(options.system)} needs --run.")
    figures = evaluate(options.bench, options.run, options.system)
    for row in figures["rows"]:
        value, low, high = row["auc"]
        shown = "no answer" if value is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
        print(f"{row['role']} {row['title']}: {shown} of {row['pairs']} pairs, {row['ties']} ties")
    for one in figures["agreement"]:
        kappa = "none" if one["kappa"][0] is None else f"{one['kappa'][0]:.3f}"
        print(f"{one['one']} and {one['other']}: kappa {kappa} on {one['pairs']} pairs")
    for one in figures["against"]:
        if one["difference"][0] is not None:
            p = "none" if one["p"] is None else f"{one['p']:.4f}"
            print(f"{one['system']} against {one['reader']}: {one['difference'][0]:+.3f}, McNemar p {p}")
    print(write_report(options.bench, figures))


def _reliable_change(options: argparse.Namespace) -> None:
    from training.readers_change import read_test_retest, reliable_change

    found = reliable_change(read_test_retest(options.data), reliability=options.reliability, seed=options.seed)
    value, low, high = found.cut
    print(f"{found.knees} knees of {found.patients} patients, mean shift {found.shift:+.3f} mm")
    print(f"ICC(2,1) {found.icc:.4f}, Pearson's r {found.pearson:.4f}; SD {found.sd:.3f} mm")
    print(f"SEM {found.sem:.4f} mm (by {found.reliability}); 1.96 SD of the differences {found.repeatability:.3f} mm")
    interval = "no interval" if low is None else f"{low:.3f} to {high:.3f}"
    print(f"a change is reliable beyond {value:.3f} mm ({interval}): --almost-certain {-(value or 0):.3f}")
