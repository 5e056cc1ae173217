"""From a displayed film to the network's input: the only copy, used by training and inference alike.

Two steps. `prepare` resamples one knee out of a film, mirrored to the canonical side, and equalises it where it is as
flat as films are. `apply` takes a batch of such crops and returns what the network sees. Between the two steps training
augments; inference does nothing.

Contrast: the public crops were contrast-equalised before they were published, hospital films are not, and a network
trained on the one is not right on the other. Flat crops therefore get the same equalisation, and most of what is left
of the difference is taken out by local normalisation, (x - local mean) / (local deviation + floor), which does not
change under any linear change of contrast and hardly under smooth ones (docs/contrast.md).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from inference.errors import BundleError
from inference.findings import Box, Side

_POOL = 4
_LARGEST = 4096  # pixels


@dataclass(frozen=True)
class PreprocessSpec:
    """All that decides the network's input; travels in bundle.json.

    crop_size: side of the square crop, pixels.
    canonical_side: knees of the other side are mirrored, so that all look like this one.
    flat_below: crops whose `local_contrast` is lower are equalised (CLAHE, 8 x 8 tiles, `equalise_clip`); 0 for never.
    sigma: of the local normalisation's Gaussian, as a fraction of crop_size.
    floor: added to the local deviation, as a fraction of the crop's deviation.
    clip: local deviations beyond which values are cut; the result is divided by it, so it lies in -1..1.
    band: (top, bottom) rows of the crop that are used, as fractions of it.
    size: (rows, columns) of the network's input.
    """

    crop_size: int = 224
    canonical_side: Side = Side.LEFT
    flat_below: float = 0.49
    equalise_clip: float = 5.0
    sigma: float = 0.08
    floor: float = 0.1
    clip: float = 3.0
    band: tuple[float, float] = (0.0, 1.0)
    size: tuple[int, int] = (224, 224)

    def to_json(self) -> dict[str, Any]:
        """Plain values for bundle.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "PreprocessSpec":
        """Rebuild from bundle.json.

        Raises:
            BundleError: a key is unknown or missing, as after a change of this class, or a value cannot be.
        """
        known = set(cls.__dataclass_fields__)
        if set(values) != known:
            raise BundleError(
                f"the preprocessing of the bundle has the keys {sorted(values)}, this version of Genu needs "
                f"{sorted(known)}: export the bundle again with this version."
            )
        try:
            spec = cls(
                **{
                    **values,
                    "canonical_side": Side(values["canonical_side"]),
                    "band": tuple(values["band"]),
                    "size": tuple(values["size"]),
                }
            )
            fits = spec._fits()
        except (TypeError, ValueError) as error:
            raise BundleError(f"the preprocessing {dict(values)} of the bundle cannot be read ({error}).") from error
        if not fits:
            raise BundleError(f"the preprocessing {dict(values)} of the bundle cannot be: export the bundle again.")
        return spec

    def _fits(self) -> bool:
        """Whether every value is a number that its step can work with."""
        lengths, (top, bottom) = (self.crop_size, *self.size), self.band
        return (
            len(self.size) == 2
            and all(type(length) is int and 8 <= length <= _LARGEST for length in lengths)
            and all(0 < value < math.inf for value in (self.sigma, self.floor, self.clip, self.equalise_clip))
            and 0 <= self.flat_below < math.inf
            and 0 <= top < bottom <= 1
        )


def crop(image: npt.NDArray[np.float32], box: Box, size: int, *, mirror: bool) -> npt.NDArray[np.float32]:
    """Resample `box` of an image to a square of `size` pixels, anti-aliased; outside of the image its edge is repeated.

    Args:
        image: (rows, columns), display values 0..1.
        box: in source pixel coordinates; a box that is not square is stretched.
        size: rows and columns of the result.
        mirror: swap left and right afterwards.

    Returns:
        float32 (size, size), 0..1.
    """
    rows, columns = image.shape
    # Whole pixels around the box first, so that the resampling below never copies a large film.
    left, top = int(np.floor(box.left)), int(np.floor(box.top))
    right, bottom = max(int(np.ceil(box.right)), left + 1), max(int(np.ceil(box.bottom)), top + 1)
    inner = image[max(top, 0) : min(bottom, rows), max(left, 0) : min(right, columns)]
    if inner.size == 0:
        return np.zeros((size, size), np.float32)
    pads = (
        (max(-top, 0), max(bottom - rows, 0)),
        (max(-left, 0), max(right - columns, 0)),
    )
    patch = np.pad(inner, pads, mode="edge") if any(map(any, pads)) else inner
    tensor = torch.from_numpy(np.ascontiguousarray(patch, dtype=np.float32))[None, None]
    if tuple(patch.shape) != (size, size):
        tensor = functional.interpolate(tensor, size=(size, size), mode="bilinear", antialias=True)
    result = tensor[0, 0].clamp(0, 1)
    return np.asarray((result.flip(-1) if mirror else result).numpy())


def prepare(image: npt.NDArray[np.float32], box: Box, spec: PreprocessSpec, *, mirror: bool) -> npt.NDArray[np.float32]:
    """`crop`, then `equalise_flat`: a knee of a film as training and inference both start from it."""
    return equalise_flat(crop(image, box, spec.crop_size, mirror=mirror), spec)


def stored(knee: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """A prepared crop on 8 bits: what frozen backbones are shown, in training and serving alike."""
    return np.asarray((knee * 255).round(), np.uint8)


def equalise_flat(knee: npt.NDArray[np.float32], spec: PreprocessSpec) -> npt.NDArray[np.float32]:
    """Equalise a crop (S, S), 0..1, whose local contrast is below `spec.flat_below`; return others as they are."""
    return equalise(knee, spec.equalise_clip) if local_contrast(knee) < spec.flat_below else knee


def local_contrast(knee: npt.NDArray[np.float32]) -> float:
    """Mean local deviation (Gaussian, 6 % of the width) over the deviation of the whole crop; 1 for a constant crop.

    Films before equalisation have about 0.4, equalised ones 0.5 to 0.9: most of a film's contrast lies between limb and
    background, equalisation moves it into the detail.
    """
    values = torch.from_numpy(np.ascontiguousarray(knee, np.float32))[None, None]
    centred = values - values.mean()
    overall = float(centred.square().mean().sqrt())
    if overall < 1e-4:
        return 1.0
    width = 0.06 * knee.shape[1] / _POOL
    mean = gaussian_blur(functional.avg_pool2d(centred, _POOL), width)
    square = gaussian_blur(functional.avg_pool2d(centred * centred, _POOL), width)
    return float((square - mean * mean).clamp_min(0).sqrt().mean()) / overall


def equalise(knee: npt.NDArray[np.floating[Any]], clip: float) -> npt.NDArray[np.float32]:
    """CLAHE with 8 x 8 tiles on 8 bits, as the public crops got it; (S, S), 0..1, stretched to that range first."""
    low, high = np.percentile(knee, [0.05, 99.95])
    stretched = np.clip((knee - low) / max(float(high - low), 1e-6), 0, 1)
    tiles = cv2.createCLAHE(clipLimit=clip, tileGridSize=(8, 8))
    return np.asarray(tiles.apply((stretched * 255).round().astype(np.uint8)), np.float32) / np.float32(255)


def whole(rows: int, columns: int) -> Box:
    """The smallest square box that holds a whole image, centred on it: for films that are crops of one knee already."""
    side = float(max(rows, columns))
    left, top = (columns - side) / 2, (rows - side) / 2
    return Box(left, top, left + side, top + side)


def apply(crops: torch.Tensor, spec: PreprocessSpec) -> torch.Tensor:
    """Crops to network input.

    Args:
        crops: float (N, 1, crop_size, crop_size), display values 0..1, canonical side.
        spec: as stored with the weights.

    Returns:
        float (N, 3, *spec.size), values in -1..1, three equal channels.
    """
    values = local_normalise(crops, sigma=spec.sigma, floor=spec.floor, clip=spec.clip)
    top, bottom = (round(edge * crops.shape[-2]) for edge in spec.band)
    values = values[:, :, top:bottom]
    if tuple(values.shape[-2:]) != tuple(spec.size):
        values = functional.interpolate(values, size=spec.size, mode="bilinear", antialias=True)
    return values.expand(-1, 3, -1, -1)


def local_normalise(crops: torch.Tensor, *, sigma: float, floor: float, clip: float) -> torch.Tensor:
    """(x - local mean) / (local deviation + floor * deviation of the crop), cut at +-clip and divided by it.

    The local moments are Gaussian, taken at a quarter of the resolution: they are smooth by construction.
    `crops` is (N, 1, H, W) with H and W divisible by 4; a constant crop gives zeros up to rounding.
    """
    shape = crops.shape[-2:]
    width = sigma * shape[-1] / _POOL
    # Around the crop's own mean, so that the difference of squares keeps its digits.
    centred = crops - crops.mean(dim=(1, 2, 3), keepdim=True)
    mean = gaussian_blur(functional.avg_pool2d(centred, _POOL), width)
    square = gaussian_blur(functional.avg_pool2d(centred * centred, _POOL), width)
    deviation = (square - mean * mean).clamp_min(0).sqrt()
    overall = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    mean, deviation = (
        functional.interpolate(moment, size=shape, mode="bilinear", align_corners=False) for moment in (mean, deviation)
    )
    return ((centred - mean) / (deviation + floor * overall + 1e-6)).clamp(-clip, clip) / clip


def gaussian_blur(values: torch.Tensor, sigma: float) -> torch.Tensor:
    """Separable Gaussian, sigma in pixels, edges repeated; (N, 1, H, W) to the same."""
    radius = max(1, round(3 * sigma))
    taps = torch.arange(-radius, radius + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-(taps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    values = functional.conv2d(
        functional.pad(values, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1)
    )
    return functional.conv2d(functional.pad(values, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1))
