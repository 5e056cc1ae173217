"""One fine-tuning on Lightning Fabric: mixed precision, early stopping, a checkpoint after every epoch, exact resume.

AdamW, linear warm-up, cosine decay, clipped gradients. Random numbers of an epoch are seeded by the epoch, so that an
interrupted run goes on as an uninterrupted one would have.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from inference.backbones import InputSpec, network_input
from inference.errors import DataError
from training.augment import AugmentConfig
from training.fabric_checkpoints import write_tensors
from training.finetune_data import MODEST, Floats, Samples, learning_batches, plain_batches
from training.knee_crops import KneeCrops

STATE = "state.safetensors"
Report = Callable[[Mapping[str, float]], None]
Curve = list[list[Any]]  # rows of epoch, name, value


@dataclass(frozen=True)
class Recipe:
    """How one network is trained; lengths in epochs.

    loss: "mse", or "huber" with its bend at one standard deviation of the training truth.
    epochs: the most, and the length of the learning rate's decay. patience: without a better validation loss.
    clip: of the gradient's norm.
    """

    loss: str = "mse"
    epochs: int = 30
    patience: int = 6
    batch: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    warmup: float = 1.0
    dropout: float = 0.2
    clip: float = 1.0
    augment: AugmentConfig = field(default=MODEST)


@dataclass(frozen=True, eq=False)
class Fitted:
    """`net` with the weights of its best epoch, on the fabric's device; `curve` has rows of epoch, name and value."""

    net: "ScoreNet"
    epoch: int
    curve: Curve


class ScoreNet(nn.Module):
    """A trunk and one linear output, in the target's units and not cut to its bounds.

    score = centre + spread * (weight . pooled + bias); `centre` and `spread` are of the training truth.
    """

    def __init__(
        self, trunk: nn.Module, width: int, spec: InputSpec, centre: float, spread: float, dropout: float
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.spec = spec
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("centre", torch.tensor(centre))
        self.register_buffer("spread", torch.tensor(spread))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """uint8 (N, 1, S, S), canonical side, to float32 (N,)."""
        trunk = cast(Any, self.trunk)
        images = network_input(crops.float() / 255, self.spec).contiguous(memory_format=torch.channels_last)
        pooled = trunk.forward_head(trunk.forward_features(images), pre_logits=True)
        found = self.head(self.dropout(pooled)).squeeze(1).float()
        return cast(torch.Tensor, self.get_buffer("centre") + self.get_buffer("spread") * found)


@dataclass(eq=False)
class FineTuning:
    """One training, in its own folder of checkpoints.

    train: what is learnt from. tune: other patients, by whom the best epoch is chosen; None trains for exactly `last`
    epochs, along the learning rate of all of them.
    """

    fabric: Fabric
    recipe: Recipe
    crops: KneeCrops
    train: Samples
    tune: Samples | None
    seed: int
    folder: Path
    last: int | None = None

    def run(self, make: Callable[[float, float], ScoreNet], report: Report) -> Fitted:
        """Train, going on from the last checkpoint.

        Args:
            make: the network before its training, of centre and spread.
            report: called after each epoch with its figures, the checkpoint being written.

        Raises:
            DataError: a checkpoint that cannot be read or is of another network, or a loss that is no number any more.
        """
        torch.manual_seed(self.seed)
        spread = max(float(np.std(self.train.truth)), 1e-3)
        net = make(float(np.mean(self.train.truth)), spread)
        optimiser = torch.optim.AdamW(_groups(net, self.recipe.weight_decay), lr=self.recipe.learning_rate)
        model, wrapped = self.fabric.setup(net, optimiser)
        state: dict[str, Any] = {
            "model": model, "optimiser": wrapped, "precision": self.fabric.strategy.precision, "epoch": 0, "best": 0,
            "curve": [],
        }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume(state)
        while not self._over(state):
            epoch = state["epoch"] + 1
            figures = self._epoch(model, wrapped, epoch, spread)
            state["curve"] += [[epoch, name, value] for name, value in figures.items()]
            state["epoch"] = epoch
            if self.tune is None or figures["validation_loss"] <= min(_column(state["curve"], "validation_loss")):
                state["best"] = epoch
                write_tensors(net.state_dict(), self._weights(epoch))
            self.fabric.save(self.folder / STATE, state)
            self._tidy(state["best"])
            report({"epoch": epoch, **figures})
        net.load_state_dict(load_file(self._weights(state["best"])))
        return Fitted(net, state["best"], state["curve"])

    def predict(self, net: ScoreNet, knees: tuple[str, ...]) -> Floats:
        """Scores (N,), not cut to the bounds."""
        net.eval()
        model = self.fabric.setup_module(net)
        return np.concatenate([np.zeros(0), *(_scores(model, batch) for batch in self._plain(knees))])

    def _plain(self, knees: tuple[str, ...]) -> Iterable[torch.Tensor]:
        for crops in plain_batches(self.crops, knees, self.recipe.batch):
            yield self.fabric.to_device(crops)

    def _resume(self, state: dict[str, Any]) -> None:
        path = self.folder / STATE
        if not path.exists():
            return
        try:
            self.fabric.load(path, state)
        except (RuntimeError, KeyError, ValueError) as error:
            raise DataError(
                f"{path} is of another network: remove its folder, or use another run. ({error})"
            ) from error

    def _over(self, state: dict[str, Any]) -> bool:
        if self.tune is None:
            return bool(state["epoch"] >= (self.last or self.recipe.epochs))
        return bool(state["epoch"] >= self.recipe.epochs or state["epoch"] - state["best"] >= self.recipe.patience)

    def _epoch(self, model: Any, optimiser: Any, epoch: int, spread: float) -> dict[str, float]:
        recipe = self.recipe
        seed = self.seed * 100_003 + epoch
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        steps = math.ceil(len(self.train) / recipe.batch)
        total = seen = 0.0
        model.train()
        batches = learning_batches(self.crops, self.train, recipe.batch, recipe.augment, generator)
        for step, (images, truth) in enumerate(batches):
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * _rate(epoch - 1 + step / steps, recipe)
            images, truth = self.fabric.to_device((images, truth))  # noqa: PLW2901
            loss = _loss(model(images), truth, spread, recipe.loss)
            self.fabric.backward(loss)
            self.fabric.clip_gradients(model, optimiser, max_norm=recipe.clip, error_if_nonfinite=False)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            total, seen = total + float(loss.detach()) * len(truth), seen + len(truth)
        figures = {"loss": total / seen, **self._validate(model, spread)}
        if not all(math.isfinite(value) for value in figures.values()):
            raise DataError(
                f"epoch {epoch} ended with a loss that is no number: lower the learning rate, or use fp32 or bf16."
            )
        return figures

    def _validate(self, model: Any, spread: float) -> dict[str, float]:
        if self.tune is None:
            return {}
        model.eval()
        found = np.concatenate([_scores(model, batch) for batch in self._plain(self.tune.knees)])
        error = found - self.tune.truth
        loss = _loss(torch.from_numpy(found), torch.from_numpy(self.tune.truth), spread, self.recipe.loss)
        return {
            "validation_loss": float(loss),
            "validation_rmse": float(np.sqrt(np.mean(error**2))),
            "validation_mae": float(np.mean(np.abs(error))),
        }

    def _weights(self, epoch: int) -> Path:
        return self.folder / f"weights-{epoch:03d}.safetensors"

    def _tidy(self, best: int) -> None:
        for path in self.folder.glob("weights-*.safetensors"):
            if path != self._weights(best):
                path.unlink()


def _scores(model: Any, crops: torch.Tensor) -> Floats:
    with torch.inference_mode():
        return np.asarray(model(crops).double().cpu().numpy(), np.float64)


def _loss(found: torch.Tensor, truth: torch.Tensor, spread: float, kind: str) -> torch.Tensor:
    """In squares of `spread`, so that learning rates mean the same for every target."""
    loss = functional.huber_loss if kind == "huber" else functional.mse_loss
    return loss(found / spread, truth / spread)


def _rate(epoch: float, recipe: Recipe) -> float:
    """Of the learning rate: linear warm-up, then a cosine to a hundredth."""
    if epoch < recipe.warmup:
        return (epoch + 0.02) / (recipe.warmup + 0.02)
    done = (epoch - recipe.warmup) / max(1e-9, recipe.epochs - recipe.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _groups(net: nn.Module, decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _column(curve: Curve, name: str) -> list[float]:
    return [value for _, called, value in curve if called == name]
