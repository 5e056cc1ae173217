"""One table of image backbones: how each is built, and the shape of its features. New ones are one line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from torch import nn

from inference.errors import BundleError


@dataclass(frozen=True)
class BackboneEntry:
    """How to build one backbone. `features` is the number of channels of its last feature map (N, C, h, w)."""

    build: Callable[[], nn.Module]
    features: int


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False, num_classes=0, **options)


# pad_type "same" because the published weights of this network were trained with TensorFlow's padding.
BACKBONES: dict[str, BackboneEntry] = {
    "mobilenetv2_100": BackboneEntry(_timm("mobilenetv2_100", pad_type="same"), 1280),
    "mobilenetv2_035": BackboneEntry(_timm("mobilenetv2_035", pad_type="same"), 1280),
    "efficientnet_b0": BackboneEntry(_timm("efficientnet_b0"), 1280),
}


class Backbone(nn.Module):
    """A timm network without its head; `forward` gives the last feature map, (N, C, h, w)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise BundleError(f"unknown backbone {name!r}; known are {', '.join(sorted(BACKBONES))}.")
        self.name = name
        self.features = BACKBONES[name].features
        self.body = BACKBONES[name].build()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, C, h, w)."""
        return cast(torch.Tensor, self.body.forward_features(images))  # type: ignore[operator]
