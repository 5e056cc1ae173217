"""The model card of a bundle, from its run and its figures."""

from collections.abc import Mapping
from typing import Any

from training.config import RunConfig


def model_card(config: RunConfig, metrics: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    """Markdown. `sizes` are knees by part ("fit", "tune" and the test split)."""
    model, contrast = metrics["model"], metrics["contrast"]
    rows = [_row(f"**{config.name} {config.version}**", model)]
    rows += [_row(name, values) for name, values in metrics["baselines"].items()]
    recall = ", ".join(f"KL {k} {_share(value)}" for k, value in enumerate(model["recall_by_grade"]))
    test = metrics["split"]
    uncertainty = f"{uncertainty_lines(metrics)}\n\n" if "conformal" in metrics else ""
    return f"""# {config.name} {config.version}: Kellgren-Lawrence grade of one knee

**Research software, not a medical device. Not for diagnosis.**

## Intended use
Grades 0 to 4 with calibrated probabilities for one knee on a frontal (AP or PA) radiograph, for research on
osteoarthritis. Not for children, fractures, implants, or any clinical decision. Whoever uses it looks at the film too.

## Data
"Knee Osteoarthritis Severity Grading Dataset", P. Chen, Mendeley Data, DOI 10.17632/56rmx5bjcr.1, CC BY 4.0: crops of
single knees from frontal radiographs of the Osteoarthritis Initiative (OAI), contrast-equalised by its author.
Patients are in one part only: {sizes["fit"]} knees fitted, {sizes["tune"]} held back for calibration, {sizes[test]} in
`{test}` for the figures below. All are from OAI: **this is no external validation**. Sex, age and race are not in the
published set, so there are no subgroup figures.

## Networks
{_networks(config)}
{_origins(config)} Right knees are mirrored to left ones.
Temperature {metrics["temperature"]:.3f}, chosen on the held-back patients; the grade is the {metrics["decoder"]} of the
probabilities.

## Figures on `{test}` ({model["n"]} knees of {model["patients"]} patients; 95 % patient bootstrap)
| | quadratic kappa | accuracy | mean absolute error | ECE | log loss |
|---|---|---|---|---|---|
{chr(10).join(rows)}

Recall by grade: {recall}. Calibration error before temperature scaling: {metrics["uncalibrated_ece"]:.3f}.

Confusion (rows: published grade, columns: predicted):

| | 0 | 1 | 2 | 3 | 4 |
|---|---|---|---|---|---|
{chr(10).join(f"| **{k}** | " + " | ".join(str(v) for v in row) + " |" for k, row in enumerate(model["confusion"]))}

KL 1 ("doubtful") is the weakest grade, as it is for readers.

{uncertainty}## Equalised and other films
{contrast_table(metrics)}

The look-alikes correlate with the published crops at r = {contrast["look_alike_correlation"]:.3f} once they are
equalised. No film that was never equalised and has a grade was at hand.

## Limits
Pixels outside of the knee, implants, casts and other views are not recognised by the grader itself. Probabilities are
calibrated on OAI patients only. Figures are of crops with the knee in their middle; what finding the knee on
a film adds to the error stands in docs/robustness.md.
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


def _origins(config: RunConfig) -> str:
    """What the networks that ship, or those that they build on, started from."""
    backbones = {member.backbone for member in config.members if not member.start}
    known = {
        "mobilenetv2": "an 8-bit quantised ImageNet MobileNetV2 (Apache-2.0), dequantised",
        "tf_efficientnet_lite": "TensorFlow's ImageNet EfficientNet-Lite (Apache-2.0)",
    }
    found = [text for start, text in known.items() if any(name.startswith(start) for name in backbones)]
    return f"Started from {', and '.join(found)}." if found else "Started from random weights."


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
