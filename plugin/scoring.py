"""Scoring without a service: `genu score` reads headers here and scores in child processes, which alone load torch.

Children overlap: while one decodes, another infers. A child that dies (a codec that crashes, memory) costs only the
study it had: that study is tried once more alone, and is reported as failed when it brings its process down again.
"""

import hashlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path

from pydicom import Dataset, dcmwrite

from dicom_templates.compose import compose
from inference.errors import BundleError, GenuError, RefusalError, ResourceError
from inference.findings import StudyFindings
from inference.reading import StudyInput
from inference.studies import is_own_result
from plugin import logs
from plugin.boundary import Boundary
from plugin.provenance import report_context
from plugin.results import ResultLine, failed_line, result_line
from plugin.settings import Settings
from plugin.worker import Scorer, load_predictor

STUDIES_PER_PROCESS = 16  # below this a further process costs more to start than it saves
CRASHED = "the scoring process died while it worked on this study"


@dataclass(frozen=True)
class Request:
    """What every study of one run is scored with. `created` is aware and stands in every report of the run."""

    settings: Settings
    out: Path
    created: datetime
    accept_secondary_capture: bool = False


@dataclass(frozen=True)
class Scored:
    """The outcome of one study: its line, and what went wrong when `line` says that it failed (no patient data)."""

    line: ResultLine
    error: str = ""
    frames: tuple[str, ...] = ()


def default_jobs(studies: int) -> int:
    """How many processes are worth their start: one for 16 studies, at most one a CPU."""
    return max(1, min(len(os.sched_getaffinity(0)), -(-studies // STUDIES_PER_PROCESS)))


def score_studies(request: Request, studies: Sequence[StudyInput], jobs: int) -> Iterator[Scored]:
    """Outcomes in the order of the studies, each as soon as it and those before it are done.

    Raises BundleError when the bundles cannot be loaded.
    """
    left = list(studies)
    while left:
        count = 0
        for scored in _until_a_child_dies(request, left, jobs):
            yield scored
            count += 1
        left = left[count:]
        if left:
            yield _score_alone(request, left.pop(0))


def _until_a_child_dies(request: Request, studies: Sequence[StudyInput], jobs: int) -> Iterator[Scored]:
    """Ends early, before the first study whose outcome was lost."""
    with _Pool(request, min(jobs, len(studies))) as pool:
        for future in [pool.submit(study) for study in studies]:
            try:
                scored = future.result()
            except BrokenProcessPool:
                return
            yield scored


def _score_alone(request: Request, study: StudyInput) -> Scored:
    with _Pool(request, 1) as pool:
        try:
            return pool.submit(study).result()
        except BrokenProcessPool:
            return Scored(failed_line(study.study_instance_uid), CRASHED)


class _Pool:
    """Child processes, each with its own predictor; the bundles are known to load before the first study is sent."""

    def __init__(self, request: Request, jobs: int) -> None:
        self._request = request
        # Not fork: the parent may hold threads (progress display), and torch must not be inherited half-way.
        self._executor = ProcessPoolExecutor(
            jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_start_child
        )

    def __enter__(self) -> "_Pool":
        try:
            trouble = self._executor.submit(_load, self._request.settings).result()
        except BrokenProcessPool as error:
            raise ResourceError("the scoring process died while it loaded the bundles: is memory short?") from error
        if trouble:
            self._executor.shutdown()
            raise BundleError(trouble)
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, study: StudyInput) -> "Future[Scored]":
        """Give one study to the next child that is free."""
        return self._executor.submit(_score, self._request, study)


# ---- in the child


def _start_child() -> None:
    """Ctrl-C is the parent's to handle; libraries may quote data sets in their warnings, so they stay silent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure("error")
    logging.getLogger().setLevel(logging.ERROR)


@cache
def _scorer(settings: Settings) -> Scorer:
    return load_predictor(settings)


def _load(settings: Settings) -> str:
    """Load the bundles; what is wrong with them, empty when they are sound."""
    try:
        _scorer(settings)
    except BundleError as error:
        return str(error)
    return ""


def _score(request: Request, study: StudyInput) -> Scored:
    errors: list[Exception] = []
    line = failed_line(study.study_instance_uid)
    with Boundary(errors.append):
        line = _scored_line(request, study)
    if not errors:
        return Scored(line)
    error = errors[0]
    text = logs.describe(error) + (f": {error}" if isinstance(error, GenuError) else "")
    return Scored(line, text, tuple(logs.frames(error.__traceback__)))


def _scored_line(request: Request, study: StudyInput) -> ResultLine:
    # Genu's own results, from a run into a folder among the inputs, must not change what is said about the others.
    study = replace(study, instances=tuple(i for i in study.instances if not is_own_result(i.header)))
    secondary = request.accept_secondary_capture
    try:
        findings = _scorer(request.settings).score(study, accept_secondary_capture=secondary)
    except RefusalError as error:
        findings = StudyFindings(study.study_instance_uid, refusals=(error.refusal,), radiographs=1)
    context = report_context(
        request.settings,
        created=request.created,
        inputs=[(instance.sop_instance_uid, _sha256(instance.path)) for instance in study.instances],
        accept_secondary_capture=secondary,
    )
    composed = compose(findings, [instance.header for instance in study.instances], context)
    return result_line(findings, [_write(dataset, request.out) for dataset in composed.all])


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(dataset: Dataset, folder: Path) -> str:
    """Write under the UID that we derived; the file is there whole or not at all. Returns its name."""
    name = f"{dataset.SOPInstanceUID}.dcm"
    part = folder / f".{name}.part"
    dcmwrite(part, dataset, enforce_file_format=True)
    part.replace(folder / name)
    return name
