"""Whether knees are made: truth.json of `genu-train synth` stands beside what a cohort was read from, or beside it."""

import json
from collections.abc import Iterable
from pathlib import Path

TRUTH = "truth.json"
COHORT = "cohort.json"


def beside(paths: Iterable[Path]) -> bool:
    """Whether truth.json stands in the folder of one of these files, or in the folder above."""
    folders = {folder for path in paths for folder in (path.resolve().parent, path.resolve().parent.parent)}
    return any((folder / TRUTH).is_file() for folder in folders)


def is_made(cohort: Path) -> bool:
    """Whether the knees of a cohort's folder are made, as its cohort.json says or truth.json shows."""
    if beside([cohort / COHORT]):
        return True
    try:
        return bool(json.loads((cohort / COHORT).read_text("utf-8")).get("made"))
    except (OSError, ValueError, AttributeError):
        return False
