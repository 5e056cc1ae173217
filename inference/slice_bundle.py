"""A bundle for knee MRI ready to run: frozen backbone, slice networks, calibration. Not loaded unless it replays.

On disk: bundle.json, weights.safetensors ("backbone." the image tower, "net0." and further the networks, "offsets",
"calibration.p0" and "calibration.p1" the Venn-Abers tables), probe.safetensors (slices and clinical variables with the
probabilities that they had).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from inference.backbones import InputSpec
from inference.errors import BundleError
from inference.frozen import FrozenBackbone, rebuild
from inference.loading import check_replayed, device_of, stored_tensors
from inference.mr_findings import ClinicalValue, OutcomeFinding
from inference.slice_features import Slices, slice_features
from inference.slice_manifest import METHOD, SliceManifest
from inference.slice_maps import ReadSlices, check_has_maps, read_slices, slice_maps
from inference.slice_nets import SliceNet, SliceNetSpec
from inference.venn_abers import VennAbers
from inference.volumes import PreparedVolume

Floats = npt.NDArray[np.float64]
_PROBE = {"slices", "clinical", "probabilities"}
_ALONE = {"offsets", "calibration.p0", "calibration.p1"}


@dataclass(frozen=True, eq=False)
class SliceNetwork:
    """What turns slices into probabilities, before calibration.

    nets: in evaluation mode on the CPU, their probabilities are averaged. offsets: float32 (K,), log weights of the
    training loss, taken off the logits. temperature: of the logits. The same lines as `training.slice_fit.SliceModel`.
    """

    backbone: FrozenBackbone
    nets: tuple[SliceNet, ...]
    offsets: torch.Tensor
    temperature: float

    def probabilities(self, slices: Slices, clinical: Floats) -> Floats:
        """(P, K) of one volume and P persons.

        Args:
            slices: (S, H, W), 0..1, of the canonical side, in anatomical order.
            clinical: (P, C) in the order of the networks' clinical names, NaN for missing.
        """
        return self.answer(slice_features(self.backbone, slices), clinical)

    def answer(self, features: npt.NDArray[np.float16], clinical: Floats) -> Floats:
        """(P, K) of slice features (S, D) and clinical variables (P, C)."""
        seen = torch.from_numpy(features).float()[None].expand(len(clinical), -1, -1)
        people = torch.from_numpy(np.asarray(clinical, np.float64)).float()
        with torch.inference_mode():
            found = [torch.softmax((net(seen, people) - self.offsets) / self.temperature, dim=1) for net in self.nets]
            return np.asarray(torch.stack(found).mean(dim=0).numpy(), np.float64)

    def attention(self, features: npt.NDArray[np.float16]) -> Floats:
        """Mean weights of the slices, (S,), of their features (S, D); they sum to 1."""
        seen = torch.from_numpy(features).float()[None]
        with torch.inference_mode():
            found = [net.attention(seen)[0] for net in self.nets]
        return np.asarray(torch.stack(found).mean(dim=0).numpy(), np.float64)

    def maps(self, seen: ReadSlices, clinical: Floats) -> npt.NDArray[np.float32]:
        """What speaks for the last class on every slice, (S, h, w), of one person (C,): see `slice_maps`.

        What is explained is the log odds of the last class before calibration, the mean over the networks: that class
        is what was asked for, also where another one is more probable, so that all maps answer one question.
        """
        person = torch.from_numpy(np.asarray(clinical, np.float64)).float()[None]

        def score(features: torch.Tensor) -> torch.Tensor:
            logits = torch.cat([net(features[None], person) for net in self.nets]) - self.offsets
            return (logits[:, -1] - logits[:, :-1].logsumexp(dim=1)).mean()

        return slice_maps(self.backbone, seen, score)


@dataclass(frozen=True, eq=False)
class SlicePrediction:
    """Of one prepared volume: `attention` (S,) sums to 1; `maps` float32 (S, h, w) lie on the prepared slices."""

    outcome: OutcomeFinding
    attention: Floats
    maps: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SliceBundle:
    """A loaded bundle."""

    manifest: SliceManifest
    network: SliceNetwork
    calibration: VennAbers

    @classmethod
    def load(cls, folder: Path, device: str | None = None) -> "SliceBundle":
        """Load, check the hashes, and replay the stored probe.

        Args:
            folder: holds bundle.json and the files it lists.
            device: of the backbone: "cpu", "cuda"; None takes a GPU when there is one.

        Raises:
            BundleError: a file is missing or changed, the weights do not fit, or the probe is answered differently.
        """
        manifest = SliceManifest.read(folder)
        tensors, probe = stored_tensors(manifest)
        tables = {name: values.float().numpy() for name, values in tensors.items() if name.startswith("calibration.")}
        network = network_of(manifest, tensors, device_of(device))
        bundle = cls(manifest, network, VennAbers.of(tables, len(manifest.classes)))
        _check_probe(probe, manifest)
        bundle.replay(probe)
        return bundle

    def replay(self, probe: Mapping[str, torch.Tensor]) -> None:
        """Compare the answer to stored slices (S, H, W) and persons (P, C) with stored probabilities (P, K).

        Raises:
            BundleError: names the largest difference.
        """
        found = self.network.probabilities(probe["slices"].float().numpy(), probe["clinical"].double().numpy())
        difference = float(np.abs(found - probe["probabilities"].double().numpy()).max())
        check_replayed(self.manifest, difference, "probabilities")

    def sharing(self, others: Sequence["SliceBundle"]) -> "SliceBundle":
        """The same with the backbone of another bundle where it is the same one: held and run once."""
        for other in others:
            if other.network.backbone.digest == self.network.backbone.digest:
                return replace(self, network=replace(self.network, backbone=other.network.backbone))
        return self

    def read(self, prepared: PreparedVolume) -> ReadSlices:
        """What the backbone sees; another bundle with a backbone of the same digest may use it too."""
        return read_slices(self.network.backbone, prepared.slices)

    def predict(
        self, prepared: PreparedVolume, clinical: Sequence[ClinicalValue] = (), seen: ReadSlices | None = None
    ) -> SlicePrediction:
        """The outcome of one knee, with what it rests on.

        Args:
            prepared: slices made by the bundle's own VolumeSpec.
            clinical: what is known of the person, in any order; variables that the bundle does not take are left.
            seen: of `read`, where it was done before; None reads the slices now.
        """
        read = seen if seen is not None and seen.backbone == self.network.backbone.digest else self.read(prepared)
        known = {value.name: value for value in clinical if not value.imputed}
        names = self.manifest.clinical
        row = np.array([known[name].value if name in known else np.nan for name in names], np.float64)
        point, low, high = self.calibration.interval(self.network.answer(read.features, row[None])[0])
        median = self.network.nets[0].median
        outcome = OutcomeFinding(
            target=self.manifest.target,
            classes=self.manifest.classes,
            probabilities=tuple(map(float, point)),
            low=tuple(map(float, low)),
            high=tuple(map(float, high)),
            method=METHOD,
            threshold=self.manifest.threshold,
            clinical=tuple(
                known.get(name, ClinicalValue(name, float(median[number]), None)) for number, name in enumerate(names)
            ),
            model=self.manifest.identity(),
        )
        return SlicePrediction(outcome, self.network.attention(read.features), self.network.maps(read, row))


def network_of(manifest: SliceManifest, tensors: Mapping[str, torch.Tensor], device: torch.device) -> SliceNetwork:
    """Build a network from the tensors of weights.safetensors; the backbone goes to `device`, the rest stays here.

    Raises:
        BundleError: they do not fit the manifest, something is there that nobody reads, or the backbone gives no maps.
    """
    prefixes = ("backbone.", *(f"net{number}." for number in range(manifest.networks)))
    unread = sorted(name for name in tensors if not name.startswith(prefixes) and name not in _ALONE)
    if unread or "offsets" not in tensors:
        what = f"holds {unread[0]}, which nobody reads" if unread else "lacks the offsets"
        raise BundleError(f"weights.safetensors of {manifest.folder} {what}: export the bundle again.")
    state = _part(tensors, "backbone.")
    backbone = rebuild(manifest.backbone, manifest.settings, state, manifest.folder).to(device)
    backbone = replace(backbone, digest=_digest(manifest, state))
    check_has_maps(backbone)
    seen, spec = InputSpec.from_json(manifest.input), _spec(manifest)
    if seen != backbone.input:
        raise BundleError(f"the input {seen} of {manifest.folder} is not that of its backbone: export it again.")
    offsets = tensors["offsets"].float()
    if (spec.features, spec.classes) != (backbone.width, len(manifest.classes)) or offsets.shape != (spec.classes,):
        raise BundleError(
            f"the networks of {manifest.folder} take {spec.features} features and give {spec.classes} classes, its "
            f"backbone gives {backbone.width} and there are {len(manifest.classes)}: export it again."
        )
    nets = tuple(_net(manifest, spec, _part(tensors, f"net{number}.")) for number in range(manifest.networks))
    return SliceNetwork(backbone, nets, offsets, manifest.temperature)


def _spec(manifest: SliceManifest) -> SliceNetSpec:
    try:
        spec = SliceNetSpec.from_json(manifest.network)
        odd = spec.kernel % 2 == 1
    except (TypeError, ValueError) as error:
        raise BundleError(f"the networks of {manifest.folder} cannot be: {error}; export it again.") from error
    if not odd:  # there would be more weights than slices
        raise BundleError(f"the networks of {manifest.folder} have an even kernel, {spec.kernel}: export it again.")
    return spec


def _net(manifest: SliceManifest, spec: SliceNetSpec, state: dict[str, torch.Tensor]) -> SliceNet:
    try:
        net = SliceNet(spec)
        net.load_state_dict(state)
    except (RuntimeError, TypeError, ValueError) as error:
        raise BundleError(f"a network of {manifest.folder} does not fit its description: {error}.") from error
    return net.eval().requires_grad_(False)


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}


def _digest(manifest: SliceManifest, state: Mapping[str, torch.Tensor]) -> str:
    """Equal for backbones that see the same of the same slices."""
    said = [manifest.backbone, dict(manifest.settings), dict(manifest.input)]
    found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(state):
        values = state[name].contiguous()
        found.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        found.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _check_probe(probe: Mapping[str, torch.Tensor], manifest: SliceManifest) -> None:
    """That the probe holds a volume, persons and their probabilities.

    Raises:
        BundleError: it is another thing.
    """
    wrong = BundleError(f"{manifest.folder} has no whole probe: export the bundle again.")
    if set(probe) != _PROBE:
        raise wrong
    slices, clinical, probabilities = (probe[name] for name in ("slices", "clinical", "probabilities"))
    people = clinical.shape[0] if clinical.ndim == 2 else 0
    fits = (
        slices.ndim == 3
        and min(slices.shape) > 0
        and people > 0
        and clinical.shape[1] == len(manifest.clinical)
        and probabilities.shape == (people, len(manifest.classes))
    )
    if not fits or not all(values.is_floating_point() for values in probe.values()):
        raise wrong
    if not clinical.isnan().all(dim=1).any():  # else a median that is no number would show in the service first
        raise BundleError(f"the probe of {manifest.folder} has no person of whom nothing is known: export it again.")
