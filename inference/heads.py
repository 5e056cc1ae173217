"""What stands on a backbone: the Kellgren-Lawrence head, and the grader made of both."""

import torch
from torch import nn

from inference.backbones import Backbone

GRADES = 5


class KLGrader(nn.Module):
    """Backbone, average pooling, dropout, one linear layer to five logits (KL 0..4).

    The head is linear in the pooled features, so that Grad-CAM of an expected grade is exact in them.
    """

    def __init__(self, backbone: str, dropout: float = 0.2) -> None:
        super().__init__()
        self.backbone = Backbone(backbone)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.backbone.features, GRADES)

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) feature map to (N, 5) logits."""
        return self.classifier(self.dropout(features.mean(dim=(2, 3))))  # type: ignore[no-any-return]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) network input to (N, 5) logits."""
        return self.head(self.backbone(images))


def expected_grade(probabilities: torch.Tensor) -> torch.Tensor:
    """(N, 5) probabilities to (N,) mean grades, 0..4."""
    grades = torch.arange(GRADES, dtype=probabilities.dtype, device=probabilities.device)
    return (probabilities * grades).sum(dim=-1)
