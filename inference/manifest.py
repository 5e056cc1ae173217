"""bundle.json, read without torch: what a bundle is, for configuration checks, routing and reports."""

import functools
import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.errors import BundleError
from inference.findings import ModelIdentity

FORMAT = 1
SHIPPED = Path(__file__).parent / "bundles" / "kl"
LARGEST = 25_000_000  # bytes of all files of a bundle
_NAMESPACE = uuid.UUID("5b0c7f0e-93a4-5d0f-8a3b-6f3f5d8a1c11")
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


@dataclass(frozen=True)
class Member:
    """One network of a bundle: its name (the prefix of its weights), its backbone and its preprocessing."""

    name: str
    backbone: str
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """The typed contents of bundle.json.

    `files` maps file names to SHA-256 in hex; `calibration` holds "temperature"; `metrics` and `training` are for
    people.
    """

    folder: Path
    name: str
    version: str
    task: str
    synthetic: bool
    members: tuple[Member, ...]
    temperature: float
    decoder: str
    files: Mapping[str, str]
    probe_tolerance: float
    digest: str
    metrics: Mapping[str, Any]
    training: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read and check `folder`/bundle.json; the weights are not looked at.

        Raises:
            BundleError: missing, not JSON, another format, or a key or value that does not fit; says which.
        """
        path = folder / "bundle.json"
        try:
            raw = path.read_bytes()
            values = json.loads(raw)
        except OSError as error:
            raise BundleError(f"no bundle at {folder}: {path.name} cannot be read ({error.strerror}).") from error
        except ValueError as error:
            raise BundleError(f"{path} is not JSON: {error}.") from error
        missing = [key for key in _KEYS if not isinstance(values, dict) or key not in values]
        if missing:
            raise BundleError(f"{path} lacks {', '.join(missing)}: export the bundle again.")
        if values["format"] != FORMAT:
            raise BundleError(f"{path} has format {values['format']!r}; this version of Genu reads format {FORMAT}.")
        try:
            return cls._typed(folder, values, hashlib.sha256(raw).hexdigest())
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{path} has a value that does not fit ({error!r}): export the bundle again.") from error

    @classmethod
    def _typed(cls, folder: Path, values: Mapping[str, Any], digest: str) -> "Manifest":
        if values["decoder"] not in DECODERS:
            raise ValueError(f"decoder {values['decoder']!r} is none of {', '.join(DECODERS)}")
        for name in values["files"]:
            if Path(name).name != name:
                raise ValueError(f"file name {name!r} is a path")
        return cls(
            folder=folder,
            name=str(values["name"]),
            version=str(values["version"]),
            task=str(values["task"]),
            synthetic=bool(values["synthetic"]),
            members=tuple(Member(str(m["name"]), str(m["backbone"]), dict(m["spec"])) for m in values["members"]),
            temperature=float(values["calibration"]["temperature"]),
            decoder=str(values["decoder"]),
            files=dict(values["files"]),
            probe_tolerance=float(values["probe"]["tolerance"]),
            digest=digest,
            metrics=values.get("metrics", {}),
            training=values.get("training", {}),
        )

    def verify_files(self) -> None:
        """Compare every listed file with its hash.

        Raises:
            BundleError: a file is missing or has other contents; names the file.
        """
        for name, expected in self.files.items():
            try:
                with (self.folder / name).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise BundleError(
                    f"{self.folder / name} cannot be read ({error.strerror}): the bundle is broken."
                ) from error
            if found != expected:
                raise BundleError(
                    f"{self.folder / name} has SHA-256 {found[:12]}..., bundle.json says {expected[:12]}...: the file "
                    "was changed or not fetched whole; install the bundle again."
                )

    def identity(self) -> ModelIdentity:
        """Who speaks in a report. The Device UID (2.25., PS3.5 B.2) is derived from the hash of the weights.

        Raises:
            BundleError: the files of the knee finder or of the marker reader, which are named too, are missing.
        """
        device = uuid.uuid5(_NAMESPACE, self.files["weights.safetensors"])
        networks = "+".join(member.backbone for member in self.members)
        used = f"networks={networks}; temperature={self.temperature:.4f}; decoder={self.decoder}; {_readers()}"
        return ModelIdentity(
            name=self.name,
            version=self.version,
            task=self.task,
            device_uid=f"2.25.{device.int}",
            digest=self.digest,
            parameters=used,
            synthetic=self.synthetic,
        )


@functools.cache
def _readers() -> str:
    """What reads the films before the networks do: another finder may give another answer."""
    told = []
    for name in ("finder", "markers"):
        path = SHIPPED.parent / name / f"{name}.json"
        try:
            told.append(f"{name}={hashlib.sha256(path.read_bytes()).hexdigest()[:12]}")
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror}): install Genu again.") from error
    return "; ".join(told)
