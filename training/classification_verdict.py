"""What a run of classes says in plain sentences, worded from intervals: does any system beat a baseline?"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from training.cv_evidence import Evidence
from training.report_numbers import signed

Figures = Mapping[str, Any]
_AGAINST: Final = (
    ("jsw_only", "the joint space width alone"),
    ("kl_only", "the KL grade alone"),
    ("clinical_only", "the clinical variables alone"),
    ("prevalence", "knowing nothing (0.5)"),
)
_NAMES: Final = (("roc_auc", "ROC AUC"), ("pr_auc", "PR AUC"), ("f1", "F1"))


def lines(figures: Figures) -> list[str]:
    """A line a system."""
    return [
        f"{row['system']}: {', '.join(_said(row[key], name) for key, name in _NAMES)}" for row in figures["systems"]
    ]


def summary(evidence: Evidence, figures: Figures) -> list[str]:
    """Whether any system beats the joint space width or the grade, and which system has the greatest ROC AUC."""
    rows = [row for row in figures["systems"] if row["role"] == "system" and row["roc_auc"][0] is not None]
    if not rows:
        return sentences(figures)
    best = max(rows, key=lambda row: row["roc_auc"][0])
    value, low, high = best["roc_auc"]
    interval = "" if low is None else f" (95 % interval {low:.3f} to {high:.3f})"
    among = f"the greatest ROC AUC of {_count(len(rows))}:" if len(rows) > 1 else "a ROC AUC of"
    flattered = " It was picked as the best after the fact, which flatters it a little." if len(rows) > 1 else ""
    first = f"{best['title']} has {among} {value:.3f}{interval}.{flattered}"
    return [first, *sentences(figures, ("jsw_only", "kl_only"))]


def sentences(figures: Figures, against: Sequence[str] = tuple(dict(_AGAINST))) -> list[str]:
    """A sentence for each baseline of `against`."""
    systems = {row["system"]: row["title"] for row in figures["systems"] if row["role"] == "system"}
    if not systems:
        return ["Only baselines have been fitted in this run; there is no system to hold against them."]
    return list(_sentences(figures, systems, [pair for pair in _AGAINST if pair[0] in against]))


def _sentences(figures: Figures, systems: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> Iterable[str]:
    there = {row["system"] for row in figures["systems"]}
    for against, words in pairs:
        if against not in there:
            yield f"Against {words}: that baseline is not in this run, so nothing can be said."
            continue
        rows = [row for row in figures["differences"] if row["against"] == against and row["system"] in systems]
        known = [row for row in rows if row["difference"][1] is not None]
        if not known:
            yield f"Against {words}: the ROC AUC has no interval, so nothing can be said."
            continue
        better = [_named(systems, row) for row in known if row["better"] is True]
        worse = [_named(systems, row) for row in known if row["better"] is False]
        yield f"Against {words}: {_verdict(better, worse, len(known))}"


def _named(systems: Mapping[str, str], row: Figures) -> str:
    value, low, high = row["difference"]
    return f"{systems[row['system']]}, {signed(value, 3)} ({signed(low, 3)} to {signed(high, 3)})"


def _verdict(better: Sequence[str], worse: Sequence[str], count: int) -> str:
    beyond = "better beyond the interval of the paired difference of ROC AUC"
    if not better:
        text = f"the only system is NOT {beyond}" if count == 1 else f"NONE of the {count} systems is {beyond}"
    else:
        text = f"{len(better)} of {_count(count)} {'is' if len(better) == 1 else 'are'} {beyond}: {'; '.join(better)}"
    if worse:
        text += f", and {len(worse)} {'is' if len(worse) == 1 else 'are'} WORSE beyond it: {'; '.join(worse)}"
    return text + "."


def _count(count: int) -> str:
    return "1 system" if count == 1 else f"{count} systems"


def _said(found: Sequence[float | None], name: str) -> str:
    value, low, high = found
    if value is None:
        return f"{name} none"
    return f"{name} {value:.3f}" + ("" if low is None else f" ({low:.3f} to {high:.3f})")
