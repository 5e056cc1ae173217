"""One study or series through `inference.volumes`, to files: what runs in the processes of `genu-train preprocess`.

Nothing here loads torch or polars: a worker starts in a second and stays small.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from inference.errors import RefusalError, UnreadableError
from inference.findings import Evidence, Side
from inference.instances import Instance
from inference.mr_series import MRSeries, SeriesSelection, select_series
from inference.reading import group_studies, read_instance
from inference.volumes import VolumeSpec, finish, read_volume
from training.exports import Item

SLICES = "slices"


@dataclass(frozen=True)
class SeriesTask:
    """What a worker is given.

    name: unique, the same in every run. paths: files of a study, or the one folder of a series.
    wanted: the Series Instance UID, or None for whatever of the study is fit. side: as a table or a person says.
    items: files of an export that is no plain folder.
    """

    name: str
    paths: tuple[str, ...]
    wanted: str | None = None
    side: Side | None = None
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class WorkSettings:
    """What all tasks of a run have in common."""

    out: Path
    spec: VolumeSpec
    nifti: bool


@dataclass(frozen=True)
class Outcome:
    """What came of one series: `file` below the output folder and its size, or a `code` and a `reason`.

    `chosen` False: passed over for another one, `code` empty. `seconds` of work.
    """

    series: str
    study: str
    side: str
    digest: str = ""
    file: str = ""
    size: int = 0
    chosen: bool = True
    code: str = ""
    reason: str = ""
    evidence: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class TaskRecord:
    """A finished task: `source` is a digest of the files' names, sizes and times, and of the spec."""

    task: str
    source: str
    outcomes: tuple[Outcome, ...]

    def to_line(self) -> str:
        """One line of the journal."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "TaskRecord":
        """Rebuild. Raises ValueError, KeyError or TypeError for a line that was torn."""
        values = json.loads(line)
        return cls(values["task"], values["source"], tuple(Outcome(**one) for one in values["outcomes"]))


def begin() -> None:
    """One thread a process: there are as many processes as there is work."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


def run_task(task: SeriesTask, settings: WorkSettings, known: TaskRecord | None) -> TaskRecord:
    """Prepare what a task names; what is known and still there is not read again.

    Raises ResourceError when memory or disk are short.
    """
    source = _source(task, settings)
    if known is not None and known.source == source and all(_there(one, settings) for one in known.outcomes):
        return known
    instances = _instances(task)
    if not instances:
        missing = Outcome(task.wanted or "", "", task.side or "", code="unreadable", reason="no MR image can be read")
        return TaskRecord(task.name, source, (missing,))
    selection = select_series(instances, settings.spec.sequence, side=task.side)
    outcomes = [_prepared(series, settings) for series in selection.chosen]
    study = instances[0].study_instance_uid
    outcomes += [
        Outcome(
            series=other.series_instance_uid,
            study=study,
            side=task.side or "",
            chosen=False,
            code=other.refusal or "",
            reason=other.reason,
            evidence=_told(other.evidence),
        )
        for other in sorted(selection.passed_over, key=lambda other: -other.step)
    ]
    return TaskRecord(task.name, source, tuple(outcomes) or (_nothing(task, study, selection),))


def _nothing(task: SeriesTask, study: str, selection: SeriesSelection) -> Outcome:
    reason = f"no MR series is there, so no {selection.sequence.wording}"
    return Outcome(task.wanted or "", study, task.side or "", chosen=False, code="wrong_sequence", reason=reason)


def _instances(task: SeriesTask) -> list[Instance]:
    studies = group_studies([Path(path) for path in task.paths])
    found = [instance for study in studies for instance in study.instances] + _of_items(task.items)
    return [instance for instance in found if task.wanted in (None, instance.series_instance_uid)]


def _of_items(items: Sequence[Item]) -> list[Instance]:
    """The readable ones, each instance once and in the order of `group_studies`."""
    found: dict[tuple[str, str], Instance] = {}
    for item in sorted(items, key=lambda item: item.path):
        local = item.local
        try:
            instance = read_instance(local or Path(item.path), place=None if local else item)
        except UnreadableError:
            continue
        found.setdefault((instance.study_instance_uid, instance.sop_instance_uid), instance)
    return [found[key] for key in sorted(found)]


def _prepared(series: MRSeries, settings: WorkSettings) -> Outcome:
    began = time.monotonic()
    told = Outcome(
        series=series.series_instance_uid,
        study=series.study_instance_uid,
        side=series.side.value,
        evidence=_told(series.evidence),
    )
    try:
        raw = read_volume(series, settings.spec)
        name = f"{SLICES}/{raw.digest[:2]}/{raw.digest}.safetensors"
        path = settings.out / name
        if not path.is_file():
            about = {
                "series": series.series_instance_uid,
                "study": series.study_instance_uid,
                "side": series.side.value,
                "sequence": series.sequence.value,
                "chosen_by": series.chosen_by,
                "spec": settings.spec.to_json(),
                "map": raw.map.to_json(),
            }
            values = finish(raw, settings.spec).astype(np.float16)
            _write(path, values, about)
        if settings.nifti:
            from training.nifti import write_nifti

            write_nifti(series, settings.out / "nifti" / f"{series.series_instance_uid}.nii.gz")
    except RefusalError as error:
        return replace(told, code=error.refusal.code.value, reason=error.refusal.reason)
    seconds = round(time.monotonic() - began, 3)
    return replace(told, digest=raw.digest, file=name, size=path.stat().st_size, seconds=seconds)


def _write(path: Path, values: np.ndarray[Any, np.dtype[np.float16]], about: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file({SLICES: values}, part, metadata={"about": json.dumps(about, sort_keys=True)})
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _there(outcome: Outcome, settings: WorkSettings) -> bool:
    """Refusals are kept as they are: the files have not changed since."""
    if not outcome.file:
        return True
    nifti = settings.out / "nifti" / f"{outcome.series}.nii.gz"
    path = settings.out / outcome.file
    return path.is_file() and path.stat().st_size == outcome.size and (not settings.nifti or nifti.is_file())


def _source(task: SeriesTask, settings: WorkSettings) -> str:
    seen = hashlib.sha256(f"{settings.spec.digest} {task.wanted} {task.side}".encode())
    for path in _files(task.paths):
        try:
            status = path.stat()
            seen.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        except OSError as error:
            seen.update(f"{path.name} {error.errno}\n".encode())
    for item in task.items:
        try:
            told = item.seen()
        except OSError as error:
            told = f"{item.path} {error.errno}"
        seen.update(f"{told}\n".encode())
    return seen.hexdigest()


def _files(paths: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        found += sorted(path.rglob("*")) if path.is_dir() else [path]
    return found


def _told(evidence: Sequence[Evidence]) -> str:
    return "; ".join(f"{one.about}: {one.source} {one.value}" for one in evidence)
