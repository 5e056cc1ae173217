"""Drawn anatomy: no patient, but the geometry rules of a real frontal knee film hold (the fibula lies laterally)."""

import numpy as np
import numpy.typing as npt

from training.schematic import axes, column, ellipse, schematic_knee

Image = npt.NDArray[np.float32]


def knee(side: str = "L", rows: int = 448, columns: int = 336, *, seed: int = 0, narrowing: float = 0.0) -> Image:
    """One frontal knee, values 0..1, bright bone; `narrowing` 0..1 closes the medial joint space.

    As a reader sees it AP: the lateral side of a left knee lies at the right of the image.
    """
    film = schematic_knee(rows, columns, np.random.default_rng(seed), narrowing=narrowing)
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
    x, y = axes(rows, columns)
    femur = column(x + 0.35 * y, y, 0.0, 0.22, -1.2, 0.0) + ellipse(x, y, 0.05, -0.1, 0.33, 0.2)
    tibia = column(x - 0.2 * y, y, 0.0, 0.24, 0.1, 1.2)
    patella = ellipse(x, y, -0.5, -0.25, 0.11, 0.18)
    film = 0.08 + 0.4 * np.clip(femur, 0, 1) + 0.4 * tibia + 0.4 * patella
    return np.clip(film + np.random.default_rng(seed).normal(0, 0.012, film.shape), 0, 1).astype(np.float32)


def chest(rows: int = 400, columns: int = 400, *, seed: int = 0) -> Image:
    """Two dark lungs and a bright middle."""
    x, y = axes(rows, columns)
    lungs = ellipse(x, y, -0.42, -0.05, 0.34, 0.7) + ellipse(x, y, 0.42, -0.05, 0.34, 0.7)
    film = 0.75 - 0.55 * lungs + 0.08 * np.sin(22 * y) * lungs
    return np.clip(film + np.random.default_rng(seed).normal(0, 0.012, film.shape), 0, 1).astype(np.float32)
