"""`genu-train report`: RUN/report, one self-contained page, and the same as CSV and PNG beside it."""

import shutil
from pathlib import Path
from typing import Final

import polars as pl

from training import cv_evaluate
from training.cv_evidence import Evidence, read_evidence
from training.cv_families import family_of
from training.published import Published, published_for
from training.report_about import knees_section, lead, made
from training.report_page import RESEARCH_MARK, Part, Text, pictures_of, render

FOLDER, PAGE = "report", "report.html"
_OURS: Final = ("*.csv", "*.png", "*.html")


def write_report(run: Path, *, published: bool = True) -> Path:
    """Write RUN/report; evaluates first where that was not done, or not of these predictions.

    Args:
        run: folder of a cross-validated run.
        published: show published figures beside its own.

    Returns:
        The page's path.

    Raises:
        DataError: the run is unfinished or cannot be read.
    """
    evidence = read_evidence(run)
    family = family_of(evidence.about.get("kind"))
    figures = cv_evaluate.figures_of(evidence)
    elsewhere = published_for(evidence.about) if published else []
    sections = [
        *family.sections(evidence, figures, elsewhere),
        knees_section(evidence),
        made(evidence, figures),
    ]
    marks = _marks(evidence)
    head = [*marks, *lead(evidence), Text(" ".join(family.summary(evidence, figures)), "verdict")]
    page = render(family.headline(evidence), head, sections, marks)
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    for old in (path for pattern in _OURS for path in folder.glob(pattern)):
        old.unlink()
    for name in figures["tables"]:
        shutil.copyfile(run / cv_evaluate.FOLDER / name, folder / name)
    if elsewhere:
        _table(elsewhere).write_csv(folder / "published.csv")
    for picture in pictures_of(sections):
        (folder / f"{picture.name}.png").write_bytes(picture.png)
    path = folder / PAGE
    path.write_text(page, encoding="utf-8")
    return path


def _marks(evidence: Evidence) -> list[Part]:
    marks: list[Part] = [Text(RESEARCH_MARK, "mark")]
    made_up = [system.system for system in evidence.systems if system.about.get("synthetic")]
    if evidence.about.get("synthetic"):
        said = "SYNTHETIC: MADE KNEES OR RANDOM NETWORKS ARE IN THIS RUN. ITS FIGURES SAY NOTHING ABOUT PATIENTS."
        marks.append(Text(said, "mark synthetic"))
    elif made_up:
        said = f"SYNTHETIC: RANDOM STAND-INS, NOT TRAINED NETWORKS, ARE BEHIND {', '.join(made_up)}."
        marks.append(Text(said, "mark synthetic"))
    return marks


def _table(published: list[Published]) -> pl.DataFrame:
    rows = [
        {
            "name": entry.name, "figure": figure, "low": low, "high": high, "knees": entry.knees,
            "patients": entry.patients, "data": entry.data, "citation": entry.citation, "note": entry.note,
        }
        for entry in published
        for figure, (low, high) in entry.figures.items()
    ]  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None)
