"""What all parts of the checker that read a report's content tree share."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_templates import codes
from dicom_templates.identity import SIDE_WORDS, SYNTHETIC_MARK
from inference.findings import Side

_SIDES = {code.value: side for side, code in codes.SIDES.items()}


def children(item: Dataset, code_value: str) -> list[Dataset]:
    """The direct child items with this concept name."""
    return [child for child in item.get("ContentSequence", ()) if name_of(child) == code_value]


def code_of(item: Dataset) -> str:
    """The code value of a CODE item, empty when it has none."""
    values = item.get("ConceptCodeSequence")
    return str(values[0].get("CodeValue", "")) if values else ""


def referenced_uid(item: Dataset) -> str:
    """The SOP Instance UID that an IMAGE item refers to, empty when it refers to none."""
    references = item.get("ReferencedSOPSequence")
    return str(references[0].get("ReferencedSOPInstanceUID", "")) if references else ""


def algorithm(group: Dataset) -> Iterator[str]:
    """Who spoke, and that there is a picture of how."""
    for code_value, words in ((codes.ALGORITHM_NAME.value, "name"), (codes.ALGORITHM_VERSION.value, "version")):
        if not all(texts_of(group, code_value)) or not texts_of(group, code_value):
            yield f"has no algorithm {words}"
    families = [code_of(item) for item in children(group, codes.ALGORITHM_FAMILY.value)]
    if families != [codes.ARTIFICIAL_INTELLIGENCE.value]:
        yield "its algorithm family is not Artificial Intelligence"
    if not children(group, codes.VISUAL_EXPLANATION.value):
        yield "has no visual explanation (130401, DCM)"


def one_coded_side(group: Dataset) -> Iterator[str]:
    """The side must be one, and the same in code and in words."""
    sites = children(group, codes.FINDING_SITE.value)
    sides = [_SIDES.get(code_of(item)) for site in sites for item in children(site, codes.LATERALITY.value)]
    if len(sides) != 1 or sides[0] is None:
        yield f"its finding site has {len(sides)} known sides, must have one"
        return
    side: Side = sides[0]
    for code_value in (codes.TRACKING_IDENTIFIER.value, codes.RESULT_TEXT.value):
        texts = texts_of(group, code_value)
        if not texts:
            yield f"has no text {code_value} that names the side"
        for text in texts:
            if SIDE_WORDS[side] not in text or SIDE_WORDS[side.other] in text:
                yield f"its coded side is {SIDE_WORDS[side]}, its text {code_value} says {text!r}"


def marks(group: Dataset) -> Iterator[str]:
    """The research mark, and whether a stand-in spoke, in code and in words."""
    if [code_of(item) for item in children(group, codes.INTENDED_USE.value)] != [codes.RESEARCH_USE.value]:
        yield "does not carry the research mark"
    kinds = [code_of(item) for item in children(group, codes.MODEL_KIND.value)]
    if len(kinds) != 1:
        yield "does not say the kind of its model"
    says = any(SYNTHETIC_MARK in text for text in texts_of(group, codes.RESULT_TEXT.value))
    if (codes.MODEL_SYNTHETIC.value in kinds) != says:
        yield "its kind of model and its result in words disagree on whether the model is a stand-in"


def descendants(item: Dataset) -> Iterator[Dataset]:
    """All items below one."""
    for child in item.get("ContentSequence", ()):
        yield child
        yield from descendants(child)


def name_of(item: Dataset) -> str:
    """The code value of an item's concept name, empty when it has none."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def texts_of(item: Dataset, code_value: str) -> list[str]:
    """The values of TEXT children with this concept name."""
    return [str(child.get("TextValue", "")) for child in children(item, code_value)]


def number_of(item: Dataset) -> float:
    """The value of a NUM item, NaN when it has none."""
    measured = item.get("MeasuredValueSequence")
    return float(measured[0].NumericValue) if measured else float("nan")
