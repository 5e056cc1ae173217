"""Fits the knee finder: `genu-train finder`. Resumes where it stopped; checkpoints after every block of steps.

Loss: the focal loss of CenterNet (Zhou et al., "Objects as Points", 2019) on the heat, smooth L1 on place, size and
tilt, cross entropy on what a knee looks like and on the film's view. AdamW, warm-up, cosine decay, averaged weights.
"""

import copy
import json
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import nn
from torch.nn import functional

from inference.finder import ACROSS, FIBULA, OTHER_VIEW, FinderNet, prepared
from training import checkpoints
from training.finder_films import draw_sample, targets
from training.fit import average_into, keep_memory
from training.tflite_weights import load_into, read_folded

Image = npt.NDArray[np.float32]
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Report = Callable[[dict[str, float]], None]

_WARM_UP = 0.06
_KEEP = 0.997
_AHEAD = 4  # batches
_IMAGENET_CLASSES = 1001  # of the TFLite file
_PARTS = ("heat", "place", "looks", "view")


@dataclass(frozen=True)
class FinderConfig:
    """How long and how fast; a block ends with a checkpoint."""

    steps: int = 3200
    block: int = 250
    batch_size: int = 16
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-2
    seed: int = 11


def fit_finder(
    config: FinderConfig,
    crops: npt.NDArray[np.uint8],
    others: Sequence[Image],
    folder: Path,
    initial: Path | None,
    report: Report,
) -> FinderNet:
    """Train the network and return its averaged weights, in evaluation mode.

    Args:
        config: see FinderConfig.
        crops: (N, S, S), left knees, bright bone.
        others: real images without a frontal knee, (rows, columns), 0..1.
        folder: of checkpoints and log.jsonl.
        initial: TFLite file with ImageNet weights; None starts from random ones.
        report: called with the figures of each block.
    """
    keep_memory()
    torch.manual_seed(config.seed)
    model: FinderNet = _initial(config, crops, others, initial).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    done = checkpoints.resume(folder, model, average, optimiser)
    for block in range(done + 1, math.ceil(config.steps / config.block) + 1):
        started = time.monotonic()
        with closing(_films(config, block, crops, others)) as films:
            losses = _run_block(config, block, model, average, optimiser, films)
        checkpoints.save(folder, block, model, average, optimiser)
        figures = {"step": min(block * config.block, config.steps), **losses, "seconds": time.monotonic() - started}
        with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(figures) + "\n")
        report(figures)
    average.eval()
    return average


def loss_parts(answers: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The four losses (see _PARTS), of answers (N, 11, G, G)."""
    _, heat, values, weight, view = batch
    logits = answers[:, :OTHER_VIEW]
    chance = torch.sigmoid(logits)
    centres = heat.ge(0.98).float()
    hits = centres * (1 - chance) ** 2 * functional.logsigmoid(logits)
    misses = (1 - centres) * (1 - heat) ** 4 * chance**2 * functional.logsigmoid(-logits)
    focal = -(hits + misses).sum() / centres.sum().clamp_min(1)
    share = weight[:, None] / weight.sum().clamp_min(1)
    offsets, looks = FIBULA - ACROSS, answers[:, FIBULA:]
    place = functional.smooth_l1_loss(answers[:, ACROSS:FIBULA], values[:, :offsets], beta=0.1, reduction="none")
    crossed = functional.binary_cross_entropy_with_logits(looks, values[:, offsets:], reduction="none")
    film = functional.binary_cross_entropy_with_logits(answers[:, OTHER_VIEW].amax(dim=(1, 2)), view)
    return torch.stack([focal, (place * share).sum(), (crossed * share).sum(), film])


def _films(
    config: FinderConfig, block: int, crops: npt.NDArray[np.uint8], others: Sequence[Image]
) -> Generator[Batch, None, None]:
    """Batches of made films without end, the same for the same seed and block; made ahead in one thread."""
    rng = np.random.default_rng([config.seed, block])

    def make() -> Batch:
        samples = [draw_sample(crops, others, rng) for _ in range(config.batch_size)]
        images = np.stack([prepared(sample.film) for sample in samples])
        heat, values, weight = (np.stack(part) for part in zip(*map(targets, samples), strict=True))
        view = np.asarray([sample.other_view for sample in samples], np.float32)
        parts = [torch.from_numpy(part) for part in (images, heat, values, weight, view)]
        return parts[0], parts[1], parts[2], parts[3], parts[4]

    pool = ThreadPoolExecutor(1)
    try:
        ahead = deque(pool.submit(make) for _ in range(_AHEAD))
        while True:
            yield ahead.popleft().result()
            ahead.append(pool.submit(make))
    finally:
        pool.shutdown(cancel_futures=True)


def _run_block(
    config: FinderConfig,
    block: int,
    model: FinderNet,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    films: Iterator[Batch],
) -> dict[str, float]:
    first = (block - 1) * config.block
    last = min(config.steps, first + config.block)
    weights, total = torch.tensor([1.0, 1.5, 0.5, 0.5]), torch.zeros(len(_PARTS))
    model.train()
    for step in range(first, last):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _schedule(step / config.steps)
        batch = next(films)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answers = model(batch[0].contiguous(memory_format=torch.channels_last))
        parts = loss_parts(answers.float(), batch)
        optimiser.zero_grad(set_to_none=True)
        (parts * weights).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        average_into(average, model, min(_KEEP, (1 + step) / (10 + step)))
        total += parts.detach()
    return dict(zip(_PARTS, (total / max(1, last - first)).tolist(), strict=True))


def _initial(
    config: FinderConfig, crops: npt.NDArray[np.uint8], others: Sequence[Image], initial: Path | None
) -> FinderNet:
    model = FinderNet()
    with torch.no_grad():
        torch.nn.init.constant_(cast(torch.Tensor, model.out.bias)[:ACROSS], -4.0)  # hardly any cell holds a knee
    if initial is not None:
        whole = timm.create_model("mobilenetv2_100", pretrained=False, num_classes=_IMAGENET_CLASSES, pad_type="same")
        with closing(_films(config, 0, crops, others)) as films:
            images = torch.cat([next(films)[0] for _ in range(3)])
        load_into(whole, read_folded(initial), images)
        model.body.load_state_dict(whole.state_dict(), strict=False)
    return model


def _schedule(done: float) -> float:
    if done < _WARM_UP:
        return (done + 0.002) / (_WARM_UP + 0.002)
    return 0.003 + 0.997 * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - _WARM_UP) / (1 - _WARM_UP))))
