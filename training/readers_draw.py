"""Which knees make the pairs: by strata of the change of the joint space, at random, nobody twice. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from inference.errors import DataError, UsageError
from training.readers import STRATA, Strata

CHANGE: Final = "delta_mjsw"
_NEEDED: Final = ("knee", "SeriesInstanceUID", "PatientID", "side", "sequence")
Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Match:
    """Both knees of a pair are alike in a column: equal, or within so much of each other. Not known is never alike."""

    column: str
    within: float | None = None

    @classmethod
    def read(cls, text: str) -> "Match":
        """`sex`, or `age:5`.

        Raises:
            UsageError: what follows the colon is no number from 0.
        """
        column, colon, within = text.partition(":")
        try:
            width = float(within) if colon else None
        except ValueError:
            width = -1.0
        if not column or (width is not None and not 0 <= width < np.inf):
            raise UsageError(f"--match {text}: a column, or a column and a number from 0, as in `sex` or `age:5`.")
        return cls(column, width)

    def told(self) -> str:
        """In words."""
        return self.column if self.within is None else f"{self.column} within {self.within:g}"


@dataclass(frozen=True)
class Choice:
    """A drawn pair: its stratum, and the rows of the progressor and of the other knee in the candidates."""

    stratum: int
    progressor: int
    other: int


@dataclass(frozen=True)
class Wish:
    """What is drawn. once: a patient is in one pair at most; else a knee is. match: what both knees have in common."""

    strata: Strata
    match: tuple[Match, ...] = ()
    once: bool = True


def candidates(
    cohort: pl.DataFrame, sequence: str, wish: Wish, *, change: str = CHANGE,
    able: Mapping[str, Sequence[str]] | None = None,
) -> tuple[pl.DataFrame, dict[str, int]]:  # fmt: skip
    """The rows of a cohort that may be drawn, sorted by `knee`, with `change`; and why how many others may not.

    Args:
        cohort: cohort.parquet.
        sequence: the series that are shown.
        wish: names the columns to match on.
        change: the column with the change of the joint space, mm.
        able: by reason, the keys `knee` that have what is needed; others are left out for that reason.

    Raises:
        DataError: a column is missing, or no row is left.
    """
    wanted = (*_NEEDED, change, *(one.column for one in wish.match))
    if missing := [name for name in wanted if name not in cohort.columns]:
        raise DataError(
            f"the cohort lacks {', '.join(missing)}; it has {', '.join(cohort.columns)}. "
            f"`genu-train cohort oai-mri` writes {CHANGE}; a table of your own may have it among its --targets."
        )
    rows, left_out = cohort, {}
    kept = rows.filter(pl.col("sequence").cast(pl.String).str.to_lowercase() == sequence.lower())
    left_out["of another sequence"], rows = len(rows) - len(kept), kept
    kept = rows.filter(pl.col(change).is_not_null(), pl.col("PatientID").is_not_null(), pl.col("side").is_not_null())
    left_out[f"without {change}, patient or side"], rows = len(rows) - len(kept), kept
    for reason, keys in (able or {}).items():
        kept = rows.filter(pl.col("knee").is_in(list(keys)))
        left_out[reason], rows = len(rows) - len(kept), kept
    if rows.is_empty():
        raise DataError(f"no knee of the cohort can be shown: {_told(left_out)}.")
    return rows.with_columns(pl.col(change).cast(pl.Float64).alias("change")).sort("knee"), left_out


def draw(rows: pl.DataFrame, wish: Wish, generator: np.random.Generator) -> list[Choice]:
    """Draw the pairs: progressors first, each stratum at random, then for each a random knee that did not progress.

    The two knees of a pair are of two patients. Which of a patient's knees and visits is taken is random, too. Both
    steps are maximum matchings (Hopcroft and Karp) over rows in random order: they find pairs wherever there are.

    Raises:
        DataError: the knees do not suffice for a stratum, or progressors find no partner.
    """
    units, patients = _codes(rows, wish.once)
    change = rows["change"].to_numpy()
    order = generator.permutation(len(rows))
    fits = [(change >= low) & (change < high) for low, high in map(wish.strata.bounds, range(3))]
    slots = np.repeat(np.arange(3), wish.strata.counts)
    taken = _matched([fits[slot] for slot in slots], units, order, generator)
    if (taken < 0).any():
        raise DataError(_too_few(wish.strata, fits, units, rows))
    stable = (change > wish.strata.progression) & ~np.isin(units, units[taken])
    alike = _alike(rows, wish.match)
    partners = [stable & (patients != patients[row]) & alike(row) for row in taken]
    others = _matched(partners, units, order, generator)
    if alone := int((others < 0).sum()):
        there = len(np.unique(units[stable]))
        raise DataError(
            f"{alone} of {len(taken)} knees that progressed find no partner: {there} {_what(wish.once)} with a change "
            f"above {wish.strata.progression:g} mm are left{_matching(wish.match)}. Ask for fewer pairs (--strata)"
            + (", match on less" if wish.match else "") + (", or allow --both-knees." if wish.once else ".")
        )  # fmt: skip
    return [Choice(int(slot), int(row), int(other)) for slot, row, other in zip(slots, taken, others, strict=True)]


def _matched(wanted: Sequence[Bools], units: Places, order: Places, generator: np.random.Generator) -> Places:
    """For each wish (N,) a row that fulfils it, no unit twice; -1 where there is none."""
    count = int(units.max()) + 1
    names = generator.permutation(count)
    graph = np.zeros((len(wanted), count), np.bool_)
    for place, fits in enumerate(wanted):
        graph[place, names[units[fits]]] = True
    found = maximum_bipartite_matching(csr_array(graph.astype(np.int8)), perm_type="column")
    rows = np.full(len(wanted), -1, np.intp)
    for place, unit in enumerate(found):
        if unit >= 0:
            fitting = order[wanted[place][order] & (names[units[order]] == unit)]
            rows[place] = fitting[0]
    return rows


def _codes(rows: pl.DataFrame, once: bool) -> tuple[Places, Places]:
    """Numbers of what may be used once (patients or knees), and of patients, by row."""
    names = rows["PatientID"].cast(pl.String).to_numpy()
    patients = np.unique(names, return_inverse=True)[1]
    if once:
        return patients, patients
    left = (rows["side"].cast(pl.String) == "L").to_numpy().astype(np.intp)
    return 2 * patients + left, patients


def _alike(rows: pl.DataFrame, match: Sequence[Match]) -> Any:
    """row -> (N,) which rows are like it in all columns."""
    columns: list[tuple[npt.NDArray[Any], Bools, float | None]] = []
    for one in match:
        values = rows[one.column]
        if one.within is not None and not values.dtype.is_numeric():
            raise UsageError(f"--match {one.column}:{one.within:g}: {one.column} is no column of numbers.")
        numbers = values.cast(pl.Float64).to_numpy() if one.within is not None else values.cast(pl.String).to_numpy()
        columns.append((numbers, values.is_not_null().to_numpy(), one.within))

    def like(row: int) -> Bools:
        found = np.ones(len(rows), np.bool_)
        for values, known, within in columns:
            same = values == values[row] if within is None else np.abs(values - values[row]) <= within
            found &= np.asarray(same, np.bool_) & known & known[row]
        return found

    return like


def _too_few(strata: Strata, fits: Sequence[Bools], units: Places, rows: pl.DataFrame) -> str:
    there = [len(np.unique(units[fit])) for fit in fits]
    listed = "; ".join(
        f"{name} ({strata.told(number)}): {strata.counts[number]} asked, {there[number]} there"
        for number, name in enumerate(STRATA)
    )
    once = "" if all(a <= b for a, b in zip(strata.counts, there, strict=True)) else (
        f" At most --strata {','.join(str(min(a, b)) for a, b in zip(strata.counts, there, strict=True))} is possible."
    )  # fmt: skip
    return (
        f"the {len(rows)} rows that may be drawn do not fill the strata, each patient or knee counted once: {listed}."
        f"{once} Ask for fewer pairs with --strata, or take a larger cohort."
    )


def _what(once: bool) -> str:
    return "patients" if once else "knees"


def _matching(match: Sequence[Match]) -> str:
    return f", matched on {', '.join(one.told() for one in match)}" if match else ""


def _told(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in left_out.items() if count) or "it has no rows"
