"""What a model says of a knee on an MR series, in words: for reports, pictures and pages.

A probability predicted from images is neither a measured loss of joint space nor a pain that a patient told: wherever
the number stands, its origin stands with it.
"""

from dataclasses import replace
from typing import Final

from dicom_templates import codes, mr_codes
from dicom_templates.concept import Concept
from dicom_templates.identity import SIDE_WORDS, SYNTHETIC_MARK, SeriesKind, ascii_text
from inference.findings import Side
from inference.mr_findings import ClinicalValue, OutcomeFinding, SeenSlice, VolumeFinding

NOT_MEASURED: Final = "predicted from image, not measured"
NOT_REPORTED: Final = "predicted from image, not patient-reported"
MOST_SLICES: Final = 3  # told by name
_OUTCOMES: Final = {
    "progression_abs": "joint space narrowing of 0.5 mm or more within 12 months",
    "progression_rel": "joint space narrowing of a quarter or more within 12 months",
    "womac_pain_binary": "WOMAC pain of 2 or more",
}
_SHORT: Final = {
    "progression_abs": "narrowing of 0.5 mm",
    "progression_rel": "narrowing of 25 %",
    "womac_pain_binary": "WOMAC pain of 2 or more",
    "womac_pain_class": "classes of WOMAC pain",
}
_TAGS: Final = {  # of Series Descriptions, which hold 64 characters
    "progression_abs": "JSN 0.5 mm",
    "progression_rel": "JSN 25 %",
    "womac_pain_binary": "WOMAC 2+",
    "womac_pain_class": "WOMAC class",
}
_CLINICAL: Final = {  # name -> (in words, unit)
    "age": ("age", "years"),
    "sex": ("sex", ""),
    "bmi": ("body mass index", "kg/m2"),
    "height": ("height", "m"),
    "weight": ("weight", "kg"),
    "mjsw": ("minimum joint space width", "mm"),
    "kl": ("Kellgren-Lawrence grade", ""),
    "womac_pain": ("WOMAC pain", "of 20"),
    "injury": ("earlier injury", ""),
    "surgery": ("earlier surgery", ""),
}
_YES_NO: Final = ("sex", "injury", "surgery")


def is_pain(outcome: OutcomeFinding) -> bool:
    """Whether the outcome is one that only a patient can tell."""
    return outcome.model.task == "womac_pain"


def origin_words(outcome: OutcomeFinding) -> str:
    """What goes with every probability."""
    return NOT_REPORTED if is_pain(outcome) else NOT_MEASURED


def origin_code(outcome: OutcomeFinding) -> Concept:
    """The same as a code."""
    return codes.PAIN_FROM_IMAGE if is_pain(outcome) else mr_codes.FROM_IMAGE


def outcome_words(outcome: OutcomeFinding) -> str:
    """What the first probability is of."""
    if outcome.target in _OUTCOMES:
        return _OUTCOMES[outcome.target]
    about = f"{'WOMAC pain' if is_pain(outcome) else 'joint space narrowing'}, "
    return ascii_text(f"{about}class '{outcome.classes[-1]}'", 80)


def short_words(outcome: OutcomeFinding) -> str:
    """A few words that tell one target from another."""
    return _SHORT.get(outcome.target) or ascii_text(outcome.target.replace("_", " "), 40)


def tracking_words(finding: VolumeFinding) -> str:
    """The Tracking Identifier: which knee, which outcome, from which sequence."""
    words = f"{SIDE_WORDS[finding.side]} knee, {short_words(finding.outcome)}, {finding.sequence}"
    return ascii_text(words, 64)


def numbers(outcome: OutcomeFinding) -> tuple[float, float, float]:
    """Probability of the last class, and its interval, as they are told everywhere: in ten-thousandths."""
    return round(outcome.probabilities[-1], 4), round(outcome.low[-1], 4), round(outcome.high[-1], 4)


def probability_words(outcome: OutcomeFinding) -> str:
    """For example "0.62 (0.41 to 0.80)"."""
    value, low, high = numbers(outcome)
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def threshold_words(outcome: OutcomeFinding) -> str:
    """On which side of the threshold; empty without one."""
    if outcome.threshold is None:
        return ""
    decision = mr_codes.ABOVE if outcome.above else mr_codes.BELOW
    return f"{decision.meaning.lower()} of {outcome.threshold:.2f}"


def classes_words(outcome: OutcomeFinding) -> str:
    """The probabilities of all classes where there are more than two; else empty."""
    if len(outcome.classes) <= 2:
        return ""
    pairs = zip(outcome.classes, outcome.probabilities, strict=True)
    return ", ".join(ascii_text(f"{name} {probability:.2f}", 80) for name, probability in pairs)


def result_sentence(finding: VolumeFinding) -> str:
    """The result in words, with the side, the outcome, its origin, and on which side of the threshold it is."""
    outcome = finding.outcome
    mark = f"{SYNTHETIC_MARK}. " if finding.synthetic else ""
    extra = "".join(f"; {words}" for words in (threshold_words(outcome), classes_words(outcome)) if words)
    return ascii_text(
        f"{mark}{SIDE_WORDS[finding.side]} knee: probability {probability_words(outcome)} of {outcome_words(outcome)}, "
        f"{origin_words(outcome)}, by a research model on the {finding.sequence} series{extra}.",
        1024,
    )


def series_sentence(finding: VolumeFinding) -> str:
    """Which series was read and why it was taken for the one wanted."""
    why = {
        "description": "its description names the sequence",
        "timing": "no description names the sequence, its timing fits",
    }.get(finding.chosen_by, f"chosen by {finding.chosen_by}")
    return ascii_text(f"The {finding.sequence} series of this knee: {why}.", 256)


def attention_sentence(finding: VolumeFinding) -> str:
    """The slices that count most, the first one first."""
    slices = enumerate(finding.slices, 1)
    order = sorted(slices, key=lambda pair: (-pair[1].attention, pair[1].index))[:MOST_SLICES]
    told = ", ".join(f"slice {slice_words(one, finding)} {one.attention:.2f}" for _, one in order)
    return f"Share of attention: {told} (even shares would be {1 / len(finding.slices):.2f})."


def slice_words(one: SeenSlice, finding: VolumeFinding) -> str:
    """For example "19 of 37": counted in the order of places, whatever the Instance Numbers."""
    return f"{one.index + 1} of {finding.total}"


def clinical_sentence(value: ClinicalValue) -> str:
    """What is known, or what stands in for it."""
    name, unit = _CLINICAL.get(value.name, (value.name, ""))
    if value.imputed:
        number = f"{value.value:.4g}{f' {unit}' if unit else ''}"
        return ascii_text(f"{name}: not known; the median of the training patients, {number}, stands in.", 256)
    return ascii_text(f"{name}: {_value_words(value, unit)}, from {value.source}.", 256)


def _value_words(value: ClinicalValue, unit: str) -> str:
    if value.name in _YES_NO and value.value in (0.0, 1.0):
        pair = ("male", "female") if value.name == "sex" else ("no", "yes")
        return pair[int(value.value)]
    return f"{value.value:.4g}{f' {unit}' if unit else ''}"


def series_of(kind: SeriesKind, finding: VolumeFinding) -> SeriesKind:
    """The series with outcome and sequence in its description, for several stand side by side in a viewer."""
    target, sequence = finding.outcome.target, finding.sequence
    tag = _TAGS.get(target) or ascii_text(target, 12)
    for plane in ("coronal", "sagittal"):
        sequence = sequence.replace(plane, plane[:3])
    return replace(kind, description=f"{kind.description}, {tag}, {ascii_text(sequence, 13)} (RESEARCH)")


def heading(side: Side, outcome: OutcomeFinding) -> str:
    """The large line of a picture."""
    return f"{SIDE_WORDS[side]} KNEE   probability {probability_words(outcome)}"
