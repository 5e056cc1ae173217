"""The picture: the heat lies where the saliency lies, nothing is mirrored, and the caption says what it must."""

import numpy as np
import pytest

from dicom_templates.drawing import Drawing, blend, caption_band, caption_lines, draw_knee, shown_part, stretched
from inference.findings import Box, KneeFinding, Saliency, Side
from tests.dicom_templates.factory import MODEL, STAND_IN, bump, knee, rendering

SIZES = [(224, 224), (2000, 2500), (512, 512), (3000, 900), (60, 40)]


def hottest(finding: KneeFinding, drawing: Drawing, size: tuple[int, int]) -> tuple[float, float]:
    """Where the overlay is hottest, as (column, row) of the source image."""
    flat = np.full((drawing.pixels.shape[0], drawing.pixels.shape[1]), 0.0)
    (left, top), (over, _) = drawing.panels
    width, height = round(drawing.view.width * drawing.scale), round(drawing.view.height * drawing.scale)
    plain = drawing.pixels[top : top + height, left : left + width].astype(float)
    mixed = drawing.pixels[top : top + height, over : over + width].astype(float)
    flat = (np.abs(mixed - plain).sum(axis=-1)).clip(0)
    rows, columns = np.nonzero(flat > 0.9 * flat.max())
    return (
        drawing.view.left + (columns.mean() + 0.5) / drawing.scale,
        drawing.view.top + (rows.mean() + 0.5) / drawing.scale,
    )


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((224, 224), Box(0, 0, 224, 224)),
        ((512, 512), Box(270, 60, 490, 430)),
        ((512, 512), Box(20, 60, 240, 430)),
        ((2000, 2500), Box(1300.5, 300.25, 2300.5, 1700.75)),
        ((400, 300), Box(-50, 50, 250, 350)),
    ],
)
def test_heat_lies_where_the_saliency_lies(size: tuple[int, int], box: Box) -> None:
    finding = knee(size=size, box=box, saliency=bump(0.3, 0.6, 29))
    drawing = draw_knee(finding, np.full(size, 90, dtype=np.uint8))
    column, row = hottest(finding, drawing, size)
    # Cell centres: 0.3 of the grid of 29 lies at (0.3 * 28 + 0.5) / 29 of the box.
    assert column == pytest.approx(box.left + (0.3 * 28 + 0.5) / 29 * box.width, abs=0.03 * box.width)
    assert row == pytest.approx(box.top + (0.6 * 28 + 0.5) / 29 * box.height, abs=0.03 * box.height)


def test_no_heat_outside_of_the_box_of_the_saliency() -> None:
    saliency = Saliency(np.ones((7, 7), dtype=np.float32), Box(50, 50, 100, 100))
    seen = stretched(saliency, Box(0, 0, 200, 200), (200, 200))
    assert seen[55:95, 55:95].min() > 0.99
    assert seen[:, :48].max() == 0.0
    assert seen[102:].max() == 0.0
    assert seen.min() >= 0.0
    assert seen.max() <= 1.0


def test_without_saliency_the_overlay_is_the_picture() -> None:
    plain = np.full((4, 4, 3), 77, dtype=np.uint8)
    assert np.array_equal(blend(plain, np.zeros((4, 4), dtype=np.float32)), plain)


def test_the_picture_is_not_mirrored() -> None:
    size = (300, 300)
    film = np.zeros(size, dtype=np.uint8)
    film[:100, :100] = 200
    drawing = draw_knee(knee(size=size, saliency=np.zeros((7, 7), dtype=np.float32)), film)
    for left, top in drawing.panels:
        assert drawing.pixels[top + 50, left + 50].min() > 150
        assert drawing.pixels[top + 50, left + 450].max() < 50
        assert drawing.pixels[top + 450, left + 50].max() < 50


def test_a_small_box_is_shown_with_context_and_a_large_one_whole() -> None:
    assert shown_part(Box(100, 100, 200, 200), 1000, 1000) == Box(88, 88, 212, 212)
    assert shown_part(Box(5, 5, 220, 224), 224, 224) == Box(0, 0, 224, 224)
    assert shown_part(Box(2000, 2000, 2100, 2100), 224, 224) == Box(0, 0, 224, 224)


@pytest.mark.parametrize("size", SIZES)
def test_size_of_the_picture_is_fit_for_a_screen(size: tuple[int, int]) -> None:
    drawing = draw_knee(knee(size=size), rendering(size))
    rows, columns, channels = drawing.pixels.shape
    assert channels == 3
    assert 600 <= rows <= 900
    assert 960 <= columns <= 1400
    assert rows % 2 == 0
    assert columns % 2 == 0


def test_caption_says_result_side_model_and_marks() -> None:
    lines = caption_lines(knee(Side.RIGHT, 2))
    text = "\n".join(lines)
    for words in ("RIGHT KNEE", "KL 2", "0.80", MODEL.name, MODEL.version, "AI - RESEARCH - NOT FOR DIAGNOSIS"):
        assert words in text
    assert "LEFT" not in text
    assert "SYNTHETIC" not in text
    assert "SYNTHETIC MODEL - NOT A RESULT" in caption_lines(knee(model=STAND_IN))


def test_caption_stands_in_the_pixels() -> None:
    drawing = draw_knee(knee(), rendering())
    band = caption_band(drawing.caption, drawing.pixels.shape[1])
    assert drawing.caption_rows == band.shape[0]
    assert np.array_equal(drawing.pixels[-band.shape[0] :], band)
    other = caption_band(caption_lines(knee(Side.RIGHT)), drawing.pixels.shape[1])
    assert not np.array_equal(band, other)


@pytest.mark.parametrize("width", [960, 1384])
def test_no_line_of_a_caption_is_cut_off(width: int) -> None:
    band = caption_band(["W" * 90, "M" * 90], width)
    ground = band[0, 0]
    assert (band[:, -10:] == ground).all()
    assert not (band == ground).all()
