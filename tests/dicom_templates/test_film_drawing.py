"""What was seen is marked where it is, at any scale, and each kind of mark in its own colour."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from dicom_templates.card import EXPLAINED
from dicom_templates.card_drawing import FILM, WIDTH, draw_card, shows
from dicom_templates.checker import check
from dicom_templates.compose import compose
from dicom_templates.drawing import MARGIN, font
from dicom_templates.film_drawing import KNEE, LETTER, PLACE, draw_film, edges, legend_of, marks_of
from inference.findings import Box, FilmLook, Refusal, RefusalCode, SeenKnee, SeenLetter, Side
from tests.dicom_templates.factory import context, header, image, rendering, study, uid

SIZE = (400, 600)
SCORED = SeenKnee(Box(40, 60, 240, 260), 0.97, 1.0, 0.02, 0.0, 0.0, Side.RIGHT, None, np.zeros((8, 8), np.uint8))
METAL = SeenKnee(Box(360, 60, 560, 260), 0.91, 0.0, 0.98, 0.9, 0.0, Side.LEFT, RefusalCode.METAL)
UNSURE = SeenKnee(Box(250, 300, 350, 390), 0.31, 0.0, 0.5, 0.0, 0.0)
LOOK = FilmLook(
    image(size=SIZE), knees=(SCORED, METAL, UNSURE), letters=(SeenLetter(Side.LEFT, True, Box(560, 20, 580, 40)),)
)


def places(pixels: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (pixels == np.array(colour, np.uint8)).all(axis=-1)
    return found


@pytest.mark.parametrize("most", [(600, 400), (1200, 900), (300, 330), (77, 400)])
def test_every_box_is_outlined_where_it_is(most: tuple[int, int]) -> None:
    film = draw_film(rendering(SIZE), LOOK, most, text=12)
    assert film.pixels.shape == (round(400 * film.scale), round(600 * film.scale), 3)
    assert film.pixels.shape[1] <= most[0] and film.pixels.shape[0] <= most[1]
    for mark in marks_of(LOOK):
        left, top, right, bottom = edges(mark.box, film.pixels.shape[1::-1], film.scale)
        there = places(film.pixels, mark.colour)
        corner = there[max(top - 1, 0) : top + 2, left:right].any(), there[top:bottom, left : left + 2].any()
        assert all(corner) or mark.colour == LETTER, mark
    assert not places(film.pixels[:, : int(30 * film.scale)], KNEE).any()


def test_the_bare_film_has_no_marks() -> None:
    film = draw_film(rendering(SIZE), None, (600, 400))
    assert film.scale == 1
    assert np.array_equal(film.pixels, np.repeat(rendering(SIZE)[..., None], 3, axis=2))


def test_each_kind_has_its_colour_and_says_what_became_of_it() -> None:
    told = {mark.label: (mark.colour, mark.broken) for mark in marks_of(LOOK)}
    assert told == {
        "R 0.97 scored": (KNEE, False),
        "L 0.91 not scored": (KNEE, False),
        "? 0.31": (PLACE, True),
        "letter L, mirrored": (LETTER, False),
    }
    assert [colour for colour, _ in legend_of(LOOK)] == [KNEE, PLACE, LETTER]
    assert not legend_of(FilmLook(image()))


def test_the_colours_are_told_apart_in_grey_and_without_red_or_green() -> None:
    colours = np.array([KNEE, PLACE, LETTER], float)
    for weights in ([0.0, 0.0, 1.0], [0.5, 0.5, 0.0]):  # blue alone, and red with green as one
        seen = colours @ np.array(weights)
        assert min(abs(b - a) for a, b in pairwise(sorted(seen))) > 5
    assert np.ptp(colours[:, 2]) > 150


def test_boxes_beyond_the_film_and_points_are_drawn_without_harm() -> None:
    knees = [
        SeenKnee(Box(*edge), 0.5, 0, 0, 0, 0) for edge in ((-50, -50, 900, 900), (10, 10, 10, 10), (590, 390, 605, 420))
    ]
    film = draw_film(rendering(SIZE), FilmLook(image(size=SIZE), knees=tuple(knees)), (300, 300))
    assert places(film.pixels, PLACE).any()


def test_the_card_draws_what_was_seen_and_names_the_page() -> None:
    refusal = Refusal(RefusalCode.METAL, "there is metal in the knee.", uid(1), Side.LEFT)
    findings = study([], [refusal], [image(size=SIZE)])
    with_look = type(findings)(
        **{**vars(findings), "renderings": {uid(1): rendering(SIZE)}, "looks": (LOOK,)}  # type: ignore[arg-type]
    )
    (card,) = compose(with_look, [header(size=SIZE)], context()).cards
    assert check(card) == []
    assert EXPLAINED in str(card.ImageComments)
    pixels = np.frombuffer(card.PixelData, np.uint8).reshape(card.Rows, card.Columns, 3)
    shown = pixels[:, WIDTH - MARGIN - FILM[0] : WIDTH - MARGIN]
    for colour in (KNEE, PLACE, LETTER):
        assert places(shown, colour).any()
    assert font(15).getlength(max((text for _, text in legend_of(LOOK)), key=len)) < FILM[0]
    written = [header(size=SIZE, BurnedInAnnotation="YES")]
    (bare,) = compose(with_look, written, context()).cards
    assert not places(np.frombuffer(bare.PixelData, np.uint8).reshape(bare.Rows, bare.Columns, 3), PLACE).any()


def test_a_card_with_marks_is_the_card_of_its_caption() -> None:
    lines = ["NOT SCORED", "There is no AI result for this image.", EXPLAINED, "Software Genu 0.1.0"]
    for size in (SIZE, (900, 300)):
        assert shows(draw_card(lines, rendering(size), LOOK), lines)
