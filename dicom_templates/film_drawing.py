"""A film with what was seen on it: knees, places that may be knees, burned-in letters. For cards and `genu explain`.

Pure drawing, as in `drawing`. The three colours are told apart by the colour-blind (after Okabe and Ito), and what they
mean is also told by line and label: knees have a solid outline, unsure places a broken one, letters a thin one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dicom_templates.drawing import Colour, Rgb, font
from inference.findings import Box, FilmLook, SeenKnee, SeenLetter

KNEE: Final[Colour] = (86, 180, 233)
PLACE: Final[Colour] = (240, 160, 20)
LETTER: Final[Colour] = (236, 132, 196)
_SHADE: Final[Colour] = (0, 0, 0)
_DASH: Final = 6  # pixels, of broken lines
_Place: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Mark:
    """One outline: where it is in source pixels, what stands beside it, and how it is drawn."""

    box: Box
    label: str
    colour: Colour
    broken: bool = False
    below: bool = False


@dataclass(frozen=True, eq=False)
class MarkedFilm:
    """A film as a picture, uint8 (rows, columns, 3); `scale` is picture pixels per source pixel."""

    pixels: Rgb
    scale: float


def is_found(knee: SeenKnee) -> bool:
    """Whether a place was taken for a knee, scored or not; the others were seen and left."""
    return knee.crop is not None or knee.code is not None or knee.side is not None


def knee_label(knee: SeenKnee) -> str:
    """Side and score, and what became of it: "R 0.98 scored"."""
    if not is_found(knee):
        return f"? {knee.score:.2f}"
    side = knee.side.value if knee.side is not None else "side ?"
    return f"{side} {knee.score:.2f} {'not scored' if knee.code is not None else 'scored'}"


def letter_label(letter: SeenLetter) -> str:
    """The letter, and whether it reads backwards."""
    return f"letter {letter.side.value}{', mirrored' if letter.mirrored else ''}"


def marks_of(look: FilmLook) -> tuple[Mark, ...]:
    """What is drawn, the most important last, so that it lies on top."""
    unsure = [Mark(knee.box, knee_label(knee), PLACE, broken=True) for knee in look.knees if not is_found(knee)]
    letters = [Mark(letter.box, letter_label(letter), LETTER, below=True) for letter in look.letters]
    return (*unsure, *letters, *(Mark(knee.box, knee_label(knee), KNEE) for knee in look.knees if is_found(knee)))


def legend_of(look: FilmLook) -> tuple[tuple[Colour, str], ...]:
    """What the colours on this film mean; only those that are on it."""
    words = {KNEE: "knee, its score", PLACE: "perhaps a knee", LETTER: "burned-in letter"}
    drawn = {mark.colour for mark in marks_of(look)}
    return tuple((colour, text) for colour, text in words.items() if colour in drawn)


def draw_film(
    rendering: npt.NDArray[np.uint8], look: FilmLook | None, most: tuple[int, int], *, text: int = 15
) -> MarkedFilm:
    """The whole film in at most `most` (columns, rows) pixels, with its marks.

    Args:
        rendering: the film as uint8 (rows, columns).
        look: what was seen on it; None draws the bare film.
        most: columns and rows that there is room for.
        text: size of the labels in pixels.
    """
    rows, columns = rendering.shape
    scale = min(most[0] / columns, most[1] / rows)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    resample = Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.BICUBIC
    canvas = Image.fromarray(rendering).resize(size, resample, reducing_gap=2.0).convert("RGB")
    pen = ImageDraw.Draw(canvas)
    marks = marks_of(look) if look is not None else ()
    for mark in marks:
        _outline(pen, mark, size, scale, 2 if max(size) >= 500 and mark.colour != LETTER else 1)
    taken: list[_Place] = []
    for mark in reversed(marks):  # the most important label gets the best place
        if font(text).getlength(mark.label) + 6 <= size[0] / 2:  # else there is nothing left of the film to see
            taken.append(_label(pen, mark, size, scale, text, taken))
    return MarkedFilm(np.asarray(canvas).copy(), scale)


def edges(box: Box, size: tuple[int, int], scale: float) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the outline in picture pixels, inside of the picture."""
    left, right = (min(max(round(edge * scale), 0), size[0]) for edge in (box.left, box.right))
    top, bottom = (min(max(round(edge * scale), 0), size[1]) for edge in (box.top, box.bottom))
    return left, top, max(right - 1, left), max(bottom - 1, top)


def _outline(pen: ImageDraw.ImageDraw, mark: Mark, size: tuple[int, int], scale: float, width: int) -> None:
    left, top, right, bottom = edges(mark.box, size, scale)
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=_SHADE)
    if right - left <= 2 * width or bottom - top <= 2 * width:
        pen.rectangle((left, top, right, bottom), outline=mark.colour)
        return
    pen.rectangle((left + width, top + width, right - width, bottom - width), outline=_SHADE)
    if not mark.broken:
        pen.rectangle((left, top, right, bottom), outline=mark.colour, width=width)
        return
    for begin, end in _dashes(left, right):
        for row in (top, bottom - width + 1):
            pen.rectangle((begin, row, end, row + width - 1), fill=mark.colour)
    for begin, end in _dashes(top, bottom):
        for column in (left, right - width + 1):
            pen.rectangle((column, begin, column + width - 1, end), fill=mark.colour)


def _dashes(begin: int, end: int) -> Iterator[tuple[int, int]]:
    for start in range(begin, end + 1, 2 * _DASH):
        yield start, min(start + _DASH - 1, end)


def _label(
    pen: ImageDraw.ImageDraw,
    mark: Mark,
    size: tuple[int, int],
    scale: float,
    text: int,
    taken: Sequence[_Place],
) -> _Place:
    """Write the label at a corner of the box where no other one stands; returns its place."""
    left, top, right, bottom = edges(mark.box, size, scale)
    letters = font(text)
    width, height = letters.getlength(mark.label) + 6, round(text * 1.3)
    rows = (bottom + 2, top - height - 2) if mark.below else (top - height - 2, top + 2, bottom + 2, bottom - height)
    further = tuple(bottom + 2 + height * number for number in range(1, 6))
    corners = [(column, row) for row in (*rows, *further) for column in (left, right - width)]
    inside = [
        (min(max(column, 0.0), max(size[0] - width, 0.0)), min(max(row, 0.0), float(max(size[1] - height, 0))))
        for column, row in corners
    ]
    places = [(column, row, column + width, row + height) for column, row in inside]
    place = next((one for one in places if not any(_overlap(one, other) for other in taken)), places[0])
    pen.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=_SHADE)
    pen.text((place[0] + 3, place[1]), mark.label, font=letters, fill=mark.colour)
    return place


def _overlap(one: _Place, other: _Place) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
