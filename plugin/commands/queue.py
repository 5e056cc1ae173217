"""`genu status` and `genu retry`: look at the queue and mend it. Neither needs the service to be running."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from inference.errors import DataError
from plugin.commands.options import settings_of
from plugin.jobs import Queue
from plugin.rows import DestinationRow, JobRow, JobState, Snapshot
from plugin.settings import Settings

STUDIES_SHOWN = 25
WATCH_SECONDS = 1.0
PIPED_WIDTH = 200


def status(arguments: argparse.Namespace) -> int:
    """Show the queue once, or with --watch until interrupted."""
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    with _open_queue(settings_of(arguments)) as queue:
        if arguments.watch and not arguments.json and console.is_terminal:
            with Live(render(queue), console=console, auto_refresh=False) as live:
                while True:
                    time.sleep(WATCH_SECONDS)
                    live.update(render(queue), refresh=True)
        while True:
            if arguments.json:
                sys.stdout.write(json.dumps(as_json(queue)) + "\n")  # not by rich, which reads ":x:" as an emoji
                sys.stdout.flush()
            else:
                console.print(render(queue))
            if not arguments.watch:
                return 0
            time.sleep(WATCH_SECONDS)


def retry(arguments: argparse.Namespace) -> int:
    """Dead letters back to work: those of the studies named, or all."""
    if arguments.all == bool(arguments.studies):
        raise DataError("name the studies to try again, or give --all for every dead letter")
    console = Console(soft_wrap=True, highlight=False)
    with _open_queue(settings_of(arguments)) as queue:
        for study_uid in arguments.studies or [None]:
            if study_uid is not None and not queue.jobs_of(study_uid):
                raise DataError(f"there is no study {study_uid!r} in the queue: `genu status` lists them")
            done = queue.retry(time.time(), study_uid)
            what = "all" if study_uid is None else study_uid
            console.print(f"{what}: {done.jobs} to score again, {done.deliveries} to send again", markup=False)
    return 0


@contextmanager
def _open_queue(settings: Settings) -> Iterator[Queue]:
    """The queue of an installation; raises DataError where there is none yet, instead of making one."""
    if not settings.queue_path.exists():
        raise DataError(
            f"there is no queue at {settings.queue_path}: `genu listen` makes it; "
            "name its folder with --data-dir or --config"
        )
    queue = Queue.open(settings)
    try:
        yield queue
    finally:
        queue.close()


def as_json(queue: Queue) -> dict[str, Any]:
    """All of `genu status` as one JSON object."""
    snapshot = queue.snapshot()
    return {
        "instances": snapshot.instances,
        "receiving": snapshot.receiving,
        "jobs": {state.value: count for state, count in snapshot.jobs.items()},
        "studies": [_job_json(job) for job in queue.recent_jobs(STUDIES_SHOWN)],
        "destinations": [asdict(row) for row in snapshot.destinations],
        "dead_jobs": [_job_json(job) for job in snapshot.dead_jobs],
        "dead_deliveries": [asdict(row) for row in snapshot.dead_deliveries],
        "idle": snapshot.is_empty,
    }


def _job_json(job: JobRow) -> dict[str, Any]:
    return asdict(job) | {"result": json.loads(job.result) if job.result else None}


def render(queue: Queue) -> RenderableType:
    """All of `genu status` for a reader."""
    snapshot = queue.snapshot()
    parts: list[RenderableType] = [_counts(snapshot)]
    if jobs := queue.recent_jobs(STUDIES_SHOWN):
        parts += [Text(), _studies(jobs), *_reasons(jobs)]
    if snapshot.destinations:
        parts += [Text(), _destinations(snapshot.destinations)]
    parts += _dead_letters(snapshot)
    return Group(*parts)


def _counts(snapshot: Snapshot) -> Text:
    jobs = snapshot.jobs
    text = Text(f"{snapshot.instances} instances; studies: {snapshot.receiving} arriving")
    text.append(f", {jobs[JobState.QUEUED]} waiting, {jobs[JobState.RUNNING]} being scored, {jobs[JobState.DONE]} done")
    if jobs[JobState.DEAD]:
        text.append(f", {jobs[JobState.DEAD]} given up", style="bold red")
    return text


def _studies(jobs: tuple[JobRow, ...]) -> Table:
    study = Column("study", overflow="fold")  # whole, to be copied into `genu retry`
    table = Table(study, "revision", "state", "outcome", "knees", "since", box=None, pad_edge=False)
    for job in jobs:
        since = datetime.fromtimestamp(job.finished_at or job.created_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(job.study_uid, str(job.revision), job.state.value, job.status or "", _knees(job), since)
    return table


def _knees(job: JobRow) -> str:
    line = json.loads(job.result) if job.result else {"knees": []}
    told = [f"{knee['side']} grade {knee['kl']['grade']}" for knee in line["knees"]]
    told += [
        f"{volume['side']} {volume['target']} {volume['probabilities'][-1]:.2f} ({volume['sequence']})"
        for volume in line.get("volumes", [])  # lines of older versions have none
    ]
    return ", ".join(told)


def _reasons(jobs: tuple[JobRow, ...]) -> Iterator[Text]:
    for job in jobs:
        for refusal in json.loads(job.result)["refusals"] if job.result else []:
            what = " ".join(filter(None, (refusal.get("source"), refusal.get("side")))) or "the study"
            yield Text(f"  {job.study_uid}: {refusal['code']} ({what}): {refusal['reason']}", style="yellow")


def _destinations(rows: tuple[DestinationRow, ...]) -> Table:
    table = Table("destination", "waiting", "delivered", "given up", "state", box=None, pad_edge=False)
    for row in rows:
        state = f"down, {row.failures} attempts: {row.error}" if row.failures else "up"
        table.add_row(Text(row.name), str(row.pending), str(row.delivered), str(row.dead), Text(state))
    return table


def _dead_letters(snapshot: Snapshot) -> Iterator[Text]:
    for job in snapshot.dead_jobs:
        yield Text(f"given up: study {job.study_uid}: {job.error}", style="red")
    for row in snapshot.dead_deliveries:
        yield Text(f"given up: {row.kind.value} {row.sop_uid} to {row.destination}: {row.error}", style="red")
    if snapshot.dead_jobs or snapshot.dead_deliveries:
        yield Text("`genu retry STUDY` or `genu retry --all` puts them back to work")
