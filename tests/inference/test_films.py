"""One film at a time: knees, sides, grey values and fitness, on drawn films through real networks."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inference.films import ExaminedFilm, FilmReader, squared_pixels
from inference.finder import Finder
from inference.findings import RefusalCode, Side
from inference.markers import MarkerReader
from inference.pixels import load_display
from inference.preprocess import PreprocessSpec
from inference.reading import StudyInput, read_instance
from inference.studies import select
from tests import phantom_pixels, phantoms
from tests.samples import read_crop
from training.drawings import axial_knee, lateral_knee
from training.filmmaking import Placed, make_film
from training.metalwork import with_cast, with_implant


@pytest.fixture(scope="module")
def reader() -> FilmReader:
    return FilmReader(Finder.load(), MarkerReader.load())


def examine(
    reader: FilmReader, folder: Path, film: np.ndarray, side: str | None, attributes: dict[str, Any] | None = None
) -> ExaminedFilm:
    ds = phantoms.wrap_dx(np.clip(film, 0, 1), side, attributes={"PatientOrientation": None, **(attributes or {})})
    instance = read_instance(phantoms.write(ds, folder / "film.dcm"))
    selection = select(StudyInput(instance.study_instance_uid, (instance,), ()))
    assert selection.candidates, selection.refusals
    return reader.examine(load_display(instance), selection.candidates[0], PreprocessSpec())


def codes(film: ExaminedFilm) -> list[tuple[RefusalCode, Side | None]]:
    return [(refusal.code, refusal.side) for refusal in film.refusals]


def real_film(crop: np.ndarray, lateral: int, *, tilt: float = 0.0, size: float = 240.0) -> np.ndarray:
    """A crop of a left knee on a drawn leg; `lateral` as it appears."""
    values = crop.astype(np.float32) / 255
    values = values if lateral > 0 else np.ascontiguousarray(values[:, ::-1])
    placed = Placed(230, 340, size, tilt, lateral)
    return make_film([(values, placed)], (680, 460), np.random.default_rng(4)).pixels


@pytest.fixture(scope="module")
def crop(shared_data: Path) -> np.ndarray:
    return read_crop(shared_data, "9026695", "L")


@pytest.mark.parametrize("side", ["L", "R"])
def test_a_knee_on_the_side_that_the_header_names(reader: FilmReader, tmp_path: Path, side: str) -> None:
    film = examine(reader, tmp_path, phantom_pixels.knee(side), side)
    assert [(knee.side, knee.mirrored) for knee in film.knees] == [(Side(side), side == "R")]
    assert not film.refusals
    assert all(step.passed for step in film.look.steps)
    assert film.look.knees[0].crop is not None


@pytest.mark.parametrize("side", ["L", "R"])
def test_the_fibula_on_the_wrong_side_is_a_contradiction(reader: FilmReader, tmp_path: Path, side: str) -> None:
    film = examine(reader, tmp_path, phantom_pixels.knee(side)[:, ::-1], side)
    assert not film.knees
    assert codes(film) == [(RefusalCode.SIDE_CONTRADICTORY, None)]
    assert "fibula" in film.refusals[0].reason
    assert not film.look.steps[-1].passed


def test_both_knees_need_to_know_which_is_which(reader: FilmReader, tmp_path: Path) -> None:
    film = phantom_pixels.bilateral()
    assert codes(examine(reader, tmp_path, film, "B")) == [(RefusalCode.SIDE_UNKNOWN, None)]
    known = examine(reader, tmp_path, film, "B", {"PatientOrientation": ["L", "F"]})
    assert [knee.side for knee in known.knees] == [Side.RIGHT, Side.LEFT]
    assert [knee.mirrored for knee in known.knees] == [True, False]
    turned_over = examine(reader, tmp_path, film, "B", {"PatientOrientation": ["R", "F"]})
    assert [knee.side for knee in turned_over.knees] == [Side.LEFT, Side.RIGHT]


def test_the_real_film_is_read_by_its_letter(reader: FilmReader, tmp_path: Path, shared_data: Path) -> None:
    """Its R reads backwards and stands at the left, beside the right knee."""
    path = shared_data / "radiographs" / "mrkr_bilateral_frontal_mirrored.png"
    film = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
    for values, sides in ((film, [Side.RIGHT, Side.LEFT]), (film[:, ::-1], [Side.LEFT, Side.RIGHT])):
        found = examine(reader, tmp_path, values, "B")
        if found.refusals:  # refusing is no wrong side, guessing would be
            assert {refusal.code for refusal in found.refusals} == {RefusalCode.SIDE_UNKNOWN}
            continue
        assert [knee.side for knee in found.knees] == sides
    inverted = examine(reader, tmp_path, 1 - film, "B")
    assert [knee.side for knee in inverted.knees] == [Side.RIGHT, Side.LEFT]
    assert inverted.look.inverted
    assert inverted.look.letters[0].mirrored


def test_inversion_is_corrected_and_said(reader: FilmReader, tmp_path: Path) -> None:
    pixels = phantom_pixels.knee("L")
    plain, inverted = (examine(reader, tmp_path, film, "L") for film in (pixels, 1 - pixels))
    assert (plain.look.inverted, inverted.look.inverted) == (False, True)
    assert any("inverted" in evidence.value for evidence in inverted.knees[0].evidence)
    assert np.abs(plain.values - inverted.values).max() < 0.01
    assert np.abs(plain.knees[0].crop - inverted.knees[0].crop).mean() < 0.05


@pytest.mark.parametrize("draw", [lateral_knee, axial_knee])
def test_other_views_are_not_scored(reader: FilmReader, tmp_path: Path, draw) -> None:  # type: ignore[no-untyped-def]
    films = [draw((420, 360), np.random.default_rng(seed), None) for seed in range(20)]
    found = [examine(reader, tmp_path, film, "L") for film in films]
    assert not [knee for film in found for knee in film.knees]
    told = [film.refusals[0].code for film in found]
    assert set(told) <= {RefusalCode.NO_FRONTAL_VIEW, RefusalCode.NO_KNEE_FOUND, RefusalCode.FILM_TURNED}
    assert told.count(RefusalCode.NO_FRONTAL_VIEW) >= 14


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_film_is_refused(reader: FilmReader, tmp_path: Path, crop: np.ndarray, turns: int) -> None:
    film = examine(reader, tmp_path, np.rot90(real_film(crop, 1), turns), "L")
    assert not film.knees
    assert codes(film) == [(RefusalCode.FILM_TURNED, None)]


def test_metal_is_refused(reader: FilmReader, tmp_path: Path, crop: np.ndarray) -> None:
    found = []
    for seed in range(20):
        changed = with_implant(crop.astype(np.float32) / 255, np.random.default_rng(seed))
        found.append(examine(reader, tmp_path, real_film(changed * 255, 1), "L"))
    assert sum(codes(film) == [(RefusalCode.METAL, Side.LEFT)] for film in found) >= 14
    assert not examine(reader, tmp_path, real_film(crop, 1), "L").refusals


def test_a_cast_is_refused(reader: FilmReader, tmp_path: Path, crop: np.ndarray) -> None:
    films = [with_cast(real_film(crop, 1), np.random.default_rng(seed)) for seed in range(20)]
    found = [codes(examine(reader, tmp_path, film, "L")) for film in films]
    assert sum(refused != [] and refused[0][0] is RefusalCode.CAST for refused in found) >= 14


def test_a_knee_cut_off_or_too_small_is_refused(reader: FilmReader, tmp_path: Path, crop: np.ndarray) -> None:
    film = real_film(crop, 1)
    cut = examine(reader, tmp_path, film[:, : 230 + 30], "L")
    assert not cut.knees
    assert cut.refusals[0].code in (RefusalCode.KNEE_CUT_OFF, RefusalCode.NO_KNEE_FOUND)
    small = cv2.resize(film, None, fx=0.2, fy=0.2, interpolation=cv2.INTER_AREA)
    assert codes(examine(reader, tmp_path, small, "L")) == [(RefusalCode.KNEE_TOO_SMALL, Side.LEFT)]


def test_pixels_that_are_not_square(reader: FilmReader, tmp_path: Path, crop: np.ndarray) -> None:
    film = real_film(crop, 1)
    (square,) = examine(reader, tmp_path, film, "L").knees
    flat = cv2.resize(film, (film.shape[1], film.shape[0] // 2), interpolation=cv2.INTER_AREA)
    (found,) = examine(reader, tmp_path, flat, "L", {"PixelAspectRatio": [2, 1]}).knees
    assert (found.box.top, found.box.bottom) == pytest.approx((square.box.top / 2, square.box.bottom / 2), abs=6)
    assert (found.box.left, found.box.right) == pytest.approx((square.box.left, square.box.right), abs=8)
    assert np.corrcoef(found.crop.ravel(), square.crop.ravel())[0, 1] > 0.85
    assert squared_pixels(flat.astype(np.float32), 2.0).shape == film.shape


def test_one_knee_of_two_is_told(reader: FilmReader, tmp_path: Path) -> None:
    film = phantom_pixels.bilateral()
    film[:, 350:] = 0.05
    found = examine(reader, tmp_path, film, "B", {"PatientOrientation": ["L", "F"]})
    assert [knee.side for knee in found.knees] == [Side.RIGHT]
    assert codes(found) == [(RefusalCode.NO_KNEE_FOUND, Side.LEFT)]


def test_three_knees_are_nobodys(reader: FilmReader, tmp_path: Path) -> None:
    film = np.hstack([phantom_pixels.bilateral(), phantom_pixels.knee("L")])
    found = examine(reader, tmp_path, film, "B", {"PatientOrientation": ["L", "F"]})
    assert not found.knees
    assert codes(found) == [(RefusalCode.SIDE_UNKNOWN, None)]
