"""What `genu explain` tells of one MR series: chosen or not and why, what was predicted, and where the model looked.

Of clinical variables the names alone: their values are the patient's.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dicom_templates.drawing import AMBER, BACKGROUND, BOX, DIM, Rgb, blend, cut, font, stretched
from dicom_templates.identity import SIDE_WORDS
from dicom_templates.mr_words import (
    attention_sentence,
    classes_words,
    origin_words,
    outcome_words,
    probability_words,
    series_sentence,
    slice_words,
    threshold_words,
)
from inference.findings import Box, FilmLook
from inference.mr_findings import SeenSlice, VolumeFinding
from inference.mr_stacks import MR_CLASSES

SERIES_TITLES: Final = ("series", "asked for", "answer")
WITHHELD: Final = "The slices are not shown: Burned In Annotation says that something is written onto them."
HEAT_CAPTION: Final = "Where the model looked (grad-cam); 1 is the highest of all slices"
_BAR: Final = 12
_LABEL: Final = 15
_GAP: Final = 4
_FEWEST, _MOST = 4, 10  # slices beside each other
_SMALL: Final = 12


def is_series(look: FilmLook) -> bool:
    """Whether a look is of MR images."""
    return look.source.sop_class_uid in MR_CLASSES


def verdict_line(volume: VolumeFinding) -> str:
    """For example "RIGHT KNEE: probability 0.37 (0.27 to 0.43) of WOMAC pain of 2 or more"."""
    outcome = volume.outcome
    return f"{SIDE_WORDS[volume.side]} KNEE: probability {probability_words(outcome)} of {outcome_words(outcome)}"


def volume_lines(volume: VolumeFinding) -> Iterator[str]:
    """What else is to be known of one prediction."""
    outcome = volume.outcome
    yield f"It is {origin_words(outcome)}. The numbers in brackets are the interval by {outcome.method}."
    if limit := threshold_words(outcome):
        yield f"The probability is {limit}, which was chosen inside of the training folds."
    if words := classes_words(outcome):
        yield f"Classes: {words}."
    yield series_sentence(volume)
    yield f"{len(volume.slices)} of its {volume.total} slices were read. {attention_sentence(volume)}"
    yield f"Highest saliency: slice {slice_words(volume.top, volume)}, {_region(volume.region)}."
    known = [value.name for value in outcome.clinical if not value.imputed]
    imputed = [value.name for value in outcome.clinical if value.imputed]
    if known:
        yield f"Clinical variables read from the header: {', '.join(known)}."
    if imputed:
        yield f"Not in the header, so the median of the training patients stands in: {', '.join(imputed)}."


def series_rows(looks: tuple[FilmLook, ...]) -> Iterator[tuple[str, str, str]]:
    """All MR series of the study, each with the answer for every sequence that a bundle wants."""
    for look in looks:
        for step in look.steps[1:]:
            yield look.source.series_instance_uid, step.question, step.answer


def peak_pictures(volume: VolumeFinding, longest: int) -> tuple[Rgb, Rgb]:
    """The slice of the highest saliency, plain and with the saliency over it, the region outlined."""
    plain, heat = _slice(volume.top, volume, longest)
    return plain, heat


def sheet(volume: VolumeFinding, width: int) -> Rgb:
    """All slices that were read in the order of their places: saliency over each, its number, a bar for its attention.

    The bars share one scale, the greatest attention is full; the slice of the highest saliency is outlined.
    """
    across = min(max(_FEWEST, round(len(volume.slices) ** 0.5) + 1), _MOST, len(volume.slices))
    room = (width - _GAP * (across - 1)) // across
    pictures = [_slice(one, volume, room)[1] for one in volume.slices]
    height = max(picture.shape[0] for picture in pictures) + _LABEL + _BAR + _GAP
    rows = -(-len(pictures) // across)
    canvas = Image.new("RGB", (width, rows * height), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    most = max(*(one.attention for one in volume.slices), 1e-9)
    for number, (one, picture) in enumerate(zip(volume.slices, pictures, strict=True)):
        left, top = (number % across) * (room + _GAP), (number // across) * height
        canvas.paste(Image.fromarray(picture), (left, top))
        bottom, right = top + picture.shape[0], left + picture.shape[1]
        if one is volume.top:
            pen.rectangle((left, top, right - 1, bottom - 1), outline=BOX, width=2)
        pen.text((left, bottom + 1), f"{one.index + 1}: {one.attention:.3f}", font=font(_SMALL), fill=DIM)
        bar = bottom + _LABEL
        pen.rectangle((left, bar, left + room - 1, bar + _BAR - 4), outline=DIM)
        pen.rectangle((left, bar, left + round((room - 1) * one.attention / most), bar + _BAR - 4), fill=AMBER)
    return np.asarray(canvas)


def _slice(one: SeenSlice, volume: VolumeFinding, longest: int) -> tuple[Rgb, Rgb]:
    """A slice in the proportions of the patient, plain and with its saliency."""
    rows, columns = one.rendering.shape
    high, wide = rows * volume.grid.row_mm, columns * volume.grid.column_mm
    scale = longest / max(high, wide)
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    whole = Box(0.0, 0.0, float(columns), float(rows))
    plain = cut(one.rendering, whole, size)
    heat = blend(plain, stretched(one.saliency, whole, size))
    return plain, _outlined(heat, volume, size, whole) if one is volume.top else heat


def _outlined(picture: npt.NDArray[np.uint8], volume: VolumeFinding, size: tuple[int, int], whole: Box) -> Rgb:
    across, down = size[0] / whole.width, size[1] / whole.height
    box = volume.region.clipped(round(whole.height), round(whole.width))
    canvas = Image.fromarray(picture)
    corners = (box.left * across, box.top * down, box.right * across - 1, box.bottom * down - 1)
    if corners[2] > corners[0] and corners[3] > corners[1]:
        ImageDraw.Draw(canvas).rectangle(corners, outline=BOX, width=1)
    return np.asarray(canvas)


def _region(box: Box) -> str:
    return f"columns {box.left:.0f} to {box.right:.0f}, rows {box.top:.0f} to {box.bottom:.0f}"
