"""What a film gets after the patient: exposure and processing, collimation, markers; and drawn bones that are no knee.

Everything is determined by the generator it is given, and works at any size; films are (rows, columns), 0..1.
"""

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]

_WRITINGS = ("R", "L", "RT", "LT", "R AP", "WB", "STANDING", "1")


def exposed(film: Image, rng: np.random.Generator, strength: float = 1.0) -> Image:
    """What exposure, detector and processing do: texture, gamma, gradients, noise, blur, burnt-out or faint films.

    Args:
        film: (rows, columns), 0..1.
        rng: decides everything.
        strength: 0 does nothing; 1 goes to what a reader would send back, 0.4 or so is an ordinary film.
    """
    rows, columns = film.shape
    values = film + strength * rng.uniform(0, 0.06) * smooth_field(film.shape, rng, 6)
    values = values * (1 + strength * rng.uniform(0, 0.3) * smooth_field(film.shape, rng, 2))
    texture = cv2.GaussianBlur(_normal(film.shape, rng), (0, 0), rng.uniform(0.6, 1.5))
    values = np.clip(values + strength * rng.uniform(0, 0.05) * texture * (0.2 + film), 0, None)
    values = values / max(float(values.max()), 1e-6)
    values = values ** np.exp(strength * rng.uniform(-0.7, 0.7))
    if rng.random() < 0.25 * strength:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.5, 1.6))
    if rng.random() < 0.2 * strength:
        values = np.clip((values - rng.uniform(0, 0.15)) * rng.uniform(1.0, 1.7), 0, 1)
    values = values + strength * rng.uniform(0, 0.04) * _normal((rows, columns), rng)
    return np.asarray(np.clip(values, 0, 1), np.float32)


def furnished(film: Image, rng: np.random.Generator, writings: tuple[str, ...] = _WRITINGS) -> Image:
    """Collimation, letters and arrows, wires and rulers, sometimes a bright frame."""
    rows, columns = film.shape
    values = film.copy()
    if rng.random() < 0.3:
        edges = (rng.uniform(0, 0.12, 4) * [rows, rows, columns, columns]).astype(int)
        level = rng.choice([0.0, rng.uniform(0, 0.1), 1.0], p=[0.6, 0.25, 0.15])
        values[: edges[0]], values[rows - edges[1] :] = level, level
        values[:, : edges[2]], values[:, columns - edges[3] :] = level, level
    drawn = np.zeros(film.shape, np.uint8)
    for _ in range(rng.poisson(0.8) if writings else 0):
        place = (int(rng.uniform(0.02, 0.8) * columns), int(rng.uniform(0.08, 0.97) * rows))
        size, bright = rng.uniform(0.25, 0.7) * max(rows, columns) / 192, int(rng.uniform(180, 255))
        thick = max(1, round(float(rng.uniform(1, 2)) * max(rows, columns) / 192))
        cv2.putText(drawn, str(rng.choice(writings)), place, cv2.FONT_HERSHEY_SIMPLEX, size, bright, thick)
    for _ in range(rng.poisson(0.3)):
        first, last = ((int(rng.uniform(0, columns)), int(rng.uniform(0, rows))) for _ in range(2))
        cv2.line(drawn, first, last, int(rng.uniform(80, 255)), int(rng.integers(1, 4)))
    return np.asarray(np.maximum(values, drawn.astype(np.float32) / 255), np.float32)


def other_bones(shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """Drawn tubes, balls and cages, as hands, hips, shoulders and chests have them: bones, and no knee."""
    rows, columns = shape
    film = np.full(shape, rng.uniform(0, 0.3), np.float32)
    kind = rng.integers(4)
    scale = max(rows, columns)
    for _ in range(int(rng.integers(2, 14))):
        layer = np.zeros(shape, np.float32)
        thick = max(2, int(rng.uniform(0.02, 0.16) * scale))
        points = (rng.uniform(-0.1, 1.1, (int(rng.integers(2, 5)), 2)) * [columns, rows]).astype(np.int32)
        first, second = (tuple(int(value) for value in point) for point in points[:2])
        if kind == 0:  # ribs and rings
            axes = (int(rng.uniform(0.1, 0.6) * columns), int(rng.uniform(0.05, 0.4) * rows))
            cv2.ellipse(layer, first, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, max(2, thick // 3))
        elif kind == 1:  # balls: femoral and humeral heads
            cv2.circle(layer, first, thick * 2, 1.0, -1)
            cv2.line(layer, first, second, 1.0, thick)
        else:  # fingers and shafts
            cv2.polylines(layer, [points], False, 1.0, thick)
        film += rng.uniform(0.1, 0.4) * cv2.GaussianBlur(layer, (0, 0), max(0.8, thick * rng.uniform(0.03, 0.2)))
    film += rng.uniform(0, 0.4) * (smooth_field(shape, rng, 3) + 1) / 2
    return np.asarray(np.clip(film / max(1.0, float(film.max())), 0, 1), np.float32)


def smooth_field(shape: tuple[int, ...], rng: np.random.Generator, cells: int) -> Image:
    """Smooth noise in -1..1 with about `cells` waves across."""
    coarse = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    return rng.standard_normal(shape, dtype=np.float32)
