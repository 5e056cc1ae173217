"""Made bundles for knee MRI: written as the export writes them, with random or planted weights."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from inference.bias import BiasSpec
from inference.frozen import FrozenBackbone, load_frozen, rebuild, weights_of
from inference.mr_sequences import MRSequence
from inference.slice_bundle import SliceNetwork
from inference.slice_features import slice_features
from inference.slice_manifest import TASKS
from inference.slice_nets import SliceNet, SliceNetSpec
from inference.venn_abers import SCORES
from inference.volumes import VolumeSpec
from training.embed_standins import write_standin

HEADER = ("age", "sex", "bmi", "height", "weight")
CLASSES = {
    "progression_abs": ("no progression", "progression of 0.5 mm or more"),
    "progression_rel": ("no progression", "progression of a quarter or more"),
    "womac_pain_binary": ("WOMAC pain below 1", "WOMAC pain of 2 or more"),
    "womac_pain_class": ("no pain", "some pain", "much pain"),
}


def small_volume(sequence: MRSequence = MRSequence.COR_IW_TSE, slices: int = 8, **changes: Any) -> VolumeSpec:
    """Slices of 64 pixels, N4 with one level: quick on phantoms."""
    return VolumeSpec(sequence, slices=slices, size=64, bias=BiasSpec(iterations=(2,)), **changes)


def random_backbone(folder: Path, name: str = "convnext_small", seed: int = 0) -> FrozenBackbone:
    """A stand-in with random weights; the smallest by default."""
    return load_frozen(name, write_standin(name, folder, seed=seed))


def planted_backbone(folder: Path, size: int = 448) -> FrozenBackbone:
    """A convolutional network whose first feature is the brightness of a cell of 32 pixels, whatever is beside it."""
    backbone = random_backbone(folder)
    config = dict(backbone.settings["config.json"])
    config["pretrained_cfg"] = {**config["pretrained_cfg"], "input_size": [3, size, size]}
    state = weights_of(backbone)
    for name, values in state.items():
        if name.startswith("stem.0.") or ".downsample.1." in name:
            state[name] = _averaging(name, values)
        elif name.endswith(".gamma"):  # of the blocks' scales: the blocks do nothing
            state[name] = torch.zeros_like(values)
    return rebuild("convnext_small", {**backbone.settings, "config.json": config}, state, folder)


def _averaging(name: str, values: torch.Tensor) -> torch.Tensor:
    """Channel 0 is the mean brightness, channel 1 its opposite, 2 and 3 are constant: norms keep their order."""
    planted = torch.zeros_like(values)
    if name.endswith(".bias"):
        planted[2], planted[3] = 1.0, -1.0
        return planted
    sources = [0, 1, 2] if name.startswith("stem.") else [0]
    share = 1.0 / (values.shape[2] * values.shape[3] * len(sources))
    for source in sources:
        planted[0, source], planted[1, source] = share, -share
    return planted


def write_bundle(
    folder: Path,
    backbone: FrozenBackbone,
    volume: VolumeSpec | None = None,
    *,
    target: str = "progression_abs",
    clinical: Sequence[str] = HEADER,
    networks: int = 2,
    seed: int = 0,
    name: str = "genu-mri-made",
    nets: Sequence[SliceNet] = (),
    **changes: Any,
) -> Path:
    """Write a bundle and return its folder; `changes` replace keys of bundle.json. `nets` in place of random ones."""
    volume, classes = volume or small_volume(), CLASSES[target]
    folder.mkdir(parents=True)
    spec = SliceNetSpec(
        features=backbone.width, attention=8, hidden=(16, 8), clinical=tuple(clinical), classes=len(classes)
    )
    made = tuple(nets) or tuple(random_net(spec, seed * 100 + number) for number in range(networks))
    spec = made[0].spec
    offsets = torch.linspace(-0.3, 0.4, len(classes))
    network = SliceNetwork(backbone, made, offsets, 1.3)
    tensors = {f"backbone.{key}": values for key, values in weights_of(backbone).items()}
    for number, net in enumerate(made):
        tensors |= {f"net{number}.{key}": values for key, values in net.state_dict().items()}
    scores = torch.linspace(0, 1, SCORES).expand(len(classes), -1)
    tensors |= {"offsets": offsets, "calibration.p0": (scores - 0.08).clamp(0, 1)}
    tensors["calibration.p1"] = (scores + 0.08).clamp(0, 1)
    _save(tensors, folder / "weights.safetensors")
    generator = np.random.default_rng(seed)
    slices = generator.random((8, volume.size, volume.size)).astype(np.float16)
    people = np.stack([_person(spec.clinical), np.full(len(spec.clinical), np.nan)])
    probe = {
        "slices": torch.from_numpy(slices),
        "clinical": torch.from_numpy(people).float(),
        "probabilities": torch.from_numpy(network.probabilities(slices, people)),
    }
    _save(probe, folder / "probe.safetensors")
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "weights.safetensors", folder / "probe.safetensors")
    }
    values = {
        "format": 1, "name": name, "version": "0.0.1", "task": TASKS[target], "target": target,
        "classes": list(classes), "synthetic": True,
        "backbone": {"name": backbone.name, "weights": "made", "weights_sha256": "0" * 64,
                     "settings": dict(backbone.settings), "input": backbone.input.to_json(), "precision": "single"},
        "volume": volume.to_json(),
        "network": {"spec": spec.to_json(), "count": len(made), "temperature": 1.3,
                    "threshold": 0.4 if len(classes) == 2 else None},
        "calibration": {"method": "Venn-Abers, by patient", "patients": 40, "rows": 80},
        "files": files, "probe": {"tolerance": 0.005},
        "terms": {"licence": "Apache-2.0", "deployed_use": True, "note": ""}, "metrics": {}, "training": {},
        **changes,
    }  # fmt: skip
    (folder / "bundle.json").write_text(json.dumps(values, indent=2), "utf-8")
    (folder / "MODEL_CARD.md").write_text("# made\n\nRandom weights for tests. Its output means nothing.\n", "utf-8")
    return folder


def random_net(spec: SliceNetSpec, seed: int = 0) -> SliceNet:
    """A network that has seen random rows."""
    torch.manual_seed(seed)
    net = SliceNet(spec)
    people = torch.randn(24, len(spec.clinical)) * torch.tensor([_SPREAD.get(name, 1.0) for name in spec.clinical])
    people += torch.tensor([_USUAL.get(name, 1.0) for name in spec.clinical])
    net.learn_scale(torch.randn(24, 4, spec.features) * 0.3, people)
    return net.eval().requires_grad_(False)


def bright_net(backbone: FrozenBackbone, reference: np.ndarray[Any, Any]) -> SliceNet:
    """A network for `planted_backbone` that answers with its first feature, as mean and spread of slices (S, H, W)."""
    net = random_net(SliceNetSpec(features=backbone.width, attention=8, hidden=(16, 8), clinical=HEADER))
    seen = torch.from_numpy(slice_features(backbone, reference)).float()
    net.learn_scale(seen[None], torch.zeros(1, len(HEADER)))
    state = {key: values.clone() for key, values in net.state_dict().items()}
    for key, values in state.items():
        if key.startswith(("answer.", "attend.", "gate.")):
            values.zero_()
    state["answer.1.weight"][0, 0], state["answer.1.bias"][0] = 1.0, 10.0
    state["answer.4.weight"][0, 0] = 1.0
    state["answer.6.weight"][1, 0] = 1.0
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


_USUAL = {"age": 61.0, "sex": 0.5, "bmi": 29.0, "height": 1.7, "weight": 82.0}
_SPREAD = {"age": 9.0, "sex": 0.5, "bmi": 5.0, "height": 0.1, "weight": 15.0}


def _person(names: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([_USUAL.get(name, 1.0) for name in names], np.float64)


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({key: values.detach().contiguous().clone() for key, values in tensors.items()}, path)
