"""Tiny folders of random weights, one of each family of backbones, that go through the real loading code.

`python -m training.embed_standins OUT` writes one of each, `--only NAME` one alone; `--full` at the size of the real
networks, to measure speed where the real weights are not at hand. They say that they are synthetic; their vectors mean
nothing.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from inference.backbones import BACKBONES, entry  # before timm: it makes torchvision importable
from inference.bert import BertShape, TextTower, WordPiece, describe
from training.standin import write_random_bundle

_CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
# timm offers no smaller ones of the others; they are small.
_SMALLER: dict[str, dict[str, Any]] = {"convnext_small": _CONVNEXT}


def write_standin(name: str, folder: Path, *, seed: int = 0, full: bool = False) -> Path:
    """Write a folder with random weights of a backbone of the table, as the hub has it; returns it.

    Raises:
        BundleError: the table has no such backbone.
    """
    known = entry(name)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    {"timm": _timm, "dinov2": _dinov2, "clip": _clip, "bundle": _bundle}[known.family](name, folder, full)
    return folder


def _timm(name: str, folder: Path, full: bool) -> None:
    import timm

    smaller = {} if full else _SMALLER.get(name, {})
    model = timm.create_model(entry(name).architecture, pretrained=False, num_classes=7, **smaller)
    size = entry(name).input.size if full else 64
    _settle(model, size)
    _json(
        folder / "config.json",
        {
            "architecture": entry(name).architecture,
            "num_classes": 7,
            "model_args": smaller,
            "pretrained_cfg": {"input_size": [3, size, size], "mean": [0.5] * 3, "std": [0.5] * 3},
        },
    )
    _weights(folder / "model.safetensors", model.state_dict())


def _settle(model: nn.Module, size: int) -> None:
    """Set means and deviations of batch norms by drawn patterns.

    With those of a new network (0 and 1) what goes through dozens of random layers fades to a millionth, which half
    precision cannot hold.
    """
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    if not norms:
        return
    generator = torch.Generator().manual_seed(0)
    images = []
    for cells in (2, 4, 8, 16, 32):
        grey = functional.interpolate(
            torch.rand((4, 1, cells, cells), generator=generator), size=(size, size), mode="bilinear"
        )
        # Soft and sharp, dark and bright: real pictures differ more than noise does.
        images += [grey, (grey > 0.5).float(), 0.3 * grey, 0.7 + 0.3 * grey]
    seen = ((torch.cat(images) - 0.5) / 0.5).expand(-1, 3, -1, -1)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all that is seen
    with torch.no_grad():
        model.train()(seen)
    model.eval()


def _dinov2(_: str, folder: Path, full: bool) -> None:
    from timm.models.vision_transformer import VisionTransformer

    size, patch, width, depth, heads = (518, 14, 768, 12, 12) if full else (56, 14, 32, 5, 2)
    model = VisionTransformer(
        img_size=size, patch_size=patch, embed_dim=width, depth=depth, num_heads=heads, num_classes=0, init_values=1.0
    )
    config = {
        "model_type": "dinov2",
        "image_size": size,
        "patch_size": patch,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "mlp_ratio": 4,
        "layer_norm_eps": 1e-6,
    }
    _json(folder / "config.json", config)
    _weights(folder / "model.safetensors", as_transformers(model.state_dict()))


def as_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's names of a DINOv2 transformer to those of the transformers package, one mask token added."""
    found = {"embeddings.mask_token": torch.zeros(1, state["cls_token"].shape[-1])}
    names = (
        (r"^cls_token$", "embeddings.cls_token"),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^norm\.", "layernorm."),
        (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.ls(\d)\.gamma$", r".layer_scale\1.lambda1"),
    )
    for name, values in state.items():
        if ".attn.qkv." in name:
            start, end = name.split(".attn.qkv.")
            start = re.sub(r"^blocks\.(\d+)", r"encoder.layer.\1", start)
            for part, piece in zip(("query", "key", "value"), values.chunk(3), strict=True):
                found[f"{start}.attention.attention.{part}.{end}"] = piece
            continue
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        found[name] = values
    return found


def _bundle(_: str, folder: Path, __: bool) -> None:
    write_random_bundle(folder)


def _clip(_: str, folder: Path, full: bool) -> None:
    import timm

    vision, size, out = ("vit_base_patch16_224", 224, 512) if full else ("vit_tiny_patch16_224", 32, 24)
    words = sorted({word for side in "LR" for kl in range(5) for word in _words(describe(side, kl))})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "##rence", *words]
    shape = BertShape(len(vocabulary)) if full else BertShape(len(vocabulary), 32, 2, 2, 48, 64)
    context = 256 if full else 64
    trunk = timm.create_model(vision, pretrained=False, num_classes=0, img_size=size)
    numbers = {word: number for number, word in enumerate(vocabulary)}
    parts: dict[str, nn.Module] = {
        "visual.trunk.": trunk,
        "visual.head.proj.": nn.Linear(int(cast(Any, trunk).num_features), out, bias=False),
        "text.": TextTower(shape, out, WordPiece(numbers, context=context)),
    }
    state = {prefix + name: values for prefix, part in parts.items() for name, values in part.state_dict().items()}
    model = {
        "embed_dim": out,
        "vision_cfg": {"timm_model_name": vision, "timm_pool": "", "timm_proj": "linear", "image_size": size},
        "text_cfg": {
            "hf_model_name": "stand-in",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": context,
        },
    }
    _json(folder / "open_clip_config.json", {"model_cfg": model})
    _json(folder / "config.json", {"num_attention_heads": shape.heads})
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    _weights(folder / "open_clip_model.safetensors", state | {"logit_scale": torch.tensor(4.6)})


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+|[^a-z0-9\s]", text.lower())


def _json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps({"synthetic": True, **values}, indent=2) + "\n", encoding="utf-8")


def _weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file({name: values.detach().contiguous().clone() for name, values in state.items()}, path)


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=tuple(BACKBONES), help="this one alone")
    parser.add_argument("--full", action="store_true", help="at the size of the real networks")
    options = parser.parse_args()
    for name in BACKBONES if options.only is None else (options.only,):
        write_standin(name, options.out / name, full=options.full)


if __name__ == "__main__":
    main()
