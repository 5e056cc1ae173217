"""The part of the checker that reads results on MR series: their groups, their pictures, their maps.

The words that Image Comments claims are drawn again for every frame and compared with the pixels; a map must lie on the
images that it names.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_templates import codes, mr_codes
from dicom_templates.capture import CAPTION_SEPARATOR
from dicom_templates.check_images import derivation, is_synthetic, named_in, one_side, picture_basics
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
from dicom_templates.identity import RESEARCH_MARK, SYNTHETIC_MARK
from dicom_templates.mr_drawing import frame_band, slice_line
from dicom_templates.mr_frames import SHARES
from dicom_templates.mr_words import NOT_MEASURED, NOT_REPORTED
from dicom_templates.parametric_map import is_uid
from inference.findings import Side

_PAGES: Final = Tag("PageNumberVector")
_FORBIDDEN: Final = "osteoarthritis"
_PROBABILITIES: Final = tuple(concept.value for concept in (*mr_codes.OUTCOMES.values(), *mr_codes.CLASSES))
_ORIGINS: Final = {mr_codes.FROM_IMAGE.value: NOT_MEASURED, codes.PAIN_FROM_IMAGE.value: NOT_REPORTED}
_TOLD: Final = re.compile(r"probability ([01]\.[0-9]{2}) \(([01]\.[0-9]{2}) to ([01]\.[0-9]{2})\)")
_READ: Final = re.compile(r".+, ([0-9]+) of ([0-9]+) slices read")
# Lengths that a result may name: what the outcome is, and clinical variables.
_DEFINED: Final = re.compile(r"(narrowing )?of 0\.5 mm")
_MILLIMETRES: Final = re.compile(r"\d ?mm\b")
_OWN_WORDING: Final = re.compile(  # what the captions say of themselves, whatever a patient is called
    rf"^(?:RIGHT|LEFT) KNEE   {_TOLD.pattern}$|^.*, (?:{NOT_MEASURED}|{NOT_REPORTED})$|^The probability is .*$"
    rf"|^{_READ.pattern}$|^Model (?=\S+ \S+, bundle)|, bundle [0-9a-f]{{12}}$|^{SHARES}[0-9.: ]*$"
    rf"|^{re.escape(RESEARCH_MARK)}$|^{re.escape(SYNTHETIC_MARK)}$",
    re.MULTILINE,
)
_CLINICAL: Final = {mr_codes.KNOWN.value, mr_codes.IMPUTED.value, mr_codes.EVIDENCE["clinical"].value}


def group_complaints(group: Dataset) -> Iterator[str]:
    """Complaints about one group of the report."""
    yield from algorithm(group)
    yield from _numbers(group)
    yield from _decision(group)
    yield from one_coded_side(group)
    yield from marks(group)
    yield from _origin(group)
    yield from _counts(group)
    yield from _words(group)
    pictures = children(group, codes.VISUAL_EXPLANATION.value)
    if len(pictures) != (1 if texts_of(group, mr_codes.NO_MAP.value) else 2):
        yield f"has {len(pictures)} visual explanations, must be pictures and a map, or say why there is no map"


def told_numbers(text: str) -> tuple[str, ...]:
    """Probability, low and high in hundredths, as a sentence or a caption names them; empty when it names none."""
    match = _TOLD.search(text)
    return () if match is None else match.groups()


def _told(group: Dataset) -> tuple[str, ...]:
    return tuple(f"{value:.2f}" for value in _interval(group))


def _interval(group: Dataset) -> tuple[float, ...]:
    """The first probability of a group and its limits."""
    first = [item for item in group.get("ContentSequence", ()) if name_of(item) in _PROBABILITIES][:1]
    limits = [item for row in (mr_codes.LOW, mr_codes.HIGH) for item in children(group, row.value)]
    return tuple(number_of(item) for item in (*first, *limits))


def _numbers(group: Dataset) -> Iterator[str]:
    values = _interval(group)
    if len(values) != 3 or not 0.0 <= values[1] <= values[0] <= values[2] <= 1.0:
        yield f"its probability with the limits of its interval is {values}, must be three numbers in order in 0..1"
        return
    all_classes = [number_of(item) for name in _PROBABILITIES for item in children(group, name)]
    if len(all_classes) > 1 and abs(sum(all_classes) - 1.0) > 0.001:
        yield f"the probabilities of its classes are {all_classes}, must sum to 1"
    for text in texts_of(group, codes.RESULT_TEXT.value):
        if told_numbers(text) != _told(group):
            yield f"its result in words does not say the probability {_told(group)}: {text!r}"


def _decision(group: Dataset) -> Iterator[str]:
    cuts = [number_of(item) for item in children(group, mr_codes.THRESHOLD.value)]
    said = [code_of(item) for item in children(group, mr_codes.DECISION.value)]
    if len(cuts) != len(said) or len(cuts) > 1:
        yield f"has {len(cuts)} thresholds and {len(said)} codes of which side of it the probability is"
        return
    for cut, code in zip(cuts, said, strict=True):
        right = mr_codes.ABOVE if _interval(group)[:1] >= (cut,) else mr_codes.BELOW
        words = f"{right.meaning.lower()} of {cut:.2f}"
        if code != right.value:
            yield f"its probability is {right.value} of {cut}, its code says {code}"
        if not all(words in text for text in texts_of(group, codes.RESULT_TEXT.value)):
            yield f"its result in words does not say {words!r}"


def _origin(group: Dataset) -> Iterator[str]:
    origins = [code_of(item) for item in children(group, mr_codes.ORIGIN.value)]
    if len(origins) != 1 or origins[0] not in _ORIGINS:
        yield f"its probability has the origins {origins}, must be one of {sorted(_ORIGINS)}"
        return
    wanted = codes.PAIN_FROM_IMAGE if any(name.startswith("WOMAC") for name in _names(group)) else mr_codes.FROM_IMAGE
    if set(_names(group)) & {row.value for row in mr_codes.OUTCOMES.values()} and origins != [wanted.value]:
        yield f"its probability is of the origin {origins[0]}, must be {wanted.value}"
    if not all(_ORIGINS[origins[0]] in text for text in texts_of(group, codes.RESULT_TEXT.value)):
        yield f"its result in words does not say {_ORIGINS[origins[0]]!r}"


def _counts(group: Dataset) -> Iterator[str]:
    read, total = ([number_of(item) for item in children(group, row.value)] for row in (mr_codes.READ, mr_codes.TOTAL))
    if len(read) != 1 or len(total) != 1 or not 1 <= read[0] <= total[0]:
        yield f"says that {read} of {total} slices were read"
    for row in (mr_codes.SERIES, mr_codes.ATTENTION):
        if len(texts_of(group, row.value)) != 1:
            yield f"has not one sentence {row.value}"
    for text in texts_of(group, mr_codes.IMPUTED.value):
        if "median of the training patients" not in text:
            yield f"has an imputed variable that does not say so: {text!r}"
    for text in texts_of(group, mr_codes.KNOWN.value):
        if ", from " not in text:
            yield f"has a clinical variable without its source: {text!r}"


def _words(group: Dataset) -> Iterator[str]:
    for item in descendants(group):
        text = str(item.get("TextValue", ""))
        if _FORBIDDEN in text.lower():
            yield f"says {_FORBIDDEN!r}"
        units = [unit for value in item.get("MeasuredValueSequence", ()) for unit in value.MeasurementUnitsCodeSequence]
        lengths = [str(unit.CodeValue) for unit in units if str(unit.CodeValue) in {"mm", "cm", "um", "m"}]
        said = name_of(item) not in _CLINICAL and _MILLIMETRES.search(_DEFINED.sub("", text))
        if lengths or said:
            yield f"gives a length ({name_of(item)}), but nothing is measured in millimetres"


def _names(group: Dataset) -> list[str]:
    return [name_of(item) for item in group.get("ContentSequence", ())]


def frames_complaints(frames: Dataset) -> Iterator[str]:
    """Complaints about the pictures of one result."""
    yield from picture_basics(frames, _OWN_WORDING)
    yield from derivation(frames)
    if frames.get("Laterality") not in set(Side):
        yield f"Laterality is {frames.get('Laterality')!r}, must be R or L"
        return
    texts = {
        "Image Comments (the caption)": frames.get("ImageComments"),
        "Derivation Description": frames.get("DerivationDescription"),
        "Series Description": frames.get("SeriesDescription"),
    }
    yield from one_side(Side(frames.Laterality), texts)
    lines = _lines(frames)
    if not told_numbers(lines[0]) or not any(words in line for line in lines for words in _ORIGINS.values()):
        yield "the caption does not tell a probability and its origin"
    count, (numbers, shares) = int(frames.get("NumberOfFrames", 0)), _shares(frames)
    read = next((match for line in lines if (match := _READ.fullmatch(line))), None)
    if len(shares) != count or not count or read is None or int(read[1]) != count:
        yield f"{count} frames and {len(shares)} shares of attention, the caption says {read and read[1]}: must agree"
        return
    if count > 1 and (frames.get("FrameIncrementPointer"), frames.get("PageNumberVector")) != (_PAGES, numbers):
        yield f"the frames are not numbered by the slices {numbers} (Page Number Vector)"
    if numbers != sorted(set(numbers)) or numbers[0] < 1 or numbers[-1] > int(read[2]):
        yield f"the slices {numbers} are not in the order of their places, or not among {read[2]}"
    if abs(sum(shares) - 1.0) > 0.01:
        yield f"the shares of attention sum to {sum(shares):.3f}, must be 1"
    yield from _burned(frames, lines[:-1], numbers, shares, int(read[2]))


def _lines(frames: Dataset) -> list[str]:
    return str(frames.get("ImageComments") or "").split(CAPTION_SEPARATOR)


def _shares(frames: Dataset) -> tuple[list[int], list[float]]:
    """The number of the slice that each frame shows, and its attention."""
    last = _lines(frames)[-1]
    words = last.removeprefix(SHARES).split() if last.startswith(SHARES) else []
    found = [match for word in words if (match := re.fullmatch(r"([0-9]+):([01]\.[0-9]{4})", word))]
    return [int(match[1]) for match in found], [float(match[2]) for match in found]


def _burned(
    frames: Dataset, lines: Sequence[str], numbers: Sequence[int], shares: Sequence[float], total: int
) -> Iterator[str]:
    shape = (len(shares), int(frames.get("Rows", 0)), int(frames.get("Columns", 0)), 3)
    data = frames.get("PixelData", b"")
    if len(data) != np.prod(shape):
        yield "the pixels do not show the caption that Image Comments gives"
        return
    pixels: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8).reshape(shape)
    for place, picture in enumerate(pixels):
        line = slice_line(numbers[place], total, place, len(shares), shares[place])
        band = frame_band(lines, line, shape[2], place, shares)
        if len(band) > shape[1] or not np.array_equal(picture[shape[1] - len(band) :], band):
            yield f"the pixels of frame {place + 1} do not show the caption that Image Comments gives"


def map_complaints(mapped: Dataset) -> Iterator[str]:
    """Complaints about the Parametric Map of one result."""
    if not is_uid(str(mapped.get("FrameOfReferenceUID", ""))):
        yield "Frame of Reference UID is missing or not valid"
    comments = str(mapped.get("ImageComments") or "")
    if RESEARCH_MARK not in comments:
        yield f"Image Comments does not say {RESEARCH_MARK!r}"
    if is_synthetic(mapped) is not (SYNTHETIC_MARK in comments):
        yield "equipment and Image Comments disagree on whether the model is a stand-in"
    if not mapped.get("ContributingEquipmentSequence"):
        yield "Contributing Equipment Sequence names no algorithm"
    if mapped.get("BurnedInAnnotation") != "NO" or list(mapped.get("ImageType") or [])[:1] != ["DERIVED"]:
        yield "must be derived, without burned in annotation"
    if mapped.get("Laterality") not in set(Side):
        yield f"Laterality is {mapped.get('Laterality')!r}, must be R or L"
    else:
        keywords = ("ImageComments", "ContentDescription", "SeriesDescription")
        yield from one_side(Side(mapped.Laterality), {keyword: mapped.get(keyword) for keyword in keywords})
    yield from named_in(mapped, str(mapped.get("ContentLabel", "")))
    yield from _values(mapped)
    yield from _places(mapped)


def _values(mapped: Dataset) -> Iterator[str]:
    shape = tuple(int(mapped.get(keyword, 0)) for keyword in ("NumberOfFrames", "Rows", "Columns"))
    data = mapped.get("FloatPixelData", b"")
    if len(data) != 4 * np.prod(shape) or not data:
        yield f"Float Pixel Data has {len(data)} bytes, must be {4 * int(np.prod(shape))}"
        return
    values = np.frombuffer(data, "<f4")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        yield "the values are not all in 0..1"
    shared = mapped.get("SharedFunctionalGroupsSequence") or [Dataset()]
    mappings = shared[0].get("RealWorldValueMappingSequence") or [Dataset()]
    slope, intercept = (mappings[0].get(f"RealWorldValue{name}") for name in ("Slope", "Intercept"))
    if (slope, intercept) != (1.0, 0.0):
        yield f"the real world value mapping is {slope} x + {intercept}, must be x"


def _places(mapped: Dataset) -> Iterator[str]:
    """One place and one source for each frame, in the order of the normal, on the plane that all share."""
    frames = mapped.get("PerFrameFunctionalGroupsSequence") or []
    shared = mapped.get("SharedFunctionalGroupsSequence") or [Dataset()]
    oriented = shared[0].get("PlaneOrientationSequence")
    if len(frames) != int(mapped.get("NumberOfFrames", 0)) or not oriented or "PixelMeasuresSequence" not in shared[0]:
        yield "the functional groups do not say where each frame lies"
        return
    directions = np.array(oriented[0].ImageOrientationPatient, float).reshape(2, 3)
    if not np.allclose(directions @ directions.T, np.eye(2), atol=1e-3):
        yield "the directions of its plane are not unit vectors at right angles"
    try:
        positions = np.array([frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], float)
        derived = [frame.DerivationImageSequence[0].SourceImageSequence[0] for frame in frames]
    except (AttributeError, IndexError):
        yield "a frame has no position or no source image"
        return
    if len(positions) > 1 and np.diff(positions @ np.cross(*directions)).min() <= 0:
        yield "the frames are not in the order of their places"
    known = {
        str(instance.ReferencedSOPInstanceUID)
        for series in mapped.get("ReferencedSeriesSequence", ())
        for instance in series.ReferencedInstanceSequence
    }
    if any(source.get("SpatialLocationsPreserved") != "YES" for source in derived):
        yield "a frame does not say that it lies where its source image lies"
    if {str(source.ReferencedSOPInstanceUID) for source in derived} != known:
        yield "the source images of the frames are not those of the Common Instance Reference"


def volume_against(group: Dataset, pictures: Mapping[str, Dataset], maps: Mapping[str, Dataset]) -> Iterator[str]:
    """Complaints where pictures and map of a group do not say what the group says."""
    sites = children(group, codes.FINDING_SITE.value)
    sides = [code_of(side) for site in sites for side in children(site, codes.LATERALITY.value)]
    read = [number_of(item) for item in children(group, mr_codes.READ.value)]
    shown: list[set[tuple[str, int]]] = []
    for item in children(group, codes.VISUAL_EXPLANATION.value):
        uid = referenced_uid(item)
        dataset = pictures.get(uid, maps.get(uid))
        if dataset is None:
            yield f"the report refers to {uid}, which is not among the objects"
            continue
        if sides != [codes.SIDES[Side(dataset.Laterality)].value]:
            yield f"{uid} is of side {dataset.Laterality}, its group of {sides}"
        if read != [float(dataset.get("NumberOfFrames", 0))]:
            yield f"{uid} has {dataset.get('NumberOfFrames')} frames, its group says {read} slices"
        shown.append(_sources(dataset))
        if uid in pictures and told_numbers(_lines(dataset)[0]) != _told(group):
            yield f"{uid} shows the probability {told_numbers(_lines(dataset)[0])}, its group says {_told(group)}"
    regions = [item for item in children(group, codes.IMAGE_REGION.value) if item.get("ValueType") == "SCOORD"]
    selected = {_reference(child.ReferencedSOPSequence[0]) for item in regions for child in item.ContentSequence}
    if any(not selected <= sources or sources != shown[0] for sources in shown):
        yield "its region, its pictures and its map are not of the same images"


def _sources(dataset: Dataset) -> set[tuple[str, int]]:
    """(SOP Instance UID, frame or 0) of all that an object was made of."""
    items = [*dataset.get("SourceImageSequence", ())]
    for frame in dataset.get("PerFrameFunctionalGroupsSequence", ()):
        items += frame.DerivationImageSequence[0].SourceImageSequence
    return {pair for item in items for pair in _pairs(item)}


def _pairs(item: Dataset) -> Iterator[tuple[str, int]]:
    numbers = item.get("ReferencedFrameNumber") or 0
    for number in [numbers] if isinstance(numbers, int) else numbers:
        yield str(item.ReferencedSOPInstanceUID), int(number)


def _reference(item: Dataset) -> tuple[str, int]:
    return next(_pairs(item))
