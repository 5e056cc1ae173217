"""Our own AI-results checker: what validators do not see, as sentences; an empty list means no complaint.

dciodvfy, dcentvfy and PixelMed's validator notice neither a missing device observer, nor an algorithm without version,
nor a missing research mark, nor a picture whose burned-in words differ from its codes. This does.
"""

from collections.abc import Iterator, Mapping, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
)

from dicom_templates import codes, mr_codes
from dicom_templates.card_drawing import FOUND, MORE
from dicom_templates.check_images import (
    burned_grade,
    burned_pain,
    burned_reasons,
    caption_of,
    is_card,
    picture_complaints,
)
from dicom_templates.check_mr import frames_complaints, map_complaints, volume_against
from dicom_templates.check_report import CARDLESS, pain_of, refusal_cards, report_complaints, set_of
from dicom_templates.check_tree import children, code_of, referenced_uid
from dicom_templates.identity import MANUFACTURER, RESEARCH
from dicom_templates.patient import COPIED, SPECIFIC_CHARACTER_SET, TYPE_2, raw_text
from dicom_templates.set_words import told_set
from inference.findings import Side


def check(dataset: Dataset) -> list[str]:
    """All complaints about one object of ours: report, heatmap, card, pictures or map of an MR series."""
    complaints = [*_common(dataset), *_codes(dataset)]
    if dataset.get("SOPClassUID") == Comprehensive3DSRStorage:
        complaints += report_complaints(dataset)
    elif dataset.get("SOPClassUID") == SecondaryCaptureImageStorage:
        complaints += picture_complaints(dataset)
    elif dataset.get("SOPClassUID") == MultiFrameTrueColorSecondaryCaptureImageStorage:
        complaints += frames_complaints(dataset)
    elif dataset.get("SOPClassUID") == ParametricMapStorage:
        complaints += map_complaints(dataset)
    else:
        complaints.append(f"SOP Class UID is {dataset.get('SOPClassUID')}, which Genu never writes")
    return complaints


def check_study(datasets: Sequence[Dataset]) -> list[str]:
    """All complaints about the objects of one study, each by itself and between them."""
    complaints = [complaint for dataset in datasets for complaint in check(dataset)]
    reports = [dataset for dataset in datasets if dataset.get("SOPClassUID") == Comprehensive3DSRStorage]
    pictures = _of_class(datasets, SecondaryCaptureImageStorage)
    frames = _of_class(datasets, MultiFrameTrueColorSecondaryCaptureImageStorage)
    maps = _of_class(datasets, ParametricMapStorage)
    for dataset in datasets[1:]:
        keywords = (SPECIFIC_CHARACTER_SET, *TYPE_2, "StudyInstanceUID")
        complaints += [
            f"{keyword} differs between objects of one study"
            for keyword in keywords
            if raw_text(dataset, keyword) != raw_text(datasets[0], keyword)
        ]
    for report in reports:
        complaints += _explanations(report, pictures)
        complaints += _volumes(report, frames, maps)
        complaints += _refusals(report, pictures)
    return complaints


def _of_class(datasets: Sequence[Dataset], sop_class_uid: str) -> dict[str, Dataset]:
    return {str(dataset.SOPInstanceUID): dataset for dataset in datasets if dataset.get("SOPClassUID") == sop_class_uid}


def compare_identity(dataset: Dataset, source: Dataset) -> list[str]:
    """Complaints where Patient and Study modules of an object are not, byte for byte, those of its source."""
    return [
        f"{keyword} is not the value of the source"
        for keyword in (SPECIFIC_CHARACTER_SET, *COPIED)
        if raw_text(dataset, keyword) != raw_text(source, keyword)
    ]


def _common(dataset: Dataset) -> Iterator[str]:
    if dataset.get("ContentQualification") != RESEARCH:
        yield f"Content Qualification is {dataset.get('ContentQualification')!r}, must be {RESEARCH}"
    if dataset.get("Manufacturer") != MANUFACTURER:
        yield f"Manufacturer is {dataset.get('Manufacturer')!r}, must be {MANUFACTURER}: own results are known by it"
    for keyword in ("ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber", "DeviceUID", "SeriesNumber"):
        if not dataset.get(keyword):
            yield f"{keyword} is missing or empty"
    if "RESEARCH" not in str(dataset.get("SeriesDescription", "")):
        yield "Series Description does not say RESEARCH"
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        if not str(dataset.get(keyword, "")).startswith("2.25."):
            yield f"{keyword} is {dataset.get(keyword)}, not a derived UID under 2.25"
    yield from (f"{keyword} (type 2) is missing" for keyword in TYPE_2 if keyword not in dataset)
    for number, item in enumerate(dataset.get("ContributingEquipmentSequence", ()), 1):
        for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID"):
            if not item.get(keyword):
                yield f"Contributing Equipment item {number} has no {keyword}"


def _codes(dataset: Dataset) -> Iterator[str]:
    """99GENU codes must stand in our table with the same meaning, and the scheme must be declared where it is used."""
    table = {concept.value: concept.meaning for concept in codes.TABLE}
    used = False
    for item in _coded_items(dataset):
        if item.get("CodingSchemeDesignator") == codes.SCHEME and "CodeValue" in item:
            used = True
            if table.get(str(item.CodeValue)) != item.get("CodeMeaning"):
                yield f"code ({item.CodeValue}, {codes.SCHEME}, {item.get('CodeMeaning')!r}) is not in the table"
    declared = [item.get("CodingSchemeDesignator") for item in dataset.get("CodingSchemeIdentificationSequence", ())]
    if used and codes.SCHEME not in declared:
        yield f"{codes.SCHEME} is used but not declared in the Coding Scheme Identification Sequence"


def _coded_items(dataset: Dataset) -> Iterator[Dataset]:
    for element in dataset:
        if element.VR == "SQ" and element.keyword != "CodingSchemeIdentificationSequence":
            for item in element.value:
                yield item
                yield from _coded_items(item)


def _explanations(report: Dataset, heatmaps: Mapping[str, Dataset]) -> Iterator[str]:
    """Each scored knee must have its heatmap among the objects, with the same side and the same grade."""
    for group in _groups(report):
        if children(group, mr_codes.ORIGIN.value):
            continue
        for item in children(group, codes.VISUAL_EXPLANATION.value):
            heatmap = heatmaps.get(referenced_uid(item))
            if heatmap is None:
                yield f"the report refers to the heatmap {referenced_uid(item)}, which is not among the objects"
                continue
            sites = children(group, codes.FINDING_SITE.value)
            sides = [code_of(side) for site in sites for side in children(site, codes.LATERALITY.value)]
            if sides != [codes.SIDES[Side(heatmap.Laterality)].value]:
                yield f"heatmap {heatmap.SOPInstanceUID} is of side {heatmap.Laterality}, its group of {sides}"
            grades = [code_of(grade) for grade in children(group, codes.KL_GRADE.value)]
            if grades != [f"KL-{burned_grade(heatmap)}"]:
                yield f"heatmap {heatmap.SOPInstanceUID} shows KL {burned_grade(heatmap)}, its group says {grades}"
            if (shown := told_set(str(heatmap.get("ImageComments") or ""))) != set_of(group):
                yield f"heatmap {heatmap.SOPInstanceUID} shows the set {shown}, its group says {set_of(group)}"
            told = tuple(f"{value:.1f}" for value in pain_of(group))
            if burned_pain(heatmap) != told:
                yield f"heatmap {heatmap.SOPInstanceUID} shows pain {burned_pain(heatmap)}, its group says {told}"


def _volumes(report: Dataset, frames: Mapping[str, Dataset], maps: Mapping[str, Dataset]) -> Iterator[str]:
    """Each result on an MR series must have its pictures and its map among the objects, and they no other group."""
    told = set()
    for group in _groups(report):
        if children(group, mr_codes.ORIGIN.value):
            told |= {referenced_uid(item) for item in children(group, codes.VISUAL_EXPLANATION.value)}
            yield from volume_against(group, frames, maps)
    yield from (f"no group of the report refers to {uid}" for uid in {**frames, **maps} if uid not in told)


def _groups(report: Dataset) -> Iterator[Dataset]:
    for part in children(report, codes.IMAGING_MEASUREMENTS.value):
        yield from children(part, codes.MEASUREMENT_GROUP.value)


def _refusals(report: Dataset, pictures: Mapping[str, Dataset]) -> Iterator[str]:
    """Each refusal must be told by its card, with the same knee and the same words, and each card by a refusal."""
    told = set()
    for container in (*_groups(report), *children(report, codes.QUALITATIVE_EVALUATIONS.value)):
        for item in refusal_cards(container):
            card = pictures.get(referenced_uid(item))
            if card is None or not is_card(card):
                yield f"the report refers to the card {referenced_uid(item)}, which is not among the objects"
                continue
            told.add(str(card.SOPInstanceUID))
            yield from _card_against(container, card)
    for uid, picture in pictures.items():
        if is_card(picture) and uid not in told:
            yield f"no refusal of the report refers to the card {uid}"


def _card_against(container: Dataset, card: Dataset) -> Iterator[str]:
    """Complaints where a card does not say what a container says; what did not fit onto the card is not missed."""
    if any(line.startswith(MORE) for line in caption_of(card)):
        return
    sites = children(container, codes.FINDING_SITE.value)
    sides = [code_of(side) for site in sites for side in children(site, codes.LATERALITY.value)]
    is_group = bool(children(container, codes.REFUSAL_EXTENT.value))  # only groups have sites
    burned = {
        (codes.REFUSALS[code].value, codes.SIDES[side].value if side is not None and is_group else None)
        for side, code in burned_reasons(card)
        if code is not None
    }
    found = [line.removeprefix(FOUND).casefold() for line in caption_of(card) if line.startswith(FOUND)]
    reasons, texts = (children(container, concept.value) for concept in (codes.REFUSAL, codes.REFUSAL_TEXT))
    for reason, text in zip(reasons, texts, strict=False):
        if not is_group and code_of(reason) == CARDLESS:
            continue
        if (code_of(reason), sides[0] if sides else None) not in burned:
            yield f"card {card.SOPInstanceUID} does not say {code_of(reason)} of sides {sides}, as the report does"
        words = str(text.TextValue).casefold()
        if not any(sentence[:900] in words for sentence in found):  # both are cut at 1024, the report's with a prefix
            yield f"card {card.SOPInstanceUID} does not say what the report says: {text.TextValue!r}"
