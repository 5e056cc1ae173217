"""Knee MRI of a study: where saliency lies, what is chosen and what refused, on phantoms and real data."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from inference.findings import FilmLook, RefusalCode, Side, StudyFindings, StudyStatus
from inference.mr_findings import SeenSlice, VolumeFinding
from inference.mr_geometry import canonical_turn
from inference.mr_scoring import MRFindings, looked_at, region, score_mr
from inference.mr_sequences import MRSequence
from inference.mr_series import MRSeries, select_series
from inference.predictor import Predictor
from inference.reading import read_study
from inference.slice_bundle import SliceBundle
from inference.slice_features import slice_features
from inference.volumes import WHOLE, prepare_volume
from tests import phantoms
from tests.inference.mr_bundle import bright_net, planted_backbone, random_backbone, small_volume, write_bundle
from tests.mr_phantoms import Grid, enhanced_series, landmark, mr_series, sampled, write
from training.slice_fit import SliceModel
from training.standin import write_random_bundle

COR, SAG, DESS = MRSequence.COR_IW_TSE, MRSequence.SAG_IW_TSE, MRSequence.SAG_3D_DESS


@cache
def _root() -> Path:
    return Path(mkdtemp(prefix="genu-mr-"))


@cache
def bright(sequence: MRSequence) -> SliceBundle:
    """A bundle that looks for what is bright; whole range, so that the brightest spot is one."""
    backbone = planted_backbone(_root() / f"planted-{sequence}")
    volume = small_volume(sequence, n4=False, low=0.0, high=100.0, choice=WHOLE, slices=16)
    reference = np.random.default_rng(0).random((4, 64, 64)).astype(np.float32) * 0.4
    net = bright_net(backbone, reference)
    return SliceBundle.load(write_bundle(_root() / f"bright-{sequence}", backbone, volume, nets=[net]), "cpu")


@cache
def random(sequence: MRSequence, target: str = "progression_abs", slices: int = 8) -> SliceBundle:
    backbone = random_backbone(_root() / f"random-{sequence}-{target}")
    folder = _root() / f"bundle-{sequence}-{target}-{slices}"
    loaded = SliceBundle.load(write_bundle(folder, backbone, small_volume(sequence, slices), target=target), "cpu")
    return loaded if sequence is COR and target == "progression_abs" else loaded.sharing([random(COR)])


def score(bundles: Sequence[SliceBundle], folder: Path, *series: Sequence[Dataset] | Dataset) -> MRFindings:
    paths = [path for number, one in enumerate(series) for path in write(one, folder / str(number))]
    return score_mr(read_study(paths), bundles)


def one_study(*series: list[Dataset]) -> list[list[Dataset]]:
    """The same study, patient and frame of reference for all."""
    for ds in (ds for one in series for ds in one):
        first = series[0][0]
        ds.StudyInstanceUID, ds.PatientID, ds.PatientName = first.StudyInstanceUID, first.PatientID, first.PatientName
    return list(series)


def place(one: SeenSlice, volume: VolumeFinding, row: float, column: float) -> np.ndarray[Any, Any]:
    """A pixel of a slice in the patient (mm, LPS), by what the finding itself says."""
    grid = volume.grid
    across, down = np.array(grid.across) * grid.column_mm, np.array(grid.down) * grid.row_mm
    return np.asarray(np.array(one.position) + column * across + row * down)


def brightest_cell(one: SeenSlice) -> tuple[float, float]:
    """Row and column of the source image in the middle of the highest cell of the saliency."""
    values, box = one.saliency.values, one.saliency.box
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    rows, columns = values.shape
    return (
        box.top + (float(row) + 0.5) / rows * box.height - 0.5,
        box.left + (float(column) + 0.5) / columns * box.width - 0.5,
    )


def spotted(grid: Grid, side: str) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """A dim knee with one bright ball at its medial landmark, as wide as a cell of the planted network's map."""
    across, down = grid.directions
    rows = np.arange(grid.rows)[:, None, None] * grid.row_mm * down
    columns = np.arange(grid.columns)[None, :, None] * grid.column_mm * across
    points = np.stack([position + rows + columns for position in grid.positions()])
    away = ((points - landmark("medial spot", side)) ** 2).sum(axis=-1)
    return (0.2 * sampled(grid, side) + 2000 * np.exp(-away / (2 * 6.0**2))).round().astype(np.uint16)


ORIENTATIONS = [
    pytest.param({}, id="as usual"),
    pytest.param({"flip_across": True}, id="columns turned round"),
    pytest.param({"flip_down": True}, id="rows turned round"),
    pytest.param({"transpose": True}, id="transposed"),
    pytest.param({"transpose": True, "flip_across": True, "flip_down": True}, id="transposed and turned round"),
    pytest.param({"tilt": (14.0, 9.0, -11.0)}, id="oblique"),
    pytest.param({"tilt": (-12.0, 10.0, 8.0), "flip_across": True, "transpose": True}, id="oblique and turned"),
]


@pytest.mark.parametrize("side", ["L", "R"])
@pytest.mark.parametrize("sequence", [COR, SAG])
@pytest.mark.parametrize("changes", ORIENTATIONS)
def test_saliency_lies_on_the_spot_that_was_planted(
    tmp_path: Path, changes: dict[str, Any], sequence: MRSequence, side: str
) -> None:
    """The network sees brightness alone; the brightest place by far is a medial one: there the saliency must be."""
    grid = Grid(plane=sequence.plane.value, slices=16, **changes)
    series = mr_series(side, grid, description=sequence.name, shuffle=7, pixels=spotted(grid, side))
    (volume,) = score([bright(sequence)], tmp_path, series).volumes
    spot = landmark("medial spot", side)
    assert volume.side is Side(side)
    top = volume.top
    assert top.saliency.values.max() == 1
    cell = max(top.saliency.box.height * volume.grid.row_mm, top.saliency.box.width * volume.grid.column_mm) / 14
    found = place(top, volume, *brightest_cell(top))
    normal = np.cross(volume.grid.across, volume.grid.down)
    assert abs((found - spot) @ normal) <= 0.75 * grid.step_mm, "another slice"
    assert np.linalg.norm((found - spot) - ((found - spot) @ normal) * normal) <= cell, "another place on it"
    corners = [
        place(top, volume, row - 0.5, column - 0.5)
        for row, column in ((volume.region.top, volume.region.left), (volume.region.bottom, volume.region.right))
    ]
    for axis in (volume.grid.across, volume.grid.down):
        low, high = sorted(float((corner - spot) @ np.array(axis)) for corner in corners)
        assert low <= 1.0 and high >= -1.0, "the region misses the spot"
        assert high - low <= 3.5 * cell
    assert top.source.sop_instance_uid == series[_nearest(series, spot)].SOPInstanceUID


def _nearest(series: Sequence[Dataset], spot: np.ndarray[Any, Any]) -> int:
    across, down = np.array(series[0].ImageOrientationPatient, float).reshape(2, 3)
    away = [abs((np.array(ds.ImagePositionPatient, float) - spot) @ np.cross(across, down)) for ds in series]
    return int(np.argmin(away))


@pytest.mark.parametrize("shuffle", [None, 3])
def test_an_enhanced_object_is_answered_like_single_images(tmp_path: Path, shuffle: int | None) -> None:
    grid = Grid(slices=16)
    single = score([bright(COR)], tmp_path / "single", mr_series("R", grid)).volumes[0]
    enhanced = score([bright(COR)], tmp_path / "enhanced", enhanced_series("R", grid, shuffle=shuffle)).volumes[0]
    np.testing.assert_allclose(enhanced.outcome.probabilities, single.outcome.probabilities, atol=1e-6)
    assert (enhanced.region, enhanced.peak, enhanced.total) == (single.region, single.peak, single.total)
    frames = [one.source.frame for one in enhanced.slices]
    assert sorted(frame for frame in frames if frame) == list(range(1, 17))
    assert (shuffle is None) == (frames == list(range(1, 17)))
    for one, other in zip(single.slices, enhanced.slices, strict=True):
        np.testing.assert_allclose(one.position, other.position, atol=1e-4)
        assert np.array_equal(one.rendering, other.rendering)


def test_slices_are_shown_as_they_lie_in_their_files(tmp_path: Path) -> None:
    series = mr_series("R", Grid(flip_across=True, transpose=True), shuffle=5)
    for ds in series:
        ds.WindowCenter, ds.WindowWidth = 400, 800
    by_uid = {ds.SOPInstanceUID: ds for ds in series}
    (volume,) = score([random(COR)], tmp_path, series).volumes
    for one in volume.slices:
        ds = by_uid[one.source.sop_instance_uid]
        expected = np.clip((ds.pixel_array.astype(float) - 399.5) / 799 + 0.5, 0, 1) * 255
        assert one.rendering.shape == (ds.Rows, ds.Columns)
        np.testing.assert_allclose(one.rendering, expected, atol=0.51)
        assert one.position == pytest.approx([float(value) for value in ds.ImagePositionPatient])


def test_a_frame_has_its_own_window(tmp_path: Path) -> None:
    ds = enhanced_series("R")
    for number, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        item = Dataset()
        item.WindowCenter, item.WindowWidth = 400, 800 if number % 2 else 200
        group.FrameVOILUTSequence = [item]
    (volume,) = score([random(COR)], tmp_path, ds).volumes
    for one in volume.slices:
        assert one.source.frame is not None
        pixels = ds.pixel_array[one.source.frame - 1].astype(float)
        expected = np.clip((pixels - 399.5) / (799 if one.source.frame % 2 == 0 else 199) + 0.5, 0, 1) * 255
        np.testing.assert_allclose(one.rendering, expected, atol=0.51)


@pytest.mark.parametrize("side", ["L", "R"])
def test_a_served_series_is_answered_as_training_answers_its_slices(tmp_path: Path, side: str) -> None:
    """Prepared, kept in half precision, embedded and answered by the code of `preprocess`, `embed` and `fit`."""
    people = {"PatientAge": "070Y", "PatientSex": "M"}
    paths = write(mr_series(side, Grid(flip_across=True), shuffle=4, attributes=people), tmp_path)
    study, served = read_study(paths), random(COR)
    (volume,) = score_mr(study, [served]).volumes
    (series,) = select_series(study.instances, COR).chosen
    kept = prepare_volume(series, served.manifest.volume).slices.astype(np.float16)
    features = slice_features(served.network.backbone, kept)
    network = served.network
    model = SliceModel(network.nets, network.offsets, network.temperature, None, ())
    person = np.array([[{"age": 70.0, "sex": 0.0}.get(name, np.nan) for name in served.manifest.clinical]])
    point, _, _ = served.calibration.interval(model.probabilities(features[None], person)[0])
    np.testing.assert_allclose(volume.outcome.probabilities, point, atol=1e-5)
    attention = model.attention(features[None])[0]
    in_order = attention if volume.slices[0].index == 2 and not _turned(series) else attention[::-1]
    np.testing.assert_allclose([one.attention for one in volume.slices], in_order, atol=1e-5)


def _turned(series: MRSeries) -> bool:
    return canonical_turn(series.geometry, series.side, Side.LEFT).reverse_slices


def test_attention_and_slices(tmp_path: Path) -> None:
    (volume,) = score([random(COR)], tmp_path / "8", mr_series("L")).volumes
    assert [one.index for one in volume.slices] == list(range(2, 10))
    assert (volume.total, volume.chosen_by, volume.sequence) == (13, "description", "coronal IW TSE")
    assert sum(one.attention for one in volume.slices) == pytest.approx(1)
    assert {e.about for e in volume.evidence} == {"anatomy", "plane", "sequence", "slices", "side", "clinical"}
    (short,) = score([bright(COR)], tmp_path / "16", mr_series("L")).volumes  # 16 of 13: some are read twice
    assert [one.index for one in short.slices] == list(range(13))
    assert sum(one.attention for one in short.slices) == pytest.approx(1)
    assert len({round(one.attention, 6) for one in short.slices}) > 1, "slices that are read twice count twice"


def test_the_region_hangs_together_with_the_peak() -> None:
    values = np.zeros((20, 30), np.float32)
    values[4:7, 10:15] = 0.6
    values[5, 12] = 1.0
    values[15:18, 2:4] = 0.9
    box = region(values)
    assert (box.left, box.top, box.right, box.bottom) == (10, 4, 15, 7)
    whole = region(np.zeros((20, 30), np.float32))
    assert (whole.left, whole.top, whole.right, whole.bottom) == (0, 0, 30, 20)


def test_every_bundle_speaks_in_order_and_series_are_prepared_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference import mr_scoring

    counted = []
    real = mr_scoring.read_volume
    monkeypatch.setattr(mr_scoring, "read_volume", lambda *given: counted.append(given[0]) or real(*given))
    bundles = [random(COR, "womac_pain_class"), random(SAG), random(COR), random(COR, "progression_rel", 6)]
    read = []
    look = SliceBundle.read
    monkeypatch.setattr(SliceBundle, "read", lambda self, given: read.append(self) or look(self, given))
    series = one_study(
        mr_series("R", identity="a"),
        mr_series("L", identity="b"),
        mr_series("R", Grid(plane="sagittal"), identity="c", description="SAG_IW_TSE"),
    )
    found = score(bundles, tmp_path, *series)
    said = [(volume.side.value, volume.outcome.target, volume.sequence) for volume in found.volumes]
    coronal = "coronal IW TSE"
    assert said == [
        *(("L", target, coronal) for target in ("progression_abs", "progression_rel", "womac_pain_class")),
        ("R", "progression_abs", coronal),
        ("R", "progression_abs", "sagittal IW TSE"),
        ("R", "progression_rel", coronal),
        ("R", "womac_pain_class", coronal),
    ]
    assert len(counted) == 5, "two specs of each coronal knee, one of the sagittal one"
    assert len(read) == 5, "the backbone of all is the same"
    assert found.images == 39
    assert not found.refusals


def _looks(found: MRFindings | StudyFindings) -> dict[str, FilmLook]:
    return {look.source.series_instance_uid: look for look in found.looks}


def test_a_knee_that_is_refused_is_told_beside_the_one_that_is_scored(tmp_path: Path) -> None:
    good, gap, other = one_study(
        mr_series("L", identity="good"), mr_series("R", identity="gap"), mr_series("R", identity="other")
    )
    del gap[4]
    found = score([random(COR)], tmp_path / "gap", good, gap)
    assert [volume.side for volume in found.volumes] == [Side.LEFT]
    (refusal,) = found.refusals
    assert (refusal.code, refusal.side) == (RefusalCode.INCONSISTENT_GEOMETRY, Side.RIGHT)
    assert refusal.source == min(ds.SOPInstanceUID for ds in gap)
    looks = _looks(found)
    assert len(looks) == len(found.looks) == 2
    assert looks[gap[0].SeriesInstanceUID].steps[-1].answer.startswith("inconsistent_geometry: ")
    assert looks[good[0].SeriesInstanceUID].steps[-1].passed
    # The same knee again, whole: then nothing is refused.
    again = score([random(COR)], tmp_path / "again", good, gap, other)
    assert [volume.side for volume in again.volumes] == [Side.LEFT, Side.RIGHT]
    assert not again.refusals


def test_pixels_that_cannot_be_read_refuse_one_knee_alone(tmp_path: Path) -> None:
    good, bad = one_study(mr_series("L", identity="good"), mr_series("R", identity="bad"))
    bad[6].PixelData = bad[6].PixelData[:100]
    found = score([random(COR)], tmp_path, good, bad)
    assert [volume.side for volume in found.volumes] == [Side.LEFT]
    (refusal,) = found.refusals
    assert refusal.code is RefusalCode.UNDECODABLE_PIXELS
    assert (refusal.source, refusal.side) == (bad[6].SOPInstanceUID, Side.RIGHT)
    assert bad[6].SOPInstanceUID in {image.sop_instance_uid for image in looked_at(found)}, "its card is about it"
    steps = _looks(found)[bad[0].SeriesInstanceUID].steps
    assert [step.passed for step in steps] == [True, True, False]
    assert steps[-1].question == "Pixels"


@pytest.mark.parametrize("kept", [slice(1, None), slice(0, 0)], ids=["the first is lost", "all are lost"])
def test_an_object_that_does_not_describe_every_frame_is_refused(tmp_path: Path, kept: slice) -> None:
    """Groups are told apart by their place: with one lost every frame would be taken for its neighbour."""
    ds = enhanced_series("L")
    ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[kept]
    found = score([random(COR)], tmp_path, ds)
    assert not found.volumes
    (refusal,) = found.refusals
    assert refusal.code is RefusalCode.INCONSISTENT_GEOMETRY
    assert "does not say of each frame" in refusal.reason


def test_each_sequence_that_nobody_chose_is_refused_once(tmp_path: Path) -> None:
    bundles = [random(COR), random(COR, "womac_pain_class"), random(SAG)]
    found = score(bundles, tmp_path / "one", mr_series("L", laterality=None))
    assert [refusal.code for refusal in found.refusals] == [RefusalCode.SIDE_UNKNOWN, RefusalCode.WRONG_PLANE]
    assert not found.volumes
    head = mr_series("L", description="HEAD COR", attributes={"BodyPartExamined": "HEAD"})
    found = score(bundles, tmp_path / "head", head)
    assert [refusal.code for refusal in found.refusals] == [RefusalCode.NOT_A_KNEE]
    assert len(found.looks) == 1
    empty = enhanced_series("L")
    del empty.PerFrameFunctionalGroupsSequence
    found = score(bundles, tmp_path / "empty", empty)
    assert [refusal.code for refusal in found.refusals] == [RefusalCode.INCONSISTENT_GEOMETRY]
    assert (found.images, len(found.looks)) == (1, 1)


@cache
def predictor() -> Predictor:
    grader = write_random_bundle(_root() / "grader")
    folders = [random(COR).manifest.folder, random(DESS, slices=16).manifest.folder]
    return Predictor.load([grader, *folders], threads=1)


def study(folder: Path, *paths: Path) -> StudyFindings:
    return predictor().score(read_study([*paths, *sorted(folder.rglob("*.dcm"))]))


def test_films_and_mr_of_one_study_give_both(tmp_path: Path) -> None:
    film = phantoms.dx_knee("R")
    series = mr_series("R")
    for ds in series:
        ds.StudyInstanceUID, ds.PatientID, ds.PatientName = film.StudyInstanceUID, film.PatientID, film.PatientName
        ds.PatientBirthDate = film.PatientBirthDate
    phantoms.write(film, tmp_path / "film.dcm")
    write(series, tmp_path / "mr")
    found = study(tmp_path)
    assert (len(found.knees), len(found.volumes), found.radiographs, found.mr_images) == (1, 1, 1, 13)
    assert found.status is StudyStatus.SCORED
    assert [model.task for model in found.models] == ["kl", "jsn_progression", "jsn_progression"]
    (refusal,) = found.refusals  # the sagittal 3D DESS that the other bundle wants is not there
    assert refusal.code is RefusalCode.WRONG_PLANE
    read = {one.source.sop_instance_uid for one in found.volumes[0].slices}
    first = min(ds.SOPInstanceUID for ds in series)
    assert {image.sop_instance_uid for image in found.looked_at} == {film.SOPInstanceUID, first, *read}
    assert set(found.renderings) == {film.SOPInstanceUID}


def test_without_a_bundle_for_mr_there_is_nothing_to_score(tmp_path: Path) -> None:
    write(mr_series("R"), tmp_path)
    films = Predictor(predictor().bundle, predictor().reader)
    found = films.score(read_study(sorted(tmp_path.rglob("*.dcm"))))
    assert found.status is StudyStatus.NOTHING_TO_SCORE
    assert (found.mr_images, found.volumes) == (0, ())
    assert [refusal.code for refusal in found.refusals] == [RefusalCode.UNSUPPORTED_SOP_CLASS]
    assert len(found.looks) == 1


def test_two_patients_in_one_study_are_not_scored(tmp_path: Path) -> None:
    series = mr_series("R")
    series[3].PatientID = "somebody else"
    write(series, tmp_path)
    found = study(tmp_path)
    assert found.status is StudyStatus.REFUSED
    assert not found.volumes
    assert [refusal.code for refusal in found.refusals] == [RefusalCode.IDENTITY_CONTRADICTORY]
    assert found.looks[0].steps[-1].question == "Patient"


def test_clinical_variables_of_the_header_reach_the_network(tmp_path: Path) -> None:
    people = {"PatientAge": "078Y", "PatientSex": "F", "PatientSize": "1.60", "PatientWeight": "95"}
    (plain,) = score([random(COR)], tmp_path / "plain", mr_series("R")).volumes
    (known,) = score([random(COR)], tmp_path / "known", mr_series("R", attributes=people)).volumes
    assert all(value.imputed for value in plain.outcome.clinical)
    assert not any(value.imputed for value in known.outcome.clinical)
    assert known.outcome.probabilities != plain.outcome.probabilities
    assert np.allclose([one.attention for one in known.slices], [one.attention for one in plain.slices])


# ---- real data


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("knee_mri_enhanced_multiframe.dcm", {RefusalCode.TOO_FEW_SLICES}),
        ("knee_mri_no_description.dcm", {RefusalCode.TOO_FEW_SLICES}),
        ("knee_mri_single_slice.dcm", {RefusalCode.TOO_FEW_SLICES}),
    ],
)
def test_real_objects_that_make_no_volume_are_refused(shared_data: Path, name: str, codes: set[RefusalCode]) -> None:
    found = predictor().score(read_study([shared_data / "dicom" / name]))
    assert found.status is StudyStatus.REFUSED
    assert {refusal.code for refusal in found.refusals} == codes
    assert found.mr_images == 1
