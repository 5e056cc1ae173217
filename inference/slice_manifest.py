"""bundle.json of a bundle for knee MRI, tasks "jsn_progression" and "womac_pain", read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.bundle_files import AnyManifest, flag, number, positive, read_typed, text, whole
from inference.findings import ModelIdentity
from inference.volumes import VolumeSpec

FORMAT = 1
TASKS: Mapping[str, str] = {
    "progression_abs": "jsn_progression",
    "progression_rel": "jsn_progression",
    "womac_pain_binary": "womac_pain",
    "womac_pain_class": "womac_pain",
}
CLINICAL = ("age", "sex", "bmi", "height", "weight", "mjsw", "kl", "womac_pain", "injury", "surgery")
METHOD = "Venn-Abers, by patient"
_KEYS = (
    *("format", "name", "version", "task", "target", "classes", "synthetic", "backbone", "volume", "network"),
    *("calibration", "files", "probe", "terms"),
)


@dataclass(frozen=True)
class SliceManifest(AnyManifest):
    """The typed contents of bundle.json.

    `target` of TASKS and its `classes` in words, the last one asked for; `backbone`, `settings` and `input` as in
    PainManifest; `volume` decides the slices. `network` is a SliceNetSpec as plain values, `networks` how many there
    are, `temperature` and `threshold` theirs (None with more than two classes). `calibration_patients` and
    `calibration_rows` made the intervals; `probe_tolerance` is a probability.
    """

    target: str
    classes: tuple[str, ...]
    backbone: str
    settings: Mapping[str, Any]
    input: Mapping[str, Any]
    volume: VolumeSpec
    network: Mapping[str, Any]
    clinical: tuple[str, ...]
    networks: int
    temperature: float
    threshold: float | None
    calibration_patients: int
    calibration_rows: int
    licence: str
    deployed_use: bool

    @classmethod
    def read(cls, folder: Path) -> "SliceManifest":
        """Read and check `folder`/bundle.json; the weights are not looked at.

        Raises:
            BundleError: missing, not JSON, another format or task, or a key or value that does not fit; says which.
        """
        return read_typed(folder, _KEYS, FORMAT, cls._typed)

    @classmethod
    def _typed(cls, folder: Path, values: Mapping[str, Any], digest: str) -> "SliceManifest":
        backbone, network, terms = (values[name] for name in ("backbone", "network", "terms"))
        target, classes = text(values, "target"), _classes(values)
        if TASKS.get(target) != values["task"]:
            raise ValueError(f"task {values['task']!r} with the target {target!r}")
        clinical = tuple(network["spec"]["clinical"])
        if len(set(clinical)) != len(clinical) or not set(clinical) <= set(CLINICAL):
            raise ValueError(f"clinical variables {clinical!r} are not known")
        if target.startswith("womac") and "womac_pain" in clinical:
            raise ValueError("WOMAC pain is among the variables where it is the target")
        if (network["threshold"] is None) is (len(classes) == 2):
            raise ValueError(f"threshold {network['threshold']!r} of {len(classes)} classes")
        if values["calibration"]["method"] != METHOD:
            raise ValueError(f"calibration method {values['calibration']['method']!r} is not {METHOD!r}")
        return cls(
            folder=folder,
            name=text(values, "name"),
            version=text(values, "version"),
            task=TASKS[target],
            target=target,
            classes=classes,
            synthetic=flag(values, "synthetic"),
            backbone=str(backbone["name"]),
            settings=dict(backbone["settings"]),
            input=dict(backbone["input"]),
            volume=VolumeSpec.from_json(values["volume"]),
            network=dict(network["spec"]),
            clinical=clinical,
            networks=whole(network, "count", 1, 64),
            temperature=positive(network, "temperature", most=100),
            threshold=None if network["threshold"] is None else number(network, "threshold", 0, 1),
            calibration_patients=whole(values["calibration"], "patients", 1, 10**9),
            calibration_rows=whole(values["calibration"], "rows", 1, 10**9),
            files=dict(values["files"]),
            probe_tolerance=positive(values["probe"], "tolerance", most=0.1),
            licence=text(terms, "licence"),
            deployed_use=flag(terms, "deployed_use"),
            digest=digest,
            metrics=dict(values.get("metrics", {})),
            training=dict(values.get("training", {})),
        )

    def identity(self) -> ModelIdentity:
        """Who speaks in a report; the parameters tell what was read, learnt, and how the interval is made."""
        spec = self.volume
        used = (
            f"target={self.target}; sequence={spec.sequence.value}; slices={spec.slices} {spec.choice}; "
            f"backbone={self.backbone}; networks={self.networks}; clinical={','.join(self.clinical) or 'none'}; "
            f"interval method={METHOD} ({self.calibration_patients} patients)"
        )
        if self.threshold is not None:
            used += f"; threshold={self.threshold:.4f}"
        return self.speaker(used)


def _classes(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Raises ValueError unless they are two to ten different short texts in ASCII, as reports have to name them."""
    found = values["classes"]
    texts = [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
    fit = all(name.strip() and name.isascii() and name.isprintable() and len(name) <= 64 for name in texts)
    if not fit or texts != found or len(set(texts)) != len(texts) or not 2 <= len(texts) <= 10:
        raise ValueError(f"classes {str(found)[:80]!r} are not two to ten different texts")
    return tuple(texts)
