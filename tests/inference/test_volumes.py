"""MR series to slices: every orientation gives one picture, and every pixel leads back to where it was taken."""

import dataclasses
import itertools
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import volumes
from inference.bias import BiasSpec
from inference.errors import BundleError, RefusalError
from inference.findings import RefusalCode, Side
from inference.mr_sequences import MRSequence
from inference.mr_series import MRSeries, select_series
from inference.reading import group_studies
from inference.volumes import VolumeSpec, chosen_slices, prepare_volume
from tests.mr_phantoms import LANDMARKS, Grid, enhanced_series, landmark, mr_series, write

CORONAL = Grid("coronal", slices=13, step_mm=6)
SAGITTAL = Grid("sagittal", slices=16, step_mm=5)
FLIPS = list(itertools.product((False, True), repeat=3))
QUICK = BiasSpec(iterations=(4,))


def spec(sequence: MRSequence = MRSequence.COR_IW_TSE, **changes: object) -> VolumeSpec:
    plain = VolumeSpec.default(sequence)
    return dataclasses.replace(plain, **{"size": 96, "slices": 9, "bias": QUICK} | changes)  # type: ignore[arg-type]


def chosen(folder: Path, sequence: MRSequence, **options: object) -> MRSeries:
    (study,) = group_studies([folder])
    selection = select_series(study.instances, sequence, **options)  # type: ignore[arg-type]
    assert len(selection.chosen) == 1, selection.passed_over
    return selection.chosen[0]


def taken(folder: Path, side: str, grid: Grid, **options: object) -> MRSeries:
    sagittal = grid.plane == "sagittal"
    described = {"description": "SAG_3D_DESS", "timing": "dess"} if sagittal else {}
    write(mr_series(side, grid, **described | options), folder)  # type: ignore[arg-type]
    return chosen(folder, MRSequence.SAG_3D_DESS if sagittal else MRSequence.COR_IW_TSE)


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_every_way_of_taking_either_knee_gives_the_same_slices(tmp_path: Path, plane: str) -> None:
    grid = dataclasses.replace(CORONAL if plane == "coronal" else SAGITTAL, rows=44, columns=44, row_mm=3, column_mm=3)
    sequence = MRSequence.COR_IW_TSE if plane == "coronal" else MRSequence.SAG_3D_DESS
    plan = spec(sequence, choice="middle", low=0, high=100)
    expected = prepare_volume(taken(tmp_path / "first", "L", grid), plan).slices
    assert expected.shape == (9, 96, 96)
    assert expected.dtype == np.float32
    assert expected.min() == 0
    assert expected.max() == 1
    mirror = expected[::-1] if plane == "sagittal" else expected[:, :, ::-1]
    assert np.abs(mirror - expected).max() > 0.5, "the phantom must not be symmetric"
    for number, (across, down, transpose) in enumerate(FLIPS):
        for side in "LR":
            flipped = dataclasses.replace(grid, flip_across=across, flip_down=down, transpose=transpose)
            series = taken(tmp_path / f"{side}{number}", side, flipped, shuffle=number)
            found = prepare_volume(series, plan).slices
            assert np.abs(found - expected).max() < 0.02, (side, flipped)


@pytest.mark.parametrize("side", ["L", "R"])
@pytest.mark.parametrize("grid", [CORONAL, SAGITTAL, dataclasses.replace(SAGITTAL, tilt=(8, 12, 18))])
def test_each_landmark_leads_back_to_its_place_in_the_patient(tmp_path: Path, side: str, grid: Grid) -> None:
    for flips in FLIPS[::3]:
        flipped = dataclasses.replace(grid, **dict(zip(("flip_across", "flip_down", "transpose"), flips, strict=True)))
        series = taken(tmp_path / str(flips), side, flipped)
        plan = spec(series.sequence, choice="whole", slices=flipped.slices, n4=False, low=0, high=100)
        prepared = prepare_volume(series, plan)
        for name in LANDMARKS:
            place = landmark(name, side)
            best = _nearest(prepared, place)
            assert np.linalg.norm(np.subtract(prepared.map.to_patient(*best), place)) < 4.0, (name, flips)
            window = prepared.slices[best[0], max(best[1] - 3, 0) : best[1] + 4, max(best[2] - 3, 0) : best[2] + 4]
            assert window.max() > np.percentile(prepared.slices, 97), (name, flips)


def _nearest(prepared: object, place: np.ndarray) -> tuple[int, int, int]:
    """The prepared pixel nearest to a place, by its own map."""
    size, map_ = prepared.map.size, prepared.map  # type: ignore[attr-defined]
    corner = np.array(map_.to_patient(0, 0, 0))
    steps = np.stack([np.subtract(map_.to_patient(*at), corner) for at in ((1, 0, 0), (0, 1, 0), (0, 0, 1))], axis=1)
    found = np.round(np.linalg.solve(steps, place - corner)).astype(int)
    return tuple(int(v) for v in np.clip(found, 0, (len(map_.sources) - 1, size - 1, size - 1)))  # type: ignore[return-value]


def test_lateral_lies_on_one_side_for_both_knees(tmp_path: Path) -> None:
    """The fibula, lateral, is seen towards larger columns of coronal slices and in later sagittal ones."""
    for side in "LR":
        plan = spec(choice="whole", slices=13, n4=False)
        coronal = prepare_volume(taken(tmp_path / f"c{side}", side, CORONAL), plan)
        _, row, column = _nearest(coronal, landmark("fibula", side))
        assert column > 48
        assert row > 48, "the fibula is below the middle"
        dess = spec(MRSequence.SAG_3D_DESS, choice="whole", slices=16, n4=False)
        sagittal = prepare_volume(taken(tmp_path / f"s{side}", side, SAGITTAL), dess)
        index, _, column = _nearest(sagittal, landmark("fibula", side))
        assert index >= 8
        assert column > 48, "the fibula is behind the middle"


@pytest.mark.parametrize("side", ["L", "R"])
@pytest.mark.parametrize("flips", FLIPS)
def test_the_way_back_is_exact(tmp_path: Path, side: str, flips: tuple[bool, bool, bool]) -> None:
    """A map over prepared slices, brought back, has its peak on the source pixel that the point came from."""
    across, down, transpose = flips
    grid = dataclasses.replace(SAGITTAL, flip_across=across, flip_down=down, transpose=transpose, rows=36, columns=48)
    series = taken(tmp_path, side, grid)
    prepared = prepare_volume(series, spec(MRSequence.SAG_3D_DESS, n4=False, choice="middle"))
    for place, row, column in ((0, 20.0, 61.0), (5, 70.0, 33.0), (8, 48.5, 40.0)):
        point = prepared.map.to_source(place, row, column)
        places, again_row, again_column = prepared.map.from_source(point.image, point.row, point.column)
        assert places == (place,)
        assert (again_row, again_column) == pytest.approx((row, column), abs=1e-9)
        origin = series.slices[point.index]
        assert point.image.sop_instance_uid == origin.instance.sop_instance_uid
        expected = np.array(origin.header.ImagePositionPatient, float)
        cosines = np.array(origin.header.ImageOrientationPatient, float)
        expected = expected + cosines[:3] * point.column * grid.column_mm + cosines[3:] * point.row * grid.row_mm
        assert prepared.map.to_patient(place, row, column) == pytest.approx(expected, abs=1e-4)
    heat = np.zeros((12, 12), np.float32)
    heat[3, 8] = 1
    cell = (np.array([3, 8]) + 0.5) * 96 / 12 - 0.5
    point = prepared.map.to_source(2, *cell)
    spread = prepared.map.resampled(heat)
    assert spread.shape == (36, 48)
    peak = np.unravel_index(int(spread.argmax()), spread.shape)
    assert np.abs(np.subtract(peak, (point.row, point.column))).max() <= 0.5 + 1e-9
    back = prepared.map.back(heat)
    at = np.unravel_index(int(back.argmax()), back.shape)
    box = prepared.map.box
    assert box.top + (at[0] + 0.5) * box.height / 12 - 0.5 == pytest.approx(point.row)
    assert box.left + (at[1] + 0.5) * box.width / 12 - 0.5 == pytest.approx(point.column)


def test_an_enhanced_object_gives_the_same_slices_as_single_images(tmp_path: Path) -> None:
    single = prepare_volume(taken(tmp_path / "single", "R", CORONAL), spec())
    for name, options in (("plain", {"slope": 2.0}), ("rle", {"compressed": True})):
        write(enhanced_series("R", CORONAL, shuffle=3, **options), tmp_path / name)  # type: ignore[arg-type]
        found = prepare_volume(chosen(tmp_path / name, MRSequence.COR_IW_TSE), spec())
        assert np.abs(found.slices - single.slices).max() < 1e-4
        assert [source.frame for source in found.map.sources] != [None] * 9
        assert len({source.frame for source in found.map.sources}) == 9


def test_one_stack_of_an_enhanced_object_is_taken(tmp_path: Path) -> None:
    scout = dataclasses.replace(CORONAL, plane="axial")
    write(enhanced_series("R", CORONAL, stacks=[scout], shuffle=1), tmp_path)
    series = chosen(tmp_path, MRSequence.COR_IW_TSE)
    assert series.geometry.slices == CORONAL.slices
    (study,) = group_studies([tmp_path])
    (other,) = select_series(study.instances, MRSequence.COR_IW_TSE).passed_over
    assert other.refusal is RefusalCode.WRONG_PLANE


def test_rescaling_and_padding(tmp_path: Path) -> None:
    plain = prepare_volume(taken(tmp_path / "plain", "L", CORONAL), spec(n4=False))
    scaled = {"RescaleSlope": "2.5", "RescaleIntercept": "-40"}
    found = prepare_volume(taken(tmp_path / "scaled", "L", CORONAL, attributes=scaled), spec(n4=False))
    assert np.abs(found.slices - plain.slices).max() < 1e-4
    assert found.digest != plain.digest
    pixels = mr_series("L", CORONAL)[0]
    volume = np.stack([one.pixel_array for one in mr_series("L", CORONAL)])
    volume[:, :, :8] = 65000
    padded = taken(tmp_path / "padded", "L", CORONAL, pixels=volume, attributes={"PixelPaddingValue": 65000})
    slices = prepare_volume(padded, spec(n4=False)).slices
    assert slices[:, :, :8].max() == 0, "padding is dark"
    assert slices[:, :, 24:].max() == 1
    assert pixels.Rows == CORONAL.rows


def test_slices_chosen() -> None:
    middle = spec(slices=8)
    assert chosen_slices(20, middle) == (6, 7, 8, 9, 10, 11, 12, 13)
    assert chosen_slices(21, middle, reverse=True) == (14, 13, 12, 11, 10, 9, 8, 7)
    whole = spec(choice="whole", slices=64)
    indices = chosen_slices(160, whole)
    assert len(indices) == 64
    assert indices[0] == 1
    assert indices[-1] == 158
    assert set(np.diff(indices)) == {2, 3}
    assert len(set(chosen_slices(40, whole))) == 40, "a short volume gives slices twice, and leaves none out"


def test_the_spec_travels_as_json() -> None:
    for sequence in MRSequence:
        plan = dataclasses.replace(VolumeSpec.default(sequence), low=5.0, extent_mm=120.0)
        assert VolumeSpec.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert VolumeSpec.default(MRSequence.SAG_3D_DESS).slices == 64
    values = VolumeSpec().to_json()
    for wrong in ({**values, "size": 0}, {**values, "more": 1}, {**values, "sequence": "t2"}, {**values, "low": 90}):
        with pytest.raises(BundleError):
            VolumeSpec.from_json(wrong)


@pytest.mark.parametrize(
    "change",
    [
        *({"slices": value} for value in (True, "8", 8.0, 10**9)),
        *({"size": value} for value in (True, 64.0, 10**6)),
        *({"n4": value} for value in ("false", 0, None)),
        *({"low": value} for value in (True, "10", float("nan"))),
        *({"extent_mm": value} for value in ("160", 0, -5, float("nan"), float("inf"), 1e-9, True)),
        *({"bias": {"shrink": value}} for value in (0, "4", 1.5)),
        *({"bias": {"iterations": value}} for value in ([], "50", [50.5], [-1], [10**9])),
        *({"bias": value} for value in ({"fewest": 0}, {"fewest_slices": "8"}, {"threshold": float("nan")})),
    ],
)
def test_a_spec_that_would_go_wrong_later_is_refused(change: dict[str, Any]) -> None:
    values = VolumeSpec().to_json()
    bias = values["bias"] | change.get("bias", {})
    with pytest.raises(BundleError, match="cannot be used"):
        VolumeSpec.from_json({**values, **change, "bias": bias})


def test_another_sequence_than_the_spec_wants_is_refused(tmp_path: Path) -> None:
    series = taken(tmp_path, "L", CORONAL)
    with pytest.raises(RefusalError) as caught:
        prepare_volume(series, spec(MRSequence.SAG_3D_DESS))
    assert caught.value.refusal.code is RefusalCode.WRONG_SEQUENCE


def test_a_damaged_slice_names_its_image(tmp_path: Path) -> None:
    paths = write(mr_series("L", CORONAL), tmp_path)
    broken = sorted(paths)[0]
    series = chosen(tmp_path, MRSequence.COR_IW_TSE)
    broken.write_bytes(broken.read_bytes()[:-400])
    with pytest.raises(RefusalError) as caught:
        prepare_volume(series, spec(choice="whole", slices=13))
    assert caught.value.refusal.code is RefusalCode.UNDECODABLE_PIXELS
    assert caught.value.refusal.source == broken.stem


@pytest.mark.parametrize("slope", ["1E400", "NaN", "x"])
def test_a_slice_whose_rescaling_cannot_be_used_is_refused(tmp_path: Path, slope: str) -> None:
    slices = mr_series("L", CORONAL)
    slices[6].add_new("RescaleSlope", "LO", slope)
    write(slices, tmp_path)
    with pytest.raises(RefusalError, match="RescaleSlope is no number") as caught:
        prepare_volume(chosen(tmp_path, MRSequence.COR_IW_TSE), spec())
    assert caught.value.refusal.code is RefusalCode.UNDECODABLE_PIXELS


@pytest.mark.parametrize("grey", [0, 700, None])
def test_slices_without_contrast_are_refused(tmp_path: Path, grey: int | None) -> None:
    """A black volume would have an answer like any other."""
    pixels = None if grey is None else np.full((CORONAL.slices, CORONAL.rows, CORONAL.columns), grey, np.uint16)
    scaled = {"RescaleSlope": "1E-30", "RescaleIntercept": "0"} if grey is None else None
    series = taken(tmp_path, "L", CORONAL, pixels=pixels, attributes=scaled)
    with pytest.raises(RefusalError) as caught:
        prepare_volume(series, spec())
    assert caught.value.refusal.code is RefusalCode.UNDECODABLE_PIXELS
    assert "no contrast" in caught.value.refusal.reason


def test_same_pixels_same_digest_and_same_slices(tmp_path: Path) -> None:
    first, again = (prepare_volume(taken(tmp_path / name, "L", CORONAL), spec()) for name in "ab")
    assert first.digest == again.digest
    assert np.array_equal(first.slices, again.slices)
    assert prepare_volume(chosen(tmp_path / "a", MRSequence.COR_IW_TSE), spec(high=90.0)).digest != first.digest
    assert first.side is Side.LEFT


def test_extent_in_the_patient_not_in_pixels(tmp_path: Path) -> None:
    """The same part of the knee from images of another field of view."""
    near = taken(tmp_path / "near", "L", dataclasses.replace(CORONAL, rows=56, columns=56, row_mm=2, column_mm=2))
    far = taken(tmp_path / "far", "L", dataclasses.replace(CORONAL, rows=88, columns=88, row_mm=2, column_mm=2))
    plan = spec(n4=False, extent_mm=100.0, low=0, high=100)
    one, other = prepare_volume(near, plan), prepare_volume(far, plan)
    assert one.map.to_patient(4, 0, 0) == pytest.approx(other.map.to_patient(4, 0, 0), abs=1e-6)
    assert np.abs(one.slices - other.slices).max() < 0.02


def test_only_the_chosen_slices_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory follows the slices chosen, not those of the series."""
    series = taken(tmp_path, "L", Grid("sagittal", slices=60, rows=64, columns=64, step_mm=1.5))
    decoded: list[str] = []
    plain = volumes.decode
    monkeypatch.setattr(
        volumes, "decode", lambda one, limits: decoded.append(one.sop_instance_uid) or plain(one, limits)
    )
    plan = spec(MRSequence.SAG_3D_DESS, choice="middle", slices=8, size=64)
    tracemalloc.start()
    prepared = prepare_volume(series, plan)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sorted(decoded) == sorted(source.sop_instance_uid for source in prepared.map.sources)
    assert len(set(decoded)) == 8
    chosen_bytes = 8 * 64 * 64 * 4
    assert peak < 12 * chosen_bytes + (1 << 20), peak
