"""Where a network on slices looked: Grad-CAM (Selvaraju 2017) of every slice, on the last map of the backbone.

The networks see only the pooled vector of a slice. Its gradient goes back through whatever the backbone does between
map and vector (a mean, a norm), is averaged over the map, and weights its channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from inference.backbones import network_input
from inference.errors import BundleError
from inference.explain import grad_cam, on_crop
from inference.frozen import FrozenBackbone
from inference.members import MemberTrunk
from inference.slice_features import Slices

_BATCH = 16


@dataclass(frozen=True, eq=False)
class ReadSlices:
    """What a backbone sees of S slices: `features` float16 (S, D), as training keeps them; `maps` float32 (S, C, h, w).

    `backbone` is the digest of the one that looked, for whom they can be used again.
    """

    features: npt.NDArray[np.float16]
    maps: torch.Tensor
    backbone: str


def check_has_maps(backbone: FrozenBackbone) -> None:
    """That slices of this backbone can be explained.

    Raises:
        BundleError: it is a transformer: its vector is that of the class token, which no cell of the last map feeds.
    """
    if hasattr(backbone.trunk, "num_prefix_tokens") or backbone.projection is not None:
        raise BundleError(
            f"{backbone.name} is a transformer and gives no map that explains its vector: bundles for knee MRI need a "
            "convolutional backbone (efficientnet_b0, convnext_small, genu_kl)."
        )


def read_slices(backbone: FrozenBackbone, slices: Slices) -> ReadSlices:
    """The forward of `inference.slice_features`, with the maps kept.

    Args:
        backbone: convolutional, in evaluation mode, on its device.
        slices: (S, H, W), 0..1, of `inference.volumes`; rounded to half precision first, as training keeps them.
    """
    trunk = cast(Any, backbone.trunk)
    device = next(backbone.trunk.parameters()).device
    grey = torch.from_numpy(np.asarray(slices, np.float16).astype(np.float32))[:, None]
    vectors, maps = [], []
    with torch.inference_mode():
        for start in range(0, len(grey), _BATCH):
            images = network_input(grey[start : start + _BATCH].to(device), backbone.input)
            last = trunk.forward_features(images)
            vectors.append(trunk.forward_head(last, pre_logits=True).float().cpu())
            maps.append(last.float().cpu())
    features = torch.cat(vectors).numpy().astype(np.float16)
    return ReadSlices(features, torch.cat(maps), backbone.digest)


def slice_maps(
    backbone: FrozenBackbone, seen: ReadSlices, score: Callable[[torch.Tensor], torch.Tensor]
) -> npt.NDArray[np.float32]:
    """Grad-CAM of all slices, float32 (S, h, w), non-negative; 1 is the highest of all, all 0 where nothing speaks.

    Args:
        backbone: that read them.
        seen: what it saw.
        score: the number to be explained, a scalar of slice features (S, D).
    """
    features = torch.from_numpy(seen.features).float().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(score(features), features)
    trunk = cast(Any, backbone.trunk)
    device = next(backbone.trunk.parameters()).device
    found = []
    for start in range(0, len(seen.maps), _BATCH):
        last = seen.maps[start : start + _BATCH].to(device).clone().requires_grad_(True)
        with torch.enable_grad():
            vector = trunk.forward_head(last, pre_logits=True)
            speaks = (vector * gradient[start : start + _BATCH].to(device)).sum()
            (back,) = torch.autograd.grad(speaks, last)
        laid = grad_cam(last.detach(), back.mean(dim=(2, 3)))
        # Networks of a KL bundle see a band of the image.
        found.append((on_crop(laid, trunk.spec) if isinstance(trunk, MemberTrunk) else laid).cpu())
    maps = torch.cat(found)
    peak = float(maps.max())
    return cast(npt.NDArray[np.float32], (maps / peak if peak > 0 else maps).numpy().astype(np.float32))
