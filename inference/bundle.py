"""A model on disk: weights.safetensors, bundle.json, probe.safetensors. Not loaded unless it replays its probe."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from inference.errors import BundleError
from inference.explain import grad_cam, logits_and_maps, on_crop
from inference.findings import KLFinding
from inference.heads import GRADES, KLGrader, expected_grade
from inference.manifest import Manifest
from inference.preprocess import PreprocessSpec, apply


@dataclass(frozen=True, eq=False)
class Network:
    """One member, ready to run."""

    model: KLGrader
    spec: PreprocessSpec


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of N crops: `findings` and Grad-CAM `maps`, float32 (N, crop_size, crop_size), of each one's reported grade."""

    findings: tuple[KLFinding, ...]
    maps: torch.Tensor


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle: the mean of its members' logits, divided by the temperature, is its answer."""

    manifest: Manifest
    networks: tuple[Network, ...]
    device: torch.device

    @classmethod
    def load(cls, folder: Path, device: str | None = None) -> "Bundle":
        """Load, check the hashes, and replay the stored probe.

        Args:
            folder: holds bundle.json and the files it lists.
            device: "cpu", "cuda"; None takes a GPU when there is one.

        Raises:
            BundleError: a file is missing or changed, the weights do not fit, or the probe is answered differently.
        """
        manifest = Manifest.read(folder)
        manifest.verify_files()
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            tensors = load_file(folder / "weights.safetensors")
            probe = load_file(folder / "probe.safetensors")
        except (OSError, SafetensorError) as error:
            raise BundleError(f"the weights of {folder} cannot be read: {error}.") from error
        networks = tuple(_network(manifest, position, tensors, chosen) for position in range(len(manifest.members)))
        if not networks or {"crops", "probabilities"} - set(probe):
            raise BundleError(f"{folder} has no network or no probe: export the bundle again.")
        bundle = cls(manifest, networks, chosen)
        bundle.replay(probe["crops"], probe["probabilities"])
        return bundle

    @property
    def spec(self) -> PreprocessSpec:
        """What all members share: crop size and canonical side."""
        return self.networks[0].spec

    def replay(self, crops: torch.Tensor, expected: torch.Tensor) -> None:
        """Compare the answer to stored crops (N, S, S) uint8 with the stored probabilities (N, 5).

        Raises:
            BundleError: names the largest difference.
        """
        found = self.probabilities(crops.float()[:, None] / 255)
        difference = float((found - expected).abs().max())
        if not difference <= self.manifest.probe_tolerance:
            raise BundleError(
                f"the bundle {self.manifest.name} {self.manifest.version} does not replay its probe: probabilities "
                f"differ by {difference:.4f}, {self.manifest.probe_tolerance} is allowed. Do not use it here; check "
                "the versions of torch and timm against the bundle's."
            )

    def probabilities(self, crops: torch.Tensor) -> torch.Tensor:
        """Calibrated probabilities (N, 5) of crops (N, 1, S, S), 0..1, canonical side; on the CPU."""
        with torch.inference_mode():
            images = crops.to(self.device)
            logits = torch.stack([network.model(apply(images, network.spec)).float() for network in self.networks])
            return self._calibrated(logits.mean(dim=0)).cpu()

    def predict(self, crops: torch.Tensor) -> Prediction:
        """Grades and Grad-CAM maps of crops (N, 1, S, S), 0..1, canonical side."""
        logits, maps = [], []
        images = crops.to(self.device)
        for network in self.networks:
            inputs = apply(images, network.spec)
            logits.append(logits_and_maps(network.model.backbone, network.model.head, inputs))
        probabilities = self._calibrated(torch.stack([found[0] for found in logits]).mean(dim=0)).cpu()
        findings = tuple(_finding(row, self.manifest) for row in probabilities)
        grades = torch.tensor([finding.grade for finding in findings], device=self.device)
        for network, (_, features, weights) in zip(self.networks, logits, strict=True):
            chosen = weights[torch.arange(len(grades)), grades]
            laid = on_crop(grad_cam(features, chosen), network.spec)
            maps.append(laid / laid.amax(dim=(1, 2), keepdim=True).clamp_min(1e-9))
        return Prediction(findings, torch.stack(maps).mean(dim=0).cpu())

    def _calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        return (logits / self.manifest.temperature).softmax(dim=1)


def decode(probabilities: npt.NDArray[np.float64], decoder: str) -> npt.NDArray[np.int64]:
    """(N, 5) probabilities to (N,) grades: the most probable one, the median, or the rounded mean."""
    if decoder == "argmax":
        return np.asarray(probabilities.argmax(axis=1), np.int64)
    if decoder == "median":
        return np.asarray((probabilities.cumsum(axis=1) < 0.5).sum(axis=1).clip(0, GRADES - 1), np.int64)
    return np.asarray(np.floor(probabilities @ np.arange(GRADES) + 0.5), np.int64)


def _finding(row: torch.Tensor, manifest: Manifest) -> KLFinding:
    values = row.double()
    values = values / values.sum()
    grades = decode(values.numpy()[None], manifest.decoder)
    first, second, third, fourth, fifth = (float(value) for value in values)
    chances, expected = (first, second, third, fourth, fifth), float(expected_grade(values[None])[0])
    if manifest.conformal is None:
        return KLFinding(int(grades[0]), chances, expected)
    members = manifest.conformal.members(values.numpy()[None], grades)[0]
    within = tuple(int(grade) for grade in members.nonzero()[0])
    return KLFinding(int(grades[0]), chances, expected, within, manifest.conformal.coverage)


def _network(manifest: Manifest, position: int, tensors: dict[str, torch.Tensor], device: torch.device) -> Network:
    member = manifest.members[position]
    model = KLGrader(member.backbone)
    prefix = f"{member.name}."
    state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise BundleError(f"the weights of {member.name!r} do not fit {member.backbone}: {error}.") from error
    return Network(model.eval().requires_grad_(False).to(device), PreprocessSpec.from_json(member.spec))
