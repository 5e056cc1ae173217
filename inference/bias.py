"""N4 bias field correction (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908), on a shrunk volume, in numpy.

The same method and defaults as SimpleITK's filter, which tests and `make bench` compare it with. On a regular grid the
fit of the B-spline is a product of small matrices along each axis, so an iteration takes milliseconds; the field is
evaluated at full size from its control points, nothing is interpolated.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Volume = npt.NDArray[np.float32]
Field = npt.NDArray[np.float64]

_BINS = 200
_PADDED = 512
_FWHM = 0.15  # of the bias field's Gaussian, in log intensity
_NOISE = 0.01  # of the Wiener filter
_FIRST_SPANS = 1
_ORDER = 3


@dataclass(frozen=True)
class BiasSpec:
    """How the field is estimated.

    shrink: every axis is shrunk by it at most, as far as `fewest` rows and columns and `fewest_slices` are left: with
        fewer samples the field strays from that of the full size (docs/mri-preprocessing.md).
    iterations: at most, at each level; the mesh is twice as fine at every next one.
    threshold: a level ends when the field changes by less (coefficient of variation of the ratio).
    """

    shrink: int = 4
    fewest: int = 128
    fewest_slices: int = 8
    iterations: tuple[int, ...] = (50, 50, 50, 50)
    threshold: float = 0.001


def correct_bias(volume: Volume, spec: BiasSpec, mask: npt.NDArray[np.bool_] | None = None) -> Volume:
    """The volume (S, R, C) divided by its bias field, float32.

    `mask` says where the field is estimated; default: above Otsu's threshold. A volume without contrast, and values
    that are not positive, stay as they are.
    """
    field = estimate(volume, spec, mask)
    return volume if field is None else field.divide(volume)


@dataclass(frozen=True, eq=False)
class BiasField:
    """Log bias as a sum of cubic B-splines: one lattice (a, b, c) a level over the grid `shape`."""

    lattices: tuple[Field, ...]
    shape: tuple[int, int, int]

    def divide(self, volume: Volume) -> Volume:
        """The volume over the field, float32, one slice at a time: no second volume of doubles is made."""
        bases = [
            [
                _basis(np.arange(size), size, points - _ORDER)
                for size, points in zip(self.shape, lattice.shape, strict=True)
            ]
            for lattice in self.lattices
        ]
        result = np.empty(self.shape, np.float32)
        for index in range(self.shape[0]):
            log = np.zeros(self.shape[1:])
            for lattice, (along, down, across) in zip(self.lattices, bases, strict=True):
                log += down @ np.tensordot(along[index], lattice, axes=1) @ across.T
            result[index] = volume[index] * np.exp(-log).astype(np.float32)
        return result


def estimate(volume: Volume, spec: BiasSpec, mask: npt.NDArray[np.bool_] | None = None) -> BiasField | None:
    """The bias field of (S, R, C); None where there is no contrast to estimate it from."""
    least = (spec.fewest_slices, spec.fewest, spec.fewest)
    factors = [max(1, min(spec.shrink, size // few)) for size, few in zip(volume.shape, least, strict=True)]
    picked = tuple(slice((factor - 1) // 2, None, factor) for factor in factors)
    small = volume[picked].astype(np.float64)
    inside = (small > otsu(volume) if mask is None else mask[picked]) & (small > 0)
    if int(inside.sum()) < _BINS:
        return None
    log = np.log(small[inside])
    if float(np.ptp(log)) < 1e-6:
        return None
    places = [np.arange(size)[one] for size, one in zip(volume.shape, picked, strict=True)]
    return _fit(log, inside, places, volume.shape, spec)


def _fit(
    log: Field,
    inside: npt.NDArray[np.bool_],
    places: list[npt.NDArray[np.int_]],
    shape: tuple[int, ...],
    spec: BiasSpec,
) -> BiasField:
    """N4's loop: sharpen the histogram, fit the difference, subtract; then the same on a finer mesh."""
    lattices: list[Field] = []
    total = np.zeros_like(log)
    spans = _FIRST_SPANS
    for iterations in spec.iterations:
        fitter = _Fitter(inside, [_basis(at, size, spans) for at, size in zip(places, shape, strict=True)])
        lattice = np.zeros(fitter.points)
        for _ in range(iterations):
            residual = (log - total) - _sharpened(log - total)
            update = fitter.lattice(residual)
            lattice += update
            change = fitter.values(update)
            total += change
            ratio = np.exp(-change)
            if float(ratio.std() / ratio.mean()) < spec.threshold:
                break
        lattices.append(lattice)
        spans *= 2
    return BiasField(tuple(lattices), (shape[0], shape[1], shape[2]))


class _Fitter:
    """Multilevel B-spline approximation of Lee et al. 1997, one level, for values on the masked points of a grid.

    The weight of a point for a control point is a product over the axes, and so is the sum of squares that it is
    divided by: both sums over all points are products with one small matrix an axis.
    """

    def __init__(self, inside: npt.NDArray[np.bool_], bases: list[Field]) -> None:
        self._inside, self._bases = inside, bases
        self._cubed = [basis**3 / (basis**2).sum(axis=1, keepdims=True) for basis in bases]
        weights = _contract(inside.astype(np.float64), [basis**2 for basis in bases])
        self._weights = np.where(weights > 0, weights, 1.0)
        self._grid = np.zeros(inside.shape)
        self.points = weights.shape

    def lattice(self, values: Field) -> Field:
        """Control points fitted to `values` of the masked points."""
        self._grid[self._inside] = values
        return _contract(self._grid, self._cubed) / self._weights

    def values(self, lattice: Field) -> Field:
        """The spline at the masked points."""
        field = _contract(lattice, [basis.T for basis in self._bases])
        result: Field = field[self._inside]
        return result


def _contract(grid: Field, matrices: list[Field]) -> Field:
    """Sums over each axis of `grid`, weighted by the rows of one matrix (size of the axis, new size) an axis."""
    for matrix in reversed(matrices):
        # The last axis is summed over and its result becomes the first: after three turns all are in place.
        grid = np.moveaxis(grid @ matrix, -1, 0)
    return np.ascontiguousarray(grid)


def _basis(at: npt.NDArray[np.int_], size: int, spans: int) -> Field:
    """Cubic B-splines (len(at), spans + 3) at voxels of an axis of `size`, uniform knots over its whole length."""
    place = at / max(size - 1, 1) * spans
    first = np.minimum(np.floor(place).astype(int), spans - 1)
    t = place - first
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    result = np.zeros((len(at), spans + _ORDER))
    for offset, part in enumerate(parts):
        result[np.arange(len(at)), first + offset] = part / 6
    return result


def _sharpened(log: Field) -> Field:
    """Log intensities with the blur of the bias field taken out of their histogram (Sled et al. 1998, N3)."""
    low, high = float(log.min()), float(log.max())
    slope = (high - low) / (_BINS - 1)
    if slope <= 0:
        return log
    place = (log - low) / slope
    bins = np.minimum(place.astype(int), _BINS - 2)
    part = place - bins
    counts = np.bincount(bins, 1 - part, _BINS) + np.bincount(bins + 1, part, _BINS)
    offset = (_PADDED - _BINS) // 2
    padded = np.zeros(_PADDED)
    padded[offset : offset + _BINS] = counts
    width = _FWHM / slope
    distance = np.minimum(np.arange(_PADDED), _PADDED - np.arange(_PADDED))
    blur = np.fft.fft(2 * math.sqrt(math.log(2) / math.pi) / width * np.exp(-4 * math.log(2) * (distance / width) ** 2))
    wiener = (np.conj(blur) / (np.conj(blur) * blur + _NOISE)).real
    sharp = np.maximum(np.fft.ifft(np.fft.fft(padded) * wiener).real, 0)
    values = low + (np.arange(_PADDED) - offset) * slope
    above = np.fft.ifft(np.fft.fft(values * sharp) * blur).real
    below = np.fft.ifft(np.fft.fft(sharp) * blur).real
    expected = np.divide(above, below, out=np.zeros(_PADDED), where=below != 0)
    result: Field = np.interp(place, np.arange(_BINS), expected[offset : offset + _BINS])
    return result


def otsu(volume: npt.NDArray[np.floating]) -> float:
    """Otsu's threshold (1979) of 200 bins between the least and the greatest value."""
    counts, edges = np.histogram(volume, _BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts).astype(np.float64)
    sums = np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[int(np.argmax(np.nan_to_num(between, nan=-1.0))) + 1])
