"""What drawn radiographs are made with: outlines, the shadows of bones and flesh, bone texture, development.

Outlines are given in units of the drawn part, x to the right and y downwards; `Sheet.frame` carries them to the film.
Every bone adds its own shadow, bright at its walls, so that what overlaps gets brighter, as on a radiograph. With a
real crop as `texture` the bones get its trabeculae: they must not differ from real bones by texture alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
Coordinates = Sequence[tuple[float, float]] | Points

FIXED = 16  # cv2 takes coordinates in sixteenths of a pixel
STEPS = np.arange(8)[None, :, None] / 8


@dataclass(eq=False)
class Sheet:
    """A film (rows, columns) being drawn on; `frame` (2, 3) takes the drawing's units to columns and rows."""

    film: Image
    grain: Image
    frame: Points
    wall: float
    detail: float
    body: float

    @property
    def unit(self) -> float:
        """Pixels in one unit."""
        return float(np.sqrt(abs(np.linalg.det(self.frame[:, :2]))))

    def place(self, points: Coordinates) -> Points:
        """(N, 2) in units to (N, 2) columns and rows."""
        moved: Points = np.asarray(points, float) @ self.frame[:, :2].T + self.frame[:, 2]
        return moved

    def bone(self, outline: Coordinates, bright: float = 0.35, wall: float = 1.0) -> None:
        """Add the shadow of a bone with this closed outline (N, 2)."""
        box, inside, depth = self._filled(outline)
        if inside.size:
            shadow = self.body + (1 - self.body) * np.exp(-depth / (self.wall * wall))
            self.film[box] += inside * bright * (shadow + self.detail * self.grain[box])

    def flesh(self, outline: Coordinates, bright: float, thickness: float) -> None:
        """Add soft tissue: thin at its edge, of full shadow from `thickness` units inwards."""
        box, inside, depth = self._filled(outline)
        if inside.size:
            self.film[box] += inside * bright * np.sqrt(np.minimum(depth / thickness, 1))

    def _filled(self, outline: Coordinates) -> tuple[tuple[slice, slice], Image, Image]:
        """Where on the film, how much of each pixel lies inside, and how deep inside in units."""
        points = rounded(self.place(outline))
        rows, columns = self.film.shape
        low, high = points.min(axis=0) - 2, points.max(axis=0) + 3
        left, right = (min(max(int(at), 0), columns) for at in (low[0], high[0]))
        top, bottom = (min(max(int(at), 0), rows) for at in (low[1], high[1]))
        mask, box = np.zeros((bottom - top, right - left), np.uint8), (slice(top, bottom), slice(left, right))
        if not mask.size:
            return box, mask.astype(np.float32), mask.astype(np.float32)
        low = np.array([left, top])
        fixed = np.round((points - low) * FIXED).clip(-(2**20), 2**20).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, 4)
        depth = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(self.unit)
        return box, mask.astype(np.float32) / np.float32(255), depth.astype(np.float32)


def table(text: str) -> Points:
    """Points (N, 2) from "x,y x,y"."""
    points: Points = np.array([pair.split(",") for pair in text.split()], float)
    return points


def rounded(outline: Coordinates) -> Points:
    """A smooth closed curve (8 N, 2) through these points (N, 2)."""
    at = np.asarray(outline, float)[:, None]
    before, after, beyond = (np.concatenate([at[by:], at[:by]]) for by in (-1, 1, 2))
    curve = at + STEPS / 2 * (
        after
        - before
        + STEPS * (2 * before - 5 * at + 4 * after - beyond + STEPS * (3 * (at - after) + beyond - before))
    )
    result: Points = curve.reshape(-1, 2)
    return result


def along(path: Coordinates, halves: Sequence[float]) -> Points:
    """The outline (2 N, 2) of what runs along a path (N, 2) with these half widths."""
    points = np.asarray(path, float)
    ahead = np.gradient(points, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9
    aside = ahead[:, ::-1] * (-1, 1) * np.asarray(halves, float)[:, None]
    return np.concatenate([points + aside, (points - aside)[::-1]])


def disc(x: float, y: float, across: float, down: float | None = None) -> Points:
    """The outline (12, 2) of an ellipse with these half axes."""
    angles = np.arange(12) * np.pi / 6
    return np.stack([x + across * np.cos(angles), y + (down or across) * np.sin(angles)], axis=1)


def turn(points: Coordinates, degrees: float, about: tuple[float, float] = (0.0, 0.0)) -> Points:
    """Points (N, 2) turned so that what points down turns towards smaller x."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned: Points = (np.asarray(points, float) - about) @ matrix + about
    return turned


def jittered(points: Coordinates, rng: np.random.Generator, spread: float) -> Points:
    """Points (N, 2), each moved a little."""
    at = np.asarray(points, float)
    moved: Points = at + rng.normal(0, spread, at.shape)
    return moved


def frame_of(
    shape: tuple[int, int],
    rng: np.random.Generator,
    unit: float,
    degrees: float,
    room: float = 0.2,
    mirror: bool = True,
) -> Points:
    """A frame (2, 3) with its origin at most `room` of the film off the middle, half of them mirrored."""
    middle = (0.5 + rng.uniform(-room, room, 2)) * (shape[1], shape[0])
    axes = turn(np.eye(2), degrees).T * unit
    axes[:, 0] *= rng.choice([-1, 1]) if mirror else 1
    return np.column_stack([axes, middle])


def sheet(shape: tuple[int, int], rng: np.random.Generator, frame: Points, texture: Image | None) -> Sheet:
    """An empty film for a drawing in this frame."""
    unit = float(np.sqrt(abs(np.linalg.det(frame[:, :2]))))
    return Sheet(
        film=np.full(shape, rng.uniform(0, 0.08), np.float32),
        grain=trabeculae(shape, rng, unit, texture),
        frame=frame,
        wall=rng.uniform(0.012, 0.035),
        detail=rng.uniform(0.03, 0.12) if texture is None else rng.uniform(0.05, 0.25),
        body=rng.uniform(0.4, 0.75),
    )


def trabeculae(shape: tuple[int, int], rng: np.random.Generator, unit: float, texture: Image | None) -> Image:
    """Bone texture over a whole film: mean 0, spread 1, from a real crop (S, S) of a knee where there is one."""
    if texture is None:
        patch = rng.normal(size=(48, 16)).astype(np.float32)
        patch = np.asarray(cv2.resize(patch, (64, 64), interpolation=cv2.INTER_CUBIC), np.float32)
        side = 224.0
    else:
        side = float(len(texture))
        top, bottom = (rng.uniform(0.04, 0.12), 0.38) if rng.random() < 0.5 else (rng.uniform(0.66, 0.72), 0.97)
        left = rng.uniform(0.2, 0.32)
        rows, columns = slice(int(side * top), int(side * bottom)), slice(int(side * left), int(side * (left + 0.42)))
        patch = np.ascontiguousarray(texture[rows, columns], np.float32)
    patch = patch - blurred(patch, side * 0.03)
    patch = np.clip(patch / (patch.std() + 1e-3), -2.5, 2.5)
    scale = unit / side * rng.uniform(0.6, 1.5)
    matrix = np.column_stack([turn(np.eye(2), rng.uniform(0, 360)).T * scale, rng.uniform(0, 1, 2) * shape[::-1]])
    grain = cv2.warpAffine(patch, matrix, shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(grain, np.float32)


def blurred(image: Image, sigma: float) -> Image:
    """An image (rows, columns) through a Gaussian of at least a third of a pixel; a wide one at less resolution."""
    less = int(sigma / 3)
    if less > 1 and min(image.shape) >= 8 * less:
        small = cv2.resize(image, (image.shape[1] // less, image.shape[0] // less), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / less), image.shape[::-1]), np.float32)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3)), np.float32)


def developed(film: Image, rng: np.random.Generator) -> Image:
    """What detector and display make of the shadows: blur, noise, an exposure, at times local equalisation; 0..1."""
    side = min(film.shape)
    film = blurred(film, side * rng.uniform(0.001, 0.004))
    low, high = (
        float(film.min()),
        float(np.partition(film.ravel(), -max(film.size // 200, 1))[-max(film.size // 200, 1)]),
    )
    film = (film - low) / max(high - low, 1e-3) * np.float32(rng.uniform(0.7, 1.05))
    film = np.clip(film, 0, 1) ** np.float32(2 ** rng.uniform(-0.9, 0.7))
    noise: Image = np.empty(film.shape, np.float32)
    cv2.setRNGSeed(int(rng.integers(2**31 - 1)))
    cv2.randn(noise, np.zeros(1), np.full(1, rng.uniform(0.003, 0.03)))
    film = np.clip(film + noise, 0, 1)
    if rng.random() < 0.4:
        equaliser = cv2.createCLAHE(float(rng.uniform(1.5, 5)), (int(rng.integers(2, 7)),) * 2)
        film = equaliser.apply((film * 255).astype(np.uint8)).astype(np.float32) / np.float32(255)
    return np.clip(film, 0, 1).astype(np.float32)
