"""`genu score`: files, folders, or studies of a DICOMweb server in; reports, heatmaps and results.jsonl out."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TextIO

from pydicom import dcmread
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dicom_templates.tree import render_tree
from inference.errors import ConfigurationError, DataError, ResourceError
from inference.findings import StudyStatus
from inference.installed import installed
from inference.reading import Grouping, StudyInput, group_studies
from plugin.commands.archive import Returner, fetched
from plugin.commands.options import settings_of
from plugin.results import encode
from plugin.scoring import Request, Scored, default_jobs, score_studies
from plugin.settings import Settings, StowDestination

RESULTS = "results.jsonl"
PART = "results.jsonl.part"
REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"


def score(arguments: argparse.Namespace) -> int:
    """Score everything under the paths, or the studies named; exit status 1 when one failed or was not put back."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    settings = settings_of(arguments)
    for folder in settings.bundles:
        if not folder.is_dir():
            raise ConfigurationError(f"bundle {folder}: there is no such folder; give one that holds bundle.json")
    for manifest in installed(settings.bundles, allow_undeployed=settings.allow_undeployed_bundles):
        manifest.verify_files()  # says at once what a child would find out after seconds
    if arguments.jobs is not None and arguments.jobs < 1:
        raise ConfigurationError(f"--jobs {arguments.jobs}: give 1 or more")
    if bool(arguments.paths) == bool(arguments.study):
        raise ConfigurationError("what to score? Give DICOM files or folders, or --study UID with --dicomweb URL")
    request = Request(settings, _made(arguments.out), datetime.now().astimezone(), arguments.accept_secondary_capture)
    targets = settings.destinations if arguments.to_dicomweb else ()
    returner = Returner(
        [target for target in targets if isinstance(target, StowDestination)], settings.listener.ae_title
    )
    with _progress(console) as progress, _inputs(arguments, settings, console, progress) as (studies, failed):
        task = progress.add_task("scoring", total=len(studies) + len(failed))
        counts = dict.fromkeys(StudyStatus, 0)
        with _results(request.out) as lines:
            jobs = arguments.jobs or default_jobs(len(studies))
            for scored in chain(failed, score_studies(request, studies, jobs)):
                lines.write(encode(scored.line))
                lines.flush()
                counts[StudyStatus(scored.line["status"])] += 1
                progress.advance(task)
                _tell(scored, request.out, console, verbose=arguments.verbose)
                for trouble in returner.put([request.out / name for name in scored.line["files"]]):
                    console.print(f"{scored.line['study']}: {trouble}", style="red", markup=False)
    told = ", ".join(f"{count} {status.value.replace('_', ' ')}" for status, count in counts.items() if count)
    put_back = f"; {returner.stored} objects stored, {returner.lost} not" if arguments.to_dicomweb else ""
    console.print(f"{told}{put_back}; see {request.out / RESULTS}", markup=False)
    return 1 if counts[StudyStatus.FAILED] or returner.lost else 0


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {folder}: cannot be made ({error.strerror}); name a folder") from error
    return folder


@contextmanager
def _results(folder: Path) -> Iterator[TextIO]:
    """The lines as they are written; the file gets its name at the end."""
    try:
        lines = (folder / PART).open("w", encoding="ascii")
    except OSError as error:
        raise ConfigurationError(
            f"--out {folder}: cannot be written to ({error.strerror}); name another folder"
        ) from error
    try:
        with lines:
            yield lines
        (folder / PART).replace(folder / RESULTS)
    except OSError as error:
        raise ResourceError(f"--out {folder}: {error.strerror or error}; what was done stands in {PART}") from error


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    """A bar on standard error; nothing where that is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress


@contextmanager
def _inputs(
    arguments: argparse.Namespace, settings: Settings, console: Console, progress: Progress
) -> Iterator[tuple[list[StudyInput], list[Scored]]]:
    """What to score, and the outcomes of what could not even be fetched."""
    if arguments.paths:
        yield _read(arguments.paths, console, progress), []
        return
    with fetched(settings, arguments.study, progress) as found:
        yield found


def _read(paths: Sequence[Path], console: Console, progress: Progress) -> list[StudyInput]:
    """All studies under the paths. Raises DataError when there is none."""
    # Not Path.exists: it raises where a folder on the way may not be read.
    missing = [str(path) for path in paths if not os.path.exists(path)]  # noqa: PTH110
    if missing:
        raise DataError(f"there is no {missing[0]}, or it cannot be reached: give DICOM files, or folders of them")
    grouping = Grouping()
    task = progress.add_task("reading", total=None)
    studies = group_studies(paths, on_progress=lambda seen: progress.update(task, completed=seen), grouping=grouping)
    progress.remove_task(task)
    for path, refusal in grouping.broken:
        console.print(f"{path}: {refusal.code.value}: {refusal.reason}", markup=False)
    if not studies:
        where = ", ".join(str(path) for path in paths)
        raise DataError(f"no DICOM file under {where} ({grouping.skipped} other files were skipped)")
    if grouping.skipped:
        console.print(
            f"{grouping.skipped} of {grouping.files} files are no DICOM images and were skipped", markup=False
        )
    return studies


def _tell(scored: Scored, out: Path, console: Console, *, verbose: bool) -> None:
    """Say what failed; with --verbose print every report as a tree on standard output."""
    if scored.error:
        console.print(f"{scored.line['study']}: failed: {scored.error}", style="red", markup=False)
        for frame in scored.frames:
            console.print(f"    {frame}", markup=False)
    if not verbose:
        return
    for name in scored.line["files"]:
        dataset = dcmread(out / name)
        if dataset.SOPClassUID == REPORT_CLASS:
            sys.stdout.write(render_tree(dataset) + "\n")
