"""The shipped knee finder on drawn films and real ones, and files that are not what they should be."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from inference.errors import BundleError
from inference.finder import SHIPPED_FINDER, Finder, Sighting, Sightings, prepared, squared
from tests import phantom_pixels
from training.schematic import CROP


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder.load()


def knees(finder: Finder, film: np.ndarray) -> list[tuple[float, float, float]]:
    found = finder.look(np.ascontiguousarray(film, np.float32)).knees
    return [(knee.x, knee.y, knee.size) for knee in found if knee.score >= finder.thresholds.knee]


@pytest.fixture(scope="module")
def real(shared_data: Path) -> np.ndarray:
    film = cv2.imread(str(shared_data / "radiographs" / "mrkr_bilateral_frontal_mirrored.png"), cv2.IMREAD_GRAYSCALE)
    return film.astype(np.float32) / 255


@pytest.mark.parametrize("side", ["L", "R"])
def test_a_drawn_knee_is_found_where_it_is(finder: Finder, side: str) -> None:
    film = phantom_pixels.knee(side, 448, 336)
    ((x, y, size),) = knees(finder, film)
    assert np.hypot(x - 168, y - 224) < 0.06 * size
    assert size == pytest.approx(CROP * 336, rel=0.15)
    assert (finder.look(film).knees[0].fibula_right > 0.5) is (side == "L")


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_size_of_the_film_does_not_matter(finder: Finder, scale: float) -> None:
    film = phantom_pixels.knee("L", 448, 336)
    resized = cv2.resize(film, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    ((x, y, size),) = knees(finder, resized)
    ((x0, y0, size0),) = knees(finder, film)
    assert (x / scale, y / scale, size / scale) == pytest.approx((x0, y0, size0), abs=0.04 * size0)


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (3, 20000), (2, 2)])
def test_a_place_on_a_film_of_a_few_rows_can_be_looked_at(
    finder: Finder, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    anywhere = Sighting(96, 0, 60, 0.5, 0, 0.5, 0, 0, 0)
    monkeypatch.setattr("inference.finder._peaks", lambda answer: [anywhere])
    finder.look(np.full(shape, 0.5, np.float32))


def test_both_knees_of_a_film(finder: Finder) -> None:
    found = sorted(knees(finder, phantom_pixels.bilateral()))
    assert [round(x / 175) for x, _, _ in found] == [1, 3]


def test_the_real_film_in_every_position(finder: Finder, real: np.ndarray) -> None:
    """Joints at (196, 318) and (400, 318) of 512, seen on the film; fibulae outwards."""
    width = real.shape[1]
    for film, flipped in ((real, False), (real[:, ::-1], True), (1 - real, False)):
        found = sorted(finder.look(np.ascontiguousarray(film)).knees[:2], key=lambda knee: knee.x)
        expected = sorted(width - x if flipped else x for x in (196, 400))
        for knee, x in zip(found, expected, strict=True):
            assert knee.score >= finder.thresholds.knee
            assert abs(knee.x - x) < 12
            assert abs(knee.y - 308) < 20
            assert 120 < knee.size < 170
        assert found[0].fibula_right < 0.5 < found[1].fibula_right
        assert len(knees(finder, film)) == 2


def test_inverted_grey_values_are_seen(finder: Finder, real: np.ndarray) -> None:
    for film, inverted in ((real, False), (1 - real, True), (phantom_pixels.knee("R"), False)):
        look = finder.look(np.ascontiguousarray(film))
        assert all((knee.inverted > 0.5) is inverted for knee in look.knees if knee.score >= finder.thresholds.knee)
    assert [knee.inverted > 0.5 for knee in finder.look(1 - phantom_pixels.knee("R")).knees[:1]] == [True]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_film_is_seen_to_be_turned(finder: Finder, real: np.ndarray, turns: int) -> None:
    look = finder.look(np.ascontiguousarray(np.rot90(real, turns)))
    assert look.turned >= finder.thresholds.turned
    assert look.turned > max((knee.score for knee in look.knees), default=0.0)


@pytest.mark.parametrize(
    "film",
    [
        phantom_pixels.chest(),
        phantom_pixels.lateral(),
        np.zeros((300, 200), np.float32),
        np.ones((300, 200), np.float32),
        np.random.default_rng(0).random((400, 300)).astype(np.float32),
        np.full((1, 1), 0.5, np.float32),
        np.linspace(0, 1, 5000, dtype=np.float32)[None].repeat(3, axis=0),
    ],
    ids=["chest", "lateral", "black", "white", "noise", "one pixel", "strip"],
)
def test_no_knee_where_there_is_none(finder: Finder, film: np.ndarray) -> None:
    assert knees(finder, film) == []


def test_squares_keep_the_shape(finder: Finder) -> None:
    square = squared(np.ones((100, 50), np.float32))
    assert square.shape == (192, 192)
    assert square[:, :96].min() == 1
    assert square[:, 96:].max() == 0
    assert prepared(square).shape == (3, 192, 192)
    assert isinstance(finder.look(square), Sightings)


def broken(folder: Path, change: str) -> Path:
    shutil.copytree(SHIPPED_FINDER, folder)
    if change == "weights":
        data = bytearray((folder / "weights.safetensors").read_bytes())
        data[-1000] ^= 0xFF
        (folder / "weights.safetensors").write_bytes(bytes(data))
    elif change == "missing":
        (folder / "probe.safetensors").unlink()
    elif change == "json":
        (folder / "finder.json").write_text("{")
    else:
        values = json.loads((folder / "finder.json").read_text())
        if change == "thresholds":
            del values["thresholds"]["metal"]
        else:
            values["tolerance"] = -1.0
        (folder / "finder.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("change", ["weights", "missing", "json", "thresholds", "tolerance"])
def test_a_changed_finder_is_not_loaded(tmp_path: Path, change: str) -> None:
    with pytest.raises(BundleError, match="finder"):
        Finder.load(broken(tmp_path / "finder", change))
