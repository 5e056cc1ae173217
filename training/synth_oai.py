"""A made OAI with planted effects: MR series in the release's folders, the tables, the truth (`genu-train synth oai`).

OUT/images holds the series, OUT/tables the tables in OAI's names, OUT/truth.json what was planted, the counts that each
rule must leave for each label, and every row that must stay. No participant is in it. The same arguments write the same
files.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.errors import UsageError
from training.synth import TRUTH, clear
from training.synth_oai_dicom import write_scan
from training.synth_oai_plan import LEAST, effects, plan
from training.synth_oai_tables import write_contents, write_tables
from training.synth_oai_truth import truth

SLICES, SIZE = 12, 96


@dataclass(frozen=True)
class Written:
    """What was written: participants, series, files, rows that the rules must keep for the chief label."""

    patients: int
    series: int
    files: int
    rows: int


def make_oai(
    out: Path,
    patients: int = 60,
    seed: int = 0,
    changes: Mapping[str, float] | None = None,
    slices: int = SLICES,
    size: int = SIZE,
) -> Written:
    """Write a made OAI into `out`; its images and tables are replaced when they are there.

    Args:
        out: the folder.
        patients: how many.
        seed: decides everything.
        changes: planted effects that differ from `training.synth_oai_plan.EFFECTS`.
        slices: of a TSE series; a DESS has twice as many.
        size: rows and columns of a slice.

    Raises:
        UsageError: no participant is asked for, an effect is none, a size is out of range, or `out` holds images
            or tables of another origin.
    """
    if patients < 1:
        raise UsageError(f"{patients} patients: there must be 1 or more.")
    if not LEAST <= slices <= 100 or not 32 <= size <= 512:
        raise UsageError(f"{slices} slices of {size} pixels: there must be {LEAST} to 100 slices of 32 to 512 pixels.")
    planted = effects(changes)
    people = plan(patients, seed, planted, slices)
    clear(out)
    files = sum(write_scan(person, scan, out / "images", size, seed) for person in people for scan in person.scans)
    write_contents(people, out / "images", seed)
    rows = write_tables(people, out / "tables", seed)
    known = truth(people)
    content = {
        "source": "made OAI", "patients": patients, "seed": seed, "slices": slices, "size": size, "effects": planted,
        "tables": rows, **known,
    }  # fmt: skip
    (out / TRUTH).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    series = sum(len(person.scans) for person in people)
    kept = int(known["flow"]["12"]["progression_abs"][-1]["series"])
    return Written(patients, series, files, kept)
