"""Films of made patients: a grade narrows the drawn joint space and grows osteophytes, effusion fills the recess above.

Drawn at half size and enlarged, then grain is put on at full size, so that hundreds are made in seconds. Films are
(rows, columns), 0..1, bright bone, and shown as films are: the patient's right knee at the left.
"""

from dataclasses import replace

import cv2
import numpy as np

from training.drawings import axial_knee, lateral_knee
from training.exposure import exposed
from training.schematic import Image, Schematic, axes, ellipse, schematic_knee
from training.synth_plan import Film, KneeTruth

ROWS, COLUMNS = 448, 350  # of one knee; a film of both has twice the columns
_HALF = (ROWS // 2, COLUMNS // 2)
_EFFUSION = 0.2  # brightness that a full one adds; it lies inside of the crop that models see


def draw_film(film: Film, knees: dict[str, KneeTruth], rng: np.random.Generator) -> Image:
    """The pixels of a film, mirrored and inverted where it is said to be."""
    if film.view == "L":
        pixels = lateral_knee((ROWS, COLUMNS), rng)
    elif film.view == "S":
        pixels = axial_knee((ROWS, COLUMNS), rng)
    else:
        look = replace(Schematic.draw(rng), gap=0.08, patella=0.06, noise=0.0)
        parts = [_knee(side, knees[side], film, look, rng) for side in ("RL" if film.shows == "B" else film.shows)]
        pixels = exposed(np.ascontiguousarray(np.concatenate(parts, axis=1)), rng, 0.25)
    pixels = pixels[:, ::-1] if film.flipped else pixels
    return np.asarray(1 - pixels if film.inverted else pixels, np.float32)


def _knee(side: str, truth: KneeTruth, film: Film, look: Schematic, rng: np.random.Generator) -> Image:
    """One knee, its fibula lateral as the film shows it."""
    narrowing = float(np.clip(truth.kl / 4 + rng.normal(0, 0.04), 0, 1.05))
    drawn = schematic_knee(*_HALF, rng, look, narrowing=narrowing)
    x, y = axes(*_HALF)
    drawn = drawn + _EFFUSION * truth.effusion * ellipse(x, y, 0.0, -0.39, 0.34, 0.12)
    for edge in (-1, 1):  # osteophytes grow at the margins of both compartments
        size = 0.02 + 0.03 * truth.kl
        drawn = drawn + 0.3 * look.bone * (truth.kl > 1) * ellipse(x, y, edge * 0.64, 0.1, size, 0.6 * size)
    if film.arthroplasty in (side, "B", "NL"):
        drawn = np.maximum(drawn, _metal())
    shift = np.array([[1, 0, rng.normal(0, 2)], [0, 1, rng.normal(0, 4)]], np.float32)
    moved = cv2.warpAffine(drawn, shift, _HALF[::-1], borderMode=cv2.BORDER_REPLICATE)
    large = cv2.resize(moved, (COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC)
    grain = rng.standard_normal((ROWS, COLUMNS), dtype=np.float32)
    large = np.clip(large + rng.uniform(0.004, 0.02) * grain, 0, 1)
    return np.asarray(large[:, ::-1] if side == "R" else large, np.float32)


def _metal() -> Image:
    """The two parts of a total knee arthroplasty."""
    x, y = axes(*_HALF)
    femur = ellipse(x, y, 0.0, -0.12, 0.6, 0.14)
    tray = ((np.abs(x) < 0.6) & (np.abs(y - 0.09) < 0.03)) | ((np.abs(x) < 0.08) & (y > 0.09) & (y < 0.4))
    return np.asarray(np.clip(0.97 * np.maximum(femur, tray), 0, 1), np.float32)
