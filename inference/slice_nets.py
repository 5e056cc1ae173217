"""The MRI network: attention over slice features and clinical variables (Schiratti et al. 2021, figure 2).

Features of each slice -> gated attention by convolutions along the slices -> GRU -> one scalar a slice -> softmax over
slices -> weighted mean of the features, beside standardised clinical variables -> two hidden layers -> classes. The
paper gives no widths; those of `SliceNetSpec` are ours.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from inference.bundle_files import flag, number, whole
from inference.errors import BundleError


@dataclass(frozen=True)
class SliceNetSpec:
    """The shape of a network; travels with its weights.

    features: width of a slice's vector (1280 of EfficientNet-B0). attention: width of the gate. kernel: slices that
    the gate sees at once. bidirectional: the GRU reads the slices both ways (whole volumes). hidden: of the last
    layers. clinical: names of the clinical variables; () for the image alone. classes: of the answer.
    """

    features: int = 1280
    attention: int = 128
    kernel: int = 3
    bidirectional: bool = False
    hidden: tuple[int, int] = (256, 64)
    dropout: float = 0.5
    clinical: tuple[str, ...] = ()
    classes: int = 2

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SliceNetSpec":
        """Rebuild.

        Raises:
            BundleError: a key is unknown or missing, or a value not possible.
        """
        if set(values) != set(cls.__dataclass_fields__):
            raise BundleError(f"the slice network is described by {sorted(values)}: fit it again.")
        try:
            first, second = values["hidden"]
            sizes = {**values, "first": first, "second": second}
            for key in ("features", "attention", "kernel", "first", "second", "classes"):
                whole(sizes, key, 1, 2**16)
            number(values, "dropout", 0, 1)
            flag(values, "bidirectional")
            clinical = tuple(map(str, values["clinical"]))
        except (ValueError, TypeError) as error:
            raise BundleError(f"the slice network cannot be: {error}; fit it again.") from error
        return cls(**{**values, "hidden": (first, second), "clinical": clinical})


class SliceNet(nn.Module):
    """See the module. Holds what standardises features and clinical variables, so that all travel together."""

    centre: torch.Tensor
    spread: torch.Tensor
    median: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, spec: SliceNetSpec) -> None:
        super().__init__()
        self.spec = spec
        count = len(spec.clinical)
        self.attend = nn.Conv1d(spec.features, spec.attention, spec.kernel, padding=spec.kernel // 2)
        self.gate = nn.Conv1d(spec.features, spec.attention, spec.kernel, padding=spec.kernel // 2)
        self.reader = nn.GRU(spec.attention, 1, batch_first=True, bidirectional=spec.bidirectional)
        first, second = spec.hidden
        self.answer = nn.Sequential(
            nn.Dropout(spec.dropout),
            nn.Linear(spec.features + 2 * count, first),
            nn.ReLU(),
            nn.Dropout(spec.dropout),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, spec.classes),
        )
        # A GRU's answer lies within -1..1; greater at the start it settles on slices before their contents are known.
        self.sharpness = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("centre", torch.zeros(spec.features))
        self.register_buffer("spread", torch.ones(spec.features))
        self.register_buffer("median", torch.zeros(count))
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))

    def learn_scale(self, slices: torch.Tensor, clinical: torch.Tensor) -> None:
        """Set means and deviations from training rows: slice features (N, S, D), clinical (N, C) with NaN for missing.

        A variable that nobody has, or that does not vary, is told apart by its missing indicator alone.
        """
        deviation, mean = torch.std_mean(slices.flatten(0, 1), dim=0, unbiased=False)
        self.centre.copy_(mean)
        self.spread.copy_(torch.where(deviation > 1e-6, deviation, 1.0))
        for column in range(clinical.shape[1]):
            known = clinical[:, column][clinical[:, column].isfinite()]
            self.median[column] = known.median() if len(known) else 0.0
            self.mean[column] = known.mean() if len(known) else 0.0
            spread = known.std(unbiased=False) if len(known) else torch.tensor(0.0)
            self.scale[column] = spread if spread > 1e-6 else 1.0

    def attention(self, slices: torch.Tensor) -> torch.Tensor:
        """Weights (N, S) of slice features (N, S, D); each row sums to 1."""
        return self._weights(self._scaled(slices))

    def _scaled(self, slices: torch.Tensor) -> torch.Tensor:
        return ((slices - self.centre) / self.spread).clamp(-6, 6)

    def _weights(self, scaled: torch.Tensor) -> torch.Tensor:
        across = scaled.transpose(1, 2)
        gated = torch.tanh(self.attend(across)) * torch.sigmoid(self.gate(across))
        scores, _ = self.reader(gated.transpose(1, 2))
        return torch.softmax(self.sharpness * scores.sum(dim=2), dim=1)

    def standardised(self, clinical: torch.Tensor) -> torch.Tensor:
        """Clinical variables (N, C), NaN for missing, to (N, 2 C): imputed by the median and standardised; missing."""
        missing = ~clinical.isfinite()
        filled = torch.where(missing, self.median, clinical)
        return torch.cat([((filled - self.mean) / self.scale).clamp(-5, 5), missing.to(filled.dtype)], dim=1)

    def pooled(self, slices: torch.Tensor) -> torch.Tensor:
        """Mean of the standardised slice features by attention: (N, S, D) to (N, D)."""
        scaled = self._scaled(slices)
        return torch.einsum("ns,nsd->nd", self._weights(scaled), scaled)

    def forward(self, slices: torch.Tensor, clinical: torch.Tensor) -> torch.Tensor:
        """Logits (N, K).

        Args:
            slices: features (N, S, D), slices in anatomical order.
            clinical: (N, C) in the order of `spec.clinical`, in their own units, NaN for missing.
        """
        return self.answer(torch.cat([self.pooled(slices), self.standardised(clinical)], dim=1))  # type: ignore[no-any-return]
