"""A network of a KL bundle as a frozen backbone: what a grader of knees has learnt to see, without its head.

The bundle that ships is at hand everywhere: nothing is fetched, and its licence is Genu's own.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from inference.backbones import Backbone, InputSpec
from inference.bundle import Bundle
from inference.errors import BundleError
from inference.frozen import FrozenBackbone, ready
from inference.manifest import SHIPPED
from inference.preprocess import PreprocessSpec, apply

SETTINGS = "member.json"  # what the settings of such a backbone are called
MARK = "#"  # between the folder of a bundle and the name of a member


class MemberTrunk(nn.Module):
    """A member without its head, its own normalisation in front; the calls are those of timm's networks.

    `forward_features` takes float (N, 3, S, S) of `network_input` with mean 0 and deviation 1, so crops 0..1, and gives
    the last map (N, C, h, w).
    """

    def __init__(self, backbone: Backbone, spec: PreprocessSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = spec

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Crops (N, 3, S, S) to the last map."""
        return cast(torch.Tensor, self.backbone(self._seen(images)))

    def forward_head(self, features: torch.Tensor, pre_logits: bool = True) -> torch.Tensor:
        """The vector (N, C) that the member's head sees; there are no logits.

        Raises:
            BundleError: logits were asked for.
        """
        if not pre_logits:
            raise BundleError("a member used as a backbone has no head: ask its bundle for grades.")
        return features.mean(dim=(2, 3))

    def forward_intermediates(self, images: torch.Tensor, **options: Any) -> Any:
        """Maps of several stages, as timm's."""
        return cast(Any, self.backbone.body).forward_intermediates(self._seen(images), **options)

    def _seen(self, images: torch.Tensor) -> torch.Tensor:
        # Local deviations are differences of squares: half precision would lose them.
        with torch.autocast(images.device.type, enabled=False):
            return apply(images[:, :1].float(), self.spec).contiguous(memory_format=torch.channels_last)


def load_member(name: str, where: str | None = None) -> tuple[FrozenBackbone, str]:
    """Load a member of a bundle as a frozen backbone.

    Args:
        name: the backbone's name in the table of inference.backbones.
        where: FOLDER, FOLDER#MEMBER or #MEMBER; without a folder the bundle that ships, without a member its first.

    Returns:
        The backbone, with the preprocessing by which the member's crops are made, and what the weights are called.

    Raises:
        BundleError: the bundle does not load or replay, or has no member of that name.
    """
    folder, _, wanted = (where or "").partition(MARK)
    bundle = Bundle.load(Path(folder) if folder else SHIPPED, "cpu")
    names = [member.name for member in bundle.manifest.members]
    if wanted and wanted not in names:
        raise BundleError(f"{bundle.manifest.folder} has no member {wanted!r}; it has {', '.join(names)}.")
    network = bundle.networks[names.index(wanted) if wanted else 0]
    chosen = wanted or names[0]
    settings = {SETTINGS: {"backbone": network.model.backbone.name, "spec": network.spec.to_json()}}
    backbone = replace(
        _frozen(name, network.model.backbone, network.spec, settings),
        digest=hashlib.sha256(f"{bundle.manifest.digest}\n{chosen}".encode()).hexdigest(),
        synthetic=bundle.manifest.synthetic,
    )
    return ready(backbone), f"{bundle.manifest.name} {bundle.manifest.version} {MARK}{chosen}"


def read_member(name: str, settings: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> FrozenBackbone:
    """The backbone again, from its settings and the weights of its trunk; its digest is empty.

    Raises:
        KeyError, TypeError, RuntimeError, BundleError: they do not fit each other.
    """
    values = settings[SETTINGS]
    backbone = _frozen(name, Backbone(str(values["backbone"])), PreprocessSpec.from_json(values["spec"]), settings)
    backbone.trunk.load_state_dict(state)
    return backbone


def _frozen(name: str, network: Backbone, spec: PreprocessSpec, settings: Mapping[str, Any]) -> FrozenBackbone:
    seen = InputSpec(spec.crop_size, (0.0,) * 3, (1.0,) * 3)
    trunk = MemberTrunk(network, spec)
    return FrozenBackbone(name, trunk, None, None, seen, network.features, "", False, settings, spec)
