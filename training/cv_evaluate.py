"""`genu-train evaluate` of a cross-validated run: figures of all systems beside the baselines, into RUN/evaluation.

RUN/evaluation/figures.json holds what the tables say with the inputs' hashes; the CSV files are described in
docs/reports.md. Nothing is chosen here: predictions are out of fold, and are measured as they are.
"""

import json
from pathlib import Path
from typing import Any, Final

from inference.errors import DataError
from training.cv_evidence import Evidence, read_evidence
from training.cv_families import Figures, family_of

FOLDER, FIGURES = "evaluation", "figures.json"
_FORMAT: Final = 2  # of figures.json; another one is measured again


def evaluate_run(run: Path) -> Figures:
    """Measure a run, write RUN/evaluation, and return what figures.json holds.

    Raises:
        DataError: the run is unfinished, leaks, or is of an unknown kind.
    """
    return measure(read_evidence(run))


def unfinished(figures: Figures) -> str | None:
    """What is to be said of a run that was asked for more systems than it has; None of a finished one."""
    names = figures.get("unfinished") or ()
    if not names:
        return None
    return (
        f"NOT FINISHED, and missing here: {', '.join(names)}. Run `genu-train fit` again: it goes on where it stopped."
    )


def figures_of(evidence: Evidence) -> Figures:
    """What `evaluate_run` found; measured now where nothing was, or where predictions have changed since."""
    path = evidence.run / FOLDER / FIGURES
    try:
        figures: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return measure(evidence)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): run `genu-train evaluate` again.") from error
    same = figures.get("format") == _FORMAT and figures.get("inputs") == dict(evidence.inputs)
    return figures if same else measure(evidence)


def measure(evidence: Evidence) -> Figures:
    """Measure what was read, and write RUN/evaluation."""
    found = family_of(evidence.about.get("kind")).evaluate(evidence)
    folder = evidence.run / FOLDER
    folder.mkdir(exist_ok=True)
    for name, table in found.tables.items():
        table.write_csv(folder / name)
    kind = str(evidence.about["kind"])
    figures = {
        "format": _FORMAT,
        "kind": kind,
        "inputs": dict(evidence.inputs),
        "unfinished": list(evidence.unfinished),
        "tables": sorted(found.tables),
        **found.figures,
    }
    (folder / FIGURES).write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return figures
