"""Attentive probe: a few learnt queries pool a knee's patch tokens, one linear layer scores what they gathered.

The backbone stays frozen. Two outputs share the attention: one learns by squared error, one by absolute error. The
epoch is chosen on patients that are held back from the training rows; then it learns anew, from all of these rows, for
so many epochs. Tokens are read shard by shard, not all at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from inference.errors import DataError
from training.folds import patient_folds
from training.regression_samples import Curve, Floats, Ints, Samples, Tokens, is_whole

_HELD_BACK = 8  # of so many parts one chooses the epoch


class Probe(nn.Module):
    """Tokens (N, P, C) to (N, 2): mean and median. Buffers centre and scale (C,) standardise the tokens."""

    def __init__(self, channels: int, queries: int, centre: torch.Tensor, scale: torch.Tensor, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.query = nn.Parameter(torch.randn(queries, channels, generator=generator))
        self.weight = nn.Parameter(torch.zeros(2, queries * channels))
        self.bias = nn.Parameter(torch.zeros(2))
        self.centre, self.scale = nn.Buffer(centre), nn.Buffer(scale)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """As the class says."""
        z = (tokens - self.centre) / self.scale
        attention = (z @ self.query.T / z.shape[2] ** 0.5).softmax(dim=1)
        answers: torch.Tensor = (attention.transpose(1, 2) @ z).flatten(1) @ self.weight.T + self.bias
        return answers


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """Of one fold; the probe's answers are in units of `spread` about `middle`."""

    probe: Probe
    middle: float
    spread: float
    batch: int
    whole: bool
    chosen: Mapping[str, Any]
    curves: Sequence[Curve]

    def predict(self, samples: Samples) -> tuple[Floats, Floats]:
        """Mean and median."""
        found = _answers(self.probe, _tokens(samples), samples.knees, self.batch) * self.spread + self.middle
        return found[:, 0], np.rint(found[:, 1]) if self.whole else found[:, 1]

    def final(self) -> Mapping[str, Any]:
        """Fields of a `FinalHead`."""
        state = {name: values.cpu().numpy() for name, values in self.probe.state_dict().items()}
        state["weight"], state["bias"] = state["weight"] * self.spread, state["bias"] * self.spread + self.middle
        return {"kind": "attentive", "tensors": state, "whole": self.whole}


@dataclass(eq=False)
class _Learning:
    """A probe that learns from `rows`, epoch by epoch; y is their truth, less `middle`, in units of `spread`."""

    rows: Samples
    y: Floats
    middle: float
    spread: float
    probe: Probe
    steps: torch.optim.Optimizer
    batch: int
    seed: int

    def epoch(self, number: int) -> float:
        """The mean loss of one epoch."""
        self.probe.train()
        total, device = 0.0, self.probe.bias.device
        tokens = _tokens(self.rows)
        for places, values in tokens.batches(self.rows.knees.tolist(), self.batch, self.seed * 1000 + number):
            truth = torch.from_numpy(self.y[places]).float().to(device)
            answers = self.probe(torch.from_numpy(values).to(device))
            loss = (answers[:, 0] - truth).square().mean() + (answers[:, 1] - truth).abs().mean()
            self.steps.zero_grad()
            loss.backward()
            self.steps.step()
            total += float(loss.detach()) * len(places)
        return total / len(self.y)


@dataclass(frozen=True)
class AttentiveHead:
    """queries: how many. batch: knees of a step. epochs: at most; patience: epochs without a gain before it ends."""

    queries: int = 4
    batch: int = 32
    epochs: int = 40
    patience: int = 6
    rate: float = 1e-3
    decay: float = 1e-2
    name: str = "attentive probe"

    def fit(self, samples: Samples, target: Floats, seed: int) -> FittedProbe:
        """Choose the epoch on patients that are held back, then learn from all rows for so many epochs.

        The curves are those of the choice.

        Raises:
            DataError: there are no tokens, or fewer than two patients.
        """
        count = min(_HELD_BACK, len(np.unique(samples.patients)))
        held = patient_folds(samples.patients.tolist(), target, max(count, 2), seed) == 0
        epochs, curves = self._choose(samples, target, held, seed)
        final = self._begin(samples, target, seed)
        for epoch in range(1, epochs + 1):
            final.epoch(epoch)
        chosen = {"epoch": epochs}
        probe = final.probe.eval()
        return FittedProbe(probe, final.middle, final.spread, self.batch, is_whole(target), chosen, curves)

    def _begin(self, rows: Samples, target: Floats, seed: int) -> _Learning:
        middle, spread = float(target.mean()), float(target.std()) or 1.0
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        centre, scale = _moments(_tokens(rows), rows.knees, self.batch)
        probe = Probe(len(centre), self.queries, centre, scale, seed).to(device)
        steps = torch.optim.AdamW(probe.parameters(), lr=self.rate, weight_decay=self.decay)
        return _Learning(rows, (target - middle) / spread, middle, spread, probe, steps, self.batch, seed)

    def _choose(
        self, samples: Samples, target: Floats, held: npt.NDArray[np.bool_], seed: int
    ) -> tuple[int, list[Curve]]:
        """The epoch after which the held-back knees are answered best by a probe of the others, and its curves."""
        learning, back = self._begin(samples.take(~held), target[~held], seed), samples.take(held)
        truth = (target[held] - learning.middle) / learning.spread
        best, chosen, curves = np.inf, 0, []
        for epoch in range(1, self.epochs + 1):
            learnt = learning.epoch(epoch)
            answers = _answers(learning.probe, _tokens(back), back.knees, self.batch)
            loss = float(((answers[:, 0] - truth) ** 2).mean() + np.abs(answers[:, 1] - truth).mean())
            rmse = float(np.sqrt(((answers[:, 0] - truth) ** 2).mean())) * learning.spread
            curves += [Curve(epoch, "loss", learnt), Curve(epoch, "held_back_loss", loss)]
            curves.append(Curve(epoch, "held_back_rmse", rmse))
            if loss < best:
                best, chosen = loss, epoch
            if epoch - chosen >= self.patience:
                break
        return chosen, curves


def _tokens(samples: Samples) -> Tokens:
    if samples.tokens is None:
        raise DataError("an attentive probe needs patch tokens: run `genu-train embed` with --features patches.")
    return samples.tokens


def _answers(probe: Probe, tokens: Tokens, knees: Any, batch: int) -> Floats:
    found = np.zeros((len(knees), 2))
    probe.eval()
    with torch.inference_mode():
        for places, values in tokens.batches(knees.tolist(), batch, None):
            found[places] = probe(torch.from_numpy(values).to(probe.bias.device)).double().cpu().numpy()
    return found


def _moments(tokens: Tokens, knees: Any, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel over the tokens of these knees, (C,) each."""
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    places: Ints
    for places, values in tokens.batches(knees.tolist(), batch, None):
        wide = values.astype(np.float64)
        count += len(places) * values.shape[1]
        total, squares = total + wide.sum((0, 1)), squares + (wide**2).sum((0, 1))
    centre = total / count
    spread = np.sqrt(np.maximum(squares / count - centre**2, 0))
    scale = np.where(spread > 1e-6, spread, 1.0)
    return torch.from_numpy(centre).float(), torch.from_numpy(scale).float()
