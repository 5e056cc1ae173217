"""What the knee finder learns from: small films of knees and of other things, with what is to be said about each.

Everything is as it appears: a knee's `lateral` is the side towards which its fibula lies on the film.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from inference.finder import (
    ACROSS,
    CAST,
    DOWN,
    EXTENT,
    FIBULA,
    INVERTED,
    METAL,
    SIZE,
    SLANT,
    STRIDE,
    TILT,
    TURNED,
    UNIT,
    UPRIGHT,
)
from training.drawings import axial_knee, elsewhere, lateral_knee, scrambled
from training.exposure import exposed, furnished, other_bones
from training.filmmaking import Placed, drawn_leg, make_film
from training.metalwork import with_cast, with_implant
from training.schematic import CROP, Schematic, schematic_knee

Image = npt.NDArray[np.float32]
Crops = npt.NDArray[np.uint8]

GRID = SIZE // STRIDE
_CANONICAL = 1  # the crops show left knees: fibula towards larger columns


@dataclass(frozen=True)
class Shown:
    """One knee of a film, and what is to be seen on it."""

    placed: Placed
    metal: bool = False
    cast: bool = False


@dataclass(frozen=True, eq=False)
class Sample:
    """A film (SIZE, SIZE), 0..1, and what it shows; `turned` in quarters of a circle."""

    film: Image
    knees: tuple[Shown, ...] = ()
    turned: int = 0
    inverted: bool = False
    other_view: bool = False


def draw_sample(crops: Crops, others: Sequence[Image], rng: np.random.Generator, extent: int = SIZE) -> Sample:
    """One film.

    Args:
        crops: (N, S, S), of left knees or mirrored to be such.
        others: real images that show no frontal knee, (rows, columns), 0..1.
        rng: decides everything.
        extent: of the square film, pixels.
    """
    kind = rng.random()
    if kind < 0.20:
        return Sample(_squared(_no_knee(crops, others, rng, extent), extent))
    if kind < 0.28:
        return Sample(_squared(_other_view(crops, rng, extent), extent), other_view=True)
    if kind < 0.34:
        return _finished(*_schematic(rng, extent), rng, extent)
    if kind < 0.44:
        return _published(crops, rng, extent)
    return _finished(*_knees(crops, rng, extent), rng, extent)


def _no_knee(crops: Crops, others: Sequence[Image], rng: np.random.Generator, extent: int) -> Image:
    shape, kind = _shape(rng, 0.6, extent), rng.random()
    texture = _crop(crops, rng) if rng.random() < 0.6 else None
    if kind < 0.15:
        film = other_bones(shape, rng)
    elif kind < 0.38:
        film = elsewhere(shape, rng, texture)
    elif kind < 0.50:
        size = rng.uniform(0.3, 1.0) * extent
        away = rng.choice([-1, 1]) * rng.uniform(0.75, 2.5) * size
        row = -away if away > 0 else shape[0] - away
        placed = Placed(rng.uniform(0.3, 0.7) * shape[1], row, size, rng.uniform(-15, 15), _direction(rng))
        film = drawn_leg(placed, shape, rng).pixels
    elif kind < 0.58:
        crop = _crop(crops, rng)
        part = crop[: round(0.31 * len(crop))] if rng.random() < 0.5 else crop[round(0.67 * len(crop)) :]
        film = np.asarray(cv2.resize(part, shape[::-1]), np.float32)
        film = np.rot90(film) if rng.random() < 0.5 else film
    elif kind < 0.76 or not others:
        film = scrambled(_crop(crops, rng), rng)
    else:
        film = _part(others[int(rng.integers(len(others)))], rng)
    film = np.ascontiguousarray(film, np.float32)
    film = furnished(exposed(film, rng), rng) if rng.random() < 0.8 else film
    return 1 - film if rng.random() < 0.12 else film


def _other_view(crops: Crops, rng: np.random.Generator, extent: int) -> Image:
    shape = _shape(rng, 0.6, extent)
    texture = _crop(crops, rng) if rng.random() < 0.7 else None
    draw = lateral_knee if rng.random() < 0.65 else axial_knee
    film = furnished(exposed(draw(shape, rng, texture), rng), rng)
    return 1 - film if rng.random() < 0.12 else film


def _published(crops: Crops, rng: np.random.Generator, extent: int) -> Sample:
    """A crop as such, or a part of it: what research data sets hold."""
    crop, lateral = _mirrored(_crop(crops, rng), rng)
    side = len(crop)
    kept = rng.uniform(0.8, 1.0) * side
    left, top = (rng.uniform(0, side - kept) for _ in range(2))
    metal, cast = rng.random() < 0.12, rng.random() < 0.06
    crop = with_implant(crop, rng) if metal else crop
    crop = with_cast(crop, rng) if cast else crop
    part = crop[int(top) : int(top + kept), int(left) : int(left + kept)]
    if rng.random() < 0.5:
        part = exposed(part, rng)
    inverted = rng.random() < 0.15
    part = np.ascontiguousarray(1 - part if inverted else part, np.float32)
    factor = extent / max(part.shape)
    placed = Placed((side / 2 - int(left)) * factor, (side / 2 - int(top)) * factor, side * factor, 0.0, lateral)
    return _turned(Sample(_squared(part, extent), (Shown(placed, metal, cast),), 0, inverted), rng)


def _schematic(rng: np.random.Generator, extent: int) -> tuple[Image, list[Shown]]:
    """One or two drawn knees."""
    both = rng.random() < 0.5
    rows = extent if not both else int(rng.uniform(0.55, 1.0) * extent)
    columns = int(rng.uniform(0.6, 1.0) * extent) if not both else extent // 2
    if rows < 0.8 * columns:
        rows = int(0.8 * columns)
    films, knees = [], []
    directions = (-1, 1) if both else (_direction(rng),)
    for position, lateral in enumerate(directions):
        film = schematic_knee(rows, columns, rng, Schematic.draw(rng), narrowing=rng.uniform(0, 1))
        films.append(film if lateral > 0 else film[:, ::-1])
        x = (position + 0.5) * columns
        knees.append(Shown(Placed(x, rows / 2, CROP * columns, 0.0, lateral)))
    return np.ascontiguousarray(np.concatenate(films, axis=1)), knees


def _knees(crops: Crops, rng: np.random.Generator, extent: int) -> tuple[Image, list[Shown]]:
    """One knee that fills the film, one that does not, or two of them."""
    kind = rng.random()
    both = kind > 0.6
    share = rng.uniform(0.85, 1.5) if kind < 0.2 else math.exp(rng.uniform(math.log(0.22), math.log(0.9)))
    share = rng.uniform(0.17, 0.48) if both else share
    low, high = (0.6, 1.6) if both else (0.75, 1.5) if share > 0.85 else (0.8, 2.6)
    tallness = rng.uniform(low, high)
    shape = (extent, max(24, int(extent / tallness))) if tallness > 1 else (int(extent * tallness), extent)
    size = share * (min(shape) if share > 0.85 else extent)
    size = min(size, 0.5 * shape[1], 0.9 * shape[0]) if both else min(size, 1.5 * min(shape))
    parts, knees = [], []
    cast = rng.random() < 0.07
    for position in range(2 if both else 1):
        placed = _place(shape, size * rng.uniform(0.92, 1.08), position if both else None, share > 0.85, rng)
        metal = bool(rng.random() < 0.13)
        crop = _crop(crops, rng)
        crop = with_implant(crop, rng) if metal else crop
        crop = with_cast(crop, rng) if cast else crop
        parts.append((crop if placed.lateral == _CANONICAL else np.ascontiguousarray(crop[:, ::-1]), placed))
        knees.append(Shown(placed, metal, cast))
    film = make_film(parts, shape, rng).pixels
    if rng.random() < 0.05:
        film, knees = with_cast(film, rng), [replace(knee, cast=True) for knee in knees]
    return film, knees


def _place(shape: tuple[int, int], size: float, position: int | None, fills: bool, rng: np.random.Generator) -> Placed:
    rows, columns = shape
    tilt = rng.uniform(-14, 14)
    if position is not None:
        lateral = -1 if position == 0 else 1
        if rng.random() < 0.1:
            lateral = -lateral
        x = columns * (0.25 + 0.5 * position) + rng.uniform(-0.08, 0.08) * columns
    else:
        lateral = _direction(rng)
        spread = 0.12 * columns if fills else 0.5 * max(0.0, columns - 0.6 * size)
        x = columns / 2 + rng.uniform(-spread, spread)
    spread = 0.12 * rows if fills else 0.5 * max(0.0, rows - 0.6 * size)
    return Placed(x, rows / 2 + rng.uniform(-spread, spread), size, tilt, lateral)


def _finished(film: Image, knees: list[Shown], rng: np.random.Generator, extent: int) -> Sample:
    """Exposure, furniture, inversion, and a place in the square."""
    film = furnished(exposed(film, rng), rng)
    inverted = bool(rng.random() < 0.15)
    film = np.asarray(1 - film if inverted else film, np.float32)
    if rng.random() < 0.35 and max(film.shape) <= extent:  # as when one knee is looked at by itself at the film's edge
        top, left = (int(rng.uniform(0, extent - side + 1)) for side in film.shape)
        square = np.zeros((extent, extent), np.float32)
        square[top : top + film.shape[0], left : left + film.shape[1]] = film
        knees = [replace(k, placed=replace(k.placed, x=k.placed.x + left, y=k.placed.y + top)) for k in knees]
    else:
        square, factor = _squared(film, extent), extent / max(film.shape)
        knees = [replace(knee, placed=_scaled(knee.placed, factor)) for knee in knees]
    return _turned(Sample(square, tuple(knees), 0, inverted), rng)


def _turned(sample: Sample, rng: np.random.Generator) -> Sample:
    if rng.random() >= 0.08:
        return sample
    turns, knees, last = int(rng.integers(1, 4)), [], sample.film.shape[0] - 1
    for knee in sample.knees:
        x, y = knee.placed.x, knee.placed.y
        for _ in range(turns):
            x, y = y, last - x
        knees.append(replace(knee, placed=replace(knee.placed, x=x, y=y)))
    return replace(sample, film=np.ascontiguousarray(np.rot90(sample.film, turns)), knees=tuple(knees), turned=turns)


def targets(sample: Sample) -> tuple[Image, Image, Image]:
    """What the network is to say.

    Heat (2, GRID, GRID) of upright and turned knees, the eight values of each cell from ACROSS on (8, GRID, GRID), and
    how much each cell counts for them (GRID, GRID).
    """
    heat = np.zeros((2, GRID, GRID), np.float32)
    values = np.zeros((CAST + 1 - ACROSS, GRID, GRID), np.float32)
    weight = np.zeros((GRID, GRID), np.float32)
    rows, columns = np.mgrid[:GRID, :GRID]
    for knee in sample.knees:
        placed = knee.placed
        x, y = placed.x / STRIDE - 0.5, placed.y / STRIDE - 0.5
        spread = max(0.7, placed.size / STRIDE * 0.08)
        bump = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2))
        bump = bump / max(float(bump.max()), 1e-6)
        channel = TURNED if sample.turned else UPRIGHT
        heat[channel] = np.maximum(heat[channel], bump)
        if sample.turned:
            continue
        near, cells = bump > 0.35, placed.size / STRIDE
        answers = {
            ACROSS: (x - columns)[near] / cells * 8,
            DOWN: (y - rows)[near] / cells * 8,
            EXTENT: math.log(placed.size / UNIT),
            SLANT: math.sin(math.radians(placed.tilt)) * TILT,
            FIBULA: float(placed.lateral > 0),
            INVERTED: float(sample.inverted),
            METAL: float(knee.metal),
            CAST: float(knee.cast),
        }
        for name, answer in answers.items():
            values[name - ACROSS][near] = answer
        weight[near] = bump[near]
    return heat, values, weight


def _shape(rng: np.random.Generator, spread: float, extent: int) -> tuple[int, int]:
    ratio = math.exp(rng.uniform(-spread, spread))
    return (extent, int(extent / ratio)) if ratio > 1 else (int(extent * ratio), extent)


def _squared(film: Image, extent: int) -> Image:
    """The film, resized to `extent` in its longer direction, in the upper left corner of a dark square."""
    factor = extent / max(film.shape)
    shape = (max(1, round(film.shape[1] * factor)), max(1, round(film.shape[0] * factor)))
    square = np.zeros((extent, extent), np.float32)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    square[: shape[1], : shape[0]] = cv2.resize(np.ascontiguousarray(film), shape, interpolation=method)
    return square


def _crop(crops: Crops, rng: np.random.Generator) -> Image:
    return np.asarray(crops[rng.integers(len(crops))], np.float32) / np.float32(255)


def _mirrored(crop: Image, rng: np.random.Generator) -> tuple[Image, int]:
    lateral = _direction(rng)
    return (crop if lateral == _CANONICAL else np.ascontiguousarray(crop[:, ::-1])), lateral


def _direction(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _scaled(placed: Placed, factor: float) -> Placed:
    return replace(placed, x=placed.x * factor, y=placed.y * factor, size=placed.size * factor)


def _part(image: Image, rng: np.random.Generator) -> Image:
    rows, columns = image.shape
    high, wide = int(rows * rng.uniform(0.3, 1)), int(columns * rng.uniform(0.3, 1))
    top, left = int(rng.integers(rows - high + 1)), int(rng.integers(columns - wide + 1))
    part = image[top : top + high, left : left + wide]
    part = part[:, ::-1] if rng.random() < 0.5 else part
    return np.ascontiguousarray(np.rot90(part, int(rng.integers(4))))
