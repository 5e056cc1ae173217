"""Where a run of the grader comes from: what its data are said to be, whether they are made, and its first weights."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.errors import DataError
from training.cohorts import made
from training.config import DataAbout
from training.labels import Label

# Of files whose origin is known (docs/training.md): what a card says of them.
KNOWN_WEIGHTS = {
    "51e8256b05665529f8836fe6e8eeed41b2fc75a900d8eebda338d70a6726f8da": (
        "an 8-bit quantised ImageNet MobileNetV2 (Apache-2.0), dequantised"
    ),
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be": (
        "TensorFlow's ImageNet EfficientNet-Lite (Apache-2.0)"
    ),
}
# Of the films that this project draws, for training, acceptance and tests.
_MADE_BY = frozenset({"Genu Synth", "Acceptance Works", "Phantom Works"})
_INDEXED = ("SOPInstanceUID", "path", "size", "Rows", "Columns")


@dataclass(frozen=True)
class Provenance:
    """What a card says of a run's inputs.

    about: None where it was not told. synthetic: the knees are no patient's.
    initial: names and SHA-256 of the files with first weights; none are random ones.
    """

    about: DataAbout | None
    synthetic: bool
    initial: Sequence[tuple[str, str]]


def applies(about: DataAbout | None, labels_sha256: str) -> DataAbout | None:
    """A [data] section, where it is about these labels."""
    return about if about is not None and about.labels_sha256 in ("", labels_sha256) else None


def is_made(index: Path, labels: Path, rows: Sequence[Mapping[str, Any]], known: Sequence[Label]) -> bool:
    """Whether a labelled film was drawn: by truth.json beside index or labels, or by its manufacturer in the index."""
    uids = {label.sop_instance_uid for label in known}
    return made.beside([index, labels]) or any(
        row["Manufacturer"] in _MADE_BY for row in rows if row["SOPInstanceUID"] in uids
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): name a file that is there.") from error


def index_digest(rows: Sequence[Mapping[str, Any]], known: Sequence[Label]) -> str:
    """SHA-256 of what the index holds of the labelled films; times are left out, so that a copy is the same."""
    uids = {label.sop_instance_uid for label in known}
    parts = [[row[name] for name in _INDEXED] for row in rows if row["SOPInstanceUID"] in uids]
    return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()


def origin(initial: Sequence[tuple[str, str]]) -> str:
    """A sentence on the files that networks started from."""
    if not initial:
        return "Started from random weights."
    told = [
        f"{KNOWN_WEIGHTS[digest]} (`{name}`)" if digest in KNOWN_WEIGHTS else f"`{name}`, of which no origin was told"
        for name, digest in initial
    ]
    return f"Started from {', and '.join(told)}."
