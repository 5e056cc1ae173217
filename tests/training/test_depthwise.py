"""The quicker gradients are the gradients."""

import copy

import pytest
import torch
from torch import nn

from inference.backbones import Backbone
from training.depthwise import quicken


def _same() -> type[nn.Conv2d]:
    """timm's convolution with TensorFlow's padding."""
    kinds = {type(module) for module in Backbone("tf_efficientnet_lite0").modules() if isinstance(module, nn.Conv2d)}
    (kind,) = kinds - {nn.Conv2d}
    return kind


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("shape", [(12, 9), (7, 16)])
def test_gradients_are_torchs(size: int, stride: int, same: bool, shape: tuple[int, int]) -> None:
    plain = (_same() if same else nn.Conv2d)(
        4, 4, size, stride, 0 if same else size // 2, groups=4, bias=False
    ).double()
    quick = copy.deepcopy(plain)
    assert quicken(quick) == 1
    first = torch.randn((2, 4, *shape), dtype=torch.float64, requires_grad=True)
    second = first.detach().clone().requires_grad_()
    results = plain(first), quick(second)
    assert torch.equal(*results)
    upstream = torch.randn_like(results[0])
    for result in results:
        result.backward(upstream)
    assert plain.weight.grad is not None
    assert quick.weight.grad is not None
    assert first.grad is not None
    assert second.grad is not None
    assert torch.allclose(plain.weight.grad, quick.weight.grad)
    assert torch.allclose(first.grad, second.grad)


def test_other_convolutions_stay_as_they_are() -> None:
    others = nn.ModuleList(
        [
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False),
            nn.Conv2d(4, 4, 7, padding=3, groups=4, bias=False),
            nn.Conv2d(4, 4, 3, padding=0, groups=4, bias=False),
            nn.Conv2d(4, 4, 3, padding=1, groups=4),
            nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False),
        ]
    )
    assert quicken(others) == 0


def test_it_works_in_half_precision_and_leaves_the_state_alone() -> None:
    model = nn.Conv2d(8, 8, 5, 2, 2, groups=8, bias=False)
    state = copy.deepcopy(model.state_dict())
    quicken(model)
    assert state.keys() == model.state_dict().keys()
    images = torch.randn((2, 8, 16, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = model(images)
    assert result.dtype == torch.bfloat16
    result.float().sum().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.dtype == torch.float32
