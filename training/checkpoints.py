"""Checkpoints of a training run: safetensors and JSON, never pickle; written whole or not at all."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from inference.errors import DataError


def save(folder: Path, epoch: int, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Write the state after `epoch` (1-based) into `folder`, replacing the previous one."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(tensor) for name, tensor in state.items()}
    part = folder / "checkpoint.part"
    contiguous = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(contiguous, part, metadata={"epoch": str(epoch)})
    part.replace(folder / "checkpoint.safetensors")


def resume(folder: Path, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Load the newest state into all three and return its epoch; 0 when there is none.

    Raises:
        DataError: the checkpoint belongs to another network.
    """
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0
    tensors = load_file(path)
    try:
        model.load_state_dict(_part(tensors, "model."))
        average.load_state_dict(_part(tensors, "average."))
    except RuntimeError as error:
        raise DataError(f"{path} does not fit the configured network: use another run folder. ({error})") from error
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _part(tensors, "optimiser.").items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
    return _epoch(path)


def load_average(folder: Path, average: nn.Module) -> int:
    """Load the averaged weights only and return their epoch.

    Raises:
        DataError: there is no checkpoint, or it belongs to another network.
    """
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        raise DataError(f"{folder} holds no checkpoint: run `genu-train fit` first.")
    try:
        average.load_state_dict(_part(load_file(path), "average."))
    except RuntimeError as error:
        raise DataError(f"{path} does not fit the configured network. ({error})") from error
    return _epoch(path)


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _epoch(path: Path) -> int:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return int(json.loads(file.read(length))["__metadata__"]["epoch"])
