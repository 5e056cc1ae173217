"""`genu explain`: DICOM files in; for each image a page and a picture of what was seen, and why it was decided so."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from inference.errors import ConfigurationError, DataError, RefusalError, ResourceError
from inference.findings import FilmLook, SourceImage, Step, StudyFindings
from inference.installed import installed
from inference.reading import Grouping, StudyInput, group_studies
from inference.studies import select
from plugin import explain_page, explain_picture
from plugin.commands.options import settings_of
from plugin.explain import Page, pages_of, verdict
from plugin.settings import Settings
from plugin.worker import Scorer, load_predictor


def explain(arguments: argparse.Namespace) -> int:
    """A page for each image under the paths; exit status 1 when a file could not be read."""
    settings = settings_of(arguments)
    for manifest in installed(settings.bundles, allow_undeployed=settings.allow_undeployed_bundles):
        manifest.verify_files()
    studies = _read(arguments.paths)
    out = _made(arguments.out)
    kinds = [kind for kind in ("html", "png") if getattr(arguments, kind)] or ["html", "png"]
    written = 0
    for page in _pages(settings, studies, secondary=arguments.accept_secondary_capture):
        written += 1
        try:
            names = [_write(page, kind, out) for kind in kinds]
        except OSError as error:
            raise ResourceError(f"--out {out}: {error.strerror or error}") from error
        sys.stdout.write(f"{'; '.join(verdict(page))}: {', '.join(names)}\n")
        sys.stdout.flush()
    broken = sum(len(study.unreadable_paths) for study in studies)
    if not written:
        raise DataError("nothing to explain: these files are Genu's own results")
    if broken:
        sys.stderr.write(f"genu explain: {broken} of the files could not be read; their pages say why\n")
    return 1 if broken else 0


def _read(paths: Sequence[Path]) -> list[StudyInput]:
    # Not Path.exists: it raises where a folder on the way may not be read.
    missing = [str(path) for path in paths if not os.path.exists(path)]  # noqa: PTH110
    if missing:
        raise DataError(f"there is no {missing[0]}, or it cannot be reached: give DICOM files, or folders of them")
    grouping = Grouping()
    studies = group_studies(paths, grouping=grouping)
    for path, refusal in grouping.broken:
        sys.stderr.write(f"{path}: {refusal.code.value}: {refusal.reason}\n")
    if not studies:
        where = ", ".join(str(path) for path in paths)
        raise DataError(f"no DICOM file under {where} ({grouping.skipped} other files were skipped)")
    return studies


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {folder}: cannot be made ({error.strerror}); name a folder") from error
    return folder


def _pages(settings: Settings, studies: Sequence[StudyInput], *, secondary: bool) -> Iterator[Page]:
    """All pages; the bundles are loaded only where there is something to look at."""
    scorer = load_predictor(settings) if any(study.instances for study in studies) else None
    count = 1
    for study in studies:
        findings = _findings(scorer, study, secondary=secondary)
        yield from pages_of(findings, [instance.header for instance in study.instances], version("genu"), count)
        count += len(findings.looks)


def _findings(scorer: Scorer | None, study: StudyInput, *, secondary: bool) -> StudyFindings:
    if scorer is None or not study.instances:
        selection = select(study)
        return StudyFindings(study.study_instance_uid, refusals=selection.refusals, looks=selection.looks)
    try:
        return scorer.score(study, accept_secondary_capture=secondary)
    except RefusalError as error:
        step = Step("Study", str(error), passed=False)
        look = FilmLook(SourceImage("", error.refusal.source or "", "", 0, 0), steps=(step,))
        return StudyFindings(study.study_instance_uid, refusals=(error.refusal,), radiographs=1, looks=(look,))


def _write(page: Page, kind: str, folder: Path) -> str:
    """Write one file, whole or not at all; returns its name."""
    name = f"{page.name}.{kind}"
    part = folder / f".{name}.part"
    if kind == "html":
        part.write_text(explain_page.render(page), encoding="utf-8")
    else:
        Image.fromarray(explain_picture.draw(page).pixels).save(part, "PNG")
    part.replace(folder / name)
    return name
