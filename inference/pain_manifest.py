"""bundle.json of a bundle with the task "pain", read without torch: for configuration checks, routing and reports."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.bundle_files import AnyManifest, flag, positive, read_typed, readers, text
from inference.findings import ModelIdentity

FORMAT = 1
TASK = "pain"
SCALE = (0.0, 10.0)  # points; reports say "of 10"
TARGET = "pain severity 0-10, verbal numeric rating, as patients reported it (LOINC 72514-3)"
HEADS = ("ridge", "corn", "attentive")
FEATURES = ("pooled", "layers", "fused", "patches")
_KEYS = (
    *("format", "name", "version", "task", "synthetic", "backbone", "head", "bounds", "calibration"),
    *("files", "probe", "terms"),
)


@dataclass(frozen=True)
class Calibration:
    """How the interval around a score is made: score + low to score + high, cut to the bounds.

    `coverage` is the share of patients' scores that it is made to hold; `low` <= 0 <= `high` in points.
    """

    method: str
    coverage: float
    low: float
    high: float


@dataclass(frozen=True)
class HeadFacts:
    """`kind` of HEADS on `features` of FEATURES; with `grades`, six columns of the Kellgren-Lawrence grade follow."""

    kind: str
    features: str
    grades: bool

    @property
    def needs_grade(self) -> bool:
        """Whether the score depends on the grade that the KL bundle gives."""
        return self.grades or self.features == "fused"


@dataclass(frozen=True)
class PainManifest(AnyManifest):
    """The typed contents of bundle.json.

    `backbone` is a name in inference.backbones and `settings` what it is built by; `crop` and `input` are a
    PreprocessSpec and an InputSpec as plain values. `licence` and `deployed_use` are the terms of its weights.
    `bounds` and `probe_tolerance` in points.
    """

    backbone: str
    settings: Mapping[str, Any]
    crop: Mapping[str, Any]
    input: Mapping[str, Any]
    head: HeadFacts
    bounds: tuple[float, float]
    calibration: Calibration
    licence: str
    deployed_use: bool

    @classmethod
    def read(cls, folder: Path) -> "PainManifest":
        """Read and check `folder`/bundle.json; the weights are not looked at.

        Raises:
            BundleError: missing, not JSON, another format or task, or a key or value that does not fit; says which.
        """
        return read_typed(folder, _KEYS, FORMAT, cls._typed)

    @classmethod
    def _typed(cls, folder: Path, values: Mapping[str, Any], digest: str) -> "PainManifest":
        backbone, head, told, terms = (values[name] for name in ("backbone", "head", "calibration", "terms"))
        facts = HeadFacts(str(head["kind"]), str(head["features"]), flag(head, "grades"))
        calibration = Calibration(str(told["method"]), float(told["coverage"]), float(told["low"]), float(told["high"]))
        low, high = (float(bound) for bound in values["bounds"])
        if values["task"] != TASK:
            raise ValueError(f"task {values['task']!r} is not {TASK!r}")
        if facts.kind not in HEADS or facts.features not in FEATURES:
            raise ValueError(f"a head {facts.kind!r} on {facts.features!r} features is not known")
        if not SCALE[0] <= low < high <= SCALE[1]:
            raise ValueError(f"bounds {low} to {high} are not within {SCALE[0]:g} to {SCALE[1]:g} points")
        if not -math.inf < calibration.low <= 0 <= calibration.high < math.inf or not 0 < calibration.coverage < 1:
            raise ValueError(f"bounds {low} to {high} with {calibration} make no interval")
        return cls(
            folder=folder,
            name=text(values, "name"),
            version=text(values, "version"),
            task=TASK,
            synthetic=flag(values, "synthetic"),
            backbone=str(backbone["name"]),
            settings=dict(backbone["settings"]),
            crop=dict(backbone["crop"]),
            input=dict(backbone["input"]),
            head=facts,
            bounds=(low, high),
            calibration=calibration,
            files=dict(values["files"]),
            probe_tolerance=positive(values["probe"], "tolerance", most=1),
            licence=str(terms["licence"]),
            deployed_use=flag(terms, "deployed_use"),
            digest=digest,
            metrics=values.get("metrics", {}),
            training=values.get("training", {}),
        )

    def identity(self) -> ModelIdentity:
        """Who speaks in a report; the parameters tell the interval's coverage and method, and what was learnt from.

        Raises:
            BundleError: the files of the knee finder or of the marker reader, which are named too, are missing.
        """
        interval = self.calibration
        used = (
            f"backbone={self.backbone}; head={self.head.kind} on {self.head.features}"
            f"{' and KL grade' if self.head.grades else ''}; interval coverage={interval.coverage:g}; "
            f"interval method={interval.method}; interval offsets={interval.low:+.2f} {interval.high:+.2f}; "
            f"target={TARGET}; {readers()}"
        )
        return self.speaker(used)
