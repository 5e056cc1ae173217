"""The model card of a bundle for knee MRI, from its run and its figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference.mr_sequences import MRSequence
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
from training.predictions import Predictions
from training.slice_run import SliceRun

_NAMES = {"roc_auc": "ROC AUC", "pr_auc": "PR AUC", "f1": "F1", "log_loss": "log loss", "brier": "Brier"}


@dataclass(frozen=True, eq=False)
class SliceCardFacts:
    """`bundle` is what bundle.json holds, `figures` what `genu-train evaluate` found of all systems of the run."""

    bundle: Mapping[str, Any]
    run: SliceRun
    system: Predictions
    figures: Mapping[str, Any]


def slice_card(facts: SliceCardFacts) -> str:
    """Markdown."""
    first = opening(facts.bundle, f"{_asked(facts)}, predicted from knee MRI")
    sections = (_use, _interval, _data, _model, _performance, _subgroups, _limits)
    return "\n".join([*first, *(line for section in sections for line in section(facts)), *hashes(facts.bundle)])


def _use(facts: SliceCardFacts) -> Iterator[str]:
    terms, pain = facts.bundle["terms"], facts.bundle["target"].startswith("womac")
    what = (
        "what the person says of pain (WOMAC) at the time of the image; **predicted from the image, not asked**"
        if pain
        else "narrowing of the medial joint space on radiographs after the image; **predicted, not observed**"
    )
    yield "## Intended use"
    yield (
        f'A calibrated probability of "{_asked(facts)}" with its interval for one knee of an MR series '
        f"({MRSequence(facts.bundle['volume']['sequence']).wording}), for research. What it predicts is {what}."
    )
    yield ""
    yield "## Out of scope"
    yield (
        "Anything that is done to or decided for a patient. Selection of people for a trial without a study of that "
        "use. Children, implants, fractures, tumours, infection, other joints, other sequences and planes."
    )
    yield from excluded_use(terms)
    yield ""


def _interval(facts: SliceCardFacts) -> Iterator[str]:
    told, found = facts.bundle["calibration"], facts.bundle["metrics"]["interval"]
    yield "## How sure it is"
    yield (
        f"Method: {told['method']}, from {told['rows']} out-of-fold rows of {told['patients']} patients, each patient "
        "of the same weight. The interval runs from the probability if the new knee were like those without the "
        "outcome to the probability if it were like those with it: it says how much the calibration rests on few "
        "knees, not how sure an outcome is. The served networks learnt from the patients of all folds, but for one of "
        f"{facts.bundle['training']['fitting']['inner']} inner parts, which decided when to stop and the temperature; "
        "the tables are of networks that learnt in the same way from all folds but one."
    )
    yield ""
    yield "Measured fold by fold with tables of the other folds, patients of the same weight:"
    for row in found["classes"]:
        yield ""
        yield f"**{plain(facts.run.classes[row['class']])}**"
        yield ""
        yield "| predicted | rows | mean interval | width | observed share | in the interval |"
        yield "|---|---|---|---|---|---|"
        for place, one in enumerate((row, *row["bins"])):
            name = "all" if place == 0 else f"{one['point']:.3f}"
            yield f"| {name} | {one['rows']} | {_between(one)} | {one['width']:.3f} | {_holds(one)} |"
    threshold = facts.bundle["metrics"]["threshold"]
    if threshold is not None:
        yield ""
        yield (
            f"Threshold on the calibrated probability: {threshold['value']:.4f}, of the greatest F1 of all out-of-fold "
            f"rows. There, tables and threshold of each fold from the other folds: precision "
            f"{threshold['precision']:.3f}, recall {threshold['recall']:.3f}, F1 {threshold['f1']:.3f}."
        )
    yield ""


def _data(facts: SliceCardFacts) -> Iterator[str]:
    training = facts.bundle["training"]
    shares = ", ".join(f'{row["knees"]} "{plain(row["class"])}"' for row in facts.figures["shares"])
    yield "## Data"
    yield (
        f"{training['rows']} rows (a knee counts once for each of its windows) of {training['patients']} patients: "
        f"{shares}. Target `{training['target']}`, sequence {training['sequence']}; {training['folds']} "
        f"patient-grouped folds, seed {training['seed']}. SHA-256 of cohort.parquet: `{training['cohort_sha256']}`, of "
        f"the slice features: `{training['slices_sha256']}`."
    )
    yield ""
    yield from data_source(training["data"])
    flow = flow_of(facts.run.cohort)
    if flow is not None:
        yield ""
        yield "Which series of the export they are, by the cohort's rules:"
        yield ""
        yield flow.rstrip()
    for why, count in training["left_out"].items():
        if count:
            yield ""
            yield f"Of the cohort {count} rows did not take part: {plain(why)}."
    yield ""


def _model(facts: SliceCardFacts) -> Iterator[str]:
    bundle = facts.bundle
    backbone, spec, volume = bundle["backbone"], bundle["network"]["spec"], bundle["volume"]
    seen = ", ".join(spec["clinical"]) or "none"
    yield "## Model"
    yield (
        f"{volume['slices']} slices ({volume['choice']}) of {volume['size']} x {volume['size']} pixels through "
        f"`{backbone['name']}` ({plain(backbone['weights'])}, frozen), gated attention and a GRU over the slices, a "
        f"perceptron of their weighted mean and the clinical variables: {seen}. {_networks(bundle)}; "
        f"chosen: {chosen(bundle['training']['chosen'])}. Knees of the other side are mirrored to "
        f"{volume['canonical_side']}. Missing variables become the training median and a mark; the report names them."
    )
    change = bundle["training"]["rounding"]
    yield ""
    yield (
        "Weights of the backbone are stored in half precision where that changes no probability of the drawn probe by "
        f"more than 0.002; here it changed by {change:.5f}."
    )
    yield f"Licence of the backbone's weights: {bundle['terms']['licence']}."
    yield ""


def _performance(facts: SliceCardFacts) -> Iterator[str]:
    figures = facts.figures
    yield f"## Figures, out of fold ({figures['knees']} rows of {figures['patients']} patients)"
    yield (
        "Before calibration, with 95 % patient-bootstrap intervals. A joint space width alone can reach an area of .77 "
        "on a relative endpoint: what is no better than the baselines has learnt nothing from the image."
    )
    yield ""
    yield from systems_table(figures, facts.system.system, _NAMES)
    against = [row for row in figures["differences"] if row["system"] == facts.system.system]
    if against:
        yield ""
        yield "| ROC AUC of this bundle less that of | difference | better |"
        yield "|---|---|---|"
    for row in against:
        better = {True: "yes", False: "no, worse", None: "not shown"}[row["better"]]
        yield f"| `{row['against']}` | {estimated(row['difference'])} | {better} |"
    yield ""


def _subgroups(facts: SliceCardFacts) -> Iterator[str]:
    last = facts.bundle["metrics"]["interval"]["classes"][-1]
    areas = {
        (row["factor"], row["group"]): row for row in facts.figures["subgroups"] if row["system"] == facts.system.system
    }
    yield "## Subgroups"
    yield f'Of "{_asked(facts)}". Where a group has few patients its figures say little.'
    yield ""
    yield "| group | patients | rows | ROC AUC | mean interval | observed share | in the interval |"
    yield "|---|---|---|---|---|---|---|"
    for row in last["subgroups"]:
        area = areas.get((row["factor"], row["group"]))
        few = " (few)" if area is not None and area["few"] else ""
        yield (
            f"| {row['factor']}: {plain(row['group'])}{few} | {row['patients']} | {row['rows']} "
            f"| {estimated(None if area is None else area['roc_auc'])} | {_between(row)} | {_holds(row)} |"
        )
    yield ""


def _limits(facts: SliceCardFacts) -> Iterator[str]:
    yield "## Limits"
    yield "- Figures are of patients of the same source as those learnt from: **no external validation**."
    yield "- Scanners, coils and protocols of one study: another site's images may be read worse, without a warning."
    yield "- Calibration holds for patients like those and for their prevalence; elsewhere probabilities are off."
    if facts.bundle["network"]["spec"]["clinical"]:
        yield (
            "- A DICOM header seldom has all clinical variables; missing ones are imputed. The figures above are with "
            "the cohort's values."
        )
    yield "- Attention and Grad-CAM show what the networks rest on, not where the disease is."
    yield ""


def _networks(bundle: Mapping[str, Any]) -> str:
    count = bundle["network"]["count"]
    return "one network" if count == 1 else f"{count} networks, averaged"


def _asked(facts: SliceCardFacts) -> str:
    return plain(facts.run.classes[-1])


def _between(row: Mapping[str, Any]) -> str:
    return f"{row['low']:.3f} to {row['high']:.3f}"


def _holds(row: Mapping[str, Any]) -> str:
    observed: Sequence[float | None] = row["observed"]
    told = "yes" if row["holds"] else "within chance" if row["agrees"] else "no"
    return f"{estimated(observed)} | {told}"
