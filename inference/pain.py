"""A bundle of the task "pain" ready to run: frozen backbone, head, interval. Not loaded unless it replays its probe.

On disk: bundle.json, weights.safetensors ("backbone." the image tower, "head." the head, "texts" the ten embedded
descriptions where the score rests on them), probe.safetensors (drawn crops with the scores that they had).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from inference.backbones import InputSpec, network_input
from inference.errors import BundleError
from inference.findings import PainFinding, Side
from inference.frozen import Features, FrozenBackbone, rebuild
from inference.heads import GRADES
from inference.loading import check_replayed, device_of, stored_tensors
from inference.pain_heads import Floats, ScoreHead
from inference.pain_manifest import HeadFacts, PainManifest
from inference.preprocess import PreprocessSpec

Crops = npt.NDArray[np.uint8]
_PROBE = {"crops", "sides", "grades", "scores"}


@dataclass(frozen=True, eq=False)
class PainNetwork:
    """What turns crops into scores.

    backbone, input: the image tower and what it sees. texts: float32 (2 sides, 5 grades, D), the embedded
    descriptions; None where the head takes none. facts, head: what stands on them.
    """

    backbone: FrozenBackbone
    input: InputSpec
    facts: HeadFacts
    head: ScoreHead
    texts: npt.NDArray[np.float32] | None = None

    def scores(self, crops: Crops, sides: Sequence[Side], grades: Sequence[int]) -> Floats:
        """Scores (N,) of crops, uint8 (N, S, S) on the canonical side; one after the other, so no batch changes them.

        `grades` are Kellgren-Lawrence grades 0..4; heads that do not need them ignore them.
        """
        rows = [self._score(crop, side, grade) for crop, side, grade in zip(crops, sides, grades, strict=True)]
        return np.array(rows, np.float64)

    def features(self, crop: Crops, side: Side, grade: int) -> npt.NDArray[np.floating]:
        """What the head sees of one crop (S, S): (D,), or tokens (P, C); as `genu-train embed` would store it."""
        device = next(self.backbone.trunk.parameters()).device
        image = torch.from_numpy(np.ascontiguousarray(crop))[None, None].to(device).float() / 255
        kept = cast(Features, "pooled" if self.facts.features == "fused" else self.facts.features)
        values = self.backbone.features(network_input(image, self.input), kept)[kept][0].cpu()
        if kept == "patches":
            return np.asarray(values.half().numpy())  # as they are stored
        found = np.asarray(values.reshape(-1).numpy(), np.float32)
        if self.facts.features == "fused":
            if self.texts is None:
                raise BundleError("the head needs embedded descriptions and there are none: export the bundle again.")
            words = self.texts[list(Side).index(side), grade]
            found = np.concatenate([_unit(found), _unit(words)])
        if self.facts.grades:
            found = np.concatenate([found, np.eye(GRADES + 1, dtype=np.float32)[grade]])
        return found

    def _score(self, crop: Crops, side: Side, grade: int) -> float:
        return float(self.head.scores(self.features(crop, side, grade)[None])[0])


@dataclass(frozen=True, eq=False)
class PainBundle:
    """A loaded bundle."""

    manifest: PainManifest
    network: PainNetwork

    @classmethod
    def load(cls, folder: Path, device: str | None = None) -> "PainBundle":
        """Load, check the hashes, and replay the stored probe.

        Args:
            folder: holds bundle.json and the files it lists.
            device: "cpu", "cuda"; None takes a GPU when there is one.

        Raises:
            BundleError: a file is missing or changed, the weights do not fit, or the probe is answered differently.
        """
        manifest = PainManifest.read(folder)
        tensors, probe = stored_tensors(manifest)
        if set(probe) != _PROBE:
            raise BundleError(f"{folder} has no whole probe: export the bundle again.")
        bundle = cls(manifest, network_of(manifest, tensors, device_of(device)))
        _check_probe(probe, bundle.spec.crop_size, folder)
        bundle.replay(probe)
        return bundle

    @property
    def spec(self) -> PreprocessSpec:
        """How knees are cut out.

        Raises:
            BundleError: the manifest does not say it whole.
        """
        return PreprocessSpec.from_json(self.manifest.crop)

    def replay(self, probe: dict[str, torch.Tensor]) -> None:
        """Compare the scores of stored crops (N, S, S) uint8 with the stored scores (N,).

        Raises:
            BundleError: names the largest difference.
        """
        sides = [list(Side)[int(number)] for number in probe["sides"]]
        grades = [int(grade) for grade in probe["grades"]]
        found = self.network.scores(probe["crops"].numpy(), sides, grades)
        difference = float(np.abs(found - probe["scores"].double().numpy()).max())
        check_replayed(self.manifest, difference, "scores", "points")

    def predict(self, crops: Crops, sides: Sequence[Side], grades: Sequence[int]) -> tuple[PainFinding, ...]:
        """Pain of knees with its interval; arguments as for `PainNetwork.scores`."""
        low, high = self.manifest.bounds
        interval, model = self.manifest.calibration, self.manifest.identity()
        return tuple(
            PainFinding(
                score=float(score),
                low=float(np.clip(score + interval.low, low, high)),
                high=float(np.clip(score + interval.high, low, high)),
                coverage=interval.coverage,
                model=model,
            )
            for score in self.network.scores(crops, sides, grades)
        )


def network_of(manifest: PainManifest, tensors: dict[str, torch.Tensor], device: torch.device) -> PainNetwork:
    """Build a network from the tensors of weights.safetensors.

    Raises:
        BundleError: they do not fit the manifest, or the descriptions are missing where they are needed.
    """

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    backbone = rebuild(manifest.backbone, manifest.settings, part("backbone."), manifest.folder).to(device)
    seen = InputSpec.from_json(manifest.input)
    if seen != backbone.input:
        raise BundleError(f"the input {seen} of {manifest.folder} is not that of its backbone: export it again.")
    texts = tensors["texts"].float().numpy() if "texts" in tensors else None
    if manifest.head.features == "fused" and (texts is None or texts.shape[:2] != (len(Side), GRADES)):
        raise BundleError(f"{manifest.folder} lacks the ten embedded descriptions: export it again.")
    head = ScoreHead.of(
        manifest.head.kind, {name: value.float().numpy() for name, value in part("head.").items()}, manifest.bounds
    )
    return PainNetwork(backbone, seen, manifest.head, head, texts)


def _check_probe(probe: Mapping[str, torch.Tensor], size: int, folder: Path) -> None:
    """That there are knees (N, size, size) in the probe, each with a side, a grade and a score.

    Raises:
        BundleError: it is another thing.
    """
    crops, sides, grades, scores = (probe[name] for name in ("crops", "sides", "grades", "scores"))
    count = crops.shape[0] if crops.ndim else 0
    shapes = (
        count > 0 and crops.shape == (count, size, size) and sides.shape == grades.shape == scores.shape == (count,)
    )
    types = crops.dtype == torch.uint8 and not sides.is_floating_point() and not grades.is_floating_point()
    if not shapes or not types or int(sides.min()) < 0 or int(grades.min()) < 0:
        raise BundleError(f"the probe of {folder} is none of crops of {size} pixels: export the bundle again.")
    if int(sides.max()) >= len(Side) or int(grades.max()) >= GRADES:
        raise BundleError(f"the probe of {folder} has sides or grades that there are not: export the bundle again.")


def _unit(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(values / np.maximum(np.linalg.norm(values), 1e-12), np.float32)
