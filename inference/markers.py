"""Burned-in side letters: R or L of lead or written onto the film, alone or as RT and LT, also in mirror writing.

Places that may be glyphs are found by their contrast, a small network says what each one is, and rules about what
stands beside it decide which letters name a side. `training.markers` made the network (docs/markers.md).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from inference.bundle_files import described
from inference.errors import BundleError
from inference.findings import Side
from inference.glyphs import Boxes, Bytes, Image, Places, find, shrunk
from inference.sides import Letter

SHIPPED_MARKERS = Path(__file__).parent / "bundles" / "markers"
SHORTEST = 12  # pixels of a letter's height, at the size at which letters are looked for
CLEAR = 1.0  # contrast over the deviation of what is around a letter; bone has less
LINE, LINES = 0.07, 20  # of a letter's height: thinner strokes are lines, if it is at least so many pixels high
CLASSES = ("R", "L", "mirrored R", "mirrored L", "T", "other glyph", "nothing")
RIGHT, LEFT, RIGHT_MIRRORED, LEFT_MIRRORED, TEE, TEXT, NOTHING = range(len(CLASSES))
FLIPPED = [RIGHT_MIRRORED, LEFT_MIRRORED, RIGHT, LEFT, TEE, TEXT, NOTHING]  # what each class is in mirror writing
_MAYBE = -3.5  # log probability from which on a place is looked at twice


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
        values = described(folder / "markers.json", "the marker reader")
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
        if places.clear[place] < CLEAR or (kind in (LEFT, LEFT_MIRRORED) and _is_lines(places, int(place))):
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
    maybe = logs[:, NOTHING] < np.log(0.9)
    text = (logs[:, NOTHING] < np.log(0.6)) | ((_width(boxes) > 1.6 * _height(boxes)) & maybe)
    text &= places.bright == places.bright[place]
    beside = np.flatnonzero(text & _beside(box, boxes, 1.5))
    if not len(beside):
        return not _runs_on(box, box, boxes[maybe]) and not any(_ink(places, place, box, side) for side in (-1, 1))
    mirrored = kind in (RIGHT_MIRRORED, LEFT_MIRRORED)
    tees = [n for n in beside if kinds[n] == TEE and (boxes[n][0] < box[0]) == mirrored]
    if not tees:
        return False
    tee = boxes[max(tees, key=lambda n: float(logs[n, TEE]))]
    height, gap = box[3] - box[1], max(tee[0] - box[2], box[0] - tee[2])
    if not 0.6 < (tee[3] - tee[1]) / height < 1.3 or gap > 0.5 * height:
        return False
    word = np.concatenate([np.minimum(box, tee)[:2], np.maximum(box, tee)[2:]])
    line = boxes[np.flatnonzero(text & (_beside(box, boxes, 1.5) | _beside(tee, boxes, 1.5)))]
    if _beyond(word, line, 0.15 * height).any() or _runs_on(box, word, boxes[maybe]):
        return False
    outwards = -1 if mirrored else 1
    return not (_ink(places, place, tee, outwards) or _ink(places, place, box, -outwards))


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
    return bool((inside & _beyond(word, boxes, 0.35 * height) & (_height(boxes) < 1.35 * height)).any())


def _beyond(word: Boxes, boxes: Boxes, slack: float) -> npt.NDArray[np.bool_]:
    """Which boxes reach further to the left or right than a word."""
    return np.asarray((boxes[:, 0] < word[0] - slack) | (boxes[:, 2] > word[2] + slack), np.bool_)


def _is_lines(places: Places, place: int) -> bool:
    """Whether an L consists of mere lines, as the corners of rulers and fields do."""
    left, top, right, bottom = (int(value) for value in places.boxes[place])
    height, width = bottom - top, right - left
    area = float(_as_bright(places, place, places.image[top:bottom, left:right]).sum())
    return height >= LINES and area < LINE * height * (width + height)


def _as_bright(places: Places, place: int, window: Bytes) -> Bytes:
    """1 where it is nearer to the letter's level than to that of its surroundings."""
    middle = float(places.levels[place].mean()) * 255
    return np.asarray((window > middle) if places.bright[place] else (window < middle), np.uint8)


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
    _, labels, found, _ = cv2.connectedComponentsWithStats(_as_bright(places, place, window), connectivity=8)
    _, y, wide, high, area = np.asarray(found, np.int32)[1:].T
    within = (y > 0) & (y + high < window.shape[0])
    dot = (area > 0.65 * wide * high) & (wide > 0.75 * high) & (high > 0.75 * wide) & (high < 0.7 * height)
    # A ring comes back to the letter above and beneath it.
    inner = np.asarray(labels, np.int32)[:, 0 if side > 0 else -1]
    first, last = top - max(0, top - slack), bottom - max(0, top - slack)
    ring = np.intersect1d(inner[:first], inner[last:])
    within &= ~dot & ~np.isin(np.arange(1, len(found)), ring)
    return bool((within & (high > 0.4 * height) & (area > 0.02 * height * height)).any())


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
