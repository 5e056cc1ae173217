"""Whose data a cohort was made from, and under which licence: what model cards and bundles say of it."""

import json
from dataclasses import dataclass
from pathlib import Path

from inference.errors import DataError
from training.cohorts.columns import sha256
from training.cohorts.made import COHORT
from training.cohorts.rules import NOT_TOLD


@dataclass(frozen=True)
class Origin:
    """source: as the cohort names it (MRKR, OAI, a table). data, licence: in words, `NOT_TOLD` where nobody says."""

    source: str = NOT_TOLD
    data: str = NOT_TOLD
    licence: str = NOT_TOLD
    made: bool = False

    def to_json(self) -> dict[str, str | bool]:
        """For bundle.json."""
        return {"source": self.source, "name": self.data, "licence": self.licence, "made": self.made}


def origin_of(cohort: Path, cohort_sha256: str) -> Origin:
    """What a cohort's cohort.json says of the data; nothing is told where other knees lie in the folder now.

    Args:
        cohort: its folder. cohort_sha256: of the cohort.parquet that was learnt from.

    Raises:
        DataError: cohort.json is there, and no description of a cohort.
    """
    path, knees = cohort / COHORT, cohort / "cohort.parquet"
    if not path.is_file() or not knees.is_file() or sha256(knees) != cohort_sha256:
        return Origin()
    try:
        content = json.loads(path.read_text("utf-8"))
        told = [content.get(name, NOT_TOLD) for name in ("source", "data", "licence")]
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}): make the cohort again, or remove the file.") from error
    if not all(isinstance(text, str) for text in told):
        raise DataError(f"{path}: source, data or licence is no text: make the cohort again, or remove the file.")
    source, data, licence = told
    return Origin(source, data, licence, bool(content.get("made")))
