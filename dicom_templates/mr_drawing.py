"""The pictures of one knee on an MR series: for each slice that was read, the slice, the saliency over it, a caption.

Pure drawing, as in `drawing`. All words come from the lines of the caption, so that a checker can draw the band of any
picture again and compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
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
    blend,
    cut,
    even,
    font,
    heat_colours,
    model_line,
    stretched,
)
from dicom_templates.identity import RESEARCH_MARK, SYNTHETIC_MARK
from dicom_templates.mr_words import heading, origin_words, outcome_words, threshold_words
from inference.findings import Box
from inference.mr_findings import SeenSlice, VolumeFinding

MOST_BYTES: Final = 32 * 2**20  # of all pictures of one result; panels shrink until they fit
PANELS: Final = tuple(range(256, 128, -16))  # longest side of a panel in pixels, the largest first
GAP: Final = 8
TITLE: Final = 20
RAMP: Final = 40  # columns that the colour bar takes
STRIP: Final = 34  # rows of the band that show the attention of all slices
_LEADING: Final = 1.3
_BAR: Final[Colour] = (92, 98, 110)


@dataclass(frozen=True, eq=False)
class Frames:
    """Finished pictures.

    `pixels` uint8 (frames, rows, columns, 3); `caption` the lines that all of them carry; `shares` the attention of
    each slice and `numbers` its number in the series (from 1), as burned in; `panel` the longest side of a panel.
    """

    pixels: npt.NDArray[np.uint8]
    caption: tuple[str, ...]
    shares: tuple[float, ...]
    numbers: tuple[int, ...]
    panel: int


def draw_frames(finding: VolumeFinding) -> Frames:
    """Draw every slice that was read, in the order of their places."""
    caption, panel = caption_lines(finding), PANELS[-1]
    shares = tuple(round(one.attention, 4) for one in finding.slices)
    numbers = tuple(one.index + 1 for one in finding.slices)
    scenes = [_Scene(finding, caption, side) for side in PANELS]
    scene = next((one for one in scenes if one.bytes * len(shares) <= MOST_BYTES), scenes[-1])
    panel = scene.panel
    pixels = np.empty((len(shares), scene.height, scene.width, 3), np.uint8)
    for number, one in enumerate(finding.slices):
        pixels[number] = scene.draw(one, number, shares, numbers)
    return Frames(pixels, caption, shares, numbers, panel)


def caption_lines(finding: VolumeFinding) -> tuple[str, ...]:
    """What all pictures carry, line by line before wrapping, in ASCII; holds nothing of the patient but the side."""
    outcome = finding.outcome
    limit = threshold_words(outcome)
    lines = [
        heading(finding.side, outcome),
        _upper(f"{outcome_words(outcome)}, {origin_words(outcome)}"),
        *([f"The probability is {limit}"] if limit else []),
        _upper(f"{finding.sequence}, {len(finding.slices)} of {finding.total} slices read"),
        model_line(outcome.model),
        RESEARCH_MARK,
    ]
    if finding.synthetic:
        lines.append(SYNTHETIC_MARK)
    return tuple(lines)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def slice_line(number: int, total: int, place: int, count: int, share: float) -> str:
    """The line that tells one picture from another: which slice it shows."""
    return f"Slice {number} of {total}, image {place + 1} of {count}, attention {share:.4f}"


def frame_band(lines: Sequence[str], line: str, width: int, place: int, shares: Sequence[float]) -> Rgb:
    """The lower part of a picture (rows, width, 3): attention of all slices, the slice's own line, the caption.

    `lines` the caption, `line` of this slice, `place` its index in `shares`; the same arguments, the same band.
    """
    rows = [(text, size, colour) for text, size, colour in _styled(lines, line, width)]
    height = even(STRIP + 6 + sum(round(size * _LEADING) for _, size, _ in rows) + 6)
    band = Image.new("RGB", (width, height), BAND)
    pen = ImageDraw.Draw(band)
    _draw_strip(pen, width, place, shares)
    top = STRIP + 6
    for text, size, colour in rows:
        pen.text((GAP, top), text, font=font(size), fill=colour)
        top += round(size * _LEADING)
    return np.asarray(band).copy()


def _styled(lines: Sequence[str], line: str, width: int) -> list[tuple[str, int, Colour]]:
    """Text, size and colour of each row: the heading, the line of the slice, then the others, wrapped."""
    found = []
    for number, text in enumerate([*lines[:1], line, *lines[1:]]):
        size, colour = (18 if number == 0 else 12), INK
        if text in (RESEARCH_MARK, SYNTHETIC_MARK):
            size, colour = 14, AMBER if text == RESEARCH_MARK else ALARM
        if number == 0:
            while size > 10 and font(size).getlength(text) > width - 2 * GAP:
                size -= 1
        found += [(row, size, colour) for row in wrapped(text, size, width - 2 * GAP)]
    return found


def _draw_strip(pen: ImageDraw.ImageDraw, width: int, place: int, shares: Sequence[float]) -> None:
    """One bar for each slice, as high as its share of the greatest; that of this picture in colour."""
    label = "Attention"
    left = GAP + round(font(11).getlength(label)) + 8
    pen.text((GAP, 12), label, font=font(11), fill=DIM)
    most, room = max((*shares, 1e-9)), width - GAP - left
    for number, share in enumerate(shares):
        start = left + number * room // len(shares)
        end = max(left + (number + 1) * room // len(shares) - 2, start)
        top = STRIP - 2 - max(round((STRIP - 6) * max(share, 0.0) / most), 1)
        pen.rectangle((start, top, end, STRIP - 2), fill=AMBER if number == place else _BAR)


class _Scene:
    """What all pictures of one result share: sizes and words."""

    def __init__(self, finding: VolumeFinding, caption: Sequence[str], panel: int) -> None:
        rows, columns = finding.slices[0].source.rows, finding.slices[0].source.columns
        # As a reader sees it: in millimetres, where pixels are not square.
        high, wide = rows * finding.grid.row_mm, columns * finding.grid.column_mm
        self.finding, self.caption, self.panel = finding, caption, panel
        self.whole = Box(0.0, 0.0, float(columns), float(rows))
        self.size = (max(1, round(panel * wide / max(high, wide))), max(1, round(panel * high / max(high, wide))))
        self.width = even(2 * panel + 3 * GAP + RAMP)
        counts = slice_line(finding.total, finding.total, len(finding.slices) - 1, len(finding.slices), 1.0)
        self.band = len(frame_band(caption, counts, self.width, 0, (1.0,)))
        self.top = TITLE + (panel - self.size[1]) // 2
        self.height = even(TITLE + panel + GAP + self.band)

    @property
    def bytes(self) -> int:
        """Of one picture."""
        return self.width * self.height * 3

    def draw(self, one: SeenSlice, place: int, shares: Sequence[float], numbers: Sequence[int]) -> Rgb:
        """One slice."""
        canvas = Image.new("RGB", (self.width, self.height), BACKGROUND)
        pen = ImageDraw.Draw(canvas)
        plain = cut(one.rendering, self.whole, self.size)
        overlaid = blend(plain, stretched(one.saliency, self.whole, self.size))
        left = GAP + (self.panel - self.size[0]) // 2
        corners = ((left, self.top), (left + self.panel + GAP, self.top))
        for panel, corner, title in zip((plain, overlaid), corners, ("Source image", "Model attention"), strict=True):
            canvas.paste(Image.fromarray(panel), corner)
            pen.text((corner[0], 3), title, font=font(12), fill=DIM)
            if one is self.finding.top:
                self._region(pen, corner)
        _draw_ramp(canvas, 2 * self.panel + 3 * GAP)
        line = slice_line(numbers[place], self.finding.total, place, len(shares), shares[place])
        band = frame_band(self.caption, line, self.width, place, shares)
        pixels = np.asarray(canvas).copy()
        pixels[self.height - len(band) :] = band
        return pixels

    def _region(self, pen: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
        """The region of highest saliency, on its slice."""
        across, down = self.size[0] / self.whole.width, self.size[1] / self.whole.height
        box = self.finding.region.clipped(round(self.whole.height), round(self.whole.width))
        left, top = corner[0] + box.left * across, corner[1] + box.top * down
        right, bottom = corner[0] + box.right * across - 1, corner[1] + box.bottom * down - 1
        if right > left and bottom > top:
            pen.rectangle((left, top, right, bottom), outline=BOX, width=1)


def _draw_ramp(canvas: Image.Image, left: int) -> None:
    """The colour bar."""
    pen, rows = ImageDraw.Draw(canvas), 96
    ramp = heat_colours(np.linspace(1.0, 0.0, rows, dtype=np.float32))
    bar = np.repeat(np.rint(ramp).astype(np.uint8)[:, np.newaxis], 12, axis=1)
    canvas.paste(Image.fromarray(bar), (left, TITLE + 16))
    pen.rectangle((left - 1, TITLE + 15, left + 12, TITLE + 16 + rows), outline=DIM)
    pen.text((left, TITLE), "high", font=font(11), fill=DIM)
    pen.text((left, TITLE + 18 + rows), "low", font=font(11), fill=DIM)
