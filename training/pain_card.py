"""The model card of a bundle of the task "pain", from its run and its figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.card_parts import (
    chosen,
    data_source,
    estimated,
    excluded_use,
    flow_of,
    hashes,
    opening,
    plain,
    systems_table,
)
from training.cv_evidence import Evidence, title_of
from training.cv_run import CVRun
from training.embeddings import FINE_TUNED
from training.predictions import Predictions

_NAMES = {"rmse": "RMSE", "mae": "MAE", "r2": "R²", "spearman": "Spearman"}


@dataclass(frozen=True, eq=False)
class CardFacts:
    """`bundle` is what bundle.json holds, `figures` what `genu-train evaluate` found of all systems of the run."""

    bundle: Mapping[str, Any]
    run: CVRun
    evidence: Evidence
    system: Predictions
    figures: Mapping[str, Any]


def pain_card(facts: CardFacts) -> str:
    """Markdown."""
    first = opening(facts.bundle, "pain of one knee, predicted from a radiograph")
    sections = (_use, _interval, _data, _model, _performance, _subgroups, _limits)
    return "\n".join([*first, *(line for section in sections for line in section(facts)), *hashes(facts.bundle)])


def _use(facts: CardFacts) -> Iterator[str]:
    terms = facts.bundle["terms"]
    yield "## Intended use"
    yield (
        "A score from 0 (no pain) to 10 (worst pain) with an interval, for one knee on a frontal radiograph, for "
        "research on what radiographs say of pain. It is **predicted from the image, not patient-reported**, and every "
        "object that carries it says so."
    )
    yield ""
    yield "## Out of scope"
    yield (
        "Anything that is done to or decided for a patient: treatment, triage, reimbursement, doubt about what a "
        "patient says. A low score is no evidence against pain: most of pain is not on a radiograph. Children, "
        "implants, fractures, other joints, other views."
    )
    yield from excluded_use(terms)
    yield ""


def _interval(facts: CardFacts) -> Iterator[str]:
    told, found = facts.bundle["calibration"], facts.bundle["metrics"]["interval"]
    share, low, high = 100 * told["coverage"], told["low"], told["high"]
    yield "## How sure it is"
    yield (
        f"The interval is made to hold {share:.0f} % of the scores: the prediction {low:+.1f} to {high:+.1f} points, "
        f"cut to 0 and 10, on average **{found['mean_width']:.1f} of 10 points wide**. That is wide, and honest: a "
        "single score says little about a single knee."
    )
    yield ""
    yield (
        f"Method: {told['method']}. Measured fold by fold with offsets from the other folds: "
        f"{_share(found['coverage'], found['coverage_95'])} of {found['knees']} knees of {found['patients']} patients "
        f"inside (wanted {share:.0f} %). The served head learnt from all patients, the offsets are of heads that saw "
        "all folds but one, so the interval is as a rule a little too wide."
    )
    yield ""


def _data(facts: CardFacts) -> Iterator[str]:
    training, run = facts.bundle["training"], facts.run
    yield "## Data"
    yield (
        f"{training['knees']} knees of {training['patients']} patients, target `{training['target']}` in {run.unit}; "
        f"{training['folds']} patient-grouped folds, seed {training['seed']}. KL grades: {training['grades']}. "
        f"SHA-256 of cohort.parquet: `{training['cohort_sha256']}`."
    )
    yield ""
    yield from data_source(training["data"])
    flow = flow_of(run.cohort)
    if flow is not None:
        yield ""
        yield "Which knees of the export they are, by the cohort's rules:"
        yield ""
        yield flow.rstrip()
    for why, count in training["left_out"].items():
        if not count:
            continue
        yield ""
        yield f"Of the cohort {count} knees did not take part: {why}."
    yield ""


def _model(facts: CardFacts) -> Iterator[str]:
    bundle = facts.bundle
    backbone, head, terms = bundle["backbone"], bundle["head"], bundle["terms"]
    seen = f"{backbone['input']['size']} x {backbone['input']['size']}"
    also = " and the KL grade of the grader that serves beside it" if head["grades"] else ""
    words = " and its description by side and KL grade, embedded once" if head["features"] == "fused" else ""
    # A fine-tuned one says so in what its weights are called.
    state = "" if backbone["weights"].startswith(FINE_TUNED) else "frozen "
    yield "## Model"
    yield (
        f"{title_of(facts.system)}: {state}{backbone['name']} ({backbone['weights']}, licence {terms['licence']}), "
        f"input {seen}, {head['features']} features of the image{words}{also}; head `{head['kind']}`, chosen "
        f"{chosen(bundle['training']['chosen'])}."
    )
    change = bundle["training"]["rounding_points"]
    yield ""
    yield (
        f"The embeddings were computed in {backbone['precision']}. Stored weights are rounded to half precision where "
        f"that changes no score by more than a few hundredths; here the drawn probe changed by {change:.4f} points."
    )
    yield ""


def _performance(facts: CardFacts) -> Iterator[str]:
    figures = facts.figures
    yield f"## Figures, out of fold ({figures['knees']} knees of {figures['patients']} patients)"
    yield "With 95 % patient-bootstrap intervals. What does no better than the constants has learnt nothing."
    yield ""
    yield from systems_table(figures, facts.system.system, _NAMES)
    against = [row for row in figures["differences"] if row["system"] == facts.system.system]
    if against:
        yield ""
        yield f"| this bundle against | figure | difference | better |{chr(10)}|---|---|---|---|"
    for row in against:
        better = {True: "yes", False: "no", None: "not shown"}[row["better"]]
        yield f"| `{row['against']}` | {_NAMES[row['figure']]} | {estimated(row['difference'])} | {better} |"
    yield ""


def _subgroups(facts: CardFacts) -> Iterator[str]:
    covered = {(row["factor"], row["group"]): row for row in facts.bundle["metrics"]["interval"]["subgroups"]}
    rows = [row for row in facts.figures["subgroups"] if row["system"] == facts.system.system]
    yield "## Subgroups"
    yield (
        "Signed error is prediction minus truth: above 0 pain is overestimated. Where a group has few patients its "
        "figures say little."
    )
    yield ""
    yield "| group | patients | knees | mean truth | signed error | inside interval |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        inside = covered.get((row["factor"], row["group"]))
        told = "none" if inside is None else _share(inside["coverage"], inside["coverage_95"])
        few = " (few)" if row["few"] else ""
        yield (
            f"| {row['factor']}: {plain(row['group'])}{few} | {row['patients']} | {row['knees']} "
            f"| {estimated(row['truth'])} | {estimated(row['signed_error'])} | {told} |"
        )
    yield ""


def _limits(facts: CardFacts) -> Iterator[str]:
    yield "## Limits"
    yield "- Figures are of patients of the same source as those learnt from: **no external validation**."
    yield "- The interval holds for patients like those; coverage in a subgroup may be lower, see the table."
    yield "- Scores are drawn towards the mean, as every prediction of a noisy target is: extremes are rare."
    if facts.bundle["head"]["grades"] or facts.bundle["head"]["features"] == "fused":
        yield (
            "- The score rests on a KL grade. In the service that is the grade of Genu's grader; "
            f"in training it was: {facts.bundle['training']['grades']}."
        )
    yield (
        "- Films stored mirrored are turned before the knee is looked for in training, and after it in the service: "
        "their crops may differ by a pixel."
    )
    yield ""


def _share(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "none"
    return f"{value:.1%}" + ("" if interval is None else f" ({interval[0]:.1%} to {interval[1]:.1%})")
