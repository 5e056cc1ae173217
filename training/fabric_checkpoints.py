"""Checkpoints of Lightning Fabric without pickle: tensors as safetensors, all else as JSON in the file's metadata.

A checkpoint is written beside the old one, onto the disk, and then put in its place: a kill leaves one of them.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from inference.errors import DataError

_TREE = "tree"


class SafetensorsIO(CheckpointIO):
    """What `Fabric.save` and `Fabric.load` write and read with, given as `Fabric(plugins=...)`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write nested dicts, lists and tuples of tensors, numbers, strings and None.

        Raises:
            TypeError: there is anything else in it.
        """
        tensors: dict[str, torch.Tensor] = {}
        tree = _planted(checkpoint, tensors)
        write_tensors(tensors, Path(path), {_TREE: json.dumps(tree)})

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """What `save_checkpoint` wrote, on the CPU; modules and optimisers copy it to where they are.

        Raises:
            DataError: it cannot be read.
        """
        try:
            with safe_open(Path(path), framework="pt") as file:
                tree = json.loads(file.metadata()[_TREE])
                found = _grown(tree, file.get_tensor)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"the checkpoint {path} cannot be read ({error}): remove it to start afresh.") from error
        return dict(found)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove it, if it is there."""
        Path(path).unlink(missing_ok=True)


def write_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write safetensors whole or not at all; tensors are copied to the CPU, each by itself."""
    part = path.with_name(path.name + ".part")
    whole = {name: values.detach().cpu().contiguous().clone() for name, values in tensors.items()}
    save_file(whole, part, metadata=metadata)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _planted(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The value with names in place of tensors; what JSON does not know (tuples, keys that are numbers) is told."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _planted(each, tensors)] for key, each in value.items()]}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_planted(each, tensors) for each in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values, no {type(value).__name__}")


def _grown(tree: Any, tensor: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensor(value)
    if kind == "dict":
        return {key: _grown(each, tensor) for key, each in value}
    grown = [_grown(each, tensor) for each in value]
    return tuple(grown) if kind == "tuple" else grown
