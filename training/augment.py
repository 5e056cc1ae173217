"""What training does to a batch of crops between `preprocess.crop` and `preprocess.apply`.

Geometry as far as a knee detector may miss (rotation, scale, offset), and contrast as far as hospitals differ: gamma,
illumination fields with little detail on top (films that were never equalised), equalisation once more, inversion,
noise, blur. Sides are canonical by then: `p_flip` swaps medial and lateral, which leaves the grade what it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from inference.preprocess import equalise, gaussian_blur

Change = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges and probabilities; angles in degrees, `scale` and `shift` as fractions of the crop."""

    rotation: float = 8.0
    scale: float = 0.12
    shift: float = 0.06
    gamma: float = 0.5  # exponent is 2**u, u uniform in +-gamma*1.4
    p_unequalise: float = 0.35
    p_equalise: float = 0.2
    p_invert: float = 0.04
    p_noise: float = 0.3
    p_blur: float = 0.25
    p_flip: float = 0.0


def augment(crops: torch.Tensor, config: AugmentConfig, generator: torch.Generator) -> torch.Tensor:
    """(N, 1, H, W) in 0..1 to the same; every random number comes from `generator`."""
    result = _affine(crops, config, generator)
    if config.p_flip:  # no number is drawn without it, so that older runs can be made again
        result = _each(result, config.p_flip, generator, lambda chosen, _: chosen.flip(-1))
    result = _each(result, config.p_equalise, generator, _equalise)
    result = _each(result, config.p_unequalise, generator, unequalise)
    exponent = 2 ** ((_uniform(len(result), generator) * 2 - 1) * config.gamma * 1.4)
    result = result.clamp(0, 1) ** exponent.view(-1, 1, 1, 1)
    result = _each(result, config.p_blur, generator, _soften)
    result = _each(result, config.p_noise, generator, _noise)
    return _each(result, config.p_invert, generator, lambda chosen, _: 1 - chosen).clamp(0, 1)


def unequalise(crops: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Look-alikes of films before equalisation: a smooth bright limb, with the crop's detail faint on top of it.

    The field is a random mixture of the crop's own blur, a bright vertical limb as on real films, and smooth noise;
    the detail keeps 10 to 50 % of its amplitude.
    """
    count, _, rows, columns = crops.shape
    base = functional.avg_pool2d(crops, 4)
    smooth = gaussian_blur(base, 0.07 * columns / 4)
    detail = crops - _upsample(smooth, (rows, columns))

    across = torch.linspace(-1, 1, columns).view(1, 1, 1, -1)
    width = 0.45 + 0.5 * _uniform(count, generator).view(-1, 1, 1, 1)
    limb = torch.exp(-((across / width) ** 2))
    noise = _upsample(torch.rand((count, 1, 5, 5), generator=generator), (rows, columns))
    own = _upsample(smooth, (rows, columns))
    shares = torch.rand((3, count), generator=generator).view(3, -1, 1, 1, 1)
    shares = shares / shares.sum(dim=0)
    level = (0.3 + 0.6 * _uniform(count, generator)).view(-1, 1, 1, 1)
    field = level * (shares[0] * limb + shares[1] * noise + shares[2] * own)
    amplitude = (0.1 + 0.4 * _uniform(count, generator)).view(-1, 1, 1, 1)
    return (field + amplitude * detail).clamp(0, 1)


def _equalise(crops: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    clips = 1 + 4 * _uniform(len(crops), generator)
    done = [equalise(crop[0].numpy(), float(clip)) for crop, clip in zip(crops, clips, strict=True)]
    return torch.from_numpy(np.stack(done))[:, None]


def _affine(crops: torch.Tensor, config: AugmentConfig, generator: torch.Generator) -> torch.Tensor:
    count = len(crops)
    angle, scale, across, down, aspect = torch.rand((5, count), generator=generator) * 2 - 1
    angle = torch.deg2rad(angle * config.rotation)
    zoom = 1 + scale * config.scale
    stretch = 1 + aspect * config.scale / 3
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    first = torch.stack([cosine * stretch, -sine, across * config.shift * 2], dim=1)
    second = torch.stack([sine * stretch, cosine, down * config.shift * 2], dim=1)
    grid = functional.affine_grid(torch.stack([first, second], dim=1), list(crops.shape), align_corners=False)
    return functional.grid_sample(crops, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _soften(crops: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Down and up again, as from a film of lower resolution."""
    factor = 1 + float(torch.rand((), generator=generator))
    rows, columns = crops.shape[-2:]
    small = functional.interpolate(crops, size=(round(rows / factor), round(columns / factor)), mode="area")
    return _upsample(small, (rows, columns))


def _noise(crops: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    amount = 0.04 * _uniform(len(crops), generator).view(-1, 1, 1, 1)
    return crops + amount * torch.randn(crops.shape, generator=generator) * crops.std(dim=(1, 2, 3), keepdim=True) * 4


def _each(crops: torch.Tensor, probability: float, generator: torch.Generator, change: Change) -> torch.Tensor:
    chosen = _uniform(len(crops), generator) < probability
    if not bool(chosen.any()):
        return crops
    result = crops.clone()
    result[chosen] = change(crops[chosen], generator)
    return result


def _uniform(count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator)


def _upsample(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return functional.interpolate(values, size=size, mode="bilinear", align_corners=False)
