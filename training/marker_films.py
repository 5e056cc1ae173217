"""Made films with burned-in letters: side markers, other text and things that look like letters, and what is what.

Distances are in pixels of the film at the size at which letters are looked for (`unit` = 1); larger films are drawn
with a larger `unit`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inference.markers import TEE, TEXT
from training import marker_shapes
from training.marker_fonts import Style, label, trimmed

Image = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_WORDS = [
    "LAT",
    "LL",
    "RL",
    "L5",
    "R1",
    "XL",
    "RLO",
    "LAO",
    "LPO",
    "RPO",
    "PORTABLE",
    "STANDING",
    "WB",
    "AP",
    "PA",
    "LEFT",
    "RIGHT",
    "Left",
    "Right",
    "Lat",
    "ERECT",
    "SUPINE",
    "FLEX",
    "SUNRISE",
    "MERCHANT",
    "LAURIN",
    "CR",
    "DR",
    "KV60",
    "LATERAL",
    "TABLE",
    "RR",
    "ROLL",
    "LOWER",
    "UPPER",
    "ORAL",
    "ALT",
    "ART",
    "PORT",
    "LTD",
    "RTA",
    "RTO",
    "LTS",
    "UPRIGHT",
    "ROSENBERG",
    "CONTROL",
    "L1",
    "L2",
    "3L",
    "5R",
    "12",
    "10",
    "T",
    "TT",
    "TL",
    "TR",
    "RA",
    "LA",
    "CL",
    "JL",
    "DDS",
    "LR",
    "JR",
    "BL",
]
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZRLRLRLRLTTJJPPKBAEF0123456789abcdefghijklmnopqrstuvwxyz/+-#?"


@dataclass(frozen=True)
class Glyph:
    """One glyph: its box (left, top, right, bottom), which of inference.markers.CLASSES it is, whether it marks a side.

    `readable` says that it is tall and clear enough to ask for.
    """

    box: tuple[float, float, float, float]
    kind: int
    marks: bool
    readable: bool


@dataclass(frozen=True, eq=False)
class MarkedFilm:
    """A film (rows, columns) with values 0..1 and the glyphs on it."""

    pixels: Image
    glyphs: tuple[Glyph, ...]


class Canvas:
    """A film while it is furnished: what is on it, and where there is room."""

    def __init__(self, pixels: Image, unit: float, rng: np.random.Generator, fonts_: Sequence[str]) -> None:
        self.pixels, self.unit, self.rng, self.fonts = pixels, unit, rng, fonts_
        self.taken = np.zeros(tuple(-(-side // 8) for side in pixels.shape), np.bool_)
        self.masks: list[tuple[Bytes, int, int, int, bool, bool]] = []

    def room(self, rows: int, columns: int) -> tuple[int, int] | None:
        """Row and column of a free place of this size, now taken; None when there is none soon."""
        for _ in range(12):
            row, column = (
                int(self.rng.integers(2, max(3, have - want - 2)))
                for have, want in zip(self.pixels.shape, (rows, columns), strict=True)
            )
            part = self.taken[row // 8 : (row + rows) // 8 + 1, column // 8 : (column + columns) // 8 + 1]
            if row + rows < self.pixels.shape[0] and column + columns < self.pixels.shape[1] and not part.any():
                part[:] = True
                return row, column
        return None

    def lay(self, mask: Bytes, row: int, column: int, level: float, how: float = 1.0) -> None:
        """Blend a mask with values 0..255 onto the film, towards `level`."""
        part = self.pixels[row : row + mask.shape[0], column : column + mask.shape[1]]
        part += (mask[: part.shape[0], : part.shape[1]].astype(np.float32) / 255) * how * (level - part)

    def label(self, lines: Sequence[tuple[str, float, bool]], height: float, turn: float = 0.0) -> None:
        """Lines of (text, height as a fraction, whether it marks a side), one below the other, with their furniture."""
        rng = self.rng
        first = Style.draw(rng, self.fonts, height)
        blocks = []
        for text, fraction, marks in lines:
            style = Style(**{**first.__dict__, "height": max(5.0, height * fraction)})
            blocks.append((trimmed(label(text, style, rng, turn)), marks))
        gap = int(height * rng.uniform(0.15, 0.6)) + 1
        margin = int(height * rng.uniform(0.35, 0.9)) + 2
        rows = sum(masks[0][0].shape[0] + gap for masks, _ in blocks) - gap + 2 * margin
        columns = max(masks[0][0].shape[1] for masks, _ in blocks) + 2 * margin
        # A line of text beside another would be one line with it: room on both sides.
        beside = int(1.8 * height)
        place = self.room(rows, columns + 2 * beside)
        if place is None:
            return
        top, left = place[0], place[1] + beside
        level, how, tilted = self._furniture(rows, columns, top, left), rng.uniform(0.6, 1.0), abs(turn) > 1
        upright = abs(first.tilt) <= 15 and not tilted
        row = top + margin
        for masks, marks in blocks:
            shape = masks[0][0].shape
            column = left + (columns - shape[1]) // 2
            for mask, kind in masks:
                self.lay(mask, row, column, level, how)
                self.masks.append((mask, row, column, kind, marks and kind < TEE, upright))
            row += shape[0] + gap

    def _furniture(self, rows: int, columns: int, top: int, left: int) -> float:
        """A plate, a ring, a frame or dots around a label; returns how bright its letters are to be."""
        rng, side = self.rng, np.zeros((rows, columns), np.uint8)
        here = self.pixels[top : top + rows, left : left + columns]
        mean = float(here.mean())
        bright = min(1.0, mean + rng.uniform(0.15, 1.0))
        chance = rng.random()
        if chance < 0.12:  # dark on a bright plate
            side[:] = 255
            self.lay(side, top, left, rng.uniform(0.6, 1.0))
            return float(rng.uniform(0.0, 0.25))
        if chance < 0.3:
            cv2.ellipse(side, (columns // 2, rows // 2), (columns // 2, rows // 2), 0, 0, 360, 255, -1)
            self.lay(side, top, left, 1.0, rng.uniform(0.02, 0.12))
        elif chance < 0.42:
            thick = max(1, int(rng.uniform(0.02, 0.08) * rows))
            if rng.random() < 0.5:
                cv2.rectangle(side, (thick, thick), (columns - thick, rows - thick), 255, thick)
            else:
                half = (columns // 2 - thick, rows // 2 - thick)
                cv2.ellipse(side, (columns // 2, rows // 2), half, 0, 0, 360, 255, thick, cv2.LINE_AA)
            self.lay(side, top, left, bright)
        elif chance < 0.52:
            for _ in range(int(rng.integers(1, 4))):
                dot = max(1, int(rng.uniform(0.03, 0.07) * rows))
                cv2.circle(side, (dot + 1, int(rng.uniform(0.1, 0.9) * rows)), dot, 255, -1, cv2.LINE_AA)
            self.lay(side, top, left, bright)
        return bright

    def glyphs(self) -> tuple[Glyph, ...]:
        """What the film shows in the end, with each glyph's contrast looked up."""
        return tuple(self._glyph(*entry) for entry in self.masks)

    def _glyph(self, mask: Bytes, row: int, column: int, kind: int, marks: bool, upright: bool) -> Glyph:
        there = mask > 100
        rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
        part = self.pixels[row : row + mask.shape[0], column : column + mask.shape[1]]
        if not len(rows) or part.shape != mask.shape:
            return Glyph((0.0, 0.0, 0.0, 0.0), TEXT, marks=False, readable=False)
        box = (column + columns[0], row + rows[0], column + columns[-1] + 1, row + rows[-1] + 1)
        ring = cv2.dilate(there.astype(np.uint8), np.ones((5, 5), np.uint8)) - cv2.dilate(
            there.astype(np.uint8), np.ones((3, 3), np.uint8)
        )
        around, on = part[ring > 0], part[there]
        contrast = abs(float(on.mean()) - float(around.mean())) if len(around) else 0.0
        clear = contrast > 0.12 and contrast > 3 * float(around.std())
        tall = float(rows[-1] - rows[0] + 1) / max(1.0, self.unit) >= 12
        return Glyph(
            (float(box[0]), float(box[1]), float(box[2]), float(box[3])), kind, marks, clear and tall and upright
        )


def make_film(
    knees: npt.NDArray[np.uint8],
    shape: tuple[int, int],
    rng: np.random.Generator,
    fonts_: Sequence[str],
    *,
    unit: float = 1.0,
    busy: float = 1.0,
) -> MarkedFilm:
    """A film of `shape` (rows, columns) with pieces of real knees (N, S, S), letters, words and shapes.

    `unit` is how many pixels of the film make one at which letters are looked for; `busy` scales how much is on it.
    """  # fmt: skip
    pixels = marker_shapes.background(knees, shape, rng)
    canvas = Canvas(pixels, unit, rng, fonts_)
    for _ in range(rng.poisson(0.8 * busy)):
        _marker(canvas)
    for _ in range(rng.poisson(1.2 * busy)):
        _distraction(canvas)
    for _ in range(rng.poisson(1.5 * busy)):
        marker_shapes.lay_shape(canvas, rng, unit)
    canvas.pixels = marker_shapes.exposed(canvas.pixels, rng, unit)
    return MarkedFilm(canvas.pixels, canvas.glyphs())


def _height(canvas: Canvas) -> float:
    most = min(72.0, 0.2 * min(canvas.pixels.shape) / canvas.unit)
    return float(np.exp(canvas.rng.uniform(np.log(11), np.log(most)))) * canvas.unit


def _marker(canvas: Canvas) -> None:
    rng = canvas.rng
    lines = [(str(rng.choice(["R", "L"])) + ("T" if rng.random() < 0.2 else ""), 1.0, True)]
    if rng.random() < 0.45:
        below = "".join(rng.choice(list("ABCDEFGHJKMNPSTUVWXYZ23456789"), int(rng.integers(2, 5))))
        lines.append((below, float(rng.uniform(0.35, 0.8)), False))
        if rng.random() < 0.2:
            lines.reverse()
    canvas.label(lines, _height(canvas))


def _distraction(canvas: Canvas) -> None:
    rng = canvas.rng
    chance = rng.random()
    if chance < 0.3:  # one side letter, turned round or lying
        canvas.label(
            [(str(rng.choice(["R", "L", "L", "T"])), 1.0, False)], _height(canvas), float(rng.choice([90, 180, 270]))
        )
    elif chance < 0.55:
        canvas.label([(str(rng.choice(_WORDS)), 1.0, False)], _height(canvas) * 0.8)
    elif chance < 0.75:
        text = "".join(rng.choice(list(_LETTERS), int(rng.integers(3, 7))))
        canvas.label([(text, 1.0, False)], _height(canvas) * 0.7)
    else:
        others = [character for character in _LETTERS if character not in "RLT"]
        character = "J" if rng.random() < 0.25 else str(rng.choice(others))
        canvas.label([(character, 1.0, False)], _height(canvas))
