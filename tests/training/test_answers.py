"""What networks see is kept beside the run, never read for other networks or knees; the temperature is modest."""

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.heads import KLGrader
from inference.preprocess import PreprocessSpec
from training import answers
from training.answers import logits_of, pooled_features
from training.config import MemberConfig
from training.evaluate import calibrate
from training.fit import predict_logits
from training.metrics import log_loss

CONFIG = MemberConfig("m", "mobilenetv2_035", PreprocessSpec(size=(64, 64)), 1)
CROPS = np.random.default_rng(0).integers(0, 255, (5, 224, 224)).astype(np.uint8)


def network(seed: int) -> KLGrader:
    torch.manual_seed(seed)
    return KLGrader("mobilenetv2_035").eval()


def test_logits_are_those_of_the_whole_network() -> None:
    assert torch.allclose(logits_of(network(0), CONFIG, CROPS), predict_logits(network(0), CONFIG, CROPS), atol=1e-4)


def test_what_was_seen_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pooled_features(network(0), CONFIG, CROPS, tmp_path)

    def unwanted(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(answers, "apply", unwanted)
    assert torch.equal(pooled_features(network(0), CONFIG, CROPS, tmp_path), first)
    for model, config, crops in (
        (network(1), CONFIG, CROPS),
        (network(0), CONFIG, CROPS[:4]),
        (network(0), CONFIG, np.ascontiguousarray(CROPS[::-1])),
        (network(0), MemberConfig("m", "mobilenetv2_035", PreprocessSpec(size=(64, 96)), 1), CROPS),
    ):
        with pytest.raises(AssertionError):
            pooled_features(model, config, crops, tmp_path)


def test_another_head_on_the_same_features_gives_its_own_logits(tmp_path: Path) -> None:
    model = network(0)
    before = logits_of(model, CONFIG, CROPS, tmp_path)
    with torch.no_grad():
        model.classifier.bias.add_(1)
    assert torch.allclose(logits_of(model, CONFIG, CROPS, tmp_path), before + 1)


def test_the_temperature_is_on_the_modest_side() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 5, 400)
    sure = np.where(generator.random(400) < 0.7, truth, generator.integers(0, 5, 400))
    logits = torch.from_numpy(np.eye(5)[sure] * 4)
    subjects = [str(number // 2) for number in range(400)]
    temperature = calibrate(logits, truth, subjects, "median").temperature

    def loss(t: float) -> float:
        return log_loss(truth, np.asarray((logits / t).softmax(dim=1)))

    best = min(np.geomspace(0.3, 3, 400), key=loss)
    assert best < temperature < 1.5 * best
    assert loss(temperature) < loss(1.0)
