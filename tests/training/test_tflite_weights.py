"""The dequantised ImageNet weights: shapes, batch normalisation unfolded without changing the output."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from inference.backbones import Backbone
from inference.errors import DataError
from training.tflite_weights import load_into, read_folded


def test_unfolding_changes_nothing_and_both_modes_agree(shared_data: Path) -> None:
    folded = read_folded(shared_data / "weights" / "mobilenet_v2_1.0_224_quant.tflite")
    assert len(folded) == 53
    assert folded[-1][0].shape == (1001, 1280, 1, 1)
    images = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = Backbone("mobilenetv2_100").eval()
    load_into(model.body, folded, images)
    with torch.no_grad():
        evaluated = model(images)
        model.train()
        trained = model(images)
        plain = folded_forward(model.body, folded, images)
    assert torch.allclose(evaluated, plain, atol=1e-2)
    assert torch.allclose(evaluated, trained, atol=1e-2)
    assert float(evaluated.std()) > 0.1


def folded_forward(body: nn.Module, folded, images: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """The same network with identity batch norms and the file's own biases."""
    norms = [module for module in body.modules() if isinstance(module, _BatchNorm)]
    for norm, (_, bias) in zip(norms, folded, strict=False):
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        norm.weight.data.fill_(1)
        norm.bias.data.copy_(torch.from_numpy(bias))
    return body.eval().forward_features(images)


def test_another_network_is_refused(shared_data: Path) -> None:
    folded = read_folded(shared_data / "weights" / "mobilenet_v2_1.0_224_quant.tflite")
    with pytest.raises(DataError, match="shape"):
        load_into(Backbone("mobilenetv2_035").body, folded, torch.rand(2, 3, 64, 64))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.tflite"
    path.write_bytes(b"\0" * 64)
    with pytest.raises(DataError, match="not a TFLite model"):
        read_folded(path)
