"""The report's sections of a run of kind "regression": systems beside baselines, groups, calibration, folds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from training import report_plots
from training.cv_evidence import Evidence
from training.cv_subgroups import FEW
from training.cv_verdict import leader, sentences
from training.published import Published
from training.report_numbers import number, signed, with_interval
from training.report_page import Cell, Heading, Part, Picture, Points, Row, Section, Table, Text
from training.report_parts import learning
from training.report_recovery import planted

Figures = Mapping[str, Any]
_CONSTANT: Final = "constant_mean"
_MAIN: Final = (("rmse", "RMSE", 2), ("mae", "MAE", 2), ("r2", "R²", 3), ("spearman", "Spearman", 3))
_COLUMNS: Final = 6  # groups in one table


def headline(evidence: Evidence) -> str:
    """The page's title."""
    return f"{str(evidence.about.get('target', 'score')).capitalize()} predicted from knee images, cross-validated"


def summary(evidence: Evidence, figures: Figures) -> list[str]:
    """What was found, in a few sentences."""
    return leader(figures, _unit(evidence))


def sections(evidence: Evidence, figures: Figures, published: Sequence[Published]) -> list[Section]:
    """All sections of this kind."""
    return [
        Section("figures", "Systems beside baselines", list(_figures(figures, published, _unit(evidence)))),
        Section("differences", "Better than knowing nothing, or the grade?", list(_differences(evidence, figures))),
        *planted(evidence),
        Section("groups", "Signed error by age, sex, race and grade", list(_groups(figures, _unit(evidence)))),
        Section("calibration", "Calibration and errors", list(_calibration(evidence, figures))),
        Section("folds", "Folds and learning", [*_folds(figures, _unit(evidence)), *learning(evidence)]),
    ]


def _unit(evidence: Evidence) -> str:
    return str(evidence.about.get("unit") or "units of the target")


def _figures(figures: Figures, published: Sequence[Published], unit: str) -> Iterable[Part]:
    size = [Cell(f"{figures['knees']:,}"), Cell(f"{figures['patients']:,}")]
    rows = [
        Row(
            Cell(row["title"], _name(row)),
            [*(with_interval(row[name], digits) for name, _, digits in _MAIN), *size],
            "baseline" if row["role"] == "baseline" else "",
        )
        for row in figures["systems"]
    ]
    rows += [_elsewhere(entry) for entry in published]
    titles = [
        Cell("system"),
        *(Cell(title, _units(name, unit)) for name, title, _ in _MAIN),
        Cell("knees"),
        Cell("patients"),
    ]
    yield Table(titles, rows, "Grey: baselines. Below each figure its 95 % interval. " + (_MARKED if published else ""))
    yield Points(sentences(figures))
    bands = _bands(published)
    panels = (("rmse", f"RMSE, {unit}", _CONSTANT), ("mae", f"MAE, {unit}", "constant_median"))
    alt = "; ".join(
        f"{row['title']}: RMSE {number(row['rmse'][0], 2)}, MAE {number(row['mae'][0], 2)}"
        for row in figures["systems"]
    )
    yield Picture(
        "figures", report_plots.forest(figures["systems"], panels, bands), alt,
        "RMSE and MAE with 95 % intervals. Squares: baselines. Dotted: the constant with the least of that error."
        + (" Shaded: the range published on other data." if bands else ""),
    )  # fmt: skip
    yield Text(
        "RMSE, R², signed error and calibration judge the predicted mean, MAE the predicted median. R² is 1 - SSE/SST "
        "over all knees, SST about their own mean, so that a constant learned from other folds lies slightly below 0. "
        "Spearman's rank correlation is taken over all knees; what is constant within a fold orders nothing and has "
        f"none (-). Intervals: 2.5th to 97.5th percentile of {figures['rounds']:,} resamples of patients, all knees of "
        f"a patient together, the same resamples for all systems (seed {figures['seed']}). They hold the fitted models "
        "and the folds fixed, and are not widened for the number of systems compared.",
        "fine",
    )
    yield from _sources(published)


_MARKED: Final = "Amber, in italics: PUBLISHED ON OTHER DATA, not comparable knee by knee."


def _name(row: Figures) -> str:
    return f"{row['system']}{' - SYNTHETIC' if row['synthetic'] else ''}"


def _units(name: str, unit: str) -> str:
    return unit if name in ("rmse", "mae") else ""


def _elsewhere(entry: Published) -> Row:
    cells = []
    for name, _, digits in _MAIN:
        found = entry.figures.get(name)
        low, high = found or (None, None)
        cells.append(Cell(number(low, digits) if low == high else f"{number(low, digits)} to {number(high, digits)}"))
    sizes = [Cell("-" if size is None else f"{size:,}") for size in (entry.knees, entry.patients)]
    return Row(Cell(entry.name, "published on other data"), [*cells, *sizes], "elsewhere")


def _sources(published: Sequence[Published]) -> Iterable[Part]:
    if published:
        yield Heading("Published figures: whose, and on what")
        yield Points([f"{one.name}. {one.citation}. Data: {one.data}. {one.note}".strip() for one in published])


def _bands(published: Sequence[Published]) -> dict[str, tuple[float, float]]:
    """The first published range of each figure."""
    found: dict[str, tuple[float, float]] = {}
    for entry in published:
        for name, (low, high) in entry.figures.items():
            if low < high:
                found.setdefault(name, (low, high))
    return found


def _differences(evidence: Evidence, figures: Figures) -> Iterable[Part]:
    found = {(row["system"], row["figure"], row["against"]): row for row in figures["differences"]}
    pairs = [
        ("rmse", "RMSE", _CONSTANT),
        ("mae", "MAE", "constant_median"),
        ("rmse", "RMSE", "kl_only"),
        ("mae", "MAE", "kl_only"),
    ]
    there = [pair for pair in pairs if any(key[1:] == (pair[0], pair[2]) for key in found)]
    if not there:
        yield Text("There is no constant and no KL-only baseline in this run to hold the systems against.")
        return
    titles = {row["system"]: row["title"] for row in figures["systems"]}
    rows = []
    for row in figures["systems"]:
        cells = [_difference(found.get((row["system"], figure, against))) for figure, _, against in there]
        rows.append(Row(Cell(row["title"], row["system"]), cells, "baseline" if row["role"] == "baseline" else ""))
    head = [Cell("system"), *(Cell(f"{label} less that of", titles[against]) for _, label, against in there)]
    yield Table(
        head, rows,
        "Paired differences with 95 % intervals, negative is better. Green and bold: better beyond the interval; red "
        "and bold: worse beyond it.",
    )  # fmt: skip

    column = "grade" if "grade" in evidence.knees.columns else "kl"
    if column in evidence.knees.columns and any(against == "kl_only" for _, _, against in there):
        known = len(evidence.knees) - evidence.knees[column].null_count()
        yield Text(
            f"A KL grade is known for {known:,} of {len(evidence.knees):,} knees ({known / len(evidence.knees):.1%})."
        )


def _difference(row: Figures | None) -> Cell:
    if row is None:
        return Cell("-")
    kind = {True: "better", False: "worse", None: ""}[row["better"]]
    value, low, high = row["difference"]
    word = {True: ", better", False: ", worse", None: ""}[row["better"]]
    small = "" if low is None else f"{signed(low, 3)} to {signed(high, 3)}{word}"
    return Cell(signed(value, 3), small, kind)


def _groups(figures: Figures, unit: str) -> Iterable[Part]:
    yield Text(
        "Predicted mean less observed value: above 0 the group's scores are predicted too high, below 0 too low. A "
        "constant is off by what the group's own mean differs from all; a system that sees why lies nearer to 0. Knees "
        "without a value are a group of their own.",
    )
    rows, systems = figures["subgroups"], figures["systems"]
    titles = {row["system"]: row["title"] for row in systems}
    shown = [row["system"] for row in systems if row["role"] == "system" or row["system"] == "kl_only"]
    for factor in dict.fromkeys(row["factor"] for row in rows):
        of_factor = [row for row in rows if row["factor"] == factor]
        groups = list(dict.fromkeys(row["group"] for row in of_factor))
        found = {(row["system"], row["group"]): row for row in of_factor}
        yield Heading(f"By {factor}")
        drawn = [name for name in (_CONSTANT, *shown) if name in titles]
        if drawn:
            yield Picture(
                f"signed-error-{factor.replace(' ', '-').lower()}",
                report_plots.signed_errors(
                    [(group, {name: found[name, group]["signed_error"] for name in drawn}) for group in groups],
                    {name: titles[name] for name in drawn}, unit,
                ),
                f"Signed error by {factor}; the numbers are in the table below.",
                f"Signed error by {factor} with 95 % intervals. Grey squares: {titles[drawn[0]]}.",
            )  # fmt: skip
        for start in range(0, len(groups), _COLUMNS):
            yield _group_table(groups[start : start + _COLUMNS], factor, found, systems)


def _group_table(
    groups: Sequence[str], factor: str, found: Mapping[tuple[str, str], Figures], systems: Sequence[Figures]
) -> Table:
    first = systems[0]["system"]
    sizes = [found[first, group] for group in groups]
    heads = [
        Cell(group, f"{_count(row['knees'], 'knee')}, {_count(row['patients'], 'patient')}")
        for group, row in zip(groups, sizes, strict=True)
    ]
    rows = [Row(Cell("observed mean"), [with_interval(row["truth"], 2, "few" if row["few"] else "") for row in sizes])]
    for system in systems:
        cells = []
        for group in groups:
            row = found[system["system"], group]
            cells.append(with_interval(row["signed_error"], 2, "few" if row["few"] else "", signs=True))
        rows.append(Row(Cell(system["title"]), cells, "baseline" if system["role"] == "baseline" else ""))
    few = [group for group, row in zip(groups, sizes, strict=True) if row["few"]]
    warning = f" Fewer than {FEW} patients, so that the figures say little: {', '.join(few)}." if few else ""
    return Table([Cell(factor), *heads], rows, f"Signed error by {factor}.{warning}")


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _calibration(evidence: Evidence, figures: Figures) -> Iterable[Part]:
    yield Text(
        "Observed = intercept + slope × predicted, by least squares over all knees. Calibrated predictions have slope "
        "1 and intercept 0; a slope below 1 means predictions that are spread too far. A constant has no line."
    )
    rows = [
        Row(
            Cell(row["title"], row["system"]),
            [
                with_interval(row["slope"], 2),
                with_interval(row["intercept"], 2, signs=True),
                with_interval(row["bias"], 2, signs=True),
            ],
            "baseline" if row["role"] == "baseline" else "",
        )
        for row in figures["systems"]
    ]
    yield Table(
        [Cell("system"), Cell("slope"), Cell("intercept"), Cell("signed error", "predicted less observed")], rows
    )
    constant = next((one.mean for one in evidence.systems if one.system == _CONSTANT), None)
    scale = _scale(evidence, figures)
    for row, system in zip(figures["systems"], evidence.systems, strict=True):
        if not row["ordered"] or system.mean is None:
            continue
        bins = [part for part in figures["calibration"] if part["system"] == system.system]
        yield Picture(
            f"system-{system.system}",
            report_plots.system_panels(row["title"], evidence.truth, system.mean, constant, bins, scale),
            f"{row['title']}: calibration slope {number(row['slope'][0], 2)}, intercept "
            f"{number(row['intercept'][0], 2)}, RMSE {number(row['rmse'][0], 2)}; predictions from "
            f"{system.mean.min():.1f} to {system.mean.max():.1f}.",
            f"{row['title']}. Left: knees by predicted and observed value. Middle: observed mean with 95 % interval in "
            "tenths of the predictions, the axes those of all systems; dotted where both are equal. Right: errors, and "
            "those of the constant mean (line).",
        )  # fmt: skip


def _scale(evidence: Evidence, figures: Figures) -> report_plots.Scale:
    truth = evidence.truth
    low, high = evidence.about.get("bounds") or (float(truth.min()), float(truth.max()))
    seen = [value for part in figures["calibration"] for value in (part["predicted"], *part["observed"])]
    known = [value for value in seen if value is not None] or [low, high]
    margin = 0.05 * (max(known) - min(known))
    shown = (min(known) - margin, max(known) + margin)
    return report_plots.Scale((float(low), float(high)), _unit(evidence), shown)


def _folds(figures: Figures, unit: str) -> Iterable[Part]:
    rows = figures["folds"]
    folds = sorted({row["fold"] for row in rows})
    found = {(row["system"], row["fold"]): row for row in rows}
    titles = {row["system"]: row["title"] for row in figures["systems"]}
    first = next(iter(titles))
    heads = [
        Cell(
            f"fold {fold}",
            f"{_count(found[first, fold]['knees'], 'knee')}, {_count(found[first, fold]['patients'], 'patient')}",
        )
        for fold in folds
    ]
    table = []
    for system in figures["systems"]:
        parts = [found[system["system"], fold] for fold in folds]
        cells = [
            Cell(number(part["rmse"], 2), f"MAE {number(part['mae'], 2)}, R² {number(part['r2'], 3)}") for part in parts
        ]
        table.append(
            Row(Cell(system["title"], system["system"]), cells, "baseline" if system["role"] == "baseline" else "")
        )
    yield Table([Cell("RMSE"), *heads], table, f"Each fold by itself: RMSE, below it MAE and R², in {unit}.")
    values = {name: [found[name, fold]["rmse"] for fold in folds] for name in titles}
    yield Picture(
        "folds", report_plots.fold_dots(titles, values, f"RMSE, {unit}"),
        "RMSE of each system in each fold, as in the table.",
        "RMSE in each fold, by the fold's number.",
    )  # fmt: skip
