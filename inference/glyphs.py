"""Places on a film that may be glyphs: strokes that stand out from what is around them, bright ones and dark ones."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Image = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.int32]

LONGER = 1024  # pixels of the longer side at which letters are looked for
ENLARGED = 2.0  # at most, of smaller films
PATCH = 32  # pixels of the square that the network sees
MARGIN = 1.4  # that square over the longer side of a glyph
TALLEST = 0.1  # of the film's longer side: letters
_STROKE = 25  # pixels: structures wider than this are no strokes
_BRIGHT_LEVELS, _DARK_LEVELS = (12, 26, 56, 110), (60,)
_PAD = 96
_MOST = 240  # places per film that the network looks at


@dataclass(frozen=True, eq=False)
class Places:
    """Where glyphs may be on an `image` (rows, columns), N of them.

    `boxes` (N, 4) are left, top, right, bottom; `bright` (N,) whether brighter than around; `levels` (N, 2) how bright
    it is around them and they are, 0..1; `clear` (N,) how far that is apart, in deviations of what is around.
    `patches` (N, 2, PATCH, PATCH): the picture, 0 as around the glyph and 1 as the glyph, and which pixels are its own.
    """

    image: Bytes
    boxes: Boxes
    bright: npt.NDArray[np.bool_]
    levels: Image
    clear: Image
    patches: Image


def shrunk(film: Image) -> Bytes:
    """The film as bytes, its longer side LONGER pixels; smaller films are enlarged, at most ENLARGED times."""
    rows, columns = film.shape
    scale = min(LONGER / max(rows, columns), ENLARGED)
    shape = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    values = np.nan_to_num(cv2.resize(film, shape, interpolation=method), nan=0.0)
    return np.asarray(np.clip(values, 0, 1) * 255 + 0.5, np.uint8)


def find(image: Bytes, tallest: float | None = None) -> Places:
    """Places on an image (rows, columns) that may be glyphs; `tallest` pixels, or TALLEST of its longer side."""
    limit = max(64.0, TALLEST * max(image.shape)) if tallest is None else tallest
    kernel = np.ones((_STROKE, _STROKE), np.uint8)
    padded = np.asarray(cv2.copyMakeBorder(image, _PAD, _PAD, _PAD, _PAD, cv2.BORDER_REPLICATE), np.uint8)
    boxes: list[tuple[int, int, int, int]] = []
    seen: set[tuple[int, ...]] = set()
    patches: list[tuple[Bytes, Bytes]] = []
    bright: list[bool] = []
    for is_bright, levels in ((True, _BRIGHT_LEVELS), (False, _DARK_LEVELS)):
        hat = cv2.morphologyEx(image, cv2.MORPH_TOPHAT if is_bright else cv2.MORPH_BLACKHAT, kernel)
        for level in reversed(levels):
            over = np.asarray(cv2.threshold(hat, level, 255, cv2.THRESH_BINARY)[1], np.uint8)
            for contour in _outlines(over, limit):
                box = _box(contour)
                if (near := _roughly(box)) in seen:
                    continue
                seen.add(near)
                boxes.append(box)
                bright.append(is_bright)
                patches.append(_cut(padded, over, contour, box))
    return _places(image, boxes, bright, patches)


def _outlines(over: Bytes, limit: float) -> list[npt.NDArray[np.int32]]:
    """The outlines of what is connected and neither too large, too small, too long nor too thin."""
    contours, tree = cv2.findContours(over, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    kept = []
    for contour, (_, _, _, parent) in zip(contours, tree[0] if tree is not None else (), strict=True):
        if parent >= 0 or len(contour) < 12:
            continue
        _, _, width, height = cv2.boundingRect(contour)
        if 5 <= height <= 1.2 * limit and 2 <= width <= 6 * limit and width <= 8 * height:
            kept.append(np.asarray(contour, np.int32))
    return kept


def _box(contour: npt.NDArray[np.int32]) -> tuple[int, int, int, int]:
    left, top, width, height = cv2.boundingRect(contour)
    return left, top, left + width, top + height


def _roughly(box: tuple[int, int, int, int]) -> tuple[int, ...]:
    """Equal for most boxes that differ by a pixel or two: the same glyph at two levels."""
    left, top, right, bottom = box
    return (left + right) // 5, (top + bottom) // 5, (right - left) // 3, (bottom - top) // 3


def _cut(
    padded: Bytes, over: Bytes, contour: npt.NDArray[np.int32], box: tuple[int, int, int, int]
) -> tuple[Bytes, Bytes]:
    """The picture around a glyph, and which of its pixels belong to it, both (PATCH, PATCH)."""
    left, top, right, bottom = box
    half = max(2, round(MARGIN * min(max(right - left, bottom - top), 1.9 * _PAD / MARGIN) / 2))
    x, y = (left + right) // 2, (top + bottom) // 2
    window = padded[y - half + _PAD : y + half + _PAD, x - half + _PAD : x + half + _PAD]
    mask = np.zeros((2 * half, 2 * half), np.uint8)
    cv2.drawContours(mask, [contour], 0, 255, cv2.FILLED, offset=(half - x, half - y))
    rows, columns = over.shape
    low_y, low_x, high_y, high_x = max(0, y - half), max(0, x - half), min(rows, y + half), min(columns, x + half)
    inside = mask[low_y - y + half : high_y - y + half, low_x - x + half : high_x - x + half]
    inside &= over[low_y:high_y, low_x:high_x]
    size = (PATCH, PATCH)
    method = cv2.INTER_AREA if 2 * half > PATCH else cv2.INTER_LINEAR
    picture, there = (cv2.resize(values, size, interpolation=method) for values in (window, mask))
    return np.asarray(picture, np.uint8), np.asarray(there, np.uint8)


def _places(
    image: Bytes, boxes: list[tuple[int, int, int, int]], bright: list[bool], cut: list[tuple[Bytes, Bytes]]
) -> Places:
    """Without those that stand out too little from what is around them, and no more than _MOST."""
    if not boxes:
        none = np.zeros((0, 2), np.float32)
        empty = np.zeros((0, 2, PATCH, PATCH), np.float32)
        return Places(image, np.zeros((0, 4), np.int32), np.zeros(0, np.bool_), none, none[:, 0], empty)
    values = np.asarray(cut, np.float32) / 255
    picture, mask = values[:, 0], values[:, 1]
    near = (mask < 0.02).astype(np.float32)
    weight = np.maximum(mask.sum(axis=(1, 2)), 1e-3)
    glyph = (picture * mask).sum(axis=(1, 2)) / weight
    counted = np.maximum(near.sum(axis=(1, 2)), 1.0)
    around = (picture * near).sum(axis=(1, 2)) / counted
    spread = np.sqrt((((picture - around[:, None, None]) * near) ** 2).sum(axis=(1, 2)) / counted)
    are_bright = np.asarray(bright, np.bool_)
    contrast = np.where(are_bright, glyph - around, around - glyph)
    clear = contrast / (spread + 0.02)
    chosen = np.flatnonzero((contrast > np.where(are_bright, 0.04, 0.15)) & (clear > 0.8))
    chosen = chosen[np.argsort(-clear[chosen], kind="stable")][:_MOST]
    apart = (glyph - around)[chosen, None, None]
    shown = np.clip((picture[chosen] - around[chosen, None, None]) / apart, -1, 2)
    patches = np.stack([shown, mask[chosen]], axis=1).astype(np.float32)
    levels = np.stack([around[chosen], glyph[chosen]], axis=1)
    return Places(image, np.asarray(boxes, np.int32)[chosen], are_bright[chosen], levels, clear[chosen], patches)
