"""Predicted pain in reports and heatmaps: numbers, origin, model, and what the checker says of wrong ones."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from dicom_templates import codes
from dicom_templates.check_report import children, code_of, pain_of
from dicom_templates.checker import check, check_study
from dicom_templates.compose import Composed, compose
from dicom_templates.pain import ORIGIN
from inference.findings import KneeFinding, PainFinding, Side
from tests.dicom_templates.factory import MODEL, PAIN, PAIN_MODEL, context, header, knee, study


def composed(*knees: KneeFinding) -> Composed:
    return compose(study(knees), [header()], context())


def told(pain: PainFinding | None = PAIN) -> Composed:
    return composed(replace(knee(Side.LEFT), pain=pain))


def group_of(report: Dataset) -> Dataset:
    (measurements,) = children(report, codes.IMAGING_MEASUREMENTS.value)
    return children(measurements, codes.MEASUREMENT_GROUP.value)[0]


def report_of(objects: Composed) -> Dataset:
    assert objects.report is not None
    return objects.report


def test_the_numbers_stand_beside_each_other_with_their_unit() -> None:
    objects = told()
    assert check_study(objects.all) == []
    group = group_of(report_of(objects))
    assert pain_of(group) == (4.26, 0.0, 8.75)
    numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
    names = [item.ConceptNameCodeSequence[0].CodeValue for item in numbers]
    assert names[:4] == ["KL-EXPECTED", "PAIN-PREDICTED", "PAIN-LOW", "PAIN-HIGH"], "viewers may show five only"
    units = {str(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue) for item in numbers[1:4]}
    assert units == {"{score:0-10}"}


def test_the_score_names_its_own_model_and_coverage() -> None:
    report = report_of(told())
    (score,) = children(group_of(report), codes.PAIN.value)
    texts = {item.ConceptNameCodeSequence[0].CodeValue: item.get("TextValue") for item in score.ContentSequence}
    assert (texts["111001"], texts["111003"]) == (PAIN_MODEL.name, PAIN_MODEL.version)
    parameters = [item.TextValue for item in children(score, codes.ALGORITHM_PARAMETERS.value)]
    assert any("interval coverage=0.9" in parameter for parameter in parameters)
    equipment = [str(item.DeviceUID) for item in report.ContributingEquipmentSequence]
    assert equipment == [MODEL.device_uid, PAIN_MODEL.device_uid]


def test_words_and_pixels_say_that_nobody_asked_the_patient() -> None:
    objects = told()
    group = group_of(report_of(objects))
    assert [code_of(item) for item in children(group, codes.PAIN_ORIGIN.value)] == ["PAIN-FROM-IMAGE"]
    (sentence,) = [item.TextValue for item in children(group, codes.RESULT_TEXT.value)]
    assert f"predicted pain 4.3 of 10 (90 % interval 0.0 to 8.8), {ORIGIN}" in sentence
    (heatmap,) = objects.heatmaps
    lines = str(heatmap.ImageComments).splitlines()
    assert f"Predicted pain 4.3 of 10 (90 % interval 0.0 to 8.8), {ORIGIN}" in lines
    assert f"Model genu-pain 0.2.0, bundle {PAIN_MODEL.digest[:12]}" in lines


def test_the_reported_score_is_named_nowhere() -> None:
    for dataset in told().all:
        assert "72514-3" not in str(dataset)


def test_uids_follow_the_score_and_its_model() -> None:
    other = replace(PAIN_MODEL, digest="3e" * 32)
    kinds = [told(None), told(), told(replace(PAIN, score=4.5)), told(replace(PAIN, model=other))]
    assert len({report_of(objects).SOPInstanceUID for objects in kinds}) == 4
    assert len({objects.heatmaps[0].SOPInstanceUID for objects in kinds}) == 4
    series = [objects.heatmaps[0].SeriesInstanceUID for objects in kinds]
    assert series[1] == series[2]
    assert len(set(series)) == 3
    assert report_of(told()).SOPInstanceUID == report_of(kinds[1]).SOPInstanceUID


def test_without_pain_there_is_no_trace_of_it() -> None:
    for dataset in told(None).all:
        assert "pain" not in str(dataset).lower()


def test_a_stand_in_for_pain_alone_marks_every_object() -> None:
    objects = told(replace(PAIN, model=replace(PAIN_MODEL, synthetic=True)))
    assert check_study(objects.all) == []
    for dataset in objects.all:
        assert codes.MODEL_SYNTHETIC.meaning in str(dataset)
    kinds = children(group_of(report_of(objects)), codes.MODEL_KIND.value)
    assert [code_of(kind) for kind in kinds] == [codes.MODEL_SYNTHETIC.value]


def drop(code_value: str) -> Callable[[Dataset], None]:
    def change(group: Dataset) -> None:
        name = code_value
        group.ContentSequence = [item for item in group.ContentSequence if item not in children(group, name)]

    return change


def number(code_value: str, value: str) -> Callable[[Dataset], None]:
    def change(group: Dataset) -> None:
        (item,) = children(group, code_value)
        item.MeasuredValueSequence[0].NumericValue = value

    return change


def words(text: str) -> Callable[[Dataset], None]:
    def change(group: Dataset) -> None:
        (item,) = children(group, codes.RESULT_TEXT.value)
        item.TextValue = str(item.TextValue).replace(ORIGIN, text)

    return change


def renamed(group: Dataset) -> None:
    (item,) = children(group, codes.PAIN_LOW.value)
    name = item.ConceptNameCodeSequence[0]
    name.CodeValue, name.CodingSchemeDesignator = "72514-3", "LN"


def anonymous(group: Dataset) -> None:
    (item,) = children(group, codes.PAIN.value)
    drop(codes.ALGORITHM_NAME.value)(item)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (drop("PAIN-LOW"), "must be three numbers in order"),
        (number("PAIN-HIGH", "3"), "must be three numbers in order"),
        (number("PAIN-PREDICTED", "11"), "must be three numbers in order"),
        (number("PAIN-PREDICTED", "5.26"), "does not say the pain score 5.3"),
        (drop("PAIN-ORIGIN"), "does not say in code"),
        (drop("PAIN-PREDICTED"), "must be three numbers in order"),
        (words("as the patient said"), "does not say the pain score 4.3, or not"),
        (renamed, "that is a score that a patient gave"),
        (anonymous, "has no algorithm name"),
    ],
)
def test_the_checker_sees_it(change: Callable[[Dataset], None], complaint: str) -> None:
    report = report_of(told())
    change(group_of(report))
    assert [found for found in check(report) if complaint in found]


def test_the_checker_compares_heatmap_and_report() -> None:
    one, other = told(), told(replace(PAIN, score=5.0))
    other.heatmaps[0].SOPInstanceUID = one.heatmaps[0].SOPInstanceUID
    found = check_study([other.heatmaps[0], report_of(one)])
    assert [complaint for complaint in found if "shows pain ('5.0', '0.0', '8.8')" in complaint]
