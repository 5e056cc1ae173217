"""A model on disk: weights, bundle.json, probe, and what training knees are like. Loads if it replays its probe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from inference.errors import BundleError
from inference.explain import grad_cam, logits_and_maps, on_crop
from inference.findings import KLFinding
from inference.heads import GRADES, KLGrader, expected_grade
from inference.loading import check_replayed, device_of, stored_tensors
from inference.manifest import UNLIKE_FILE, Manifest
from inference.preprocess import PreprocessSpec, apply
from inference.unlike import Familiar


@dataclass(frozen=True, eq=False)
class Network:
    """One member, ready to run, and what its features are like on training knees where the bundle says it."""

    model: KLGrader
    spec: PreprocessSpec
    familiar: Familiar | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """Of N crops: calibrated `probabilities` (N, 5); `unlike` (N,), None where the bundle cannot tell; on the CPU.

    `unlike` is the score of `inference.unlike`, the mean over the networks.
    """

    probabilities: torch.Tensor
    unlike: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of N crops: `findings`, Grad-CAM `maps`, float32 (N, crop_size, crop_size), of each one's reported grade.

    `unlike` are the scores of `inference.unlike`, empty where the bundle cannot tell.
    """

    findings: tuple[KLFinding, ...]
    maps: torch.Tensor
    unlike: tuple[float, ...] = ()


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
        chosen, planes = device_of(device), () if manifest.unlike_limit is None else (UNLIKE_FILE,)
        tensors, probe, *familiar = stored_tensors(manifest, *planes)
        networks = tuple(
            _network(manifest, position, tensors, familiar[0] if familiar else None, chosen)
            for position in range(len(manifest.members))
        )
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
        check_replayed(self.manifest, difference, "probabilities")

    def probabilities(self, crops: torch.Tensor) -> torch.Tensor:
        """Calibrated probabilities (N, 5) of crops (N, 1, S, S), 0..1, canonical side; on the CPU."""
        return self.answer(crops).probabilities

    def answer(self, crops: torch.Tensor) -> Answer:
        """What is known of crops (N, 1, S, S), 0..1, canonical side, without looking for reasons."""
        with torch.inference_mode():
            images = crops.to(self.device)
            features = [network.model.backbone(apply(images, network.spec)).float() for network in self.networks]
            logits = [network.model.head(seen).float() for network, seen in zip(self.networks, features, strict=True)]
            probabilities = self._calibrated(torch.stack(logits).mean(dim=0)).cpu()
            return Answer(probabilities, self._unlike(features))

    def _unlike(self, features: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """The mean score of each network's features (N, C, h, w)."""
        found = [
            network.familiar.score(seen.mean(dim=(2, 3)))
            for network, seen in zip(self.networks, features, strict=True)
            if network.familiar is not None
        ]
        return torch.stack(found).mean(dim=0).cpu() if found else None

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
        unlike = self._unlike([features for _, features, _ in logits])
        told = () if unlike is None else tuple(float(score) for score in unlike)
        return Prediction(findings, torch.stack(maps).mean(dim=0).cpu(), told)

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


def _network(
    manifest: Manifest,
    position: int,
    tensors: Mapping[str, torch.Tensor],
    familiar: Mapping[str, torch.Tensor] | None,
    device: torch.device,
) -> Network:
    member = manifest.members[position]
    model = KLGrader(member.backbone)
    prefix = f"{member.name}."
    state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise BundleError(f"the weights of {member.name!r} do not fit {member.backbone}: {error}.") from error
    known = None if familiar is None else Familiar.from_stored(member.name, familiar, model.backbone.features)
    return Network(
        model.eval().requires_grad_(False).to(device),
        PreprocessSpec.from_json(member.spec),
        None if known is None else known.to(device),
    )
