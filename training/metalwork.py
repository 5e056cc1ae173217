"""Metal and dressings laid over real crops: joint replacements, screws, plates, nails, wires; casts and braces.

Coordinates are in units of the crop's side, x to the right and y downwards from its upper left corner.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from training.drawings import joint_row
from training.sheets import FIXED, Coordinates, Image, along, blurred, disc, rounded, turn

Layer = Image  # how much of each pixel the metal shades


def with_implant(crop: Image, rng: np.random.Generator) -> Image:
    """A frontal knee crop (S, S) with metal in it, (S, S): the metal is brighter than any bone, even and sharp."""
    side = len(crop)
    layer: Image = np.zeros(crop.shape, np.float32)
    film = crop * np.float32(rng.uniform(0.55, 0.85))
    joint = joint_row(crop) / side
    kind = rng.random()
    if kind < 0.4:
        _replacement(film, layer, joint, rng)
    elif kind < 0.55:
        _one_sided(film, layer, joint, rng)
    for _ in range(int(rng.integers(1, 3)) if kind >= 0.55 else int(rng.random() < 0.1)):
        HARDWARE[int(rng.integers(len(HARDWARE)))](layer, joint, rng)
    layer = blurred(layer, side * rng.uniform(0.0015, 0.004))
    film = film + rng.uniform(0, 0.08) * blurred(layer, side * 0.04)
    if rng.random() < 0.4:
        wide = blurred(layer, side * rng.uniform(0.01, 0.025))
        film = film * (1 - rng.uniform(0.2, 0.6) * wide)
    metal = np.float32(rng.uniform(0.93, 1.08))
    return np.clip(film * (1 - layer) + metal * layer, 0, 1).astype(np.float32)


def _solid(layer: Layer, outline: Coordinates, value: float = 1.0, smooth: bool = True) -> None:
    """Fill a closed outline (N, 2)."""
    points = rounded(outline) if smooth else np.asarray(outline, float)
    fixed = np.round(points * len(layer) * FIXED).astype(np.int32)
    box, corner = _box(fixed, layer, 2)
    drawn = np.zeros(layer[box].shape, np.uint8)
    cv2.fillPoly(drawn, [fixed - corner], 255, cv2.LINE_AA, 4)
    layer[box] = np.maximum(layer[box], drawn * np.float32(value / 255))


def _line(layer: Layer, path: Coordinates, width: float, value: float = 1.0) -> None:
    fixed = np.round(np.asarray(path, float) * len(layer) * FIXED).astype(np.int32)
    thick = max(round(width * len(layer)), 1)
    box, corner = _box(fixed, layer, thick + 2)
    drawn = np.zeros(layer[box].shape, np.uint8)
    cv2.polylines(drawn, [fixed - corner], False, 255, thick, cv2.LINE_AA, 4)
    layer[box] = np.maximum(layer[box], drawn * np.float32(value / 255))


def _box(fixed: npt.NDArray[np.int32], layer: Layer, margin: int) -> tuple[tuple[slice, slice], npt.NDArray[np.int32]]:
    """Which part of the layer these points (N, 2) in sixteenths of a pixel need, and its corner in the same."""
    limits = layer.shape[::-1]
    low = np.clip(fixed.min(axis=0) // FIXED - margin, 0, np.array(limits) - 1)
    high = np.clip(fixed.max(axis=0) // FIXED + margin + 1, low + 1, limits)
    return (slice(low[1], high[1]), slice(low[0], high[0])), (low * FIXED).astype(np.int32)


def _plastic(film: Image, left: float, right: float, top: float, bottom: float) -> None:
    """What is cut away and filled with polyethylene: dark and even."""
    side = len(film)
    box = (slice(int(top * side), int(bottom * side) + 1), slice(int(left * side), int(right * side) + 1))
    gone = np.zeros(film.shape, np.float32)
    gone[box] = 0.9
    gone = blurred(gone, side * 0.006)
    film[:] = film * (1 - gone) + gone * np.float32(np.quantile(film, 0.15))


def _replacement(film: Image, layer: Layer, joint: float, rng: np.random.Generator) -> None:
    """A total knee replacement."""
    x, half, gap = 0.48 + rng.normal(0, 0.015), rng.uniform(0.36, 0.42), rng.uniform(0.03, 0.07)
    tilt, shield = rng.normal(0, 2), rng.choice([1.0, rng.uniform(0.7, 0.95)])
    notch = joint - rng.uniform(0.06, 0.18)
    top = joint - rng.uniform(0.22, 0.36)
    tray, thick = joint + gap, rng.uniform(0.02, 0.04)
    _plastic(film, x - half, x + half, joint - 0.03, tray)
    middle = (x, joint)
    dip, corner, round_ = rng.uniform(-0.03, 0.1), rng.uniform(0.0, 0.12), rng.uniform(0.02, 0.07)
    right = [(0.0, top + dip), (half * rng.uniform(0.3, 0.6), top), (half * 0.9, top + corner), (half, joint - 0.1)]
    right += [(half * 0.93, joint - round_)]
    right += [(half * 0.6, joint), (half * 0.28, joint - 0.03), (half * 0.2, notch + 0.03)]
    outline = [(x + dx, y) for dx, y in right] + [(x, notch)] + [(x - dx, y) for dx, y in right[:0:-1]]
    _solid(layer, turn(outline, tilt, middle), float(shield))
    for sign in (-1, 1):
        runner = [
            (x + sign * half * at, joint + y) for at, y in ((0.97, -0.13), (0.9, -0.035), (0.6, -0.018), (0.3, -0.045))
        ]
        _solid(layer, turn(along(runner, [0.012, 0.022, 0.022, 0.014]), tilt, middle))
    wide = half * rng.uniform(0.88, 1.02)
    slope = rng.normal(0, 1.5)
    plate = [(x - wide, tray), (x + wide, tray), (x + wide * 0.97, tray + thick), (x - wide * 0.97, tray + thick)]
    _solid(layer, turn(plate, slope, middle), smooth=False)
    stem, long = rng.uniform(0.025, 0.055), rng.uniform(0.12, 0.5)
    rod = [(x - stem, tray), (x + stem, tray), (x + stem * 0.7, tray + long), (x - stem * 0.7, tray + long)]
    _solid(layer, turn(rod, slope, middle), smooth=False)
    if rng.random() < 0.6:
        deep = rng.uniform(0.05, 0.14)
        keel = [(x - wide * 0.6, tray), (x + wide * 0.6, tray), (x + stem, tray + deep), (x - stem, tray + deep)]
        _solid(layer, turn(keel, slope, middle), float(rng.uniform(0.6, 1)), smooth=False)
    if rng.random() < 0.2:
        rod = [(x - stem, top + 0.1), (x + stem, top + 0.1), (x + stem * 0.8, -0.1), (x - stem * 0.8, -0.1)]
        _solid(layer, turn(rod, tilt, middle), smooth=False)


def _one_sided(film: Image, layer: Layer, joint: float, rng: np.random.Generator) -> None:
    """A unicompartmental replacement."""
    sign = int(rng.choice([-1, 1]))
    x, half, gap = 0.48 + sign * rng.uniform(0.18, 0.24), rng.uniform(0.08, 0.13), rng.uniform(0.03, 0.06)
    _plastic(film, x - half, x + half, joint - 0.02, joint + gap)
    shell = [
        (x - half, joint - 0.1),
        (x - half * 0.9, joint - 0.03),
        (x, joint),
        (x + half * 0.9, joint - 0.03),
        (x + half, joint - 0.1),
    ]
    _solid(layer, along(shell, [0.01, 0.02, 0.03, 0.02, 0.01]))
    _line(layer, [(x, joint - 0.02), (x, joint - rng.uniform(0.1, 0.18))], 0.025)
    low = joint + gap
    plate = [(x - half * 1.1, low), (x + half * 1.1, low), (x + half * 1.1, low + 0.022), (x - half * 1.1, low + 0.022)]
    _solid(layer, plate, smooth=False)
    if rng.random() < 0.6:
        inner = x - sign * half
        _line(layer, [(inner, low - 0.03), (inner, low)], 0.02)
    if rng.random() < 0.7:
        _line(layer, [(x, low), (x, low + rng.uniform(0.05, 0.12))], rng.uniform(0.02, 0.05))


def _screw(layer: Layer, start: tuple[float, float], degrees: float, long: float, core: float) -> None:
    """A threaded rod with its head at `start`."""
    steps = np.arange(0, long, max(core * 0.8, 0.004))
    thread = np.where(np.arange(len(steps)) % 2 == 0, core, core * 0.65)
    thread[: len(steps) // 3] = core * 0.65
    thread[-1] = core * 0.2
    left, right = np.stack([-thread, steps], axis=1), np.stack([thread, steps], axis=1)[::-1]
    _solid(layer, turn(np.concatenate([left, right]), degrees) + start, smooth=False)
    head = [(-2 * core, -core), (2 * core, -core), (1.7 * core, core), (-1.7 * core, core)]
    _solid(layer, turn(head, degrees) + start, smooth=False)


def _screws(layer: Layer, joint: float, rng: np.random.Generator) -> None:
    below = rng.random() < 0.6
    sign, core = int(rng.choice([-1, 1])), rng.uniform(0.01, 0.022)
    degrees, parallel = rng.normal(90, 15), rng.random() < 0.6
    for number in range(int(rng.integers(1, 5))):
        reach = 0.08 + 0.09 * number + rng.uniform(0, 0.05)
        y = joint + reach if below else joint - reach - 0.05
        angle = sign * degrees if parallel else rng.uniform(0, 360)
        _screw(layer, (0.5 + sign * rng.uniform(0.3, 0.38), y), angle, rng.uniform(0.25, 0.7), core)


def _plate(layer: Layer, joint: float, rng: np.random.Generator) -> None:
    """A plate along one side of tibia or femur, with screws through it or empty holes."""
    sign, half, down = int(rng.choice([-1, 1])), rng.uniform(0.018, 0.035), rng.random() < 0.6
    facing = rng.random() < 0.35
    end = 1.1 if down else -0.1
    start = joint + 0.08 if down else joint - 0.1
    x = 0.5 + sign * (rng.uniform(0.0, 0.15) if facing else 0.37)
    path = np.array([(x, start), (x - sign * 0.05, start + 0.35 * (end - start)), (x - sign * 0.17, end)])
    half *= 1.5 if facing else 1
    _solid(layer, along(path, [half * 1.3, half, half]))
    for part in np.arange(0.08, 1, rng.uniform(0.16, 0.28)):
        at = (float(np.interp(part, [0, 0.35, 1], path[:, 0])), start + part * (end - start))
        if facing:
            hole = np.zeros(layer.shape, np.float32)
            _solid(hole, disc(*at, half * 0.45))
            layer -= np.minimum(layer, hole * np.float32(rng.uniform(0.1, 0.8)))
        elif rng.random() < 0.85:
            _screw(layer, at, sign * (90 + rng.normal(0, 5)), rng.uniform(0.3, 0.65), 0.014)


def _nail(layer: Layer, joint: float, rng: np.random.Generator) -> None:
    x, half, lean = 0.48 + rng.normal(0, 0.03), rng.uniform(0.025, 0.05), rng.normal(0, 0.03)
    down = rng.random() < 0.5
    start, end = (joint + rng.uniform(0.03, 0.12), 1.1) if down else (joint - rng.uniform(0.08, 0.2), -0.1)
    rod = [(x - half, start), (x + half, start), (x + lean + half, end), (x + lean - half, end)]
    _solid(layer, rod, float(rng.uniform(0.85, 1)), smooth=False)
    for _ in range(int(rng.integers(0, 4))):
        sign = int(rng.choice([-1, 1]))
        y = start + rng.uniform(0.1, 0.7) * (end - start)
        _screw(layer, (x + sign * rng.uniform(0.25, 0.35), y), sign * rng.normal(90, 12), rng.uniform(0.4, 0.65), 0.014)


def _staples(layer: Layer, joint: float, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        sign, long, wide = int(rng.choice([-1, 1])), rng.uniform(0.08, 0.2), rng.uniform(0.06, 0.14)
        at = (0.5 + sign * rng.uniform(0.1, 0.38), joint + rng.uniform(-0.3, 0.3))
        shape = turn(
            [(0, -wide / 2), (-long, -wide / 2), (0, -wide / 2), (0, wide / 2), (-long, wide / 2)], rng.normal(0, 15)
        )
        _line(layer, shape * (sign, 1) + at, rng.uniform(0.008, 0.02))


def _wires(layer: Layer, joint: float, rng: np.random.Generator) -> None:
    """Cerclage around a shaft, or the eight and two pins of a tension band over the patella."""
    width = rng.uniform(0.006, 0.014)
    if rng.random() < 0.5:
        for number in range(int(rng.integers(1, 4))):
            y = rng.choice([0.05, joint + 0.2]) + 0.07 * number
            ring = disc(0.48, y, rng.uniform(0.25, 0.33), rng.uniform(0.01, 0.04))
            _line(layer, turn(rounded(np.vstack([ring])), rng.normal(0, 6), (0.48, y)), width)
        return
    x, y, half = 0.48 + rng.normal(0, 0.03), joint - 0.32 + rng.normal(0, 0.04), rng.uniform(0.06, 0.1)
    for sign in (-1, 1):
        _line(layer, [(x + sign * half, y - 0.2), (x + sign * half * 1.1, y + 0.18)], width * 1.3)
    eight = [(x - half, y - 0.16), (x + half, y - 0.16), (x - half, y + 0.14), (x + half, y + 0.14)]
    _line(layer, rounded(eight), width)


def _anchors(layer: Layer, joint: float, rng: np.random.Generator) -> None:
    """Buttons of ligament tunnels, interference screws and suture anchors."""
    for _ in range(int(rng.integers(1, 4))):
        at = (0.48 + rng.uniform(-0.3, 0.3), joint + rng.choice([rng.uniform(-0.45, -0.1), rng.uniform(0.1, 0.35)]))
        half = rng.uniform(0.015, 0.03)
        if rng.random() < 0.5:
            lie = rng.uniform(0, 180)
            _solid(layer, turn(disc(*at, half * 1.8, half * 0.6), lie, at))
        else:
            _screw(layer, at, rng.uniform(-60, 60), half * rng.uniform(3, 6), half)


HARDWARE: tuple[Callable[[Layer, float, np.random.Generator], None], ...] = (
    _screws,
    _plate,
    _nail,
    _staples,
    _wires,
    _anchors,
)


def with_cast(film: Image, rng: np.random.Generator) -> Image:
    """A crop or film (rows, columns) with a cast, a splint or a brace around the leg, of the same shape."""
    if rng.random() < 0.25:
        return _braced(film, rng)
    rows, columns = film.shape
    left, right = _skin(film)
    unit = max(right - left, 0.2 * columns)
    x, down = np.arange(columns, dtype=np.float32)[None], np.arange(rows, dtype=np.float32)[:, None]
    shade = np.zeros(film.shape, np.float32)
    thick = unit * rng.uniform(0.05, 0.14)
    gap, rough = unit * rng.uniform(-0.1, 0.03), rng.uniform(0.05, 0.35)
    sides = [(-1, left), (1, right)]
    if rng.random() < 0.3:
        sides = [sides[int(rng.integers(2))]]
    for sign, edge in sides:
        edge = np.clip(edge, thick + gap, columns - thick - gap)  # noqa: PLW2901 - kept on the film
        wave = _waves(down / unit, rng) * thick * rough
        depth = sign * (x - edge) - gap - wave
        outer = thick * (1 + rough * _waves(down / unit, rng))
        near = np.clip(depth / (0.02 * unit) + 0.5, 0, 1) * np.clip((outer - depth) / (0.03 * unit) + 0.5, 0, 1)
        shade += near * np.float32(rng.uniform(0.15, 0.45))
    inside = np.clip((x - left + thick) / thick, 0, 1) * np.clip((right + thick - x) / thick, 0, 1)
    weave = _weave(film.shape, unit, rng)
    mottle = cv2.resize(rng.normal(size=(9, 9)).astype(np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC)
    over = inside * (rng.uniform(0.05, 0.25) + rng.uniform(0.02, 0.08) * weave + rng.uniform(0.01, 0.06) * mottle)
    faint = np.float32(rng.uniform(0.45, 0.85))
    laid = film * faint + over + shade * (1 + 0.3 * weave + 0.25 * mottle)
    return np.asarray(np.clip(laid, 0, 1), np.float32)


def _skin(film: Image) -> tuple[float, float]:
    """Columns between which the brightest leg lies."""
    profile = cv2.GaussianBlur(cv2.resize(film, (64, 64), interpolation=cv2.INTER_AREA), (0, 0), 2).mean(axis=0)
    peak = int(np.argmax(profile))
    dark = profile < (profile.min() + 0.35 * (profile[peak] - profile.min()))
    before, after = np.flatnonzero(dark[:peak]), np.flatnonzero(dark[peak:])
    left = before[-1] + 1 if before.size else 0
    right = peak + after[0] if after.size else 64
    return float(left * film.shape[1] / 64), float(right * film.shape[1] / 64)


def _waves(at: Image, rng: np.random.Generator) -> Image:
    """A slow wave along the leg, about -1..1."""
    waves = [rng.uniform(0.2, 0.5) * np.sin(rate * at + rng.uniform(0, 6.3)) for rate in rng.uniform(2, 20, 3)]
    return np.asarray(np.sum(waves, axis=0), np.float32)


def _weave(shape: tuple[int, int], unit: float, rng: np.random.Generator) -> Image:
    """A knit of fibreglass, slightly warped, about -1..1."""
    rows, columns = shape
    bend = rng.normal(0, 0.03, (2, 6, 6)).astype(np.float32)
    warp = [cv2.resize(part, (columns, rows), interpolation=cv2.INTER_CUBIC) for part in bend]
    x = np.arange(columns, dtype=np.float32)[None] / np.float32(unit) + warp[0]
    y = np.arange(rows, dtype=np.float32)[:, None] / np.float32(unit) + warp[1]
    fine, angle = rng.uniform(90, 220), rng.uniform(0.4, 1.2)
    knit = np.sin(np.float32(fine * np.cos(angle)) * x + np.float32(fine * np.sin(angle)) * y)
    knit = knit + np.sin(np.float32(fine * np.cos(angle)) * x - np.float32(fine * np.sin(angle)) * y)
    return np.asarray(knit / 2, np.float32)


def _braced(film: Image, rng: np.random.Generator) -> Image:
    """Bars of metal along both sides with hinges at the knee, and straps across."""
    side = min(film.shape)
    left, right = (at / side for at in _skin(film))
    high = film.shape[0] / side
    layer, straps = np.zeros(film.shape, np.float32), np.zeros(film.shape, np.float32)
    hinge, width, ring = high * rng.uniform(0.4, 0.62), rng.uniform(0.015, 0.04), rng.uniform(0.03, 0.06)
    for at in (max(left, 0.03), min(right, film.shape[1] / side - 0.03)):
        x = at + rng.normal(0, 0.02)
        lean = rng.normal(0, 0.04, 2)
        _edge_bar(layer, [(x + lean[0], -0.05), (x, hinge), (x + lean[1], high + 0.05)], width, side)
        cv2.circle(
            layer, (int(x * side), int(hinge * side)), int(ring * side) + 1, float(rng.uniform(0.6, 1)), -1, cv2.LINE_AA
        )
        cv2.circle(layer, (int(x * side), int(hinge * side)), int(ring * side * 0.3) + 1, 0.3, -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 4))):
        y, lean_by = rng.uniform(0, high), rng.normal(0, 0.08)
        path = [(left - 0.05, y - lean_by), (right + 0.05, y + lean_by)]
        _edge_bar(straps, path, rng.uniform(0.05, 0.14), side)
    layer, straps = (blurred(part, side * 0.003) for part in (layer, straps))
    faint = film * np.float32(rng.uniform(0.6, 0.9)) + straps * np.float32(rng.uniform(0.02, 0.12))
    return np.clip(faint * (1 - layer) + layer * np.float32(rng.uniform(0.9, 1)), 0, 1).astype(np.float32)


def _edge_bar(layer: Layer, path: Coordinates, width: float, side: int) -> None:
    fixed = np.round(np.asarray(path, float) * side * FIXED).astype(np.int32)
    cv2.polylines(layer, [fixed], False, 1.0, max(round(width * side), 1), cv2.LINE_AA, 4)
