"""Every coded concept that Genu writes, in one table.

The private scheme 99GENU (PS3.16 section 8: designators that begin with 99 are private) is declared in the Coding
Scheme Identification Sequence of each report. Its code values are a published contract: a value is never given a new
meaning, only retired. The documentation is made from this table: `python -m dicom_templates.codes > docs/codes.md`.
"""

import sys

from pydicom.sr.coding import Code

from dicom_templates import mr_codes
from dicom_templates.concept import SCHEME as _SCHEME
from dicom_templates.concept import Concept
from dicom_templates.refusal_rows import MR_REMEDIES, REFUSAL_ROWS
from inference.findings import Side

SCHEME = _SCHEME
SCHEME_NAME = "Genu knee scoring, private codes"
SCHEME_VERSION = "1"
SCHEME_ORGANIZATION = "Genu"
SCHEME_UID = "2.25.335302491508763478046820237943478845436"


_GRADE_WORDS = ("none", "doubtful", "minimal", "moderate", "severe")
_GRADE_DEFINITIONS = (
    "No osteophytes and no joint space narrowing.",
    "Possible osteophytic lipping, doubtful joint space narrowing.",
    "Definite osteophytes, possible joint space narrowing.",
    "Multiple moderate osteophytes, definite narrowing, some sclerosis, possible deformity.",
    "Large osteophytes, marked narrowing, severe sclerosis, definite deformity.",
)

KL_GRADE = Concept(
    "KL-GRADE",
    "Kellgren-Lawrence grade",
    "name of CODE",
    "Kellgren-Lawrence grade of one knee, predicted by a model from a frontal radiograph; not read by a person.",
)
KL_GRADES = tuple(
    Concept(f"KL-{grade}", f"Kellgren-Lawrence grade {grade} ({_GRADE_WORDS[grade]})", "value of CODE", definition)
    for grade, definition in enumerate(_GRADE_DEFINITIONS)
)
KL_PROBABILITIES = tuple(
    Concept(
        f"KL-P{grade}",
        f"Probability of Kellgren-Lawrence grade {grade}",
        "name of NUM, 0..1, unit 1 (UCUM)",
        f"Calibrated probability that the grade is {grade}; the five probabilities of a knee sum to 1.",
    )
    for grade in range(5)
)
KL_EXPECTED = Concept(
    "KL-EXPECTED",
    "Expected Kellgren-Lawrence grade",
    "name of NUM, 0..4, unit 1 (UCUM)",
    "Mean of the grades weighted by their probabilities.",
)
KL_SET = Concept(
    "KL-SET",
    "Grade in conformal prediction set",
    "name of CODE",
    "One item for each grade in the conformal set of the model; its coverage stands in the algorithm parameters.",
)
PAIN = Concept(
    "PAIN-PREDICTED",
    "Predicted pain",
    "name of NUM, 0..10, unit {score:0-10} (UCUM)",
    "Pain of one knee, 0 none to 10 worst, as a model predicts it from a radiograph; never what a patient reported.",
)
PAIN_LOW = Concept(
    "PAIN-LOW",
    "Predicted pain, lower limit of interval",
    "name of NUM, 0..10, unit {score:0-10} (UCUM)",
    "Lower limit of the prediction interval; its coverage and method stand in the algorithm parameters of the score.",
)
PAIN_HIGH = Concept(
    "PAIN-HIGH",
    "Predicted pain, upper limit of interval",
    "name of NUM, 0..10, unit {score:0-10} (UCUM)",
    "Upper limit of the prediction interval; its coverage and method stand in the algorithm parameters of the score.",
)
PAIN_ORIGIN = Concept("PAIN-ORIGIN", "Origin of pain score", "name of CODE", "Who or what the pain score comes from.")
PAIN_FROM_IMAGE = Concept(
    "PAIN-FROM-IMAGE",
    "Predicted from image, not patient-reported",
    "value of CODE",
    "A model's prediction from the image; nobody asked the patient.",
)
RESULT_TEXT = Concept(
    "RESULT-TEXT",
    "Result in words",
    "name of TEXT",
    "One sentence with the side in words, for viewers that show neither codes nor overlays.",
)

EVIDENCE = {
    "anatomy": Concept(
        "EV-ANATOMY", "Evidence for anatomy", "name of TEXT", "Where the header or the pixels say that this is a knee."
    ),
    "view": Concept(
        "EV-VIEW", "Evidence for view", "name of TEXT", "Where the header or the pixels say which projection this is."
    ),
    "side": Concept(
        "EV-SIDE", "Evidence for side", "name of TEXT", "Where the header or the pixels say which knee this is."
    ),
    **mr_codes.EVIDENCE,
}

PIXEL_SPACING = Concept(
    "PIXEL-SPACING",
    "Pixel spacing and its origin",
    "name of TEXT",
    "What the header of the source says of the size of a pixel: in the patient, at the detector, or of unknown origin.",
)

INTENDED_USE = Concept("USE", "Intended use of result", "name of CODE", "What the result may be used for.")
RESEARCH_USE = Concept(
    "USE-RESEARCH",
    "AI - RESEARCH - NOT FOR DIAGNOSIS",
    "value of CODE",
    "Made by research software that is not a medical device; not to be used for diagnosis or treatment.",
)
MODEL_KIND = Concept("MODEL-KIND", "Kind of model", "name of CODE", "Whether the model was trained on real images.")
MODEL_TRAINED = Concept("MODEL-TRAINED", "Trained on real images", "value of CODE", "Trained on labelled real images.")
MODEL_SYNTHETIC = Concept(
    "MODEL-SYNTH",
    "SYNTHETIC MODEL - NOT A RESULT",
    "value of CODE",
    "Random or synthetic stand-in weights, to test the way of the data; what it says means nothing.",
)

REFUSAL = Concept(
    "REFUSAL", "Reason for not scoring", "name of CODE", "Why a study, an image or a knee was not scored."
)
REFUSAL_TEXT = Concept(
    "REFUSAL-TEXT",
    "Reason for not scoring in words",
    "name of TEXT",
    "The reason as a sentence, with the values found.",
)
REFUSAL_CARD = Concept(
    "REFUSAL-CARD",
    "Picture of reasons for not scoring",
    "name of IMAGE",
    "The card of refusals without an image; those on an image have it as (121200, DCM) of their region.",
)
REFUSAL_EXTENT = Concept("EXTENT", "Extent of refusal", "name of CODE", "To what the refusal applies.")
EXTENT_STUDY = Concept("EXTENT-STUDY", "Whole study not scored", "value of CODE", "The refusal concerns the study.")
EXTENT_IMAGE = Concept("EXTENT-IMAGE", "Image not scored", "value of CODE", "The refusal concerns one image.")
EXTENT_KNEE = Concept("EXTENT-KNEE", "Knee not scored", "value of CODE", "The refusal concerns one knee of an image.")

REFUSALS = {
    code: Concept(value, meaning, "value of CODE", definition)
    for code, (value, meaning, definition, _) in REFUSAL_ROWS.items()
}
REMEDIES = {code: remedy for code, (_, _, _, remedy) in REFUSAL_ROWS.items()}  # what a refusal card advises
SERIES_REMEDIES = {**REMEDIES, **MR_REMEDIES}  # the same for a series of MR images

TABLE: tuple[Concept, ...] = (
    KL_GRADE,
    *KL_GRADES,
    *KL_PROBABILITIES,
    KL_EXPECTED,
    KL_SET,
    PAIN,
    PAIN_LOW,
    PAIN_HIGH,
    PAIN_ORIGIN,
    PAIN_FROM_IMAGE,
    RESULT_TEXT,
    *(EVIDENCE[about] for about in ("anatomy", "view", "side")),
    PIXEL_SPACING,
    INTENDED_USE,
    RESEARCH_USE,
    MODEL_KIND,
    MODEL_TRAINED,
    MODEL_SYNTHETIC,
    REFUSAL,
    REFUSAL_TEXT,
    REFUSAL_CARD,
    REFUSAL_EXTENT,
    EXTENT_STUDY,
    EXTENT_IMAGE,
    EXTENT_KNEE,
    mr_codes.EXTENT,
    *REFUSALS.values(),
    *mr_codes.ROWS,
)

# Standard concepts, each with the template or context group of PS3.16 that it is taken from.
IMAGING_REPORT = Code("126000", "DCM", "Imaging Measurement Report")  # CID 7021
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")  # TID 1500
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")  # TID 1410
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")  # TID 1500
MRI = Code("25056-3", "LN", "MRI unspecified body region")  # CID 100
RADIOGRAPHY = Code("363679005", "SCT", "Imaging procedure")  # CID 100; stands for XR, (43468-8, LN) fails in PixelMed
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")  # TID 1600
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")  # TID 1600
SOURCE_IMAGE = Code("260753009", "SCT", "Source")  # TID 1601
MODALITY = Code("121139", "DCM", "Modality")  # TID 1602
PIXEL_ROWS = Code("110910", "DCM", "Pixel Data Rows")  # TID 1602
PIXEL_COLUMNS = Code("110911", "DCM", "Pixel Data Columns")  # TID 1602
VISUAL_EXPLANATION = Code("130401", "DCM", "Visual explanation")  # TID 1410
ILLUSTRATION = Code("121200", "DCM", "Illustration of ROI")  # TID 1410 row 9, CID 7003; 130401 is for what a model saw
BOUNDED_BY = Code("75958009", "SCT", "Bounded by")  # CID 219
KNEE_JOINT = Code("49076000", "SCT", "Knee joint")  # finding site
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")  # CID 7162
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")  # CID 7005
SOURCE_FOR_PROCESSING = Code("121322", "DCM", "Source image for image processing operation")  # CID 7202
IMAGE_REGION = Code("111030", "DCM", "Image Region")  # TID 1410
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
LATERALITY = Code("272741003", "SCT", "Laterality")
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")  # TID 4108
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")  # TID 4019
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")  # TID 4019
ALGORITHM_PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")  # TID 4019
ALGORITHM_FAMILY = Code("111000", "DCM", "Algorithm Family")  # TID 4019
OBSERVER_TYPE = Code("121005", "DCM", "Observer Type")  # TID 1002
DEVICE = Code("121007", "DCM", "Device")  # CID 270
DEVICE_UID = Code("121012", "DCM", "Device Observer UID")  # TID 1004
DEVICE_NAME = Code("121013", "DCM", "Device Observer Name")  # TID 1004
DEVICE_MANUFACTURER = Code("121014", "DCM", "Device Observer Manufacturer")  # TID 1004
DEVICE_MODEL = Code("121015", "DCM", "Device Observer Model Name")  # TID 1004
DEVICE_SERIAL = Code("121016", "DCM", "Device Observer Serial Number")  # TID 1004
NO_UNITS = Code("1", "UCUM", "no units")
PIXELS = Code("{pixels}", "UCUM", "pixels")
SLICES = Code("{slices}", "UCUM", "slices")
POINTS = Code("{score:0-10}", "UCUM", "points of 10")

SIDES = {
    Side.RIGHT: Code("24028007", "SCT", "Right"),  # CID 244
    Side.LEFT: Code("7771000", "SCT", "Left"),
}
SALIENCY_METHODS = {  # CID 217
    "class-activation": Code("130402", "DCM", "Class activation"),
    "grad-cam": Code("130403", "DCM", "Gradient-weighted class activation"),
    "saliency": Code("130404", "DCM", "Saliency"),
}
MODALITIES = {  # CID 29
    "CR": Code("CR", "DCM", "Computed Radiography"),
    "DX": Code("DX", "DCM", "Digital Radiography"),
    "MR": Code("MR", "DCM", "Magnetic Resonance"),
    "CT": Code("CT", "DCM", "Computed Tomography"),
    "OT": Code("OT", "DCM", "Other Modality"),
}


def markdown() -> str:
    """The private table as the Markdown page docs/codes.md."""
    lines = [
        f"# The private coding scheme {SCHEME}",
        "",
        "Made from `dicom_templates/codes.py` by `python -m dicom_templates.codes > docs/codes.md`; do not edit.",
        "",
        "There is no standard code for these concepts in the usual dictionaries. Each report declares the scheme in",
        "its Coding Scheme Identification Sequence (0008,0110):",
        "",
        f"- designator `{SCHEME}`, version `{SCHEME_VERSION}`, name `{SCHEME_NAME}`",
        f"- UID `{SCHEME_UID}`, responsible organization `{SCHEME_ORGANIZATION}`",
        "",
        "A value is never given a new meaning. All results are predictions of a model from the image.",
        "",
        "| Code value | Code meaning | Used as | Definition |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{row.value}` | {row.meaning} | {row.used_as} | {row.definition} |" for row in TABLE]
    lines += [
        "",
        "The reasons `R-...` are the refusal codes of `results.jsonl`. A refusal card says what to do about each:",
        "",
        "| Code value | In results.jsonl | What the card advises |",
        "|---|---|---|",
    ]
    lines += [f"| `{row.value}` | `{code.value}` | {REMEDIES[code]} |" for code, row in REFUSALS.items()]
    lines += ["", "Of a series of MR images it says instead:", ""]
    lines += ["| Code value | In results.jsonl | What the card advises |", "|---|---|---|"]
    lines += [f"| `{REFUSALS[code].value}` | `{code.value}` | {remedy} |" for code, remedy in MR_REMEDIES.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
