"""Fits the MRI network on slice features: weighted cross entropy, inner patients for early stopping and the threshold.

Schiratti et al. 2021 with the defaults of docs/mri.md where they are silent: AdamW, early stopping by average precision
of inner patients, several seeds whose probabilities are averaged. Clinical variables are hidden at random in training,
because an image that arrives seldom brings them.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve
from torch.nn import functional

from inference.slice_nets import SliceNet, SliceNetSpec
from training.folds import patient_folds
from training.regression_samples import Curve

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Slices = npt.NDArray[np.float32] | npt.NDArray[np.float16]


@dataclass(frozen=True)
class SliceFitConfig:
    """How the network learns.

    hide: share of known clinical values that are hidden in a step. inner: one of so many patient-grouped parts of the
    training rows is kept for early stopping, temperature and threshold. seeds: networks, averaged.
    """

    epochs: int = 100
    patience: int = 15
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    hide: float = 0.2
    inner: int = 5
    seeds: int = 3


@dataclass(frozen=True, eq=False)
class SliceModel:
    """Fitted networks: the mean of their probabilities is the answer.

    nets: in evaluation mode. offsets: (K,) log weights of the loss, taken off the logits, so that probabilities are
    those of the training patients. temperature: of the logits. threshold: of the last class, None for three classes.
    """

    nets: tuple[SliceNet, ...]
    offsets: torch.Tensor
    temperature: float
    threshold: float | None
    epochs: tuple[int, ...]
    curves: tuple[Curve, ...] = ()

    def probabilities(self, slices: Slices, clinical: Floats, batch: int = 256) -> Floats:
        """(N, K) of slice features (N, S, D) and clinical variables (N, C)."""
        return _mean_probabilities(self.nets, self.offsets, self.temperature, slices, clinical, batch)

    def attention(self, slices: Slices) -> Floats:
        """Mean weights of the slices, (N, S)."""
        with torch.inference_mode():
            found = [net.attention(torch.from_numpy(slices).float()) for net in self.nets]
        return torch.stack(found).mean(dim=0).numpy().astype(np.float64)


@dataclass(frozen=True, eq=False)
class _Rows:
    slices: Slices
    clinical: Floats
    labels: Ints

    def take(self, rows: npt.NDArray[np.bool_]) -> "_Rows":
        return _Rows(self.slices[rows], self.clinical[rows], self.labels[rows])


def fit_slices(
    slices: Slices,
    clinical: Floats,
    labels: Ints,
    patients: Sequence[str],
    spec: SliceNetSpec,
    config: SliceFitConfig,
    seed: int,
) -> SliceModel:
    """Fit on training rows only.

    Args:
        slices: (N, S, D). clinical: (N, C), NaN for missing. labels: (N,), 0..K-1. patients: (N,).
        spec: its clinical names are the columns of `clinical`.
        config: how.
        seed: of weights, order and the inner split.

    Raises:
        DataError: too few patients for an inner split.
    """
    rows = _Rows(slices, clinical, labels)
    inner = patient_folds(patients, labels.astype(np.float64), config.inner, seed) == 0
    learnt, kept = rows.take(~inner), rows.take(inner)
    weights = _class_weights(learnt.labels, spec.classes)
    nets, curves, best = [], [], []
    for number in range(config.seeds):
        net, epoch, told = _fit_one(learnt, kept, weights, spec, config, seed * 1000 + number)
        nets.append(net)
        best.append(epoch)
        curves += [replace(curve, name=f"{curve.name} of network {number + 1}") for curve in told]
    offsets = weights.log()
    temperature = _temperature(nets, offsets, kept)
    model = SliceModel(tuple(nets), offsets, temperature, None, tuple(best), tuple(curves))
    if spec.classes != 2:
        return model
    found = model.probabilities(kept.slices, kept.clinical)[:, 1]
    return replace(model, threshold=best_threshold(kept.labels, found))


def best_threshold(labels: Ints, probabilities: Floats) -> float:
    """The threshold of the greatest F1; of equal ones the highest. 0.5 where only one class is there."""
    if len(np.unique(labels)) < 2:
        return 0.5
    precision, recall, thresholds = precision_recall_curve(labels, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[::-1][int(np.argmax(f1[:-1][::-1]))])


def average_precision(labels: Ints, probabilities: Floats) -> float:
    """Mean over classes (of two, the second alone) of the average precision; 0 where a class does not occur."""
    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    found = [
        float(average_precision_score(labels == k, probabilities[:, k])) if bool(np.any(labels == k)) else 0.0
        for k in classes
    ]
    return float(np.mean(found))


def _fit_one(
    learnt: _Rows, kept: _Rows, weights: torch.Tensor, spec: SliceNetSpec, config: SliceFitConfig, seed: int
) -> tuple[SliceNet, int, list[Curve]]:
    """One network with the weights of its best epoch, that epoch, and its curves."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = SliceNet(spec)
    net.learn_scale(torch.from_numpy(learnt.slices).float(), torch.from_numpy(learnt.clinical).float())
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    best = (-1.0, np.inf)
    epoch_of_best, state, curves = 0, copy.deepcopy(net.state_dict()), []
    for epoch in range(1, config.epochs + 1):
        loss = _run_epoch(net, learnt, weights, optimiser, config, generator)
        found = _mean_probabilities([net], weights.log(), 1.0, kept.slices, kept.clinical)
        precision = average_precision(kept.labels, found)
        surprise = float(-np.mean(np.log(np.clip(found[np.arange(len(found)), kept.labels], 1e-9, 1))))
        curves += [Curve(epoch, "training loss", loss), Curve(epoch, "inner average precision", precision)]
        if (precision, -surprise) > (best[0], -best[1]):
            best, epoch_of_best, state = (precision, surprise), epoch, copy.deepcopy(net.state_dict())
        if epoch - epoch_of_best >= config.patience:
            break
    net.load_state_dict(state)
    return net.eval().requires_grad_(False), epoch_of_best, curves


def _run_epoch(
    net: SliceNet, rows: _Rows, weights: torch.Tensor, optimiser: torch.optim.Optimizer, config: SliceFitConfig,
    generator: torch.Generator,
) -> float:  # fmt: skip
    net.train()
    order = torch.randperm(len(rows.labels), generator=generator).numpy()
    total = 0.0
    for start in range(0, len(order), config.batch):
        chosen = order[start : start + config.batch]
        clinical = torch.from_numpy(rows.clinical[chosen]).float()
        hidden = torch.rand(clinical.shape, generator=generator) < config.hide
        logits = net(torch.from_numpy(rows.slices[chosen]).float(), clinical.masked_fill(hidden, torch.nan))
        loss = functional.cross_entropy(logits, torch.from_numpy(rows.labels[chosen]), weight=weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        total += float(loss.detach()) * len(chosen)
    net.eval()
    return total / len(order)


def _class_weights(labels: Ints, classes: int) -> torch.Tensor:
    """Inverse frequency, (K,), of mean 1 over the rows; a class that does not occur counts as one row."""
    counts = np.maximum(np.bincount(labels, minlength=classes), 1).astype(np.float64)
    return torch.from_numpy(len(labels) / (classes * counts)).float()


def _temperature(nets: Sequence[SliceNet], offsets: torch.Tensor, kept: _Rows) -> float:
    """Of a grid, the one of the least log loss on the inner patients."""
    best = (np.inf, 1.0)
    for temperature in np.geomspace(0.5, 5.0, 24):
        found = _mean_probabilities(nets, offsets, float(temperature), kept.slices, kept.clinical)
        surprise = float(-np.mean(np.log(np.clip(found[np.arange(len(found)), kept.labels], 1e-9, 1))))
        best = min(best, (surprise, float(temperature)))
    return best[1]


def _mean_probabilities(
    nets: Sequence[SliceNet], offsets: torch.Tensor, temperature: float, slices: Slices, clinical: Floats,
    batch: int = 256,
) -> Floats:  # fmt: skip
    parts = []
    with torch.inference_mode():
        for start in range(0, len(slices), batch):
            seen = torch.from_numpy(slices[start : start + batch]).float()
            people = torch.from_numpy(clinical[start : start + batch]).float()
            found = [torch.softmax((net(seen, people) - offsets) / temperature, dim=1) for net in nets]
            parts.append(torch.stack(found).mean(dim=0))
    return torch.cat(parts).numpy().astype(np.float64)
