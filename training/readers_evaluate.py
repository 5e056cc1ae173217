"""`genu-train readers evaluate`: what readers said against what happened, and a run's systems on the same pairs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from inference.errors import DataError
from training.predictions import Predictions, read_predictions, systems_of
from training.readers import STRATA, Bench, Truth, read_bench, read_truth
from training.readers_answers import CONFIDENCES, Reading, all_readings
from training.readers_figures import (
    HALF,
    RIGHT,
    WRONG,
    Agreement,
    Floats,
    Ints,
    auc,
    cohen,
    fleiss,
    mcnemar,
    mean_difference,
    mean_of_readers,
)

FOLDER, FIGURES = "evaluation", "figures.json"
TABLES: Final = ("readers.csv", "strata.csv", "agreement.csv", "against.csv", "pairs.csv")
_CLASSES: Final = 3  # one knee, the other, neither


@dataclass(frozen=True, eq=False)
class Judge:
    """A reader or a system. outcomes: (N,) 1, 1/2, 0 by pair of the truth, NaN where there is no answer.

    answers: (N,) 0 or 1 for the first or second knee of the bench's pair, 2 for neither, -1 for no answer.
    """

    name: str
    title: str
    role: str  # "reader", "system" or "baseline"
    outcomes: Floats
    answers: Ints
    synthetic: bool = False

    @property
    def known(self) -> Any:
        """Where there is an answer."""
        return ~np.isnan(self.outcomes)


def evaluate(folder: Path, run: Path | None = None, systems: Sequence[str] = ()) -> dict[str, Any]:
    """Judge all answers; writes FOLDER/evaluation and returns what figures.json holds.

    Args:
        folder: of the pairs, with truth.json.
        run: a cross-validated run on progression, whose out-of-fold probabilities are judged, too.
        systems: of the run; none for all of them.

    Raises:
        DataError: nobody has answered and no run is named; something cannot be read; the run predicts something else,
            or none of the knees.
    """
    bench = read_bench(folder)
    truth, readings = read_truth(bench), all_readings(bench)
    judges = [_reader(one, truth, bench) for one in readings]
    folds: dict[str, int] = {}
    about: dict[str, Any] = {}
    if run is not None:
        about = _run(run)
        for system in systems or systems_of(run):
            found = read_predictions(run, system)
            judges.append(_system(found, truth, bench, run))
            folds[system] = _across(found, truth)
    judges.sort(key=lambda one: ("reader", "system", "baseline").index(one.role))
    if not judges:
        raise DataError(f"nobody has answered in {folder} yet: `genu-train readers serve`, or name a --run.")
    figures = _figures(bench, truth, judges, readings) | {
        "run": str(run) if run is not None else None, "across_folds": folds,
        "synthetic": bench.synthetic or bool(about.get("synthetic")) or any(one.synthetic for one in judges),
    }  # fmt: skip
    out = folder / FOLDER
    out.mkdir(exist_ok=True)
    (out / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for name, table in zip(TABLES, _tables(figures, truth, judges), strict=True):
        table.write_csv(out / name)
    return figures


def _reader(reading: Reading, truth: Truth, bench: Bench) -> Judge:
    first = {pair: one for pair, one, _ in bench.pairs}
    outcomes, answers = np.full(len(truth.pairs), np.nan), np.full(len(truth.pairs), -1, np.int64)
    for place, pair in enumerate(truth.pairs):
        found = reading.answers.get(pair.pair)
        if found is not None:
            outcomes[place] = HALF if found.knee is None else RIGHT if found.knee == pair.progressor else WRONG
            answers[place] = 2 if found.knee is None else int(found.knee != first[pair.pair])
    return Judge(reading.reader, reading.reader, "reader", outcomes, answers)


def _system(found: Predictions, truth: Truth, bench: Bench, run: Path) -> Judge:
    """The knee with the greater probability of progression; equal ones are a tie."""
    if found.probabilities is None or found.probabilities.shape[1] != 2:
        raise DataError(
            f"{found.system} of {run} predicts no probability of two classes: it cannot be judged on pairs."
        )
    scores = dict(zip(found.knees, found.probabilities[:, 1].tolist(), strict=True))
    first = {pair: one for pair, one, _ in bench.pairs}
    outcomes, answers = np.full(len(truth.pairs), np.nan), np.full(len(truth.pairs), -1, np.int64)
    for place, pair in enumerate(truth.pairs):
        if not all(key in scores for key in pair.keys):
            continue
        gap = scores[pair.keys[0]] - scores[pair.keys[1]]
        outcomes[place] = HALF if gap == 0 else RIGHT if gap > 0 else WRONG
        chosen = pair.progressor if gap > 0 else pair.other
        answers[place] = 2 if gap == 0 else int(chosen != first[pair.pair])
    if np.isnan(outcomes).all():
        raise DataError(f"{found.system} of {run} has predicted both knees of none of the pairs: is it of this cohort?")
    role = "baseline" if found.about.get("kind") == "baseline" else "system"
    title = str(found.about.get("title") or found.system)
    return Judge(found.system, title, role, outcomes, answers, bool(found.about.get("synthetic")))


def _run(run: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads((run / "run.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{run / 'run.json'} cannot be read ({error}): name a run of `genu-train fit`.") from error
    target = str(about.get("target"))
    if about.get("kind") != "classification" or not target.startswith("progression"):
        raise DataError(f"{run} predicts {target}: on pairs only probabilities of progression can be judged.")
    return about


def _across(found: Predictions, truth: Truth) -> int:
    """Pairs whose knees were judged by two models, of two folds."""
    folds = dict(zip(found.knees, found.folds.tolist(), strict=True))
    return sum(folds.get(pair.keys[0]) != folds.get(pair.keys[1]) for pair in truth.pairs)


def _figures(bench: Bench, truth: Truth, judges: Sequence[Judge], readings: Sequence[Reading]) -> dict[str, Any]:
    strata = np.array([STRATA.index(pair.stratum) for pair in truth.pairs])
    readers = [one for one in judges if one.role == "reader"]
    systems = [one for one in judges if one.role != "reader"]
    told = {one.reader: one for one in readings}
    rows = [_row(one, strata, told.get(one.name) if one.role == "reader" else None, truth) for one in judges]
    together = [_pairwise(one, other) for n, one in enumerate(readers) for other in readers[n + 1 :]]
    matrix = np.stack([one.outcomes for one in readers], axis=1) if readers else np.empty((len(truth.pairs), 0))
    return {
        "pairs": len(truth.pairs), "strata": {name: int((strata == n).sum()) for n, name in enumerate(STRATA)},
        "drawn": dict(truth.about), "sequence": bench.sequence, "months": bench.months, "source": bench.source,
        "rows": rows,
        "mean_of_readers": list(mean_of_readers(matrix)) if len(readers) > 1 else None,
        "agreement": together,
        "fleiss": _all_agree(readers) if len(readers) > 2 else None,
        "against": [_against(system, reader) for system in systems for reader in readers],
    }  # fmt: skip


def _row(judge: Judge, strata: Any, reading: Reading | None, truth: Truth) -> dict[str, Any]:
    known = judge.outcomes[judge.known]
    row: dict[str, Any] = {
        "name": judge.name, "title": judge.title, "role": judge.role, "pairs": len(known),
        "right": int((known == RIGHT).sum()), "ties": int((known == HALF).sum()), "auc": list(auc(known)),
        "strata": {
            name: [int(((strata == n) & judge.known).sum()), *auc(judge.outcomes[(strata == n) & judge.known])]
            for n, name in enumerate(STRATA)
        },
    }  # fmt: skip
    if reading is not None:
        given = [(reading.answers[pair.pair], outcome)
                 for pair, outcome in zip(truth.pairs, judge.outcomes, strict=True)
                 if pair.pair in reading.answers]  # fmt: skip
        row["seconds"] = float(np.median([answer.seconds for answer, _ in given]))
        row["at_the_left"] = [sum(answer.choice == "first" for answer, _ in given), len(known) - row["ties"]]
        row["confidence"] = {
            str(level): [len(found), *auc(np.array(found, np.float64))]
            for level in CONFIDENCES
            if (found := [outcome for answer, outcome in given if answer.confidence == level])
        }
    return row


def _pairwise(one: Judge, other: Judge) -> dict[str, Any]:
    shared = one.known & other.known
    found = cohen(one.answers[shared], other.answers[shared], _CLASSES)
    return {"one": one.name, "other": other.name, **_agreed(found)}


def _all_agree(readers: Sequence[Judge]) -> dict[str, Any]:
    shared = np.logical_and.reduce([one.known for one in readers])
    return _agreed(fleiss(np.stack([one.answers[shared] for one in readers], axis=1), _CLASSES))


def _agreed(found: Agreement) -> dict[str, Any]:
    return {"pairs": found.pairs, "share": list(found.share), "kappa": list(found.kappa)}


def _against(system: Judge, reader: Judge) -> dict[str, Any]:
    shared = system.known & reader.known
    one, other = system.outcomes[shared], reader.outcomes[shared]
    test = mcnemar(one, other)
    return {
        "system": system.name, "reader": reader.name, "pairs": int(shared.sum()),
        "system_auc": list(auc(one)), "reader_auc": list(auc(other)), "difference": list(mean_difference(one, other)),
        "both": test.both, "system_only": test.one_only, "reader_only": test.other_only, "neither": test.neither,
        "with_ties": test.ties, "p": test.p,
    }  # fmt: skip


def _tables(figures: Mapping[str, Any], truth: Truth, judges: Sequence[Judge]) -> Iterable[pl.DataFrame]:
    """In the order of TABLES."""
    rows = figures["rows"]
    yield pl.DataFrame([
        {"who": row["role"], "name": row["name"], "title": row["title"], "pairs": row["pairs"], "right": row["right"],
         "ties": row["ties"], **_spread("auc", row["auc"]), "median_seconds": row.get("seconds")}
        for row in rows
    ], infer_schema_length=None)  # fmt: skip
    yield pl.DataFrame([
        {"who": row["role"], "name": row["name"], "stratum": name, "pairs": found[0], **_spread("auc", found[1:])}
        for row in rows for name, found in row["strata"].items()
    ], infer_schema_length=None)  # fmt: skip
    both = [{**one, "readers": "two"} for one in figures["agreement"]]
    if figures["fleiss"] is not None:
        both.append({"one": "all", "other": "all", "readers": "all", **figures["fleiss"]})
    yield _frame([
        {"readers": one["readers"], "one": one["one"], "other": one["other"], "pairs": one["pairs"],
         **_spread("share", one["share"]), **_spread("kappa", one["kappa"])} for one in both
    ], "readers")  # fmt: skip
    lists = ("system_auc", "reader_auc", "difference")
    yield _frame([
        {name: value for name, value in one.items() if name not in lists}
        | {key: value for name in lists for key, value in _spread(name, one[name]).items()}
        for one in figures["against"]
    ], "system")  # fmt: skip
    yield pl.DataFrame({
        "pair": [pair.pair for pair in truth.pairs], "stratum": [pair.stratum for pair in truth.pairs],
        "progressor_mm": [pair.changes[0] for pair in truth.pairs],
        "other_mm": [pair.changes[1] for pair in truth.pairs],
        **{f"{one.role}: {one.name}": [None if np.isnan(v) else float(v) for v in one.outcomes] for one in judges},
    })  # fmt: skip


def _frame(rows: Sequence[Mapping[str, Any]], empty: str) -> pl.DataFrame:
    return pl.DataFrame(rows, infer_schema_length=None) if rows else pl.DataFrame(schema={empty: pl.String()})


def _spread(name: str, found: Sequence[float | None]) -> dict[str, float | None]:
    return {name: found[0], f"{name}_low": found[1], f"{name}_high": found[2]}
