"""MR series of a cohort or an export to prepared slices: `genu-train preprocess`.

Cached by the hash of pixels and spec; the journal `done.jsonl` says which files, by name, size and time, led to which
slices, so that a run that was stopped goes on where it was and a second one reads nothing.
"""

import csv
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference.errors import DataError, ResourceError, UsageError
from inference.findings import Side
from inference.mr_sequences import MRSequence
from inference.mr_stacks import MR_CLASSES
from inference.reading import group_studies
from inference.volumes import VolumeSpec
from training.alone import alone
from training.export_names import Export
from training.exports import check
from training.indexed_files import Files, indexed, walked
from training.prepared import CHOICES, FAILURES, SERIES, SPEC
from training.preprocess_worker import Outcome, SeriesTask, TaskRecord, WorkSettings, begin, run_task

JOURNAL = "done.jsonl"
Progress = Callable[[int, int, int], None]
_AHEAD = 4  # tasks a worker may be ahead of the journal
_COLUMNS = ("SeriesInstanceUID", "path", "sequence", "side")
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("SeriesInstanceUID", "StudyInstanceUID", "side", "digest", "file")]
)


@dataclass(frozen=True)
class PreprocessPlan:
    """What `preprocess` is asked for.

    export: what `genu-train index` can read. cohort: folder of cohort.parquet, whose series of the spec's sequence are
    prepared; None for every study of the export. side: of series that do not say it, without a cohort.
    index: of the export; None for the usual place. A plain folder needs none.
    """

    export: Export
    out: Path
    spec: VolumeSpec
    cohort: Path | None = None
    side: Side | None = None
    workers: int = 2
    nifti: bool = False
    index: Path | None = None


@dataclass(frozen=True)
class PreprocessReport:
    """What was done: series with slices, of them `cached` ones that were there already; `failed` series."""

    prepared: int
    cached: int
    failed: int
    passed_over: int
    seconds: float


def preprocess(plan: PreprocessPlan, progress: Progress | None = None) -> PreprocessReport:
    """Prepare the series of a cohort or an export into `plan.out`, going on where an earlier run stopped.

    `progress` is called with tasks done, tasks in all, and failures among them.

    Raises:
        UsageError: a number makes no sense; DataError: no export, no cohort, nothing in it of this sequence, or the
            folder holds slices of another spec, or another run is at work in it; ResourceError: memory, disk, a worker
            that was ended, a store that does not answer.
    """
    if plan.workers < 0:
        raise UsageError(f"--workers {plan.workers}: at least 0.")
    check(plan.export)
    tasks = _cohort_tasks(plan, plan.cohort) if plan.cohort is not None else _export_tasks(plan)
    began = time.monotonic()
    with alone(plan.out):
        _check_spec(plan)
        known = _journal(plan.out / JOURNAL)
        records: list[TaskRecord] = []
        cached = failed = 0
        with (plan.out / JOURNAL).open("a", encoding="utf-8") as journal:
            for record in _run(tasks, plan, known):
                records.append(record)
                if known.get(record.task) == record:
                    cached += sum(bool(one.file) for one in record.outcomes)
                else:
                    journal.write(record.to_line())
                    journal.flush()
                failed += len(_failures(record))
                if progress is not None:
                    progress(len(records), len(tasks), failed)
        outcomes = [one for record in records for one in record.outcomes]
        _publish(plan, outcomes, records)
    return PreprocessReport(
        prepared=sum(bool(one.file) for one in outcomes),
        cached=cached,
        failed=failed,
        passed_over=sum(not one.chosen for one in outcomes),
        seconds=time.monotonic() - began,
    )


def _cohort_tasks(plan: PreprocessPlan, cohort: Path) -> list[SeriesTask]:
    """One task a series: its windows share it."""
    path = cohort / "cohort.parquet"
    try:
        names = pq.read_schema(path).names
        missing = [name for name in _COLUMNS if name not in names]
        if missing:
            raise DataError(f"{path} lacks the column(s) {', '.join(missing)}: it is no cohort of MR series.")
        rows = pq.read_table(path, columns=list(_COLUMNS)).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}): make it with `genu-train cohort`.") from error
    wanted = plan.spec.sequence.value
    tasks: dict[str, SeriesTask] = {}
    chosen = [row for row in rows if str(row["sequence"]).lower() == wanted]
    files = indexed(plan.export, plan.index, "SeriesInstanceUID", MR_CLASSES)
    for row in chosen:
        task = _row_task(row, plan.export, path, files)
        if tasks.setdefault(task.name, task) != task:
            raise DataError(f"{path} has the series {task.name} with two sides or two paths.")
    if not tasks:
        there = sorted({str(row["sequence"]) for row in rows})
        raise DataError(f"{path} has no series of {wanted}; its sequences are {', '.join(there) or 'none'}.")
    return [tasks[name] for name in sorted(tasks)]


def _row_task(row: dict[str, Any], export: Export, cohort: Path, files: Files | None) -> SeriesTask:
    uid, place, side = row["SeriesInstanceUID"], row["path"], row["side"]
    if not (isinstance(uid, str) and uid and isinstance(place, str) and side in {one.value for one in Side}):
        raise DataError(f"{cohort}: a series without UID, path or side ({uid!r}, {place!r}, {side!r}).")
    pure = PurePosixPath(place)
    if pure.is_absolute() or ".." in pure.parts:
        raise DataError(f"{cohort}: the path of {uid} leads out of the export: {place!r}.")
    items = () if files is None else tuple(files.get(uid, ()))
    if walked(export, items):
        return SeriesTask(uid, (str(Path(export) / pure),), uid, Side(side))
    return SeriesTask(uid, (), uid, Side(side), items)


def _export_tasks(plan: PreprocessPlan) -> list[SeriesTask]:
    """One task a study, by the index of the export where there is one."""
    studies = indexed(plan.export, plan.index, "StudyInstanceUID", MR_CLASSES)
    tasks: list[SeriesTask] = []
    if studies is None:
        for study in group_studies([Path(plan.export)]):
            files = tuple(sorted(str(one.path) for one in study.instances if one.sop_class_uid in MR_CLASSES))
            if files:
                tasks.append(SeriesTask(study.study_instance_uid, files, None, plan.side))
    for uid, items in (studies or {}).items():
        if walked(plan.export, items):
            files = tuple(sorted(str(Path(plan.export) / item.path) for item in items))
            tasks.append(SeriesTask(uid, files, None, plan.side))
        else:
            tasks.append(SeriesTask(uid, (), None, plan.side, tuple(items)))
    if not tasks:
        raise DataError(f"{plan.export} holds no MR image that can be read.")
    return sorted(tasks, key=lambda task: task.name)


def _check_spec(plan: PreprocessPlan) -> None:
    path, text = plan.out / SPEC, json.dumps({"spec": plan.spec.to_json(), "digest": plan.spec.digest}, indent=2) + "\n"
    if path.exists() and path.read_text("utf-8") != text:
        raise DataError(f"{plan.out} holds slices prepared in another way ({SPEC}): name another folder with --out.")
    _replace(path, text)


def _journal(path: Path) -> dict[str, TaskRecord]:
    """The last record of every task; a line that a kill tore is passed over, and ended."""
    if not path.exists():
        return {}
    text = path.read_text("utf-8")
    if text and not text.endswith("\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    found: dict[str, TaskRecord] = {}
    for line in text.splitlines():
        try:
            record = TaskRecord.from_line(line)
        except (ValueError, KeyError, TypeError):
            continue
        found[record.task] = record
    return found


def _run(tasks: Sequence[SeriesTask], plan: PreprocessPlan, known: dict[str, TaskRecord]) -> Iterator[TaskRecord]:
    """Records in the order of the tasks; a bounded number is under way."""
    settings = WorkSettings(plan.out, plan.spec, plan.nifti)
    if not plan.workers:
        for task in tasks:
            yield run_task(task, settings, known.get(task.name))
        return
    # Never forked: a fork after OpenMP has started threads can hang.
    pool = ProcessPoolExecutor(plan.workers, mp_context=get_context("spawn"), initializer=begin)
    waiting: deque[Future[TaskRecord]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(run_task, task, settings, known.get(task.name)))
            if len(waiting) >= plan.workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ResourceError(
            "a worker was ended from outside, perhaps for want of memory: use fewer --workers. What is done is kept; "
            "the same command goes on."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _publish(plan: PreprocessPlan, outcomes: Sequence[Outcome], records: Sequence[TaskRecord]) -> None:
    """series.parquet, failures.csv and choices.csv, each replaced whole."""
    good = sorted((one for one in outcomes if one.file), key=lambda one: one.series)
    rows = [(one.series, one.study, one.side, one.digest, one.file) for one in good]
    table = pa.table([list(column) for column in zip(*rows, strict=True)] or [[]] * len(_SCHEMA), schema=_SCHEMA)
    part = plan.out / f"{SERIES}.part"
    pq.write_table(table, part)
    part.replace(plan.out / SERIES)
    failures = [
        (record.task, one.series, one.side, one.code, one.reason) for record in records for one in _failures(record)
    ]
    _csv(plan.out / FAILURES, ("task", "SeriesInstanceUID", "side", "code", "reason"), failures)
    choices = [
        (one.study, one.series, "taken" if one.file else "refused" if one.code else "passed over", one.side, one.code,
         one.reason, one.evidence)
        for one in sorted(outcomes, key=lambda one: (one.study, not one.file, one.series))
    ]  # fmt: skip
    names = ("StudyInstanceUID", "SeriesInstanceUID", "decision", "side", "code", "reason", "evidence")
    _csv(plan.out / CHOICES, names, choices)


def _failures(record: TaskRecord) -> list[Outcome]:
    """Series that were chosen and could not be prepared; where nothing was chosen, the one that came farthest."""
    chosen = [one for one in record.outcomes if one.chosen and one.code]
    if chosen or any(one.file for one in record.outcomes):
        return chosen
    return [one for one in record.outcomes if one.code][:1]


def _csv(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)
    part.replace(path)


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def default_spec(sequence: str) -> VolumeSpec:
    """The defaults for a sequence by name, in either case. Raises UsageError for a name that is none."""
    try:
        return VolumeSpec.default(MRSequence(sequence.lower()))
    except ValueError:
        known = ", ".join(one.value for one in MRSequence)
        raise UsageError(f"--sequence {sequence}: it must be one of {known}.") from None
