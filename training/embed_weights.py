"""Where a backbone's weights come from: a local folder, a repository of the Hugging Face hub, or a quantised TFLite."""

import hashlib
import re
from pathlib import Path
from typing import Protocol

import torch

from inference.backbones import InputSpec, entry
from inference.errors import BundleError, DataError, UsageError
from inference.frozen import FrozenBackbone, load_frozen, ready, weights_file
from inference.members import load_member
from training.tflite_weights import load_into, read_folded

HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_FILES = ["*config.json", "vocab.txt", "tokenizer.json", "*.safetensors"]
_GREY = 128 / 255  # the TFLite network sees (x - 128) / 128 of 8 bits


def load_weights(name: str, weights: str | None) -> tuple[FrozenBackbone, str]:
    """Load a backbone, and what its weights are called.

    Args:
        name: of the table in inference.backbones.
        weights: a local folder, a .tflite file (mobilenetv2_100), or OWNER/NAME[@REVISION] on the hub, which is fetched
            once into the hub's own cache; None for the table's repository. Of genu_kl as for
            `inference.members.load_member`: None for the bundle that ships.

    Raises:
        BundleError: unknown name, weights that do not fit, or pickled ones.
        DataError: nothing of that name is here, and the hub does not answer or has it not.
    """
    if entry(name).family == "bundle":
        return load_member(name, weights)
    chosen = weights or entry(name).weights
    if chosen is None:
        raise DataError(f"no weights of {name!r} are published under a usual name: give --weights FOLDER.")
    path = Path(chosen)
    if path.suffix == ".tflite" and path.is_file():
        return _tflite(name, path), path.name
    if path.exists():
        return load_frozen(name, path), path.resolve().name
    if not HUB.fullmatch(chosen):
        raise DataError(f"there are no weights at {chosen}: give a folder, or OWNER/NAME on the Hugging Face hub.")
    return load_frozen(name, _fetch(chosen)), chosen


class Embedded(Protocol):
    """What was computed says by which weights."""

    @property
    def backbone(self) -> str:
        """Of the table in inference.backbones."""

    @property
    def weights(self) -> str:
        """What they are called."""

    @property
    def weights_digest(self) -> str:
        """SHA-256 of what was read."""


def weights_again(spec: Embedded, weights: str | None) -> FrozenBackbone:
    """The weights that embeddings or slice features were made with.

    Args:
        spec: of the embeddings. weights: as for `load_weights`; None for those that `spec` names, if they can be had.

    Raises:
        UsageError: they lay on a disk, and have to be named.
        DataError: other weights lie there, or none.
        BundleError: as `load_weights`.
    """
    chosen = weights
    if chosen is None and entry(spec.backbone).family == "bundle":
        chosen = "#" + spec.weights.partition("#")[2]
    elif chosen is None:
        if not HUB.fullmatch(spec.weights):
            raise UsageError(f"the embeddings were made with {spec.weights!r} on a disk: name it with --weights PATH.")
        chosen = spec.weights
    backbone, called = load_weights(spec.backbone, chosen)
    if backbone.digest != spec.weights_digest:
        raise DataError(
            f"{called} is not what the embeddings were made with ({spec.weights}): SHA-256 {backbone.digest[:12]}... "
            f"instead of {spec.weights_digest[:12]}...; name the right one with --weights."
        )
    return backbone


def _fetch(chosen: str) -> Path:
    """A snapshot of a repository, as far as it is needed; pickled weights are never fetched."""
    from huggingface_hub import list_repo_files, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repository, _, revision = chosen.partition("@")
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=_FILES))
        if not list(folder.glob("*.safetensors")):
            pickled = [name for name in list_repo_files(repository, revision=revision or None) if "." in name]
            weights = [name for name in pickled if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
            # Says how they are converted.
            weights_file(folder / weights[0] if weights else folder)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{chosen} could not be fetched from the hub ({type(error).__name__}: {first}): give --weights a local "
            "folder with its files, or HF_HOME the cache of a machine that has them."
        ) from error
    return folder


def _tflite(name: str, path: Path) -> FrozenBackbone:
    """The 8-bit MobileNetV2 of ImageNet as float weights."""
    if name != "mobilenetv2_100":
        raise BundleError(f"{path.name} holds a MobileNetV2: it goes with --backbone mobilenetv2_100, not {name}.")
    trunk = entry(name).build()
    # The answer in evaluation mode is the same whatever images the norms are unfolded around.
    images = torch.rand((2, 3, 224, 224), generator=torch.Generator().manual_seed(0)) * 2 - 1
    load_into(trunk, read_folded(path), images)
    spec = InputSpec(224, (_GREY,) * 3, (_GREY,) * 3)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    shown = {"input_size": [3, spec.size, spec.size], "mean": list(spec.mean), "std": list(spec.std)}
    config = {"architecture": name, "model_args": {"pad_type": "same"}, "pretrained_cfg": shown}
    settings = {"config.json": config}
    return ready(FrozenBackbone(name, trunk, None, None, spec, entry(name).features, digest, False, settings=settings))
