"""The shipped reader of burned-in letters: on the one real film, on fonts it has not seen, where there are none."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import inference  # noqa: F401 - before timm and torchvision
from inference.errors import BundleError
from inference.findings import Side
from inference.markers import SHIPPED_MARKERS, MarkerReader
from inference.pixels import load_display
from inference.reading import read_instance
from tests import phantom_pixels, samples
from training.marker_fonts import Style, fonts, label, trimmed

Film = npt.NDArray[np.float32]

WORDS = "LAT LL L5 XL RLO PORTABLE STANDING AP RTA ART ROLL LTD RL TR TL LR 3L RIGHT LEFT"
NO_MARKERS = (*WORDS.split(), *"J7KPAB1TEFCDGU")


@pytest.fixture(scope="module")
def reader() -> MarkerReader:
    return MarkerReader.load()


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Film:
    """A bilateral film that is stored mirrored: its R reads backwards, DDS stands beneath, an arrow above."""
    pixels = cv2.imread(str(shared_data / "radiographs" / "mrkr_bilateral_frontal_mirrored.png"), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    return np.asarray(pixels, np.float32) / 255


def written(
    text: str, font: str, *, mirrored: bool = False, turn: float = 0.0, height: float = 32, x: float = 0.2
) -> Film:
    """A dark film (1000, 800) with a bright leg in its middle, and a line of text at a height of 0.2, centred at x."""
    film = np.full((1000, 800), 0.06, np.float32)
    film[:, 280:520] += 0.4 * np.sin(np.linspace(0, np.pi, 240, dtype=np.float32))
    style = Style(font, height, width=1.0, slant=0.0, tilt=0.0, weight=0, mirrored=mirrored)
    mask = np.max([mask for mask, _ in trimmed(label(text, style, np.random.default_rng(0), turn))], axis=0)
    left = round(x * 800 - mask.shape[1] / 2)
    part = film[200 : 200 + mask.shape[0], left : left + mask.shape[1]]
    part += mask.astype(np.float32) / 255 * 0.8
    return np.clip(film, 0, 1)


def read(reader: MarkerReader, film: Film) -> list[tuple[str, bool]]:
    return [(letter.side.value, letter.mirrored) for letter in reader.read(film)]


def test_the_real_film_has_an_r_in_mirror_writing(reader: MarkerReader, real: Film) -> None:
    (letter,) = reader.read(real)
    assert (letter.side, letter.mirrored) == (Side.RIGHT, True)
    assert letter.across == pytest.approx(0.1, abs=0.02)
    assert letter.down == pytest.approx(0.265, abs=0.02)
    assert letter.size == pytest.approx(0.032, abs=0.01)


def test_turned_over_it_is_an_ordinary_r(reader: MarkerReader, real: Film) -> None:
    (letter,) = reader.read(real[:, ::-1].copy())
    assert (letter.side, letter.mirrored) == (Side.RIGHT, False)
    assert letter.across == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("scale", [1.5, 3, 6])
def test_the_real_film_at_other_sizes(reader: MarkerReader, real: Film, scale: float) -> None:
    assert read(reader, cv2.resize(real, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)) == [("R", True)]


def test_on_its_head_or_side_it_says_nothing(reader: MarkerReader, real: Film) -> None:
    for turned in (real[::-1], real[::-1, ::-1], np.rot90(real), np.rot90(real, -1)):
        assert read(reader, turned.copy()) == []


def test_an_inverted_film_is_no_crash(reader: MarkerReader, real: Film) -> None:
    assert set(read(reader, 1 - real)) <= {("R", True)}


@pytest.mark.parametrize("font", fonts(held_out=True))
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("text", ["R", "L", "RT", "LT"])
def test_letters_of_fonts_that_were_held_out(reader: MarkerReader, font: str, text: str, mirrored: bool) -> None:
    (letter,) = reader.read(written(text, font, mirrored=mirrored))
    assert (letter.side.value, letter.mirrored) == (text[0], mirrored)
    assert letter.across == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize("font", fonts(held_out=True))
@pytest.mark.parametrize("text", NO_MARKERS)
def test_text_that_marks_no_side(reader: MarkerReader, font: str, text: str) -> None:
    assert read(reader, written(text, font)) == []
    assert read(reader, written(text, font, mirrored=True)) == []


@pytest.mark.parametrize("text", ["R", "L"])
@pytest.mark.parametrize("turn", [90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_letters_that_lie_or_stand_on_their_head(reader: MarkerReader, text: str, turn: float, mirrored: bool) -> None:
    for font in fonts(held_out=True):
        assert read(reader, written(text, font, turn=turn, mirrored=mirrored)) == []


def test_both_letters_are_read_from_left_to_right(reader: MarkerReader) -> None:
    film = np.maximum(written("R", "cmss10", x=0.15), written("L", "cmss10", x=0.85))
    assert read(reader, film) == [("R", False), ("L", False)]


def test_nothing_on_films_without_letters(reader: MarkerReader) -> None:
    for seed in range(5):
        knee = phantom_pixels.knee("L", 336, 336, seed=seed).astype(np.float32)
        assert reader.read(np.clip(knee, 0, 1)) == ()
    noise = np.random.default_rng(0).random((700, 500), np.float32)
    for film in (noise, np.zeros((64, 64), np.float32), np.ones((64, 900), np.float32), np.eye(300, dtype=np.float32)):
        assert reader.read(film) == ()


def test_nothing_on_plain_real_knees(reader: MarkerReader, shared_data: Path) -> None:
    for subject, side in ((samples.BILATERAL_SUBJECT, "R"), (samples.BILATERAL_SUBJECT, "L"), samples.SINGLE_FILE):
        assert reader.read(samples.read_crop(shared_data, subject, side).astype(np.float32) / 255) == ()


def test_nothing_on_chests(reader: MarkerReader, shared_data: Path) -> None:
    """One of them has an L that is turned upside down: it counts neither as L nor as one in mirror writing."""
    files = sorted((shared_data / "dicom").glob("not_a_knee_*.dcm"))
    assert len(files) == 3
    for path in files:
        assert reader.read(load_display(read_instance(path)).values) == ()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED_MARKERS, tmp_path / "markers"))


@pytest.mark.parametrize("name", ["weights.safetensors", "probe.safetensors"])
def test_a_changed_file_is_named(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} was changed"):
        MarkerReader.load(copy)


@pytest.mark.parametrize("name", ["weights.safetensors", "probe.safetensors", "markers.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        MarkerReader.load(copy)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"files": {}}'])
def test_a_broken_description_is_named(copy: Path, text: str) -> None:
    (copy / "markers.json").write_text(text)
    with pytest.raises(BundleError, match=r"markers\.json"):
        MarkerReader.load(copy)


def test_a_probe_that_is_answered_differently_is_refused(copy: Path) -> None:
    values = json.loads((copy / "markers.json").read_text())
    (copy / "markers.json").write_text(json.dumps(values | {"probe_tolerance": -1.0}))
    with pytest.raises(BundleError, match="does not replay its probe"):
        MarkerReader.load(copy)


def test_a_description_without_a_threshold_is_refused(copy: Path) -> None:
    values = json.loads((copy / "markers.json").read_text())
    del values["threshold"]
    (copy / "markers.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match="cannot be used"):
        MarkerReader.load(copy)


def test_the_digest_is_that_of_the_description(reader: MarkerReader, copy: Path) -> None:
    assert reader.digest == MarkerReader.load(copy).digest
    assert len(reader.digest) == 64
