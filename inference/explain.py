"""Grad-CAM (Selvaraju 2017), from the last feature map, back in source pixel coordinates."""

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from inference.preprocess import PreprocessSpec


def logits_and_maps(
    backbone: nn.Module, head: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One forward of the backbone; returns logits (N, K), its features (N, C, h, w) and d logit[k] / d features pooled.

    The third is (N, K, C): the gradients averaged over space, the weights of Grad-CAM for every class k. Only the head
    is differentiated, so this costs little more than the forward.
    """
    with torch.no_grad():
        features = backbone(images)
    features = features.float().detach().requires_grad_(True)
    with torch.enable_grad():
        logits = head(features)
        weights = [
            torch.autograd.grad(logits[:, k].sum(), features, retain_graph=True)[0].mean(dim=(2, 3))
            for k in range(logits.shape[1])
        ]
    return logits.detach(), features.detach(), torch.stack(weights, dim=1)


def grad_cam(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """ReLU of the weighted sum of the channels.

    Args:
        features: (N, C, h, w).
        weights: (N, C), the gradients of each image's own class.

    Returns:
        (N, h, w), non-negative, not normalised.
    """
    return functional.relu(torch.einsum("nchw,nc->nhw", features, weights))


def on_crop(maps: torch.Tensor, spec: PreprocessSpec) -> torch.Tensor:
    """Maps of the network's input, (N, h, w), laid onto the crop, (N, crop_size, crop_size): zero outside the band."""
    top, bottom = (round(edge * spec.crop_size) for edge in spec.band)
    size = (bottom - top, spec.crop_size)
    large = functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return functional.pad(large, (0, 0, top, spec.crop_size - bottom))


def to_source(values: torch.Tensor, *, mirrored: bool) -> npt.NDArray[np.float32]:
    """One crop's map (S, S) scaled to 0..1 and mirrored back, to be stretched over the knee's box."""
    peak = float(values.max())
    scaled = values / peak if peak > 0 else values
    return cast(npt.NDArray[np.float32], (scaled.flip(-1) if mirrored else scaled).contiguous().numpy())
