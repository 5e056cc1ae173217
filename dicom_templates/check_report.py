"""The part of the checker that reads a report's content tree."""

import re
from collections.abc import Callable, Iterator

from pydicom.dataset import Dataset

from dicom_templates import codes, mr_codes
from dicom_templates.check_mr import group_complaints
from dicom_templates.check_tree import (
    algorithm,
    children,
    code_of,
    descendants,
    marks,
    name_of,
    number_of,
    one_coded_side,
    referenced_uid,
    texts_of,
)
from dicom_templates.pain import ORIGIN
from dicom_templates.set_words import told_set
from inference.findings import RefusalCode

CARDLESS = codes.REFUSALS[RefusalCode.UNSUPPORTED_SOP_CLASS].value  # objects that are no radiographs have no card
_FORBIDDEN = "osteoarthritis"
_OBSERVER = {
    codes.OBSERVER_TYPE.value: "observer type",
    codes.DEVICE_UID.value: "device observer UID",
    codes.DEVICE_NAME.value: "device observer name",
    codes.DEVICE_MANUFACTURER.value: "device observer manufacturer",
    codes.DEVICE_MODEL.value: "device observer model name",
}
_REPORTED_PAIN = "72514-3"  # LOINC, pain severity 0-10 as reported
_MILLIMETRES = re.compile(r"\d ?mm\b")


def refusal_cards(container: Dataset) -> list[Dataset]:
    """The IMAGE items that refer to refusal cards: one name in groups, another in the qualitative evaluations."""
    return [*children(container, codes.ILLUSTRATION.value), *children(container, codes.REFUSAL_CARD.value)]


def report_complaints(report: Dataset) -> list[str]:
    """All complaints about the document and its content tree."""
    measurements = children(report, codes.IMAGING_MEASUREMENTS.value)
    groups = [group for part in measurements for group in children(part, codes.MEASUREMENT_GROUP.value)]
    complaints = [*_document(report), *_references(report)]
    for number, group in enumerate(groups, 1):
        kind = _kind(group)
        complaints += [f"group {number}: {complaint}" for complaint in (*_region(group), *kind(group))]
        complaints += [f"group {number}: {complaint}" for complaint in _equipment(report, group)]
    for container in children(report, codes.QUALITATIVE_EVALUATIONS.value):
        complaints += [f"qualitative evaluations: {complaint}" for complaint in _refusal(container)]
    if not groups and not children(report, codes.QUALITATIVE_EVALUATIONS.value):
        complaints.append("the report holds neither a measurement group nor qualitative evaluations")
    return complaints


def _kind(group: Dataset) -> Callable[[Dataset], Iterator[str]]:
    """What a group is checked for: a graded knee, a result on an MR series, a refusal."""
    if children(group, codes.KL_GRADE.value):
        return _knee
    return group_complaints if children(group, mr_codes.ORIGIN.value) else _refusal


def _document(report: Dataset) -> Iterator[str]:
    flags = {"CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED", "PreliminaryFlag": "PRELIMINARY"}
    for keyword, value in flags.items():
        if report.get(keyword) != value:
            yield f"{keyword} is {report.get(keyword)!r}, must be {value}"
    if name_of(report) != codes.IMAGING_REPORT.value:
        yield f"the title is {name_of(report)!r}, must be {codes.IMAGING_REPORT.value}"
    templates = report.get("ContentTemplateSequence")
    if not templates or templates[0].get("TemplateIdentifier") != "1500":
        yield "Content Template Sequence does not name template 1500"
    for code_value, words in _OBSERVER.items():
        if not children(report, code_value):
            yield f"there is no {words} ({code_value}, DCM)"
    if [code_of(item) for item in children(report, codes.OBSERVER_TYPE.value)] != [codes.DEVICE.value]:
        yield "the observer is not one device"
    if not children(report, codes.PROCEDURE_REPORTED.value):
        yield "there is no procedure reported (121058, DCM)"


def _region(group: Dataset) -> Iterator[str]:
    """Viewers need exactly one region with its source image, and a tracking UID, in every group."""
    regions = [child for child in group.get("ContentSequence", ()) if child.get("ValueType") == "SCOORD"]
    if len(regions) != 1:
        yield f"has {len(regions)} regions (SCOORD), must have one"
    for region in regions:
        if not [child for child in region.get("ContentSequence", ()) if referenced_uid(child)]:
            yield "its region is not selected from an image"
    if not texts_of(group, codes.TRACKING_IDENTIFIER.value):
        yield "has no tracking identifier"
    if not [item for item in children(group, "112040") if item.get("UID")]:
        yield "has no tracking unique identifier"


def _knee(group: Dataset) -> Iterator[str]:
    yield from algorithm(group)
    grades = [code_of(item) for item in children(group, codes.KL_GRADE.value)]
    if len(grades) != 1:
        yield f"has {len(grades)} grades, must have one"
    yield from _probabilities(group)
    yield from _pain(group)
    yield from one_coded_side(group)
    yield from marks(group)
    yield from _lengths(group)
    for text in texts_of(group, codes.RESULT_TEXT.value):
        if f"KL {grades[0].removeprefix('KL-')} " not in text:
            yield f"its result in words does not say the coded grade {grades[0]}: {text!r}"
    yield from _set(group, grades[0])
    if grades[0] in {"KL-0", "KL-1"} and any(_FORBIDDEN in words.lower() for words in _words(group)):
        yield f"says {_FORBIDDEN!r} for {grades[0]}"


def set_of(group: Dataset) -> tuple[int, ...]:
    """The coded grades of a knee's conformal set, in order; empty without one."""
    values = {concept.value: grade for grade, concept in enumerate(codes.KL_GRADES)}
    return tuple(sorted(values.get(code_of(item), -1) for item in children(group, codes.KL_SET.value)))


def _set(group: Dataset, grade: str) -> Iterator[str]:
    """Neighbouring grades with the reported one among them, the same in words."""
    coded = set_of(group)
    reported = [number for number, concept in enumerate(codes.KL_GRADES) if concept.value == grade]
    if coded and (coded != tuple(range(coded[0], coded[-1] + 1)) or not set(reported) <= set(coded)):
        yield f"its conformal set is {coded}, must be neighbouring grades with {grade} among them"
    for text in texts_of(group, codes.RESULT_TEXT.value):
        if told_set(text) != coded:
            yield f"its result in words does not say the coded conformal set {coded}: {text!r}"


def _probabilities(group: Dataset) -> Iterator[str]:
    values = [number_of(item) for concept in codes.KL_PROBABILITIES for item in children(group, concept.value)]
    if len(values) != len(codes.KL_PROBABILITIES) or abs(sum(values) - 1.0) > 0.001:
        yield f"its probabilities are {values}, must be five that sum to 1"
    expected = [number_of(item) for item in children(group, codes.KL_EXPECTED.value)]
    if len(expected) != 1 or not 0.0 <= expected[0] <= 4.0:
        yield f"its expected grade is {expected}, must be one number in 0..4"


def pain_of(group: Dataset) -> tuple[float, ...]:
    """Score, low and high of a knee's group; empty without a prediction of pain."""
    concepts = (codes.PAIN, codes.PAIN_LOW, codes.PAIN_HIGH)
    return tuple(number_of(item) for concept in concepts for item in children(group, concept.value))


def _pain(group: Dataset) -> Iterator[str]:
    """A score within its interval, both within 0..10, by a named algorithm, and nowhere without its origin."""
    values = pain_of(group)
    origins = [code_of(item) for item in children(group, codes.PAIN_ORIGIN.value)]
    texts = texts_of(group, codes.RESULT_TEXT.value)
    if any(name_of(item) == _REPORTED_PAIN for item in descendants(group)):
        yield f"names a value ({_REPORTED_PAIN}, LN): that is a score that a patient gave"
    if not values:
        if origins or any(ORIGIN in text for text in texts):
            yield "tells the origin of a pain score, and there is none"
        return
    if len(values) != 3 or not 0.0 <= values[1] <= values[0] <= values[2] <= 10.0:
        yield f"its pain score with the limits of its interval is {values}, must be three numbers in order in 0..10"
    if origins != [codes.PAIN_FROM_IMAGE.value]:
        yield "does not say in code that its pain score is predicted from the image"
    if len(values) == 3 and not all(f"{values[0]:.1f} of 10" in text and ORIGIN in text for text in texts):
        yield f"its result in words does not say the pain score {values[0]:.1f}, or not {ORIGIN!r}"
    for score in children(group, codes.PAIN.value):
        for code_value, words in ((codes.ALGORITHM_NAME.value, "name"), (codes.ALGORITHM_VERSION.value, "version")):
            if not all(texts_of(score, code_value)) or not texts_of(score, code_value):
                yield f"its pain score has no algorithm {words}"
        if not any("coverage" in text for text in texts_of(score, codes.ALGORITHM_PARAMETERS.value)):
            yield "its pain score does not tell the coverage of its interval"


def _lengths(group: Dataset) -> Iterator[str]:
    """Millimetres stand in the one sentence on pixel spacing only, which says where they hold."""
    spacings = texts_of(group, codes.PIXEL_SPACING.value)
    if len(spacings) > 1:
        yield f"has {len(spacings)} sentences on pixel spacing, at most one is right"
    for item in descendants(group):
        units = [unit for value in item.get("MeasuredValueSequence", ()) for unit in value.MeasurementUnitsCodeSequence]
        lengths = [str(unit.CodeValue) for unit in units if str(unit.CodeValue) in {"mm", "cm", "um", "m"}]
        said = name_of(item) != codes.PIXEL_SPACING.value and _MILLIMETRES.search(str(item.get("TextValue", "")))
        if lengths or said:
            yield f"gives a length ({name_of(item)}), but nothing is measured in millimetres"


def _refusal(container: Dataset) -> Iterator[str]:
    reasons = [code_of(item) for item in children(container, codes.REFUSAL.value)]
    if not reasons:
        yield "holds neither a grade nor a reason for not scoring"
    if len(texts_of(container, codes.REFUSAL_TEXT.value)) != len(reasons):
        yield "has not one sentence for each reason for not scoring"
    if set(reasons) - {CARDLESS} and not refusal_cards(container):
        yield "refers to no refusal card"
    if [code_of(item) for item in children(container, codes.INTENDED_USE.value)] != [codes.RESEARCH_USE.value]:
        yield "does not carry the research mark"


def _equipment(report: Dataset, group: Dataset) -> Iterator[str]:
    """The algorithm of each group must stand in the Contributing Equipment Sequence too (IHE AI Results)."""
    known = {
        (str(item.get("ManufacturerModelName")), str(item.get("SoftwareVersions")))
        for item in report.get("ContributingEquipmentSequence", ())
    }
    for item in (group, *children(group, codes.PAIN.value)):
        names, versions = texts_of(item, codes.ALGORITHM_NAME.value), texts_of(item, codes.ALGORITHM_VERSION.value)
        for named in zip(names, versions, strict=False):
            if named not in known:
                yield f"its algorithm {named} is not in the Contributing Equipment Sequence"


def _references(report: Dataset) -> Iterator[str]:
    """All instances that the tree refers to must stand in the evidence (PS3.3 C.17.2)."""
    known = {
        str(instance.ReferencedSOPInstanceUID)
        for study in report.get("CurrentRequestedProcedureEvidenceSequence", ())
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    for item in descendants(report):
        uid = referenced_uid(item)
        if uid and uid not in known:
            yield f"the tree refers to {uid}, which is not in the evidence"


def _words(group: Dataset) -> Iterator[str]:
    """All words in a group: texts and the meanings of names and values."""
    for item in descendants(group):
        yield str(item.get("TextValue", ""))
        for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
            yield from (str(code.get("CodeMeaning", "")) for code in item.get(keyword, ()))
