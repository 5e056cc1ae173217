"""Grad-CAM against its definition, and its way back onto the film."""

import numpy as np
import torch
from torch import nn

from inference.explain import grad_cam, logits_and_maps, on_crop, to_source
from inference.heads import KLGrader
from inference.preprocess import PreprocessSpec


class Columns(nn.Module):
    """Eight by eight blocks, averaged: a backbone whose features are where the image is bright."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(images, 8)


def test_weights_equal_the_gradients_of_a_linear_head() -> None:
    torch.manual_seed(0)
    model = KLGrader("mobilenetv2_035").eval()
    images = torch.rand(2, 3, 96, 96)
    logits, features, weights = logits_and_maps(model.backbone, model.head, images)
    assert torch.allclose(logits, model(images), atol=1e-5)
    cells = features.shape[-1] * features.shape[-2]
    expected = model.classifier.weight[None].expand(2, -1, -1) / cells
    assert torch.allclose(weights, expected, atol=1e-6)


def test_grad_cam_by_hand() -> None:
    features = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]])  # one image, two channels, one row, two columns
    assert grad_cam(features, torch.tensor([[1.0, -1.0]])).tolist() == [[[1.0, 0.0]]]
    assert grad_cam(features, torch.tensor([[0.5, 1.0]])).tolist() == [[[0.5, 2.0]]]


def test_map_lies_inside_the_band_only() -> None:
    laid = on_crop(torch.ones(1, 4, 7), PreprocessSpec(crop_size=224, band=(0.25, 0.75)))
    assert laid.shape == (1, 224, 224)
    assert float(laid[0, :56].max()) == 0
    assert float(laid[0, 56:168].min()) == 1
    assert float(laid[0, 168:].max()) == 0


def test_mirrored_map_comes_back_on_its_own_side() -> None:
    values = torch.zeros(8, 8)
    values[:, 0] = 4.0
    assert np.flatnonzero(to_source(values, mirrored=False)[0]).tolist() == [0]
    assert np.flatnonzero(to_source(values, mirrored=True)[0]).tolist() == [7]
    assert to_source(values, mirrored=True).max() == 1


def test_map_without_any_evidence_stays_zero() -> None:
    assert to_source(torch.zeros(4, 4), mirrored=True).max() == 0


def test_bright_corner_is_found_where_it_is() -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[..., :16, 48:] = 1
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    nn.init.constant_(head[2].weight, 1.0)
    _, features, weights = logits_and_maps(Columns(), head, image)
    cam = grad_cam(features, weights[:, 3])[0]
    assert set(map(tuple, torch.nonzero(cam).tolist())) == {(r, c) for r in (0, 1) for c in (6, 7)}
