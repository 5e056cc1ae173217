"""Order, gaps, planes and affines of MR slices."""

import dataclasses
import random

import numpy as np
import pytest
from pydicom.dataset import Dataset

from inference.errors import RefusalError
from inference.findings import RefusalCode, Side
from inference.mr_geometry import Place, Plane, arrange, canonical_turn, place_of, plane_of
from tests.mr_phantoms import Grid


def places(grid: Grid) -> list[Place]:
    across, down = (tuple(map(float, vector)) for vector in grid.directions)
    return [
        Place(tuple(map(float, p)), across, down, grid.rows, grid.columns, grid.row_mm, grid.column_mm)  # type: ignore[arg-type]
        for p in grid.positions()
    ]


def refused(found: list[Place]) -> str:
    with pytest.raises(RefusalError) as caught:
        arrange(found)
    assert caught.value.refusal.code is RefusalCode.INCONSISTENT_GEOMETRY
    return caught.value.refusal.reason


@pytest.mark.parametrize("tilt", [(0, 0, 0), (12, -9, 20)])
@pytest.mark.parametrize("plane", ["coronal", "sagittal", "axial"])
def test_order_is_by_place_along_the_normal(plane: str, tilt: tuple[float, float, float]) -> None:
    grid = Grid(plane, tilt=tilt)
    straight = places(grid)
    shuffled = list(straight)
    random.Random(4).shuffle(shuffled)
    geometry, order = arrange(shuffled)
    assert [shuffled[index] for index in order] == straight
    assert geometry.spacing == pytest.approx((grid.step_mm, grid.row_mm, grid.column_mm))
    across, down = grid.directions
    for index, row, column in ((0, 0, 0), (3, 7, 11), (12, 39, 47)):
        expected = grid.positions()[index] + across * column * grid.column_mm + down * row * grid.row_mm
        assert geometry.affine @ (index, row, column, 1) == pytest.approx([*expected, 1])
        ras = geometry.nifti_affine @ (column, row, index, 1)
        assert ras == pytest.approx([-expected[0], -expected[1], expected[2], 1])
    assert np.linalg.det(geometry.affine[:3, :3]) != 0


def test_what_makes_no_volume_is_refused_with_its_reason() -> None:
    good = places(Grid())
    assert "a slice is missing" in refused(good[:4] + good[5:])
    assert "slices overlap" in refused([*good, dataclasses.replace(good[2], position=_between(good[2], good[3]))])
    assert "in one place" in refused([*good, good[6]])
    assert "different sizes (40 x 48, 41 x 48)" in refused([*good[:-1], dataclasses.replace(good[-1], rows=41)])
    assert "PixelSpacing" in refused([*good[:-1], dataclasses.replace(good[-1], row_mm=3.1)])
    other = places(Grid(tilt=(0, 0, 4)))
    assert "different orientations" in refused([*good[:6], *other[6:]])
    moved = dataclasses.replace(good[5], position=(good[5].position[0] + 9, *good[5].position[1:]))
    assert "beside the line" in refused([*good[:5], moved, *good[6:]])
    slanted = [
        dataclasses.replace(one, position=(one.position[0] + 4 * n, *one.position[1:])) for n, one in enumerate(good)
    ]
    assert "along their normal" in refused(slanted)
    assert "makes no volume" in refused(good[:1])


def _between(one: Place, other: Place) -> tuple[float, float, float]:
    x, y, z = (np.array(one.position) + np.array(other.position)) / 2
    return float(x), float(y), float(z)


def test_small_differences_of_real_headers_are_no_gap() -> None:
    uneven = [
        dataclasses.replace(one, position=(one.position[0], one.position[1] + 0.3 * (n % 2), one.position[2] + 0.2))
        for n, one in enumerate(places(Grid()))
    ]
    geometry, order = arrange(uneven)
    assert geometry.slices == 13
    assert sorted(order) == list(range(13))


@pytest.mark.parametrize(("degrees", "expected"), [(0, True), (29, True), (30, True), (31, False), (45, False)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_plane_within_thirty_degrees(degrees: float, expected: bool, axis: int) -> None:
    for plane in Plane:
        tilt = tuple(degrees if index == axis else 0 for index in range(3))
        found = plane_of(places(Grid(plane.value, tilt=tilt))[0])  # type: ignore[arg-type]
        spins = {"sagittal": 0, "coronal": 1, "axial": 2}[plane] == axis  # about its own normal: no change
        assert (found is plane) is (expected or spins), (plane, tilt)


def test_axial_and_oblique_volumes_are_not_turned() -> None:
    for grid in (Grid("axial"), Grid("coronal", tilt=(0, 0, 40))):
        geometry, _ = arrange(places(grid))
        with pytest.raises(RefusalError) as caught:
            canonical_turn(geometry, Side.LEFT, Side.LEFT)
        assert caught.value.refusal.code is RefusalCode.WRONG_PLANE


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
@pytest.mark.parametrize("tilt", [(0, 0, 0), (20, 0, 0), (8, 12, 18), (0, 25, -10)])
def test_a_turn_points_every_axis_the_canonical_way_and_back(plane: str, tilt: tuple[float, float, float]) -> None:
    for flip in range(8):
        across, down, transpose = bool(flip & 1), bool(flip & 2), bool(flip & 4)
        grid = Grid(plane, 13, 20, 24, tilt=tilt, flip_across=across, flip_down=down, transpose=transpose)
        geometry, _ = arrange(places(grid))
        volume = np.random.default_rng(flip).random((geometry.slices, geometry.rows, geometry.columns))
        for side in Side:
            for canonical in Side:
                turn = canonical_turn(geometry, side, canonical)
                assert np.array_equal(turn.inverse(turn.apply(volume)), volume)
                indices = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"))
                corner, step = geometry.affine, []
                turned = np.stack([turn.apply(axis) for axis in indices])
                for axis in range(3):
                    at = [1 if index == axis else 0 for index in range(3)]
                    change = turned[:, *at] - turned[:, 0, 0, 0]
                    step.append(corner[:3, :3] @ change)
                lateral = 1 if side is canonical else -1
                slices, columns = step[0], step[2]
                assert step[1][2] < 0, "rows run to the feet"
                if plane == "coronal":
                    assert slices[1] > 0
                    assert columns[0] * lateral > 0
                else:
                    assert columns[1] > 0
                    assert slices[0] * lateral > 0


def header(**changes: object) -> Dataset:
    ds = Dataset()
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 0, -1], [0, 0, 0]
    ds.PixelSpacing, ds.Rows, ds.Columns = [1, 2], 5, 6
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def test_a_place_from_a_header() -> None:
    found = place_of(header())
    assert (found.row_mm, found.column_mm, found.rows, found.columns) == (1, 2, 5, 6)
    assert found.down == (0, 0, -1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ImagePositionPatient": None}, "ImagePositionPatient is missing"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "3 values instead of 6"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, -1]}, "no unit vector"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.7, 0, -0.7]}, "right angles"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing is 0"),
        ({"PixelSpacing": ["0.000001", "1"]}, "PixelSpacing is 1e-06"),
        ({"PixelSpacing": ["40", "40"]}, "PixelSpacing is 40"),
        ({"PixelSpacing": ["0.1", "2"]}, "PixelSpacing is 0.1"),
        ({"PixelSpacing": None}, "PixelSpacing is missing"),
        ({"ImagePositionPatient": ["1e30", "0", "0"]}, "makes no sense"),
        ({"Rows": 0}, "Rows and Columns"),
    ],
)
def test_headers_without_a_place_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(RefusalError, match=words) as caught:
        place_of(header(**changes), "1.2.3")
    assert caught.value.refusal.code is RefusalCode.INCONSISTENT_GEOMETRY
    assert caught.value.refusal.source == "1.2.3"
