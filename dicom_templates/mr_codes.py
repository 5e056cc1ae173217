"""The rows of the private table for results of knee MRI; `codes` has them in its table."""

from typing import Final

from dicom_templates.concept import Concept

_PROBABILITY = "name of NUM, 0..1, unit 1 (UCUM)"
_PREDICTED = "as a model predicts it from the slices of one MR series and, where it has them, clinical variables"

# Of the last class of a target, by the target's name in the bundle.
OUTCOMES: Final = {
    "progression_abs": Concept(
        "JSN-ABS-P",
        "Probability of joint space narrowing by 0.5 mm in 12 months",
        _PROBABILITY,
        "Calibrated probability that the minimum joint space width of one knee falls by 0.5 mm or more within 12 "
        f"months, {_PREDICTED}; never measured.",
    ),
    "progression_rel": Concept(
        "JSN-REL-P",
        "Probability of joint space narrowing by 25 % in 12 months",
        _PROBABILITY,
        "Calibrated probability that the minimum joint space width of one knee falls by a quarter of itself or more "
        f"within 12 months, {_PREDICTED}; never measured.",
    ),
    "womac_pain_binary": Concept(
        "WOMAC-PAIN-P",
        "Probability of WOMAC pain of 2 or more",
        _PROBABILITY,
        f"Calibrated probability that the WOMAC pain score (0 to 20) of one knee is 2 or more, {_PREDICTED}; never "
        "what a patient reported.",
    ),
    "womac_pain_class": Concept(
        "WOMAC-TOP-P",
        "Probability of the highest class of WOMAC pain",
        _PROBABILITY,
        "Calibrated probability of the highest of the model's classes of the WOMAC pain score of one knee, "
        f"{_PREDICTED}; never what a patient reported. The result in words names the class.",
    ),
}
CLASSES: Final = tuple(
    Concept(
        f"CLASS-P{number}",
        f"Probability of class {number} of the outcome",
        _PROBABILITY,
        f"Calibrated probability of class {number} of the model's outcome, from the lowest; predicted from image, not "
        "measured and not patient-reported. The result in words names the classes; all probabilities sum to 1.",
    )
    for number in range(1, 11)
)
LOW: Final = Concept(
    "OUTCOME-LOW",
    "Probability of the outcome, lower limit of interval",
    _PROBABILITY,
    "Lower limit of the first probability of the group; the algorithm parameters name the interval's method.",
)
HIGH: Final = Concept(
    "OUTCOME-HIGH",
    "Probability of the outcome, upper limit of interval",
    _PROBABILITY,
    "Upper limit of the first probability of the group; the algorithm parameters name the interval's method.",
)
THRESHOLD: Final = Concept(
    "OUTCOME-CUT",
    "Threshold of the probability of the outcome",
    _PROBABILITY,
    "Threshold of the first probability of the group, chosen on training patients; not one of clinical use.",
)
DECISION: Final = Concept(
    "OUTCOME-DECISION",
    "Probability of the outcome against its threshold",
    "name of CODE",
    "Whether the first probability of the group reaches the threshold that stands beside it.",
)
ABOVE: Final = Concept("OUTCOME-ABOVE", "At or above the threshold", "value of CODE", "It reaches the threshold.")
BELOW: Final = Concept("OUTCOME-BELOW", "Below the threshold", "value of CODE", "It does not reach the threshold.")
ORIGIN: Final = Concept(
    "OUTCOME-ORIGIN", "Origin of the probability", "name of CODE", "Who or what the probabilities come from."
)
FROM_IMAGE: Final = Concept(
    "PROG-FROM-IMAGE",
    "Predicted from image, not measured",
    "value of CODE",
    "A model's prediction from one visit; nobody measured a joint space at a second one.",
)
SERIES: Final = Concept(
    "SERIES-READ",
    "Series read and why",
    "name of TEXT",
    "The sequence in words, and whether its description or its timing told it.",
)
READ: Final = Concept("SLICES-READ", "Number of slices read", "name of NUM, unit {slices} (UCUM)", "By the model.")
TOTAL: Final = Concept(
    "SLICES-TOTAL", "Number of slices of the series", "name of NUM, unit {slices} (UCUM)", "Read or not."
)
ATTENTION: Final = Concept(
    "SLICE-ATTENTION",
    "Slices of most attention",
    "name of TEXT",
    "Up to three slices with their share of the model's attention; the shares of all slices sum to 1.",
)
KNOWN: Final = Concept(
    "CLINICAL-KNOWN",
    "Clinical variable from the header",
    "name of TEXT",
    "A variable that the probability rests on, its value, and the attributes it was read from.",
)
IMPUTED: Final = Concept(
    "CLINICAL-IMPUTED",
    "Clinical variable not known and imputed",
    "name of TEXT",
    "A variable that nothing says: the median of the training patients stands in, and is not this patient's.",
)
NO_MAP: Final = Concept(
    "NO-MAP",
    "Why there is no map on the source geometry",
    "name of TEXT",
    "A Parametric Map needs one valid Frame of Reference UID of all slices.",
)
EXTENT: Final = Concept(
    "EXTENT-SERIES",
    "MR series not scored by a model",
    "value of CODE",
    "The refusal concerns one series of MR images; a model that reads another sequence may have scored it.",
)
EVIDENCE: Final = {
    "plane": Concept(
        "EV-PLANE", "Evidence for plane", "name of TEXT", "Where the header says which plane the slices lie in."
    ),
    "sequence": Concept(
        "EV-SEQUENCE", "Evidence for sequence", "name of TEXT", "Where the header says which MR sequence this is."
    ),
    "slices": Concept(
        "EV-SLICES", "Evidence for volume", "name of TEXT", "How many slices of the series lie in one stack."
    ),
    "clinical": Concept(
        "EV-CLINICAL", "Evidence for clinical variables", "name of TEXT", "What came of an attribute of the patient."
    ),
}
ATTENTION_MAP: Final = Concept(
    "ATTENTION",
    "Attention of a model, share of the highest",
    "quantity of a Parametric Map, 0..1, unit 1 (UCUM)",
    "How much a place contributed to a model's answer; 1 is the highest of all slices that were read.",
)

ROWS: Final = (
    *OUTCOMES.values(),
    *CLASSES,
    *(LOW, HIGH, THRESHOLD, DECISION, ABOVE, BELOW, ORIGIN, FROM_IMAGE, SERIES, READ, TOTAL, ATTENTION),
    *(KNOWN, IMPUTED, NO_MAP, *EVIDENCE.values(), ATTENTION_MAP),
)
