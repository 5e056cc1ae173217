"""One table of image backbones: how each is built, what it wants to see, what it gives, and under which terms.

A new one is one entry. Weights come from a local folder (inference.frozen); nothing here speaks to a network.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import timm
import torch
from torch import nn
from torch.nn import functional

from inference.errors import BundleError

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class InputSpec:
    """What one backbone wants to see; travels with everything that was computed from it.

    size: rows and columns of its input, pixels.
    mean, std: of its three equal channels, for values 0..1.
    pad_to_square: images that are not square are padded with black (a centre crop would cut tall knees), not stretched.
    channels: of the input; grey values are repeated.
    """

    size: int = 224
    mean: tuple[float, float, float] = _IMAGENET[0]
    std: tuple[float, float, float] = _IMAGENET[1]
    pad_to_square: bool = False
    channels: int = 3

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "InputSpec":
        """Rebuild.

        Raises:
            BundleError: a key is unknown or missing, as after a change of this class.
        """
        if set(values) != set(cls.__dataclass_fields__):
            raise BundleError(f"the input is described by the keys {sorted(values)}: compute the embeddings again.")
        try:
            return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
        except TypeError as error:
            raise BundleError(f"the input {dict(values)} cannot be read ({error}): export it again.") from error


@dataclass(frozen=True)
class Terms:
    """Of the weights, not of the code. `deployed`: their authors do not exclude use in a running service."""

    licence: str
    deployed: bool
    note: str = ""


@dataclass(frozen=True)
class BackboneEntry:
    """How to build one backbone, and what is known of it.

    build: the network with random weights, at full size.
    features: channels of its last feature map (N, C, h, w), or the width of its vector where `maps` is False.
    family: how its folder of weights is read (inference.frozen).
    architecture: timm's name of the (image) network.
    weights: the repository of its usual weights on the Hugging Face hub; None where there is none.
    input: what it sees, unless its folder says otherwise.
    maps: whether `Backbone` can give a feature map of it.
    """

    build: Callable[[], nn.Module]
    features: int
    family: Literal["timm", "dinov2", "clip", "bundle"]
    architecture: str
    weights: str | None
    terms: Terms
    input: InputSpec = InputSpec()
    maps: bool = True


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False, num_classes=0, **options)


def _of_a_bundle() -> nn.Module:
    raise BundleError("genu_kl is a network of a bundle: load it with inference.members.")


_APACHE = Terms("Apache-2.0", deployed=True)
_RESEARCH = "its model card shares it for research only and says that it is not meant for clinical practice"
_NOT_DEPLOYED = "its model card puts any deployed use, commercial or otherwise, out of scope"

# pad_type "same" because the quantised TFLite weights of this network were trained with TensorFlow's padding.
BACKBONES: dict[str, BackboneEntry] = {
    "mobilenetv2_100": BackboneEntry(
        _timm("mobilenetv2_100", pad_type="same"),
        1280,
        "timm",
        "mobilenetv2_100",
        "timm/mobilenetv2_100.ra_in1k",
        _APACHE,
    ),
    "mobilenetv2_035": BackboneEntry(
        _timm("mobilenetv2_035", pad_type="same"), 1280, "timm", "mobilenetv2_035", None, _APACHE
    ),
    # drop_path drops blocks at random in training, as TensorFlow did for these; it does nothing else.
    "tf_efficientnet_lite0": BackboneEntry(
        _timm("tf_efficientnet_lite0", drop_path_rate=0.1),
        1280,
        "timm",
        "tf_efficientnet_lite0",
        "timm/tf_efficientnet_lite0.in1k",
        _APACHE,
        InputSpec(mean=_HALF, std=_HALF),
    ),
    "tf_efficientnet_lite1": BackboneEntry(
        _timm("tf_efficientnet_lite1", drop_path_rate=0.1),
        1280,
        "timm",
        "tf_efficientnet_lite1",
        "timm/tf_efficientnet_lite1.in1k",
        _APACHE,
        InputSpec(240, mean=_HALF, std=_HALF),
    ),
    "efficientnet_b0": BackboneEntry(
        _timm("efficientnet_b0"), 1280, "timm", "efficientnet_b0", "timm/efficientnet_b0.ra_in1k", _APACHE
    ),
    "convnext_small": BackboneEntry(
        _timm("convnext_small"), 768, "timm", "convnext_small", "timm/convnext_small.fb_in22k_ft_in1k", _APACHE
    ),
    "rad_dino": BackboneEntry(
        _timm("vit_base_patch14_dinov2"),
        768,
        "dinov2",
        "vit_base_patch14_dinov2",
        "microsoft/rad-dino",
        Terms("MIT (first published under MSRLA)", deployed=False, note=_RESEARCH),
        InputSpec(518, (0.5307,) * 3, (0.2583,) * 3, pad_to_square=True),
        maps=False,
    ),
    "biomedclip": BackboneEntry(
        _timm("vit_base_patch16_224"),
        512,
        "clip",
        "vit_base_patch16_224",
        "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        Terms("MIT", deployed=False, note=_NOT_DEPLOYED),
        InputSpec(224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        maps=False,
    ),
    # Sizes are those of the bundle's member: inference.members.
    "genu_kl": BackboneEntry(_of_a_bundle, 0, "bundle", "", None, _APACHE, maps=False),
}


def entry(name: str) -> BackboneEntry:
    """The table's entry.

    Raises:
        BundleError: there is none of that name.
    """
    if name not in BACKBONES:
        raise BundleError(f"unknown backbone {name!r}; known are {', '.join(sorted(BACKBONES))}.")
    return BACKBONES[name]


class Backbone(nn.Module):
    """A timm network without its head; `forward` gives the last feature map, (N, C, h, w)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        known = entry(name)
        if not known.maps:
            raise BundleError(f"{name!r} gives vectors and tokens, no feature map: use it frozen (inference.frozen).")
        self.name = name
        self.features = known.features
        self.body = known.build()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, C, h, w)."""
        return cast(torch.Tensor, self.body.forward_features(images))  # type: ignore[operator]


def network_input(images: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Grey images to what a frozen backbone sees.

    Args:
        images: float (N, 1, H, W), display values 0..1, canonical side.
        spec: of the backbone.

    Returns:
        float (N, 3, size, size), normalised; bicubic and anti-aliased where the size differs.
    """
    rows, columns = images.shape[-2:]
    if spec.pad_to_square and rows != columns:
        side = max(rows, columns)
        left, top = (side - columns) // 2, (side - rows) // 2
        images = functional.pad(images, (left, side - columns - left, top, side - rows - top))
    if tuple(images.shape[-2:]) != (spec.size, spec.size):
        images = functional.interpolate(images, size=(spec.size, spec.size), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    return (images.expand(-1, spec.channels, -1, -1) - mean) / std
