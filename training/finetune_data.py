"""What fine-tuning learns from: knees with their truth, the inner split of patients, and batches made a step ahead."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.model_selection import GroupShuffleSplit

from inference.errors import DataError
from training.augment import AugmentConfig, augment
from training.knee_crops import KneeCrops
from training.splits import check_disjoint

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Batch = tuple[torch.Tensor, torch.Tensor]
_AHEAD = 2  # batches made while the network is at one

# Modest: geometry as the finder may miss, contrast as films differ; nothing that hides what pain could be seen by.
MODEST = AugmentConfig(
    rotation=8.0, scale=0.1, shift=0.05, gamma=0.3, p_unequalise=0.0, p_equalise=0.0, p_invert=0.0, p_noise=0.2,
    p_blur=0.1, p_flip=0.0,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Samples:
    """Knees: their keys, the truth (N,) in the target's units, and their patients."""

    knees: tuple[str, ...]
    truth: Floats
    patients: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.knees)

    def where(self, mask: Bools) -> "Samples":
        """Those for which `mask` (N,) is true."""
        rows = np.flatnonzero(mask)
        return Samples(
            tuple(self.knees[row] for row in rows), self.truth[rows], tuple(self.patients[row] for row in rows)
        )


def inner_split(samples: Samples, fraction: float, seed: int) -> tuple[Samples, Samples]:
    """Training and validation knees for early stopping; a patient is in one of them.

    Raises:
        DataError: there are fewer than two patients.
    """
    if len(set(samples.patients)) < 2:
        raise DataError("the training folds hold fewer than two patients: nothing is left to stop early by.")
    splitter = GroupShuffleSplit(1, test_size=fraction, random_state=seed)
    _, rows = next(splitter.split(np.zeros(len(samples)), groups=np.asarray(samples.patients, np.str_)))
    held = np.zeros(len(samples), np.bool_)
    held[rows] = True
    train, tune = samples.where(~held), samples.where(held)
    check_disjoint(train=train.patients, tune=tune.patients)
    return train, tune


def learning_batches(
    crops: KneeCrops, samples: Samples, size: int, config: AugmentConfig, generator: torch.Generator
) -> Iterator[Batch]:
    """Augmented batches in a random order; every random number comes from `generator`.

    Yields:
        uint8 (n, 1, S, S) and float32 (n,). 8 bits, so that mixed precision does not round them further.
    """
    order = torch.randperm(len(samples), generator=generator).numpy()

    def made(rows: npt.NDArray[np.int64]) -> Batch:
        images = augment(_crops(crops, [samples.knees[row] for row in rows]).float() / 255, config, generator)
        return (images * 255).round().to(torch.uint8), torch.from_numpy(samples.truth[rows]).float()

    parts = [order[start : start + size] for start in range(0, len(order), size)]
    if len(parts) > 1 and len(parts[-1]) == 1:  # batch statistics of one image are none
        parts.pop()
    waiting: deque[Future[Batch]] = deque()
    # One thread, so that random numbers are drawn in order; no process: a fork after OpenMP can hang.
    with ThreadPoolExecutor(1) as pool:
        for rows in parts:
            waiting.append(pool.submit(made, rows))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def plain_batches(crops: KneeCrops, knees: Sequence[str], size: int) -> Iterator[torch.Tensor]:
    """uint8 (n, 1, S, S), in order."""
    for start in range(0, len(knees), size):
        yield _crops(crops, knees[start : start + size])


def _crops(crops: KneeCrops, knees: Sequence[str]) -> torch.Tensor:
    return torch.from_numpy(crops.take(knees))[:, None]
