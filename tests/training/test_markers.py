"""Making the reader of burned-in letters: films and labels mean what they say, a small training run gives a bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.findings import Side
from inference.glyphs import find
from inference.markers import CLASSES, LEFT, NOTHING, RIGHT, RIGHT_MIRRORED, TEE, TEXT, MarkerReader
from inference.sides import Letter
from tests import phantom_pixels
from training import markers
from training.cli import main
from training.marker_films import Glyph, make_film
from training.marker_fonts import HELD_OUT, Style, fonts, label

PLAN = markers.Plan(windows=20, steps=12, tune_films=3, seed=3)


def crops(count: int) -> np.ndarray:
    films = [phantom_pixels.knee("L", 336, 336, seed=seed)[50:274, 56:280] for seed in range(count)]
    return (np.clip(np.stack(films), 0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("markers")
    markers.make(crops(2), crops(2), PLAN, folder)
    return folder


def test_a_small_run_gives_a_bundle_that_loads(made: Path) -> None:
    reader = MarkerReader.load(made)
    assert reader.read(np.zeros((300, 200), np.float32)) == ()
    assert sum(path.stat().st_size for path in made.iterdir()) < 1 << 20


def test_the_same_seed_gives_the_same_bundle(made: Path, tmp_path: Path) -> None:
    markers.make(crops(2), crops(2), PLAN, tmp_path)
    for name in ("weights.safetensors", "probe.safetensors", "markers.json"):
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes()


def test_fonts_are_either_trained_with_or_held_out() -> None:
    assert set(fonts(held_out=True)) == set(HELD_OUT)
    assert not set(fonts()) & set(HELD_OUT)
    assert len(fonts()) > 15


def test_glyphs_lie_where_the_film_says_and_mirror_writing_is_named() -> None:
    style = Style("DejaVuSans", 30, width=1.0, slant=0.0, tilt=0.0, weight=0, mirrored=False)
    plain = label("RT", style, np.random.default_rng(0))
    turned = label("RT", Style(**{**style.__dict__, "mirrored": True}), np.random.default_rng(0))
    assert [kind for _, kind in plain] == [RIGHT, TEE]
    assert [kind for _, kind in turned] == [RIGHT_MIRRORED, TEE]
    assert [kind for _, kind in label("RT", style, np.random.default_rng(0), turn=180)] == [TEXT, TEXT]
    rows = np.flatnonzero(plain[0][0].max(axis=1) > 128)
    assert rows[-1] - rows[0] + 1 == pytest.approx(30, abs=2)
    assert np.abs(plain[0][0][:, ::-1].astype(float) - turned[0][0]).mean() < 6


def test_films_are_the_same_for_a_seed() -> None:
    one, other = (make_film(crops(2), (200, 260), np.random.default_rng(7), fonts(), busy=2) for _ in range(2))
    assert np.array_equal(one.pixels, other.pixels)
    assert one.glyphs == other.glyphs
    assert one.pixels.dtype == np.float32
    assert 0 <= one.pixels.min() <= one.pixels.max() <= 1


def test_places_are_labelled_by_what_they_hold() -> None:
    glyphs = (Glyph((10, 10, 30, 40), RIGHT, True, True), Glyph((34, 10, 54, 40), TEE, False, True))
    boxes = np.array([[10, 10, 30, 41], [35, 9, 54, 40], [8, 8, 56, 42], [10, 10, 30, 24], [90, 90, 99, 99]], np.int32)
    assert markers.labelled(boxes, glyphs).tolist() == [RIGHT, TEE, TEXT, -1, NOTHING]
    assert markers.labelled(boxes, ()).tolist() == [NOTHING] * 5


def test_a_letter_is_wrong_unless_the_film_has_it() -> None:
    none = find(np.zeros((100, 100), np.uint8))
    glyphs = (Glyph((10, 10, 30, 40), RIGHT, True, True), Glyph((60, 10, 80, 40), LEFT, False, True))
    seen = markers.Seen(glyphs, none, np.zeros((0, len(CLASSES)), np.float32), (100, 100))
    right = Letter(Side.RIGHT, False, 0.2, 0.25)
    assert markers.judge(seen, [right]) == (1, [])
    for wrong in (
        Letter(Side.RIGHT, True, 0.2, 0.25),
        Letter(Side.LEFT, False, 0.2, 0.25),
        Letter(Side.LEFT, False, 0.7, 0.25),
    ):
        assert markers.judge(seen, [wrong]) == (0, [wrong])
    assert markers.judge(seen, [Letter(Side.RIGHT, False, 0.9, 0.9)])[1]


def test_rounding_keeps_the_network_usable() -> None:
    torch.manual_seed(0)
    net = markers.ready(markers.MarkerNet())
    assert not net.training
    assert all(torch.equal(v, v.half().float()) for v in net.state_dict().values() if v.is_floating_point())


def test_wrong_use_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["markers", "--run", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "no run" in capsys.readouterr().err
