"""Burned-in side letters: R or L of lead or written onto the film, alone or as RT and LT, also in mirror writing.

Places that may be glyphs are found by their contrast, a small network says what each one is, and rules about what
stands beside it decide which letters name a side. `training.markers` made the network (docs/markers.md).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from inference.errors import BundleError
from inference.findings import Side
from inference.sides import Letter

Bytes = npt.NDArray[np.uint8]
Image = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.int32]

SHIPPED_MARKERS = Path(__file__).parent / "bundles" / "markers"
LONGER = 1024  # pixels of the longer side at which letters are looked for
ENLARGED = 2.0  # at most, of smaller films
PATCH = 32  # pixels of the square that the network sees
MARGIN = 1.4  # that square over the longer side of a glyph
SHORTEST, TALLEST = 12, 0.1  # of a letter: pixels at that size, fraction of the film's longer side
CLEAR = 1.0  # contrast over the deviation of what is around a letter; bone has less
CLASSES = ("R", "L", "mirrored R", "mirrored L", "T", "other glyph", "nothing")
RIGHT, LEFT, RIGHT_MIRRORED, LEFT_MIRRORED, TEE, TEXT, NOTHING = range(len(CLASSES))
FLIPPED = [RIGHT_MIRRORED, LEFT_MIRRORED, RIGHT, LEFT, TEE, TEXT, NOTHING]  # what each class is in mirror writing
_STROKE = 25  # pixels: structures wider than this are no strokes
_BRIGHT_LEVELS, _DARK_LEVELS = (12, 26, 56, 110), (60,)
_PAD = 96
_MAYBE = -3.5  # log probability from which on a place is looked at twice
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


class MarkerNet(nn.Module):
    """(N, 2, PATCH, PATCH) to logits (N, 7) of CLASSES."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolved(2, 24, 5, 2), *_convolved(24, 48, 3, 2), *_convolved(48, 64, 3, 1), *_convolved(64, 64, 3, 2)
        )
        self.out = nn.Sequential(nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(), nn.Linear(64, len(CLASSES)))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return cast(torch.Tensor, self.out(self.body(patches)))


def _convolved(channels: int, out: int, size: int, stride: int) -> list[nn.Module]:
    layer = nn.Conv2d(channels, out, size, stride=stride, padding=size // 2, bias=False)
    return [layer, nn.BatchNorm2d(out), nn.ReLU()]


def classified(net: MarkerNet, patches: Image) -> Image:
    """Log probabilities (N, 7) of patches (N, 2, PATCH, PATCH).

    Those that may be side letters are looked at in the mirror too: both looks together say R, or mirrored R.
    """
    with torch.inference_mode():
        images = torch.from_numpy(patches)
        logs = net(images).log_softmax(dim=1)
        maybe = (logs[:, : LEFT_MIRRORED + 1] > _MAYBE).any(dim=1)
        if maybe.any():
            turned = net(images[maybe].flip(-1)).log_softmax(dim=1)[:, FLIPPED]
            logs[maybe] = (logs[maybe] + turned) / 2
        return np.asarray(logs.numpy(), np.float32)


@dataclass(frozen=True, eq=False)
class MarkerReader:
    """The loaded network, with the log-odds from which on a letter counts."""

    net: MarkerNet
    threshold: float
    digest: str

    @classmethod
    def load(cls, folder: Path = SHIPPED_MARKERS) -> "MarkerReader":
        """Load, check the hashes and replay the stored probe.

        Raises:
            BundleError: a file is missing or changed, or the probe is answered differently.
        """
        values = _read(folder)
        try:
            tensors, probe = load_file(folder / "weights.safetensors"), load_file(folder / "probe.safetensors")
            net = MarkerNet()
            net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
            net.eval().requires_grad_(False)
            reader = cls(net, float(values["threshold"]), str(values["digest"]))
            answer = np.exp(classified(net, probe["patches"].float().numpy()))
            difference = float(np.abs(answer - probe["probabilities"].numpy()).max())
            tolerance = float(values["probe_tolerance"])
        except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the marker reader in {folder} cannot be used ({error}): install it again.") from error
        if not difference <= tolerance:
            raise BundleError(
                f"the marker reader in {folder} does not replay its probe: probabilities differ by {difference:.4f}, "
                f"{tolerance} is allowed. Do not use it here; check the version of torch."
            )
        return reader

    def read(self, film: Image) -> tuple[Letter, ...]:
        """The side letters on a film (rows, columns) with display values 0..1, bright bone; from left to right."""
        places = find(shrunk(film))
        return letters(places, classified(self.net, places.patches), self.threshold)


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


def log_odds(logs: Image) -> Image:
    """(N, 7) log probabilities to log-odds: how much surer each class is than the surest of the others."""
    best = logs.max(axis=1, keepdims=True)
    second = np.partition(logs, -2, axis=1)[:, -2:-1]
    return np.asarray(logs - np.where(logs == best, second, best), np.float32)


def letters(places: Places, logs: Image, threshold: float) -> tuple[Letter, ...]:
    """The side letters among places, from left to right; `logs` (N, 7) are their log probabilities."""
    rows, columns = places.image.shape
    found = []
    for box, kind in markers(places, logs, threshold):
        left, top, right, bottom = (float(value) for value in box)
        side = Side.RIGHT if kind in (RIGHT, RIGHT_MIRRORED) else Side.LEFT
        across, down = (left + right) / 2 / columns, (top + bottom) / 2 / rows
        found.append(Letter(side, kind in (RIGHT_MIRRORED, LEFT_MIRRORED), across, down, (bottom - top) / rows))
    return tuple(sorted(found, key=lambda letter: letter.across))


def markers(places: Places, logs: Image, threshold: float) -> list[tuple[Boxes, int]]:
    """Boxes and classes of the letters that name a side: surely R or L, and alone on their line or before a T."""
    odds = log_odds(logs)
    kinds = logs.argmax(axis=1)
    sure = odds[np.arange(len(kinds)), kinds]
    found: list[tuple[Boxes, int]] = []
    for place in np.argsort(-sure, kind="stable"):
        kind, box = int(kinds[place]), places.boxes[place]
        if sure[place] < threshold or kind > LEFT_MIRRORED or box[3] - box[1] < SHORTEST:
            continue
        if places.clear[place] < CLEAR:
            continue
        if any(_overlap(box, other[None])[0] > 0.3 for other, _ in found):
            continue
        if _is_a_word(int(place), places, logs, kinds):
            found.append((box, kind))
    return found


def _is_a_word(place: int, places: Places, logs: Image, kinds: npt.NDArray[np.int64]) -> bool:
    """Whether a letter stands alone on its line, or with one T as RT and LT do."""
    boxes, box, kind = places.boxes, places.boxes[place], int(kinds[place])
    overlap = _overlap(box, boxes)
    rival = (overlap > 0.5) & (kinds <= LEFT_MIRRORED) & (kinds != kind)
    if rival.any():
        return False
    text = (logs[:, NOTHING] < np.log(0.6)) | (_width(boxes) > 1.6 * _height(boxes))
    text &= places.bright == places.bright[place]
    beside = np.flatnonzero(text & _beside(box, boxes, 1.5))
    if not len(beside):
        return not _runs_on(box, box, boxes) and not any(_ink(places, place, box, side) for side in (-1, 1))
    mirrored = kind in (RIGHT_MIRRORED, LEFT_MIRRORED)
    tees = [n for n in beside if kinds[n] == TEE and (boxes[n][0] < box[0]) == mirrored]
    if not tees or any(_overlap(boxes[tees[0]], boxes[n][None])[0] < 0.5 for n in beside):
        return False
    tee = boxes[tees[0]]
    if not 0.6 < (tee[3] - tee[1]) / (box[3] - box[1]) < 1.3:
        return False
    further = np.flatnonzero(text & _beside(tee, boxes, 1.5) & (overlap < 0.3))
    if any(_overlap(tee, boxes[n][None])[0] < 0.5 for n in further):
        return False
    both = np.concatenate([np.minimum(box, tee)[:2], np.maximum(box, tee)[2:]])
    outwards = -1 if mirrored else 1
    return not (_runs_on(box, both, boxes) or _ink(places, place, tee, outwards) or _ink(places, place, box, -outwards))


def _beside(box: Boxes, boxes: Boxes, reach: float) -> npt.NDArray[np.bool_]:
    """Which boxes stand on the line of this one, not further away than `reach` of its height, and not around it."""
    height = float(box[3] - box[1])
    heights = _height(boxes)
    shared = np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1])
    gap = np.maximum(boxes[:, 0] - box[2], box[0] - boxes[:, 2])
    on_line = shared > 0.5 * np.minimum(heights, height)
    alike = (heights > 0.35 * height) & (heights < 2.2 * height)
    return np.asarray(
        on_line & alike & (gap > -0.3 * height) & (gap < reach * np.maximum(heights, height)), np.bool_
    ) & (_overlap(box, boxes) < 0.2)


def _runs_on(box: Boxes, word: Boxes, boxes: Boxes) -> bool:
    """Whether letters that touch this one go on beyond the word."""
    left, top, right, bottom = box
    height = bottom - top
    inside = (
        (boxes[:, 0] <= left + 2) & (boxes[:, 1] <= top + 2) & (boxes[:, 2] >= right - 2) & (boxes[:, 3] >= bottom - 2)
    )
    beyond = (boxes[:, 0] < word[0] - 0.35 * height) | (boxes[:, 2] > word[2] + 0.35 * height)
    return bool((inside & beyond & (_height(boxes) < 1.35 * height)).any())


def _ink(places: Places, place: int, box: Boxes, side: int) -> bool:
    """Whether something as bright as the letter stands close to a box on its line, to the left (-1) or right (1).

    What was not found as a glyph may still be one. Rings, frames and bones go on above or beneath the line.
    """
    left, top, right, bottom = (int(value) for value in box)
    height = bottom - top
    low, high = (right + 1, right + height) if side > 0 else (left - height, left - 1)
    slack = max(2, round(0.35 * height))
    window = places.image[max(0, top - slack) : bottom + slack, max(0, low) : max(0, high)]
    if min(window.shape) < 3:
        return False
    middle = float(places.levels[place].mean()) * 255
    over = (window > middle) if places.bright[place] else (window < middle)
    _, _, boxes, _ = cv2.connectedComponentsWithStats(over.astype(np.uint8), connectivity=8)
    rows = window.shape[0]
    within = (boxes[1:, 1] > 0) & (boxes[1:, 1] + boxes[1:, 3] < rows)
    return bool((within & (boxes[1:, 3] > 0.4 * height) & (boxes[1:, 4] > 0.02 * height * height)).any())


def _overlap(box: Boxes, boxes: Boxes) -> npt.NDArray[np.float64]:
    """Intersection over union of one box and N others, (N,)."""
    across = np.clip(np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0]), 0, None)
    down = np.clip(np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1]), 0, None)
    both = (across * down).astype(np.float64)
    union = (box[2] - box[0]) * (box[3] - box[1]) + _width(boxes) * _height(boxes) - both
    return np.asarray(both / np.maximum(union, 1), np.float64)


def _width(boxes: Boxes) -> Boxes:
    return boxes[:, 2] - boxes[:, 0]


def _height(boxes: Boxes) -> Boxes:
    return boxes[:, 3] - boxes[:, 1]


def _read(folder: Path) -> Mapping[str, Any]:
    """markers.json, once the files that it lists are what it says. Raises BundleError."""
    path = folder / "markers.json"
    try:
        raw = path.read_bytes()
        values = json.loads(raw)
        for name in ("weights.safetensors", "probe.safetensors"):
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != values["files"][name]:
                raise BundleError(f"{folder / name} was changed or not fetched whole: install the marker reader again.")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"the marker reader's {path} cannot be read ({error}): install it again.") from error
    return {**values, "digest": hashlib.sha256(raw).hexdigest()}
