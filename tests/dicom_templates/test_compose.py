"""What is composed: the same bytes for the same work, other names for other work, each result in its place."""

from dataclasses import replace
from datetime import timedelta
from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_templates import codes
from dicom_templates.check_report import children, code_of, referenced_uid
from dicom_templates.checker import check_study, compare_identity
from dicom_templates.compose import Composed, PredecessorRef, compose
from dicom_templates.patient import COPIED
from inference.findings import Box, Refusal, RefusalCode, Side, SourceImage, Spacing, StudyFindings
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
    study,
    uid,
)

FILM = (400, 600)
BOTH = (
    knee(Side.RIGHT, 0, size=FILM, box=Box(20, 50, 280, 350)),
    knee(Side.LEFT, 3, size=FILM, box=Box(320, 50, 620, 350)),
)
EARLIER = PredecessorRef(STUDY, "2.25.77", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.78")


def as_bytes(dataset: Dataset) -> bytes:
    """The file that the object becomes."""
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def report_of(composed: Composed) -> Dataset:
    """The report, which must be there."""
    assert composed.report is not None
    return composed.report


def groups_of(composed: Composed) -> list[Dataset]:
    """The measurement groups of the report."""
    parts = children(report_of(composed), codes.IMAGING_MEASUREMENTS.value)
    return [group for part in parts for group in children(part, codes.MEASUREMENT_GROUP.value)]


def texts(item: Dataset, code_value: str) -> list[str]:
    """The TEXT values with this concept name."""
    return [child.TextValue for child in children(item, code_value)]


def test_the_same_work_gives_the_same_bytes() -> None:
    first = compose(study(BOTH), [header(size=FILM)], context())
    second = compose(study(BOTH), [header(size=FILM)], context())
    assert len(first.all) == 3
    assert [as_bytes(a) for a in first.all] == [as_bytes(b) for b in second.all]
    assert first.all[-1] is first.report


def test_the_order_of_headers_does_not_matter() -> None:
    headers = [header(1, FILM), header(2, PatientID="ANOTHER")]
    refusal = [Refusal(RefusalCode.NOT_A_KNEE, "x", uid(2))]
    findings = study(BOTH, refusal, [image(2)])
    one, two = compose(findings, headers, context()), compose(findings, headers[::-1], context())
    assert [as_bytes(a) for a in one.all] == [as_bytes(b) for b in two.all]
    assert compare_identity(report_of(one), headers[0]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"configuration_digest": "c0"},
        {"input_digest": "d1"},
        {"software_version": "0.2.0"},
        {"device_uid": "2.25.9"},
        {"predecessors": (EARLIER,)},
    ],
)
def test_other_circumstances_give_another_report(changes: dict[str, object]) -> None:
    one = report_of(compose(study(BOTH), [header(size=FILM)], context()))
    two = report_of(compose(study(BOTH), [header(size=FILM)], context(**changes)))
    assert one.SOPInstanceUID != two.SOPInstanceUID


def test_the_clock_does_not_change_a_uid() -> None:
    later = context(created=CREATED + timedelta(days=1))
    one, two = (compose(study(BOTH), [header(size=FILM)], c) for c in (context(), later))
    assert [d.SOPInstanceUID for d in one.all] == [d.SOPInstanceUID for d in two.all]
    assert report_of(two).ContentDate == "20261123"


def test_another_model_gives_other_objects_and_the_same_knee() -> None:
    one, two = (compose(study([knee(model=m)]), [header()], context()) for m in (MODEL, STAND_IN))
    assert not {d.SOPInstanceUID for d in one.all} & {d.SOPInstanceUID for d in two.all}
    assert not {d.SeriesInstanceUID for d in one.all} & {d.SeriesInstanceUID for d in two.all}
    trackings = [children(groups_of(c)[0], "112040")[0].UID for c in (one, two)]
    assert trackings[0] == trackings[1]


def test_a_superseding_report_names_the_earlier_one_and_keeps_the_heatmap() -> None:
    first = compose(study([knee()]), [header()], context())
    earlier = report_of(first)
    reference = PredecessorRef(STUDY, earlier.SeriesInstanceUID, earlier.SOPClassUID, earlier.SOPInstanceUID)
    more = study([knee()], [Refusal(RefusalCode.NOT_A_KNEE, "BodyPartExamined is CHEST.", uid(2))], [image(2)])
    later = context(created=CREATED + timedelta(minutes=9), predecessors=(reference,))
    second = compose(more, [header(), header(2)], later)
    report = report_of(second)
    item = report.PredecessorDocumentsSequence[0]
    assert item.StudyInstanceUID == STUDY
    assert item.ReferencedSeriesSequence[0].SeriesInstanceUID == earlier.SeriesInstanceUID
    instance = item.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert instance.ReferencedSOPInstanceUID == earlier.SOPInstanceUID
    assert report.SOPInstanceUID != earlier.SOPInstanceUID
    assert report.SeriesInstanceUID == earlier.SeriesInstanceUID
    assert (earlier.InstanceNumber, report.InstanceNumber) == (1, 2)
    assert as_bytes(first.heatmaps[0]) == as_bytes(second.heatmaps[0])


def test_nothing_to_score_and_nobody_to_attach_to_give_nothing() -> None:
    nothing = StudyFindings(study_instance_uid=STUDY, radiographs=0)
    assert compose(nothing, [header()], context()).all == ()
    unreadable = study([], [Refusal(RefusalCode.UNREADABLE, "The file ends after 12 bytes.")])
    assert compose(unreadable, [], context()).all == ()


def test_a_missing_rendering_is_named() -> None:
    findings = StudyFindings(study_instance_uid=STUDY, knees=(knee(),), radiographs=1)
    with pytest.raises(ValueError, match=uid(1)):
        compose(findings, [header()], context())


def test_the_same_image_in_another_study_has_a_heatmap_of_its_own() -> None:
    here = compose(study([knee()]), [header()], context()).heatmaps[0]
    other = replace(study([knee()]), study_instance_uid=uid(777))
    there = compose(other, [header(StudyInstanceUID=uid(777))], context()).heatmaps[0]
    assert here.StudyInstanceUID != there.StudyInstanceUID
    assert here.SOPInstanceUID != there.SOPInstanceUID


def test_each_knee_has_its_group_with_side_region_grade_and_heatmap() -> None:
    composed = compose(study(BOTH), [header(size=FILM)], context())
    for finding, group, heatmap in zip(BOTH, groups_of(composed), composed.heatmaps, strict=True):
        site = children(group, codes.FINDING_SITE.value)[0]
        assert code_of(site) == "49076000"
        assert code_of(children(site, codes.LATERALITY.value)[0]) == codes.SIDES[finding.side].value
        assert [code_of(item) for item in children(group, "KL-GRADE")] == [f"KL-{finding.kl.grade}"]
        numbers = [float(children(group, f"KL-P{g}")[0].MeasuredValueSequence[0].NumericValue) for g in range(5)]
        assert numbers == pytest.approx(list(finding.kl.probabilities))
        assert referenced_uid(children(group, "130401")[0]) == heatmap.SOPInstanceUID
        region = children(group, "111030")[0]
        assert region.GraphicType == "POLYLINE"
        assert region.GraphicData[:2] == region.GraphicData[-2:] == [finding.box.left, finding.box.top]
        assert max(region.GraphicData[0::2]) == min(finding.box.right, 600)
        assert referenced_uid(region.ContentSequence[0]) == uid(1)
        assert texts(group, "111001") == [MODEL.name]
        assert texts(group, "111003") == [MODEL.version]
        assert "temperature=1.13" in texts(group, "111002")
        assert texts(group, "EV-SIDE") == [f"ImageLaterality = {finding.side.value} speaks for {finding.side.value}"]
        assert heatmap.Laterality == finding.side.value
        assert f"KL {finding.kl.grade}" in heatmap.ImageComments


@pytest.mark.parametrize(
    ("spacing", "sentence"),
    [
        (None, None),
        (
            Spacing("calibrated", 0.13, 0.14, "PixelSpacing, FIDUCIAL"),
            "0.13 mm (rows) x 0.14 mm (columns), PixelSpacing, FIDUCIAL: in the patient, at the calibrated depth.",
        ),
        (
            Spacing("detector", 0.143, 0.143, "ImagerPixelSpacing"),
            "ImagerPixelSpacing: at the detector, not corrected for magnification; lengths in the patient are smaller, "
            "so no lengths are given.",
        ),
        (
            Spacing("unknown origin", 0.1, 0.1, "PixelSpacing"),
            "PixelSpacing: nothing says whether it is corrected for magnification, so no lengths are given.",
        ),
        (Spacing("none", None, None, ""), "No pixel spacing: lengths are not known."),
        (
            Spacing("none", None, None, "PixelSpacing is not usable"),
            "No pixel spacing (PixelSpacing is not usable): lengths are not known.",
        ),
    ],
)
def test_the_pixel_spacing_is_told_with_where_it_holds(spacing: Spacing | None, sentence: str | None) -> None:
    composed = compose(study([knee(spacing=spacing)]), [header()], context())
    assert texts(groups_of(composed)[0], "PIXEL-SPACING") == ([] if sentence is None else [sentence])
    assert check_study(composed.all) == []


@pytest.mark.parametrize(("grades", "words"), [((1, 2), "KL 2 (1-2, 90 %)"), ((2,), "KL 2 (2, 90 %)"), (None, "KL 2")])
def test_a_conformal_set_is_told_in_codes_in_words_and_in_the_picture(
    grades: tuple[int, ...] | None, words: str
) -> None:
    composed = compose(study([knee(conformal_set=grades)]), [header()], context())
    group = groups_of(composed)[0]
    assert [code_of(item) for item in children(group, "KL-SET")] == [f"KL-{grade}" for grade in grades or ()]
    (sentence,) = texts(group, "RESULT-TEXT")
    assert f"LEFT knee: {words}{', ' if grades else ' ('}Kellgren-Lawrence grade 2 (minimal)" in sentence
    assert ("holds the true grade of 90 %" in sentence) == (grades is not None)
    (heatmap,) = composed.heatmaps
    assert heatmap.ImageComments.startswith(f"LEFT KNEE   {words}   probability 0.80")
    assert f"{words}; source columns" in heatmap.DerivationDescription
    assert check_study(composed.all) == []


def test_a_frame_of_a_multi_frame_source_is_named() -> None:
    finding = knee()
    source = SourceImage(**{**vars(finding.source), "frame": 3})
    composed = compose(study([type(finding)(**{**vars(finding), "source": source})]), [header()], context())
    region = children(groups_of(composed)[0], "111030")[0]
    assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 3
    assert composed.heatmaps[0].SourceImageSequence[0].ReferencedFrameNumber == 3


@pytest.mark.parametrize("grade", range(5))
def test_no_object_says_osteoarthritis(grade: int) -> None:
    for dataset in compose(study([knee(grade=grade)]), [header()], context()).all:
        assert b"osteoarthritis" not in as_bytes(dataset).lower()


@pytest.mark.parametrize("code", RefusalCode)
def test_every_refusal_is_coded_and_told(code: RefusalCode) -> None:
    findings = study([], [Refusal(code, "Because of 'this' value.", uid(1), Side.LEFT)], [image()])
    group = groups_of(compose(findings, [header()], context()))[0]
    assert [code_of(item) for item in children(group, "REFUSAL")] == [codes.REFUSALS[code].value]
    assert [code_of(item) for item in children(group, "EXTENT")] == ["EXTENT-KNEE"]
    assert texts(group, "REFUSAL-TEXT")[0].startswith("LEFT knee not scored. ")
    assert texts(group, "REFUSAL-TEXT")[0].endswith("Because of 'this' value.")


def test_refusals_of_study_image_and_knee_stand_beside_scored_knees() -> None:
    refusals = [
        Refusal(RefusalCode.SIDE_UNKNOWN, "One half shows no side.", uid(1), Side.RIGHT),
        Refusal(RefusalCode.NOT_A_KNEE, "BodyPartExamined is CHEST.", uid(2)),
        Refusal(RefusalCode.NO_FRONTAL_VIEW, "No frontal view of the other knee."),
        Refusal(RefusalCode.UNREADABLE, "The file ends early.", uid(9)),
    ]
    composed = compose(study([knee()], refusals, [image(2)]), [header(), header(2)], context())
    groups = groups_of(composed)
    extents = [code_of(item) for group in groups for item in children(group, "EXTENT")]
    assert extents == ["EXTENT-KNEE", "EXTENT-IMAGE", "EXTENT-STUDY"]
    trackings = {children(group, "112040")[0].UID for group in groups}
    assert len(trackings) == 4
    container = children(report_of(composed), "C0034375")[0]
    assert [code_of(item) for item in children(container, "REFUSAL")] == ["R-UNREADABLE"]
    assert check_study(composed.all) == []


def test_a_purely_refused_study_gives_a_report_of_refusals_only() -> None:
    for images in ([image()], []):
        findings = study([], [Refusal(RefusalCode.NO_FRONTAL_VIEW, "Only a lateral view.")], images)
        composed = compose(findings, [header()], context())
        assert composed.heatmaps == ()
        report = report_of(composed)
        assert "ContributingEquipmentSequence" not in report
        assert not [group for group in groups_of(composed) if children(group, "KL-GRADE")]
        assert b"R-NO-FRONTAL" in as_bytes(report)
        assert check_study(composed.all) == []


def test_a_stand_in_model_says_so_everywhere() -> None:
    for dataset in compose(study([knee(model=STAND_IN)]), [header()], context()).all:
        assert as_bytes(dataset).count(b"SYNTHETIC MODEL - NOT A RESULT") >= 3
    for dataset in compose(study([knee()]), [header()], context()).all:
        assert b"SYNTHETIC" not in as_bytes(dataset)


def test_series_are_fixed() -> None:
    composed = compose(study(BOTH), [header(size=FILM)], context())
    seen = [(int(d.SeriesNumber), d.SeriesDescription, d.Modality) for d in composed.all]
    assert seen == [
        (9902, "Genu AI heatmap RIGHT knee (RESEARCH)", "OT"),
        (9903, "Genu AI heatmap LEFT knee (RESEARCH)", "OT"),
        (9901, "Genu AI knee report (RESEARCH)", "SR"),
    ]
    assert len({d.SeriesInstanceUID for d in composed.all}) == 3
    assert SERIES not in {d.SeriesInstanceUID for d in composed.all}


def test_times_follow_the_offset_of_the_source() -> None:
    plain = report_of(compose(study([knee()]), [header()], context()))
    assert (plain.ContentDate, plain.ContentTime) == ("20261122", "103015")
    moved = report_of(compose(study([knee()]), [header(TimezoneOffsetFromUTC="-1030")], context()))
    assert (moved.ContentDate, moved.ContentTime) == ("20261121", "230015")


def test_the_lossy_past_and_the_orientation_of_the_source_are_kept() -> None:
    lossy = header(
        LossyImageCompression="01", LossyImageCompressionRatio="7.5", LossyImageCompressionMethod="ISO_10918_1"
    )
    heatmap = compose(study([knee()]), [lossy], context()).heatmaps[0]
    assert heatmap.LossyImageCompression == "01"
    assert heatmap.LossyImageCompressionRatio == 7.5
    assert heatmap.LossyImageCompressionMethod == "ISO_10918_1"
    assert list(heatmap.PatientOrientation) == ["L", "F"]
    odd = compose(study([knee()]), [header(PatientOrientation=None)], context()).heatmaps[0]
    assert odd.LossyImageCompression == "00"
    assert "PatientOrientation" in odd
    assert not odd.PatientOrientation


def test_no_identity_outside_of_the_patient_and_study_modules() -> None:
    canary = "CANARY"
    free = ["InstitutionName", "OperatorsName", "SeriesDescription", "ProtocolName", "ImageComments", "StationName"]
    source = header(PatientName="CANARY^ONE", PatientID="CANARY-2", PatientComments="CANARY")
    for keyword in free:
        setattr(source, keyword, "CANARY 3")
    for dataset in compose(study([knee()]), [source], context()).all:
        assert canary in str(dataset.PatientName)
        for keyword in COPIED:
            if keyword in dataset:
                del dataset[keyword]
        assert canary.encode() not in as_bytes(dataset)
