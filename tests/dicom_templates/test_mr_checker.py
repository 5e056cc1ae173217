"""The checker complains about each defect of a result on an MR series that it is for."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_templates.capture import CAPTION_SEPARATOR
from dicom_templates.check_report import children
from dicom_templates.checker import check, check_study
from dicom_templates.compose import compose
from dicom_templates.mr_drawing import frame_band, slice_line
from inference.findings import Refusal, RefusalCode, Side
from tests.dicom_templates.factory import context
from tests.dicom_templates.mr_findings import STAND_IN, pain_classes, progression, series, study, volume
from tests.dicom_templates.test_checker import Change, drop, group, put, remove, text

READ = [3, 4]


@cache
def _written() -> tuple[Dataset, ...]:
    headers, right = series(), series(Side.RIGHT)
    refusal = Refusal(RefusalCode.TOO_FEW_SLICES, "The series has 3 slices.", right[0].SOPInstanceUID, Side.RIGHT)
    found = volume(headers, read=READ, outcome=progression(STAND_IN))
    pain = volume(headers, read=READ, outcome=pain_classes())
    both = [*headers, *right]
    return compose(study([found, pain], [refusal], both), both, context()).all


def objects() -> list[Dataset]:
    """Pictures and map of a stand-in, those of three classes of pain, a card, the report."""
    return deepcopy(list(_written()))


def number(code_value: str, value: str, index: int = 0) -> Change:
    """Say another number in a group."""

    def change(report: Dataset) -> None:
        (item,) = children(group(report, index), code_value)
        item.MeasuredValueSequence[0].NumericValue = value

    return change


def coded(code_value: str, value: str, meaning: str) -> Change:
    """Say another code in a group."""

    def change(report: Dataset) -> None:
        code = children(group(report), code_value)[0].ConceptCodeSequence[0]
        code.CodeValue, code.CodeMeaning = value, meaning

    return change


def in_words(code_value: str, old: str, new: str) -> Change:
    """Exchange words of a TEXT item."""

    def change(report: Dataset) -> None:
        item = children(group(report), code_value)[0]
        assert old in item.TextValue
        item.TextValue = item.TextValue.replace(old, new)

    return change


def one_picture(report: Dataset) -> None:
    """Take the second visual explanation away."""
    knee = group(report)
    kept = [item for item in knee.ContentSequence if item is not children(knee, "130401")[1]]
    knee["ContentSequence"].value = Sequence(kept)


REPORT_DEFECTS: dict[str, tuple[Change, str]] = {
    "no algorithm": (drop("111001", group), "no algorithm name"),
    "no pictures": (drop("130401", group), "visual explanation"),
    "no map and no reason": (one_picture, "or say why there is no map"),
    "limits exchanged": (number("OUTCOME-LOW", "0.7"), "three numbers in order"),
    "beyond one": (number("OUTCOME-HIGH", "1.2"), "three numbers in order"),
    "no limit": (drop("OUTCOME-LOW", group), "three numbers in order"),
    "another probability in words": (in_words("RESULT-TEXT", "0.62", "0.63"), "does not say the probability"),
    "classes": (number("CLASS-P1", "0.4", 1), "must sum to 1"),
    "wrong side of the threshold": (coded("OUTCOME-DECISION", "OUTCOME-BELOW", "Below the threshold"), "its code says"),
    "no decision": (drop("OUTCOME-DECISION", group), "1 thresholds and 0 codes"),
    "another threshold in words": (in_words("RESULT-TEXT", "of 0.40", "of 0.60"), "at or above the threshold of 0.40"),
    "as if measured": (in_words("RESULT-TEXT", ", predicted from image, not measured", ""), "does not say 'predicted"),
    "as if reported": (
        coded("OUTCOME-ORIGIN", "PAIN-FROM-IMAGE", "Predicted from image, not patient-reported"),
        "must be PROG-FROM-IMAGE",
    ),
    "unknown origin": (coded("OUTCOME-ORIGIN", "KL-2", "x"), "must be one of"),
    "side": (text("112039", "RIGHT knee"), "its coded side is LEFT"),
    "no mark": (drop("USE", group), "research mark"),
    "stand-in": (in_words("RESULT-TEXT", "SYNTHETIC MODEL", "MODEL"), "stand-in"),
    "more slices than there are": (number("SLICES-READ", "14"), "slices were read"),
    "no reason for the series": (drop("SERIES-READ", group), "not one sentence SERIES-READ"),
    "no attention": (drop("SLICE-ATTENTION", group), "not one sentence SLICE-ATTENTION"),
    "imputed as if known": (text("CLINICAL-IMPUTED", "joint space width: 4.1"), "does not say so"),
    "known by nobody": (text("CLINICAL-KNOWN", "age: 63 years."), "without its source"),
    "a length": (text("SERIES-READ", "The joint space is 3.5 mm."), "gives a length (SERIES-READ)"),
    "osteoarthritis": (text("SERIES-READ", "Osteoarthritis."), "osteoarthritis"),
    "no contributing equipment": (remove("ContributingEquipmentSequence"), "not in the Contributing Equipment"),
    "evidence missing": (remove("CurrentRequestedProcedureEvidenceSequence"), "not in the evidence"),
}


@pytest.mark.parametrize("name", REPORT_DEFECTS)
def test_each_defect_of_a_group_is_told(name: str) -> None:
    change, words = REPORT_DEFECTS[name]
    report = objects()[-1]
    change(report)
    assert [complaint for complaint in check(report) if words in complaint], check(report)


def comment(old: str, new: str) -> Change:
    """Exchange words that are claimed to be burned in."""

    def change(frames: Dataset) -> None:
        assert old in frames.ImageComments
        frames.ImageComments = frames.ImageComments.replace(old, new)

    return change


def reburned(old: str, new: str) -> Change:
    """Burn other words into every frame, and claim them."""

    def change(frames: Dataset) -> None:
        comment(old, new)(frames)
        lines = frames.ImageComments.split(CAPTION_SEPARATOR)[:-1]
        shape = (frames.NumberOfFrames, frames.Rows, frames.Columns, 3)
        pixels = np.frombuffer(frames.PixelData, np.uint8).reshape(shape).copy()
        shares = [0.3333, 0.6667]
        for place, picture in enumerate(pixels):
            line = slice_line(frames.PageNumberVector[place], 13, place, len(shares), shares[place])
            band = frame_band(lines, line, frames.Columns, place, shares)
            picture[-len(band) :] = band
        frames.PixelData = pixels.tobytes()

    return change


def frames_exchanged(frames: Dataset) -> None:
    half = len(frames.PixelData) // 2
    frames.PixelData = frames.PixelData[half:] + frames.PixelData[:half]


FRAMES_DEFECTS: dict[str, tuple[Change, str]] = {
    "no research mark": (remove("ContentQualification"), "Content Qualification"),
    "side": (put("Laterality", "R"), "does not name the side RIGHT"),
    "no side": (remove("Laterality"), "must be R or L"),
    "only claimed": (comment("0.62", "0.26"), "the pixels of frame 1 do not show"),
    "frames exchanged": (frames_exchanged, "the pixels of frame 2 do not show"),
    "attention only claimed": (comment("4:0.3333 5:0.6667", "4:0.4333 5:0.5667"), "the pixels of frame 1 do not show"),
    "attention": (comment("4:0.3333", "4:0.8333"), "sum to 1.5"),
    "a share is missing": (comment(" 5:0.6667", ""), "2 frames and 1 shares"),
    "another order": (comment("4:0.3333 5:0.6667", "5:0.3333 4:0.6667"), "not in the order of their places"),
    "other slices": (put("PageNumberVector", [7, 8]), "not numbered by the slices"),
    "no pointer": (remove("FrameIncrementPointer"), "not numbered by the slices"),
    "as if measured": (reburned(", predicted from image, not measured", ""), "does not tell a probability"),
    "no probability": (reburned("probability 0.62 (0.41 to 0.80)", "likely"), "does not tell a probability"),
    "mark not burned in": (comment("AI - RESEARCH", "AI"), "does not say 'AI - RESEARCH"),
    "stand-in not burned in": (comment("SYNTHETIC MODEL", "MODEL"), "is a stand-in but the caption"),
    "identity": (reburned("Model", "PHANTOM-MR"), "the value of PatientID"),
    "burned in not said": (put("BurnedInAnnotation", "NO"), "BurnedInAnnotation"),
    "no derivation": (remove("DerivationCodeSequence"), "CID 217"),
    "no source": (remove("SourceImageSequence"), "Source Image Sequence"),
    "no algorithm": (remove("ContributingEquipmentSequence"), "names no algorithm"),
    "pixels missing": (remove("PixelData"), "the pixels do not show"),
}


@pytest.mark.parametrize("name", FRAMES_DEFECTS)
def test_each_defect_of_the_pictures_is_told(name: str) -> None:
    change, words = FRAMES_DEFECTS[name]
    frames = objects()[0]
    change(frames)
    assert [complaint for complaint in check(frames) if words in complaint], check(frames)


def frame(mapped: Dataset, index: int = 0) -> Dataset:
    return mapped.PerFrameFunctionalGroupsSequence[index]


def values(change: Callable[[np.ndarray], None]) -> Change:
    def changed(mapped: Dataset) -> None:
        found = np.frombuffer(mapped.FloatPixelData, "<f4").copy()
        change(found)
        mapped.FloatPixelData = found.tobytes()

    return changed


def too_high(found: np.ndarray) -> None:
    found[7] = 1.5


def no_number(found: np.ndarray) -> None:
    found[7] = np.nan


def places_exchanged(mapped: Dataset) -> None:
    one, other = frame(mapped), frame(mapped, 1)
    one.PlanePositionSequence, other.PlanePositionSequence = other.PlanePositionSequence, one.PlanePositionSequence


def skewed(mapped: Dataset) -> None:
    orientation = mapped.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]


def doubled(mapped: Dataset) -> None:
    mapped.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0].RealWorldValueSlope = 2.0


def moved(mapped: Dataset) -> None:
    frame(mapped).DerivationImageSequence[0].SourceImageSequence[0].SpatialLocationsPreserved = "NO"


def of_another(mapped: Dataset) -> None:
    frame(mapped).DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"


MAP_DEFECTS: dict[str, tuple[Change, str]] = {
    "no research mark": (remove("ContentQualification"), "Content Qualification"),
    "no frame of reference": (remove("FrameOfReferenceUID"), "Frame of Reference UID"),
    "mark in words": (put("ImageComments", "LEFT knee"), "Image Comments does not say"),
    "side": (put("Laterality", "R"), "does not name the side RIGHT"),
    "no side": (remove("Laterality"), "must be R or L"),
    "side in words": (put("ContentDescription", "RIGHT knee"), "ContentDescription does not name the side LEFT"),
    "no algorithm": (remove("ContributingEquipmentSequence"), "names no algorithm"),
    "original": (put("ImageType", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]), "must be derived"),
    "too few values": (lambda mapped: setattr(mapped, "FloatPixelData", b"\0" * 8), "bytes, must be"),
    "no values": (remove("FloatPixelData"), "bytes, must be"),
    "a value above one": (values(too_high), "not all in 0..1"),
    "not a number": (values(no_number), "not all in 0..1"),
    "other values in the world": (doubled, "must be x"),
    "no places": (lambda mapped: delattr(frame(mapped, 1), "PlanePositionSequence"), "no position or no source"),
    "no plane": (
        lambda mapped: delattr(mapped.SharedFunctionalGroupsSequence[0], "PlaneOrientationSequence"),
        "where each frame lies",
    ),
    "places exchanged": (places_exchanged, "not in the order of their places"),
    "skewed": (skewed, "not unit vectors at right angles"),
    "moved": (moved, "lies where its source image lies"),
    "of another image": (of_another, "not those of the Common Instance Reference"),
    "scheme not declared": (remove("CodingSchemeIdentificationSequence"), "not declared"),
}


@pytest.mark.parametrize("name", MAP_DEFECTS)
def test_each_defect_of_a_map_is_told(name: str) -> None:
    change, words = MAP_DEFECTS[name]
    mapped = objects()[1]
    change(mapped)
    assert [complaint for complaint in check(mapped) if words in complaint], check(mapped)


def test_no_complaint_about_what_genu_writes() -> None:
    assert check_study(objects()) == []


def test_objects_of_one_study_are_compared() -> None:
    written = objects()
    assert any("not among the objects" in c for c in check_study([*written[:1], *written[2:]])), "the map is missing"
    one_picture(written[-1])
    assert any(f"no group of the report refers to {written[1].SOPInstanceUID}" in c for c in check_study(written))
    other = objects()
    other[0].SOPInstanceUID, other[2].SOPInstanceUID = other[2].SOPInstanceUID, other[0].SOPInstanceUID
    assert any("shows the probability ('0.50', '0.35', '0.65')" in c for c in check_study(other)), "pictures exchanged"
    turned = objects()
    turned[1].Laterality = "R"
    assert any("is of side R" in c for c in check_study(turned))
    shorter = objects()
    shorter[1].NumberOfFrames = 1
    assert any("has 1 frames, its group says [2.0] slices" in c for c in check_study(shorter))
    elsewhere = objects()
    region = children(group(elsewhere[-1]), "111030")[0]
    region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = (
        elsewhere[0].SourceImageSequence[0].ReferencedSOPInstanceUID.replace("1", "2")
    )
    assert any("not of the same images" in c for c in check_study(elsewhere))


@pytest.mark.parametrize("name", ["KNEE^LEFT", "MODEL^A", "Coronal^IW", "Attention^Slices", "Narrowing^Joint"])
def test_patients_may_be_called_like_words_of_the_caption(name: str) -> None:
    frames = objects()[0]
    frames.PatientName = name
    assert check(frames) == []
