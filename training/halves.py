"""Weights as bundles store them: in half precision. Figures are of networks that were rounded so."""

from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def rounded(model: Model) -> Model:
    """The model itself, its weights rounded to half precision (and kept as float32), in evaluation mode."""
    state = stored(model)
    model.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in state.items()})
    return model.eval()


def stored(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model for a safetensors file: floating point values in half precision, all contiguous."""
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
