"""Our own AI-results checker: what validators do not see, as sentences; an empty list means no complaint.

dciodvfy, dcentvfy and PixelMed's validator notice neither a missing device observer, nor an algorithm without version,
nor a missing research mark, nor a heatmap whose burned-in side differs from its coded side. This does. The caption that
Image Comments claims is drawn again and compared with the pixels, so a caption cannot say one thing and show another.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage

from dicom_templates import codes
from dicom_templates.check_report import children, code_of, referenced_uid, report_complaints
from dicom_templates.drawing import caption_band
from dicom_templates.heatmap import CAPTION_SEPARATOR
from dicom_templates.identity import MANUFACTURER, RESEARCH, RESEARCH_MARK, SIDE_WORDS, SYNTHETIC_MARK
from dicom_templates.patient import COPIED, SPECIFIC_CHARACTER_SET, TYPE_2, raw_text
from inference.findings import Side

# What Genu's captions say of themselves: a patient may be called Knee, Right or Model, and have an ID like a digest.
_OWN_WORDING = re.compile(
    r"(?:RIGHT|LEFT) KNEE   KL [0-4]   probability [01]\.[0-9]{2}"
    r"|Kellgren-Lawrence grade [0-4], expected grade [0-4]\.[0-9]{2}, predicted by a model from the image"
    rf"|Model (?=\S+ \S+, bundle)|, bundle [0-9a-f]{{12}}|{re.escape(RESEARCH_MARK)}|{re.escape(SYNTHETIC_MARK)}"
)


def check(dataset: Dataset) -> list[str]:
    """All complaints about one object of ours, report or heatmap."""
    complaints = [*_common(dataset), *_codes(dataset)]
    if dataset.get("SOPClassUID") == Comprehensive3DSRStorage:
        complaints += report_complaints(dataset)
    elif dataset.get("SOPClassUID") == SecondaryCaptureImageStorage:
        complaints += _heatmap(dataset)
    else:
        complaints.append(f"SOP Class UID is {dataset.get('SOPClassUID')}, which Genu never writes")
    return complaints


def check_study(datasets: Sequence[Dataset]) -> list[str]:
    """All complaints about the objects of one study, each by itself and between them."""
    complaints = [complaint for dataset in datasets for complaint in check(dataset)]
    reports = [dataset for dataset in datasets if dataset.get("SOPClassUID") == Comprehensive3DSRStorage]
    heatmaps = {str(d.SOPInstanceUID): d for d in datasets if d.get("SOPClassUID") == SecondaryCaptureImageStorage}
    for dataset in datasets[1:]:
        keywords = (SPECIFIC_CHARACTER_SET, *TYPE_2, "StudyInstanceUID")
        complaints += [
            f"{keyword} differs between objects of one study"
            for keyword in keywords
            if raw_text(dataset, keyword) != raw_text(datasets[0], keyword)
        ]
    for report in reports:
        complaints += _explanations(report, heatmaps)
    return complaints


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


def _heatmap(dataset: Dataset) -> Iterator[str]:
    expected = {"BurnedInAnnotation": "YES", "RecognizableVisualFeatures": "NO", "ConversionType": "WSD"}
    for keyword, value in expected.items():
        if dataset.get(keyword) != value:
            yield f"{keyword} is {dataset.get(keyword)!r}, must be {value}"
    if list(dataset.get("ImageType") or [])[:2] != ["DERIVED", "SECONDARY"]:
        yield f"Image Type is {dataset.get('ImageType')}, must begin with DERIVED, SECONDARY"
    methods = {code.value for code in codes.SALIENCY_METHODS.values()}
    derivations = {item.get("CodeValue") for item in dataset.get("DerivationCodeSequence", ())}
    if not derivations & methods:
        yield f"Derivation Code Sequence holds {sorted(map(str, derivations))}, none of CID 217 {sorted(methods)}"
    if not dataset.get("SourceImageSequence"):
        yield "Source Image Sequence is missing or empty"
    if not dataset.get("ContributingEquipmentSequence"):
        yield "Contributing Equipment Sequence names no algorithm"
    if "PixelSpacing" in dataset:
        yield "Pixel Spacing is present, but a scaled picture with a caption has none"
    if dataset.get("LossyImageCompression") not in {"00", "01"}:
        yield "Lossy Image Compression is missing: it must be kept from the source"
    yield from _caption(dataset)


def _stands_in(part: str, text: str) -> bool:
    """As a word of its own; initials tell nothing."""
    return len(part) > 2 and re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


def _caption(dataset: Dataset) -> Iterator[str]:
    """The side and the marks must be the same in code, in text and in the pixels."""
    caption = str(dataset.get("ImageComments") or "")
    if dataset.get("Laterality") not in set(Side):
        yield f"Laterality is {dataset.get('Laterality')!r}, must be R or L"
        return
    side = Side(dataset.Laterality)
    texts = {
        "Image Comments (the caption)": caption,
        "Derivation Description": str(dataset.get("DerivationDescription") or ""),
        "Series Description": str(dataset.get("SeriesDescription") or ""),
    }
    for name, text in texts.items():
        if SIDE_WORDS[side] not in text or SIDE_WORDS[side.other] in text:
            yield f"{name} does not name the side {SIDE_WORDS[side]} of Laterality {side.value}: {text!r}"
    if RESEARCH_MARK not in caption:
        yield f"the caption does not say {RESEARCH_MARK!r}"
    if _is_synthetic(dataset) and SYNTHETIC_MARK not in caption:
        yield f"the model is a stand-in but the caption does not say {SYNTHETIC_MARK!r}"
    if burned_grade(dataset) is None:
        yield "the caption names no grade 'KL 0' to 'KL 4'"
    for keyword in ("PatientID", "PatientName"):
        value = raw_text(dataset, keyword).decode("ascii", "replace")
        if any(_stands_in(part, _OWN_WORDING.sub("", caption)) for part in (value, *value.split("^"))):
            yield f"the caption holds the value of {keyword}"
    if not _burned_in(dataset, caption.split(CAPTION_SEPARATOR)):
        yield "the pixels do not show the caption that Image Comments gives"


def burned_grade(heatmap: Dataset) -> int | None:
    """The grade that the caption of a heatmap names, None when it names none."""
    caption = str(heatmap.get("ImageComments") or "")
    grades = [grade for grade in range(5) if f"KL {grade} " in caption]
    return grades[0] if len(grades) == 1 else None


def _burned_in(dataset: Dataset, lines: Sequence[str]) -> bool:
    """Whether the lowest rows of the picture are this caption, drawn again."""
    rows, columns = int(dataset.get("Rows", 0)), int(dataset.get("Columns", 0))
    data = dataset.get("PixelData", b"")
    if not rows or not columns or len(data) < rows * columns * 3:
        return False
    pixels = np.frombuffer(data, dtype=np.uint8, count=rows * columns * 3).reshape(rows, columns, 3)
    band = caption_band(lines, columns)
    return band.shape[0] <= rows and bool(np.array_equal(pixels[rows - band.shape[0] :], band))


def _is_synthetic(dataset: Dataset) -> bool:
    items = dataset.get("ContributingEquipmentSequence", ())
    return any(SYNTHETIC_MARK in str(item.get("ContributionDescription", "")) for item in items)


def _explanations(report: Dataset, heatmaps: dict[str, Dataset]) -> Iterator[str]:
    """Each scored knee must have its heatmap among the objects, with the same side and the same grade."""
    measurements = children(report, codes.IMAGING_MEASUREMENTS.value)
    for group in (group for part in measurements for group in children(part, codes.MEASUREMENT_GROUP.value)):
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
