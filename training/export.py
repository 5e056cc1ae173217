"""Writes a bundle: weights in half precision, bundle.json, a stored probe and a model card. `genu-train export`."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from inference.bundle import FINDER, Bundle, Network
from inference.errors import DataError
from inference.heads import KLGrader
from inference.manifest import FORMAT, LARGEST, Manifest
from inference.preprocess import PreprocessSpec

PROBE_TOLERANCE = 0.01
FINDER_THRESHOLD = 0.2


@dataclass(frozen=True, eq=False)
class Parts:
    """What a bundle is made of. `networks` are (name, backbone, spec, model); `template` the mean knee."""

    name: str
    version: str
    synthetic: bool
    networks: Sequence[tuple[str, str, PreprocessSpec, KLGrader]]
    template: torch.Tensor
    temperature: float
    decoder: str
    metrics: Mapping[str, Any]
    training: Mapping[str, Any]
    card: str


def write_bundle(parts: Parts, out: Path) -> Bundle:
    """Write the bundle into `out`, replacing what is there, and load it again as the service would.

    Raises:
        DataError: the files are larger than a bundle may be.
        BundleError: what was written does not replay its own probe.
    """
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(_weights(parts), part / "weights.safetensors")
    (part / "MODEL_CARD.md").write_text(parts.card, encoding="utf-8")
    _write_probe(parts, part)
    names = ("weights.safetensors", "probe.safetensors")
    values = {
        "format": FORMAT,
        "name": parts.name,
        "version": parts.version,
        "task": "kl",
        "synthetic": parts.synthetic,
        "members": [{"name": n, "backbone": b, "spec": s.to_json()} for n, b, s, _ in parts.networks],
        "calibration": {"temperature": parts.temperature},
        "decoder": parts.decoder,
        "finder": {"threshold": FINDER_THRESHOLD},
        "files": {name: hashlib.sha256((part / name).read_bytes()).hexdigest() for name in names},
        "probe": {"tolerance": PROBE_TOLERANCE},
        "metrics": dict(parts.metrics),
        "training": dict(parts.training),
    }
    (part / "bundle.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    for path in part.iterdir():
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in part.iterdir())
    if size > LARGEST:
        raise DataError(f"the bundle has {size} bytes, at most {LARGEST} are allowed: use fewer or smaller networks.")
    bundle = Bundle.load(part, "cpu")
    shutil.rmtree(out, ignore_errors=True)
    part.replace(out)
    return bundle


def rounded(model: KLGrader) -> KLGrader:
    """The model with its weights as a bundle stores them, so that figures are those of what ships."""
    state = {
        name: value.half().float() if value.is_floating_point() else value for name, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model.eval()


def _weights(parts: Parts) -> dict[str, torch.Tensor]:
    tensors = {FINDER: parts.template.half().contiguous()}
    for name, _, _, model in parts.networks:
        for key, value in model.state_dict().items():
            tensors[f"{name}.{key}"] = (value.half() if value.is_floating_point() else value).contiguous()
    return tensors


def _write_probe(parts: Parts, folder: Path) -> None:
    """Synthetic pictures, no patient's: stripes and the mean knee, each with noise."""
    crops = probe_crops(parts.template)
    networks = tuple(Network(rounded(model), spec) for _, _, spec, model in parts.networks)
    manifest = Manifest(
        folder, parts.name, parts.version, "kl", parts.synthetic, (), parts.temperature, parts.decoder,
        FINDER_THRESHOLD, {}, PROBE_TOLERANCE, "", {}, {},
    )  # fmt: skip
    bundle = Bundle(manifest, networks, parts.template, torch.device("cpu"))
    probabilities = bundle.probabilities(crops.float()[:, None] / 255)
    save_file({"crops": crops, "probabilities": probabilities.contiguous()}, folder / "probe.safetensors")


def probe_crops(template: torch.Tensor) -> torch.Tensor:
    """Four synthetic crops, uint8 (4, 224, 224), always the same for a template."""
    generator = np.random.default_rng(20240229)
    ramp = np.linspace(0, 1, 224, dtype=np.float32)
    knee = torch.nn.functional.interpolate(template[None, None].float(), size=(224, 224), mode="bilinear")[0, 0].numpy()
    knee = (knee - knee.min()) / max(float(np.ptp(knee)), 1e-9)
    stripes = 0.5 + 0.4 * np.sin(40 * ramp)[:, None] * np.ones(224, np.float32)
    pictures = [knee, 0.5 * knee + 0.5 * ramp, stripes, 0.7 * knee + 0.3 * stripes]
    noisy = [np.clip(picture + generator.normal(0, 0.03, (224, 224)), 0, 1) for picture in pictures]
    return torch.from_numpy(np.stack([(picture * 255).round().astype(np.uint8) for picture in noisy]))
