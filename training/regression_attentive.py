"""Attentive probe: a few learnt queries pool a knee's patch tokens, one linear layer scores what they gathered.

The backbone stays frozen. Two outputs share the attention: one learns by squared error, one by absolute error. The
epoch is chosen on patients that are held back from the training rows. Tokens are read shard by shard, not all at once.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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
        """Learn on all but the patients held back; keep the epoch that is best on those.

        Raises:
            DataError: there are no tokens, or fewer than two patients.
        """
        count = min(_HELD_BACK, len(np.unique(samples.patients)))
        held = patient_folds(samples.patients.tolist(), target, max(count, 2), seed) == 0
        rows, back = samples.take(~held), samples.take(held)
        middle, spread = float(target[~held].mean()), float(target[~held].std()) or 1.0
        y, truth = (target[~held] - middle) / spread, (target[held] - middle) / spread
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        centre, scale = _moments(_tokens(samples), rows.knees, self.batch)
        probe = Probe(len(centre), self.queries, centre, scale, seed).to(device)
        steps = torch.optim.AdamW(probe.parameters(), lr=self.rate, weight_decay=self.decay)
        best, since, curves, state = np.inf, 0, [], copy.deepcopy(probe.state_dict())
        chosen = {"epoch": 0}
        for epoch in range(1, self.epochs + 1):
            learnt = self._epoch(probe, steps, rows, y, seed * 1000 + epoch)
            answers = _answers(probe, _tokens(back), back.knees, self.batch)
            loss = float(((answers[:, 0] - truth) ** 2).mean() + np.abs(answers[:, 1] - truth).mean())
            rmse = float(np.sqrt(((answers[:, 0] - truth) ** 2).mean())) * spread
            curves += [Curve(epoch, "loss", learnt), Curve(epoch, "held_back_loss", loss)]
            curves.append(Curve(epoch, "held_back_rmse", rmse))
            since += 1
            if loss < best:
                best, since, state = loss, 0, copy.deepcopy(probe.state_dict())
                chosen = {"epoch": epoch}
            if since >= self.patience:
                break
        probe.load_state_dict(state)
        return FittedProbe(probe.eval(), middle, spread, self.batch, is_whole(target), chosen, curves)

    def _epoch(self, probe: Probe, steps: torch.optim.Optimizer, rows: Samples, y: Floats, seed: int) -> float:
        probe.train()
        total = 0.0
        for places, tokens in _tokens(rows).batches(rows.knees.tolist(), self.batch, seed):
            device = probe.bias.device
            truth = torch.from_numpy(y[places]).float().to(device)
            answers = probe(torch.from_numpy(tokens).to(device))
            loss = (answers[:, 0] - truth).square().mean() + (answers[:, 1] - truth).abs().mean()
            steps.zero_grad()
            loss.backward()
            steps.step()
            total += float(loss.detach()) * len(places)
        return total / len(y)


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
