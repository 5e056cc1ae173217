"""A small network that finds knee joints on a film: where, how large, how tilted, and how each one appears.

It looks at the whole film, shrunk, and then at each knee by itself. `genu-train finder` made it from films put together
from single knees (docs/finder.md); its files are in bundles/finder.
"""

import math
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from inference.bundle_files import described
from inference.errors import BundleError
from inference.findings import Box

Image = npt.NDArray[np.float32]

SHIPPED_FINDER = Path(__file__).parent / "bundles" / "finder"
SIZE = 192  # pixels of the square that the network sees
STRIDE = 8  # pixels of that square per cell of the answer
UNIT = 64.0  # of knee sizes: the network answers with their logarithm
TILT = 3.0  # the network answers with the sine of the tilt times this
CLOSE = 0.62  # of the square that a knee fills when it is looked at by itself
CANDIDATES = 6
_APART = 0.45  # of the larger one: nearer places are one knee
# Channels of the answer.
UPRIGHT, TURNED, OTHER_VIEW, ACROSS, DOWN, EXTENT, SLANT, FIBULA, INVERTED, METAL, CAST = range(11)


@dataclass(frozen=True)
class Sighting:
    """One knee on a film, in source pixels: centre of its crop, the crop's side, and how it appears.

    `score` 0..1 how surely it is an upright frontal knee, the lower of the two looks; `tilt` in degrees; `fibula_right`
    0..1 how surely the fibula lies towards larger columns; `inverted`, `metal` and `cast` 0..1 how surely its bones are
    dark, and how surely there is metal in it or a cast or brace around it.
    """

    x: float
    y: float
    size: float
    score: float
    tilt: float
    fibula_right: float
    inverted: float
    metal: float
    cast: float

    @property
    def box(self) -> Box:
        """The crop."""
        half = self.size / 2
        return Box(self.x - half, self.y - half, self.x + half, self.y + half)


@dataclass(frozen=True)
class Sightings:
    """What is on a film: upright frontal knees, the surest first.

    `turned` and `other_view` 0..1 how surely a knee lies on its side or its head, or is seen from the side or along it.
    """

    knees: tuple[Sighting, ...]
    turned: float
    other_view: float


class FinderNet(nn.Module):
    """(N, 3, SIZE, SIZE) in -1..1 to (N, 11, SIZE / 8, SIZE / 8).

    Channels: logits of an upright and of a turned knee's centre, and of another view anywhere; offset to the centre
    (eighths of the knee's size), log of its size, sine of its tilt; logits of a fibula towards larger columns, of
    inverted grey values, of metal, of a cast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = timm.create_model(
            "mobilenetv2_100", pretrained=False, features_only=True, out_indices=(2, 3), pad_type="same"
        )
        self.up = _convolved(96, 64)
        self.skip = _convolved(32, 64)
        self.ctx = nn.Sequential(*_separable(64, 96), *_separable(96, 96))
        self.out = nn.Conv2d(96, CAST + 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See the class."""
        fine, coarse = self.body(images)
        raised = functional.interpolate(self.up(coarse), scale_factor=2, mode="bilinear", align_corners=False)
        return cast(torch.Tensor, self.out(self.ctx(raised + self.skip(fine))))


def _convolved(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU6())


def _separable(channels: int, out: int) -> list[nn.Module]:
    across = nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False)
    return [across, nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU6()]


@dataclass(frozen=True)
class Thresholds:
    """The score 0..1 from which on a place is a knee, a film turned or of another view, a knee with metal or a cast."""

    knee: float
    turned: float
    other_view: float
    metal: float
    cast: float


@dataclass(frozen=True, eq=False)
class Finder:
    """The loaded network, and from which of its scores on something counts."""

    net: FinderNet
    thresholds: Thresholds
    digest: str

    @classmethod
    def load(cls, folder: Path = SHIPPED_FINDER) -> "Finder":
        """Load and replay the stored probe.

        Raises:
            BundleError: a file is missing or changed, or the probe is answered differently.
        """
        values = described(folder / "finder.json", "the knee finder")
        try:
            tensors = load_file(folder / "weights.safetensors")
            probe = load_file(folder / "probe.safetensors")
            net = FinderNet()
            net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
            finder = cls(
                net.eval().requires_grad_(False),
                Thresholds(**{name: float(value) for name, value in values["thresholds"].items()}),
                str(values["digest"]),
            )
            difference = float((finder._answer(probe["squares"]) - probe["answers"]).abs().max())
        except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the knee finder in {folder} cannot be used ({error}): install it again.") from error
        if not difference <= float(values["tolerance"]):
            raise BundleError(
                f"the knee finder in {folder} does not replay its probe: its answers differ by {difference:.4f}. Do "
                "not use it here; check the versions of torch and timm."
            )
        return finder

    def look(self, film: Image) -> Sightings:
        """What is on a film (rows, columns) of display values 0..1: every place that may be a knee, sure or not."""
        rows, columns = film.shape
        scale = SIZE / max(rows, columns)
        answer = self._answer(torch.from_numpy(prepared(squared(film)))[None])[0].numpy()
        rough = _peaks(answer)
        knees = [self._closer(film, _scaled(place, 1 / scale)) for place in rough]
        kept = _apart(sorted((knee for knee in knees if knee is not None), key=lambda knee: -knee.score))
        turned, other_view = (float(_sigmoid(answer[channel]).max()) for channel in (TURNED, OTHER_VIEW))
        return Sightings(tuple(kept), turned, other_view)

    def _closer(self, film: Image, rough: Sighting) -> Sighting | None:
        """Look at one place again, as it is and mirrored, at the same scale for every knee; None if it is none."""
        window = rough.size / CLOSE
        square = _cut(film, rough.x, rough.y, window)
        pair = torch.from_numpy(np.stack([prepared(square), prepared(np.ascontiguousarray(square[:, ::-1]))]))
        plain, mirrored = self._answer(pair).numpy()
        found = [_nearest(plain), _mirrored(_nearest(mirrored))]
        seen = [place for place in found if place is not None]
        if not seen:
            return None
        both, scale = _mean(seen), window / SIZE
        return replace(
            both,
            x=rough.x + (both.x - SIZE / 2) * scale,
            y=rough.y + (both.y - SIZE / 2) * scale,
            size=both.size * scale,
            # A knee that only one of two looks shows is half a knee.
            score=min(rough.score, both.score * len(seen) / len(found)),
        )

    def _answer(self, squares: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return cast(torch.Tensor, self.net(squares.float())).float()


def squared(film: Image) -> Image:
    """The film, shrunk so that its longer side is SIZE, in the upper left corner of a dark square."""
    rows, columns = film.shape
    scale = SIZE / max(rows, columns)
    shape = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square = np.zeros((SIZE, SIZE), np.float32)
    square[: shape[1], : shape[0]] = cv2.resize(film, shape, interpolation=method)
    return square


def prepared(square: Image) -> Image:
    """A square (SIZE, SIZE) as the network takes it, (3, SIZE, SIZE): stretched, equalised, and locally normalised.

    Three looks at one film, so that neither faint nor equalised films are strange to it.
    """
    low, high = np.percentile(square[::2, ::2], (1, 99.5))
    plain = np.clip((square - low) / max(high - low, 1e-3), 0, 1).astype(np.float32)
    equalised = cv2.createCLAHE(2.0, (6, 6)).apply((plain * 255).astype(np.uint8)).astype(np.float32) / 255
    mean = cv2.GaussianBlur(plain, (0, 0), 9)
    spread = np.sqrt(np.maximum(cv2.GaussianBlur(plain * plain, (0, 0), 9) - mean * mean, 0))
    local = np.clip((plain - mean) / (spread + 0.04) / 3, -1, 1) * 0.5 + 0.5
    return np.asarray((np.stack([plain, equalised, local]) - 0.5) / 0.5, np.float32)


def _cut(film: Image, x: float, y: float, window: float) -> Image:
    """A square of `window` source pixels around a place, as (SIZE, SIZE); dark beyond the film."""
    scale = SIZE / window
    source = film
    if scale < 0.7:  # warpAffine does not average
        # Films of a few rows or columns keep one.
        down, across = (max(1 / math.floor(1 / scale), 1 / length) for length in film.shape)
        source = np.asarray(cv2.resize(film, None, fx=across, fy=down, interpolation=cv2.INTER_AREA), np.float32)
    across, down = source.shape[1] / film.shape[1], source.shape[0] / film.shape[0]
    shift = SIZE / 2 - 0.5
    matrix = np.array(
        [[scale / across, 0, shift - scale * (x - 0.5)], [0, scale / down, shift - scale * (y - 0.5)]], np.float32
    )
    return np.asarray(cv2.warpAffine(source, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderValue=0), np.float32)


def _peaks(answer: npt.NDArray[np.float32]) -> list[Sighting]:
    """Local maxima of the upright knees, the surest first, in pixels of the square."""
    heat = _sigmoid(answer[UPRIGHT])
    tops = (heat >= cv2.dilate(heat, np.ones((3, 3), np.uint8))) & (heat > 0.05)
    places = sorted(zip(*np.nonzero(tops), strict=True), key=lambda place: -heat[place])[:CANDIDATES]
    return _apart([_place(answer, heat, int(row), int(column)) for row, column in places])


def _nearest(answer: npt.NDArray[np.float32]) -> Sighting | None:
    """The surest knee that lies about in the middle of a square."""
    middle = SIZE / 2
    return next((p for p in _peaks(answer) if max(abs(p.x - middle), abs(p.y - middle)) < 0.35 * SIZE), None)


def _mirrored(place: Sighting | None) -> Sighting | None:
    """A place of the mirrored square, in the square itself."""
    if place is None:
        return None
    return replace(place, x=SIZE - place.x, tilt=-place.tilt, fibula_right=1 - place.fibula_right)


def _mean(places: list[Sighting]) -> Sighting:
    return Sighting(*(sum(values) / len(places) for values in zip(*map(astuple, places), strict=True)))


def _place(answer: npt.NDArray[np.float32], heat: Image, row: int, column: int) -> Sighting:
    values = [float(value) for value in answer[:, row, column]]
    fibula, inverted, metal, cast_ = (float(value) for value in _sigmoid(answer[FIBULA:, row, column]))
    size = UNIT * math.exp(min(max(values[EXTENT], -3.0), 3.0))
    return Sighting(
        x=(column + 0.5) * STRIDE + values[ACROSS] / 8 * size,
        y=(row + 0.5) * STRIDE + values[DOWN] / 8 * size,
        size=size,
        score=float(heat[row, column]),
        tilt=math.degrees(math.asin(min(max(values[SLANT] / TILT, -1.0), 1.0))),
        fibula_right=fibula,
        inverted=inverted,
        metal=metal,
        cast=cast_,
    )


def _apart(places: list[Sighting]) -> list[Sighting]:
    kept: list[Sighting] = []
    for place in places:
        if all(_distance(place, other) > _APART * max(place.size, other.size) for other in kept):
            kept.append(place)
    return kept


def _distance(one: Sighting, other: Sighting) -> float:
    return max(abs(one.x - other.x), abs(one.y - other.y))


def _scaled(place: Sighting, factor: float) -> Sighting:
    return replace(place, x=place.x * factor, y=place.y * factor, size=place.size * factor)


def _sigmoid(values: npt.NDArray[np.float32]) -> Image:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))), np.float32)
