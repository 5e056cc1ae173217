"""`genu-train readers draw`: pairs of a cohort's knees, with their pictures, into a folder."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from inference.errors import DataError, UsageError
from inference.findings import Side
from inference.mr_sequences import MRSequence
from training import readers_draw
from training.cohorts.made import is_made
from training.predictions import read_predictions
from training.prepared import PreparedStore
from training.readers import BENCH, KNEES, STRATA, Bench, Knee, Strata, TruePair, Truth, write_bench
from training.readers_draw import CHANGE, Choice, Match, Wish
from training.readers_pictures import UnfitError, from_prepared, from_series, write_pictures

Progress = Callable[[int, int, int], None]
_NO_TIME: Final = 315_532_800  # 1980: when a picture was written could tell which of a pair was drawn first


@dataclass(frozen=True)
class DrawPlan:
    """What `draw` is asked for.

    cohort, out: folders. export: of the DICOM files, whose series are shown whole; None shows `prepared` slices.
    prepared: folder of `genu-train preprocess`; only its series are drawn. run, system: only knees that this system
    predicted are drawn, both of a pair in one fold, so that one model judges both.
    """

    cohort: Path
    out: Path
    wish: Wish
    export: Path | None = None
    prepared: Path | None = None
    run: Path | None = None
    system: str | None = None
    sequence: str | None = None
    change: str = CHANGE
    mirrored: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Drawn:
    """What was drawn: pairs by stratum, and why how many rows and series were left out."""

    bench: Bench
    counts: tuple[int, ...]
    left_out: Mapping[str, int]


def make(plan: DrawPlan, progress: Progress | None = None) -> Drawn:
    """Draw pairs and write them into a new folder; the same arguments write the same files.

    A series that cannot be shown is left out, and the pairs are drawn again without it.

    Raises:
        UsageError: neither export nor prepared slices are named, or options contradict one another.
        DataError: the cohort does not suffice, something cannot be read, or `out` exists.
    """
    store = PreparedStore(plan.prepared) if plan.prepared is not None else None
    if store is None and plan.export is None:
        raise UsageError("name the DICOM files with --export, or prepared slices with --prepared.")
    if plan.export is None and not plan.mirrored:
        raise UsageError("--unmirrored needs --export: prepared slices are mirrored already.")
    if plan.out.exists() and (not plan.out.is_dir() or any(plan.out.iterdir())):
        raise DataError(f"{plan.out} is not empty: pairs and answers are never replaced; name another folder.")
    sequence = _sequence(plan, store)
    cohort, made = _cohort(plan)
    wish, able = _with_run(plan, cohort, store)
    if plan.run is not None:
        cohort = cohort.drop("fold", strict=False).join(_folds(plan.run), on="knee", how="left", maintain_order="left")
    rows, left_out = readers_draw.candidates(cohort, sequence.value, wish, change=plan.change, able=able)
    plan.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".readers-", dir=plan.out.parent) as name:
        staged = _Staged(Path(name), plan, sequence, store, progress)
        choices, rows, unfit = _until_shown(rows, wish, plan.seed, staged)
        bench = _written(Path(name), plan, rows, choices, staged, sequence, made)
        left_out = {**left_out, **unfit}
        truth = _truth(plan, bench, rows, choices, staged, {"wish": wish, "left_out": left_out})
        write_bench(bench.folder, bench, truth)
        if plan.out.exists():
            plan.out.rmdir()
        bench.folder.replace(plan.out)
    return Drawn(bench, wish.strata.counts, {why: count for why, count in left_out.items() if count})


class _Staged:
    """Pictures of rows that were drawn, each written once; `known` by the row's key."""

    def __init__(
        self, folder: Path, plan: DrawPlan, sequence: MRSequence, store: PreparedStore | None, progress: Progress | None
    ) -> None:
        self.folder, self.plan, self.sequence, self.store = folder / "staged", plan, sequence, store
        self.known: dict[str, tuple[str, Knee]] = {}
        self.names: dict[str, str] = {}  # identifiers by key, as soon as they are given
        self._progress = progress or (lambda done, total, failed: None)
        self._failed = 0

    def show(self, row: dict[str, Any], total: int) -> str | None:
        """Write the pictures of a row; returns why that cannot be, or None."""
        key = str(row["knee"])
        if key in self.known:
            return None
        name = str(len(self.known))
        try:
            if self.plan.export is not None:
                found = from_series(self.plan.export, row, self.sequence, mirrored=self.plan.mirrored)
            else:
                assert self.store is not None  # noqa: S101 - `make` has asked
                found = from_prepared(self.store, key)
        except UnfitError as error:
            self._failed += 1
            return str(error)
        self.known[key] = (name, write_pictures(self.folder / name, found))
        self._progress(len(self.known), max(total, len(self.known)), self._failed)
        return None


def _sequence(plan: DrawPlan, store: PreparedStore | None) -> MRSequence:
    prepared = store.spec.sequence if store is not None else None
    try:
        asked = MRSequence(plan.sequence.lower()) if plan.sequence is not None else None
    except ValueError:
        known = ", ".join(one.value for one in MRSequence)
        raise UsageError(f"--sequence {plan.sequence}: it must be one of {known}.") from None
    if asked is not None and prepared is not None and asked is not prepared:
        raise UsageError(f"--sequence {asked.value}, but {plan.prepared} holds {prepared.value}: leave one out.")
    return asked or prepared or MRSequence.COR_IW_TSE


def _cohort(plan: DrawPlan) -> tuple[pl.DataFrame, bool]:
    path = plan.cohort / "cohort.parquet"
    try:
        return pl.read_parquet(path), is_made(plan.cohort)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read ({error}): make it with `genu-train cohort oai-mri`.") from error


def _with_run(
    plan: DrawPlan, cohort: pl.DataFrame, store: PreparedStore | None
) -> tuple[Wish, dict[str, Sequence[str]]]:
    """The wish, with the fold to match on where a run is named; and which knees have what is needed."""
    able: dict[str, Sequence[str]] = {}
    if store is not None:
        able["without prepared slices"] = [key for key in cohort["knee"].drop_nulls().to_list() if key in store]
    if plan.run is None:
        if plan.system is not None:
            raise UsageError(f"--system {plan.system} needs --run.")
        return plan.wish, able
    if plan.system is None:
        raise UsageError(f"--run {plan.run} needs --system: whose predictions all knees must have.")
    able[f"without a prediction of {plan.system}"] = read_predictions(plan.run, plan.system).knees
    return Wish(plan.wish.strata, (*plan.wish.match, Match("fold")), plan.wish.once), able


def _folds(run: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(run / "knees.parquet", columns=["knee", "fold"])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{run / 'knees.parquet'} cannot be read ({error}): run `genu-train fit` again.") from error


def _until_shown(
    rows: pl.DataFrame, wish: Wish, seed: int, staged: _Staged
) -> tuple[list[Choice], pl.DataFrame, Counter[str]]:
    unfit: Counter[str] = Counter()
    while True:
        choices = readers_draw.draw(rows, wish, np.random.default_rng(seed))
        taken = [place for one in choices for place in (one.progressor, one.other)]
        bad: list[str] = []
        for row in rows[taken].to_dicts():
            if (why := staged.show(row, len(taken))) is not None:
                bad.append(row["knee"])
                unfit[f"that cannot be shown ({why})"] += 1
        if not bad:
            return choices, rows, unfit
        rows = rows.filter(~pl.col("knee").is_in(bad))


def _written(
    folder: Path, plan: DrawPlan, rows: pl.DataFrame, choices: Sequence[Choice], staged: _Staged, sequence: MRSequence,
    made: bool,
) -> Bench:  # fmt: skip
    """Give identifiers, move the pictures under them, and lay out the pairs; nothing tells which knee progressed."""
    generator = np.random.default_rng([plan.seed, 1])
    out = folder / "bench"
    keys = rows["knee"].to_list()
    names = _identifiers(3 * len(choices), generator)
    knees: dict[str, Knee] = {}
    pairs: list[tuple[str, str, str]] = []
    for number, one in enumerate(choices):
        pair, *both = names[3 * number : 3 * number + 3]
        for name, place in zip(both, (one.progressor, one.other), strict=True):
            source, knees[name] = staged.known[keys[place]]
            staged.names[keys[place]] = name
            target = out / KNEES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (staged.folder / source).rename(target)
        low, high = sorted(both)
        pairs.append((pair, low, high))  # identifiers are random: their order says nothing
    for path in sorted(out.rglob("*"), reverse=True):
        os.utime(path, (_NO_TIME, _NO_TIME))
    shutil.rmtree(staged.folder)
    followups = rows["followup"].drop_nulls().unique().to_list() if "followup" in rows.columns else []
    return Bench(
        folder=out, digest="", pairs=tuple(sorted(pairs)), knees=dict(sorted(knees.items())), sequence=sequence.value,
        months=int(followups[0]) if len(followups) == 1 else None, loss_mm=abs(plan.wish.strata.progression),
        source="prepared" if plan.export is None else "series", mirrored=plan.mirrored, synthetic=made,
    )  # fmt: skip


def _truth(
    plan: DrawPlan, bench: Bench, rows: pl.DataFrame, choices: Sequence[Choice], staged: _Staged, drawn: dict[str, Any]
) -> Truth:
    keys, changes = rows["knee"].to_list(), rows["change"].to_list()
    by_knee = {name: pair for pair, *both in bench.pairs for name in both}
    pairs = []
    for one in choices:
        both = (one.progressor, one.other)
        names = [staged.names[keys[place]] for place in both]
        keyed, changed = (keys[both[0]], keys[both[1]]), (changes[both[0]], changes[both[1]])
        pairs.append(TruePair(by_knee[names[0]], STRATA[one.stratum], names[0], names[1], keyed, changed))
    wish: Wish = drawn["wish"]
    strata: Strata = wish.strata
    about = {
        "seed": plan.seed, "change": plan.change,
        "strata": {name: {"pairs": strata.counts[n], "rule": strata.told(n)} for n, name in enumerate(STRATA)},
        "other": f"change > {strata.progression:g} mm", "matched": [one.told() for one in wish.match],
        "once": "patient" if wish.once else "knee", "left_out": drawn["left_out"],
        "system": plan.system, "canonical_side": Side.LEFT.value if plan.mirrored else None,
    }  # fmt: skip
    return Truth(tuple(sorted(pairs, key=lambda one: one.pair)), about)


def _identifiers(count: int, generator: np.random.Generator) -> list[str]:
    """Twelve hexadecimal digits each, all different."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[generator.bytes(6).hex()] = None
    return list(found)


def is_bench(folder: Path) -> bool:
    """Whether pairs lie there."""
    return (folder / BENCH).is_file()
