"""A drawn frontal knee: no patient, but the geometry of a real film holds (the fibula lies laterally).

Used where no real knee may be: phantoms, and a few of the films that the knee finder learns from, so that it looks at
shapes and not at the grain of one data set.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]

CROP = 0.68  # of the drawing's width: the crop that shows this knee as the data's crops show theirs


@dataclass(frozen=True)
class Schematic:
    """Widths and brightnesses of the drawing, in half widths of it and as fractions of full brightness."""

    gap: float = 0.045
    condyles: float = 0.64
    shaft: float = 0.30
    shank: float = 0.27
    fibula: float = 0.60
    bone: float = 0.42
    tissue: float = 0.22
    patella: float = 0.10
    noise: float = 0.012

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Schematic":
        """A knee unlike the last one."""
        return cls(
            gap=rng.uniform(0.02, 0.06),
            condyles=rng.uniform(0.58, 0.70),
            shaft=rng.uniform(0.24, 0.36),
            shank=rng.uniform(0.22, 0.33),
            fibula=rng.uniform(0.54, 0.64),
            bone=rng.uniform(0.25, 0.5),
            tissue=rng.uniform(0.1, 0.3),
            patella=rng.uniform(0.0, 0.15),
            noise=rng.uniform(0.0, 0.03),
        )


def schematic_knee(
    rows: int, columns: int, rng: np.random.Generator, look: Schematic | None = None, *, narrowing: float = 0.0
) -> Image:
    """One frontal left knee as seen AP (its fibula at the right), values 0..1, bright bone.

    Args:
        rows: of the film.
        columns: of the film.
        rng: gives the noise.
        look: widths and brightnesses; by default those of the phantoms.
        narrowing: 0..1 closes the medial joint space.
    """
    look = look or Schematic()
    x, y = axes(rows, columns)
    gap = look.gap - 0.78 * look.gap * narrowing * soft(-x, 6.0)
    flare = look.shaft + (look.condyles - look.shaft) * soft(y + 0.42, 9.0)
    femur = column(x, y, 0.0, flare, -1.2, -0.02) * soft(-gap - y - 0.05 * np.cos(3.5 * x), 50.0)
    femur *= 1 - 0.7 * ellipse(x, y, 0.0, -0.05, 0.12, 0.14)
    taper = look.shank + (look.condyles - look.shank) * soft(0.34 - y, 9.0)
    tibia = column(x, y, -0.03, taper, 0.02, 1.2) * soft(y - gap, 50.0)
    spines = ellipse(x, y, -0.07, 0.02, 0.05, 0.05) + ellipse(x, y, 0.06, 0.02, 0.05, 0.05)
    fibula = column(x, y, look.fibula, 0.09 + 0.05 * soft(0.36 - y, 12.0), 0.2, 1.2)
    patella = ellipse(x, y, 0.03, -0.30, 0.26, 0.20)
    tissue = soft(0.93 - np.abs(x) - 0.05 * np.cos(2 * y), 25.0)
    bones = look.bone * (femur + tibia + 0.67 * fibula) + 0.15 * spines + look.patella * patella
    film = 0.06 + look.tissue * tissue + bones + rng.normal(0.0, look.noise, (rows, columns))
    return np.asarray(np.clip(film, 0.0, 1.0), np.float32)


def axes(rows: int, columns: int) -> tuple[Image, Image]:
    """x and y of every pixel, each from -1 to 1, (rows, columns)."""
    down, across = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    return np.asarray(across, np.float32), np.asarray(down, np.float32)


def soft(inside: npt.NDArray[np.floating], sharpness: float = 60.0) -> Image:
    """1 where `inside` is positive, 0 where negative, with a soft edge."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(inside * sharpness, -40, 40))), np.float32)


def ellipse(x: Image, y: Image, cx: float, cy: float, rx: float, ry: float) -> Image:
    """1 inside of an ellipse."""
    return soft(1.0 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2, 20.0)


def column(x: Image, y: Image, centre: float, half: Image | float, top: float, bottom: float) -> Image:
    """1 inside of an upright bar whose half width may change from row to row."""
    return soft(half - np.abs(x - centre)) * soft(y - top) * soft(bottom - y)
