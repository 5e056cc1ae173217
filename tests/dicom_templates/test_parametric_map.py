"""A Parametric Map lies on its source: a point planted on a slice comes back at its place in the patient."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_templates.check_report import children
from dicom_templates.checker import check_study
from dicom_templates.compose import Composed, compose
from dicom_templates.parametric_map import frame_of_reference, on_pixels
from inference.findings import Box, Saliency, Side
from inference.volume_map import _weights as served_weights
from tests.dicom_templates.factory import context, with_raw
from tests.dicom_templates.mr_findings import series, study, volume
from tests.dicom_templates.test_compose import groups_of, texts
from tests.mr_phantoms import Grid

SMALL = {"slices": 13, "rows": 20, "columns": 24}
GRIDS = {
    "coronal": Grid(**SMALL),
    "sagittal": Grid("sagittal", **SMALL, row_mm=2.0, column_mm=1.5, step_mm=3.0),
    "coronal, columns flipped": Grid(**SMALL, flip_across=True),
    "coronal, rows flipped": Grid(**SMALL, flip_down=True),
    "sagittal, both flipped": Grid("sagittal", **SMALL, flip_across=True, flip_down=True),
    "coronal, transposed": Grid(**SMALL, transpose=True),
    "coronal, oblique": Grid(**SMALL, tilt=(8.0, -12.0, 20.0)),
    "sagittal, oblique and flipped": Grid("sagittal", **SMALL, flip_across=True, tilt=(-14.0, 9.0, 5.0)),
}


def mapped(grid: Grid, saliency: npt.NDArray[np.float32], read: range | list[int], **options: object) -> Dataset:
    """The map of a knee, read again from its file; its saliency lies on slice read[1]."""
    headers = series(grid=grid)
    found = volume(headers, grid=grid, read=read, saliency=saliency, **options)  # type: ignore[arg-type]
    objects = compose(study([found], headers=headers), headers, context())
    assert check_study(objects.all) == []
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, objects.volumes[1], enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def planted(grid: Grid, row: int, column: int) -> npt.NDArray[np.float32]:
    """A single hot pixel."""
    spot = np.zeros((grid.rows, grid.columns), np.float32)
    spot[row, column] = 1.0
    return spot


@pytest.mark.parametrize("name", GRIDS)
def test_a_planted_point_comes_back_where_it_is_in_the_patient(name: str, tmp_path: Path) -> None:
    grid, row, column, read = GRIDS[name], 4, 17, [3, 4, 5, 6]
    across, down = grid.directions
    place = grid.positions()[read[1]] + row * grid.row_mm * down + column * grid.column_mm * across
    written = mapped(grid, planted(grid, row, column), read)

    # By the attributes alone, as PS3.3 C.7.6.2.1.1 says.
    values = np.frombuffer(written.FloatPixelData, "<f4").reshape(len(read), grid.rows, grid.columns)
    frame, at_row, at_column = np.unravel_index(values.argmax(), values.shape)
    cosines = written.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = written.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    corner = written.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence[0].ImagePositionPatient
    found = (
        np.array(corner, float)
        + at_column * spacing[1] * np.array(cosines[:3], float)
        + at_row * spacing[0] * np.array(cosines[3:], float)
    )
    assert values.max() == 1.0
    assert found == pytest.approx(place, abs=1e-3)

    # By highdicom's own reading.
    file = tmp_path / "map.dcm"
    pydicom.dcmwrite(file, written, enforce_file_format=True)
    read_again = hd.imread(file).get_volume()
    index = np.unravel_index(read_again.array.argmax(), read_again.array.shape)
    assert read_again.array.max() == 1.0
    assert read_again.map_indices_to_reference(np.array([index])).ravel() == pytest.approx(place, abs=1e-3)


def test_every_frame_names_its_slice_and_keeps_its_place() -> None:
    grid, read = GRIDS["coronal, oblique"], [2, 5, 6]
    headers = series(grid=grid, shuffle=7)
    found = volume(headers, grid=grid, read=read)
    written = compose(study([found], headers=headers), headers, context()).volumes[1]
    for index, frame in zip(read, written.PerFrameFunctionalGroupsSequence, strict=True):
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == headers[index].SOPInstanceUID
        assert source.SpatialLocationsPreserved == "YES"
        place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        assert place == pytest.approx(np.array(headers[index].ImagePositionPatient, float), abs=1e-3)
    assert written.FrameOfReferenceUID == headers[0].FrameOfReferenceUID
    assert "DimensionOrganizationType" not in written, "slices are missing between them"


def test_values_are_told_as_shares_of_the_highest(tmp_path: Path) -> None:
    grid = GRIDS["coronal"]
    written = mapped(grid, planted(grid, 3, 3), [3, 4])
    mapping = written.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "ATTENTION"
    frame = written.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    assert frame.DerivationCodeSequence[0].CodeValue == "130403"
    assert written.ContentQualification == "RESEARCH"
    assert written.Modality == "MR"


@pytest.mark.parametrize("box", [Box(0, 0, 24, 20), Box(-5, 2.5, 30, 17), Box(3.5, -4, 20.25, 30)])
def test_saliency_is_stretched_over_its_box_as_it_was_made(box: Box) -> None:
    values = np.random.default_rng(4).random((7, 9), np.float32)
    found = on_pixels(Saliency(values, box), 20, 24)
    down, across = served_weights(20, box.top, box.bottom, 7), served_weights(24, box.left, box.right, 9)
    assert found == pytest.approx((down @ values @ across.T).astype(np.float32), abs=1e-6)
    for row, column in ((9, 12), (12, 14)):
        at = ((row + 0.5 - box.top) / box.height * 7 - 0.5, (column + 0.5 - box.left) / box.width * 9 - 0.5)
        low = np.floor(at).astype(int)
        part = np.array(at) - low
        weights = np.outer([1 - part[0], part[0]], [1 - part[1], part[1]])
        corners = values[low[0] : low[0] + 2, low[1] : low[1] + 2]
        assert found[row, column] == pytest.approx(float((weights * corners).sum()), abs=1e-5)
    rows, columns = np.mgrid[0:20, 0:24] + 0.5
    outside = (rows < box.top) | (rows > box.bottom) | (columns < box.left) | (columns > box.right)
    assert (found[outside] == 0).all()


def without_map(headers: list[Dataset]) -> Composed:
    objects = compose(study([volume(headers, read=[2, 3])], headers=headers), headers, context())
    assert len(objects.volumes) == 1
    assert check_study(objects.all) == []
    return objects


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"", "have no Frame of Reference UID"),
        (b"1.2.3..4", "is not a valid UID"),
        (b"1.2.banana", "is not a valid UID"),
        (b"\\", "is not a valid UID"),
        (b"1." + b"3" * 70, "is not a valid UID"),
        (b"1.2\\1.3", "is not a valid UID"),
    ],
)
def test_without_a_valid_frame_of_reference_the_report_says_why_there_is_no_map(value: bytes, words: str) -> None:
    objects = without_map([with_raw(header, {"FrameOfReferenceUID": value}) for header in series()])
    (sentence,) = texts(groups_of(objects)[0], "NO-MAP")
    assert words in sentence


def test_slices_of_two_frames_of_reference_have_no_map() -> None:
    headers = series()
    headers[3] = with_raw(headers[3], {"FrameOfReferenceUID": b"1.2.3"})
    (sentence,) = texts(groups_of(without_map(headers))[0], "NO-MAP")
    assert "do not share one" in sentence
    assert frame_of_reference([headers[4], headers[5]])[1] == "", "only the slices that were read matter"


def test_a_source_without_dates_gives_those_of_the_composition() -> None:
    keywords = [f"{what}{kind}" for what in ("Study", "Series") for kind in ("Date", "Time")]
    headers = [with_raw(header, dict.fromkeys(keywords, b"yesterday")) for header in series()]
    objects = compose(study([volume(headers, read=[2, 3])], headers=headers), headers, context())
    assert (objects.volumes[1].ContentDate, objects.volumes[1].ContentTime) == ("20261122", "103015")
    later = context(created=context().created.replace(year=2027))
    again = compose(study([volume(headers, read=[2, 3])], headers=headers), headers, later)
    assert again.volumes[1].SOPInstanceUID != objects.volumes[1].SOPInstanceUID, "other bytes, another name"


def test_two_knees_keep_their_sides() -> None:
    headers = [*series(), *series(Side.RIGHT)]
    both = [volume(headers[:13], read=[2, 3]), volume(headers[13:], Side.RIGHT, read=[2, 3])]
    maps = compose(study(both, headers=headers), headers, context()).volumes[1::2]
    assert [(each.Laterality, each.SeriesNumber) for each in maps] == [("L", 9908), ("R", 9907)]


def test_an_empty_saliency_is_a_map_of_zeros() -> None:
    headers = series()
    found = volume(headers, read=[2, 3], saliency=np.zeros((4, 4), np.float32))
    objects = compose(study([replace(found, region=Box(0, 0, 48, 40))], headers=headers), headers, context())
    assert check_study(objects.all) == []
    assert not np.frombuffer(objects.volumes[1].FloatPixelData, "<f4").any()
    assert len(children(groups_of(objects)[0], "130401")) == 2
