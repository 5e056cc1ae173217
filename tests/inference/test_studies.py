"""Selection from header evidence: what is scored, what is refused, and that reasons carry no free text."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from inference.findings import RefusalCode, Side
from inference.reading import group_studies, read_study
from inference.sides import BOTH
from inference.studies import select
from tests import phantoms
from tests.judging import bare, judged, outcome
from tests.phantoms import code

C = RefusalCode
# The phantoms are given odd values on purpose; pydicom warns when they are set.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR CS")


@pytest.mark.parametrize("side", ["L", "R"])
def test_single_knees_of_each_class(side: str) -> None:
    assert outcome(phantoms.dx_knee(side)) is Side(side)
    assert outcome(phantoms.cr_knee(side)) is Side(side)
    assert outcome(phantoms.sc_knee(side), accept_secondary_capture=True) is Side(side)


def test_evidence_is_kept_with_the_candidate() -> None:
    (candidate,) = judged(phantoms.dx_knee("L")).candidates
    assert {e.about for e in candidate.evidence} == {"anatomy", "view", "side"}
    assert any((e.source, e.value, e.supports) == ("ImageLaterality", "L", "L") for e in candidate.evidence)


def test_classes_that_are_no_radiographs_are_refused_once_and_not_counted() -> None:
    slices = [judged(ds) for ds in phantoms.mr_knee(slices=3)]
    assert all(s.radiographs == 0 and s.refusals[0].code is C.UNSUPPORTED_SOP_CLASS for s in slices)
    found = judged(phantoms.sc_knee())
    assert (found.radiographs, found.refusals[0].code) == (0, C.UNSUPPORTED_SOP_CLASS)
    assert "opt in" in found.refusals[0].reason


def test_many_slices_are_one_refusal(tmp_path: Path) -> None:
    paths = [phantoms.write(ds, tmp_path / f"{i}.dcm") for i, ds in enumerate(phantoms.mr_knee(slices=4))]
    (refusal,) = select(read_study(paths)).refusals
    assert refusal.reason.startswith("SOP class MR Image Storage")
    assert refusal.source is None


def test_for_processing_is_refused() -> None:
    assert outcome(phantoms.dx_knee("L", sop_class=phantoms.DX_PROCESSING)) is C.FOR_PROCESSING
    assert outcome(phantoms.dx_knee("L", attributes={"PresentationIntentType": "FOR PROCESSING"})) is C.FOR_PROCESSING


def test_cr_needs_no_presentation_intent() -> None:
    assert "PresentationIntentType" not in phantoms.cr_knee()
    assert outcome(phantoms.cr_knee("L")) is Side.LEFT


@pytest.mark.parametrize(
    ("image_type", "expected"),
    [
        (["ORIGINAL", "PRIMARY"], Side.LEFT),
        (["DERIVED", "PRIMARY"], Side.LEFT),
        (["DERIVED", "PRIMARY", "POST_PROCESSED"], Side.LEFT),
        (["ORIGINAL", "SECONDARY"], Side.LEFT),
        (["DERIVED", "SECONDARY"], C.DERIVED_IMAGE),
        (["ORIGINAL", "PRIMARY", "LOCALIZER"], C.DERIVED_IMAGE),
        (["DERIVED", "PRIMARY", "MPR"], C.DERIVED_IMAGE),
        (["DERIVED", "SECONDARY", "SCREEN SAVE"], C.DERIVED_IMAGE),
    ],
)
def test_image_type(image_type: list[str], expected: object) -> None:
    assert outcome(phantoms.dx_knee("L", attributes={"ImageType": image_type})) is expected


def test_multi_frame_radiographs_are_refused() -> None:
    assert outcome(phantoms.dx_knee("L", attributes={"NumberOfFrames": 3})) is C.UNSUPPORTED_SOP_CLASS


def test_own_results_are_passed_over() -> None:
    mine = judged(phantoms.dx_knee("L", attributes={"Manufacturer": "Genu"}))
    assert (mine.candidates, mine.refusals, mine.radiographs) == ((), (), 0)
    scheme = Dataset()
    scheme.CodingSchemeDesignator = "99GENU"
    coded = judged(phantoms.sc_knee(attributes={"CodingSchemeIdentificationSequence": [scheme]}))
    assert (coded.candidates, coded.refusals, coded.radiographs) == ((), (), 0)
    described = judged(phantoms.dx_knee("L", attributes={"SeriesDescription": "Genu AP Knee"}))
    assert len(described.candidates) == 1


KNEES = [
    *(
        "Knee AP",
        "IRM DU GENOU",
        "Kniegelenk a.p.",
        "RODILLA AP",
        "Ginocchio AP",
        "Joelho AP",
        "両膝正面",
        "膝関節",
        "무릎",
    ),
    *("Knä frontal", "RTG kolana AP", "коленный сустав", "térd ap", "polvi", "ΓΟΝΑΤΟ", "ברך ימין", "KNEE_AP", "KneeAP"),
    *("Staw kolanowy", "LKNEE_AP", "Kn\ufffdled", "XR KNEE/S", "knee-joint", "ＫＮＥＥ"),
]


@pytest.mark.parametrize("description", KNEES)
def test_knees_are_recognised_in_many_languages(description: str) -> None:
    ds = bare(SeriesDescription=description, ViewPosition="AP", ImageLaterality="L")
    assert outcome(ds) in (Side.LEFT, C.SIDE_CONTRADICTORY)
    assert outcome(ds) is (C.SIDE_CONTRADICTORY if description in ("両膝正面", "ברך ימין") else Side.LEFT)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"BodyPartExamined": "PATELLA"},
        {"BodyPartExamined": "LEG"},
        {"BodyPartExamined": "EXTREMITY"},
        {"BodyPartExamined": "LOWER EXTREMITY"},
        {"AnatomicRegionSequence": [code("61685007", "SCT", "Lower limb")]},
        {"AnatomicRegionSequence": [code("T-D9000", "SRT", "Lower limb")]},
        {"BodyPartExamined": "CHEST"},
        {"BodyPartExamined": "KNEE", "SeriesDescription": "Chest PA"},
        {"BodyPartExamined": "KNEE", "StudyDescription": "B?cken"},
        {"BodyPartExamined": "SHOULDER", "SeriesDescription": "KNEE AP"},
        {"SeriesDescription": "Kneeling chest"},
        {"SeriesDescription": "Monkey"},
        {"SeriesDescription": "AP below knee stump"},
        {"SeriesDescription": "膝 股関節"},
        {"StudyDescription": "Knee and ankle"},
        {"AnatomicRegionSequence": [code("70258002", "SCT", "Ankle joint")], "SeriesDescription": "KNEE"},
        {"AnatomicRegionSequence": [code("0000", "99X", "Hip joint")], "BodyPartExamined": "KNEE"},
    ],
)
def test_hints_are_not_enough_and_contradictions_refuse(attributes: dict[str, Any]) -> None:
    assert outcome(bare(**({"ViewPosition": "AP", "ImageLaterality": "L"} | attributes))) is C.NOT_A_KNEE


@pytest.mark.parametrize(
    "attributes",
    [
        {"BodyPartExamined": "KNEE"},
        {"BodyPartExamined": "knee joint"},
        {"BodyPartExamined": "EXTREMITY", "SeriesDescription": "Knee"},
        {"BodyPartExamined": "PATELLA", "StudyDescription": "XR Knee"},
        {"AnatomicRegionSequence": [code("72696002", "SCT", "Knee")]},
        {"AnatomicRegionSequence": [code("49076000", "SCT", "Knee joint")]},
        {"AnatomicRegionSequence": [code("T-D9200", "SRT", "Knee")]},
        {"AnatomicRegionSequence": [code("0000", "99X", "Knee region")]},
        {"ProcedureCodeSequence": [code("73562", "C4", "3 views")]},
        {"SeriesDescription": "Knee AP", "StudyDescription": "Knee and ankle"},
    ],
)
def test_positive_evidence_is_enough(attributes: dict[str, Any]) -> None:
    assert outcome(bare(**({"ViewPosition": "AP", "ImageLaterality": "L"} | attributes))) is Side.LEFT


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, C.VIEW_UNKNOWN),
        ({"ViewPosition": "AP"}, Side.LEFT),
        ({"ViewPosition": "PA"}, Side.LEFT),
        ({"ViewPosition": "pa"}, Side.LEFT),
        ({"ViewPosition": "AP STANDING"}, Side.LEFT),
        ({"ViewPosition": "LL"}, C.NO_FRONTAL_VIEW),
        ({"ViewPosition": "RL"}, C.NO_FRONTAL_VIEW),
        ({"ViewPosition": "LLD"}, C.NO_FRONTAL_VIEW),
        ({"ViewPosition": "LLO"}, C.NO_FRONTAL_VIEW),
        ({"ViewCodeSequence": [code("399348003", "SCT", "AP")]}, Side.LEFT),
        ({"ViewCodeSequence": [code("272479007", "SCT", "PA")]}, Side.LEFT),
        ({"ViewCodeSequence": [code("R-10206", "SRT", "x")]}, Side.LEFT),
        ({"ViewCodeSequence": [code("425042007", "SCT", "Rosenberg")]}, Side.LEFT),
        ({"ViewCodeSequence": [code("399067008", "SCT", "lateral")]}, C.NO_FRONTAL_VIEW),
        ({"ViewCodeSequence": [code("399110001", "SCT", "tangential")]}, C.NO_FRONTAL_VIEW),
        ({"ViewCodeSequence": [code("399284007", "SCT", "Merchant")]}, C.NO_FRONTAL_VIEW),
        ({"ViewPosition": "AP", "ViewCodeSequence": [code("399067008", "SCT", "lateral")]}, C.NO_FRONTAL_VIEW),
        ({"SeriesDescription": "standing weight bearing"}, C.VIEW_UNKNOWN),
        ({"SeriesDescription": "AP standing"}, Side.LEFT),
        ({"SeriesDescription": "a.p. stehend"}, Side.LEFT),
        ({"SeriesDescription": "Genou face"}, Side.LEFT),
        ({"SeriesDescription": "Bilateral"}, C.VIEW_UNKNOWN),
        ({"SeriesDescription": "profil"}, C.NO_FRONTAL_VIEW),
        ({"SeriesDescription": "sunrise"}, C.NO_FRONTAL_VIEW),
        ({"SeriesDescription": "SKYLINE"}, C.NO_FRONTAL_VIEW),
        ({"SeriesDescription": "Défilé rotulien"}, C.NO_FRONTAL_VIEW),
        ({"SeriesDescription": "側面"}, C.NO_FRONTAL_VIEW),
        ({"SeriesDescription": "PA Rosenberg"}, Side.LEFT),
        ({"SeriesDescription": "PA tunnel"}, C.VIEW_UNKNOWN),
        ({"SeriesDescription": "AP/LAT"}, C.VIEW_UNKNOWN),
        ({"SeriesDescription": "AP/LAT", "ViewPosition": "AP"}, Side.LEFT),
        ({"SeriesDescription": "AP/LAT", "ViewPosition": "LL"}, C.NO_FRONTAL_VIEW),
        ({"SeriesDescription": "LAT", "ViewPosition": "AP"}, C.NO_FRONTAL_VIEW),
        ({"SeriesDescription": "oblique", "ViewPosition": "AP"}, C.NO_FRONTAL_VIEW),
        *(({"SeriesDescription": d, "ViewPosition": "AP"}, C.NO_FRONTAL_VIEW) for d in ("AP obl", "Long leg AP")),
        ({"SeriesDescription": "PA tunnel", "ViewPosition": "PA"}, C.NO_FRONTAL_VIEW),
        ({"SeriesDescription": "AP/LAT/OBL", "ViewPosition": "AP"}, Side.LEFT),
        ({"SeriesDescription": "Kne front"}, Side.LEFT),
        ({"StudyDescription": "Knee AP and lateral", "ViewPosition": "AP"}, Side.LEFT),
        ({"StudyDescription": "Knee AP and lateral"}, C.VIEW_UNKNOWN),
        ({"SeriesDescription": "Long leg AP", "ViewPosition": "LL"}, C.NO_FRONTAL_VIEW),
    ],
)
def test_views(attributes: dict[str, Any], expected: object) -> None:
    assert outcome(bare(**({"BodyPartExamined": "KNEE", "ImageLaterality": "L"} | attributes))) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("KNEEAP", None),
        ("KNEEPA", None),
        ("KNEE-AP", None),
        ("KNEE_AP", None),
        ("APKNEE", None),
        ("LKNEEAP", Side.LEFT),
        ("RKNEE AP", Side.RIGHT),
        ("LEFTKNEEAP", Side.LEFT),
        ("AP KNEERT", Side.RIGHT),
        ("BILATKNEEAP", BOTH),
        ("KNEELAT", C.NO_FRONTAL_VIEW),
        ("RKNEELAT", C.NO_FRONTAL_VIEW),
        ("KNEEOBL", C.NO_FRONTAL_VIEW),
        ("KNEESUNRISE", C.NO_FRONTAL_VIEW),
        ("KNEEL AP", C.NOT_A_KNEE),
        ("KNEELING AP", C.NOT_A_KNEE),
        ("KNEECHESTAP", C.NOT_A_KNEE),
    ],
)
def test_words_written_together(text: str, expected: object) -> None:
    assert outcome(bare(SeriesDescription=text)) is expected


@pytest.mark.parametrize("text", ["knee and chest", "XR CHEST, XR KNEE LEFT", "Knee, hip and ankle", "PELVIS, KNEES"])
def test_other_parts_in_a_study_of_the_knee_too_do_not_matter(text: str) -> None:
    image = {"BodyPartExamined": "KNEE", "ViewPosition": "AP", "ImageLaterality": "L"}
    assert outcome(bare(**image, StudyDescription=text)) is Side.LEFT
    assert outcome(bare(**image, RequestedProcedureDescription=text)) is Side.LEFT
    assert outcome(bare(**image | {"BodyPartExamined": "CHEST"}, StudyDescription=text)) is C.NOT_A_KNEE
    assert outcome(bare(**image | {"BodyPartExamined": "LEG"}, StudyDescription=text)) is C.NOT_A_KNEE
    assert outcome(bare(**image, SeriesDescription="Hip AP", StudyDescription=text)) is C.NOT_A_KNEE


def test_reasons_are_ascii_sentences_without_free_text() -> None:
    secret = "Mustermann"
    for attributes in (
        {"SeriesDescription": f"{secret} lateral 側面"},
        {"SeriesDescription": f"{secret} 側面", "ViewPosition": None},
        {"SeriesDescription": f"{secret} hip"},
        {"BodyPartExamined": secret.upper()},
        {"StudyDescription": f"right {secret}"},
        {"ViewCodeSequence": [code("399067008", "SCT", secret)]},
        {"AnatomicRegionSequence": [code("0", "99", f"{secret} hip")]},
        {"ImageType": ["DERIVED", "SECONDARY", secret]},
        {"PatientOrientation": [secret, "F"], "ImageLaterality": "B"},
    ):
        found = judged(phantoms.dx_knee("L", attributes=attributes))
        for refusal in found.refusals:
            assert refusal.reason.isascii()
            assert refusal.reason.endswith(".")
            assert secret.casefold()[:6] not in refusal.reason.casefold()
            assert refusal.source is not None
        for candidate in found.candidates:
            assert all(secret.casefold() not in e.value.casefold() and e.value.isascii() for e in candidate.evidence)


def test_attributes_in_reasons_are_named_as_in_the_standard() -> None:
    (refusal,) = judged(bare(BodyPartExamined="KNEE", StudyDescription="XR hand")).refusals
    assert refusal.reason == 'BodyPartExamined says "knee", but StudyDescription says "hand": contradictory anatomy.'


def test_real_files_that_are_no_knee_films(shared_data: Path) -> None:
    for study in group_studies([shared_data / "dicom"]):
        found = select(study, accept_secondary_capture=True)
        assert found.candidates == ()
        assert found.refusals


def test_negatives() -> None:
    assert outcome(phantoms.dx_lateral()) is C.NO_FRONTAL_VIEW
    assert outcome(phantoms.dx_chest()) is C.NOT_A_KNEE
    assert outcome(phantoms.dx_hand()) is C.NOT_A_KNEE


HEADER_QUESTIONS = ["Can it be read", "SOP class", "Image Type", "Anatomy", "View", "Side by header"]


def test_a_candidate_carries_the_answers_of_its_header() -> None:
    (candidate,) = judged(phantoms.dx_knee("L")).candidates
    assert [step.question for step in candidate.steps] == HEADER_QUESTIONS
    assert all(step.passed and step.answer.isascii() for step in candidate.steps)
    assert candidate.steps[-1].answer == "left, by ImageLaterality."
    assert "ViewPosition" in candidate.steps[4].answer


@pytest.mark.parametrize(
    ("dataset", "asked", "about"),
    [
        (phantoms.dx_knee("L", sop_class=phantoms.DX_PROCESSING), 2, set()),
        (phantoms.dx_knee("L", attributes={"NumberOfFrames": 3}), 3, set()),
        (phantoms.dx_chest(), 4, {"anatomy"}),
        (phantoms.dx_lateral("L"), 5, {"anatomy", "view"}),
        (phantoms.dx_knee("L", attributes={"SeriesDescription": "RIGHT KNEE AP"}), 6, {"anatomy", "view", "side"}),
    ],
)
def test_a_refused_image_tells_how_far_it_came(dataset: Dataset, asked: int, about: set[str]) -> None:
    found = judged(dataset)
    (look,), (refusal,) = found.looks, found.refusals
    assert look.source.sop_instance_uid == dataset.SOPInstanceUID
    assert (look.source.rows, look.source.columns) == (dataset.Rows, dataset.Columns)
    assert [step.question for step in look.steps] == HEADER_QUESTIONS[:asked]
    assert [step.passed for step in look.steps] == [True] * (asked - 1) + [False]
    assert look.steps[-1].answer == f"{refusal.code.value}: {refusal.reason}"
    assert {e.about for e in look.evidence} == about


def test_looks_tell_of_unreadable_files_other_classes_and_two_patients(tmp_path: Path) -> None:
    (tmp_path / "no.dcm").write_bytes(b"nothing")
    paths = [phantoms.write(ds, tmp_path / f"{i}.dcm") for i, ds in enumerate(phantoms.mr_knee(slices=2))]
    unread, other = select(read_study([*paths, tmp_path / "no.dcm"])).looks
    assert [(s.question, s.passed) for s in unread.steps] == [("Can it be read", False)]
    assert [(s.question, s.passed) for s in other.steps] == [("Can it be read", True), ("SOP class", False)]
    films = [phantoms.dx_knee("L", seed=n, attributes={"StudyInstanceUID": "2.25.1"}) for n in (1, 2)]
    films[1].PatientID = "ANOTHER"
    paths = [phantoms.write(ds, tmp_path / "two" / f"{i}.dcm") for i, ds in enumerate(films)]
    found = select(read_study(paths))
    assert not found.candidates
    assert [look.steps[-1].question for look in found.looks] == ["Patient", "Patient"]
