"""The report's sections of a run of kind "classification": systems beside baselines, confusion, groups, folds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from inference.mr_sequences import MRSequence
from training import classification_plots as plots
from training import report_plots
from training.classification_verdict import sentences
from training.cv_evidence import Evidence
from training.cv_subgroups import FEW
from training.published import Published
from training.report_attention import attention
from training.report_numbers import number, signed, with_interval
from training.report_page import Cell, Heading, Part, Picture, Points, Row, Section, Table, Text
from training.report_parts import learning
from training.report_recovery import planted

Figures = Mapping[str, Any]
_MAIN: Final = (
    ("roc_auc", "ROC AUC"), ("pr_auc", "PR AUC"), ("f1", "F1"), ("weighted_f1", "weighted F1"),
    ("precision", "precision"), ("recall", "recall"), ("specificity", "specificity"), ("log_loss", "log loss"),
    ("brier", "Brier score"),
)  # fmt: skip
_BY_CLASS: Final = (_MAIN[0], _MAIN[1], _MAIN[4], _MAIN[5], _MAIN[6], _MAIN[2])
_AGAINST: Final = {
    "prevalence": "prevalence (0.5)", "jsw_only": "joint space width alone", "kl_only": "KL grade alone",
    "clinical_only": "clinical variables alone",
}  # fmt: skip
_COLUMNS: Final = 6  # groups in one table


def headline(evidence: Evidence) -> str:
    """The page's title."""
    names = evidence.about.get("classes") or ("?",)
    sequence = str(evidence.about.get("sequence"))
    wording = MRSequence[sequence].wording if sequence in MRSequence.__members__ else sequence
    asked = str(names[-1])
    return f"{asked[:1].upper()}{asked[1:]}, predicted from knee MRI ({wording}), cross-validated"


def sections(evidence: Evidence, figures: Figures, published: Sequence[Published]) -> list[Section]:
    """All sections of this kind."""
    return [
        Section("figures", "Systems beside baselines", list(_figures(figures, published))),
        Section("differences", "Better than the joint space width, or the grade?", list(_differences(figures))),
        Section("curves", "ROC, precision and reliability", list(_curves(evidence, figures))),
        Section("confusion", "What is called what", list(_confusion(figures))),
        *planted(evidence),
        Section("groups", "By age, sex, race and grade", list(_groups(figures))),
        Section("folds", "Folds and learning", [*_folds(figures), *attention(evidence), *learning(evidence)]),
    ]


def _title(row: Figures) -> Cell:
    return Cell(row["title"], f"{row['system']}{' - SYNTHETIC' if row['synthetic'] else ''}")


def _kind(row: Figures) -> str:
    return "baseline" if row["role"] == "baseline" else ""


def _of(classes: Sequence[str]) -> str:
    return f'of "{classes[-1]}"' if len(classes) == 2 else "means over the classes, each against the rest"


def _figures(figures: Figures, published: Sequence[Published]) -> Iterable[Part]:
    classes = figures["class_names"]
    shares = [[Cell(f"{row['knees']:,}"), with_interval(row["share"], 3)] for row in figures["shares"]]
    rows = [Row(Cell(row["class"]), cells) for row, cells in zip(figures["shares"], shares, strict=True)]
    yield Table([Cell("class"), Cell("knees"), Cell("prevalence")], rows, "How common each class is.")
    table = [Row(_title(row), [_figure(row, name) for name, _ in _MAIN], _kind(row)) for row in figures["systems"]]
    table += [_elsewhere(entry) for entry in published]
    marked = " Amber, in italics: PUBLISHED ON OTHER DATA, not comparable knee by knee." if published else ""
    caption = f"Figures {_of(classes)}. Grey: baselines. Below each figure its 95 % interval.{marked}"
    yield Table([Cell("system"), *(Cell(label) for _, label in _MAIN)], table, caption)
    reasons = {
        f"{row['title']}: {name.replace('_', ' ')} has no value (-), as {why}."
        for row in figures["systems"]
        for name, why in row["reasons"].items()
    }
    if reasons:
        yield Points(sorted(reasons))
    bands = {
        name: (min(low), max(high))
        for name in ("roc_auc", "pr_auc")
        if (found := [entry.figures[name] for entry in published if name in entry.figures])
        for low, high in [tuple(zip(*found, strict=True))]
    }
    alt = "; ".join(f"{row['title']}: ROC AUC {number(row['roc_auc'][0], 3)}" for row in figures["systems"])
    panels = (("roc_auc", "ROC AUC", "prevalence"), ("pr_auc", "PR AUC", "prevalence"))
    yield Picture(
        "figures", report_plots.forest(figures["systems"], panels, bands), alt,
        "ROC AUC and PR AUC with 95 % intervals. Squares: baselines. Dotted: knowing nothing but the prevalence."
        + (" Shaded: the range of the figures published on other data, those of readers among them." if bands else ""),
    )  # fmt: skip
    yield Text(_method(figures), "fine")
    if published:
        yield Heading("Published figures: whose, and on what")
        yield Points([f"{one.name}. {one.citation}. Data: {one.data}. {one.note}".strip() for one in published])


def _method(figures: Figures) -> str:
    calls = (
        "are at each fold's own threshold, which was chosen inside that fold's training rows and never on the knees "
        "that it is applied to"
        if len(figures["class_names"]) == 2
        else "call the most probable class"
    )
    return (
        "Areas compare knees of one fold only, as each fold has its own model: ROC AUC is the share of pairs of a fold "
        "that are ranked right, PR AUC the mean precision at the knees of the class. What is constant in each fold has "
        f"ROC AUC 0.5 and the prevalence as PR AUC. F1, precision, recall and specificity {calls}; their counts are "
        "summed over folds. Weighted F1: both classes' F1, by their shares. Log loss in nats; Brier score: mean "
        f"squared error of the probability. Intervals: 2.5th to 97.5th percentile of {figures['rounds']:,} resamples "
        "of patients, all rows of a patient together, the same resamples for all systems "
        f"(seed {figures['seed']}). They hold the fitted models and the folds fixed, and are not widened for the "
        "number of systems compared. A knee counts once for each of its windows."
    )


def _figure(row: Figures, name: str) -> Cell:
    cell = with_interval(row[name], 3)
    return Cell("-", row["reasons"].get(name, "")) if row[name][0] is None else cell


def _elsewhere(entry: Published) -> Row:
    cells = []
    for name, _ in _MAIN:
        low, high = entry.figures.get(name) or (None, None)
        cells.append(Cell(number(low, 3) if low == high else f"{number(low, 3)} to {number(high, 3)}"))
    return Row(Cell(entry.name, "published on other data"), cells, "elsewhere")


def _differences(figures: Figures) -> Iterable[Part]:
    yield Points(sentences(figures))
    found = {(row["system"], row["against"]): row for row in figures["differences"]}
    there = [against for against in _AGAINST if any(key[1] == against for key in found)]
    if not there:
        return
    rows = [
        Row(_title(row), [_difference(found.get((row["system"], against))) for against in there], _kind(row))
        for row in figures["systems"]
    ]
    yield Table(
        [Cell("ROC AUC less that of"), *(Cell(_AGAINST[against]) for against in there)], rows,
        "Paired differences with 95 % intervals, positive is better. Green and bold: better beyond the interval; red "
        "and bold: worse beyond it.",
    )  # fmt: skip


def _difference(row: Figures | None) -> Cell:
    if row is None:
        return Cell("-")
    value, low, high = row["difference"]
    kind, word = {True: ("better", ", better"), False: ("worse", ", worse"), None: ("", "")}[row["better"]]
    return Cell(signed(value, 3), "" if low is None else f"{signed(low, 3)} to {signed(high, 3)}{word}", kind)


def _curves(evidence: Evidence, figures: Figures) -> Iterable[Part]:
    classes = figures["class_names"]
    truth, shown = evidence.truth.astype(np.int64), range(1, 2) if len(classes) == 2 else range(len(classes))
    last = len(classes) - 1
    means = []
    for row, system in zip(figures["systems"], evidence.systems, strict=True):
        if system.probabilities is not None:
            mean = plots.mean_roc(truth == last, system.probabilities[:, last], evidence.folds)
            means += [] if mean is None else [(row["title"], row["role"], mean)]
    if means:
        yield Picture(
            "roc", plots.compared(means), "Mean ROC of all systems; areas are in the table above.",
            f'ROC of "{classes[-1]}" against the rest, mean over folds. Grey: baselines.',
        )  # fmt: skip
    for row, system in zip(figures["systems"], evidence.systems, strict=True):
        if not row["ordered"] or system.probabilities is None:
            continue
        curves = [
            plots.Curve(
                classes[place], truth == place, system.probabilities[:, place],
                [one for one in figures["calibration"]
                 if one["system"] == system.system and one["class"] == classes[place]],
            )
            for place in shown
        ]  # fmt: skip
        lines = "a line a fold, and their mean" if len(curves) == 1 else "thin: folds; bold: their mean"
        yield Picture(
            f"system-{system.system}", plots.system_panels(row["title"], curves, evidence.folds),
            f"{row['title']}: ROC AUC {number(row['roc_auc'][0], 3)}, PR AUC {number(row['pr_auc'][0], 3)}.",
            f"{row['title']}. Left: ROC, {lines}. Middle: precision by recall; dotted: prevalence. Right: observed "
            "share with 95 % interval in tenths of the predictions; dotted where both are equal.",
        )  # fmt: skip


def _confusion(figures: Figures) -> Iterable[Part]:
    classes, systems = figures["class_names"], []
    for row in figures["systems"]:
        found = [one["knees"] for one in figures["confusion"] if one["system"] == row["system"]]
        if found:
            systems.append((row["title"], np.array(found, np.int64).reshape(len(classes), len(classes))))
    if not systems:
        yield Text("No system tells the thresholds of its folds, so nothing is called.")
        return
    how = "each fold at its own threshold" if len(classes) == 2 else "the most probable class"
    alt = "; ".join(f"{title}: {', '.join(map(str, matrix.ravel().tolist()))}" for title, matrix in systems)
    yield Picture(
        "confusion", plots.confusions(systems, classes), f"Knees observed by called, row by row. {alt}.",
        f"Knees of all folds, {how}; below each count its share of the observed class.",
    )  # fmt: skip
    if len(classes) > 2:
        yield from _by_class(figures)


def _by_class(figures: Figures) -> Iterable[Part]:
    pairs = dict.fromkeys((row["class"], row["against"]) for row in figures["classes"])
    found = {(row["system"], row["class"], row["against"]): row for row in figures["classes"]}
    for name, against in pairs:
        yield Heading(f"{name.capitalize()} against {against}")
        rows = []
        for system in figures["systems"]:
            row = found.get((system["system"], name, against))
            if row is not None:
                rows.append(Row(_title(system), [with_interval(row[key], 3) for key, _ in _BY_CLASS], _kind(system)))
        said = (
            ""
            if against == "the rest"
            else f'Among knees of these two classes only; called "{name}" or anything else, ranked by their two '
            "probabilities."
        )
        yield Table([Cell("system"), *(Cell(label) for _, label in _BY_CLASS)], rows, said)


def _groups(figures: Figures) -> Iterable[Part]:
    last = figures["class_names"][-1]
    yield Text(
        f'Of "{last}" against the rest: ROC AUC within each group, and calibration in the large, which is the mean '
        "predicted probability less the observed share: above 0 too much is predicted. The KL grade alone tells no "
        "knees of one grade apart. Knees without a value are a group of their own."
    )
    rows = figures["subgroups"]
    for factor in dict.fromkeys(row["factor"] for row in rows):
        of_factor = [row for row in rows if row["factor"] == factor]
        groups = list(dict.fromkeys(row["group"] for row in of_factor))
        found = {(row["system"], row["group"]): row for row in of_factor}
        yield Heading(f"By {factor}")
        for start in range(0, len(groups), _COLUMNS):
            part = groups[start : start + _COLUMNS]
            yield _group_table(part, factor, found, figures["systems"], "roc_auc")
            yield _group_table(part, factor, found, figures["systems"], "signed_error")


def _group_table(
    groups: Sequence[str], factor: str, found: Mapping[tuple[str, str], Figures], systems: Sequence[Figures], key: str
) -> Table:
    sizes = [found[systems[0]["system"], group] for group in groups]
    heads = [
        Cell(group, f"{row['of_class']:,} of {row['knees']:,} knees, patients: {row['patients']:,}")
        for group, row in zip(groups, sizes, strict=True)
    ]
    area = key == "roc_auc"
    rows = []
    if not area:
        shares = [with_interval(row["share"], 3, "few" if row["few"] else "") for row in sizes]
        rows.append(Row(Cell("observed share"), shares))
    for system in systems:
        cells = []
        for group in groups:
            row = found[system["system"], group]
            kind = "few" if row["few"] else ""
            cell = with_interval(row[key], 3, kind, signs=not area)
            cells.append(Cell("-", "one class only", kind) if row[key][0] is None else cell)
        rows.append(Row(Cell(system["title"]), cells, _kind(system)))
    few = [group for group, row in zip(groups, sizes, strict=True) if row["few"]]
    what = "ROC AUC" if area else "Predicted less observed share"
    warning = f" Fewer than {FEW} patients, or knees of either class, so that the figures say little: " if few else ""
    return Table([Cell(factor), *heads], rows, f"{what} by {factor}.{warning}{', '.join(few)}{'.' if few else ''}")


def _folds(figures: Figures) -> Iterable[Part]:
    rows = figures["folds"]
    folds = sorted({row["fold"] for row in rows})
    found = {(row["system"], row["fold"]): row for row in rows}
    titles = {row["system"]: row["title"] for row in figures["systems"]}
    sizes = [found[next(iter(titles)), fold] for fold in folds]
    heads = [
        Cell(f"fold {row['fold']}", f"{row['of_class']:,} of {row['knees']:,} knees, patients: {row['patients']:,}")
        for row in sizes
    ]
    table = []
    for system in figures["systems"]:
        cells = []
        for fold in folds:
            row = found[system["system"], fold]
            told = "" if row["threshold"] is None else f", threshold {number(row['threshold'], 3)}"
            small = f"PR AUC {number(row['pr_auc'], 3)}, F1 {number(row['f1'], 3)}{told}"
            cells.append(Cell(number(row["roc_auc"], 3), small))
        table.append(Row(_title(system), cells, _kind(system)))
    yield Table([Cell("ROC AUC"), *heads], table, "Each fold by itself: ROC AUC, below it PR AUC, F1 and threshold.")
    values = {name: [found[name, fold]["roc_auc"] for fold in folds] for name in titles}
    yield Picture(
        "folds", report_plots.fold_dots(titles, values, "ROC AUC"), "ROC AUC of each system in each fold, as above.",
        "ROC AUC in each fold, by the fold's number.",
    )  # fmt: skip
