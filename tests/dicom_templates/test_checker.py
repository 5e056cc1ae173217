"""The checker is silent on what Genu writes and complains about each defect that it is for."""

from collections.abc import Callable

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_templates.capture import CAPTION_SEPARATOR
from dicom_templates.card_drawing import draw_card
from dicom_templates.check_report import children
from dicom_templates.checker import check, check_study, compare_identity
from dicom_templates.compose import compose
from dicom_templates.drawing import caption_band, caption_lines
from inference.findings import Refusal, RefusalCode, Side
from tests.dicom_templates.factory import STAND_IN, context, header, image, knee, study, uid

Change = Callable[[Dataset], None]


def objects(grade: int = 1) -> tuple[Dataset, ...]:
    """A heatmap, a card of an image, one of the study, and a report with one scored knee."""
    refusals = [
        Refusal(RefusalCode.NOT_A_KNEE, "BodyPartExamined is CHEST.", uid(2)),
        Refusal(RefusalCode.UNREADABLE, "The file ends early.", uid(9)),
    ]
    findings = study([knee(Side.LEFT, grade, model=STAND_IN)], refusals, [image(2)])
    return compose(findings, [header(), header(2)], context()).all


def group(report: Dataset, index: int = 0) -> Dataset:
    """A measurement group of the report."""
    return children(children(report, "126010")[0], "125007")[index]


def drop(code_value: str, parent: Callable[[Dataset], Dataset] = lambda report: report) -> Change:
    """Take away all items with this concept name."""

    def change(report: Dataset) -> None:
        item = parent(report)
        kept = [child for child in item.ContentSequence if child.ConceptNameCodeSequence[0].CodeValue != code_value]
        assert len(kept) < len(item.ContentSequence), code_value
        item["ContentSequence"].value = Sequence(kept)

    return change


def put(keyword: str, value: object) -> Change:
    """Set an attribute of the object."""
    return lambda dataset: setattr(dataset, keyword, value)


def remove(keyword: str) -> Change:
    """Delete an attribute of the object."""
    return lambda dataset: delattr(dataset, keyword)


def text(code_value: str, value: str, index: int = 0) -> Change:
    """Say something else in a TEXT item of a group."""
    return lambda report: setattr(children(group(report, index), code_value)[0], "TextValue", value)


def other_side(report: Dataset) -> None:
    """Turn the coded side of the knee."""
    side = children(children(group(report), "363698007")[0], "272741003")[0].ConceptCodeSequence[0]
    side.CodeValue, side.CodeMeaning = "24028007", "Right"


def other_grade(report: Dataset) -> None:
    """Turn the coded grade of the knee."""
    grade = children(group(report), "KL-GRADE")[0].ConceptCodeSequence[0]
    grade.CodeValue, grade.CodeMeaning = "KL-3", "Kellgren-Lawrence grade 3 (moderate)"


def name_the_disease(report: Dataset) -> None:
    """Write the finding that grades 0 and 1 are not."""
    children(group(report), "EV-VIEW")[0].TextValue = "Osteoarthritis of the knee"


def unsure(report: Dataset) -> None:
    """Make the probabilities sum to something else than 1."""
    children(group(report), "KL-P1")[0].MeasuredValueSequence[0].NumericValue = "0.3"


REPORT_DEFECTS: dict[str, tuple[Change, str]] = {
    "no research mark on the object": (remove("ContentQualification"), "Content Qualification"),
    "another qualification": (put("ContentQualification", "PRODUCT"), "Content Qualification"),
    "another manufacturer": (put("Manufacturer", "ACME"), "Manufacturer"),
    "no software version": (remove("SoftwareVersions"), "SoftwareVersions"),
    "no device UID": (remove("DeviceUID"), "DeviceUID"),
    "series does not say research": (put("SeriesDescription", "Genu"), "does not say RESEARCH"),
    "foreign UID": (put("SOPInstanceUID", "1.2.3"), "not a derived UID"),
    "type 2 missing": (remove("StudyTime"), "StudyTime (type 2) is missing"),
    "scheme not declared": (remove("CodingSchemeIdentificationSequence"), "not declared"),
    "no contributing equipment": (remove("ContributingEquipmentSequence"), "not in the Contributing Equipment"),
    "equipment without version": (
        lambda report: delattr(report.ContributingEquipmentSequence[0], "SoftwareVersions"),
        "has no SoftwareVersions",
    ),
    "verified": (put("VerificationFlag", "VERIFIED"), "VerificationFlag"),
    "final": (put("PreliminaryFlag", "FINAL"), "PreliminaryFlag"),
    "no device observer UID": (drop("121012"), "device observer UID"),
    "no device observer name": (drop("121013"), "device observer name"),
    "no observer type": (drop("121005"), "observer is not one device"),
    "no procedure": (drop("121058"), "procedure reported"),
    "template not named": (remove("ContentTemplateSequence"), "template 1500"),
    "no algorithm name": (drop("111001", group), "no algorithm name"),
    "no algorithm version": (drop("111003", group), "no algorithm version"),
    "no algorithm family": (drop("111000", group), "algorithm family"),
    "no region": (drop("111030", group), "0 regions"),
    "no tracking identifier": (drop("112039", group), "no tracking identifier"),
    "no tracking UID": (drop("112040", group), "no tracking unique identifier"),
    "no heatmap": (drop("130401", group), "visual explanation"),
    "no research mark on the knee": (drop("USE", group), "research mark"),
    "kind of model not said": (drop("MODEL-KIND", group), "kind of its model"),
    "no result in words": (drop("RESULT-TEXT", group), "names the side"),
    "coded side turned": (other_side, "its coded side is RIGHT"),
    "side in words turned": (text("112039", "RIGHT knee"), "its coded side is LEFT"),
    "no side": (drop("363698007", group), "0 known sides"),
    "coded grade turned": (other_grade, "does not say the coded grade"),
    "osteoarthritis for KL 1": (name_the_disease, "osteoarthritis"),
    "probabilities": (unsure, "five that sum to 1"),
    "no expected grade": (drop("KL-EXPECTED", group), "expected grade"),
    "a length in millimetres": (text("EV-VIEW", "the joint space is 3.5 mm"), "nothing is measured in millimetres"),
    "stand-in does not say so": (text("RESULT-TEXT", "LEFT knee: KL 1 (x)"), "stand-in"),
    "refusal without reason": (drop("REFUSAL", lambda r: group(r, 1)), "neither a grade nor a reason"),
    "refusal without words": (drop("REFUSAL-TEXT", lambda r: group(r, 1)), "one sentence for each reason"),
    "refusal without mark": (drop("USE", lambda r: group(r, 1)), "research mark"),
    "refusal without card": (drop("121200", lambda r: group(r, 1)), "refers to no refusal card"),
    "study refusal without card": (drop("REFUSAL-CARD", lambda r: children(r, "C0034375")[0]), "no refusal card"),
    "study refusal without words": (drop("REFUSAL-TEXT", lambda r: children(r, "C0034375")[0]), "one sentence"),
    "nothing said": (lambda r: (drop("126010")(r), drop("C0034375")(r), None)[-1], "holds neither"),
    "evidence missing": (remove("CurrentRequestedProcedureEvidenceSequence"), "not in the evidence"),
    "unknown private code": (
        lambda r: setattr(children(group(r), "KL-GRADE")[0].ConceptCodeSequence[0], "CodeMeaning", "Severe"),
        "is not in the table",
    ),
    "another SOP class": (put("SOPClassUID", "1.2.840.10008.5.1.4.1.1.88.33"), "which Genu never writes"),
}


def recaption(side: Side, grade: int = 1, burn: bool = True, claim: bool = True) -> Change:
    """Burn in, or only claim, another caption."""

    def change(heatmap: Dataset) -> None:
        lines = caption_lines(knee(side, grade, model=STAND_IN))
        if claim:
            heatmap.ImageComments = CAPTION_SEPARATOR.join(lines)
        if burn:
            shape = (heatmap.Rows, heatmap.Columns, 3)
            pixels = np.frombuffer(heatmap.PixelData, dtype=np.uint8).reshape(shape).copy()
            band = caption_band(lines, heatmap.Columns)
            pixels[-band.shape[0] :] = band
            heatmap.PixelData = pixels.tobytes()

    return change


def comment(old: str, new: str) -> Change:
    """Exchange words in the caption that is claimed."""
    return lambda heatmap: setattr(heatmap, "ImageComments", heatmap.ImageComments.replace(old, new))


HEATMAP_DEFECTS: dict[str, tuple[Change, str]] = {
    "no research mark": (remove("ContentQualification"), "Content Qualification"),
    "laterality turned": (put("Laterality", "R"), "does not name the side RIGHT"),
    "laterality missing": (remove("Laterality"), "must be R or L"),
    "caption of the other side": (recaption(Side.RIGHT), "Image Comments (the caption) does not name"),
    "pixels of the other side": (recaption(Side.RIGHT, claim=False), "the pixels do not show"),
    "only claimed": (recaption(Side.LEFT, 4, burn=False), "the pixels do not show"),
    "no caption": (remove("ImageComments"), "Image Comments"),
    "description of the other side": (put("DerivationDescription", "RIGHT knee"), "Derivation Description"),
    "mark not burned in": (comment("AI - RESEARCH", "AI"), "does not say 'AI - RESEARCH"),
    "stand-in not burned in": (comment("SYNTHETIC MODEL", "MODEL"), "is a stand-in but the caption"),
    "no grade": (comment("KL 1", "grade"), "names no grade"),
    "identity": (comment("Model", "PHANTOM-1"), "the value of PatientID"),
    "burned in not said": (put("BurnedInAnnotation", "NO"), "BurnedInAnnotation"),
    "recognizable": (remove("RecognizableVisualFeatures"), "RecognizableVisualFeatures"),
    "original": (put("ImageType", ["ORIGINAL", "PRIMARY"]), "Image Type"),
    "conversion": (put("ConversionType", "SD"), "ConversionType"),
    "no derivation code": (remove("DerivationCodeSequence"), "CID 217"),
    "no source": (remove("SourceImageSequence"), "Source Image Sequence"),
    "no algorithm": (remove("ContributingEquipmentSequence"), "names no algorithm"),
    "pixel spacing": (put("PixelSpacing", [1, 1]), "Pixel Spacing"),
    "lossy flag": (remove("LossyImageCompression"), "Lossy Image Compression"),
    "pixels missing": (remove("PixelData"), "the pixels do not show"),
}


def redraw(*exchange: tuple[str, str]) -> Change:
    """Claim and burn in a card with other words."""

    def change(card: Dataset) -> None:
        for old, new in exchange:
            assert old in card.ImageComments, old
            card.ImageComments = card.ImageComments.replace(old, new)
        pixels = draw_card(card.ImageComments.split(CAPTION_SEPARATOR))
        card.Rows, card.Columns = pixels.shape[:2]
        card.PixelData = pixels.tobytes()

    return change


def spot(card: Dataset) -> None:
    """Change one pixel of the text."""
    data = bytearray(card.PixelData)
    data[len(data) // 2] ^= 255
    card.PixelData = bytes(data)


CARD_DEFECTS: dict[str, tuple[Change, str]] = {
    "no research mark": (remove("ContentQualification"), "Content Qualification"),
    "a reason only claimed": (comment("Not a knee", "Side unknown"), "the pixels do not show"),
    "one pixel": (spot, "the pixels do not show"),
    "no pixels": (remove("PixelData"), "the pixels do not show"),
    "no caption": (remove("ImageComments"), "names no reason"),
    "a reason that is not ours": (redraw(("Not a knee", "Not today")), "not in the table"),
    "the remedy of another reason": (redraw(("Not a knee", "Side unknown")), "what to do about side_unknown"),
    "nothing found": (redraw(("Found: ", "")), "what was found"),
    "no heading": (redraw(("NOT SCORED", "SCORED")), "the heading"),
    "a knee in the heading": (redraw(("NOT SCORED", "LEFT KNEE NOT SCORED")), "the heading"),
    "laterality": (put("ImageLaterality", "L"), "the caption of the card is about"),
    "mark not burned in": (redraw(("AI - RESEARCH", "AI")), "does not say 'AI - RESEARCH"),
    "identity": (redraw(("CHEST", "PHANTOM-1")), "the value of PatientID"),
    "a name": (redraw(("CHEST", "Phantom")), "the value of PatientName"),
    "burned in not said": (put("BurnedInAnnotation", "NO"), "BurnedInAnnotation"),
    "original": (put("ImageType", ["ORIGINAL", "PRIMARY"]), "Image Type"),
    "pixel spacing": (put("PixelSpacing", [1, 1]), "Pixel Spacing"),
}


@pytest.mark.parametrize("name", CARD_DEFECTS)
def test_each_defect_of_a_card_is_told(name: str) -> None:
    change, words = CARD_DEFECTS[name]
    card = objects()[1]
    change(card)
    assert [complaint for complaint in check(card) if words in complaint], check(card)


@pytest.mark.parametrize("defect", ["side of the caption", "side in the description"])
def test_a_card_of_one_knee_names_no_other(defect: str) -> None:
    refusal = Refusal(RefusalCode.SIDE_UNKNOWN, "Left and right look alike.", uid(1), Side.LEFT)
    card = compose(study([], [refusal], [image()]), [header()], context()).cards[0]
    assert check(card) == []
    if defect == "side of the caption":
        redraw(("the LEFT knee on", "the RIGHT knee on"))(card)
    else:
        card.DerivationDescription = "RIGHT knee"
    assert any("does not name the side LEFT" in complaint for complaint in check(card)), check(card)


def test_report_and_cards_are_compared() -> None:
    heatmap, card, of_study, report = objects()
    assert check_study([heatmap, card, of_study, report]) == []
    assert any("refers to the card" in complaint for complaint in check_study([heatmap, card, report]))
    drop("121200", lambda r: group(r, 1))(report)
    assert any("no refusal of the report refers" in complaint for complaint in check_study((*objects()[:3], report)))
    other = Refusal(RefusalCode.DERIVED_IMAGE, "ImageType contains MPR.", uid(2), Side.LEFT)
    forged = compose(study([], [other], [image(2)]), [header(2)], context()).cards[0]
    forged.SOPInstanceUID = card.SOPInstanceUID
    complaints = check_study([heatmap, forged, of_study, objects()[-1]])
    assert any("does not say R-NOT-KNEE of sides []" in complaint for complaint in complaints)
    assert any("does not say what the report says" in complaint for complaint in complaints)


def test_no_complaint_about_what_genu_writes() -> None:
    assert check_study(objects()) == []


@pytest.mark.parametrize("name", ["KNEE^LEFT", "MODEL^A", "RESEARCH^FOR^NOT", "Doe^A", "AI^KL"])
def test_patients_may_be_called_like_words_of_the_caption(name: str) -> None:
    heatmap = objects()[0]
    heatmap.PatientName = name
    assert check(heatmap) == []
    heatmap.PatientID = str(heatmap.ImageComments).split("bundle ")[1][:3]
    assert check(heatmap) == []
    card = objects()[1]
    card.PatientName = name
    assert check(card) == []


@pytest.mark.parametrize("name", REPORT_DEFECTS)
def test_each_defect_of_a_report_is_told(name: str) -> None:
    change, words = REPORT_DEFECTS[name]
    report = objects()[-1]
    change(report)
    assert [complaint for complaint in check(report) if words in complaint], check(report)


@pytest.mark.parametrize("name", HEATMAP_DEFECTS)
def test_each_defect_of_a_heatmap_is_told(name: str) -> None:
    change, words = HEATMAP_DEFECTS[name]
    heatmap = objects()[0]
    change(heatmap)
    assert [complaint for complaint in check(heatmap) if words in complaint], check(heatmap)


def test_report_and_heatmap_are_compared() -> None:
    heatmap, *cards, report = objects()
    assert any("not among the objects" in complaint for complaint in check_study([report]))
    right = compose(study([knee(Side.RIGHT, 1, model=STAND_IN)]), [header()], context()).heatmaps[0]
    right.SOPInstanceUID = heatmap.SOPInstanceUID
    assert any("is of side R" in complaint for complaint in check_study([right, *cards, report]))
    recaption(Side.LEFT, 2)(heatmap)
    assert any(
        "shows KL 2, its group says ['KL-1']" in complaint for complaint in check_study([heatmap, *cards, report])
    )


def test_identity_is_compared_between_objects_and_with_the_source() -> None:
    heatmap, *cards, report = objects()
    assert compare_identity(report, header()) == []
    report.PatientID = "PHANTOM-2"
    assert "PatientID is not the value of the source" in compare_identity(report, header())
    assert "PatientID differs between objects of one study" in check_study([heatmap, *cards, report])


def set_of_another_grade(objects: tuple[Dataset, ...]) -> None:
    for item in children(group(objects[-1]), "KL-SET"):
        item.ConceptCodeSequence[0].CodeValue = "KL-4"


def a_grade_of_the_set_left_out(objects: tuple[Dataset, ...]) -> None:
    drop("KL-SET", group)(objects[-1])


def a_set_with_a_gap(objects: tuple[Dataset, ...]) -> None:
    children(group(objects[-1]), "KL-SET")[0].ConceptCodeSequence[0].CodeValue = "KL-0"


def another_set_in_words(objects: tuple[Dataset, ...]) -> None:
    item = children(group(objects[-1]), "RESULT-TEXT")[0]
    item.TextValue = item.TextValue.replace("(2-3, 90 %)", "(1-3, 90 %)")


def another_set_in_the_picture(objects: tuple[Dataset, ...]) -> None:
    objects[0].ImageComments = objects[0].ImageComments.replace("(2-3, 90 %)", "(2-4, 90 %)")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (set_of_another_grade, "must be neighbouring grades with KL-2 among them"),
        (a_grade_of_the_set_left_out, "does not say the coded conformal set ()"),
        (a_set_with_a_gap, "must be neighbouring grades"),
        (another_set_in_words, "does not say the coded conformal set (2, 3)"),
        (another_set_in_the_picture, "shows the set (2, 3, 4), its group says (2, 3)"),
    ],
)
def test_a_conformal_set_is_one_in_codes_words_and_picture(
    change: Callable[[tuple[Dataset, ...]], None], complaint: str
) -> None:
    written = compose(study([knee(Side.LEFT, 2, conformal_set=(2, 3))]), [header()], context()).all
    assert check_study(written) == []
    change(written)
    assert any(complaint in line for line in check_study(written))
