"""What headers say of the side: stated, hinted or contradictory; and which way the film lies."""

from typing import Any

import pytest
from pydicom.dataset import Dataset

from inference.findings import RefusalCode, Side
from inference.sides import BOTH
from tests import phantoms
from tests.judging import bare, judged, outcome
from tests.phantoms import code

C = RefusalCode
# The phantoms are given odd values on purpose; pydicom warns when they are set.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR CS")


@pytest.mark.parametrize(("orientation", "to_left"), [("L\\F", True), ("R\\F", False), ("LF\\FR", True)])
def test_patient_orientation_decides_the_halves(orientation: str, to_left: bool) -> None:
    (candidate,) = judged(phantoms.dx_bilateral(orientation=orientation)).candidates
    assert (candidate.stating.side, candidate.stating.source) == (BOTH, "ImageLaterality")
    assert candidate.stating.columns_to_left is to_left


@pytest.mark.parametrize("orientation", [None, "L", "L\\R", "Q\\F", "LEFT\\F", "LR\\F", "RL\\F", "L\\FH"])
def test_unusable_orientation_says_nothing(orientation: str | None) -> None:
    (candidate,) = judged(phantoms.dx_bilateral(orientation=orientation)).candidates
    assert (candidate.stating.side, candidate.stating.columns_to_left) == (BOTH, None)


@pytest.mark.parametrize("orientation", ["A\\F", "P\\F", "PL\\FH", "R\\P", "F\\A"])
def test_orientation_of_a_lateral_or_axial_film_contradicts_a_frontal_view(orientation: str) -> None:
    for ds in (phantoms.dx_bilateral(orientation=orientation), phantoms.dx_knee("L")):
        ds.PatientOrientation = orientation.split("\\")
        (refusal,) = judged(ds).refusals
        assert refusal.code is C.NO_FRONTAL_VIEW
        assert f"PatientOrientation is {orientation}," in refusal.reason


@pytest.mark.parametrize("orientation", ["F\\L", "HR\\L", "L\\H", "R\\HA"])
def test_films_on_their_side_or_head_down_are_refused(orientation: str) -> None:
    silent = bare(BodyPartExamined="KNEE", ViewPosition="AP")
    for ds in (phantoms.dx_bilateral(), phantoms.dx_knee("L"), silent):
        ds.PatientOrientation = orientation.split("\\")
        (refusal,) = judged(ds).refusals
        assert refusal.code is C.FILM_TURNED
        assert f"PatientOrientation is {orientation}:" in refusal.reason


def _modified(value: str) -> list[Dataset]:
    region = code("72696002", "SCT", "Knee")
    region.AnatomicRegionModifierSequence = [code(value, "SCT", "side")]
    return [region]


def _framed(side: str) -> list[Dataset]:
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality = side
    group.FrameAnatomySequence = [anatomy]
    return [group]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, None),
        ({"ImageLaterality": "U"}, None),
        ({"ImageLaterality": ""}, None),
        ({"ImageLaterality": "R"}, Side.RIGHT),
        ({"ImageLaterality": "r"}, Side.RIGHT),
        ({"ImageLaterality": "RT"}, Side.RIGHT),
        ({"ImageLaterality": "LEFT KNEE", "Laterality": "R"}, C.SIDE_CONTRADICTORY),
        ({"ImageLaterality": ["R", "L"]}, C.SIDE_CONTRADICTORY),
        ({"ImageLaterality": ["", "L"]}, Side.LEFT),
        ({"ImageLaterality": "X"}, None),
        ({"Laterality": "L"}, Side.LEFT),
        ({"Laterality": "R", "ImageLaterality": "U"}, Side.RIGHT),
        ({"SharedFunctionalGroupsSequence": _framed("R")}, Side.RIGHT),
        ({"AnatomicRegionSequence": _modified("24028007")}, Side.RIGHT),
        ({"AnatomicRegionSequence": _modified("7771000")}, Side.LEFT),
        ({"SeriesDescription": "Knee right"}, Side.RIGHT),
        ({"SeriesDescription": "Lt knee"}, Side.LEFT),
        ({"SeriesDescription": "LKNEE"}, Side.LEFT),
        ({"SeriesDescription": "RKNEE", "ImageLaterality": "L"}, C.SIDE_CONTRADICTORY),
        ({"SeriesDescription": "Genou droit"}, Side.RIGHT),
        ({"SeriesDescription": "Knie links"}, Side.LEFT),
        ({"SeriesDescription": "Kniegelenk re."}, Side.RIGHT),
        ({"SeriesDescription": "ginocchio dx"}, Side.RIGHT),
        ({"SeriesDescription": "DX knee"}, None),
        *(
            ({"SeriesDescription": text}, None)
            for text in ("JOELHO D/E", "Joelho D e E", "RODILLA D/I", "DX ginocchio sin.", "GENOU 3D")
        ),
        ({"SeriesDescription": "JOELHO D"}, Side.RIGHT),
        ({"SeriesDescription": "Ginocchio sin."}, Side.LEFT),
        ({"ImageLaterality": "L", "PatientOrientation": ["R", "F"]}, Side.LEFT),
        ({"SeriesDescription": "膝 左"}, Side.LEFT),
        ({"SeriesDescription": "Høyre kne"}, Side.RIGHT),
        ({"SeriesDescription": "Knee L"}, None),
        ({"SeriesDescription": "Knee L", "ImageLaterality": "L"}, Side.LEFT),
        ({"SeriesDescription": "Knee L", "ImageLaterality": "R"}, C.SIDE_CONTRADICTORY),
        ({"SeriesDescription": "Genou: bilan d'origine"}, None),
        ({"SeriesDescription": "bright outright"}, None),
        ({"StudyDescription": "XR knee left"}, Side.LEFT),
        ({"StudyDescription": "XR knees bilateral"}, None),
        ({"StudyDescription": "XR knees bilateral", "ImageLaterality": "R"}, Side.RIGHT),
        ({"ImageLaterality": "L", "Laterality": "R"}, C.SIDE_CONTRADICTORY),
        ({"ImageLaterality": "L", "AnatomicRegionSequence": _modified("24028007")}, C.SIDE_CONTRADICTORY),
        ({"ImageLaterality": "L", "SeriesDescription": "Right knee"}, C.SIDE_CONTRADICTORY),
        ({"ImageLaterality": "L", "StudyDescription": "Right knee"}, C.SIDE_CONTRADICTORY),
        ({"ImageLaterality": "L", "SharedFunctionalGroupsSequence": _framed("R")}, C.SIDE_CONTRADICTORY),
        ({"ImageLaterality": "L", "SeriesDescription": "Both knees"}, C.SIDE_CONTRADICTORY),
        ({"ImageLaterality": "B", "SeriesDescription": "Left knee"}, C.SIDE_CONTRADICTORY),
        ({"ImageLaterality": "B", "StudyDescription": "XR knee left"}, BOTH),
        ({"ImageLaterality": "B", "PatientOrientation": ["L", "F"]}, BOTH),
        ({"SeriesDescription": "Bilateral knee", "PatientOrientation": ["R", "F"]}, BOTH),
        ({"SeriesDescription": "Left and right knee", "PatientOrientation": ["L", "F"]}, BOTH),
        ({"SeriesDescription": "Knees bilateral"}, BOTH),
        ({"SeriesDescription": "Right knee", "Rows": 1000, "Columns": 2000}, Side.RIGHT),
        ({"ImageLaterality": "R", "Rows": 1000, "Columns": 2000}, Side.RIGHT),
        ({"Rows": 1000, "Columns": 2000}, None),
    ],
)
def test_sides(attributes: dict[str, Any], expected: object) -> None:
    assert outcome(bare(**({"BodyPartExamined": "KNEE", "ViewPosition": "AP"} | attributes))) == expected


@pytest.mark.parametrize("word", ["KNEES", "GENOUX", "Kniegelenke", "RODILLAS", "ginocchia", "ברכיים", "KNEESAP"])
def test_the_plural_names_a_series_and_contradicts_no_side(word: str) -> None:
    known = {"BodyPartExamined": "KNEE", "ViewPosition": "AP"}
    described = known | {"SeriesDescription": f"{word} AP"}
    (candidate,) = judged(bare(**described)).candidates
    assert candidate.stating.side is None
    assert "B" in {e.supports for e in candidate.evidence if e.about == "side"}
    for side in ("L", "R", "B"):
        assert outcome(bare(**described, ImageLaterality=side)) == side
    for keyword in ("ProtocolName", "StudyDescription"):
        assert outcome(bare(**known, **{keyword: f"{word} AP"}, ImageLaterality="R")) is Side.RIGHT
    assert outcome(bare(**known, SeriesDescription=f"{word} left")) is Side.LEFT
    assert outcome(bare(**known, SeriesDescription=f"{word} left", ImageLaterality="R")) is C.SIDE_CONTRADICTORY
    assert outcome(bare(**known, SeriesDescription=f"{word} bilateral", ImageLaterality="R")) is C.SIDE_CONTRADICTORY


@pytest.mark.parametrize(
    "text", ["XR both knees, foot left", "Knees bilateral", "KNEES", "XR KNEE LEFT, XR KNEE RIGHT"]
)
def test_both_in_the_study_never_contradicts(text: str) -> None:
    for keyword in ("StudyDescription", "RequestedProcedureDescription", "PerformedProcedureStepDescription"):
        ds = bare(BodyPartExamined="KNEE", ViewPosition="AP", ImageLaterality="R", **{keyword: text})
        assert outcome(ds) is Side.RIGHT


def test_a_side_that_only_the_study_names_is_told_apart() -> None:
    known = {"BodyPartExamined": "KNEE", "ViewPosition": "AP", "StudyDescription": "XR knee left"}
    for more, of_study in (({}, True), ({"ImageLaterality": "L"}, False), ({"SeriesDescription": "left"}, False)):
        (candidate,) = judged(bare(**known, **more)).candidates
        assert (candidate.stating.side, candidate.stating.of_study) == (Side.LEFT, of_study)


@pytest.mark.parametrize(
    ("attributes", "hinted"),
    [
        ({"SeriesDescription": "Knee L"}, {Side.LEFT}),
        ({"SeriesDescription": "KNEES R"}, {Side.RIGHT}),
        ({"SeriesDescription": "Knee L", "ProtocolName": "Knee R"}, {Side.LEFT, Side.RIGHT}),
        ({"SeriesDescription": "Knee R/L"}, set()),
        ({"SeriesDescription": "Knee", "ImageLaterality": "L"}, set()),
        ({"SeriesDescription": "Knee L", "ImageLaterality": "L"}, {Side.LEFT}),
    ],
)
def test_a_lone_letter_goes_to_the_pixels_as_a_hint(attributes: dict[str, Any], hinted: set[Side]) -> None:
    (candidate,) = judged(bare(BodyPartExamined="KNEE", ViewPosition="AP", **attributes)).candidates
    assert candidate.stating.hinted == hinted
    coded = attributes.get("ImageLaterality")
    assert (candidate.stating.side, candidate.stating.source) == ((coded, "ImageLaterality") if coded else (None, ""))
