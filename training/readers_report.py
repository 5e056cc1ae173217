"""BENCH/evaluation/report.html and its pictures: readers and systems on the same pairs, in one self-contained page."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.published import Published, published_for
from training.readers import STRATA
from training.readers_evaluate import FOLDER, TABLES
from training.report_numbers import number, signed, with_interval
from training.report_page import (
    RESEARCH_MARK,
    Cell,
    Code,
    Part,
    Picture,
    Points,
    Row,
    Section,
    Table,
    Text,
    pictures_of,
    render,
)
from training.report_plots import BAND, COLOURS, GREY, INK, LIGHT, drawing, wrapped

PAGE: Final = "report.html"
_TITLE: Final = "Which knee will progress? Readers on pairs"
_COLOURS: Final = {"reader": COLOURS[0], "mean": INK, "system": COLOURS[1], "baseline": GREY}
_MARKS: Final = {"reader": "o", "mean": "D", "system": "s", "baseline": "s"}
_SIGNIFICANT: Final = 0.05
_MEAN: Final = "mean of the readers"
Figures = Mapping[str, Any]


def write_report(folder: Path, figures: Figures) -> Path:
    """Write the page and its PNG beside the tables of `evaluate`.

    Args:
        folder: of the pairs.
        figures: what `readers_evaluate.evaluate` returned.

    Raises:
        DataError: published.toml is not what it should be.
    """
    published = published_for({"kind": "readers", "target": "progression_abs"})
    sections = [
        Section("pairs", "Share of pairs judged right", list(_chief(figures, published))),
        Section("strata", "By how much the joint space changed", list(_by_stratum(figures))),
        *_agreement(figures),
        *_against(figures),
        Section("made", "How this was made", list(_made(folder, figures, published))),
    ]
    marks: list[Part] = [Text(RESEARCH_MARK, "mark")]
    if figures["synthetic"]:
        said = (
            "SYNTHETIC: MADE KNEES OR RANDOM NETWORKS ARE IN THIS. ITS FIGURES SAY NOTHING ABOUT PATIENTS OR READERS."
        )
        marks.append(Text(said, "mark synthetic"))
    page = render(_TITLE, [*marks, _lead(figures), Text(" ".join(_verdict(figures)), "verdict")], sections, marks)
    out = folder / FOLDER
    for picture in pictures_of(sections):
        (out / f"{picture.name}.png").write_bytes(picture.png)
    (out / PAGE).write_text(page, encoding="utf-8")
    return out / PAGE


def _lead(figures: Figures) -> Text:
    strata = ", ".join(f"{count} {name}" for name, count in figures["strata"].items())
    months = f" within {figures['months']} months" if figures["months"] else ""
    return Text(
        f"{figures['pairs']} pairs of knees ({strata}): one lost medial joint space{months}, one did not. Whoever "
        "judges a pair names the knee that will; cannot tell counts one half. A coin has 0.5."
    )


def _verdict(figures: Figures) -> Iterable[str]:
    """Who is told from a coin, and from whom; baselines are left to the tables."""
    groups: dict[str, list[str]] = {"Better than a coin": [], "Worse than a coin": [], "Not told from a coin": []}
    for row in figures["rows"]:
        value, low, high = row["auc"]
        if row["role"] != "baseline" and value is not None:
            better, worse, neither = groups.values()
            shown = f"{row['title']} {number(value, 3)} ({number(low, 3)} to {number(high, 3)})"
            (better if low > 0.5 else worse if high < 0.5 else neither).append(shown)
    yield from (f"{what}: {'; '.join(who)}." for what, who in groups.items() if who)
    if not figures["against"]:
        yield "No system was judged beside readers."
        return
    told = [one for one in figures["against"] if _role(figures, one["system"]) == "system" and one["p"] is not None]
    apart = [one for one in told if one["p"] < _SIGNIFICANT]
    for one in apart:
        difference, p = signed(one["difference"][0], 3), number(one["p"], 3)
        yield f"{_of(figures, one['system'])['title']} against {one['reader']}: {difference} (McNemar p {p})."
    if rest := len(told) - len(apart):
        yield f"{rest} of {len(told)} comparisons of system and reader tell no difference (McNemar, p 0.05 or more)."


def _role(figures: Figures, system: str) -> str:
    return str((_of(figures, system) or {}).get("role"))


def _of(figures: Figures, system: str) -> Any:
    return next((row for row in figures["rows"] if row["role"] != "reader" and row["name"] == system), None)


def _chief(figures: Figures, published: Sequence[Published]) -> Iterable[Part]:
    titles = ("who", "right (AUC)", "pairs", "right", "ties", "named knee 1", "seconds a pair, median")
    readers = [_chief_row(row) for row in figures["rows"] if row["role"] == "reader"]
    others = [_chief_row(row) for row in figures["rows"] if row["role"] != "reader"]
    rows = [*readers, *_mean_row(figures), *others]
    for entry in published:
        value = entry.figures["roc_auc"][0]
        title = Cell(entry.name, f"published, on other data: {entry.data}")
        rows.append(Row(title, [Cell(number(value, 4)), *[Cell("-")] * 5], "elsewhere"))
    yield Table(
        [Cell(title) for title in titles], rows,
        "Share of pairs in which the knee that progressed was named, ties one half, with 95 % intervals (Clopper and "
        "Pearson; of the mean, bootstrap over pairs). Knee 1 stood at the left, and "
        "is right in about half of the pairs.",
    )  # fmt: skip
    yield Picture(
        "readers", _forest(figures, published),
        "Share of pairs judged right by reader and system, with 95 % intervals, beside a coin and published readers.",
        "Shares with 95 % intervals; dotted: a coin; shaded: published, on other data.",
    )  # fmt: skip
    yield from _sure(figures)
    if any(figures["across_folds"].values()):
        told = ", ".join(f"{name}: {count}" for name, count in figures["across_folds"].items() if count)
        yield Text(
            f"Pairs whose knees were judged by models of two folds, whose probabilities have no common scale ({told}). "
            "Draw with --run and --system to have both knees of a pair in one fold.",
        )  # fmt: skip


def _chief_row(row: Figures) -> Row:
    left = row.get("at_the_left")
    cells = [
        with_interval(row["auc"], 3), Cell(str(row["pairs"])), Cell(str(row["right"])), Cell(str(row["ties"])),
        Cell(f"{left[0]} of {left[1]}" if left else "-"), Cell(number(row.get("seconds"), 0)),
    ]  # fmt: skip
    return Row(Cell(row["title"], row["role"]), cells, "baseline" if row["role"] == "baseline" else "")


def _mean_row(figures: Figures) -> list[Row]:
    found = figures["mean_of_readers"]
    return [] if found is None else [Row(Cell(_MEAN), [with_interval(found, 3), *[Cell("-")] * 5])]


def _sure(figures: Figures) -> Iterable[Part]:
    words = {"1": "low", "2": "medium", "3": "high"}
    readers = [row for row in figures["rows"] if row.get("confidence")]
    if not readers:
        return
    rows = []
    for row in readers:
        cells = []
        for level in words:
            found = row["confidence"].get(level)
            cell = with_interval(found[1:], 2) if found else Cell("-")
            cells.append(Cell(cell.text, f"{cell.small} of {found[0]} pairs" if found else "", "few"))
        rows.append(Row(Cell(row["title"]), cells))
    yield Table([Cell("how sure"), *map(Cell, words.values())], rows, "Share right by how sure the reader was.")


def _by_stratum(figures: Figures) -> Iterable[Part]:
    rules = figures["drawn"].get("strata", {})
    heads = [Cell(name, rules.get(name, {}).get("rule", "")) for name in STRATA]
    rows = []
    for row in figures["rows"]:
        cells = []
        for name in STRATA:
            pairs, *found = row["strata"][name]
            cell = with_interval(found, 3, "few" if pairs < 20 else "")
            cells.append(Cell(cell.text, f"{cell.small} of {pairs} pairs" if pairs else "", cell.kind))
        rows.append(Row(Cell(row["title"], row["role"]), cells, "baseline" if row["role"] == "baseline" else ""))
    yield Table([Cell("who"), *heads], rows, "Share right by stratum of the knee that progressed; grey: few pairs.")
    yield Picture(
        "strata", _strata(figures), "Share of pairs judged right by stratum, reader and system, with 95 % intervals.",
        "By stratum, with 95 % intervals; baselines are in the table.",
    )  # fmt: skip


def _agreement(figures: Figures) -> Iterable[Section]:
    found = list(figures["agreement"])
    if not found:
        return
    rows = [
        Row(Cell(f"{one['one']} and {one['other']}", "Cohen's kappa"), _agreed(one))
        for one in found
    ]  # fmt: skip
    if figures["fleiss"] is not None:
        rows.append(Row(Cell("all readers", "Fleiss' kappa"), _agreed(figures["fleiss"])))
    text = "Answers are one knee, the other, or cannot tell. Kappa 0 is agreement by chance, 1 is full agreement."
    heads = [Cell("readers"), Cell("pairs both judged"), Cell("same answer"), Cell("kappa")]
    table = Table(heads, rows, "Agreement on the same pairs, with 95 % intervals (bootstrap over pairs).")
    yield Section("agreement", "Agreement between readers", [Text(text), table])


def _agreed(one: Figures) -> list[Cell]:
    return [Cell(str(one["pairs"])), with_interval(one["share"], 3), with_interval(one["kappa"], 3)]


def _against(figures: Figures) -> Iterable[Section]:
    if not figures["against"]:
        return
    heads = ("system and reader", "pairs both judged", "system", "reader", "difference", "only system right",
             "only reader right", "with ties", "p (McNemar)")  # fmt: skip
    rows = []
    for one in figures["against"]:
        row = _of(figures, one["system"]) or {}
        cells = [
            Cell(str(one["pairs"])), Cell(number(one["system_auc"][0], 3)), Cell(number(one["reader_auc"][0], 3)),
            with_interval(one["difference"], 3, signs=True), Cell(str(one["system_only"])),
            Cell(str(one["reader_only"])), Cell(str(one["with_ties"])), Cell(number(one["p"], 4)),
        ]  # fmt: skip
        kind = "baseline" if row.get("role") == "baseline" else ""
        rows.append(Row(Cell(str(row.get("title", one["system"])), f"against {one['reader']}"), cells, kind))
    caption = (
        "Difference of the shares with 95 % interval (bootstrap over pairs). McNemar's test is exact, over pairs "
        "without a tie that only one of the two judged right; p is not adjusted for the number of comparisons."
    )
    yield Section("against", "Systems against readers", [Table([Cell(head) for head in heads], rows, caption)])


def _made(folder: Path, figures: Figures, published: Sequence[Published]) -> Iterable[Part]:
    drawn = figures["drawn"]
    matched = ", ".join(drawn.get("matched", [])) or "nothing"
    shown = "every slice of the series" if figures["source"] == "series" else "the prepared slices of a network"
    once = "each patient in one pair at most" if drawn.get("once") == "patient" else (
        "each knee in one pair at most; a patient may be in two, so that intervals are somewhat too narrow"
    )  # fmt: skip
    yield Points([
        f"Pairs: progressors by stratum, others with {drawn.get('other', 'less loss')}; {once}; matched on {matched}; "
        f"seed {drawn.get('seed')}.",
        f"Readers saw {shown} ({figures['sequence']}), in an order and with sides of the screen of their own, and "
        "neither truth nor stratum nor any system's answer.",
        "A system names the knee with the greater out-of-fold probability; equal probabilities are a tie.",
        *(f"{one.name}: {one.citation}. {one.note}".strip() for one in published),
    ])  # fmt: skip
    run = f" --run {figures['run']}" if figures["run"] else ""
    yield Code([f"genu-train readers evaluate {folder}{run}"])
    yield Text(f"Beside this page: {', '.join(TABLES)}, figures.json and the pictures.", "fine")


def _forest(figures: Figures, published: Sequence[Published]) -> bytes:
    rows = [(row["title"], row["role"], row["auc"]) for row in figures["rows"]]
    if figures["mean_of_readers"] is not None:
        last = sum(role == "reader" for _, role, _ in rows)
        rows.insert(last, (_MEAN, "mean", figures["mean_of_readers"]))
    with drawing(7.4, 1.0 + 0.38 * len(rows)) as (figure, drawn):
        axes = figure.add_subplot()
        values = [value for entry in published for value in entry.figures["roc_auc"]]
        if values:
            axes.axvspan(min(values), max(values), color=BAND, zorder=0, label="published readers, other data")
        axes.axvline(0.5, color=INK, linestyle=":", linewidth=1, label="a coin")
        for place, (_, role, found) in enumerate(rows):
            _point(axes, found, place, role)
        axes.set_yticks(range(len(rows)), [wrapped(title, 34) for title, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("share of pairs judged right (ties one half)")
        figure.legend(loc="outside lower right", fontsize=7, frameon=False, ncols=2)
    return drawn.getvalue()


def _strata(figures: Figures) -> bytes:
    rows = [row for row in figures["rows"] if row["role"] != "baseline"]
    step = 0.8 / max(len(rows), 1)
    with drawing(8.4, 1.2 + len(STRATA) * (0.3 + 0.17 * len(rows))) as (figure, drawn):
        axes = figure.add_subplot()
        axes.axvline(0.5, color=INK, linestyle=":", linewidth=1)
        for place, row in enumerate(rows):
            shade = COLOURS[place % len(COLOURS)]
            for n, name in enumerate(STRATA):
                label = wrapped(row["title"], 40) if n == 0 else None
                _point(axes, row["strata"][name][1:], n + (place + 0.5) * step - 0.4, row["role"], shade, label)
        for n in range(1, len(STRATA)):
            axes.axhline(n - 0.5, color=LIGHT, linewidth=0.8)
        pairs = figures["strata"]
        axes.set_yticks(np.arange(len(STRATA)), [f"{name}\n{pairs[name]} pairs" for name in STRATA])
        axes.set_ylim(len(STRATA) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("share of pairs judged right (ties one half)")
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return drawn.getvalue()


def _point(
    axes: Any, found: Sequence[float | None], place: float, role: str, colour: str = "", label: str | None = None
) -> None:
    value, low, high = found
    shade = colour or _COLOURS[role]
    if value is None:
        axes.plot([], [], _MARKS[role], color=shade, markersize=5, label=label)
        return
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=shade, linewidth=1.4)
    axes.plot([value], [place], _MARKS[role], color=shade, markersize=5, label=label)
