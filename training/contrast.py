"""How much the grader's answer depends on a film's contrast: the sweep behind docs/contrast.md.

The public crops were equalised (CLAHE) before they were published. `unequalised` finds, for each, a film that could
have been the original: smooth and dim like a radiograph, and giving the published crop back when it is equalised.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inference.preprocess import PreprocessSpec, equalise, equalise_flat

Image = npt.NDArray[np.floating[Any]]


def unequalised(published: Image, rounds: int = 25) -> Image:
    """A look-alike of the film before equalisation, by fixed-point iteration on CLAHE(x) = published.

    The start is a bright limb on a dark ground with a quarter of the crop's detail on it; each round adds a tenth of
    what the equalised look-alike still lacks and pulls slow trends back to the limb. Float (H, W) in 0..1.
    """
    across = np.linspace(-1, 1, published.shape[1], dtype=np.float32)[None]
    down = np.linspace(-1, 1, published.shape[0], dtype=np.float32)[:, None]
    limb = 0.15 + 0.55 * np.exp(-((across / 0.75) ** 4)) * (1 - 0.15 * down**2)
    film = np.clip(limb + 0.25 * (published - _blur(published, 14)), 0, 1)
    for _ in range(rounds):
        lack = published - equalise(film, 5)
        film = np.clip(film + 0.1 * lack - 0.02 * (_blur(film, 20) - limb), 0, 1)
    return np.asarray(film, np.float32)


def changes() -> dict[str, Callable[[Image], Image]]:
    """Name to change of a crop; all on float (H, W) in 0..1."""
    table: dict[str, Callable[[Image], Image]] = {
        "as published": lambda x: x,
        "before equalisation (look-alike)": unequalised,
    }
    table["look-alike, equalised again (clip 5)"] = lambda x: equalise(unequalised(x), 5)
    for clip in (2.0, 4.0):
        table[f"equalised once more (clip {clip:g})"] = lambda x, c=clip: equalise(x, c)  # type: ignore[misc]
    table["histogram equalised"] = lambda x: np.asarray(cv2.equalizeHist((x * 255).astype(np.uint8)), np.float32) / 255
    for gamma in (0.5, 0.7, 1.4, 2.0):
        table[f"gamma {gamma:g}"] = lambda x, g=gamma: np.asarray(x**g, np.float32)  # type: ignore[misc]
    table["contrast x 0.3"] = lambda x: 0.35 + 0.3 * x
    table["window too narrow (central 60 %)"] = lambda x: np.clip((x - 0.2) / 0.6, 0, 1)
    table["inverted"] = lambda x: 1 - x
    return table


def change_all(crops: npt.NDArray[np.uint8], change: Callable[[Image], Image]) -> npt.NDArray[np.uint8]:
    """Apply a change to crops uint8 (N, H, W), and what inference does to a film's crop after it."""
    spec = PreprocessSpec()
    changed = [np.asarray(change(np.asarray(crop, np.float32) / 255), np.float32) for crop in crops]
    seen = np.stack([equalise_flat(crop, spec) for crop in changed])
    return np.asarray((np.clip(seen, 0, 1) * 255).round(), np.uint8)


def agreement_with_published(crops: npt.NDArray[np.uint8], every: int = 10) -> float:
    """Mean correlation between a crop and its look-alike after equalisation: how good the look-alikes are."""
    found = []
    for crop in crops[::every]:
        published = np.asarray(crop, np.float32) / 255
        found.append(np.corrcoef(equalise(unequalised(published), 5).ravel(), published.ravel())[0, 1])
    return float(np.mean(found))


def _blur(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
