"""Which series is taken, of which knee, and what is said of the others."""

import dataclasses
import tarfile
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from inference.findings import RefusalCode, Side
from inference.mr_sequences import MRSequence
from inference.mr_series import SeriesSelection, select_series
from inference.reading import group_studies
from inference.volumes import VolumeSpec, prepare_volume
from tests.mr_phantoms import Grid, enhanced_series, mr_series, write

SAGITTAL = Grid("sagittal", slices=14)
COR, SAG, DESS = MRSequence.COR_IW_TSE, MRSequence.SAG_IW_TSE, MRSequence.SAG_3D_DESS
STUDY = {"StudyInstanceUID": "1.2.3.4"}


def selection(
    folder: Path, *series: list[Dataset], wanted: MRSequence = COR, side: Side | None = None
) -> SeriesSelection:
    """Of one study that holds all of these."""
    for number, one in enumerate(series):
        for ds in one:
            ds.StudyInstanceUID, ds.PatientID = "1.2.3.4", "one"
        write(one, folder / str(number))
    (study,) = group_studies([folder])
    return select_series(study.instances, wanted, side=side)


def code(folder: Path, *series: list[Dataset], **options: Any) -> tuple[RefusalCode, str]:
    found = selection(folder, *series, **options)
    assert not found.chosen
    assert found.refusal is not None
    return found.refusal.code, found.refusal.reason


@pytest.mark.parametrize(("side", "other"), [("L", "LEFT"), ("R", "RIGHT")])
def test_the_oai_names(tmp_path: Path, side: str, other: str) -> None:
    """The three series of a visit, no laterality attribute: the descriptions say all."""
    grids = {"COR_IW_TSE": Grid(), "SAG_IW_TSE": SAGITTAL, "SAG_3D_DESS": SAGITTAL}
    series = [
        mr_series(side, grid, identity=name, description=f" {name}_{other} ", laterality=None,
                  timing="dess" if "DESS" in name else "tse")
        for name, grid in grids.items()
    ]  # fmt: skip
    found = selection(tmp_path, *series)
    for wanted in MRSequence:
        (study,) = group_studies([tmp_path])
        found = select_series(study.instances, wanted)
        (one,) = found.chosen
        assert one.side == side
        assert one.chosen_by == "description"
        assert one.slices[0].header.SeriesDescription.strip().startswith(wanted.name)
        assert {other.refusal for other in found.passed_over} <= {RefusalCode.WRONG_PLANE, RefusalCode.WRONG_SEQUENCE}
        assert len(found.passed_over) == 2
        abouts = {(e.about, e.source) for e in one.evidence}
        assert {("plane", "ImageOrientationPatient"), ("sequence", "SeriesDescription"), ("side", "SeriesDescription"),
                ("slices", "number of slices"), ("anatomy", "BodyPartExamined")} <= abouts  # fmt: skip


def timed(description: str, wanted: MRSequence, **attributes: Any) -> list[Dataset]:
    grid = Grid(slices=14) if wanted is COR else SAGITTAL
    thin = {"SliceThickness": 1.5} if wanted is DESS else {}
    kind = "dess" if wanted is DESS else "tse"
    return mr_series("L", grid, description=description, timing=kind, attributes=thin | attributes)


@pytest.mark.parametrize(
    ("wanted", "description", "attributes"),
    [
        (COR, "KNEE 3", {}),
        (COR, "cor pd", {"ScanOptions": "PFP"}),
        (SAG, "sag pd fs", {}),
        (SAG, "PD", {"ScanOptions": ["FS", "PFP"]}),
        (SAG, "PD", {"ScanOptions": "FAT_SAT"}),
        (DESS, "t3d we sag", {}),
        (DESS, "", {"ScanningSequence": "RM"}),
    ],
)
def test_timing_decides_where_no_description_names_the_sequence(
    tmp_path: Path, wanted: MRSequence, description: str, attributes: dict[str, Any]
) -> None:
    (one,) = selection(tmp_path, timed(description, wanted, **attributes), wanted=wanted).chosen
    assert one.chosen_by == "timing"
    assert {"RepetitionTime", "EchoTime"} <= {e.source for e in one.evidence if e.about == "sequence"}


@pytest.mark.parametrize(
    ("wanted", "description", "attributes", "words"),
    [
        (COR, "PD", {"EchoTime": 90}, "EchoTime is 90 ms"),
        (COR, "PD", {"RepetitionTime": 500}, "RepetitionTime is 500 ms"),
        (COR, "PD", {"EchoTrainLength": 1}, "EchoTrainLength is 1"),
        (COR, "PD", {"EchoTime": None}, "EchoTime is missing"),
        (COR, "PD", {"ScanOptions": "FS"}, "fat saturation is fat-saturated"),
        (COR, "PD", {"MRAcquisitionType": "3D"}, "MRAcquisitionType is 3D"),
        (COR, "PD", {"ScanningSequence": "GR"}, "ScanningSequence is GR"),
        (COR, "PD", {"ScanningSequence": "DOE JOHN"}, "ScanningSequence is another value:"),
        (COR, "PD", {"MRAcquisitionType": "DOE JOHN"}, "MRAcquisitionType is another value:"),
        (DESS, "3D", {"SequenceVariant": ["DOE JOHN", "SP"]}, r"SequenceVariant is another value\SP"),
        (COR, "PD", {"SliceThickness": 9}, "SliceThickness is 9 mm"),
        (SAG, "PD", {}, "fat saturation is not said"),
        (DESS, "3D", {"SequenceVariant": ["SS", "SP"]}, "SequenceVariant is SS"),
        (DESS, "3D", {"SliceThickness": 4}, "SliceThickness is 4 mm"),
        (DESS, "3D", {"FlipAngle": 8}, "FlipAngle is 8 degrees"),
        (COR, "COR_T1_3D_FLASH", {}, '"flash"'),
        (COR, "cor stir", {}, '"stir"'),
        (SAG, "SAG_T2_MAP_RIGHT", {}, '"map"'),
        (SAG, "sag T1 tse", {}, '"t1"'),
    ],
)
def test_another_sequence_is_refused_with_what_is_not_right(
    tmp_path: Path, wanted: MRSequence, description: str, attributes: dict[str, Any], words: str
) -> None:
    found, reason = code(tmp_path, timed(description, wanted, **attributes), wanted=wanted)
    assert found is RefusalCode.WRONG_SEQUENCE
    assert words in reason


def test_of_rescans_the_last_and_descriptions_before_timing(tmp_path: Path) -> None:
    first = mr_series("L", identity="first", attributes={"SeriesTime": "101500"})
    last = mr_series("L", identity="last", attributes={"SeriesTime": "104500"})
    unnamed = mr_series("L", identity="later", description="PD", attributes={"SeriesTime": "120000"})
    other = mr_series("R", identity="other")
    found = selection(tmp_path, first, last, unnamed, other)
    assert [one.side for one in found.chosen] == [Side.LEFT, Side.RIGHT]
    assert found.chosen[0].series_instance_uid == last[0].SeriesInstanceUID
    assert found.refusal is None
    reasons = {one.series_instance_uid: one.reason for one in found.passed_over}
    assert "later one" in reasons[first[0].SeriesInstanceUID]
    assert "timing only" in reasons[unnamed[0].SeriesInstanceUID]
    assert all(one.refusal is None for one in found.passed_over)


@pytest.mark.parametrize("part", [slice(13, None), slice(None, None, 2)], ids=["halves", "every other slice"])
def test_a_volume_under_two_series_uids_is_refused(tmp_path: Path, part: slice) -> None:
    series = mr_series("L", Grid(slices=26, step_mm=3.0))
    for ds in series[part]:
        ds.SeriesInstanceUID = "1.2.3.9"
    found = selection(tmp_path, series)
    assert not found.chosen
    assert {one.refusal for one in found.passed_over} == {RefusalCode.INCONSISTENT_GEOMETRY}
    assert {one.side for one in found.passed_over} == {Side.LEFT}
    assert len(found.passed_over) == 2
    assert "pieces of one volume" in found.passed_over[0].reason


def test_a_rescan_between_the_first_slices_is_no_piece(tmp_path: Path) -> None:
    both = mr_series("L", Grid(slices=26, step_mm=3.0))
    for number, ds in enumerate(both):
        ds.InstanceNumber = number // 2 + 1
        if number % 2:
            ds.SeriesInstanceUID, ds.SeriesTime = "1.2.3.9", "104500"
    (chosen,) = selection(tmp_path, both).chosen
    assert (chosen.series_instance_uid, len(chosen.slices)) == ("1.2.3.9", 13)


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
        {"ImageType": ["DERIVED", "PRIMARY", "MPR"]},
        {"SeriesDescription": "COR_MPR_LEFT"},
        {"SeriesDescription": "3 plane loc"},
        {"SeriesDescription": "Scout"},
    ],
)
def test_scouts_and_reformats_are_no_series(tmp_path: Path, attributes: dict[str, Any]) -> None:
    found, _ = code(tmp_path, mr_series("L", attributes=attributes))
    assert found is RefusalCode.DERIVED_IMAGE


def test_planes(tmp_path: Path) -> None:
    assert code(tmp_path / "a", mr_series("L", Grid("axial")))[0] is RefusalCode.WRONG_PLANE
    assert code(tmp_path / "b", mr_series("L", Grid(tilt=(0, 0, 40))))[0] is RefusalCode.WRONG_PLANE
    found, reason = code(tmp_path / "c", mr_series("L", SAGITTAL, description="COR_IW_TSE"), wanted=SAG)
    assert found is RefusalCode.WRONG_PLANE
    assert "SeriesDescription says coronal" in reason
    assert code(tmp_path / "d", mr_series("L", SAGITTAL, description="x"), wanted=COR)[0] is RefusalCode.WRONG_PLANE


def test_few_slices_and_odd_geometry(tmp_path: Path) -> None:
    assert code(tmp_path / "a", mr_series("L", Grid(slices=10)))[0] is RefusalCode.TOO_FEW_SLICES
    assert selection(tmp_path / "b", mr_series("L", Grid(slices=11))).chosen
    series = mr_series("L")
    assert code(tmp_path / "c", series[:5] + series[6:])[0] is RefusalCode.INCONSISTENT_GEOMETRY
    series = mr_series("L")
    series[3].ImagePositionPatient = series[4].ImagePositionPatient
    assert code(tmp_path / "d", series)[0] is RefusalCode.INCONSISTENT_GEOMETRY
    series = mr_series("L")
    del series[3].ImagePositionPatient
    assert code(tmp_path / "e", series)[0] is RefusalCode.INCONSISTENT_GEOMETRY


def test_two_echoes_of_one_series_are_two_stacks(tmp_path: Path) -> None:
    one = mr_series("L", attributes={"EchoNumbers": 1})
    two = mr_series("L", attributes={"EchoNumbers": 2, "EchoTime": 90, "SeriesDescription": "PD"})
    for index, ds in enumerate(two):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{index}"
    found = selection(tmp_path, one, two)
    assert len(found.chosen) == 1
    assert len(found.chosen[0].slices) == 13
    assert found.passed_over[0].refusal is RefusalCode.WRONG_SEQUENCE


def unsided(**attributes: Any) -> list[Dataset]:
    return mr_series("L", laterality=None, attributes=attributes)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"Laterality": "R"}, "R"),
        ({"ImageLaterality": "L"}, "L"),
        ({"SeriesDescription": "COR_IW_TSE_RIGHT"}, "R"),
        ({"ProtocolName": "Knie links"}, "L"),
        ({"StudyDescription": "IRM DU GENOU DROIT"}, "R"),
        ({"SeriesDescription": "Genou G COR IW TSE"}, "L"),
        ({"Laterality": "R", "PatientOrientation": ["L", "H"]}, "R"),
    ],
)
def test_the_side_is_read(tmp_path: Path, attributes: dict[str, Any], expected: str) -> None:
    (one,) = selection(tmp_path, unsided(**attributes)).chosen
    assert one.side == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, RefusalCode.SIDE_UNKNOWN),
        ({"Laterality": "B"}, RefusalCode.SIDE_UNKNOWN),
        ({"SeriesDescription": "COR_IW_TSE knee R"}, RefusalCode.SIDE_UNKNOWN),
        ({"Laterality": "L", "SeriesDescription": "COR_IW_TSE_RIGHT"}, RefusalCode.SIDE_CONTRADICTORY),
        ({"StudyDescription": "Diz sag"}, RefusalCode.SIDE_UNKNOWN),  # sagittal, or the Turkish word for right
    ],
)
def test_a_side_that_is_not_sure_is_refused(tmp_path: Path, attributes: dict[str, Any], expected: RefusalCode) -> None:
    assert code(tmp_path, unsided(**attributes))[0] is expected


def test_the_place_in_the_scanner_proves_no_side(tmp_path: Path) -> None:
    """A knee 90 mm to the patient's right of the isocentre may have been moved there."""
    series = unsided()
    for ds in series:
        ds.ImagePositionPatient = [float(ds.ImagePositionPatient[0]) - 90, *ds.ImagePositionPatient[1:]]
    assert code(tmp_path, series)[0] is RefusalCode.SIDE_UNKNOWN


def test_slices_that_name_different_sides(tmp_path: Path) -> None:
    series = unsided(Laterality="L")
    series[4].Laterality = "R"
    assert code(tmp_path, series)[0] is RefusalCode.SIDE_CONTRADICTORY


def test_a_side_that_is_given(tmp_path: Path) -> None:
    (one,) = selection(tmp_path / "a", unsided(), side=Side.RIGHT).chosen
    assert one.side is Side.RIGHT
    assert ("side", "given") in {(e.about, e.source) for e in one.evidence}
    assert code(tmp_path / "b", unsided(Laterality="L"), side=Side.RIGHT)[0] is RefusalCode.SIDE_CONTRADICTORY
    assert selection(tmp_path / "c", unsided(BodyPartExamined=None), side=Side.LEFT).chosen


def test_the_studys_side_is_not_believed_beside_a_series_of_the_other_knee(tmp_path: Path) -> None:
    text = {"StudyDescription": "MRI left knee"}
    both = selection(tmp_path / "a", unsided(**text), mr_series("R", identity="r", attributes={"StudyDescription": ""}))
    assert [one.side for one in both.chosen] == [Side.RIGHT]
    assert [one.refusal for one in both.passed_over] == [RefusalCode.SIDE_UNKNOWN]
    assert selection(tmp_path / "b", unsided(**text)).chosen[0].side is Side.LEFT


def test_not_a_knee(tmp_path: Path) -> None:
    assert (
        code(tmp_path / "a", mr_series("L", attributes={"BodyPartExamined": "SHOULDER"}))[0] is RefusalCode.NOT_A_KNEE
    )
    nothing = mr_series("L", attributes={"BodyPartExamined": None})
    found, _ = code(tmp_path / "b", nothing)
    assert found is RefusalCode.NOT_A_KNEE


def test_other_objects_and_own_results_are_passed_over_in_silence(tmp_path: Path) -> None:
    own = mr_series("L", identity="own", attributes={"Manufacturer": "Genu"})
    ct = mr_series("L", identity="ct")
    for ds in ct:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    found = selection(tmp_path, own, ct)
    assert found.chosen == ()
    assert found.passed_over == ()
    assert found.refusal is None


def test_enhanced_with_the_side_of_its_frames(tmp_path: Path) -> None:
    found = selection(tmp_path / "a", [enhanced_series("R")])
    assert found.chosen[0].side is Side.RIGHT
    assert found.chosen[0].chosen_by == "description"
    assert [piece.frame for piece in found.chosen[0].slices] == list(range(1, 14))
    assert code(tmp_path / "b", [enhanced_series("R", laterality=None)])[0] is RefusalCode.SIDE_UNKNOWN
    by_timing = selection(tmp_path / "c", [enhanced_series("R", description="knee")])
    assert by_timing.chosen[0].chosen_by == "timing"


def test_the_same_file_twice_is_one_slice(tmp_path: Path) -> None:
    series = mr_series("L", attributes={"StudyInstanceUID": "1.2.3.4", "PatientID": "one"})
    write(series, tmp_path / "copy")
    assert len(selection(tmp_path, series).chosen[0].slices) == 13


@pytest.fixture(scope="module")
def dess(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dess")
    with tarfile.open(shared_data / "dicom" / "knee_mri_sag_dess.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_a_real_dess_without_a_side(dess: Path) -> None:
    (study,) = group_studies([dess])
    expected = {
        DESS: RefusalCode.SIDE_UNKNOWN,
        SAG: RefusalCode.WRONG_SEQUENCE,
        COR: RefusalCode.WRONG_PLANE,
    }
    for wanted, refusal in expected.items():
        found = select_series(study.instances, wanted)
        assert found.refusal is not None
        assert found.refusal.code is refusal
    (one,) = select_series(study.instances, DESS, side=Side.RIGHT).chosen
    assert one.geometry.slices == 80
    assert one.geometry.spacing == pytest.approx((1.5, 0.3125, 0.3125), abs=1e-3)
    places = [float(piece.header.ImagePositionPatient[0]) for piece in one.slices]
    assert places == sorted(places, reverse=True)
    plan = dataclasses.replace(VolumeSpec.default(DESS), slices=8, size=64, choice="middle")
    prepared = prepare_volume(one, plan)
    mirrored = prepare_volume(select_series(study.instances, DESS, side=Side.LEFT).chosen[0], plan)
    assert prepared.slices.std() > 0.2
    assert abs(prepared.slices - mirrored.slices[::-1]).max() < 1e-3, "the other side is the mirror image"


@pytest.mark.parametrize("name", ["single_slice", "no_description", "enhanced_multiframe"])
@pytest.mark.parametrize("wanted", list(MRSequence))
def test_real_objects_of_too_few_slices(shared_data: Path, name: str, wanted: MRSequence) -> None:
    """The enhanced one holds nineteen times of one slice."""
    (study,) = group_studies([shared_data / "dicom" / f"knee_mri_{name}.dcm"])
    found = select_series(study.instances, wanted)
    assert [one.refusal for one in found.passed_over] == [RefusalCode.TOO_FEW_SLICES]
    assert found.refusal is not None
