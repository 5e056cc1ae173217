"""DINOv2 transformers as RAD-DINO publishes them (names of the transformers package, or of DINOv2 itself), for timm."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

State = dict[str, torch.Tensor]

_NAMES = (
    (r"^(dinov2\.)?embeddings\.cls_token$", "cls_token"),
    (r"^(dinov2\.)?embeddings\.position_embeddings$", "pos_embed"),
    (r"^(dinov2\.)?embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(dinov2\.)?layernorm\.", "norm."),
    (r"^(dinov2\.)?encoder\.layer\.(\d+)\.", r"blocks.\2."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
)


def read_dinov2(config: Mapping[str, Any], state: State) -> tuple[nn.Module, int]:
    """The network and the side of its input in pixels.

    Args:
        config: config.json of the transformers package: hidden_size, num_hidden_layers, num_attention_heads,
            image_size, patch_size, mlp_ratio, layer_norm_eps.
        state: weights by the names of either package; the mask token, of pretraining only, is left out.

    Raises:
        KeyError, ValueError, RuntimeError: a size is missing, the network is of another kind, or weights do not fit.
    """
    if config.get("model_type", "dinov2") != "dinov2" or config.get("use_swiglu_ffn"):
        raise ValueError("config.json is of another network than a DINOv2 transformer without SwiGLU")
    size = int(config["image_size"])
    epsilon = float(config.get("layer_norm_eps", 1e-6))
    network = VisionTransformer(
        img_size=size,
        patch_size=int(config["patch_size"]),
        embed_dim=int(config["hidden_size"]),
        depth=int(config["num_hidden_layers"]),
        num_heads=int(config["num_attention_heads"]),
        mlp_ratio=float(config.get("mlp_ratio", 4)),
        num_classes=0,
        global_pool="token",
        init_values=1.0,
        norm_layer=partial(nn.LayerNorm, eps=epsilon),
    )
    network.load_state_dict(to_timm(state))
    return network, size


def to_timm(state: State) -> State:
    """Weights by timm's names: query, key and value become one matrix."""
    found: State = {}
    for name, values in state.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        found[name] = values.float()
    for name in [name for name in found if name.endswith("mask_token")]:
        del found[name]
    for name in [name for name in found if ".attn.query." in name]:
        parts = [found.pop(name.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        found[name.replace(".query.", ".qkv.")] = torch.cat(parts)
    return found
