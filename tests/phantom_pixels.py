"""Drawn anatomy: no patient, but the geometry rules of a real frontal knee film hold (the fibula lies laterally)."""

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]


def _soft(inside: Image, sharpness: float = 60.0) -> Image:
    """1 where `inside` is positive, 0 where negative, with a soft edge."""
    return (1.0 / (1.0 + np.exp(-np.clip(inside * sharpness, -40, 40)))).astype(np.float32)


def _ellipse(x: Image, y: Image, cx: float, cy: float, rx: float, ry: float) -> Image:
    return _soft((1.0 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2).astype(np.float32), 20.0)


def _column(x: Image, y: Image, centre: float, half: Image | float, top: float, bottom: float) -> Image:
    return _soft((half - np.abs(x - centre)).astype(np.float32)) * _soft(y - top) * _soft(bottom - y)


def knee(side: str = "L", rows: int = 448, columns: int = 336, *, seed: int = 0, narrowing: float = 0.0) -> Image:
    """One frontal knee, values 0..1, bright bone; `narrowing` 0..1 closes the medial joint space.

    As a reader sees it AP: the lateral side of a left knee lies at the right of the image.
    """
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    x, y = x.astype(np.float32), y.astype(np.float32)
    gap = 0.045 - 0.035 * narrowing * _soft(-x, 6.0)
    flare = 0.30 + 0.34 * _soft(y + 0.42, 9.0)
    femur = _column(x, y, 0.0, flare, -1.2, -0.02) * _soft(-gap - y - 0.05 * np.cos(3.5 * x), 50.0)
    notch = _ellipse(x, y, 0.0, -0.05, 0.12, 0.14)
    femur *= 1 - 0.7 * notch
    taper = 0.27 + 0.37 * _soft(0.34 - y, 9.0)
    tibia = _column(x, y, -0.03, taper, 0.02, 1.2) * _soft(y - gap, 50.0)
    spines = _ellipse(x, y, -0.07, 0.02, 0.05, 0.05) + _ellipse(x, y, 0.06, 0.02, 0.05, 0.05)
    fibula = _column(x, y, 0.60, 0.09 + 0.05 * _soft(0.36 - y, 12.0), 0.2, 1.2)
    patella = _ellipse(x, y, 0.03, -0.30, 0.26, 0.20)
    tissue = _soft((0.93 - np.abs(x) - 0.05 * np.cos(2 * y)).astype(np.float32), 25.0)
    film = 0.06 + 0.22 * tissue + 0.42 * femur + 0.42 * tibia + 0.15 * spines + 0.28 * fibula + 0.10 * patella
    noise = np.random.default_rng(seed).normal(0.0, 0.012, film.shape)
    film = np.clip(film + noise, 0.0, 1.0).astype(np.float32)
    return film if side == "L" else np.ascontiguousarray(film[:, ::-1])


def bilateral(rows: int = 448, columns: int = 700, *, seed: int = 0) -> Image:
    """Both knees on one film, each fibula on the outside; seen AP the right knee lies at the left of the image.

    Seen PA, or stored mirrored, the same drawing is right with the names of the knees exchanged.
    """
    half = columns // 2
    at_left = knee("R", rows, half, seed=seed)
    at_right = knee("L", rows, columns - half, seed=seed + 1, narrowing=0.7)
    return np.concatenate([at_left, at_right], axis=1)


def lateral(rows: int = 448, columns: int = 336, *, seed: int = 0) -> Image:
    """A knee from the side: bent, with the patella in front."""
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    x, y = x.astype(np.float32), y.astype(np.float32)
    femur = _column(x + 0.35 * y, y, 0.0, 0.22, -1.2, 0.0) + _ellipse(x, y, 0.05, -0.1, 0.33, 0.2)
    tibia = _column(x - 0.2 * y, y, 0.0, 0.24, 0.1, 1.2)
    patella = _ellipse(x, y, -0.5, -0.25, 0.11, 0.18)
    film = 0.08 + 0.4 * np.clip(femur, 0, 1) + 0.4 * tibia + 0.4 * patella
    return np.clip(film + np.random.default_rng(seed).normal(0, 0.012, film.shape), 0, 1).astype(np.float32)


def chest(rows: int = 400, columns: int = 400, *, seed: int = 0) -> Image:
    """Two dark lungs and a bright middle."""
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    x, y = x.astype(np.float32), y.astype(np.float32)
    lungs = _ellipse(x, y, -0.42, -0.05, 0.34, 0.7) + _ellipse(x, y, 0.42, -0.05, 0.34, 0.7)
    film = 0.75 - 0.55 * lungs + 0.08 * np.sin(22 * y) * lungs
    return np.clip(film + np.random.default_rng(seed).normal(0, 0.012, film.shape), 0, 1).astype(np.float32)
