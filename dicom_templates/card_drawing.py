"""The picture of a refusal: a heading that is legible on a thumbnail, why, what to do, the film, the marks.

Pure drawing, as in `drawing`. All text comes from the lines of the caption, and nothing else decides on the layout but
whether there is a film to show: a checker can draw a card again from its caption and compare.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dicom_templates.drawing import (
    AMBER,
    BACKGROUND,
    BOX,
    DIM,
    INK,
    MARGIN,
    Colour,
    Rgb,
    caption_band,
    even,
    font,
)
from dicom_templates.film_drawing import draw_film, legend_of
from inference.findings import FilmLook

NOT_SCORED: Final = "NOT SCORED"
SERIES_HEADING: Final = f"MR SEQUENCE {NOT_SCORED}"
REASON: Final = "Reason"
FOUND: Final = "Found: "
REMEDY: Final = "What to do: "
EVIDENCE: Final = "Evidence: "
MORE: Final = "Further reasons, in the report: "
FOOTER: Final = "Software "  # the line with which the caption band at the bottom begins

WIDTH: Final = 960
FILM: Final = (300, 330)  # the most that the picture of the film takes, columns and rows
_FILM_TITLE: Final = "The film"
_TITLE: Final = 28  # rows
_LEGEND: Final = 20  # rows, each line of the film's legend
_EDGE: Final = 20  # rows free above and below the text
_GAP: Final = 24  # columns between text and film, sign and heading
_MIN_BODY: Final = 230  # rows, so that a card without a film is not a strip
_HEADING: Final = 112  # font size; "RIGHT KNEE" and "NOT SCORED" just fit beside the sign
_SIGN: Final = 132  # pixels, the sign that something was left out
_GROUND: Final[Colour] = (244, 168, 40)  # tells refusals from results at a distance, without glare
_ON_GROUND: Final[Colour] = (24, 20, 8)
_LEADING: Final = 1.32  # line height over font size


@dataclass(frozen=True)
class _Block:
    """Lines that belong together, and how they are set; `space` rows are left free above."""

    lines: tuple[str, ...]
    size: int
    colour: Colour
    space: int

    @property
    def height(self) -> int:
        return self.space + len(self.lines) * round(self.size * _LEADING)


def draw_card(
    lines: Sequence[str], rendering: npt.NDArray[np.uint8] | None = None, look: FilmLook | None = None
) -> Rgb:
    """Draw a caption (`card.card_lines`) as a picture (rows, 960, 3); no line is cut, a long text makes it higher.

    `rendering` is the film as uint8 (rows, columns), `look` what was seen on it and is marked there.
    """
    heading, body, footer = _parts(lines)
    width = WIDTH - 2 * MARGIN - (FILM[0] + _GAP if rendering is not None else 0)
    blocks = [_block(line, width) for line in body]
    band = caption_band(footer, WIDTH, headed=False)
    top = _heading_height(heading)
    room = max(sum(block.height for block in blocks), _MIN_BODY if rendering is None else _TITLE + FILM[1])
    height = even(top + room + 2 * _EDGE + band.shape[0])
    canvas = Image.new("RGB", (WIDTH, height), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    _draw_heading(canvas, heading, top)
    row = top + _EDGE
    for block in blocks:
        row += block.space
        for line in block.lines:
            pen.text((MARGIN, row), line, font=font(block.size), fill=block.colour)
            row += round(block.size * _LEADING)
    if rendering is not None:
        _draw_film(canvas, rendering, look, top + _EDGE)
    pixels = np.asarray(canvas).copy()
    pixels[height - band.shape[0] :] = band
    return pixels


def shows(pixels: Rgb, lines: Sequence[str]) -> bool:
    """Whether a picture is the card of this caption, whatever film it shows."""
    if pixels.shape[1:] != (WIDTH, 3):
        return False
    place = np.ones(pixels.shape[:2], dtype=bool)
    place[_film_rows(lines), WIDTH - MARGIN - FILM[0] : WIDTH - MARGIN] = False
    for film, compared in ((None, slice(None)), (np.zeros((1, 1), np.uint8), place)):
        again = draw_card(lines, film)
        if again.shape == pixels.shape and np.array_equal(again[compared], pixels[compared]):
            return True
    return False


def wrapped(text: str, size: int, width: int) -> tuple[str, ...]:
    """The text in lines of at most `width` pixels, broken at spaces, inside of a word only where it must be."""
    letters = font(size)
    lines, line = [], ""
    for word in _pieces(text, size, width):
        longer = f"{line} {word}" if line else word
        if line and letters.getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return (*lines, line)


def _pieces(text: str, size: int, width: int) -> Iterator[str]:
    """The words of a text; those that are wider than a line in pieces that are not."""
    letters = font(size)
    for word in text.split():
        rest = word
        while letters.getlength(rest) > width:
            count = next(n for n in range(len(rest) - 1, 0, -1) if n == 1 or letters.getlength(rest[:n]) <= width)
            yield rest[:count]
            rest = rest[count:]
        yield rest


def _parts(lines: Sequence[str]) -> tuple[str, Sequence[str], Sequence[str]]:
    """Heading, body, and the lines of the band at the bottom; a caption that is none of ours is all body."""
    if not lines:
        return "", (), ()
    end = next((number for number, line in enumerate(lines) if line.startswith(FOOTER)), len(lines))
    return lines[0], lines[1:end], lines[end:]


def _block(line: str, width: int) -> _Block:
    if line.startswith(REASON):
        return _Block(wrapped(line, 36, width), 36, AMBER, 18)
    if line.startswith(FOUND):
        return _Block(wrapped(line, 24, width), 24, INK, 6)
    if line.startswith(REMEDY):
        return _Block(wrapped(line, 24, width), 24, BOX, 10)
    if line.startswith(EVIDENCE):
        return _Block(wrapped(line, 19, width), 19, DIM, 14)
    return _Block(wrapped(line, 24, width), 24, INK, 14 if line.startswith(MORE) else 0)


def _heading_lines(heading: str) -> tuple[str, ...]:
    """The knee stands above the verdict."""
    knee = heading.removesuffix(NOT_SCORED).strip()
    return (knee, NOT_SCORED) if knee and heading.endswith(NOT_SCORED) else (heading,)


def _heading_height(heading: str) -> int:
    return even(len(_heading_lines(heading)) * round(_HEADING * 1.06) + 2 * _EDGE)


def _draw_heading(canvas: Image.Image, heading: str, height: int) -> None:
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((0, 0, WIDTH, height - 1), fill=_GROUND)
    canvas.paste(_ON_GROUND, (MARGIN, (height - _SIGN) // 2), _sign())
    lines, left = _heading_lines(heading), MARGIN + _SIGN + _GAP
    for number, line in enumerate(lines):
        middle = _EDGE + round((number + 0.5) * (height - 2 * _EDGE) / len(lines))
        size = next((s for s in range(_HEADING, 10, -2) if font(s).getlength(line) <= WIDTH - left - MARGIN), 10)
        pen.text((left, middle), line, font=font(size), fill=_ON_GROUND, anchor="lm", stroke_width=2)


def _sign() -> Image.Image:
    """A disc with a bar left out, as a mask; drawn larger, for smooth edges."""
    side = 4 * _SIGN
    mask = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(mask)
    pen.ellipse((0, 0, side - 1, side - 1), fill=255)
    pen.rounded_rectangle((side // 6, 5 * side // 12, side - side // 6, side - 5 * side // 12), side // 24, fill=0)
    return mask.resize((_SIGN, _SIGN), Image.Resampling.LANCZOS)


def _film_rows(lines: Sequence[str]) -> slice:
    top = _heading_height(_parts(lines)[0]) + _EDGE + _TITLE
    return slice(top, top + FILM[1])


def _draw_film(canvas: Image.Image, rendering: npt.NDArray[np.uint8], look: FilmLook | None, top: int) -> None:
    """The whole film in the upper right of the body, under its title, and what the marks on it mean."""
    left = WIDTH - MARGIN - FILM[0]
    pen = ImageDraw.Draw(canvas)
    pen.text((left, top), _FILM_TITLE, font=font(19), fill=DIM)
    legend = legend_of(look) if look is not None else ()
    room = FILM[1] - _LEGEND * len(legend)
    film = draw_film(rendering, look, (FILM[0], room))
    canvas.paste(Image.fromarray(film.pixels), (left, top + _TITLE))
    row = top + _TITLE + film.pixels.shape[0]
    for colour, text in legend:
        pen.rectangle((left, row + 7, left + 13, row + 17), outline=colour, width=2)
        pen.text((left + 20, row + 2), text, font=font(15), fill=colour)
        row += _LEGEND
