"""Slices of a prepared volume through a frozen backbone: the same lines for training and for what arrives."""

import numpy as np
import numpy.typing as npt
import torch

from inference.backbones import network_input
from inference.frozen import FrozenBackbone

Slices = npt.NDArray[np.float32] | npt.NDArray[np.float16]


def slice_features(backbone: FrozenBackbone, slices: Slices, batch: int = 16) -> npt.NDArray[np.float16]:
    """Pooled vectors of slices.

    Args:
        backbone: in evaluation mode, on its device.
        slices: (S, H, W), 0..1, of `inference.volumes`; rounded to half precision first, as training keeps them.
        batch: slices of one forward.

    Returns:
        float16 (S, D).
    """
    device = next(backbone.trunk.parameters()).device
    grey = torch.from_numpy(np.asarray(slices, np.float16).astype(np.float32))[:, None]
    parts = []
    with torch.inference_mode():
        for start in range(0, len(grey), batch):
            images = network_input(grey[start : start + batch].to(device), backbone.input)
            parts.append(backbone.features(images)["pooled"].cpu())
    return torch.cat(parts).numpy().astype(np.float16)
