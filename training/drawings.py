"""Drawn radiographs of what no data set at hand holds: knees from the side and in the axial view, and other joints.

Outlines are given in units of the drawn part, x to the right and y downwards; `Sheet.frame` carries them to the film.
Every bone adds its own shadow, bright at its walls, so that what overlaps gets brighter, as on a radiograph. With a
real crop as `texture` the bones get its trabeculae: they must not differ from real bones by texture alone.
"""

from collections.abc import Callable, Sequence
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
        points = self.place(rounded(outline))
        rows, columns = self.film.shape
        low = np.clip(np.floor(points.min(axis=0)).astype(int) - 2, 0, (columns, rows))
        high = np.clip(np.ceil(points.max(axis=0)).astype(int) + 3, 0, (columns, rows))
        mask = np.zeros(np.maximum(high - low, 0)[::-1], np.uint8)
        box = (slice(low[1], low[1] + mask.shape[0]), slice(low[0], low[0] + mask.shape[1]))
        if not mask.size:
            return box, mask.astype(np.float32), mask.astype(np.float32)
        fixed = np.round((points - low) * FIXED).clip(-(2**20), 2**20).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, 4)
        depth = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 3) / np.float32(self.unit)
        return box, mask.astype(np.float32) / np.float32(255), depth.astype(np.float32)


def rounded(outline: Coordinates) -> Points:
    """A smooth closed curve (8 N, 2) through these points (N, 2)."""
    at = np.asarray(outline, float)[:, None]
    before, after, beyond = np.roll(at, 1, 0), np.roll(at, -1, 0), np.roll(at, -2, 0)
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
        patch = cv2.resize(patch, (64, 64), interpolation=cv2.INTER_CUBIC)
        side = 224.0
    else:
        side = float(len(texture))
        top = int(side * rng.choice([rng.uniform(0.08, 0.2), rng.uniform(0.66, 0.74)]))
        left = int(side * rng.uniform(0.22, 0.4))
        wide = max(int(side * 0.26), 8)
        patch = np.ascontiguousarray(texture[top : top + wide, left : left + wide], np.float32)
    patch = patch - cv2.GaussianBlur(patch, (0, 0), side * 0.03)
    patch /= patch.std() + 1e-3
    scale = unit / side * rng.uniform(0.6, 1.5)
    matrix = np.column_stack([turn(np.eye(2), rng.uniform(0, 360)).T * scale, rng.uniform(0, 1, 2) * shape[::-1]])
    grain: Image = cv2.warpAffine(patch, matrix, shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
    return grain


def developed(film: Image, rng: np.random.Generator) -> Image:
    """What detector and display make of the shadows: blur, noise, an exposure, at times local equalisation; 0..1."""
    side = min(film.shape)
    film = cv2.GaussianBlur(film, (0, 0), max(side * rng.uniform(0.001, 0.004), 0.3))
    low, high = (
        float(film.min()),
        float(np.partition(film.ravel(), -max(film.size // 200, 1))[-max(film.size // 200, 1)]),
    )
    film = (film - low) / max(high - low, 1e-3) * np.float32(rng.uniform(0.7, 1.05))
    film = np.clip(film, 0, 1) ** np.float32(2 ** rng.uniform(-0.9, 0.7))
    noise = np.empty(film.shape, np.float32)
    cv2.setRNGSeed(int(rng.integers(2**31 - 1)))
    cv2.randn(noise, 0, float(rng.uniform(0.003, 0.03)))
    film = np.clip(film + noise, 0, 1)
    if rng.random() < 0.4:
        equaliser = cv2.createCLAHE(float(rng.uniform(1.5, 5)), (int(rng.integers(2, 7)),) * 2)
        film = equaliser.apply((film * 255).astype(np.uint8)).astype(np.float32) / np.float32(255)
    return np.clip(film, 0, 1).astype(np.float32)


FEMUR = (
    ((0.15, -4), (0.14, -2), (0.14, -1.1), (0.16, -0.75), (0.24, -0.55), (0.27, -0.38), (0.22, -0.17), (0.1, -0.05))
    + ((-0.08, -0.02), (-0.25, -0.1), (-0.34, -0.25), (-0.32, -0.4), (-0.22, -0.5), (-0.16, -0.65), (-0.15, -1.1))
    + ((-0.15, -2), (-0.15, -4))
)
TIBIA = (
    ((-0.3, 0.1), (-0.27, 0.04), (-0.1, 0.05), (0.0, 0.01), (0.07, 0.04), (0.2, 0.05), (0.26, 0.1), (0.26, 0.22))
    + ((0.25, 0.36), (0.18, 0.55), (0.15, 1.1), (0.14, 2), (0.14, 4), (-0.12, 4), (-0.12, 2), (-0.13, 1.0))
    + ((-0.17, 0.5), (-0.26, 0.25))
)
CONDYLE = (
    (0.2, -0.4),
    (0.22, -0.2),
    (0.08, -0.05),
    (-0.1, -0.03),
    (-0.27, -0.1),
    (-0.35, -0.27),
    (-0.3, -0.4),
    (-0.1, -0.48),
)
PATELLA = ((-0.07, -0.15), (-0.08, 0.02), (-0.03, 0.14), (0.03, 0.2), (0.08, 0.06), (0.09, -0.1), (0.04, -0.18))


def lateral_knee(shape: tuple[int, int], rng: np.random.Generator, texture: Image | None = None) -> Image:
    """A knee from the side on a film of `shape` (rows, columns), extended to bent by 90 degrees, facing either way."""
    bend = float(rng.choice([rng.uniform(0, 35), rng.uniform(20, 90)]))
    lean = rng.normal(0, 8) - bend * rng.uniform(-0.1, 1.0) + (rng.uniform(-90, 90) if rng.random() < 0.1 else 0)
    unit = rng.uniform(0.3, 1.2) * min(shape)
    drawn = sheet(shape, rng, frame_of(shape, rng, unit, lean), texture)
    hinge, gap, stout = (-0.04, -0.25), rng.uniform(0.0, 0.05), rng.uniform(0.85, 1.2)
    thigh, calf = rng.uniform(0.35, 0.75), rng.uniform(0.3, 0.55)
    lower = turn([(-0.05, 0.3), (-0.1, 1.0), (-0.05, 2.2), (0, 4)], bend, hinge)
    path = np.concatenate([[(-0.1, -4), (-0.08, -2), (-0.05, -0.9), (0.05, -0.2)], lower])
    halves = [thigh * 1.2, thigh * 1.1, thigh, 0.44, 0.42, calf, calf * 0.9, calf * 0.6]
    drawn.flesh(along(path, halves), rng.uniform(0.1, 0.35), rng.uniform(0.15, 0.5))
    slim = np.array([stout, 1.0])
    drawn.bone(jittered(FEMUR, rng, 0.006) * slim)
    drawn.bone(jittered(CONDYLE, rng, 0.008) * slim + rng.uniform(-0.07, 0.07, 2) * (1, 0.5), 0.2)
    tibia = turn((jittered(TIBIA, rng, 0.006) + (0, gap)) * slim, bend, hinge)
    drawn.bone(tibia)
    head = rng.uniform(0.2, 0.32)
    fibula = along(
        [(-0.2, head), (-0.2, head + 0.1), (-0.15, 0.7), (-0.12, 2), (-0.1, 4)], [0.05, 0.085, 0.05, 0.045, 0.05]
    )
    drawn.bone(turn(fibula, bend, hinge), rng.uniform(0.12, 0.25))
    if rng.random() < 0.95:
        centre = turn([(0.36 + rng.uniform(0.02, 0.08), -0.42 + rng.normal(0, 0.05))], 0.6 * bend, hinge)
        patella = turn(np.asarray(PATELLA) * rng.uniform(0.8, 1.2), 0.65 * bend + rng.normal(0, 5)) * (stout, 1)
        drawn.bone(jittered(patella, rng, 0.005) + centre, rng.uniform(0.18, 0.35))
    return developed(drawn.film, rng)


TROCHLEA = (
    (-0.5, 0.35),
    (-0.48, 0.1),
    (-0.36, -0.02),
    (-0.2, 0.03),
    (-0.03, 0.13),
    (0.13, 0.02),
    (0.3, -0.09),
    (0.44, -0.02),
) + ((0.52, 0.2), (0.5, 0.45), (0.32, 0.6), (0.1, 0.52), (-0.02, 0.42), (-0.15, 0.52), (-0.35, 0.58))
WEDGE = (
    (
        (-0.36, -0.24),
        (-0.16, -0.12),
        (0.0, -0.01),
        (0.18, -0.12),
        (0.42, -0.24),
        (0.34, -0.34),
        (0.08, -0.42),
        (-0.2, -0.38),
    ),
    (
        (-0.3, -0.2),
        (-0.12, -0.1),
        (-0.04, -0.02),
        (0.2, -0.16),
        (0.46, -0.24),
        (0.3, -0.36),
        (0.05, -0.4),
        (-0.22, -0.32),
    ),
)


def axial_knee(shape: tuple[int, int], rng: np.random.Generator, texture: Image | None = None) -> Image:
    """One or both knees along the axis (Merchant, sunrise): the patella's wedge over the groove between two humps."""
    both = rng.random() < 0.5
    unit = shape[1] * rng.uniform(0.28, 0.36) if both else min(shape) * rng.uniform(0.4, 0.95)
    frame = frame_of(shape, rng, unit, rng.normal(0, 6), 0.05 if both else 0.15)
    drawn = sheet(shape, rng, frame, texture)
    tissue, deep = rng.uniform(0.1, 0.35), rng.uniform(0.1, 0.5)
    for side in (-1, 1) if both else (0,):
        drawn.frame = frame.copy()
        drawn.frame[0, 2] += side * shape[1] * 0.25
        drawn.frame[:, 0] *= side or 1
        _axial(drawn, rng, tissue, deep)
    return developed(drawn.film, rng)


def _axial(drawn: Sheet, rng: np.random.Generator, tissue: float, deep: float) -> None:
    shift, lift, tilt = rng.normal(0, 0.04), rng.uniform(-0.04, 0.05), rng.normal(0, 7)
    half = rng.uniform(0.6, 0.72)
    skin = [(-half, 2.5), (-half, 0.6), (-half * 0.92, 0.0), (-0.4, -0.45), (0, -0.58), (0.42, -0.47), (half, 0.0)]
    drawn.flesh([*skin, (half, 0.6), (half, 2.5)], tissue, deep)
    trochlea = np.asarray(TROCHLEA) * (1, rng.uniform(0.8, 1.2))
    if rng.random() < 0.5:
        drawn.flesh(along([(0, 0.3), (0, 0.9), (0, 2.5)], [0.35, 0.4, 0.45]), rng.uniform(0.1, 0.3), 0.2)
    drawn.bone(jittered(trochlea, rng, 0.012), rng.uniform(0.25, 0.4))
    wedge = np.asarray(WEDGE[int(rng.integers(2))]) * rng.uniform(0.85, 1.1)
    drawn.bone(turn(jittered(wedge, rng, 0.01), tilt) + (shift, -lift), rng.uniform(0.25, 0.4))


def joint_row(crop: Image) -> int:
    """About where the joint gap lies: the darkest row beside the middle."""
    side = len(crop)
    first, last = int(side * 0.48), int(side * 0.68)
    rows = np.r_[slice(int(side * 0.2), int(side * 0.38)), slice(int(side * 0.58), int(side * 0.76))]
    return first + int(np.argmin(cv2.blur(crop[first:last][:, rows].mean(axis=1)[:, None], (1, 3))))


def _fit(part: Image, side: int, rows: int | None = None) -> Image:
    resized: Image = cv2.resize(np.ascontiguousarray(part), (side, rows or side), interpolation=cv2.INTER_LINEAR)
    return resized


def scrambled(crop: Image, rng: np.random.Generator) -> Image:
    """A crop (S, S) of a knee made into real bone without a knee, (S, S)."""
    way = int(rng.integers(6))
    return (_doubled, _doubled, _tiles, _swapped, _stretched, _corner)[way](crop, rng).astype(np.float32)


def _doubled(crop: Image, rng: np.random.Generator) -> Image:
    """The femur over another femur, or the tibia over another tibia, with the second mirrored."""
    side, joint = len(crop), joint_row(crop) + int(len(crop) * rng.uniform(-0.04, 0.03))
    half = crop[:joint] if rng.random() < 0.5 else crop[joint:][::-1]
    middle = int(side * rng.uniform(0.35, 0.65))
    second = half[:, ::-1] if rng.random() < 0.6 else half
    ends = second[::-1] if rng.random() < 0.5 else second
    if rng.random() < 0.5:
        return np.concatenate([_fit(half, side, middle), _fit(ends, side, side - middle)])
    return np.concatenate([_fit(half[::-1], side, middle), _fit(second, side, side - middle)])


def _tiles(crop: Image, rng: np.random.Generator) -> Image:
    """Tiles of a 2x2 or 3x3 grid, none where it was."""
    count = int(rng.integers(2, 4))
    order = np.roll(np.arange(count**2), 1)
    for _ in range(8):
        shuffled = rng.permutation(count**2)
        if (shuffled != np.arange(count**2)).all():
            order = shuffled
            break
    edges = np.linspace(0, len(crop), count + 1).astype(int)
    result = np.empty_like(crop)
    for place, source in enumerate(order):
        (row, column), (top, left) = divmod(place, count), divmod(int(source), count)
        part = crop[edges[top] : edges[top + 1], edges[left] : edges[left + 1]]
        high, wide = edges[row + 1] - edges[row], edges[column + 1] - edges[column]
        result[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = _fit(part, int(wide), int(high))
    return result


def _swapped(crop: Image, rng: np.random.Generator) -> Image:
    """The tibia over the femur, or the left half to the right of the right one."""
    if rng.random() < 0.5:
        return np.roll(crop, -joint_row(crop), axis=0)
    return np.roll(crop, len(crop) // 2 + int(len(crop) * rng.uniform(-0.1, 0.1)), axis=1)


def _stretched(crop: Image, rng: np.random.Generator) -> Image:
    """A part of the femur or of the tibia, drawn out more than twice as far one way as the other."""
    side, joint = len(crop), joint_row(crop)
    bone = crop[: int(joint - 0.04 * side)] if rng.random() < 0.5 else crop[int(joint + 0.03 * side) :]
    narrow = max(int(side * rng.uniform(0.15, 0.4)), 4)
    left = int(rng.integers(side - narrow + 1))
    if rng.random() < 0.5:
        return _fit(bone[: max(len(bone) // 2, 4)], side)
    return _fit(bone[:, left : left + narrow], side, side)


def _corner(crop: Image, rng: np.random.Generator) -> Image:
    """A corner as large as the whole."""
    size = max(int(len(crop) * rng.uniform(0.22, 0.4)), 4)
    rows = slice(None, size) if rng.random() < 0.5 else slice(-size, None)
    columns = slice(None, size) if rng.random() < 0.5 else slice(-size, None)
    return _fit(crop[rows, columns], len(crop))


def elsewhere(shape: tuple[int, int], rng: np.random.Generator, texture: Image | None = None) -> Image:
    """Another joint on a film of `shape`: hip, ankle, elbow, hand, shoulder, spine or pelvis."""
    part = PARTS[int(rng.integers(len(PARTS)))]
    unit = rng.uniform(0.5, 1.3) * min(shape)
    lean = rng.normal(0, 15) if rng.random() < 0.8 else rng.uniform(-180, 180)
    drawn = sheet(shape, rng, frame_of(shape, rng, unit, lean, 0.15), texture)
    part(drawn, rng)
    return developed(drawn.film, rng)


def _hip(drawn: Sheet, rng: np.random.Generator) -> None:
    drawn.flesh(
        [(-0.9, -1.5), (-0.9, 2.5), (0.1, 2.5), (0.45, 0.8), (0.5, 0.0), (0.45, -1.5)], rng.uniform(0.2, 0.4), 0.5
    )
    neck = rng.uniform(-12, 12)
    drawn.bone(
        [(-0.6, -0.9), (0.15, -0.85), (0.2, -0.4), (0.12, -0.22), (-0.2, -0.18), (-0.35, 0.2), (-0.6, 0.3)], 0.25
    )
    drawn.bone(along([(-0.35, 0.0), (-0.6, 0.1), (-0.9, 0.12)], [0.09, 0.06, 0.08]), 0.25)
    drawn.bone(along([(-0.3, 0.1), (-0.38, 0.35), (-0.6, 0.45), (-0.85, 0.3)], [0.09, 0.1, 0.06, 0.05]), 0.22)
    drawn.bone(disc(-0.1, -0.02, rng.uniform(0.16, 0.2)), 0.25)
    femur = ((-0.03, -0.13), (0.14, -0.02), (0.27, -0.1), (0.36, 0.0), (0.36, 0.2), (0.33, 0.5), (0.31, 1.2), (0.31, 3))
    inner = ((0.1, 3), (0.1, 1.2), (0.1, 0.55), (0.07, 0.38), (0.09, 0.28), (-0.08, 0.13))
    drawn.bone(turn(femur + inner, neck, (-0.1, 0)), 0.35)


def _ankle(drawn: Sheet, rng: np.random.Generator) -> None:
    half, gap = rng.uniform(0.14, 0.18), rng.uniform(0.02, 0.05)
    drawn.flesh(along([(0, -3), (0, -0.6), (0, 0.1), (0, 0.8)], [0.5, 0.35, 0.42, 0.4]), rng.uniform(0.1, 0.3), 0.3)
    tibia = ((-half, -3), (-half, -0.9), (-0.22, -0.3), (-0.28, 0.0), (-0.25, 0.13), (-0.18, 0.12), (-0.15, 0.0))
    drawn.bone([*tibia, (0.0, -0.02), (0.2, 0.0), (0.22, -0.15), (half, -0.5), (half * 0.9, -1), (half * 0.9, -3)])
    fibula = [(0.3, -3), (0.28, -0.8), (0.28, -0.2), (0.3, 0.08), (0.29, 0.22)]
    drawn.bone(along(fibula, [0.06, 0.06, 0.08, 0.08, 0.04]), 0.25)
    drawn.bone(
        [(-0.17, 0.02 + gap), (0, gap), (0.19, 0.02 + gap), (0.24, 0.25), (0.1, 0.35), (-0.16, 0.33), (-0.22, 0.2)]
    )
    if rng.random() < 0.6:
        drawn.bone([(-0.15, 0.4), (0.12, 0.38), (0.2, 0.6), (0.12, 0.85), (-0.1, 0.85), (-0.18, 0.6)], 0.25)
    else:
        for ray in range(5):
            x = -0.3 + 0.15 * ray
            drawn.bone(along([(x * 0.6, 0.4), (x, 0.7), (x * 1.3, 1.0)], [0.07, 0.045, 0.06]), 0.2)


def _elbow(drawn: Sheet, rng: np.random.Generator) -> None:
    bend = float(rng.choice([0, rng.uniform(30, 100)]))
    arm = np.concatenate([[(0, -3), (0, -0.6), (0, 0)], turn([(0, 0.6), (0, 3)], bend)])
    drawn.flesh(along(arm, [0.5, 0.4, 0.36, 0.36, 0.25]), rng.uniform(0.1, 0.3), 0.3)
    humerus = [(-0.11, -3), (-0.11, -0.7), (-0.17, -0.35), (-0.3, -0.12), (-0.24, 0.0), (-0.12, -0.01), (-0.02, -0.06)]
    drawn.bone([*humerus, (0.1, -0.01), (0.2, -0.03), (0.24, -0.15), (0.16, -0.35), (0.11, -0.7), (0.11, -3)])
    ulna = along([(-0.12, -0.16), (-0.12, 0.0), (-0.14, 0.2), (-0.13, 0.8), (-0.18, 3)], [0.09, 0.11, 0.11, 0.07, 0.06])
    radius = along([(0.14, 0.04), (0.14, 0.1), (0.12, 0.2), (0.08, 0.4), (0.14, 3)], [0.09, 0.1, 0.06, 0.08, 0.08])
    drawn.bone(turn(ulna, bend), 0.3)
    drawn.bone(turn(radius, bend), 0.3)


def _hand(drawn: Sheet, rng: np.random.Generator) -> None:
    spread, tissue = rng.uniform(4, 14), rng.uniform(0.1, 0.25)
    drawn.flesh(along([(0, 2), (0, 0.5), (0, 0.25), (0, -0.05), (0, -0.2)], [0.22, 0.2, 0.2, 0.26, 0.22]), tissue, 0.15)
    drawn.bone(along([(-0.06, 2), (-0.07, 0.7), (-0.08, 0.35), (-0.08, 0.29)], [0.06, 0.05, 0.1, 0.09]), 0.3)
    drawn.bone(along([(0.1, 2), (0.1, 0.7), (0.1, 0.35), (0.1, 0.3)], [0.05, 0.04, 0.06, 0.05]), 0.3)
    for row in (0.22, 0.12):
        for x in np.linspace(-0.13, 0.13, 4):
            drawn.bone(jittered(disc(x, row + x * x, 0.045, 0.05), rng, 0.005), 0.22, 0.5)
    for ray in range(5):
        lengths = (0.26, 0.17, 0.13, 0.09) if ray else (0.2, 0.14, 0.11)
        angle = (ray - 2.5) * spread + rng.normal(0, 2) - (0 if ray else 25)
        start, reach = np.array([-0.15 + 0.075 * ray, 0.05]), 0.0
        ahead = np.array([np.sin(np.deg2rad(angle)), -np.cos(np.deg2rad(angle))])
        whole = sum(lengths)
        drawn.flesh(
            along([start, start + ahead * whole / 2, start + ahead * (whole + 0.05)], [0.07, 0.055, 0.04]), tissue, 0.06
        )
        for length in lengths:
            points = [start + ahead * (reach + length * part) for part in (0, 0.12, 0.5, 0.85, 0.97)]
            drawn.bone(along(np.array(points), [0.03, 0.036, 0.022, 0.03, 0.024]), 0.3, 0.5)
            reach += length


def _shoulder(drawn: Sheet, rng: np.random.Generator) -> None:
    skin = [
        (-2, -0.4),
        (-0.5, -0.5),
        (0.2, -0.35),
        (0.42, 0.1),
        (0.4, 2.5),
        (-0.1, 2.5),
        (-0.2, 0.8),
        (-0.3, 2.5),
        (-2, 2.5),
    ]
    drawn.flesh(skin, rng.uniform(0.15, 0.35), 0.4)
    drawn.bone([(-0.14, -0.2), (-0.1, 0.0), (-0.14, 0.2), (-0.3, 0.3), (-0.55, 1.0), (-0.7, 0.9), (-0.75, -0.1)], 0.2)
    drawn.bone(along([(-1.6, -0.1), (-0.9, -0.25), (-0.3, -0.3), (0.0, -0.27)], [0.07, 0.05, 0.06, 0.06]), 0.3)
    drawn.bone(along([(-0.6, -0.1), (-0.2, -0.22), (0.15, -0.2)], [0.04, 0.06, 0.07]), 0.25)
    for rib in range(5):
        y = 0.1 + 0.28 * rib
        drawn.bone(along([(-2, y - 0.3), (-1.2, y - 0.15), (-0.75, y + 0.2), (-0.9, y + 0.5)], [0.05] * 4), 0.13)
    arm = [
        (-0.05, -0.15),
        (0.12, -0.2),
        (0.26, -0.1),
        (0.29, 0.1),
        (0.22, 0.35),
        (0.2, 0.8),
        (0.2, 3),
        (0.0, 3),
        (0.0, 0.8),
    ]
    drawn.bone(turn([*arm, (-0.02, 0.35), (-0.11, 0.12), (-0.12, -0.05)], rng.uniform(-70, 15), (0.05, 0)))


def _spine(drawn: Sheet, rng: np.random.Generator) -> None:
    half, curve = rng.uniform(0.13, 0.2), rng.uniform(-0.1, 0.1)
    drawn.flesh(along([(0, -3), (0, 0), (0, 3)], [1.2, 0.9, 1.1]), rng.uniform(0.15, 0.4), 0.6)
    for level in range(-5, 6):
        y = level * 1.55 * half
        x = curve * np.cos(2 * y)
        waist, high = half * 0.85, half * 0.66
        body = [
            (-half, -high),
            (0, -high * 0.9),
            (half, -high),
            (waist, 0),
            (half, high),
            (0, high * 0.9),
            (-half, high),
            (-waist, 0),
        ]
        drawn.bone(jittered(body, rng, half * 0.03) + (x, y), 0.3)
        drawn.bone(
            along([(x - 1.9 * half, y - 0.02), (x, y - 0.05), (x + 1.9 * half, y - 0.02)], [0.03, 0.05, 0.03]), 0.12
        )
        drawn.bone(disc(x, y + half * 0.4, half * 0.16, half * 0.4), 0.15)


def _pelvis(drawn: Sheet, rng: np.random.Generator) -> None:
    drawn.flesh(
        [(-1.0, -1.5), (-0.8, -0.5), (-0.95, 0.3), (-0.8, 2), (0.8, 2), (0.95, 0.3), (0.8, -0.5), (1, -1.5)], 0.3, 0.4
    )
    drawn.bone([(-0.16, -0.5), (0.16, -0.5), (0.2, -0.3), (0.06, 0.08), (-0.06, 0.08), (-0.2, -0.3)], 0.25)
    ball, whole = rng.uniform(0.1, 0.13), drawn.frame
    for sign in (-1, 1):
        drawn.frame = whole @ np.diag([sign, 1, 1])
        wing = [
            (0.12, -0.4),
            (0.35, -0.65),
            (0.6, -0.55),
            (0.62, -0.35),
            (0.5, -0.05),
            (0.4, 0.05),
            (0.25, -0.02),
            (0.2, -0.2),
        ]
        drawn.bone(wing, 0.28)
        drawn.bone(
            along([(0.4, 0.05), (0.25, 0.15), (0.03, 0.22), (0.03, 0.3), (0.15, 0.38), (0.36, 0.4)], [0.06] * 6), 0.25
        )
        drawn.bone(along([(0.42, 0.05), (0.4, 0.25), (0.34, 0.42)], [0.07, 0.06, 0.07]), 0.25)
        drawn.bone(disc(0.5, 0.08, ball), 0.25)
        femur = [
            (0.52, 0.02),
            (0.62, 0.08),
            (0.7, 0.04),
            (0.75, 0.15),
            (0.72, 0.5),
            (0.72, 2),
            (0.58, 2),
            (0.58, 0.5),
            (0.55, 0.3),
        ]
        drawn.bone([*femur, (0.48, 0.15)], 0.3)


PARTS: tuple[Callable[[Sheet, np.random.Generator], None], ...] = (
    _hip,
    _ankle,
    _elbow,
    _hand,
    _shoulder,
    _spine,
    _pelvis,
)
