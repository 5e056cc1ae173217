"""Letters for made films: from fonts or drawn of strokes, then stretched, slanted, thickened, tilted, turned over."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from inference.markers import FLIPPED, LEFT, RIGHT, TEE, TEXT
from training import marker_shapes

Bytes = npt.NDArray[np.uint8]

HELD_OUT = ("cmss10", "STIXGeneralBol", "DejaVuSansMono-Bold", "opencv-4")  # fonts that only tests draw with
_EM = 64  # pixels in which fonts are drawn before they are shrunk


@dataclass(frozen=True)
class Style:
    """How the glyphs of one label look: font, height of a capital in pixels, width, slant, tilt (degrees), weight."""

    font: str
    height: float
    width: float
    slant: float
    tilt: float
    weight: int
    mirrored: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, fonts: Sequence[str], height: float) -> "Style":
        """A label like others."""
        return cls(
            font="strokes" if rng.random() < 0.25 else str(rng.choice(fonts)),
            height=height,
            width=rng.uniform(0.7, 1.12),
            slant=rng.uniform(-0.12, 0.2) if rng.random() < 0.25 else 0.0,
            tilt=rng.uniform(-15, 15) if rng.random() < 0.5 else rng.uniform(-2, 2),
            weight=int(rng.integers(-3, 6)) if rng.random() < 0.4 else 0,
            mirrored=bool(rng.random() < 0.5),
        )


@cache
def fonts(*, held_out: bool = False) -> tuple[str, ...]:
    """Names of fonts: matplotlib's that hold Latin letters, and those of OpenCV; the held-out ones, or the others."""
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    unlike = ("cmex", "cmsy", "cmmi", "STIXNonUni", "STIXSiz", "LastResort", "Display")
    names = sorted(path.stem for path in folder.glob("*.ttf") if not path.stem.startswith(unlike))
    names = [name for name in names if not name.endswith("Display")] + [
        f"opencv-{number}" for number in (0, 1, 4, 6, 7)
    ]
    return tuple(name for name in names if (name in HELD_OUT) == held_out)


@cache
def drawn(character: str, font: str) -> tuple[Bytes, float]:
    """One character as (3 EM, 3 EM), its base line 2 EM down and its origin 1 EM across; and its advance in pixels."""
    canvas = np.zeros((3 * _EM, 3 * _EM), np.uint8)
    if font.startswith("opencv-"):
        number = int(font.removeprefix("opencv-"))
        thick = 1 if number in (0, 6) else 3
        cv2.putText(canvas, character, (_EM, 2 * _EM), number, _EM / 22, 255, thick)
        (advance, _), _ = cv2.getTextSize(character, number, _EM / 22, thick)
        return canvas, float(advance) * 1.08
    face = _face(font)
    picture = Picture.fromarray(canvas)
    ImageDraw.Draw(picture).text((_EM, 2 * _EM), character, fill=255, font=face, anchor="ls")
    return np.asarray(picture), float(face.getlength(character))


@cache
def _face(font: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf", _EM)


@cache
def _capital(font: str) -> float:
    """Height of a capital in pixels at which fonts are drawn."""
    rows = np.flatnonzero(drawn("H", font)[0].max(axis=1) > 100)
    return float(rows[-1] - rows[0] + 1)


def kind_of(character: str) -> int:
    """Its class in ordinary writing."""
    return {"R": RIGHT, "L": LEFT, "T": TEE}.get(character, TEXT)


def label(text: str, style: Style, rng: np.random.Generator, turn: float = 0.0) -> list[tuple[Bytes, int]]:
    """Each character as a mask (h, w), all of one shape, and its class. `turn` degrees: beyond a tilt, all is text."""
    sheets, at = [], 0.0
    spacing = rng.uniform(0.98, 1.2)
    for character in text:
        if style.font == "strokes" and character in "RLTJ":
            sheet, advance = marker_shapes.letter(character, rng, _EM)
        else:
            font = "DejaVuSans" if style.font == "strokes" else style.font
            sheet, advance = drawn(character, font)
        if style.weight:
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (abs(style.weight) + 1,) * 2)
            thinner = cv2.erode(sheet, kernel) if style.weight < 0 else cv2.dilate(sheet, kernel)
            sheet = np.asarray(thinner, np.uint8) if _pieces(thinner) == _pieces(sheet) else sheet
        sheets.append((sheet, at, character))
        at += advance * spacing
    font = "DejaVuSans" if style.font == "strokes" else style.font
    scale = style.height / (marker_shapes.CAPITAL * _EM if style.font == "strokes" else _capital(font))
    angle = np.deg2rad(style.tilt + turn)
    wide, high = at * scale * style.width + 2 * style.height, 3 * style.height
    reach = int(np.ceil(np.hypot(wide, high))) + 4
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turned @ np.array([[scale * style.width, -style.slant * scale], [0, scale]])
    if style.mirrored:
        linear = np.diag([-1.0, 1.0]) @ linear
    result = []
    for sheet, start, character in sheets:
        centre = np.array([at / 2 - start + _EM, 2 * _EM - 0.5 * style.height / scale])
        matrix = np.hstack([linear, (reach / 2 - linear @ centre)[:, None]])
        mask = _warped(sheet, matrix, reach, scale)
        kind = kind_of(character)
        kind = FLIPPED[kind] if style.mirrored else kind
        result.append((mask, kind if abs(turn) < 1 else TEXT))
    return result


def _pieces(sheet: npt.NDArray[Any]) -> int:
    """How many a glyph consists of: a serif font that is thinned must not fall apart."""
    return int(cv2.connectedComponents((sheet > 128).astype(np.uint8))[0])


def _warped(sheet: Bytes, matrix: npt.NDArray[np.float64], reach: int, scale: float) -> Bytes:
    """warpAffine does not average: draw larger, then shrink."""
    factor = max(1, min(4, int(np.ceil(1 / scale / 1.5))))
    wide = matrix * factor
    wide[:, 2] += (factor - 1) / 2
    large = cv2.warpAffine(sheet, wide, (reach * factor, reach * factor), flags=cv2.INTER_LINEAR)
    small = cv2.resize(large, (reach, reach), interpolation=cv2.INTER_AREA) if factor > 1 else large
    return np.asarray(small, np.uint8)


def trimmed(masks: list[tuple[Bytes, int]]) -> list[tuple[Bytes, int]]:
    """The masks of one line without the empty border that they share."""
    there = np.max([mask for mask, _ in masks], axis=0) > 8
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    if not len(rows):
        return masks
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return [(mask[part], kind) for mask, kind in masks]
