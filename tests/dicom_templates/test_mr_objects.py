"""Results on MR series in report and pictures: what is told, of which images, and that the checker finds it right."""

from dataclasses import replace
from datetime import timedelta

import pytest
from pydicom.dataset import Dataset

from dicom_templates import codes, mr_codes
from dicom_templates.check_report import children, code_of, referenced_uid
from dicom_templates.checker import check_study, compare_identity
from dicom_templates.compose import Composed, compose
from dicom_templates.mr_drawing import BACKGROUND, MOST_BYTES
from dicom_templates.patient import COPIED
from inference.findings import Refusal, RefusalCode, Side, StudyFindings
from inference.mr_findings import VolumeFinding
from tests.dicom_templates import factory
from tests.dicom_templates.factory import CREATED, context, reread
from tests.dicom_templates.mr_findings import (
    PAIN,
    PROGRESSION,
    STAND_IN,
    pain_classes,
    progression,
    series,
    study,
    volume,
)
from tests.dicom_templates.test_compose import as_bytes, groups_of, report_of, texts
from tests.mr_phantoms import Grid, enhanced_series

LEFT = series()
SMALL = [2, 3, 4]


def composed(*volumes: VolumeFinding, headers: list[Dataset] = LEFT) -> Composed:
    return compose(study(volumes, headers=headers), headers, context())


def finding(side: Side = Side.LEFT, **changes: object) -> VolumeFinding:
    return replace(volume(LEFT, side, read=SMALL), **changes)  # type: ignore[arg-type]


def number(group: Dataset, code_value: str) -> float:
    (item,) = children(group, code_value)
    return float(item.MeasuredValueSequence[0].NumericValue)


def test_a_result_has_pictures_a_map_and_a_group_and_the_checker_is_silent() -> None:
    objects = composed(finding())
    assert [d.SOPClassUID.name for d in objects.all] == [
        "Multi-frame True Color Secondary Capture Image Storage",
        "Parametric Map Storage",
        "Comprehensive 3D SR Storage",
    ]
    assert objects.volumes == objects.all[:2]
    assert check_study(objects.all) == []
    assert [compare_identity(dataset, LEFT[0]) for dataset in objects.all] == [[], [], []]
    (group,) = groups_of(objects)
    pictures = [referenced_uid(item) for item in children(group, "130401")]
    assert pictures == [dataset.SOPInstanceUID for dataset in objects.volumes]


def test_the_group_tells_what_matters_first() -> None:
    (group,) = groups_of(composed(finding()))
    names = [i.ConceptNameCodeSequence[0].CodeValue for i in group.ContentSequence if i.ValueType == "NUM"]
    assert names == ["JSN-ABS-P", "OUTCOME-LOW", "OUTCOME-HIGH", "OUTCOME-CUT", "SLICES-READ", "SLICES-TOTAL"]
    values = [number(group, name) for name in names]
    assert values == [0.62, 0.41, 0.8, 0.4, 3, 13]
    assert [code_of(item) for item in children(group, "OUTCOME-DECISION")] == ["OUTCOME-ABOVE"]
    assert [code_of(item) for item in children(group, "OUTCOME-ORIGIN")] == ["PROG-FROM-IMAGE"]
    assert texts(group, "RESULT-TEXT") == [
        "LEFT knee: probability 0.62 (0.41 to 0.80) of joint space narrowing of 0.5 mm or more within 12 months, "
        "predicted from image, not measured, by a research model on the coronal IW TSE series; at or above the "
        "threshold of 0.40."
    ]
    assert texts(group, "SERIES-READ") == [
        "The coronal IW TSE series of this knee: its description names the sequence."
    ]
    assert texts(group, "CLINICAL-KNOWN") == ["age: 63 years, from PatientAge.", "sex: female, from PatientSex."]
    (imputed,) = texts(group, "CLINICAL-IMPUTED")
    assert imputed == "minimum joint space width: not known; the median of the training patients, 4.1 mm, stands in."
    assert texts(group, "SLICE-ATTENTION") == [
        "Share of attention: slice 5 of 13 0.44, slice 4 of 13 0.33, slice 3 of 13 0.22 (even shares would be 0.33)."
    ]
    assert [len(texts(group, row.value)) for row in mr_codes.EVIDENCE.values()] == [1, 1, 1, 0]
    assert texts(group, "111001") == [PROGRESSION.name]
    assert PROGRESSION.parameters in texts(group, "111002")


def test_a_series_known_by_its_timing_says_so() -> None:
    (group,) = groups_of(composed(finding(chosen_by="timing")))
    assert texts(group, "SERIES-READ") == [
        "The coronal IW TSE series of this knee: no description names the sequence, its timing fits."
    ]


@pytest.mark.parametrize(("value", "code"), [(0.4, "OUTCOME-ABOVE"), (0.39, "OUTCOME-BELOW")])
def test_the_threshold_is_told_as_it_is_meant(value: float, code: str) -> None:
    outcome = progression(value=value, low=(0.2, 0.1))
    objects = composed(finding(outcome=outcome))
    (group,) = groups_of(objects)
    assert [code_of(item) for item in children(group, "OUTCOME-DECISION")] == [code]
    assert check_study(objects.all) == []


@pytest.mark.parametrize(
    ("target", "concept", "words"),
    [
        ("progression_rel", "JSN-REL-P", "of joint space narrowing of a quarter or more within 12 months, predicted"),
        ("womac_pain_binary", "WOMAC-PAIN-P", "of WOMAC pain of 2 or more, predicted from image, not patient-reported"),
        ("something_else", "CLASS-P2", "joint space narrowing, class 'progression of 0.5 mm or more', predicted"),
    ],
)
def test_every_target_has_its_own_concept(target: str, concept: str, words: str) -> None:
    model = PAIN if target.startswith("womac") else PROGRESSION
    objects = composed(finding(outcome=progression(model, target=target)))
    (group,) = groups_of(objects)
    assert number(group, concept) == 0.62
    assert words in texts(group, "RESULT-TEXT")[0]
    assert check_study(objects.all) == []


def test_the_longest_description_of_a_series_is_not_too_long() -> None:
    right = volume(LEFT, Side.RIGHT, read=SMALL, outcome=pain_classes(), sequence="sagittal 3D DESS")
    descriptions = [dataset.SeriesDescription for dataset in composed(right).volumes]
    assert descriptions[0] == "Genu AI MR heatmap RIGHT, WOMAC class, sag 3D DESS (RESEARCH)"
    assert max(map(len, descriptions)) <= 64


def test_three_classes_are_all_told() -> None:
    objects = composed(finding(outcome=pain_classes()))
    (group,) = groups_of(objects)
    assert [number(group, name) for name in ("WOMAC-TOP-P", "CLASS-P1", "CLASS-P2")] == [0.5, 0.2, 0.3]
    assert not children(group, "OUTCOME-CUT") and not children(group, "OUTCOME-DECISION")
    assert "no pain 0.20, some pain 0.30, much pain 0.50." in texts(group, "RESULT-TEXT")[0]
    assert [code_of(item) for item in children(group, "OUTCOME-ORIGIN")] == ["PAIN-FROM-IMAGE"]
    assert check_study(objects.all) == []


def test_the_region_lies_on_the_slice_of_highest_saliency() -> None:
    found = finding()
    objects = composed(found)
    (group,) = groups_of(objects)
    (region,) = children(group, "111030")
    assert region.GraphicType == "POLYLINE"
    assert referenced_uid(region.ContentSequence[0]) == found.top.source.sop_instance_uid == LEFT[3].SOPInstanceUID
    box = found.region
    columns, rows = region.GraphicData[0::2], region.GraphicData[1::2]
    assert (min(columns), min(rows), max(columns), max(rows)) == pytest.approx(
        (box.left, box.top, box.right, box.bottom)
    )


def test_two_models_and_two_knees_are_told_apart() -> None:
    right = series(Side.RIGHT)
    both = [
        finding(),
        finding(outcome=pain_classes()),
        volume(right, Side.RIGHT, read=SMALL, outcome=progression(value=0.5)),
    ]
    objects = compose(study(both, headers=[*LEFT, *right]), [*LEFT, *right], context())
    assert check_study(objects.all) == []
    groups = groups_of(objects)
    trackings = [children(group, "112040")[0].UID for group in groups]
    assert len(set(trackings)) == 3
    assert [texts(group, "112039")[0] for group in groups] == [
        "LEFT knee, narrowing of 0.5 mm, coronal IW TSE",
        "LEFT knee, classes of WOMAC pain, coronal IW TSE",
        "RIGHT knee, narrowing of 0.5 mm, coronal IW TSE",
    ]
    assert len({d.SeriesInstanceUID for d in objects.volumes}) == 6, "one map a series: viewers read the first only"
    assert [(int(d.SeriesNumber), d.Modality) for d in objects.volumes[-2:]] == [(9905, "OT"), (9907, "MR")]
    assert [d.SeriesDescription for d in objects.volumes[:4]] == [
        "Genu AI MR heatmap LEFT, JSN 0.5 mm, cor IW TSE (RESEARCH)",
        "Genu AI MR map LEFT, JSN 0.5 mm, cor IW TSE (RESEARCH)",
        "Genu AI MR heatmap LEFT, WOMAC class, cor IW TSE (RESEARCH)",
        "Genu AI MR map LEFT, WOMAC class, cor IW TSE (RESEARCH)",
    ]
    again = composed(finding(outcome=progression(replace(PROGRESSION, digest="9f" * 32))))
    assert trackings[0] == children(groups_of(again)[0], "112040")[0].UID, "stable over models"


def test_the_same_work_gives_the_same_bytes_whatever_the_clock_says() -> None:
    first, second = composed(finding()), composed(finding())
    assert [as_bytes(a) for a in first.all] == [as_bytes(b) for b in second.all]
    later = compose(study([finding()], headers=LEFT), LEFT, context(created=CREATED + timedelta(days=1)))
    assert [as_bytes(a) for a in first.volumes] == [as_bytes(b) for b in later.volumes]
    assert (first.volumes[1].ContentDate, first.volumes[1].ContentTime) == ("20240102", "101500"), "of the source"


def test_other_results_have_other_uids() -> None:
    kinds = [
        finding(),
        finding(outcome=progression(value=0.5)),
        finding(outcome=progression(STAND_IN)),
        volume(LEFT, read=[2, 3]),
        replace(finding(), slices=tuple(replace(one, attention=1 / 3) for one in finding().slices)),
    ]
    objects = [composed(kind) for kind in kinds]
    assert len({report_of(each).SOPInstanceUID for each in objects}) == len(kinds)
    assert len({each.volumes[0].SOPInstanceUID for each in objects}) == len(kinds)


def test_a_stand_in_says_so_in_every_object() -> None:
    objects = composed(finding(outcome=progression(STAND_IN)))
    for dataset in objects.all:
        assert codes.MODEL_SYNTHETIC.meaning in str(dataset)
    assert check_study(objects.all) == []
    assert all(codes.MODEL_SYNTHETIC.meaning not in str(dataset) for dataset in composed(finding()).all)


def test_every_slice_that_was_read_has_its_picture() -> None:
    found = finding()
    frames = composed(found).volumes[0]
    assert frames.NumberOfFrames == 3
    assert list(frames.PageNumberVector) == [3, 4, 5]
    assert [item.ReferencedSOPInstanceUID for item in frames.SourceImageSequence] == [
        LEFT[index].SOPInstanceUID for index in SMALL
    ]
    assert frames.ImageComments.split("\r\n") == [
        "LEFT KNEE   probability 0.62 (0.41 to 0.80)",
        "Joint space narrowing of 0.5 mm or more within 12 months, predicted from image, not measured",
        "The probability is at or above the threshold of 0.40",
        "Coronal IW TSE, 3 of 13 slices read",
        f"Model genu-jsn 0.1.0, bundle {PROGRESSION.digest[:12]}",
        "AI - RESEARCH - NOT FOR DIAGNOSIS",
        "Attention of the slices: 3:0.2222 4:0.3333 5:0.4444",
    ]
    pixels = frames.pixel_array
    warm = pixels[:, :260, :, 0].astype(int) - pixels[:, :260, :, 2]
    heat = warm[:, :, : pixels.shape[2] // 2].max(axis=(1, 2)), warm[:, :, pixels.shape[2] // 2 : -40].max(axis=(1, 2))
    assert (heat[0] < 20).all() and (heat[1] > 40).all(), "the plain panel is grey, the other one is not"
    assert heat[1].argmax() == found.peak


def test_many_slices_stay_small() -> None:
    grid = Grid("sagittal", slices=64, rows=24, columns=24, row_mm=3.6, column_mm=3.6, step_mm=1)
    headers = series(grid=grid)
    frames = composed(volume(headers, grid=grid, read=range(64)), headers=headers).volumes[0]
    assert frames.NumberOfFrames == 64
    assert 30e6 < len(frames.PixelData) < 32e6 < MOST_BYTES, "docs/objects.md says 31 MB"
    few = composed(volume(headers, grid=grid, read=range(8)), headers=headers).volumes[0]
    assert 5.5e6 < len(few.PixelData) < 6.5e6
    assert frames.Columns <= 512


def test_one_slice_is_enough() -> None:
    objects = composed(volume(LEFT, read=[6]))
    assert "FrameIncrementPointer" not in objects.volumes[0]
    assert objects.volumes[1].NumberOfFrames == 1
    assert check_study(objects.all) == []


def test_of_many_images_the_report_lists_what_was_read_and_one_of_each_other_series() -> None:
    other = series(Side.RIGHT)
    objects = compose(study([finding()], headers=[*LEFT, *other]), [*LEFT, *other], context())
    (library,) = children(report_of(objects), "111028")
    listed = [referenced_uid(item) for part in library.ContentSequence for item in children(part, "260753009")]
    assert listed == [LEFT[index].SOPInstanceUID for index in SMALL] + [other[0].SOPInstanceUID]
    evidence = report_of(objects).CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    named = {i.ReferencedSOPInstanceUID for entry in evidence for i in entry.ReferencedSOPSequence}
    assert named == {*listed, *(dataset.SOPInstanceUID for dataset in objects.volumes)}


def test_frames_of_an_enhanced_object_are_named() -> None:
    (source,) = headers = [reread(enhanced_series(shuffle=3))]
    found = volume(headers, read=SMALL)
    objects = composed(found, headers=headers)
    assert check_study(objects.all) == []
    frames = [one.source.frame for one in found.slices]
    (group,) = groups_of(objects)
    selected = children(group, "111030")[0].ContentSequence[0].ReferencedSOPSequence[0]
    assert selected.ReferencedFrameNumber == frames[1]
    (library,) = children(report_of(objects), "111028")
    (entry,) = children(library.ContentSequence[0], "260753009")
    assert list(entry.ReferencedSOPSequence[0].ReferencedFrameNumber) == sorted(frames)
    pictures, mapped = objects.volumes
    (item,) = pictures.SourceImageSequence
    assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert list(item.ReferencedFrameNumber) == frames
    derived = [f.DerivationImageSequence[0].SourceImageSequence[0] for f in mapped.PerFrameFunctionalGroupsSequence]
    assert [each.ReferencedFrameNumber for each in derived] == frames


def procedures(objects: Composed) -> list[str]:
    return [code_of(item) for item in children(report_of(objects), "121058")]


def test_the_procedure_is_what_was_scored_else_what_was_looked_at() -> None:
    assert procedures(composed(finding())) == ["25056-3"]
    film = factory.header(StudyInstanceUID=str(LEFT[0].StudyInstanceUID))
    both = replace(
        study([finding()], headers=LEFT),
        knees=(factory.knee(),),
        radiographs=1,
        renderings={factory.uid(1): factory.rendering()},
        models=(PROGRESSION, factory.MODEL),
    )
    objects = compose(both, [*LEFT, film], context())
    assert procedures(objects) == ["363679005", "25056-3"]
    assert [c for c in check_study(objects.all) if "differs between" not in c] == [], "of two patients, made up here"
    refused = [Refusal(RefusalCode.WRONG_PLANE, "The slices are axial.", LEFT[0].SOPInstanceUID)]
    assert procedures(compose(study([], refused, LEFT), LEFT, context())) == ["25056-3"]
    mixed = replace(study([], refused, LEFT), radiographs=1)
    assert procedures(compose(mixed, LEFT, context())) == ["363679005", "25056-3"]


REFUSED = (
    RefusalCode.WRONG_PLANE,
    RefusalCode.WRONG_SEQUENCE,
    RefusalCode.TOO_FEW_SLICES,
    RefusalCode.INCONSISTENT_GEOMETRY,
    RefusalCode.SIDE_UNKNOWN,
    RefusalCode.SIDE_CONTRADICTORY,
    RefusalCode.NOT_A_KNEE,
    RefusalCode.DERIVED_IMAGE,
    RefusalCode.UNDECODABLE_PIXELS,
)


@pytest.mark.parametrize("code", REFUSED)
def test_a_refused_series_reads_like_one(code: RefusalCode) -> None:
    refusal = Refusal(code, "Because of 'this' value.", LEFT[0].SOPInstanceUID)
    objects = compose(study([], [refusal], LEFT), LEFT, context())
    assert check_study(objects.all) == []
    (group,) = groups_of(objects)
    assert [code_of(item) for item in children(group, "EXTENT")] == ["EXTENT-SERIES"]
    assert texts(group, "REFUSAL-TEXT")[0].startswith("MR series not scored by a model. ")
    (card,) = objects.cards
    lines = card.ImageComments.split("\r\n")
    assert lines[0] == "MR SEQUENCE NOT SCORED"
    assert "film" not in card.ImageComments.lower() and "radiograph" not in card.ImageComments.lower()
    assert f"What to do: {codes.SERIES_REMEDIES[code]}" in lines


def test_a_refused_series_of_one_knee_names_it_beside_a_result() -> None:
    right = series(Side.RIGHT)
    refusal = Refusal(RefusalCode.INCONSISTENT_GEOMETRY, "A slice is missing.", right[0].SOPInstanceUID, Side.RIGHT)
    objects = compose(study([finding()], [refusal], [*LEFT, *right]), [*LEFT, *right], context())
    assert check_study(objects.all) == []
    group = groups_of(objects)[1]
    assert texts(group, "REFUSAL-TEXT")[0].startswith("MR series of RIGHT knee not scored by a model. ")
    (card,) = objects.cards
    assert card.ImageLaterality == "R"
    assert "for the RIGHT knee: it cannot score this series" in card.ImageComments


def test_a_refusal_of_a_study_of_mr_series_names_no_film() -> None:
    for refusal in (Refusal(RefusalCode.SIDE_UNKNOWN, "Nothing says which knee."),):
        objects = compose(study([], [refusal], LEFT), LEFT, context())
        assert check_study(objects.all) == []
        assert "film" not in objects.cards[0].ImageComments.lower()
        assert "There is no AI result for this study." in objects.cards[0].ImageComments


def test_an_mr_image_without_a_model_for_it_is_refused_as_before() -> None:
    """Beside a scored film, where no bundle for MR serves: the SOP class, one sentence, no card."""
    refusal = Refusal(RefusalCode.UNSUPPORTED_SOP_CLASS, "13 MR images are not scored.", LEFT[0].SOPInstanceUID)
    findings = StudyFindings(
        study_instance_uid=str(LEFT[0].StudyInstanceUID),
        refusals=(refusal,),
        radiographs=1,
        looked_at=study(headers=LEFT).looked_at,
    )
    objects = compose(findings, LEFT, context())
    (group,) = groups_of(objects)
    assert [code_of(item) for item in children(group, "EXTENT")] == ["EXTENT-IMAGE"]
    assert objects.cards == ()


def test_no_identity_outside_of_the_patient_and_study_modules() -> None:
    headers = [reread(header) for header in series()]
    for header in headers:
        header.PatientName, header.PatientID, header.PatientComments = "CANARY^ONE", "CANARY-2", "CANARY"
        for keyword in ("InstitutionName", "SeriesDescription", "ProtocolName", "ImageComments", "StationName"):
            setattr(header, keyword, "CANARY 3")
    for dataset in composed(volume(headers, read=SMALL), headers=headers).all:
        assert "CANARY" in str(dataset.PatientName)
        for keyword in COPIED:
            if keyword in dataset:
                del dataset[keyword]
        assert b"CANARY" not in as_bytes(dataset)


def test_pixels_that_are_not_square_are_shown_in_millimetres() -> None:
    grid = Grid(rows=20, columns=40, row_mm=4.0, column_mm=2.0)
    headers = series(grid=grid)
    frames = composed(volume(headers, grid=grid, read=SMALL), headers=headers).volumes[0]
    panel = frames.pixel_array[0][20:276, 8:264]
    assert (panel != BACKGROUND).any(axis=2).all(), "80 mm high and 80 mm wide: a square"


def test_beside_a_film_without_a_model_for_mr_every_image_is_listed() -> None:
    film = factory.header(StudyInstanceUID=str(LEFT[0].StudyInstanceUID))
    findings = replace(
        study(headers=LEFT),
        knees=(factory.knee(),),
        radiographs=1,
        mr_images=0,
        renderings={factory.uid(1): factory.rendering()},
        models=(factory.MODEL,),
    )
    objects = compose(findings, [*LEFT, film], context())
    (library,) = children(report_of(objects), "111028")
    assert sum(len(children(part, "260753009")) for part in library.ContentSequence) == len(LEFT) + 1
