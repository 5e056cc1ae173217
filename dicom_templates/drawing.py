"""The picture of one scored knee: the source as a reader sees it, the saliency over it, the numbers, a caption band.

Pure drawing: arrays in, an array out, no DICOM. Text is drawn with the font that comes inside of Pillow, so the same
input gives the same pixels on every machine with the same Pillow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dicom_templates.identity import RESEARCH_MARK, SIDE_WORDS, SYNTHETIC_MARK, ascii_text
from dicom_templates.pain import pain_sentence
from inference.findings import Box, KneeFinding, ModelIdentity, Saliency

Rgb = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

PANEL: Final = 576  # longest side of a panel in pixels
MARGIN: Final = 14
TITLE: Final = 30
SIDEBAR: Final = 176
MIN_HEIGHT: Final = 470  # what the sidebar needs
MIN_WIDTH: Final = 960  # what the caption needs to be legible
CONTEXT: Final = 0.12  # of the knee's box, shown around it
NEARLY_WHOLE: Final = 0.8  # a view of at least this share of both sides becomes the whole image

BACKGROUND: Final[Colour] = (16, 18, 22)
BAND: Final[Colour] = (30, 34, 42)
INK: Final[Colour] = (236, 238, 242)
DIM: Final[Colour] = (160, 166, 176)
BOX: Final[Colour] = (92, 200, 255)
AMBER: Final[Colour] = (255, 208, 64)
ALARM: Final[Colour] = (255, 112, 96)
_HEAT: Final = np.array(  # dark violet to pale yellow, rising in lightness, readable by the colour-blind
    [(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], dtype=np.float32
)
_OPACITY: Final = 0.7
_METHOD_WORDS: Final = {"grad-cam": "Grad-CAM", "class-activation": "class activation", "saliency": "saliency"}


@dataclass(frozen=True, eq=False)
class Drawing:
    """A finished picture.

    `pixels` uint8 (rows, columns, 3); `caption` the lines burned into its lowest `caption_rows` rows; `view` the part
    of the source that is shown, in source pixels; `panels` the upper left corners (column, row) of the plain and the
    overlaid panel; `scale` picture pixels per source pixel.
    """

    pixels: Rgb
    caption: tuple[str, ...]
    caption_rows: int
    view: Box
    panels: tuple[tuple[int, int], tuple[int, int]]
    scale: float


def draw_knee(knee: KneeFinding, rendering: npt.NDArray[np.uint8]) -> Drawing:
    """Draw one knee; `rendering` is the whole source image (rows, columns) as uint8."""
    rows, columns = rendering.shape
    view = shown_part(knee.box, rows, columns)
    scale = PANEL / max(view.width, view.height)
    size = (max(1, round(view.width * scale)), max(1, round(view.height * scale)))
    plain = cut(rendering, view, size)
    overlaid = blend(plain, stretched(knee.saliency, view, size))
    area = max(size[1], MIN_HEIGHT)
    width = even(max(MIN_WIDTH, 2 * size[0] + SIDEBAR + 4 * MARGIN))
    caption = caption_lines(knee)
    band = caption_band(caption, width)
    height = even(TITLE + area + 2 * MARGIN + band.shape[0])
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    left = (width - SIDEBAR - 4 * MARGIN - 2 * size[0]) // 2 + MARGIN
    top = TITLE + MARGIN // 2 + (area - size[1]) // 2
    corners = ((left, top), (left + size[0] + MARGIN, top))
    about = "" if knee.pain is None else " for the grade"
    method = _METHOD_WORDS.get(knee.saliency.method, "saliency")
    titles = ("Source image", f"Model attention{about} ({method})")
    free = 0.0  # where a title may begin: panels of very tall films are narrower than their titles
    for panel, corner, title in zip((plain, overlaid), corners, titles, strict=True):
        canvas.paste(Image.fromarray(panel), corner)
        free = max(float(corner[0]), free)
        pen.text((free, corner[1] - TITLE + 6), title, font=font(17), fill=DIM)
        free += font(17).getlength(title) + MARGIN
        _outline(pen, knee.box, view, corner, scale)
    _sidebar(canvas, knee, rendering, view, (width - SIDEBAR - MARGIN, TITLE + MARGIN // 2))
    pixels = np.asarray(canvas).copy()
    pixels[height - band.shape[0] :] = band
    return Drawing(pixels, caption, band.shape[0], view, corners, scale)


def shown_part(box: Box, rows: int, columns: int) -> Box:
    """The knee's box with some context, inside of the image; the whole image where little would be cut away."""
    across, down = CONTEXT * box.width, CONTEXT * box.height
    view = Box(box.left - across, box.top - down, box.right + across, box.bottom + down).clipped(rows, columns)
    whole = Box(0.0, 0.0, float(columns), float(rows))
    if view.width < 1 or view.height < 1:
        return whole
    nearly = view.width >= NEARLY_WHOLE * columns and view.height >= NEARLY_WHOLE * rows
    return whole if nearly else view


def stretched(saliency: Saliency, view: Box, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The saliency as seen through `view`, resampled to `size` (width, height); zero outside of the saliency's box."""
    rows, columns = saliency.values.shape
    across, down = columns / saliency.box.width, rows / saliency.box.height
    extent = (
        (view.left - saliency.box.left) * across,
        (view.top - saliency.box.top) * down,
        (view.right - saliency.box.left) * across,
        (view.bottom - saliency.box.top) * down,
    )
    grid = Image.fromarray(np.ascontiguousarray(saliency.values, dtype=np.float32))
    seen = grid.transform(size, Image.Transform.EXTENT, extent, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(seen, dtype=np.float32), 0.0, 1.0)


def blend(plain: Rgb, heat: npt.NDArray[np.float32]) -> Rgb:
    """The heat colours over the picture, the more opaque the higher the saliency."""
    alpha = (_OPACITY * heat**0.75)[..., np.newaxis]
    mixed = plain * (1.0 - alpha) + heat_colours(heat) * alpha
    shown: Rgb = np.rint(mixed).astype(np.uint8)
    return shown


def heat_colours(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Colours (..., 3) in 0..255 for values 0..1."""
    stops = np.linspace(0.0, 1.0, len(_HEAT))
    channels = [np.interp(values, stops, _HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def caption_lines(knee: KneeFinding) -> tuple[str, ...]:
    """What is burned in, line by line, in ASCII; holds nothing of the patient but the side."""
    grade = knee.kl.grade
    lines = [
        f"{SIDE_WORDS[knee.side]} KNEE   {knee.kl.words}   probability {knee.kl.probabilities[grade]:.2f}",
        f"Kellgren-Lawrence grade {grade}, expected grade {knee.kl.expected:.2f}, predicted by a model from the image",
        *(() if knee.pain is None else (pain_sentence(knee.pain),)),
        *map(model_line, knee.models),
        RESEARCH_MARK,
    ]
    if knee.synthetic:
        lines.append(SYNTHETIC_MARK)
    return tuple(lines)


def model_line(model: ModelIdentity) -> str:
    """Which model spoke, as every caption names it."""
    return ascii_text(f"Model {model.name} {model.version}, bundle {model.digest[:12]}", 90)


def caption_band(lines: Sequence[str], width: int, *, headed: bool = True) -> Rgb:
    """The caption as a band of pixels (rows, width, 3); the same lines and width always give the same band.

    With `headed` the first line is the large one.
    """
    styles = [_style(line, first=headed and index == 0) for index, line in enumerate(lines)]
    fonts = [fitting(line, size, width - 2 * MARGIN) for line, (size, _) in zip(lines, styles, strict=True)]
    heights = [round(size * 1.35) for size, _ in styles]
    band = Image.new("RGB", (width, even(sum(heights) + 2 * MARGIN - 4)), BAND)
    pen = ImageDraw.Draw(band)
    top = MARGIN - 4
    for line, chosen, (_, colour), height in zip(lines, fonts, styles, heights, strict=True):
        pen.text((MARGIN, top), line, font=chosen, fill=colour)
        top += height
    return np.asarray(band).copy()


def _style(line: str, *, first: bool) -> tuple[int, Colour]:
    if first:
        return 36, INK
    if line == RESEARCH_MARK:
        return 24, AMBER
    return (24, ALARM) if line == SYNTHETIC_MARK else (19, INK)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all pictures, `size` in pixels."""
    return ImageFont.load_default(size)


def fitting(line: str, size: int, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font in `size`, or smaller where the line would not fit into `width`."""
    while size > 10 and font(size).getlength(line) > width:
        size -= 1
    return font(size)


def even(value: int) -> int:
    """`value`, or the next even number: the bytes of a picture then have an even length in every encoding."""
    return value + value % 2


def cut(rendering: npt.NDArray[np.uint8], view: Box, size: tuple[int, int]) -> Rgb:
    """The part of the source that `view` shows, resampled to `size` (width, height)."""
    part = Image.fromarray(rendering).resize(
        size, Image.Resampling.LANCZOS, box=(view.left, view.top, view.right, view.bottom)
    )
    return np.asarray(part.convert("RGB"))


def _outline(pen: ImageDraw.ImageDraw, box: Box, view: Box, corner: tuple[int, int], scale: float) -> None:
    """The knee's box where it lies inside of the view; nothing when it is the view."""
    left, top = (max(box.left, view.left) - view.left) * scale, (max(box.top, view.top) - view.top) * scale
    right, bottom = (min(box.right, view.right) - view.left) * scale, (min(box.bottom, view.bottom) - view.top) * scale
    if right - left < 2 or bottom - top < 2 or (left < 2 and right > view.width * scale - 2 and top < 2):
        return
    pen.rectangle(
        (corner[0] + left, corner[1] + top, corner[0] + right - 1, corner[1] + bottom - 1), outline=BOX, width=1
    )


def _sidebar(
    canvas: Image.Image, knee: KneeFinding, rendering: npt.NDArray[np.uint8], view: Box, corner: tuple[int, int]
) -> None:
    """Colour bar, probability bars and, for a cropped view, a small picture of the whole film."""
    pen = ImageDraw.Draw(canvas)
    left, top = corner
    pen.text((left, top - 24), "Attention", font=font(17), fill=DIM)
    ramp = heat_colours(np.linspace(1.0, 0.0, 120, dtype=np.float32))
    bar = np.repeat(np.rint(ramp).astype(np.uint8)[:, np.newaxis], 26, axis=1)
    canvas.paste(Image.fromarray(bar), (left, top))
    pen.rectangle((left - 1, top - 1, left + 26, top + 120), outline=DIM)
    for label, row in (("high", top - 3), ("low", top + 102)):
        pen.text((left + 36, row), label, font=font(17), fill=INK)
    _probabilities(pen, knee, left, top + 140)
    if view.width < rendering.shape[1] or view.height < rendering.shape[0]:
        _locator(canvas, knee.box, rendering, (left, top + 318))


def _probabilities(pen: ImageDraw.ImageDraw, knee: KneeFinding, left: int, top: int) -> None:
    pen.text((left, top), "Probability", font=font(17), fill=DIM)
    for grade, probability in enumerate(knee.kl.probabilities):
        row = top + 26 + 27 * grade
        ink = INK if grade == knee.kl.grade else DIM
        pen.text((left, row), f"KL {grade}", font=font(17), fill=ink)
        pen.rectangle((left + 48, row + 4, left + 125, row + 17), outline=(70, 76, 88))
        pen.rectangle((left + 48, row + 4, left + 48 + round(77 * probability), row + 17), fill=ink)
        pen.text((left + 132, row), f"{probability:.2f}", font=font(17), fill=ink)


def _locator(canvas: Image.Image, box: Box, rendering: npt.NDArray[np.uint8], corner: tuple[int, int]) -> None:
    pen = ImageDraw.Draw(canvas)
    left, top = corner
    pen.text((left, top), "Whole image", font=font(17), fill=DIM)
    rows, columns = rendering.shape
    scale = min((SIDEBAR - 4) / columns, 120 / rows)
    small = Image.fromarray(rendering).resize(
        (max(1, round(columns * scale)), max(1, round(rows * scale))), Image.Resampling.BILINEAR, reducing_gap=2.0
    )
    canvas.paste(small.convert("RGB"), (left, top + 26))
    inside = box.clipped(rows, columns)
    pen.rectangle(
        (
            left + inside.left * scale,
            top + 26 + inside.top * scale,
            left + max(inside.right * scale - 1, inside.left * scale),
            top + 26 + max(inside.bottom * scale - 1, inside.top * scale),
        ),
        outline=BOX,
        width=2,
    )
