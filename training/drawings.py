"""Drawn radiographs of what no data set at hand holds: knees from the side and along the axis, and other joints.

Also real bone put together so that no knee is left. Coordinates as in `training.sheets`.
"""

from collections.abc import Callable

import cv2
import numpy as np

from training.sheets import Image, Sheet, along, developed, disc, frame_of, jittered, sheet, table, turn

Part = Callable[[Sheet, np.random.Generator], None]

FEMUR = table(
    """0.15,-4 0.14,-2 0.14,-1.1 0.16,-0.75 0.24,-0.55 0.27,-0.38 0.22,-0.17 0.1,-0.05 -0.08,-0.02 -0.25,-0.1
    -0.34,-0.25 -0.32,-0.4 -0.22,-0.5 -0.16,-0.65 -0.15,-1.1 -0.15,-2 -0.15,-4"""
)
TIBIA = table(
    """-0.3,0.1 -0.27,0.04 -0.1,0.05 0,0.01 0.07,0.04 0.2,0.05 0.26,0.1 0.26,0.22 0.25,0.36 0.18,0.55 0.15,1.1
    0.14,2 0.14,4 -0.12,4 -0.12,2 -0.13,1 -0.17,0.5 -0.26,0.25"""
)
FIBULA = table("-0.2,0 -0.2,0.1 -0.15,0.45 -0.12,2 -0.1,4")
PATELLA = table("-0.07,-0.15 -0.08,0.02 -0.03,0.14 0.03,0.2 0.08,0.06 0.09,-0.1 0.04,-0.18")
TROCHLEA = table(
    """-0.5,0.35 -0.48,0.1 -0.36,-0.02 -0.2,0.03 -0.03,0.13 0.13,0.02 0.3,-0.09 0.44,-0.02 0.52,0.2 0.5,0.45
    0.32,0.6 0.1,0.52 -0.02,0.42 -0.15,0.52 -0.35,0.58"""
)
WEDGES = (
    table("-0.36,-0.24 -0.16,-0.12 0,-0.01 0.18,-0.12 0.42,-0.24 0.34,-0.34 0.08,-0.42 -0.2,-0.38"),
    table("-0.3,-0.2 -0.12,-0.1 -0.04,-0.02 0.2,-0.16 0.46,-0.24 0.3,-0.36 0.05,-0.4 -0.22,-0.32"),
)


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
    drawn.flesh(along(path, halves), rng.uniform(0.1, 0.5), rng.uniform(0.15, 0.5))
    slim, apart = np.array([stout, 1.0]), rng.uniform(-1, 1, 2) * (0.07, 0.035)
    for bright, share in ((0.22, -0.5), (0.16, 0.5)):
        below = np.clip((FEMUR[:, 1:] + 0.75) / 0.4, 0, 1)
        drawn.bone((jittered(FEMUR, rng, 0.005) + below * apart * share) * slim, bright)
    drawn.bone(turn((jittered(TIBIA, rng, 0.006) + np.array([0, gap])) * slim, bend, hinge))
    fibula = along(FIBULA + np.array([0, rng.uniform(0.2, 0.32)]), [0.05, 0.085, 0.05, 0.045, 0.05])
    drawn.bone(turn(fibula, bend, hinge), rng.uniform(0.12, 0.25))
    if rng.random() < 0.2:
        drawn.bone(disc(-0.42, -0.3, 0.04, 0.03), 0.1)
    if rng.random() < 0.95:
        centre = turn([(0.36 + rng.uniform(0.02, 0.08), -0.42 + rng.normal(0, 0.05))], 0.6 * bend, hinge)
        patella = turn(PATELLA * rng.uniform(0.8, 1.2), 0.65 * bend + rng.normal(0, 5)) * (stout, 1)
        drawn.bone(jittered(patella, rng, 0.005) + centre, rng.uniform(0.18, 0.35))
    return developed(drawn.film, rng)


def axial_knee(shape: tuple[int, int], rng: np.random.Generator, texture: Image | None = None) -> Image:
    """One or both knees along the axis (Merchant, sunrise): the patella's wedge over the groove between two humps."""
    both = rng.random() < 0.5
    unit = shape[1] * rng.uniform(0.28, 0.36) if both else min(shape) * rng.uniform(0.4, 0.95)
    frame = frame_of(shape, rng, unit, rng.normal(0, 6), 0.05 if both else 0.15)
    drawn = sheet(shape, rng, frame, texture)
    tissue, deep = rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5)
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
    trochlea = TROCHLEA * (1, rng.uniform(0.8, 1.2))
    if rng.random() < 0.5:
        drawn.flesh(along([(0, 0.3), (0, 0.9), (0, 2.5)], [0.35, 0.4, 0.45]), rng.uniform(0.1, 0.3), 0.2)
    drawn.bone(jittered(trochlea, rng, 0.012), rng.uniform(0.25, 0.4))
    wedge = WEDGES[int(rng.integers(2))] * rng.uniform(0.85, 1.1)
    drawn.bone(turn(jittered(wedge, rng, 0.01), tilt) + np.array([shift, -lift]), rng.uniform(0.25, 0.4))


def joint_row(crop: Image) -> int:
    """About where the joint gap lies: the darkest row beside the middle."""
    side = len(crop)
    first, last = int(side * 0.48), int(side * 0.68)
    rows = np.r_[slice(int(side * 0.2), int(side * 0.38)), slice(int(side * 0.58), int(side * 0.76))]
    return first + int(np.argmin(cv2.blur(crop[first:last][:, rows].mean(axis=1)[:, None], (1, 3))))


def _fit(part: Image, side: int, rows: int | None = None) -> Image:
    """A part drawn out to `rows` (or as many as columns) and `side` columns."""
    resized = cv2.resize(np.ascontiguousarray(part), (side, rows or side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


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
    """The tibia over the femur."""
    return np.roll(crop, -joint_row(crop) - int(len(crop) * rng.uniform(-0.04, 0.04)), axis=0)


def _stretched(crop: Image, rng: np.random.Generator) -> Image:
    """A part of the femur or of the tibia, drawn out more than twice as far one way as the other."""
    side, joint = len(crop), joint_row(crop)
    bone = crop[: int(joint - 0.04 * side)] if rng.random() < 0.5 else crop[int(joint + 0.03 * side) :]
    narrow = max(int(len(bone) * rng.uniform(0.2, 0.45)), 4)
    left = int(rng.integers(side - narrow + 1))
    if rng.random() < 0.5:
        return _fit(bone[: max(int(len(bone) * rng.uniform(0.5, 0.8)), 4)], side)
    return _fit(bone[:, left : left + narrow], side)


def _corner(crop: Image, rng: np.random.Generator) -> Image:
    """A corner as large as the whole."""
    size = int(len(crop) * rng.uniform(0.22, 0.4))
    below = len(crop) - joint_row(crop) - int(0.01 * len(crop))
    size, rows = (size, slice(None, size)) if rng.random() < 0.5 else (min(size, below), slice(-min(size, below), None))
    columns = slice(None, size) if rng.random() < 0.5 else slice(-size, None)
    return _fit(crop[rows, columns], len(crop))


def elsewhere(
    shape: tuple[int, int], rng: np.random.Generator, texture: Image | None = None, part: Part | None = None
) -> Image:
    """Another joint on a film of `shape`: `part`, or any of PARTS (hip, ankle, foot, elbow, hand, ..., chest)."""
    part = part or PARTS[int(rng.integers(len(PARTS)))]
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
            along(np.array([start, start + ahead * whole / 2, start + ahead * (whole + 0.05)]), [0.07, 0.055, 0.04]),
            tissue,
            0.06,
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


BODY = table("-1,-1 0,-0.9 1,-1 0.85,0 1,1 0,0.9 -1,1 -0.85,0")


def _spine(drawn: Sheet, rng: np.random.Generator) -> None:
    half, curve = rng.uniform(0.13, 0.2), rng.uniform(-0.1, 0.1)
    drawn.flesh(along([(0, -3), (0, 0), (0, 3)], [1.2, 0.9, 1.1]), rng.uniform(0.15, 0.4), 0.6)
    for level in range(-5, 6):
        y = level * 1.55 * half
        x = curve * np.cos(2 * y)
        high = half * 0.66
        body = BODY * (half if rng.random() < 0.5 else half * rng.uniform(0.95, 1.05), high)
        drawn.bone(jittered(body, rng, half * 0.03) + np.array([x, y]), 0.3)
        across = np.array([(-1.9 * half, 0.02), (0, -0.01), (1.9 * half, 0.02)]) + np.array([x, y - 0.04])
        drawn.bone(along(across, [0.03, 0.05, 0.03]), 0.12)
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


def _foot(drawn: Sheet, rng: np.random.Generator) -> None:
    """From the side."""
    tissue, toes = rng.uniform(0.1, 0.35), rng.uniform(-5, 15)
    drawn.flesh(
        table("-0.2,-3 -0.22,-0.4 -0.42,0.2 -0.35,0.5 0.4,0.5 1.2,0.5 1.2,0.35 0.5,0.05 0.2,-0.3 0.22,-3"), tissue, 0.2
    )
    drawn.bone(table("-0.12,-3 -0.13,-0.4 -0.2,-0.1 -0.15,0.05 0,0 0.17,0.04 0.2,-0.1 0.12,-0.4 0.1,-3"))
    drawn.bone(table("-0.12,-3 -0.12,-0.4 -0.1,0 -0.06,0.13 0,0 -0.04,-0.4 -0.06,-3"), 0.18)
    drawn.bone(table("-0.2,0.12 -0.1,0.04 0.05,0.03 0.17,0.08 0.3,0.08 0.32,0.2 0.15,0.22 0,0.26 -0.15,0.2"), 0.3)
    drawn.bone(table("-0.42,0.2 -0.3,0.18 -0.1,0.27 0.1,0.2 0.3,0.25 0.3,0.38 0,0.4 -0.3,0.48 -0.42,0.4"), 0.3)
    drawn.bone(table("0.34,0.12 0.45,0.12 0.55,0.18 0.53,0.38 0.35,0.38 0.33,0.25"), 0.28)
    for ray in range(5):
        line = table("0.55,0.24 0.6,0.25 0.8,0.36 0.98,0.44") + rng.normal(0, 0.015, 2) + np.array([0, 0.02 * ray])
        drawn.bone(turn(along(line, [0.05, 0.05, 0.03, 0.05]), -toes * ray / 4, (0.5, 0.3)), 0.13)
        drawn.bone(along(np.array([(1.0, 0.44), (1.08, 0.45), (1.16, 0.46)]), [0.04, 0.025, 0.035]), 0.1)


def _chest(drawn: Sheet, rng: np.random.Generator) -> None:
    drawn.flesh(along([(0, -2), (0, -0.7), (0, -0.4), (0, 2)], [0.15, 0.2, 0.6, 0.65]), rng.uniform(0.3, 0.6), 0.3)
    whole, deep = drawn.frame, rng.uniform(0.25, 0.5)
    for sign in (-1, 1):
        drawn.frame = whole @ np.diag([sign, 1, 1])
        drawn.flesh(table("0.1,-0.45 0.25,-0.5 0.42,-0.2 0.5,0.4 0.3,0.35 0.12,0.4 0.13,0"), -deep, 0.06)
        for rib in range(8):
            y = -0.5 + 0.12 * rib
            path = [(0.05, y), (0.25, y - 0.05), (0.45, y + 0.08), (0.48, y + 0.2), (0.3, y + 0.3)]
            drawn.bone(along(path, [0.02, 0.02, 0.02, 0.02, 0.012]), 0.09)
        drawn.bone(along([(0.03, -0.42), (0.25, -0.5), (0.5, -0.55)], [0.035, 0.022, 0.03]), 0.15)
    drawn.flesh(table("-0.1,-0.3 0.1,-0.3 0.2,0.1 0.32,0.35 0,0.45 -0.15,0.3"), rng.uniform(0.2, 0.4), 0.08)
    drawn.flesh(along([(0, -2), (0, 2)], [0.07, 0.08]), 0.15, 0.05)


PARTS: tuple[Part, ...] = (
    _hip,
    _ankle,
    _foot,
    _elbow,
    _hand,
    _shoulder,
    _spine,
    _pelvis,
    _chest,
)
