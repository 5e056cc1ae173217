"""The refusal card: one for each image, every reason told with its remedy, legible small, nothing cut."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, JPEGBaseline8Bit

from dicom_templates import codes
from dicom_templates.capture import CAPTION_SEPARATOR
from dicom_templates.card import card_lines
from dicom_templates.card_drawing import FILM, MORE, WIDTH, draw_card, shows, wrapped
from dicom_templates.check_report import children, referenced_uid
from dicom_templates.checker import check, check_study, compare_identity
from dicom_templates.compose import Composed, compose
from dicom_templates.drawing import BACKGROUND, MARGIN, caption_band, font
from dicom_templates.identity import CARD_SERIES
from inference.findings import Box, Refusal, RefusalCode, Side, StudyFindings
from tests.dicom_templates.factory import (
    CREATED,
    MODEL,
    SERIES,
    STAND_IN,
    STUDY,
    context,
    header,
    image,
    knee,
    rendering,
    study,
    uid,
)
from tests.dicom_templates.test_validators import ALLOWED, complaints, output_of, tool

FILM_SIZE = (400, 600)
RIGHT_LOST = Refusal(RefusalCode.NO_KNEE_FOUND, "no frontal knee joint was found on the half.", uid(1), Side.RIGHT)
LEFT_LOST = replace(RIGHT_LOST, side=Side.LEFT)
NO_SIDE = Refusal(RefusalCode.SIDE_UNKNOWN, "Nothing says which knee this is.", uid(1))
WHOLE = Refusal(RefusalCode.IDENTITY_CONTRADICTORY, "PatientID differs between images of one study.")
LONG = "Because of " + " ".join(f"word-{number}" for number in range(115)) + " and " + "W" * 60 + "."


def refused(*refusals: Refusal, **changes: object) -> Composed:
    """A study of one image of which nothing was scored."""
    return compose(replace(study([], refusals, [image()]), **{"models": (MODEL,), **changes}), [header()], context())  # type: ignore[arg-type]


def card(*refusals: Refusal, **changes: object) -> Dataset:
    """Its only card."""
    (found,) = refused(*refusals, **changes).cards
    return found


def lines(dataset: Dataset) -> list[str]:
    """The caption as it is claimed."""
    return str(dataset.ImageComments).split(CAPTION_SEPARATOR)


def pixels(dataset: Dataset) -> npt.NDArray[np.uint8]:
    """The picture."""
    return np.frombuffer(dataset.PixelData, np.uint8).reshape(dataset.Rows, dataset.Columns, 3)


def written(dataset: Dataset) -> bytes:
    """The file that the object becomes."""
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("code", RefusalCode)
def test_every_reason_makes_a_card_that_is_valid_for_image_knee_and_study(code: RefusalCode, tmp_path: Path) -> None:
    for number, refusal in enumerate(
        (
            Refusal(code, "Because of 'this' value.", uid(1)),
            Refusal(code, "Because of 'this' value.", uid(1), Side.LEFT),
            Refusal(code, "Because of 'this' value."),
        )
    ):
        composed = refused(refusal)
        assert check_study(composed.all) == []
        for dataset in composed.cards:
            text = lines(dataset)
            assert any(line.endswith(f": {codes.REFUSALS[code].meaning}") for line in text)
            assert f"What to do: {codes.REMEDIES[code]}" in text
            assert "Found: Because of 'this' value." in text
            path = tmp_path / f"{number}.dcm"
            path.write_bytes(written(dataset))
            assert complaints(output_of(tool("dciodvfy"), path), ALLOWED["dciodvfy"]) == []
        assert len(composed.cards) == (0 if code is RefusalCode.UNSUPPORTED_SOP_CLASS and not refusal.source else 1)


def test_a_knee_whose_image_is_not_at_hand_is_named_on_the_card_of_the_study() -> None:
    composed = refused(Refusal(RefusalCode.UNDECODABLE_PIXELS, "Cut off.", uid(99), Side.LEFT))
    assert check_study(composed.all) == []
    (card,) = composed.cards
    assert card.ImageLaterality == "L"
    assert "LEFT knee of the study was not scored" in card.DerivationDescription


def test_one_refused_knee_of_two_has_its_card_beside_the_heatmap_of_the_other() -> None:
    other = knee(Side.LEFT, 3, size=FILM_SIZE, box=Box(320, 50, 620, 350))
    composed = compose(study([other], [RIGHT_LOST]), [header(size=FILM_SIZE)], context())
    assert check_study(composed.all) == []
    assert [int(d.SeriesNumber) for d in composed.all] == [9903, 9904, 9901]
    (found,) = composed.cards
    assert found.ImageLaterality == "R"
    assert lines(found)[:3] == [
        "RIGHT KNEE NOT SCORED",
        "There is no AI result for the RIGHT knee on this image. The other knee was scored: see its heatmap.",
        "Reason, RIGHT knee: No knee found in pixels",
    ]
    assert "Found: No frontal knee joint was found on the half." in lines(found)
    assert "LEFT" not in found.ImageComments


def test_both_knees_of_one_film_share_a_card() -> None:
    found = card(RIGHT_LOST, LEFT_LOST)
    assert check(found) == []
    assert (lines(found)[0], found.ImageLaterality) == ("BOTH KNEES NOT SCORED", "B")
    assert [line for line in lines(found) if line.startswith("Reason")] == [
        "Reason, RIGHT knee: No knee found in pixels",
        "Reason, LEFT knee: No knee found in pixels",
    ]


def test_several_reasons_of_one_image_stand_on_one_card() -> None:
    broken = Refusal(RefusalCode.UNDECODABLE_PIXELS, "Pixel Data has 28 bytes.", uid(1))
    found = card(RIGHT_LOST, NO_SIDE, broken, broken)
    assert check(found) == []
    assert not found.ImageLaterality
    assert lines(found)[0] == "NOT SCORED"
    assert sum(line.startswith("Reason") for line in lines(found)) == 3
    assert lines(found).count("Found: Pixel Data has 28 bytes.") == 1


def test_each_image_has_a_card_of_its_own_and_the_study_one_for_the_rest() -> None:
    elsewhere = Refusal(RefusalCode.UNREADABLE, "The file ends early.", uid(9))
    chest = Refusal(RefusalCode.NOT_A_KNEE, "BodyPartExamined is CHEST.", uid(2))
    findings = study([], [elsewhere, NO_SIDE, chest, WHOLE], [image(), image(2)])
    composed = compose(findings, [header(), header(2, PatientID="ANOTHER", InstanceNumber=7)], context())
    of_study, first, second = composed.cards
    assert "SourceImageSequence" not in of_study
    assert {line for line in lines(of_study) if line.startswith("Reason")} == {
        "Reason: Object cannot be read",
        "Reason: Patient identity contradictory",
    }
    assert lines(of_study)[1] == "There is no AI result for this study."
    for found, number in ((first, 1), (second, 2)):
        assert found.SourceImageSequence[0].ReferencedSOPInstanceUID == uid(number)
    assert (first.InstanceNumber, second.InstanceNumber) == (1, 7)
    assert len({found.SeriesInstanceUID for found in composed.cards}) == 1
    assert compare_identity(second, header(2, PatientID="ANOTHER")) == []
    assert compare_identity(of_study, header()) == []


def test_the_report_refers_to_the_card_of_each_refusal() -> None:
    composed = refused(NO_SIDE, Refusal(RefusalCode.UNREADABLE, "The file ends early.", uid(9)), WHOLE)
    of_image, of_study = composed.cards
    report = composed.report
    assert report is not None
    (measurements,) = children(report, codes.IMAGING_MEASUREMENTS.value)
    groups = children(measurements, codes.MEASUREMENT_GROUP.value)
    referred = [referenced_uid(children(group, codes.ILLUSTRATION.value)[0]) for group in groups]
    assert referred == [of_image.SOPInstanceUID, of_study.SOPInstanceUID]
    (container,) = children(report, codes.QUALITATIVE_EVALUATIONS.value)
    assert referenced_uid(children(container, codes.REFUSAL_CARD.value)[0]) == of_study.SOPInstanceUID
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    series = {entry.SeriesInstanceUID: entry for entry in evidence.ReferencedSeriesSequence}
    assert len(series[of_image.SeriesInstanceUID].ReferencedSOPSequence) == 2
    assert len(series[SERIES].ReferencedSOPSequence) == 1


def test_no_card_without_a_report_nor_for_objects_that_are_no_radiographs() -> None:
    nothing = StudyFindings(STUDY, refusals=(Refusal(RefusalCode.UNSUPPORTED_SOP_CLASS, "80 instances of MR."),))
    assert compose(nothing, [header()], context()).all == ()
    assert compose(study([], [NO_SIDE]), [], context()).all == ()
    dose = replace(image(5, (0, 0)), sop_class_uid=str(BasicTextSRStorage))
    beside = Refusal(RefusalCode.UNSUPPORTED_SOP_CLASS, "1 instance of SOP class Basic Text SR Storage.", uid(5))
    lost = Refusal(RefusalCode.UNREADABLE, "The file ends early.", uid(9))
    alone = compose(study([knee()], [beside], [dose]), [header()], context())
    assert (len(alone.cards), check_study(alone.all)) == (0, [])
    together = compose(study([knee()], [beside, lost], [dose]), [header()], context())
    assert check_study(together.all) == []
    assert "Basic Text" not in together.cards[0].ImageComments
    assert lines(together.cards[0])[1].startswith("There is no AI result for a part of this study;")


def test_the_object_says_what_it_is() -> None:
    found = card(NO_SIDE)
    assert (found.SeriesNumber, found.SeriesDescription) == (CARD_SERIES.number, "Genu AI refusal card (RESEARCH)")
    assert (found.ConversionType, found.BurnedInAnnotation, found.ContentQualification) == ("WSD", "YES", "RESEARCH")
    assert list(found.ImageType) == ["DERIVED", "SECONDARY"]
    assert found.Manufacturer == "Genu"  # so that it is never taken in
    assert "DerivationCodeSequence" not in found
    assert "Laterality" not in found
    assert found.LossyImageCompression == "00"
    assert f"Model {MODEL.name} {MODEL.version}, bundle {MODEL.digest[:12]}" in lines(found)
    assert "AI - RESEARCH - NOT FOR DIAGNOSIS" in lines(found)
    assert "Model" not in card(NO_SIDE, models=()).ImageComments
    assert lines(card(NO_SIDE, models=(STAND_IN,)))[-1] == "SYNTHETIC MODEL - NOT A RESULT"


def test_the_lossy_past_of_the_source_is_kept_and_that_of_no_source_is_none() -> None:
    lossy = header()
    lossy.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    of_image, of_study = compose(study([], [NO_SIDE, WHOLE], [image()]), [lossy], context()).cards
    assert (of_image.LossyImageCompression, of_study.LossyImageCompression) == ("01", "00")


def test_the_same_refusals_make_the_same_bytes_at_any_time() -> None:
    later = context(created=CREATED.replace(year=2030))
    findings = study([], [NO_SIDE, WHOLE], [image()])
    one, two = (compose(findings, [header()], c).cards for c in (context(), later))
    assert [written(a) for a in one] == [written(b) for b in two]


@pytest.mark.parametrize(
    "other",
    [
        replace(NO_SIDE, code=RefusalCode.VIEW_UNKNOWN),
        replace(NO_SIDE, reason="Another reason."),
        replace(NO_SIDE, side=Side.LEFT),
        replace(NO_SIDE, source=None),
    ],
)
def test_another_refusal_is_another_object(other: Refusal) -> None:
    assert card(NO_SIDE).SOPInstanceUID != card(other).SOPInstanceUID


@pytest.mark.parametrize(
    "changes", [{"configuration_digest": "c0"}, {"software_version": "0.2.0"}, {"device_uid": "2.25.9"}]
)
def test_other_circumstances_are_another_object(changes: dict[str, str]) -> None:
    findings = study([], [NO_SIDE], [image()])
    one, two = (compose(findings, [header()], c).cards[0] for c in (context(), context(**changes)))
    assert one.SOPInstanceUID != two.SOPInstanceUID


@pytest.mark.parametrize("film", [False, True])
def test_a_long_reason_is_wrapped_and_never_cut(film: bool) -> None:
    assert 900 < len(LONG) <= 1024
    long = replace(NO_SIDE, reason=LONG)
    renderings = {uid(1): rendering()} if film else {}
    found = card(long, renderings=renderings)
    assert check(found) == []
    assert f"Found: {LONG}" in lines(found)
    picture, text = pixels(found), lines(found)
    assert len(picture) > len(pixels(card(NO_SIDE, renderings=renderings))) + 200
    # Nothing is written at the right edge, over the film's column or below the last line.
    body = picture[200 : -caption_band(text[-3:], WIDTH, headed=False).shape[0]]
    edge = WIDTH - MARGIN - (FILM[0] if film else 0)
    assert (body[FILM[1] + 60 :, edge:] == BACKGROUND).all()
    assert (body[-10:] == BACKGROUND).all()


@pytest.mark.parametrize(("size", "width"), [(24, 600), (36, 932), (24, 40)])
def test_wrapping_keeps_every_letter_and_the_width(size: int, width: int) -> None:
    broken = wrapped(LONG, size, width)
    assert "".join("".join(broken).split()) == "".join(LONG.split())
    assert all(font(size).getlength(line) <= width for line in broken)
    assert wrapped("", size, width) == ("",)


def test_the_longest_caption_fits_into_image_comments_and_counts_what_it_leaves_out() -> None:
    many = [Refusal(code, f"{number} {LONG}", uid(1)) for code in RefusalCode for number in range(50)]
    found = card(*many)
    assert len(found.ImageComments) <= 10240
    assert f"{MORE}{50 * len(RefusalCode) - 8}" in lines(found)
    assert check_study(refused(*many).all) == []


@pytest.mark.parametrize("refusal", [NO_SIDE, RIGHT_LOST, replace(LEFT_LOST, source=None)])
def test_the_heading_is_legible_on_a_thumbnail(refusal: Refusal) -> None:
    found = card(refusal)
    small = Image.fromarray(pixels(found)).resize((128, round(128 * found.Rows / found.Columns)), Image.Resampling.BOX)
    grey = np.asarray(small.convert("L"), dtype=float)
    heading = grey[: 18 * len(lines(found)[0].split(" KNEE "))]
    inked = np.flatnonzero((heading[:, 26:] < 90).any(axis=1))
    assert inked.size >= 8 * len(lines(found)[0].split(" KNEE "))  # rows of letters
    assert heading.max() - heading.min() > 120


def test_the_film_is_shown_where_there_is_one_and_not_where_something_is_written_onto_it() -> None:
    bright = {uid(1): np.full((300, 200), 255, np.uint8)}
    assert (pixels(card(NO_SIDE, renderings=bright))[250:400, WIDTH - 300 : WIDTH - 120] == 255).all()
    without = pixels(card(NO_SIDE))
    assert not (without[250:, WIDTH - 300 :] == 255).all(axis=-1).any()
    findings = replace(study([], [NO_SIDE], [image()]), renderings=bright, models=(MODEL,))
    named = compose(findings, [header(BurnedInAnnotation="YES")], context()).cards[0]
    assert np.array_equal(pixels(named), without)
    for odd in ((1, 4000), (4000, 1), (3, 2)):
        assert check(card(NO_SIDE, renderings={uid(1): np.zeros(odd, np.uint8)})) == []


def test_a_card_shows_its_own_caption_only() -> None:
    text = card_lines([NO_SIDE], "There is no AI result for this image.", [MODEL], context())
    for film in (None, rendering()):
        assert shows(draw_card(text, film), text)
        assert not shows(draw_card([*text[:-1], "FOR DIAGNOSIS"], film), text)
    assert not shows(np.zeros((10, 10, 3), np.uint8), text)
    assert not shows(draw_card([], None), text)


@pytest.mark.parametrize("caption", [[], [""], ["NOT SCORED"], ["Software "], ["x" * 300, "Found: "]])
def test_any_caption_can_be_drawn(caption: Sequence[str]) -> None:
    assert draw_card(caption).shape[1:] == (WIDTH, 3)


def test_no_identity_and_ascii_only() -> None:
    source = header(PatientName="CANARY^ONE", PatientID="CANARY-2", ImageComments="CANARY 3")
    composed = compose(study([], [replace(NO_SIDE, reason="Caf\u00e9 \u819d.")], [image()]), [source], context())
    (found,) = composed.cards
    assert found.ImageComments.isascii()
    assert "CANARY" not in found.ImageComments + found.DerivationDescription
    assert check_study(composed.all) == []
