"""The facts of `genu explain` about one image or MR series as one picture, for a message or a talk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from dicom_templates.card_drawing import wrapped
from dicom_templates.drawing import (
    ALARM,
    AMBER,
    BACKGROUND,
    BAND,
    BOX,
    DIM,
    INK,
    Colour,
    Rgb,
    caption_band,
    font,
    model_line,
)
from dicom_templates.film_drawing import draw_film, legend_of
from dicom_templates.identity import RESEARCH_MARK, SYNTHETIC_MARK
from dicom_templates.mr_words import slice_words
from inference.findings import KneeFinding
from plugin import explain, explain_mr
from plugin.explain import Page

WIDTH: Final = 1560
MARGIN: Final = 20
FILM: Final = (860, 900)  # the most columns and rows of the film
_RIGHT: Final = WIDTH - FILM[0] - 3 * MARGIN
_PART: Final = 275  # three pictures of a knee beside each other fill the left column
_PEAK: Final = 420  # the longer side of the picture of a slice
_SMALL, _TEXT, _TITLE, _VERDICT = 15, 17, 22, 40


@dataclass(frozen=True, eq=False)
class Picture:
    """uint8 (rows, columns, 3); `film` is where the film's upper left corner lies (column, row), None without a film.

    `scale` is picture pixels per pixel of the film.
    """

    pixels: Rgb
    film: tuple[int, int] | None
    scale: float


class _Column:
    """Texts and pictures, one below the other."""

    def __init__(self, width: int, ground: Colour = BACKGROUND) -> None:
        self.width, self._ground, self._parts = width, ground, list[Rgb]()

    def text(self, line: str, size: int = _TEXT, colour: Colour = INK, indent: int = 0) -> None:
        """A paragraph; what does not fit into a line is wrapped, never cut."""
        lines = wrapped(line, size, self.width - indent)
        height = round(size * 1.35)
        part = Image.new("RGB", (self.width, height * len(lines) + 3), self._ground)
        pen = ImageDraw.Draw(part)
        for number, one in enumerate(lines):
            pen.text((indent, height * number), one, font=font(size), fill=colour)
        self._parts.append(np.asarray(part))

    def title(self, line: str) -> None:
        """A heading."""
        self.space(14)
        self.text(line, _TITLE, AMBER)

    def space(self, rows: int) -> None:
        """Free rows."""
        self._parts.append(np.full((rows, self.width, 3), self._ground, np.uint8))

    def pictures(self, pictures: Sequence[Rgb], captions: Sequence[str] = ()) -> None:
        """Pictures side by side, each with its caption below."""
        widest = max(picture.shape[1] for picture in pictures)
        step = max(self.width // max(len(pictures), 3), widest + 10) if len(pictures) > 1 else self.width
        height = max(picture.shape[0] for picture in pictures)
        part = Image.new("RGB", (self.width, height + (22 if captions else 0)), self._ground)
        pen = ImageDraw.Draw(part)
        for number, picture in enumerate(pictures):
            part.paste(Image.fromarray(picture), (number * step, 0))
            if captions:
                pen.text((number * step, height + 2), captions[number], font=font(_SMALL), fill=DIM)
        self._parts.append(np.asarray(part))

    @property
    def pixels(self) -> Rgb:
        """All of it."""
        return np.concatenate(self._parts) if self._parts else np.zeros((0, self.width, 3), np.uint8)


def draw(page: Page) -> Picture:
    """Draw the page."""
    head, left, right = _head(page), _Column(FILM[0]), _Column(_RIGHT)
    film = None if page.is_series else _film(left, page)
    _series(left, page)
    for knee in page.knees:
        _knee(left, page, knee)
    _refusals(right, page)
    _path(right, page)
    _evidence(right, page)
    _places(left, page)
    lines = [f"Genu {page.software}", *map(model_line, page.models), explain.NO_IDENTITY, *_marks(page)]
    band = caption_band(lines, WIDTH, headed=False)
    top, body = head.shape[0] + MARGIN, max(left.pixels.shape[0], right.pixels.shape[0])
    canvas = np.full((top + body + MARGIN + band.shape[0], WIDTH, 3), BACKGROUND, np.uint8)
    canvas[: head.shape[0]] = head
    for column, place in ((left, MARGIN), (right, FILM[0] + 2 * MARGIN)):
        canvas[top : top + column.pixels.shape[0], place : place + column.width] = column.pixels
    canvas[len(canvas) - len(band) :] = band
    return Picture(canvas, (MARGIN, top) if film is not None else None, film or 0.0)


def _head(page: Page) -> Rgb:
    head = _Column(WIDTH - 2 * MARGIN, BAND)
    head.space(MARGIN)
    for line in explain.verdict(page):
        head.text(line, _VERDICT)
    head.text(", ".join(explain.image_lines(page)), _SMALL, DIM)
    for mark in _marks(page):
        head.text(mark, _TITLE, ALARM if mark == SYNTHETIC_MARK else AMBER)
    head.space(10)
    framed = np.full((head.pixels.shape[0], WIDTH, 3), BAND, np.uint8)
    framed[:, MARGIN : WIDTH - MARGIN] = head.pixels
    return framed


def _marks(page: Page) -> list[str]:
    return [RESEARCH_MARK, *([SYNTHETIC_MARK] if page.is_synthetic else [])]


def _film(column: _Column, page: Page) -> float | None:
    """The scale of the film, None where it is not shown."""
    drawn = draw_film(page.film, page.look, FILM, text=18) if page.film is not None else None
    if drawn is None:
        column.text(page.why_no_film, _TITLE, DIM)
    else:
        column.pictures([drawn.pixels])
        column.space(4)
        for colour, text in legend_of(page.look):
            column.text(f"[ ]  {text}", _SMALL, colour)
    for line in explain.film_sentences(page):
        column.text(line)
    return drawn.scale if drawn is not None else None


def _series(column: _Column, page: Page) -> None:
    for volume in page.volumes:
        column.title(explain_mr.verdict_line(volume))
        for line in explain_mr.volume_lines(volume):
            column.text(line)
        column.space(8)
        if page.why_no_film:
            column.text(page.why_no_film, _TITLE, DIM)
            continue
        captions = (f"slice {slice_words(volume.top, volume)}", "where the model looked")
        column.pictures(explain_mr.peak_pictures(volume, _PEAK), captions)
        column.space(8)
        column.pictures([explain_mr.sheet(volume, column.width)], ("number: attention of each slice that was read",))
    if page.is_series:
        column.title("The MR series of this study")
    for uid, question, answer in explain_mr.series_rows(page.series):
        column.text(f"{uid}: {question}: {answer}", _SMALL)


def _knee(column: _Column, page: Page, knee: KneeFinding) -> None:
    title, *lines = explain.knee_lines(knee)
    column.title(title)
    plain, heat = explain.attention(page, knee, _PART)
    pictures, captions = ([plain], ["on the film"]) if page.film is not None else ([], [])
    if (crop := explain.crop_of(page, knee)) is not None:
        pictures.append(explain.enlarged(crop, _PART))
        captions.append("as the model saw it")
    column.pictures([*pictures, heat], [*captions, f"where it looked ({knee.saliency.method})"])
    column.pictures([_bars(knee, column.width)])
    for line in lines[1:]:
        column.text(line)


def _bars(knee: KneeFinding, width: int) -> Rgb:
    part = Image.new("RGB", (width, 5 * 22), BACKGROUND)
    pen = ImageDraw.Draw(part)
    for grade, value in enumerate(knee.kl.probabilities):
        row = 22 * grade
        ink = INK if grade == knee.kl.grade else DIM
        pen.text((0, row), f"KL {grade}", font=font(_TEXT), fill=ink)
        pen.rectangle((60, row + 4, 460, row + 17), outline=DIM)
        pen.rectangle((60, row + 4, 60 + round(400 * value), row + 17), fill=ink)
        pen.text((476, row), f"{value:.2f}", font=font(_TEXT), fill=ink)
    return np.asarray(part)


def _refusals(column: _Column, page: Page) -> None:
    for whom, meaning, sentence, remedy in explain.remedies(page):
        column.title(f"{whom}")
        column.text(f"{meaning}. {sentence}")
        column.text(f"What to do: {remedy}", colour=BOX)


def _path(column: _Column, page: Page) -> None:
    for name, steps in explain.path_of(page):
        column.title(f"The way to the decision: {name.lower()}")
        for number, step in enumerate(steps, start=1):
            ended = "" if step.passed else explain.ending(page)
            column.text(f"{number}. {step.question}: {step.answer}{ended}", colour=INK if step.passed else AMBER)


def _evidence(column: _Column, page: Page) -> None:
    found = explain.evidence_of(page)
    if found:
        column.title("Evidence")
    for one in found:
        column.text(f"{one.about}: {one.source} says {one.value}: {one.supports}", _SMALL)


def _places(column: _Column, page: Page) -> None:
    rows = list(explain.place_rows(page))
    if rows:
        column.title("Places on the film")
    for row in rows:
        told = (f"{title} {value}" for title, value in zip(explain.PLACE_TITLES[1:], row[1:], strict=True))
        column.text(f"{row[0]}: {'; '.join(told)}", _SMALL)
