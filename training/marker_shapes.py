"""What made films with letters need besides fonts: letters of strokes, things that resemble letters, backgrounds."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from training.marker_films import Canvas

Image = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

CAPITAL = 0.75  # of an em: height of letters made of strokes


def letter(character: str, rng: np.random.Generator, em: int) -> tuple[Bytes, float]:
    """R, L, T or J of strokes, on a sheet (3 em, 3 em) with its base line 2 em down; and its advance in pixels."""
    sheet = np.zeros((3 * em, 3 * em), np.uint8)
    high, wide = CAPITAL * em, CAPITAL * em * rng.uniform(0.5, 0.8)
    thick = max(3, round(high * rng.uniform(0.07, 0.22)))
    half = thick / 2

    def line(*points: tuple[float, float]) -> None:
        places = np.array([[em + half + x * (wide - thick), 2 * em - half - y * (high - thick)] for x, y in points])
        cv2.polylines(sheet, [np.round(places * 8).astype(np.int32)], False, 255, thick, cv2.LINE_AA, 3)

    if character == "L":
        line((0, 1), (0, 0), (1, 0))
    elif character == "J":  # the nearest thing to an L in mirror writing
        round_ = rng.uniform(0.25, 0.5)
        ends = [(1 - round_ + round_ * np.cos(a), round_ * (1 - np.sin(a))) for a in np.linspace(0, np.pi / 2, 7)]
        hook = [(round_ * (1 - np.sin(a)), round_ * (1 - np.cos(a))) for a in np.linspace(0, rng.uniform(0.1, 1.5), 5)]
        line((1, 1), *ends, *hook)
    elif character == "T":
        line((0, 1), (1, 1))
        line((0.5, 1), (0.5, 0))
    else:
        middle, corner = rng.uniform(0.4, 0.55), rng.uniform(0.05, 0.3)
        arc = [(1 - corner + corner * np.sin(a), 1 - corner + corner * np.cos(a)) for a in np.linspace(0, np.pi / 2, 6)]
        back = [
            (1 - corner + corner * np.cos(a), middle + corner - corner * np.sin(a))
            for a in np.linspace(0, np.pi / 2, 6)
        ]
        line((0, 0), (0, 1), *arc, *back, (0, middle))
        line((rng.uniform(0.2, 0.6), middle), (1, 0))
    return sheet, wide + 0.22 * high


def background(knees: npt.NDArray[np.uint8], shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """A film (rows, columns) without letters: pieces of knees (N, S, S) at any size, tubes, edges, smooth shading."""
    rows, columns = shape
    film = np.full(shape, rng.uniform(0.0, 0.2), np.float32)
    film += rng.uniform(0, 0.25) * (_field(shape, rng, 3) + 1) / 2
    longer = max(shape)
    if len(knees) and rng.random() < 0.75:
        for _ in range(int(rng.integers(1, 4))):
            _knee(film, knees[int(rng.integers(len(knees)))], int(longer * rng.uniform(0.3, 1.0)), rng)
    if rng.random() < 0.4:
        for _ in range(int(rng.integers(1, 4))):
            layer = np.zeros(shape, np.uint8)
            points = (rng.uniform(-0.1, 1.1, (3, 2)) * [columns, rows]).astype(np.int32)
            thick = int(rng.uniform(0.03, 0.3) * longer)
            cv2.polylines(layer, [points], False, 255, max(2, thick))
            film += rng.uniform(0.05, 0.4) * cv2.blur(layer, (max(1, thick // 8) * 2 + 1,) * 2).astype(np.float32) / 255
    if rng.random() < 0.3:  # collimation
        edges = (rng.uniform(0, 0.15, 4) * [rows, rows, columns, columns]).astype(int)
        level = 0.0 if rng.random() < 0.7 else 1.0
        film[: edges[0]], film[rows - edges[1] :] = level, level
        film[:, : edges[2]], film[:, columns - edges[3] :] = level, level
    return film


def _knee(film: Image, crop: Bytes, size: int, rng: np.random.Generator) -> None:
    """Lay one crop onto the film, its border fading or hard, its contrast as published or weaker."""
    rows, columns = film.shape
    size = max(32, size)
    values = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.float32) / 255
    if rng.random() < 0.5:
        values = values[:, ::-1]
    if rng.random() < 0.5:
        coarse = cv2.resize(cv2.resize(values, (12, 12), interpolation=cv2.INTER_AREA), (size, size))
        values = coarse + rng.uniform(0.2, 0.9) * (values - coarse)
    ramp = np.clip(np.minimum(np.arange(size), np.arange(size)[::-1]) / (rng.choice([0.01, 0.15]) * size), 0, 1)
    weight = np.outer(ramp, ramp).astype(np.float32)
    top, left = int(rng.integers(-size // 3, rows - size // 3)), int(rng.integers(-size // 3, columns - size // 3))
    low_y, low_x, high_y, high_x = max(0, top), max(0, left), min(rows, top + size), min(columns, left + size)
    inside = np.s_[low_y - top : high_y - top, low_x - left : high_x - left]
    part = film[low_y:high_y, low_x:high_x]
    part += weight[inside] * (values[inside] * rng.uniform(0.4, 1.0) - part)


def exposed(film: Image, rng: np.random.Generator, unit: float) -> Image:
    """Gamma, blur, contrast and noise."""
    values = np.clip(film, 0, 1)
    if rng.random() < 0.5:
        values = values ** np.float32(np.exp(rng.uniform(-0.5, 0.5)))
    if rng.random() < 0.5:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), rng.uniform(0.4, 1.2) * unit), np.float32)
    if rng.random() < 0.2:
        values = values * np.float32(rng.uniform(0.4, 1.0)) + np.float32(rng.uniform(0, 0.2))
    noise = rng.standard_normal(film.shape, np.float32) * np.float32(rng.uniform(0, 0.025))
    return np.asarray(np.clip(values + noise, 0, 1), np.float32)


def lay_shape(canvas: "Canvas", rng: np.random.Generator, unit: float) -> None:
    """Lay one thing that is no letter onto the film: corner, line, arrow, ring, screw, clip, calcification, cross."""
    size = float(np.exp(rng.uniform(np.log(10), np.log(80)))) * unit
    side = int(size * 1.6) + 4
    shape = np.zeros((side, side), np.uint8)
    thick = max(1, round(size * rng.uniform(0.03, 0.25)))
    _SHAPES[int(rng.integers(len(_SHAPES)))](shape, size, thick, rng)
    place = canvas.room(side, side)
    if place is None:
        return
    here = canvas.pixels[place[0] : place[0] + side, place[1] : place[1] + side]
    mean = float(here.mean())
    level = min(1.0, mean + rng.uniform(0.1, 1.0)) if rng.random() < 0.85 else max(0.0, mean - rng.uniform(0.2, 0.8))
    canvas.lay(shape, place[0], place[1], level)


def _corner(shape: Bytes, size: float, thick: int, rng: np.random.Generator) -> None:
    """Rulers and collimator corners: an L that is too thin, too wide or too narrow for a letter, any way round."""
    high, wide = size, size * rng.uniform(0.4, 0.9)
    chance = rng.random()
    if chance < 0.4:
        thick = max(1, int(0.03 * size))
        wide = size * (rng.uniform(0.3, 1.3) if thick < 0.045 * size else 1.2)
    elif chance < 0.75:
        wide = size * rng.uniform(1.1, 2.0)
    else:
        wide, thick = size * rng.uniform(0.15, 0.27), max(1, int(0.08 * size))
    scale = size / max(high, wide)
    x, y = int(size * 0.3), int(size * 0.3 + high * scale)
    points = np.array([[x, y - int(high * scale)], [x, y], [x + int(wide * scale), y]], np.int32)
    cv2.polylines(shape, [points], False, 255, thick, cv2.LINE_AA)
    if rng.random() < 0.5:
        shape[:] = shape[:, ::-1].copy()
    if rng.random() < 0.3:
        shape[:] = shape[::-1].copy()


def _line(shape: Bytes, size: float, thick: int, rng: np.random.Generator) -> None:
    angle = rng.uniform(0, np.pi)
    middle, reach = shape.shape[0] / 2, size / 2
    ends = [(int(middle + s * reach * np.cos(angle)), int(middle + s * reach * np.sin(angle))) for s in (-1, 1)]
    if rng.random() < 0.5:
        cv2.line(shape, ends[0], ends[1], 255, thick, cv2.LINE_AA)
    else:
        cv2.arrowedLine(shape, ends[0], ends[1], 255, thick, cv2.LINE_AA, tipLength=rng.uniform(0.15, 0.5))


def _ring(shape: Bytes, size: float, thick: int, rng: np.random.Generator) -> None:
    middle = shape.shape[0] // 2
    axes = (max(2, int(size / 2)), max(2, int(size / 2 * rng.uniform(0.5, 1))))
    first = float(rng.uniform(0, 360))
    last = first + (360 if rng.random() < 0.5 else float(rng.uniform(60, 300)))
    filled = -1 if rng.random() < 0.4 else thick
    cv2.ellipse(shape, (middle, middle), axes, float(rng.uniform(0, 180)), first, last, 255, filled, cv2.LINE_AA)


def _screw(shape: Bytes, size: float, thick: int, rng: np.random.Generator) -> None:
    middle, teeth = shape.shape[0] / 2, int(rng.integers(5, 12))
    along = np.linspace(-0.5, 0.5, teeth * 2) * size
    across = np.where(np.arange(teeth * 2) % 2, 1, -1) * size * rng.uniform(0.04, 0.12)
    angle = rng.uniform(0, np.pi)
    x, y = along * np.cos(angle) - across * np.sin(angle), along * np.sin(angle) + across * np.cos(angle)
    points = np.round(np.stack([x, y], axis=1) + middle).astype(np.int32)
    cv2.polylines(shape, [points], False, 255, max(1, thick // 2), cv2.LINE_AA)
    cv2.line(shape, tuple(int(v) for v in points[0]), tuple(int(v) for v in points[-1]), 255, thick, cv2.LINE_AA)


def _lump(shape: Bytes, size: float, thick: int, rng: np.random.Generator) -> None:
    """Calcifications, fabellae and splinters: a closed shape with an uneven outline, sometimes hollow."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 12))))
    radii = size / 2 * rng.uniform(0.3, 1.0, len(angles))
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1) + shape.shape[0] / 2
    whole = [np.round(points).astype(np.int32)]
    if rng.random() < 0.6:
        cv2.fillPoly(shape, whole, 255, cv2.LINE_AA)
    else:
        cv2.polylines(shape, whole, True, 255, thick, cv2.LINE_AA)


def _bent(shape: Bytes, size: float, thick: int, rng: np.random.Generator) -> None:
    """Clips, wires and strokes with three to five random corners."""
    points = (rng.uniform(0.15, 0.85, (int(rng.integers(4, 7)), 2)) * shape.shape[0]).astype(np.int32)
    cv2.polylines(shape, [points], bool(rng.random() < 0.2), 255, thick, cv2.LINE_AA)


def _cross(shape: Bytes, size: float, thick: int, rng: np.random.Generator) -> None:
    """Crosses, ladders and scales."""
    low, high = int(0.2 * shape.shape[0]), int(0.8 * shape.shape[0])
    middle = int(rng.uniform(0.4, 0.6) * shape.shape[0])
    cv2.line(shape, (middle, low), (middle, high), 255, thick)
    for row in np.linspace(low + 2, high - 2, int(rng.integers(1, 7))):
        cv2.line(shape, (low, int(row)), (high if rng.random() < 0.7 else middle, int(row)), 255, max(1, thick // 2))
    if rng.random() < 0.5:
        shape[:] = shape.T.copy()


def _field(shape: tuple[int, int], rng: np.random.Generator, cells: int) -> Image:
    """Smooth noise in -1..1 with about `cells` waves across."""
    coarse = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)


_SHAPES = (_corner, _corner, _line, _ring, _screw, _lump, _bent, _cross)
