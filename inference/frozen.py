"""A backbone with its published weights, frozen: from a local folder as the Hugging Face hub has it, to vectors.

Weights are safetensors and nothing else. What decides the answer is told by one digest over the files that were read.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from inference.backbones import BackboneEntry, InputSpec, entry
from inference.bert import BertShape, TextTower, WordPiece
from inference.dinov2 import read_dinov2
from inference.errors import BundleError
from inference.preprocess import PreprocessSpec

Features = Literal["pooled", "layers", "patches"]
LAYERS = 4  # the last ones of a network, of which `layers` gives the means

_PREFERRED = ("model.safetensors", "open_clip_model.safetensors", "backbone_compatible.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_DESCRIBING = (
    *("config.json", "open_clip_config.json", "preprocessor_config.json"),
    *("vocab.txt", "tokenizer.json", "tokenizer_config.json"),
)
# What a configuration could make timm read or fetch by itself.
_FETCHING = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
State = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class FrozenBackbone:
    """A loaded backbone in evaluation mode.

    name: in the table. trunk: timm's network without its head. projection: of its vector, or None.
    text: the text tower of a pair that has one, whose answers live in the same space; None without a vocabulary.
    width: of the pooled vector. digest: of what was read. synthetic: the files say that their weights are random.
    settings: the contents of its configuration files by name; with `weights_of` it can be built again.
    crop: how its knees have to be cut out; None where any crop of the input's size will do.
    """

    name: str
    trunk: nn.Module
    projection: nn.Module | None
    text: TextTower | None
    input: InputSpec
    width: int
    digest: str
    synthetic: bool
    settings: Mapping[str, Any] = field(default_factory=dict)
    crop: PreprocessSpec | None = None

    def to(self, device: torch.device) -> "FrozenBackbone":
        """The same on a device; moves this one's parameters."""
        for part in (self.trunk, self.projection, self.text):
            if part is not None:
                part.to(device)
        return self

    def features(self, images: torch.Tensor, wanted: Features = "pooled") -> dict[str, torch.Tensor]:
        """Vectors of a batch.

        Args:
            images: float (N, 3, size, size) of `network_input`.
            wanted: what is asked for besides the pooled vector, which always comes.

        Returns:
            "pooled" float32 (N, width), the vector that the network's head would see, projected where there is a
            projection; "layers" float32 (N, LAYERS, 2, C) of a transformer, CLS and patch mean of its last blocks,
            each through the last norm, or (N, sum of C) of a convolutional one, the means of its stages; "patches"
            float32 (N, P, C), the last layer's tokens or the cells of its map, row by row. Not normalised to length 1.
        """
        trunk = cast(Any, self.trunk)
        with torch.inference_mode():
            found: dict[str, torch.Tensor] = {}
            if wanted == "layers":
                last, found["layers"] = _layers(trunk, images)
            else:
                last = trunk.forward_features(images)
            if wanted == "patches":
                skipped = getattr(trunk, "num_prefix_tokens", 0)
                found["patches"] = last[:, skipped:] if last.ndim == 3 else last.flatten(2).transpose(1, 2)
            pooled = trunk.forward_head(last, pre_logits=True)
            found["pooled"] = pooled if self.projection is None else self.projection(pooled)
            return {name: values.float() for name, values in found.items()}

    def describe_all(self, texts: list[str]) -> torch.Tensor:
        """Texts to float32 (N, width) in the space of the images, not normalised.

        Raises:
            BundleError: there is no text tower, or its folder held no vocabulary.
        """
        if self.text is None:
            raise BundleError(f"{self.name} has no text tower here: its folder needs vocab.txt or tokenizer.json.")
        with torch.inference_mode():
            device = next(self.text.parameters()).device
            return cast(torch.Tensor, self.text(self.text.tokenise(texts).to(device))).float()


def load_frozen(name: str, folder: Path) -> FrozenBackbone:
    """Load a backbone of the table from a local folder; needs no network.

    Args:
        name: in inference.backbones.
        folder: config.json (timm, DINOv2) or open_clip_config.json (BiomedCLIP), weights as safetensors, and
            for the text tower vocab.txt or tokenizer.json. `"synthetic": true` in a configuration marks random weights.
            Of `genu_kl` the folder of a bundle.

    Raises:
        BundleError: unknown name, nothing to load, only pickled weights, or weights that do not fit.
    """
    known = entry(name)
    if known.family == "bundle":
        from inference.members import load_member  # it makes what this module describes

        return load_member(name, str(folder))[0]
    path = weights_file(folder)
    try:
        settings = _settings(folder)
        state = load_file(path)
        loaded = _FAMILIES[known.family](name, known, folder, settings, state)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder} holds no usable {name}: {type(error).__name__}: {error}") from error
    synthetic = any(values.get("synthetic") is True for values in settings.values())
    return replace(ready(loaded), digest=_digest(folder, path), synthetic=synthetic, settings=settings)


def weights_of(backbone: FrozenBackbone) -> State:
    """The weights of the image tower by the names that `rebuild` takes, as they are: on the CPU, in their own type."""
    state: State = {}
    clip = entry(backbone.name).family == "clip"
    parts = {"visual.trunk." if clip else "": backbone.trunk, "visual.head.proj.": backbone.projection}
    for prefix, part in parts.items():
        if part is not None:
            state |= {prefix + name: values.detach().cpu().contiguous() for name, values in part.state_dict().items()}
    return state


def rebuild(name: str, settings: Mapping[str, Any], state: State, folder: Path) -> FrozenBackbone:
    """A backbone without its text tower, from `settings` and `weights_of` of a loaded one; its digest is empty.

    Args:
        name: in inference.backbones.
        settings: contents of its configuration files by name.
        state: its weights, floats of any precision; they are used in single.
        folder: where they come from, for messages; must hold no vocabulary.

    Raises:
        BundleError: unknown name, or weights that do not fit the settings.
    """
    known = entry(name)
    try:
        config = {**settings.get("config.json", {}), "num_classes": 0}  # the classifier was left behind
        loaded = _FAMILIES[known.family](name, known, folder, {**settings, "config.json": config}, state)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise BundleError(f"{folder} holds no usable {name}: {type(error).__name__}: {error}") from error
    return replace(ready(loaded), settings=settings)


def ready(loaded: FrozenBackbone) -> FrozenBackbone:
    """In evaluation mode, without gradients, convolutions in the layout that is quick."""
    for part in (loaded.trunk, loaded.projection, loaded.text):
        if part is not None:
            part.eval().requires_grad_(False)
    if not hasattr(loaded.trunk, "num_prefix_tokens"):
        cast(Any, loaded.trunk).to(memory_format=torch.channels_last)
    return loaded


def weights_file(folder: Path) -> Path:
    """The safetensors file of a folder.

    Raises:
        BundleError: there is none, or several without a usual name; says how pickled weights are converted.
    """
    if folder.suffix in _PICKLES or not folder.is_dir():
        pickled, found = [folder] if folder.suffix in _PICKLES else [], []
    else:
        found = sorted(folder.glob("*.safetensors"))
        pickled = sorted(path for path in folder.iterdir() if path.suffix in _PICKLES)
    usual = [folder / name for name in _PREFERRED if folder / name in found]
    if usual or len(found) == 1:
        return (usual or found)[0]
    if found:
        raise BundleError(f"{folder} holds {', '.join(p.name for p in found)}: name one of them {_PREFERRED[0]}.")
    if pickled:
        target = "open_clip_model" if pickled[0].name.startswith("open_clip") else "model"
        raise BundleError(
            f"{pickled[0]} is a pickle, which can run code when it is read: Genu reads safetensors only. Convert it "
            'once, where you trust it: python -c "import torch; from safetensors.torch import save_file; '
            f"s = torch.load('{pickled[0].name}', map_location='cpu', weights_only=True); "
            "s = s.get('state_dict', s); save_file({k: v.contiguous().clone() for k, v in s.items()}, "
            f"'{target}.safetensors')\""
        )
    raise BundleError(f"{folder} holds no .safetensors file: name the folder of the weights.")


def _layers(trunk: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The last layer's answer, and the means of the last layers."""
    if not hasattr(trunk, "num_prefix_tokens"):
        last, maps = trunk.forward_intermediates(images, indices=LAYERS)
        return last, torch.cat([each.float().mean(dim=(2, 3)) for each in maps], dim=1)
    wanted = min(LAYERS, len(trunk.blocks))
    last, layers = trunk.forward_intermediates(
        images, indices=wanted, norm=True, output_fmt="NLC", return_prefix_tokens=True
    )
    rows = [torch.stack([prefix[:, 0].float(), tokens.float().mean(dim=1)], dim=1) for tokens, prefix in layers]
    return last, torch.stack(rows, dim=1)


def _read_timm(name: str, known: BackboneEntry, _: Path, settings: Mapping[str, Any], state: State) -> FrozenBackbone:
    """As timm's repositories on the hub are; `model_args` of config.json may make the network smaller."""
    config = settings["config.json"]
    found = str(config["architecture"]).split(".")[0]
    if found != known.architecture:
        raise ValueError(f"config.json is of {found}, not of {known.architecture}")
    options = dict(config.get("model_args", {}))
    if _FETCHING & set(options):
        raise ValueError(f"model_args of config.json may not hold {', '.join(sorted(_FETCHING & set(options)))}")
    classes = int(config.get("num_classes", config.get("pretrained_cfg", {}).get("num_classes", 1000)))
    trunk: Any = timm.create_model(found, pretrained=False, num_classes=classes, **options)
    trunk.load_state_dict(state)
    width = int(trunk.head_hidden_size)
    trunk.reset_classifier(0)
    seen = config.get("pretrained_cfg", {})
    size = int(seen.get("input_size", (3, known.input.size))[1])
    spec = replace(
        known.input,
        size=size,
        mean=_three(seen.get("mean", known.input.mean)),
        std=_three(seen.get("std", known.input.std)),
    )
    return FrozenBackbone(name, trunk, None, None, spec, width, "", False)


def _read_dinov2(name: str, known: BackboneEntry, _: Path, settings: Mapping[str, Any], state: State) -> FrozenBackbone:
    trunk, size = read_dinov2(settings["config.json"], state)
    seen = settings.get("preprocessor_config.json", {})
    mean, std = (_three(seen.get(f"image_{key}", getattr(known.input, key))) for key in ("mean", "std"))
    spec = replace(known.input, size=size, mean=mean, std=std)
    return FrozenBackbone(name, trunk, None, None, spec, int(cast(Any, trunk).num_features), "", False)


def _read_clip(
    name: str, known: BackboneEntry, folder: Path, settings: Mapping[str, Any], state: State
) -> FrozenBackbone:
    """open_clip's folder: a timm transformer with a linear projection, and a BERT with one of two layers."""
    config = settings["open_clip_config.json"]
    model, seen = config["model_cfg"], config.get("preprocess_cfg", {})
    image, words = model["vision_cfg"], model["text_cfg"]
    kinds = image.get("timm_proj"), words.get("hf_proj_type"), words.get("hf_pooler_type")
    if kinds != ("linear", "mlp", "cls_last_hidden_state_pooler"):
        raise ValueError(f"towers that end with {kinds} are not known here")
    if not timm.is_model(image["timm_model_name"]):
        raise ValueError(f"timm has no network {image['timm_model_name']!r}")
    size, out = int(image["image_size"]), int(model["embed_dim"])
    trunk: Any = timm.create_model(image["timm_model_name"], pretrained=False, num_classes=0, img_size=size)
    trunk.load_state_dict(_part(state, "visual.trunk."))
    projection = nn.Linear(int(trunk.num_features), out, bias=False)
    projection.load_state_dict(_part(state, "visual.head.proj."))
    tokenise = WordPiece.read(folder, int(words.get("context_length", 256)))
    text = None
    if tokenise is not None:
        part = _part(state, "text.")
        kept = {k: v for k, v in part.items() if not k.endswith("position_ids") and ".pooler." not in k}
        text = TextTower(_bert_shape(kept, settings.get("config.json", {})), out, tokenise)
        text.load_state_dict(kept)
    mean, std = (_three(seen.get(key, getattr(known.input, key))) for key in ("mean", "std"))
    spec = replace(known.input, size=size, mean=mean, std=std)
    return FrozenBackbone(name, trunk, projection, text, spec, out, "", False)


def _read_member(name: str, _: BackboneEntry, __: Path, settings: Mapping[str, Any], state: State) -> FrozenBackbone:
    from inference.members import read_member  # it makes what this module describes

    return read_member(name, settings, state)


_FAMILIES: dict[str, Callable[[str, BackboneEntry, Path, Mapping[str, Any], State], FrozenBackbone]] = {
    "timm": _read_timm,
    "dinov2": _read_dinov2,
    "clip": _read_clip,
    "bundle": _read_member,
}


def _bert_shape(state: State, config: Mapping[str, Any]) -> BertShape:
    """Sizes by the weights themselves; heads by BERT's config.json where it is there, else 64 wide as in all BERTs."""
    embeddings = "transformer.embeddings"
    vocabulary, width = state[f"{embeddings}.word_embeddings.weight"].shape
    positions = state[f"{embeddings}.position_embeddings.weight"].shape[0]
    layers = len({name.split(".")[3] for name in state if name.startswith("transformer.encoder.layer.")})
    inner = state["transformer.encoder.layer.0.intermediate.dense.bias"].shape[0]
    heads = int(config.get("num_attention_heads", max(1, width // 64)))
    return BertShape(vocabulary, width, layers, heads, inner, positions, float(config.get("layer_norm_eps", 1e-12)))


def _part(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): values.float() for name, values in state.items() if name.startswith(prefix)}


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _settings(folder: Path) -> dict[str, Any]:
    """The JSON files of a folder that describe its weights, by name."""
    names = [name for name in _DESCRIBING if name.endswith("config.json") and (folder / name).is_file()]
    return {name: dict(json.loads((folder / name).read_text("utf-8"))) for name in names}


def _digest(folder: Path, weights: Path) -> str:
    """SHA-256 over the names and contents of all that was read."""
    whole = hashlib.sha256()
    for name in sorted({weights.name, *(n for n in _DESCRIBING if (folder / n).is_file())}):
        with (folder / name).open("rb") as file:
            whole.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()
