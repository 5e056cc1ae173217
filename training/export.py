"""Writes a bundle: weights in half precision, bundle.json, a stored probe and a model card. `genu-train export`."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from inference.bundle import Bundle, Network
from inference.conformal import Conformal
from inference.errors import DataError, UsageError
from inference.heads import KLGrader
from inference.manifest import FORMAT, LARGEST, UNLIKE_FILE, Manifest
from inference.preprocess import PreprocessSpec
from inference.unlike import Familiar
from training.halves import rounded, stored
from training.schematic import CROP, schematic_knee

PROBE_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Parts:
    """What a bundle is made of. `networks` are (name, backbone, spec, model).

    `conformal`, and `familiar` by name of network with its `unlike_limit`, may be missing: no sets are told then, and
    nothing is refused as unlike the training knees.
    """

    name: str
    version: str
    synthetic: bool
    networks: Sequence[tuple[str, str, PreprocessSpec, KLGrader]]
    temperature: float
    decoder: str
    metrics: Mapping[str, Any]
    training: Mapping[str, Any]
    card: str
    conformal: Conformal | None = None
    familiar: Mapping[str, Familiar] | None = None
    unlike_limit: float | None = None

    @property
    def calibration(self) -> dict[str, Any]:
        """As it stands in bundle.json."""
        values: dict[str, Any] = {"temperature": self.temperature}
        if self.conformal is not None:
            values["conformal"] = self.conformal.to_json()
        if self.familiar is not None:
            values["unlike"] = {"limit": self.unlike_limit}
        return values


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `out` at the end; where that is not reached `out` stays as it was."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(out, ignore_errors=True)
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_out(out: Path) -> None:
    """That nothing but an older bundle is lost when a bundle takes the place of `out`.

    Raises:
        UsageError: it has no name of its own, is a file, or a folder of other things.
    """
    taken = out.exists() and not out.is_dir()
    if taken or not out.name or out.name == ".." or (out.is_dir() and not _replaceable(out)):
        raise UsageError(
            f"--out {out}: it holds something else than a bundle, which is not deleted; name a new folder."
        )


def _replaceable(folder: Path) -> bool:
    return (folder / "bundle.json").is_file() or not any(folder.iterdir())


def write_bundle(parts: Parts, out: Path) -> Bundle:
    """Write the bundle into `out`, replacing what is there, and load it again as the service would.

    Raises:
        UsageError: `out` holds something else than a bundle.
        DataError: the files are larger than a bundle may be.
        BundleError: what was written does not replay its own probe.
    """
    check_out(out)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(_weights(parts), part / "weights.safetensors")
    (part / "MODEL_CARD.md").write_text(parts.card, encoding="utf-8")
    _write_probe(parts, part)
    if parts.familiar is not None:
        planes = [known.stored(name) for name, known in parts.familiar.items()]
        save_file({key: tensor for plane in planes for key, tensor in plane.items()}, part / UNLIKE_FILE)
    names = sorted(path.name for path in part.glob("*.safetensors"))
    values = {
        "format": FORMAT,
        "name": parts.name,
        "version": parts.version,
        "task": "kl",
        "synthetic": parts.synthetic,
        "members": [{"name": n, "backbone": b, "spec": s.to_json()} for n, b, s, _ in parts.networks],
        "calibration": parts.calibration,
        "decoder": parts.decoder,
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


def _weights(parts: Parts) -> dict[str, torch.Tensor]:
    return {f"{name}.{key}": value for name, _, _, model in parts.networks for key, value in stored(model).items()}


def _write_probe(parts: Parts, folder: Path) -> None:
    """Synthetic pictures, no patient's: stripes and a drawn knee, each with noise."""
    crops = probe_crops()
    networks = tuple(Network(rounded(model), spec) for _, _, spec, model in parts.networks)
    manifest = Manifest(
        folder=folder, name=parts.name, version=parts.version, task="kl", synthetic=parts.synthetic, members=(),
        temperature=parts.temperature, decoder=parts.decoder, files={}, probe_tolerance=PROBE_TOLERANCE, digest="",
        metrics={}, training={},
    )  # fmt: skip
    bundle = Bundle(manifest, networks, torch.device("cpu"))
    probabilities = bundle.probabilities(crops.float()[:, None] / 255)
    save_file({"crops": crops, "probabilities": probabilities.contiguous()}, folder / "probe.safetensors")


def probe_crops() -> torch.Tensor:
    """Four synthetic crops, uint8 (4, 224, 224), always the same."""
    generator = np.random.default_rng(20240229)
    ramp = np.linspace(0, 1, 224, dtype=np.float32)
    edge = round(0.5 * (1 - CROP) * 330)
    knee = schematic_knee(330, 330, generator)[edge : edge + 224, edge : edge + 224]
    stripes = 0.5 + 0.4 * np.sin(40 * ramp)[:, None] * np.ones(224, np.float32)
    pictures = [knee, 0.5 * knee + 0.5 * ramp, stripes, 0.7 * knee + 0.3 * stripes]
    noisy = [np.clip(picture + generator.normal(0, 0.03, (224, 224)), 0, 1) for picture in pictures]
    return torch.from_numpy(np.stack([(picture * 255).round().astype(np.uint8) for picture in noisy]))
