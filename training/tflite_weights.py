"""Reads the 8-bit quantised ImageNet MobileNetV2 (TFLite) as float weights for timm's `mobilenetv2_100`.

Per-tensor affine quantisation: w = scale * (q - zero_point); int32 biases carry scale = s_input * s_weight. Batch
normalisation is folded into the convolutions there. `load_into` unfolds it again around statistics measured on given
images, so that fine-tuning starts from a network whose training and evaluation modes agree.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from inference.errors import DataError

Folded = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def read_folded(path: Path) -> list[Folded]:
    """Return (weight, bias) of every convolution in order of execution, the classifier last.

    Weights are float32 in torch's layout: (out, in, kh, kw), depthwise (channels, 1, kh, kw).

    Raises:
        DataError: the file is not a TFLite model, or holds tensors that are not uint8/int32.
    """
    import tflite

    buffer = path.read_bytes()
    if not tflite.Model.ModelBufferHasIdentifier(buffer, 0):
        raise DataError(f"{path} is not a TFLite model: its identifier TFL3 is missing. Name the .tflite file itself.")
    model = tflite.Model.GetRootAs(buffer, 0)
    graph = model.Subgraphs(0)
    dtypes = {tflite.TensorType.UINT8: np.uint8, tflite.TensorType.INT32: np.int32}

    def dequantise(index: int) -> npt.NDArray[np.float32]:
        tensor = graph.Tensors(index)
        if tensor.Type() not in dtypes:
            raise DataError(
                f"{path}: tensor {tensor.Name()!r} has type {tensor.Type()}; only uint8 and int32 are read."
            )
        raw = model.Buffers(tensor.Buffer()).DataAsNumpy().view(dtypes[tensor.Type()]).reshape(tensor.ShapeAsNumpy())
        quantisation = tensor.Quantization()
        values = raw.astype(np.float64) - float(quantisation.ZeroPointAsNumpy()[0])
        return np.asarray(values * float(quantisation.ScaleAsNumpy()[0]), dtype=np.float32)

    folded: list[Folded] = []
    for position in range(graph.OperatorsLength()):
        operator = graph.Operators(position)
        code = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        if code == tflite.BuiltinOperator.CONV_2D:
            axes = (0, 3, 1, 2)  # OHWI -> OIHW
        elif code == tflite.BuiltinOperator.DEPTHWISE_CONV_2D:
            axes = (3, 0, 1, 2)  # 1HWC -> C1HW
        else:
            continue
        weight = dequantise(operator.Inputs(1)).transpose(axes)
        folded.append((np.ascontiguousarray(weight), dequantise(operator.Inputs(2))))
    return folded


@torch.no_grad()
def load_into(model: nn.Module, folded: list[Folded], images: torch.Tensor) -> None:
    """Load folded weights into a timm MobileNetV2 and unfold its batch normalisation around `images`.

    The module's output in evaluation mode equals that of the folded network; in training mode it does as well, up to
    the sampling of a batch. `images` is float (N, 3, H, W), preprocessed as in training.

    Raises:
        DataError: the number or the shapes of the convolutions differ.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not len(convolutions) == len(norms) == len(folded) - 1:
        raise DataError(
            f"the model has {len(convolutions)} convolutions and {len(norms)} batch norms, the file {len(folded) - 1} "
            "convolutions before its classifier: use mobilenetv2_100 and mobilenet_v2_1.0_224_quant."
        )
    for convolution, norm, (weight, bias) in zip(convolutions, norms, folded, strict=False):
        if tuple(convolution.weight.shape) != weight.shape:
            raise DataError(f"a convolution has shape {tuple(convolution.weight.shape)}, the file {weight.shape}.")
        convolution.weight.copy_(torch.from_numpy(weight))
        _set_norm(norm, torch.zeros(len(bias)), torch.full((len(bias),), 1.0 - norm.eps), torch.from_numpy(bias))
    statistics = _measure(model, convolutions, images)
    for norm, (_, bias), (mean, variance) in zip(norms, folded, statistics, strict=False):
        _set_norm(norm, mean, variance, torch.from_numpy(bias) + mean)


def _set_norm(norm: _BatchNorm, mean: torch.Tensor, variance: torch.Tensor, shift: torch.Tensor) -> None:
    """Make the norm compute x - mean + shift, whatever the variance."""
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101 - for the type checker
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(shift)


def _measure(
    model: nn.Module, convolutions: list[nn.Conv2d], images: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mean and variance per channel of each convolution's output."""
    found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def record(module: nn.Module, _: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        variance, mean = torch.var_mean(output.float(), dim=(0, 2, 3), correction=0)
        found[id(module)] = (mean, variance)

    handles = [convolution.register_forward_hook(record) for convolution in convolutions]
    was_training = model.training
    model.eval()
    model(images)
    model.train(was_training)
    for handle in handles:
        handle.remove()
    return [found[id(convolution)] for convolution in convolutions]
