"""The films of the acceptance set, as pictures: legs around real crops, letters beside them, and what happens to films.

A picture knows whose knees are on it and where. Everything is decided by the generator that is given.
"""

import csv
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from inference.errors import DataError
from inference.findings import Side
from training.dicomize import read_images, read_labels
from training.exposure import exposed
from training.filmmaking import Look, Placed, lateral_as_shown, make_film

Image = npt.NDArray[np.float32]

_INVERTED = "looks_inverted"
SMALLEST, LARGEST = 600, 2500  # of a film's longer side, pixels
CROP = (200, 700)  # of a knee's crop, pixels
_BRIGHTEST = 0.97  # of nine tenths of a joint that is exposed as it should be
_ATTEMPTS = 10  # to expose it so
_FONTS = ("DejaVuSans-Bold", "DejaVuSansMono-Bold")


@dataclass(frozen=True)
class There:
    """A knee on a film: whose, and centre and size of its crop in pixels of the film."""

    side: Side
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, eq=False)
class Picture:
    """A film (rows, columns), 0..1, and the frontal knees on it."""

    pixels: Image
    knees: tuple[There, ...] = ()


@dataclass(frozen=True, eq=False)
class Knees:
    """Crops (S, S), 0..1, bright bone, all as left knees appear; `pairs` hold (right, left) of one person."""

    crops: tuple[Image, ...]
    pairs: tuple[tuple[Image, Image], ...]

    @classmethod
    def read(cls, images: Path, labels: Path, split: str) -> "Knees":
        """The crops of one split, those left out that the CSV's column `looks_inverted` names.

        Args:
            images: folder with the files that the CSV names or with .tar archives of them, or one such archive.
            labels: CSV as for `genu-train dicomize`.
            split: whose knees; it must not be one that anything was learnt from.

        Raises:
            DataError: fewer than ten knees, or no two of one person.
        """
        with labels.open(newline="", encoding="utf-8") as file:
            dark = {r["file"] for r in csv.DictReader(file) if (r.get(_INVERTED) or "").lower() in ("1", "true")}
        rows = {row.file: row for row in read_labels(labels) if row.split == split and row.file not in dark}
        crops: dict[str, dict[Side, Image]] = {}
        for name, values in sorted(read_images(images, rows), key=lambda found: found[0]):
            crop = values.astype(np.float32) / 255
            crop = crop if rows[name].side is Side.LEFT else crop[:, ::-1]
            crops.setdefault(rows[name].subject, {})[rows[name].side] = np.ascontiguousarray(crop)
        pairs = tuple((both[Side.RIGHT], both[Side.LEFT]) for both in crops.values() if len(both) == 2)
        knees = cls(tuple(crop for both in crops.values() for crop in both.values()), pairs)
        if len(knees.crops) < 10 or not pairs:
            found = f"{len(knees.crops)} knees and {len(pairs)} pairs of split {split!r} are in {images}"
            raise DataError(f"{found}; at least ten knees and one pair are needed: name other images or labels.")
        return knees

    def one(self, rng: np.random.Generator) -> Image:
        """Any knee."""
        return self.crops[int(rng.integers(len(self.crops)))]

    def both(self, rng: np.random.Generator) -> tuple[Image, Image]:
        """The knees of one person, (right, left)."""
        return self.pairs[int(rng.integers(len(self.pairs)))]


def single(
    crop: Image,
    side: Side,
    rng: np.random.Generator,
    *,
    mirrored: bool = False,
    across: float = 0.5,
    tilt: float = 0.0,
    thigh: bool = False,
    clear: bool = False,
) -> Picture:
    """A film of one knee.

    Args:
        crop: as a left knee appears.
        side: whose it is.
        rng: decides the rest.
        mirrored: as the film is stored.
        across: where the knee lies, as a fraction of the width.
        tilt: of the leg, degrees.
        thigh: half a thigh is on the film, too.
        clear: the crop keeps its contrast, so that what is in it stays.
    """
    size = math.exp(rng.uniform(math.log(CROP[0]), math.log(CROP[1])))
    long = min(max(size * (rng.uniform(3.0, 4.0) if thigh else rng.uniform(1.9, 3.2)), SMALLEST), LARGEST)
    columns = max(1.75 * size, long * rng.uniform(0.55, 0.95))
    down = rng.uniform(0.6, 0.7) if thigh else rng.uniform(0.42, 0.58)
    lateral = lateral_as_shown(side) * (-1 if mirrored else 1)
    x = (across + rng.uniform(-0.03, 0.03)) * columns
    placed = Placed(x, down * long, size, tilt, lateral)
    return _shot([(crop, side, placed)], (int(long), int(columns)), rng, clear)


def bilateral(
    pair: tuple[Image, Image], rng: np.random.Generator, *, mirrored: bool = False, clear: bool = False
) -> Picture:
    """A standing film of both knees, (right, left), each as a left knee appears; stored mirrored or not."""
    size = math.exp(rng.uniform(math.log(CROP[0]), math.log(CROP[1])))
    columns = int(min(max(size * rng.uniform(2.6, 3.4), SMALLEST), LARGEST))
    rows = int(min(size * rng.uniform(1.6, 2.8), LARGEST))
    sides = (Side.LEFT, Side.RIGHT) if mirrored else (Side.RIGHT, Side.LEFT)
    shown, down = [], rng.uniform(0.42, 0.58) * rows
    for share, side in zip((0.26, 0.74), sides, strict=True):
        lateral = lateral_as_shown(side) * (-1 if mirrored else 1)
        x = (share + rng.uniform(-0.02, 0.02)) * columns
        crop = pair[0] if side is Side.RIGHT else pair[1]
        placed = Placed(x, down + rng.uniform(-0.05, 0.05) * size, size, rng.uniform(-4, 4), lateral)
        shown.append((crop, side, placed))
    return _shot(shown, (rows, columns), rng, clear)


def _shot(
    shown: Sequence[tuple[Image, Side, Placed]], shape: tuple[int, int], rng: np.random.Generator, clear: bool
) -> Picture:
    look = Look.draw(rng)
    if clear:
        look = replace(look, detail=rng.uniform(0.8, 1.0), shading=rng.uniform(0.7, 0.9))
    parts = [(crop if at.lateral > 0 else np.ascontiguousarray(crop[:, ::-1]), at) for crop, _, at in shown]
    film = make_film(parts, shape, rng, look).pixels
    knees = tuple(There(side, at.x, at.y, at.size, at.size) for _, side, at in shown)
    for _ in range(_ATTEMPTS):
        picture = Picture(exposed(film, rng, rng.uniform(0.3, 0.5)), knees)
        if clear or np.quantile(joint(picture), 0.9) < _BRIGHTEST:
            break
    return picture


def published(crop: Image, side: Side, rng: np.random.Generator) -> Picture:
    """A crop as such, in its own size or enlarged: as research data sets hold them."""
    length = len(crop) if rng.random() < 0.5 else int(rng.integers(300, 700))
    shown = crop if side is Side.LEFT else np.ascontiguousarray(crop[:, ::-1])
    pixels = np.asarray(cv2.resize(shown, (length, length), interpolation=cv2.INTER_LINEAR), np.float32)
    return Picture(pixels, (There(side, length / 2, length / 2, length, length),))


def lettered(picture: Picture, letter: Side, rng: np.random.Generator, *, backwards: bool = False) -> Picture:
    """With a letter beside the leg of that side, where there is one, on background or soft tissue.

    On a film of both it stands at the outer side of its leg.
    """
    knee = next((knee for knee in picture.knees if knee.side is letter), picture.knees[0])
    rows, columns = picture.pixels.shape
    high = max(rng.uniform(0.09, 0.14) * knee.width, 16 * max(rows, columns) / 1024)
    mark = _glyph(letter.value, str(rng.choice(_FONTS)), round(high), float(rng.uniform(-6, 6)))
    mark = np.ascontiguousarray(mark[:, ::-1]) if backwards else mark
    best, darkest = (0, 0), math.inf
    for _ in range(400):
        top = int(rng.uniform(0.02, 0.98) * (rows - mark.shape[0]))
        left = int(rng.uniform(0.02, 0.98) * (columns - mark.shape[1]))
        x, y = left + mark.shape[1] / 2, top + mark.shape[0] / 2
        if not _is_free(x, y, mark.shape[1] / 2, picture.knees) or not _is_outside(x, knee, picture.knees):
            continue
        level = float(picture.pixels[top : top + mark.shape[0], left : left + mark.shape[1]].mean())
        if level < darkest - 0.15:  # any dark place is as good as another
            best, darkest = (top, left), level
    if darkest == math.inf:
        raise ValueError(f"there is no room for a letter on a film of {rows} x {columns} pixels")
    pixels, (top, left) = picture.pixels.copy(), best
    under = pixels[top : top + mark.shape[0], left : left + mark.shape[1]]
    under[:] = under * (1 - mark) + np.float32(rng.uniform(0.92, 1.0)) * mark
    return replace(picture, pixels=pixels)


def _is_free(x: float, y: float, half: float, knees: Sequence[There]) -> bool:
    """Whether a letter there is over no joint and no shaft."""
    return all(
        abs(x - knee.x) > half + (0.46 if abs(y - knee.y) < 0.6 * knee.height else 0.38) * knee.width for knee in knees
    )


def _is_outside(x: float, own: There, knees: Sequence[There]) -> bool:
    """Whether it is nearer to the edge than the leg is, on a film of two."""
    middle = sum(knee.x for knee in knees) / len(knees)
    return len(knees) < 2 or (x - own.x) * (own.x - middle) > 0


@functools.lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def _glyph(text: str, font: str, high: int, tilt: float) -> Image:
    """A letter whose capital is `high` pixels tall, 0..1, trimmed."""
    face = _font(font, round(high / 0.73))
    canvas = Pictures.new("L", (2 * high + 8, 2 * high + 8))
    ImageDraw.Draw(canvas).text((high + 4, high + 4), text, fill=255, font=face, anchor="mm")
    values = np.asarray(canvas.rotate(tilt, Pictures.Resampling.BICUBIC), np.float32) / 255
    rows, columns = (np.flatnonzero(values.max(axis=axis) > 0.02) for axis in (1, 0))
    return np.ascontiguousarray(values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def inverted(picture: Picture) -> Picture:
    """Bright and dark exchanged."""
    return replace(picture, pixels=np.asarray(1 - picture.pixels, np.float32))


def mirrored(picture: Picture) -> Picture:
    """Turned over as a whole, letters with it; the knees stay whose they are."""
    columns = picture.pixels.shape[1]
    knees = tuple(replace(knee, x=columns - knee.x) for knee in picture.knees)
    return Picture(np.ascontiguousarray(picture.pixels[:, ::-1]), knees)


def turned(picture: Picture, quarters: int) -> Picture:
    """Turned by so many quarters of a circle, against the clock."""
    knees = picture.knees
    columns, rows = picture.pixels.shape[1], picture.pixels.shape[0]
    for _ in range(quarters):
        knees = tuple(There(k.side, k.y, columns - k.x, k.height, k.width) for k in knees)
        columns, rows = rows, columns
    return Picture(np.ascontiguousarray(np.rot90(picture.pixels, quarters)), knees)


def cut(picture: Picture, top: int, bottom: int, left: int, right: int) -> Picture:
    """A part of it: rows top to bottom, columns left to right."""
    pixels = np.ascontiguousarray(picture.pixels[top:bottom, left:right])
    return Picture(pixels, tuple(replace(knee, x=knee.x - left, y=knee.y - top) for knee in picture.knees))


def resized(picture: Picture, across: float, down: float) -> Picture:
    """Columns and rows multiplied by these."""
    rows, columns = picture.pixels.shape
    shape = (max(1, round(columns * across)), max(1, round(rows * down)))
    method = cv2.INTER_AREA if across * down < 1 else cv2.INTER_LINEAR
    pixels = np.asarray(cv2.resize(picture.pixels, shape, interpolation=method), np.float32)
    return Picture(
        pixels,
        tuple(There(k.side, k.x * across, k.y * down, k.width * across, k.height * down) for k in picture.knees),
    )


def stacked(upper: Picture, lower: Picture) -> Picture:
    """One film above the other, the lower one brought to the upper one's width."""
    factor = upper.pixels.shape[1] / lower.pixels.shape[1]
    lower = resized(lower, factor, factor)
    rows = upper.pixels.shape[0]
    below = tuple(replace(knee, y=knee.y + rows) for knee in lower.knees)
    return Picture(np.concatenate([upper.pixels, lower.pixels]), (*upper.knees, *below))


def joint(picture: Picture) -> Image:
    """The middle of the first knee."""
    knee = picture.knees[0]
    rows, columns = (slice(max(0, int(at - 0.3 * size)), int(at + 0.3 * size)) for at, size in
                     ((knee.y, knee.height), (knee.x, knee.width)))  # fmt: skip
    return picture.pixels[rows, columns]
