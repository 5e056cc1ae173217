"""Where the knees are in a film: normalised correlation with the mean training knee, over positions and scales.

The template is the mean of the training crops after local normalisation, made the same for both sides, so that it says
where a knee is and nothing about which one. It travels in the model bundle. One template finds upright frontal knees;
it is no detector for every film (docs/selection.md says what it refuses).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from inference.findings import Box
from inference.preprocess import local_normalise, whole

TEMPLATE_SIZE = 48
_STEPS = 11
_SMALLEST = 0.2  # of the film's larger side; knees on long-leg films are smaller and not looked for
_SQUARE = 1.3  # a film longer than this is no crop of one knee
_MINIMUM = 0.15
_CENTRING = 0.15
_MARGIN = 0.25
_CONVINCING = 0.3
_LOCAL = {"sigma": 0.08, "floor": 0.1, "clip": 3.0}


@dataclass(frozen=True)
class Located:
    """One knee: its square box in source pixels, and how well it matches the mean knee (-1..1)."""

    box: Box
    score: float


def make_template(crops: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Mean knee (TEMPLATE_SIZE, TEMPLATE_SIZE), zero mean and unit norm, from crops uint8 (N, S, S)."""
    total = torch.zeros(TEMPLATE_SIZE, TEMPLATE_SIZE)
    for start in range(0, len(crops), 64):
        images = torch.from_numpy(crops[start : start + 64]).float()[:, None] / 255
        small = functional.interpolate(images, size=(TEMPLATE_SIZE,) * 2, mode="bilinear", antialias=True)
        total += local_normalise(small, **_LOCAL)[:, 0].sum(dim=0)
    total = total + total.flip(-1)
    # A shaft is the same in every row: without the mean of each column only the joint is left to match.
    total -= total.mean(dim=0, keepdim=True)
    total /= total.norm()
    return total


def find(
    image: npt.NDArray[np.float32], template: torch.Tensor, windows: Sequence[tuple[float, float]] = ((0.0, 1.0),)
) -> list[list[Located]]:
    """The two best matches within each window of columns, best first.

    Args:
        image: (rows, columns), display values 0..1.
        template: from `make_template`.
        windows: limits for the knee's centre, as fractions of the film's width, at most one knee being looked for in
            each; the second match is there so that the caller can see whether there is another knee.

    Returns:
        One list per window, of at most two places that do not cover each other; the caller decides which scores do.
    """
    rows, columns = image.shape
    widest = max(right - left for left, right in windows)
    film = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    ladder = [_scores(film, template, size) for size in _sizes(rows, columns, widest)]
    return [_best(ladder, (left * columns, right * columns), rows) for left, right in windows]


def settle(located: Located, image: npt.NDArray[np.float32], template: torch.Tensor) -> Box:
    """The box to score: the whole film where it is a crop of one knee already, else the match.

    A film counts as a crop when it is about square, and matches the template as a whole about as well as anywhere or
    nowhere convincingly.
    """
    rows, columns = image.shape
    if max(rows, columns) > _SQUARE * min(rows, columns):
        return located.box
    if located.score < _CONVINCING:
        return whole(rows, columns)
    film = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    as_whole = _scores(film, template, float(max(rows, columns)))
    middle = [slice(round(0.4 * extent), round(0.6 * extent) + 1) for extent in as_whole.values.shape]
    score = float(as_whole.values[middle[0], middle[1]].max())
    return whole(rows, columns) if score >= max(_MINIMUM, located.score - _MARGIN) else located.box


@dataclass(frozen=True)
class _Scores:
    """Correlation map of one size: values[r, c] is that of a box centred on source (c * across, r * down)."""

    size: float
    values: torch.Tensor
    across: float
    down: float


def _sizes(rows: int, columns: int, share: float) -> list[float]:
    largest = 1.1 * min(max(rows, columns), share * columns * 1.3)
    smallest = min(_SMALLEST * max(rows, columns), largest / 2)
    return [float(size) for size in np.geomspace(smallest, largest, _STEPS)]


def _scores(film: torch.Tensor, template: torch.Tensor, size: float) -> _Scores:
    rows, columns = film.shape[-2:]
    scale = TEMPLATE_SIZE / size
    shape = (max(8, round(rows * scale)), max(8, round(columns * scale)))
    small = functional.interpolate(film, size=shape, mode="bilinear", antialias=True)
    pad = TEMPLATE_SIZE // 2
    values = functional.pad(_normalised(small), (pad, pad, pad, pad))
    return _Scores(size, _correlate(values, template)[0, 0], columns / shape[1], rows / shape[0])


def _best(ladder: Sequence[_Scores], limits: tuple[float, float], rows: int) -> list[Located]:
    peaks: list[tuple[float, Located]] = []
    middle, reach_across = (limits[0] + limits[1]) / 2, (limits[1] - limits[0]) / 2
    for position, scores in enumerate(ladder):
        across = torch.arange(scores.values.shape[1]) * scores.across
        down = torch.arange(scores.values.shape[0]) * scores.down
        # The beam is centred on the joint, so places near the edge of the film need a better match.
        off_centre = ((across - middle) / reach_across)[None] ** 2 + ((down - rows / 2) / (rows / 2))[:, None] ** 2
        values = scores.values - _CENTRING * off_centre
        values[:, (across < limits[0]) | (across > limits[1])] = -1
        for _ in range(2):
            row, column = divmod(int(values.argmax()), values.shape[1])
            merit = float(values[row, column])
            if merit <= 0:
                break
            x, y = column * scores.across, row * scores.down
            peaks.append((merit, _refined(ladder, position, x, y)))
            reach = TEMPLATE_SIZE // 2
            values[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach] = -1
    ranked = [peak for _, peak in sorted(peaks, key=lambda entry: -entry[0])]
    second = [peak for peak in ranked[1:] if _apart(peak.box, ranked[0].box)]
    return ranked[:1] + second[:1]


def _refined(ladder: Sequence[_Scores], position: int, x: float, y: float) -> Located:
    """A parabola through three neighbouring sizes gives the size between them."""
    around = [_near(ladder[i], x, y) if 0 <= i < len(ladder) else None for i in (position - 1, position, position + 1)]
    size, score = ladder[position].size, around[1] or 0.0
    below, above = around[0], around[2]
    if below is not None and above is not None and score > max(below, above):
        offset = 0.5 * (below - above) / (below - 2 * score + above)
        size *= (ladder[1].size / ladder[0].size) ** offset
    return Located(Box(x - size / 2, y - size / 2, x + size / 2, y + size / 2), score)


def _near(scores: _Scores, x: float, y: float) -> float:
    row, column = round(y / scores.down), round(x / scores.across)
    part = scores.values[max(0, row - 3) : row + 4, max(0, column - 3) : column + 4]
    return float(part.max()) if part.numel() else -1.0


def _normalised(small: torch.Tensor) -> torch.Tensor:
    rows, columns = small.shape[-2:]
    fill = (0, -columns % 4, 0, -rows % 4)
    # sigma is a fraction of the knee, not of the film.
    sigma = _LOCAL["sigma"] * TEMPLATE_SIZE / (columns + fill[1])
    padded = functional.pad(small, fill, mode="replicate")
    return local_normalise(padded, sigma=sigma, floor=_LOCAL["floor"], clip=_LOCAL["clip"])[:, :, :rows, :columns]


def _correlate(values: torch.Tensor, template: torch.Tensor) -> torch.Tensor:
    """Zero-mean normalised cross-correlation at every position, by FFT."""
    rows, columns = values.shape[-2:]
    spectrum = torch.fft.rfft2(values, s=(rows, columns))
    kernel = torch.fft.rfft2(template, s=(rows, columns))
    valid = (slice(None), slice(None), slice(0, rows - TEMPLATE_SIZE + 1), slice(0, columns - TEMPLATE_SIZE + 1))
    product: torch.Tensor = torch.fft.irfft2(spectrum * kernel.conj(), s=(rows, columns))[valid]
    count = TEMPLATE_SIZE**2
    mean = _box_sum(values) / count
    # The floor keeps places without any structure from matching by their rounding noise.
    energy = (_box_sum(values * values) / count - mean * mean).clamp_min(0.01) * count
    return product.div(energy.sqrt())


def _box_sum(values: torch.Tensor) -> torch.Tensor:
    """Sums over every TEMPLATE_SIZE square, by cumulative sums."""
    total = functional.pad(values.double().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    size = TEMPLATE_SIZE
    sums = total[..., size:, size:] - total[..., :-size, size:] - total[..., size:, :-size] + total[..., :-size, :-size]
    return sums.float()


def _apart(first: Box, second: Box) -> bool:
    distance = max(abs(first.left + first.right - second.left - second.right) / 2,
                   abs(first.top + first.bottom - second.top - second.bottom) / 2)  # fmt: skip
    return distance > 0.4 * (first.width + second.width)
