"""Fits the networks of a run: `genu-train fit`. Resumes where it stopped; checkpoints after every epoch.

Loss: soft ordinal cross entropy (the true grade's neighbours get a share) plus 0.2 times the squared error of the
expected grade. AdamW, linear warm-up, cosine decay, exponential moving average of the weights.
"""

import copy
import ctypes
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from inference.heads import GRADES, KLGrader, expected_grade
from inference.preprocess import apply
from training import checkpoints
from training.augment import augment
from training.config import MemberConfig
from training.crops import CropSet
from training.depthwise import quicken
from training.initial import start_from
from training.metrics import accuracy, quadratic_kappa

Report = Callable[[dict[str, float]], None]


def fit_member(
    config: MemberConfig,
    train: CropSet,
    tune: CropSet,
    folder: Path,
    initial: Sequence[Path],
    report: Report,
    earlier: Mapping[str, tuple[MemberConfig, nn.Module]] = MappingProxyType({}),
) -> nn.Module:
    """Train one network and return its averaged weights, in evaluation mode.

    Args:
        config: the member's section of the run's TOML file.
        train: what is learnt from.
        tune: held-back patients, only looked at for the log.
        folder: of the member's checkpoints and its log.jsonl.
        initial: files with ImageNet weights (training.initial); none starts from random ones.
        report: called with the figures of each epoch.
        earlier: members that were fitted before, by name: those that `config` starts from and learns from.
    """
    keep_memory()
    torch.manual_seed(config.seed)
    model = KLGrader(config.backbone)
    sample = torch.from_numpy(train.crops[:: max(1, len(train) // 64)][:64]).float()[:, None] / 255
    if config.start:
        model.load_state_dict(earlier[config.start][1].state_dict())
    else:
        start_from(model.backbone, initial, apply(sample, config.spec))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average: nn.Module = copy.deepcopy(model).eval()
    quicken(model)
    optimiser = torch.optim.AdamW(_groups(model, config.weight_decay), lr=config.learning_rate, fused=True)
    done = checkpoints.resume(folder, model, average, optimiser)
    taught = _taught([earlier[name] for name in config.teachers], train) if done < config.epochs else None
    for epoch in range(done + 1, config.epochs + 1):
        started = time.monotonic()
        loss = _run_epoch(config, epoch, model, average, optimiser, train, taught)
        checkpoints.save(folder, epoch, model, average, optimiser)
        figures = {
            "epoch": epoch,
            "loss": loss,
            "seconds": time.monotonic() - started,
            **_glance(average, config, tune),
        }
        with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(figures) + "\n")
        report(figures)
    average.eval()
    return average


def ordinal_loss(logits: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
    """Soft ordinal cross entropy + 0.2 squared error of the expected grade; (N, 5) and (N,) to a scalar."""
    distance = (torch.arange(GRADES, device=grades.device) - grades[:, None]).abs().float()
    target = torch.softmax(-2.0 * distance, dim=1)
    error = expected_grade(logits.softmax(dim=1)) - grades.float()
    return functional.cross_entropy(logits, target) + 0.2 * error.square().mean()


def taught_loss(logits: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    """As `ordinal_loss`, towards other networks' probabilities; (N, 5) twice to a scalar."""
    error = expected_grade(logits.softmax(dim=1)) - expected_grade(taught)
    return functional.cross_entropy(logits, taught) + 0.2 * error.square().mean()


def _taught(teachers: Sequence[tuple[MemberConfig, nn.Module]], train: CropSet) -> torch.Tensor | None:
    """The teachers' probabilities (N, 5) of the crops as they are, from their mean logits."""
    if not teachers:
        return None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return (
            torch.stack([predict_logits(model, config, train.crops) for config, model in teachers]).mean(0).softmax(1)
        )


def predict_logits(
    model: nn.Module, config: MemberConfig, crops: npt.NDArray[np.uint8], batch: int = 32
) -> torch.Tensor:
    """Logits (N, 5), float32, of uint8 crops (N, H, W)."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(crops), batch):
            images = torch.from_numpy(crops[start : start + batch]).float()[:, None] / 255
            parts.append(model(apply(images, config.spec).contiguous(memory_format=torch.channels_last)).float())
    return torch.cat(parts)


def keep_memory() -> None:
    """Tell glibc to keep freed memory: without it each step maps and unmaps its activations (a third slower)."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    for parameter, value in ((-1, 2**31 - 1), (-3, 2**30)):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        libc.mallopt(parameter, value)


def _run_epoch(
    config: MemberConfig,
    epoch: int,
    model: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    train: CropSet,
    taught: torch.Tensor | None,
) -> float:
    # One generator per epoch: a resumed run sees what an uninterrupted one would have seen.
    generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
    torch.manual_seed(config.seed * 100_003 + epoch)
    steps = math.ceil(len(train) / config.batch_size)
    total = 0.0
    model.train()
    for step, (crops, grades, rows) in enumerate(_batches(train, config.batch_size, generator)):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _schedule((epoch - 1) + step / steps, config)
        images = apply(augment(crops, config.augment, generator), config.spec)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(images.contiguous(memory_format=torch.channels_last))
        loss = ordinal_loss(logits.float(), grades)
        if taught is not None:
            loss = (loss + taught_loss(logits.float(), taught[rows])) / 2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        # A short memory at first, so that the average forgets the untrained network.
        average_into(
            average, model, min(config.averaging, (1 + (epoch - 1) * steps + step) / (10 + (epoch - 1) * steps + step))
        )
        total += float(loss.detach())
    return total / steps


def _batches(data: CropSet, size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, ...]]:
    order = torch.randperm(len(data), generator=generator).numpy()
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        if len(rows) > 1:  # batch statistics of one image are none
            crops = torch.from_numpy(data.crops[rows]).float()[:, None] / 255
            yield crops, torch.from_numpy(data.grades[rows]), torch.from_numpy(rows)


def _schedule(epoch: float, config: MemberConfig) -> float:
    if epoch < config.warmup_epochs:
        return (epoch + 0.02) / (config.warmup_epochs + 0.02)
    done = (epoch - config.warmup_epochs) / max(1e-9, config.epochs - config.warmup_epochs)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@torch.no_grad()
def average_into(average: nn.Module, model: nn.Module, keep: float) -> None:
    """Move the averaged weights towards the model's; `keep` 0..1 is what stays of them."""
    for mine, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - keep)
        else:
            mine.copy_(theirs)


def _groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _glance(model: nn.Module, config: MemberConfig, tune: CropSet) -> dict[str, float]:
    if not len(tune):
        return {}
    probabilities = predict_logits(model, config, tune.crops).softmax(dim=1)
    grade = probabilities.argmax(dim=1).numpy()
    rounded = expected_grade(probabilities).round().long().numpy()
    return {
        "tune_kappa": quadratic_kappa(tune.grades, grade),
        "tune_accuracy": accuracy(tune.grades, grade),
        "tune_kappa_expected": quadratic_kappa(tune.grades, rounded),
    }
