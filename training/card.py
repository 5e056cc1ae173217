"""The model card of a bundle, from its run and its figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.config import DataAbout, RunConfig
from training.provenance import Provenance, origin


def model_card(config: RunConfig, metrics: Mapping[str, Any], sizes: Mapping[str, int], provenance: Provenance) -> str:
    """Markdown. `sizes` are knees by part ("fit", "tune" and the test split)."""
    about = provenance.about or DataAbout()
    mark = "**SYNTHETIC: MADE KNEES. WHAT IT SAYS MEANS NOTHING.**\n\n" if provenance.synthetic else ""
    films = f" {about.contrast}" if about.contrast else ""
    model, contrast = metrics["model"], metrics["contrast"]
    rows = [_row(f"**{config.name} {config.version}**", model)]
    rows += [_row(name, values) for name, values in metrics["baselines"].items()]
    recall = ", ".join(f"KL {k} {_share(value)}" for k, value in enumerate(model["recall_by_grade"]))
    test = metrics["split"]
    uncertainty = f"{uncertainty_lines(metrics)}\n{_seen(about)}\n" if "conformal" in metrics else ""
    return f"""# {config.name} {config.version}: Kellgren-Lawrence grade of one knee

{mark}**Research software, not a medical device. Not for diagnosis.**

## Intended use
Grades 0 to 4 with calibrated probabilities for one knee on a frontal (AP or PA) radiograph, for research on
osteoarthritis. Not for children, fractures, implants, or any clinical decision. Whoever uses it looks at the film too.

## Data
{_source(provenance.about)}
Patients are in one part only: {sizes["fit"]} knees fitted, {sizes["tune"]} held back for calibration, {sizes[test]} in
`{test}` for the figures below. {_population(about)}{_left_out(metrics)}

## Networks
{_networks(config)}
{origin(provenance.initial)} Right knees are mirrored to left ones.
Temperature {metrics["temperature"]:.3f}, chosen on the held-back patients; the grade is the {metrics["decoder"]} of the
probabilities.

## Figures on `{test}` ({model["n"]} knees of {model["patients"]} patients; 95 % patient bootstrap)
| | quadratic kappa | accuracy | mean absolute error | ECE | log loss |
|---|---|---|---|---|---|
{chr(10).join(rows)}

Recall by grade: {recall}. Calibration error before temperature scaling: {metrics["uncalibrated_ece"]:.3f}.

Confusion (rows: {about.grades} grade, columns: predicted):

| | 0 | 1 | 2 | 3 | 4 |
|---|---|---|---|---|---|
{chr(10).join(f"| **{k}** | " + " | ".join(str(v) for v in row) + " |" for k, row in enumerate(model["confusion"]))}

{_weakest(model["recall_by_grade"])}{uncertainty}## Equalised and other films
{contrast_table(metrics)}

The look-alikes correlate with the {about.grades} crops at r = {contrast["look_alike_correlation"]:.3f} once they are
equalised.{films}

## Limits
Pixels outside of the knee, implants, casts and other views are not recognised by the grader itself. Probabilities are
calibrated on {about.population or "these"} patients only. Figures are of crops with the knee in their middle; what
finding the knee on a film adds to the error stands in docs/robustness.md.
"""


def uncertainty_lines(metrics: Mapping[str, Any]) -> str:
    """Markdown of the conformal sets and of what is refused as unlike the training knees."""
    sets, unlike, test = metrics["conformal"], metrics["unlike"], metrics["split"]
    return f"""## Conformal sets
{set_lines(sets, test)}

## Unlike the training knees
{unlike_lines(unlike, test)}"""


def set_lines(sets: Mapping[str, Any], test: str) -> str:
    """Coverage and size of the sets on the test split."""
    found, chosen = sets["figures"], sets["chosen_on"]
    low, high = found["coverage_95"]
    grades = ", ".join(f"KL {k} {_percent(value)}" for k, value in enumerate(found["by_grade"]))
    sides = ", ".join(f"{side} {_percent(value)}" for side, value in found["by_side"].items())
    sizes = ", ".join(f"{size} grade(s) {count}" for size, count in enumerate(found["sizes"], start=1) if count)
    wanted = f"{100 * sets['coverage']:g} %"
    reached = f"{_percent(found['coverage'])} ({_percent(low)} to {_percent(high)})"
    return f"""Neighbouring grades that are to hold the published one in {wanted} of the knees; limits chosen on the
{chosen["knees"]} held-back knees of {chosen["patients"]} patients. On `{test}` they hold it in {reached}.

- by grade: {grades}
- by side: {sides}
- {found["mean_size"]:.2f} grades in the mean; knees by size: {sizes}"""


def unlike_lines(unlike: Mapping[str, Any], test: str) -> str:
    """What is refused of the test split and of pictures that are no training knees."""
    held, own = unlike["held_back"], unlike[test]
    rows = [(f"held-back training knees ({held['n']})", held), (f"`{test}` ({own['n']})", own)]
    rows += [(f"{name} ({row['n']})", row) for name, row in unlike["strangers"].items()]
    table = "\n".join(
        f"| {name} | {row['refused']:.1%} | {row['scores'][0]:.1f} | {row['scores'][1]:.1f} | {row['scores'][2]:.1f} |"
        for name, row in rows
    )
    limit = f"{unlike['limit']:.2f}"
    return f"""A knee whose score (about 1 for training knees) is above {limit} is refused. Drawn things are
drawings by the code of this project; no real film of a hip, a hand or a lateral knee was at hand.

| pictures | refused | least score | median | largest |
|---|---:|---:|---:|---:|
{table}"""


def contrast_table(metrics: Mapping[str, Any]) -> str:
    """Markdown table of the contrast sweep."""
    lines = [
        "| the same knees | quadratic kappa | accuracy | same grade as published crop | mean shift (grades) |",
        "|---|---|---|---|---|",
    ]
    for name, row in metrics["contrast"]["rows"].items():
        lines.append(
            f"| {name} | {row['quadratic_kappa']:.3f} | {row['accuracy']:.3f} | {row['same_grade']:.1%} | "
            f"{row['mean_shift']:+.2f} |"
        )
    return "\n".join(lines)


def _row(name: str, values: Mapping[str, Any]) -> str:
    kappa, accuracy = values["quadratic_kappa_95"], values["accuracy_95"]
    return (
        f"| {name} | {values['quadratic_kappa']:.3f} ({kappa[0]:.3f} to {kappa[1]:.3f}) | {values['accuracy']:.3f} "
        f"({accuracy[0]:.3f} to {accuracy[1]:.3f}) | {values['mean_absolute_error']:.3f} | "
        f"{values['expected_calibration_error']:.3f} | {values['log_loss']:.3f} |"
    )


def _source(about: DataAbout | None) -> str:
    if about is None:
        return (
            "What the knees are, whose they are and under which licence was not told: the run's configuration has no\n"
            "`[data]` about them."
        )
    title = about.title or "A data set whose name was not told"
    licence = about.licence or "under a licence that was not told"
    return f"{title}, {licence}: {about.description or 'what it holds was not told.'}"


def _seen(about: DataAbout) -> str:
    return f"\n{about.test_seen}\n" if about.test_seen else ""


def _population(about: DataAbout) -> str:
    if about.population:
        told = f"All are from {about.population}: **this is no external validation**."
    else:
        told = "From which population they are was not told: **take it for no external validation**."
    return f"{told} {about.notes}" if about.notes else told


def _left_out(metrics: Mapping[str, Any]) -> str:
    counts = metrics.get("left_out") or {}
    if not counts:
        return ""
    told = ", ".join(f"{count} {code}" for code, count in counts.items())
    return f"\n{sum(counts.values())} labelled knees were left out: {told}."


def _weakest(recalls: Sequence[float | None]) -> str:
    known = {grade: value for grade, value in enumerate(recalls) if value is not None}
    doubtful = min(known, key=lambda grade: known[grade]) == 1
    return 'KL 1 ("doubtful") is the weakest grade, as it is for readers.\n\n' if doubtful else ""


def _networks(config: RunConfig) -> str:
    lines = [
        f"- `{member.name}`: {member.backbone}, input {member.spec.size[0]} x {member.spec.size[1]}, rows "
        f"{member.spec.band[0]:.0%} to {member.spec.band[1]:.0%} of the crop, {member.epochs} epochs"
        + (f", started from `{member.start}`" if member.start else "")
        + (f", taught by {', '.join(f'`{name}`' for name in member.teachers)}" if member.teachers else "")
        + ("" if member.ships else "; not in the bundle")
        for member in config.members
    ]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f} %"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
