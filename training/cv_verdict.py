"""What the differences of a run say in plain sentences: does any system beat a constant, does any beat the KL grade?"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from training.report_numbers import signed

_AGAINST: Final = (
    ("rmse", "RMSE", "constant_mean", "the constant mean"),
    ("mae", "MAE", "constant_median", "the constant median"),
    ("rmse", "RMSE", "kl_only", "KL grade alone"),
    ("mae", "MAE", "kl_only", "KL grade alone"),
)

_MOST_NAMED: Final = 6  # more titles are no sentence; the table of differences marks them


def sentences(figures: Mapping[str, Any]) -> list[str]:
    """A sentence for each figure and baseline, worded from the paired intervals."""
    systems = {row["system"]: row["title"] for row in figures["systems"] if row["role"] == "system"}
    if not systems:
        return ["Only baselines have been fitted in this run; there is no system to hold against them."]
    return list(_sentences(figures, systems))


def _sentences(figures: Mapping[str, Any], systems: Mapping[str, str]) -> Iterable[str]:
    there = {row["system"] for row in figures["systems"]}
    for figure, label, against, words in _AGAINST:
        if against not in there:
            yield f"{label} against {words}: that baseline is not in this run, so nothing can be said."
            continue
        rows = [
            row
            for row in figures["differences"]
            if row["figure"] == figure and row["against"] == against and row["system"] in systems
        ]
        better = [systems[row["system"]] for row in rows if row["better"] is True]
        worse = [systems[row["system"]] for row in rows if row["better"] is False]
        yield f"{label} against {words}: {_said(better, worse, len(rows))}"


def leader(figures: Mapping[str, Any], unit: str) -> list[str]:
    """Which system has the least RMSE, and whether it is ahead of the constant and of the grade alone."""
    rows = [row for row in figures["systems"] if row["role"] == "system" and row["rmse"][0] is not None]
    if not rows:
        return sentences(figures)
    values = {row["system"]: row["rmse"][0] for row in figures["systems"]}
    best = min(rows, key=lambda row: row["rmse"][0])
    value, low, high = best["rmse"]
    interval = "" if low is None else f" (95 % interval {low:.2f} to {high:.2f})"
    among = f"the least RMSE of {_count(len(rows))}" if len(rows) > 1 else "an RMSE of"
    found = [f"{best['title']} has {among}{':' if len(rows) > 1 else ''} {value:.2f} {unit}{interval}."]
    for figure, _, against, words in _AGAINST:
        pair = [
            row for row in figures["differences"] if (row["system"], row["against"]) == (best["system"], against)
            and row["figure"] == figure == "rmse"
        ]  # fmt: skip
        found += [_ahead(row, words, values[against]) for row in pair]
    if len(rows) > 1:
        found.append("It was picked as the best after the fact, which flatters it a little.")
    return found


def _ahead(row: Mapping[str, Any], words: str, reference: float) -> str:
    value, low, high = row["difference"]
    interval = "" if low is None else f", {signed(low, 3)} to {signed(high, 3)}"
    said = {True: "is better", False: "is WORSE", None: "is NOT better"}[row["better"]]
    return (
        f"Against {words} ({reference:.2f}) it {said} beyond the interval of the paired difference "
        f"({signed(value, 3)}{interval})."
    )


def _said(better: Sequence[str], worse: Sequence[str], count: int) -> str:
    beyond = "better beyond the interval of the paired difference"
    if not better:
        text = f"the only system is not {beyond}" if count == 1 else f"none of the {count} systems is {beyond}"
    else:
        text = f"{len(better)} of {_count(count)} {'is' if len(better) == 1 else 'are'} {beyond}{_named(better)}"
    if worse:
        text += f", and {len(worse)} {'is' if len(worse) == 1 else 'are'} worse beyond it{_named(worse)}"
    return text + "."


def _named(titles: Sequence[str]) -> str:
    return f" ({'; '.join(titles)})" if len(titles) <= _MOST_NAMED else ""


def _count(count: int) -> str:
    return "1 system" if count == 1 else f"{count} systems"
