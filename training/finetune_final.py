"""The fine-tuned network of all knees on disk: RUN/systems/NAME/final, what `genu-train export` reads.

model.safetensors   the backbone's weights, fine-tuned
spec.json           how knees are cut out and what the backbone sees (training.embeddings.EmbeddingSpec), with its
                    "settings", by which inference.frozen.rebuild builds it again
head.json, head.safetensors   the linear output as a head of the kind "ridge" on the pooled vector
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from inference.backbones import entry
from inference.errors import DataError
from inference.frozen import FrozenBackbone, rebuild, weights_of
from inference.preprocess import PreprocessSpec
from training.embeddings import FINE_TUNED, SPEC, EmbeddingSpec
from training.fabric_checkpoints import write_tensors
from training.final_head import FinalHead, read_head, write_head
from training.finetune_fit import ScoreNet

MODEL = "model.safetensors"


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A backbone as it was fine-tuned, what it sees, and its head."""

    backbone: FrozenBackbone
    spec: EmbeddingSpec
    head: FinalHead


def write_final(
    folder: Path, net: ScoreNet, start: FrozenBackbone, called: str, crop: PreprocessSpec, head: FinalHead
) -> None:
    """Write a fine-tuned network; head.json last, with it the folder is finished.

    Args:
        folder: RUN/systems/NAME/final.
        net: as trained.
        start: the backbone that it began with; called: its weights.
        crop: how knees were cut out.
        head: all but its kind, features and tensors, which are those of the network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(weights_of(replace(start, trunk=net.trunk)), folder / MODEL)
    terms = entry(start.name).terms
    spec = EmbeddingSpec(
        backbone=start.name,
        weights=f"{FINE_TUNED} {called}",
        weights_digest=_sha256(folder / MODEL),
        crop=crop,
        input=start.input,
        features="pooled",
        precision="fp32",
        width=start.width,
        synthetic=start.synthetic,
        licence=terms.licence,
        deployed_use=terms.deployed,
        texts=False,
    )
    values = {**spec.to_json(), "settings": dict(start.settings)}
    (folder / SPEC).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    write_head(folder, replace(head, kind="ridge", features="pooled", tensors=_linear(net)))


def read_final(folder: Path) -> FineTuned:
    """What `write_final` wrote.

    Raises:
        DataError: it is not there, not finished, or was changed; BundleError: the weights do not fit.
    """
    head = read_head(folder)
    try:
        values: dict[str, Any] = json.loads((folder / SPEC).read_text("utf-8"))
        settings = values.pop("settings")
        spec = EmbeddingSpec.from_json(values)
        if _sha256(folder / MODEL) != spec.weights_digest:
            raise ValueError(f"{MODEL} was changed")  # noqa: TRY301
        state = load_file(folder / MODEL)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{folder} holds no finished fine-tuning ({error}): run `genu-train fit` again.") from error
    backbone = rebuild(spec.backbone, settings, state, folder)
    return FineTuned(replace(backbone, digest=spec.weights_digest, synthetic=spec.synthetic), spec, head)


def is_fine_tuned(folder: Path) -> bool:
    """Whether a final folder holds its own backbone."""
    return (folder / MODEL).is_file()


def _linear(net: ScoreNet) -> dict[str, Any]:
    """Weight and bias in the target's units, on vectors as they are."""
    centre, spread = (float(net.get_buffer(name)) for name in ("centre", "spread"))
    weight = net.head.weight.detach().cpu().numpy()[0].astype(np.float64)
    bias = float(net.head.bias.detach()[0])
    width = len(weight)
    return {
        "weight": (spread * weight).astype(np.float32),
        "bias": np.array([centre + spread * bias], np.float32),
        "centre": np.zeros(width, np.float32),
        "scale": np.ones(width, np.float32),
    }


def trunk_of(start: FrozenBackbone) -> nn.Module:
    """A copy of a loaded backbone's network that can learn.

    Raises:
        DataError: the backbone is no single network without a projection.
    """
    import copy

    if start.projection is not None or start.text is not None or hasattr(start.trunk, "num_prefix_tokens"):
        raise DataError(f"{start.name} is not fine-tuned here: take convnext_small or another convolutional network.")
    return copy.deepcopy(start.trunk).requires_grad_(True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
