"""bundle.json, read without torch: what a bundle is, for configuration checks, routing and reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.bundle_files import SHIPPED, AnyManifest, flag, positive, read_typed, readers, text
from inference.conformal import Conformal
from inference.findings import ModelIdentity

__all__ = ["DECODERS", "FORMAT", "LARGEST", "SHIPPED", "Manifest", "Member"]

FORMAT = 1
LARGEST = 25_000_000  # bytes of all files of a bundle
_KEYS = (
    "format",
    "name",
    "version",
    "task",
    "synthetic",
    "members",
    "calibration",
    "decoder",
    "files",
    "probe",
)
DECODERS = ("argmax", "median", "expected")
UNLIKE_FILE = "unlike.safetensors"  # what is like the training knees


@dataclass(frozen=True)
class Member:
    """One network of a bundle: its name (the prefix of its weights), its backbone and its preprocessing."""

    name: str
    backbone: str
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest(AnyManifest):
    """The typed contents of bundle.json.

    Its `calibration` holds "temperature", and where they were made "conformal" and "unlike" (the limit of the score of
    knees that are unlike the training ones).
    """

    members: tuple[Member, ...]
    temperature: float
    decoder: str
    conformal: Conformal | None = None
    unlike_limit: float | None = None

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read and check `folder`/bundle.json; the weights are not looked at.

        Raises:
            BundleError: missing, not JSON, another format, or a key or value that does not fit; says which.
        """
        return read_typed(folder, _KEYS, FORMAT, cls._typed)

    @classmethod
    def _typed(cls, folder: Path, values: Mapping[str, Any], digest: str) -> "Manifest":
        if values["decoder"] not in DECODERS:
            raise ValueError(f"decoder {values['decoder']!r} is none of {', '.join(DECODERS)}")
        calibration = values["calibration"]
        conformal, unlike = calibration.get("conformal"), calibration.get("unlike")
        return cls(
            folder=folder,
            name=text(values, "name"),
            version=text(values, "version"),
            task=str(values["task"]),
            synthetic=flag(values, "synthetic"),
            members=tuple(Member(str(m["name"]), str(m["backbone"]), dict(m["spec"])) for m in values["members"]),
            temperature=positive(calibration, "temperature"),
            decoder=str(values["decoder"]),
            files=dict(values["files"]),
            probe_tolerance=positive(values["probe"], "tolerance", most=1),
            digest=digest,
            metrics=values.get("metrics", {}),
            training=values.get("training", {}),
            conformal=None if conformal is None else Conformal.from_json(conformal),
            unlike_limit=None if unlike is None else _limit(unlike, values["files"]),
        )

    def identity(self) -> ModelIdentity:
        """Who speaks in a report. The Device UID (2.25., PS3.5 B.2) is derived from the hash of the weights.

        Raises:
            BundleError: the files of the knee finder or of the marker reader, which are named too, are missing.
        """
        networks = "+".join(member.backbone for member in self.members)
        used = f"networks={networks}; temperature={self.temperature:.4f}; decoder={self.decoder}; {readers()}"
        if self.conformal is not None:
            used += f"; conformal coverage={self.conformal.coverage:g}"
        return self.speaker(used)


def _limit(unlike: Mapping[str, Any], files: Mapping[str, str]) -> float:
    if UNLIKE_FILE not in files:
        raise ValueError(f"a limit of unlike knees, and no hash of {UNLIKE_FILE}")
    return positive(unlike, "limit")
