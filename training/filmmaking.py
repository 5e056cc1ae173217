"""Made films: single-knee crops set into drawn legs, on films of one or two knees, and films without any knee.

There are no annotated full films here. What a crop does not show (shafts, fibula, soft tissue) is drawn; what was done
to its contrast is undone roughly, then the film gets what films have: rotation, exposure, noise, collimation, markers
(`training.exposure`). Distances are in units of the crop's side unless said otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inference.findings import Side

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.float32]

FEATHER = 0.1  # of the crop, on which it fades into the drawn leg


@dataclass(frozen=True)
class Placed:
    """One knee on a film: centre and size of its crop in pixels of the film, its tilt in degrees, as it appears.

    `lateral` is +1 when the fibula lies towards larger columns, -1 otherwise.
    """

    x: float
    y: float
    size: float
    tilt: float
    lateral: int


@dataclass(frozen=True, eq=False)
class MadeFilm:
    """A film (rows, columns) with values 0..1, and the knees that are on it, from left to right."""

    pixels: Image
    knees: tuple[Placed, ...]


@dataclass(frozen=True)
class Look:
    """How a leg is drawn: half widths of bones and soft tissue, brightness, how much of the crop's contrast stays."""

    thigh: float
    calf: float
    femur: float
    tibia: float
    bone: float
    tissue: float
    detail: float
    shading: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Look":
        """A leg like others."""
        return cls(
            thigh=rng.uniform(0.5, 0.95),
            calf=rng.uniform(0.45, 0.75),
            femur=rng.uniform(0.15, 0.23),
            tibia=rng.uniform(0.13, 0.2),
            bone=rng.uniform(0.15, 0.4),
            tissue=rng.uniform(0.2, 0.5),
            detail=rng.uniform(0.25, 1.0),
            shading=rng.uniform(0.1, 0.9),
        )


def lateral_as_shown(side: Side) -> int:
    """Which way the fibula lies on a film seen from the front and not mirrored: a right knee's to the left."""
    return -1 if side is Side.RIGHT else 1


def make_film(
    knees: Sequence[tuple[Image, Placed]], shape: tuple[int, int], rng: np.random.Generator, look: Look | None = None
) -> MadeFilm:
    """A film of `shape` (rows, columns) with these crops (S, S), values 0..1, each already as its `lateral` says."""
    film: Image = np.full(shape, rng.uniform(0.0, 0.12), np.float32)
    look = look or Look.draw(rng)
    for crop, placed in knees:
        leg, there = _leg(crop, placed, shape, look, rng)
        film = np.asarray(film * (1 - there) + np.maximum(film, leg) * there, np.float32)
    return MadeFilm(np.clip(film, 0, 1), tuple(sorted((placed for _, placed in knees), key=lambda knee: knee.x)))


def _leg(
    crop: Image | None, placed: Placed, shape: tuple[int, int], look: Look, rng: np.random.Generator
) -> tuple[Image, Mask]:
    """One leg on an empty film, and where it is. Without a crop the joint is drawn as a shaft that goes on."""
    rows, columns = shape
    angle = np.deg2rad(placed.tilt)
    across, down = np.meshgrid(
        np.arange(columns, dtype=np.float32) - placed.x, np.arange(rows, dtype=np.float32) - placed.y
    )
    x = (across * np.cos(angle) - down * np.sin(angle)) / placed.size
    up = -(across * np.sin(angle) + down * np.cos(angle)) / placed.size
    bend = rng.uniform(-0.12, 0.12)
    x = x - bend * np.clip(np.abs(up) - 0.3, 0, None) ** 1.5 * np.sign(x.mean() + 1e-6)
    half = np.where(
        up > 0, 0.5 + (look.thigh - 0.5) * _smooth(up, 0.3, 2.0), 0.5 + (look.calf - 0.5) * _smooth(-up, 0.2, 1.2)
    )
    half = half * rng.uniform(1.0, 1.25)
    inside = _smooth(half - np.abs(x), -0.01, 0.05)
    tissue = look.tissue * np.sqrt(np.clip(1 - (x / half) ** 2, 0, 1))
    bones = np.maximum(_femur(x, up, look), _tibia(x, up, look))
    bones = np.maximum(bones, _fibula(x * placed.lateral, up))
    model = tissue + look.bone * bones
    if crop is not None:
        model = _with_crop(model.astype(np.float32), crop, placed, look)
        box = _smooth(0.52 - np.maximum(np.abs(x), np.abs(up)), 0.0, 0.06)
        inside = np.maximum(inside, box)
    return model.astype(np.float32), inside.astype(np.float32)


def _femur(x: Image, up: Image, look: Look) -> Image:
    half = 0.42 + (look.femur - 0.42) * _smooth(up, 0.38, 1.0)
    return _bone(x, half) * (up > -0.05)


def _tibia(x: Image, up: Image, look: Look) -> Image:
    half = 0.4 + (look.tibia - 0.4) * _smooth(-up, 0.3, 0.95)
    return _bone(x, half) * (up < 0.0)


def _fibula(x: Image, up: Image) -> Image:
    """x grows laterally."""
    centre = 0.46 - 0.16 * _smooth(-up, 0.45, 1.1)
    half = 0.045 + 0.05 * np.exp(-(((-up - 0.42) / 0.1) ** 2))
    return 0.6 * _bone(x - centre, half) * _smooth(-up, 0.32, 0.38)


def _bone(x: Image, half: Image) -> Image:
    """A tube: brighter at its walls."""
    inside = _smooth(half - np.abs(x), -0.005, 0.02)
    return np.asarray(inside * (0.65 + 0.35 * np.clip(np.abs(x) / half, 0, 1) ** 4), np.float32)


def _with_crop(model: Image, crop: Image, placed: Placed, look: Look) -> Image:
    """The crop at its place: the drawn leg's coarse brightness, the crop's fine structure."""
    rows, columns = model.shape
    side = crop.shape[0]
    coarse = cv2.GaussianBlur(crop, (0, 0), side * 0.12)
    fine, shade = crop - coarse, coarse - coarse.mean()
    scale = placed.size / side
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), -placed.tilt, scale)
    matrix[:, 2] += (placed.x - (side - 1) / 2, placed.y - (side - 1) / 2)

    def placed_on_film(values: Image) -> Image:
        source, warp = values, matrix
        if scale < 0.7:  # warpAffine does not average
            small = max(8, round(side * scale))
            source = np.asarray(cv2.resize(values, (small, small), interpolation=cv2.INTER_AREA), np.float32)
            warp = matrix.copy()
            warp[:, :2] *= side / small
        warped = cv2.warpAffine(source, warp, (columns, rows), flags=cv2.INTER_LINEAR, borderValue=0)
        return np.asarray(warped, np.float32)

    ramp = np.clip(np.minimum(np.arange(side), np.arange(side)[::-1]) / (FEATHER * side), 0, 1).astype(np.float32)
    weight = placed_on_film(np.outer(ramp, ramp))
    smooth = cv2.GaussianBlur(model, (0, 0), max(1.0, placed.size * 0.05))
    inside = smooth + look.shading * 0.6 * placed_on_film(shade) + look.detail * placed_on_film(fine)
    return np.asarray(model * (1 - weight) + inside * weight, np.float32)


def _smooth(value: Image, low: float, high: float) -> Image:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def drawn_leg(placed: Placed, shape: tuple[int, int], rng: np.random.Generator) -> MadeFilm:
    """A film that shows a shaft only: a thigh or a shank whose joint lies far outside."""
    look = Look.draw(rng)
    leg, there = _leg(None, placed, shape, look, rng)
    film = rng.uniform(0.0, 0.12) * (1 - there) + leg * there
    return MadeFilm(np.clip(film, 0, 1).astype(np.float32), ())
