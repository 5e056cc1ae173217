"""What a run's networks see in crops, kept beside the run: evaluating again takes a minute, not a quarter of an hour.

`RUN/answers/<key>.npy` holds pooled features, (N, C) float32. The key is made from the weights, the preprocessing and
the crops, so that nothing stale is ever read; the folder can be deleted at any time.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from inference.heads import KLGrader
from inference.preprocess import apply
from training.config import MemberConfig

Crops = npt.NDArray[np.uint8]
FOLDER = "answers"
_VERSION = 1


def pooled_features(
    model: KLGrader, config: MemberConfig, crops: Crops, run: Path | None = None, batch: int = 32
) -> torch.Tensor:
    """Pooled features (N, C), float32, of uint8 crops (N, S, S).

    Args:
        model: in evaluation mode, its weights rounded as a bundle stores them.
        config: the member's.
        crops: on the canonical side.
        run: the run's folder, where the features are kept; None keeps nothing.
        batch: knees at a time.
    """
    path = None if run is None else run / FOLDER / f"{_key(model, config, crops)}.npy"
    if path is not None and path.exists():
        return torch.from_numpy(np.load(path, allow_pickle=False))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(crops), batch):
            images = torch.from_numpy(crops[start : start + batch]).float()[:, None] / 255
            seen = model.backbone(apply(images, config.spec).contiguous(memory_format=torch.channels_last))
            parts.append(seen.float().mean(dim=(2, 3)))
    found = torch.cat(parts).clone()
    if path is not None:
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part.npy")
        np.save(part, found.numpy())
        part.replace(path)
    return found


def logits_of(model: KLGrader, config: MemberConfig, crops: Crops, run: Path | None = None) -> torch.Tensor:
    """Logits (N, 5), float32; arguments as of `pooled_features`."""
    pooled = pooled_features(model, config, crops, run)
    with torch.inference_mode():
        return model.classifier(pooled).clone()  # type: ignore[no-any-return]


def _key(model: KLGrader, config: MemberConfig, crops: Crops) -> str:
    digest = hashlib.sha256(json.dumps([_VERSION, config.backbone, config.spec.to_json(), crops.shape]).encode())
    for name, value in sorted(model.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    digest.update(np.ascontiguousarray(crops).tobytes())
    return digest.hexdigest()[:24]
