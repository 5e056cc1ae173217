"""What bundles of all tasks share on disk: bundle.json with its keys, the hashes of the files it lists. No torch."""

import functools
import hashlib
import json
import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from inference.errors import BundleError
from inference.findings import ModelIdentity

Kind = TypeVar("Kind")

SHIPPED = Path(__file__).parent / "bundles" / "kl"
_LONGEST_TEXT = 200
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAMESPACE = uuid.UUID("5b0c7f0e-93a4-5d0f-8a3b-6f3f5d8a1c11")


@dataclass(frozen=True)
class AnyManifest:
    """What bundle.json says of every bundle.

    `files` maps file names to SHA-256 in hex, `digest` is that of bundle.json; `probe_tolerance` in the unit of the
    answers; `metrics` and `training` are for people.
    """

    folder: Path
    name: str
    version: str
    task: str
    synthetic: bool
    files: Mapping[str, str]
    probe_tolerance: float
    digest: str
    metrics: Mapping[str, Any]
    training: Mapping[str, Any]

    def verify_files(self) -> None:
        """Compare every listed file with its hash.

        Raises:
            BundleError: a file is missing or has other contents; names the file.
        """
        verify(self.folder, self.files)

    def speaker(self, parameters: str) -> ModelIdentity:
        """Who speaks in a report. The Device UID (2.25., PS3.5 B.2) is derived from the hash of the weights."""
        return ModelIdentity(
            name=self.name,
            version=self.version,
            task=self.task,
            device_uid=device_uid(self.files["weights.safetensors"]),
            digest=self.digest,
            parameters=parameters,
            synthetic=self.synthetic,
        )


def read_typed(
    folder: Path, keys: Iterable[str], format_: int, typed: Callable[[Path, Mapping[str, Any], str], Kind]
) -> Kind:
    """What `typed` makes of the folder, the values of its bundle.json and their SHA-256 in hex.

    Raises:
        BundleError: missing, not JSON, another format, or a key or value that does not fit; says which.
    """
    values, digest = read_values(folder, keys, format_)
    if not {"weights.safetensors", "probe.safetensors"} <= set(values["files"]):
        raise BundleError(
            f"{folder / 'bundle.json'}: files must list weights.safetensors and probe.safetensors: export it again."
        )
    try:
        return typed(folder, values, digest)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(
            f"{folder / 'bundle.json'} has a value that does not fit ({error!r}): export the bundle again."
        ) from error


def read_values(folder: Path, keys: Iterable[str], format_: int) -> tuple[Mapping[str, Any], str]:
    """The values of `folder`/bundle.json and its SHA-256 in hex.

    Raises:
        BundleError: missing, not JSON, another format, a key is not there, or a listed file is a path; says which.
    """
    path = folder / "bundle.json"
    try:
        raw = path.read_bytes()
        values = json.loads(raw)
    except OSError as error:
        raise BundleError(f"no bundle at {folder}: {path.name} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON: {error}.") from error
    missing = [key for key in keys if not isinstance(values, dict) or key not in values]
    if missing:
        raise BundleError(f"{path} lacks {', '.join(missing)}: export the bundle again.")
    if values["format"] != format_:
        raise BundleError(f"{path} has format {values['format']!r}; this version of Genu reads format {format_}.")
    if not isinstance(values["files"], dict):
        raise BundleError(f"{path}: files must map names to SHA-256: export the bundle again.")
    for name, digest in values["files"].items():
        if Path(name).name != name or "\0" in name:
            raise BundleError(f"{path}: the file name {name!r} is a path: export the bundle again.")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise BundleError(f"{path}: {digest!r} of {name} is no SHA-256: export the bundle again.")
    return values, hashlib.sha256(raw).hexdigest()


def flag(values: Mapping[str, Any], key: str) -> bool:
    """true or false; nothing else will do, as "false" in quotes would count as true.

    Raises:
        TypeError: another value, which it names.
    """
    value = values[key]
    if not isinstance(value, bool):
        raise TypeError(f"{key} {value!r} must be true or false")
    return value


def text(values: Mapping[str, Any], key: str) -> str:
    """A text of one line that is not empty, at most 200 characters.

    Raises:
        ValueError: another value, which it names.
    """
    value = values[key]
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > _LONGEST_TEXT:
        raise ValueError(f"{key} {str(value)[:60]!r} must be a text of one line")
    return value


def whole(values: Mapping[str, Any], key: str, least: int, most: int) -> int:
    """A whole number within bounds.

    Raises:
        ValueError: another value, which it names.
    """
    value = values[key]
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{key} {str(value)[:60]!r} must be a whole number from {least} to {most}")
    return value


def number(values: Mapping[str, Any], key: str, least: float, most: float) -> float:
    """A finite number within bounds; none in quotes, and not true or false.

    Raises:
        ValueError: another value, which it names.
    """
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{key} {str(value)[:60]!r} must be a number from {least:g} to {most:g}")
    return float(value)


def positive(values: Mapping[str, Any], key: str, most: float = math.inf) -> float:
    """A finite number above 0 and at most `most`.

    Raises:
        OverflowError, TypeError, ValueError: another value, which it names.
    """
    if isinstance(values[key], bool | str):
        raise TypeError(f"{key} {values[key]!r} must be a number")
    value = float(values[key])
    if not 0 < value <= most or math.isinf(value):
        raise ValueError(f"{key} {value} must be a number above 0{f' and at most {most:g}' if most < math.inf else ''}")
    return value


def verify(folder: Path, files: Mapping[str, str]) -> None:
    """Compare every listed file with its SHA-256.

    Raises:
        BundleError: a file is missing or has other contents; names the file.
    """
    for name, expected in files.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BundleError(f"{folder / name} cannot be read ({error.strerror}): the bundle is broken.") from error
        if found != expected:
            raise BundleError(
                f"{folder / name} has SHA-256 {found[:12]}..., bundle.json says {expected[:12]}...: the file "
                "was changed or not fetched whole; install the bundle again."
            )


def described(path: Path, what: str) -> dict[str, Any]:
    """A description of small networks (finder.json, markers.json), once the files beside it are what it says.

    Args:
        path: of the description.
        what: is described, for messages.

    Returns:
        Its values, with its own SHA-256 in hex as "digest".

    Raises:
        BundleError: it cannot be read, or a file is missing or has other contents.
    """
    try:
        raw = path.read_bytes()
        values = json.loads(raw)
        for name in ("weights.safetensors", "probe.safetensors"):
            with (path.parent / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != values["files"][name]:
                raise BundleError(f"{path.parent / name} was changed or not fetched whole: install {what} again.")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} of {what} cannot be read ({error}): install it again.") from error
    return {**values, "digest": hashlib.sha256(raw).hexdigest()}


def device_uid(weights_sha256: str) -> str:
    """The Device UID of a model (2.25., PS3.5 B.2), derived from the hash of its weights."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, weights_sha256).int}"


@functools.cache
def readers() -> str:
    """What reads the films before the networks do: another finder may give another answer.

    Raises:
        BundleError: the files of the knee finder or of the marker reader are missing.
    """
    told = []
    for name in ("finder", "markers"):
        path = SHIPPED.parent / name / f"{name}.json"
        try:
            told.append(f"{name}={hashlib.sha256(path.read_bytes()).hexdigest()[:12]}")
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror}): install Genu again.") from error
    return "; ".join(told)
