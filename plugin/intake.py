"""The part of the queue that takes studies which an archive keeps. Use it through plugin.jobs.Queue.

What is known of an instance here is its identifiers; a worker reads it from the archive when it scores the study.
"""

from collections.abc import Container, Sequence
from dataclasses import asdict

from plugin.database import Database, Run
from plugin.rows import Cursor, JobState, RemoteInstance, Source


class Intake:
    """Whole studies of an archive, how far its changes are known, and studies that a person wants scored again."""

    def __init__(self, database: Database) -> None:
        self._intake = database

    def take_study(
        self,
        study_uid: str,
        instances: Sequence[RemoteInstance],
        source: Source,
        now: float,
        *,
        arrived: Container[str] | None = None,
    ) -> int | None:
        """A study is whole in the archive: the revision that takes what is new in it, or None when nothing is.

        Our own results are never new. An instance known under another identifier was filed under another patient, and
        counts as new if it has just `arrived` (None: whenever that was): the study may lie under both, and our results
        in one must not call the other. One that we received as a file stays what it is.
        """
        with self._intake.write() as run:
            for instance in instances:
                may_move = arrived is None or instance.remote in arrived
                values = {"study_uid": study_uid, **asdict(instance), **asdict(source), "now": now}
                _take(run, values, may_move=may_move)
            if not run.exists("any_pending_of", {"study_uid": study_uid}):
                return None
            return make_job(run, study_uid, now)

    def forget(self, study_uid: str, remotes: Sequence[str]) -> None:
        """These are no longer in the archive; should they be sent again, they are new."""
        if remotes:
            with self._intake.write() as run:
                for remote in remotes:
                    run("forget_instance", {"study_uid": study_uid, "remote": remote})

    def score_again(self, study_uid: str, now: float) -> int | None:
        """A person wants the study scored again: the revision that does it, or None when the study is not known.

        One that waits or runs is enough; a dead letter goes back to work with fresh attempts.
        """
        with self._intake.write() as run:
            latest = run.one("latest_job", {"study_uid": study_uid})
            if latest is None:
                return None
            state = JobState(latest["state"])
            if state is JobState.DEAD:
                run("retry_jobs", {"study_uid": study_uid, "now": now})
            elif state not in (JobState.QUEUED, JobState.RUNNING):
                return make_job(run, study_uid, now, again=True)
            return int(latest["revision"])

    def cursor(self, name: str) -> Cursor | None:
        """How far the changes of an archive are known; None before its first."""
        with self._intake.read() as run:
            row = run.one("cursor", {"name": name})
        return None if row is None else Cursor(row["identity"], row["seq"])

    def move_cursor(self, name: str, cursor: Cursor) -> None:
        """Everything up to this change is in the queue."""
        with self._intake.write() as run:
            run("move_cursor", {"name": name, **asdict(cursor)})


def _take(run: Run, values: dict[str, str | int | float], *, may_move: bool) -> None:
    known = run.one("known_instance", values)
    if known is None:
        if not run.exists("own_result", values):
            run("add_remote_instance", values)
    elif may_move and known["remote"] not in (None, values["remote"]):
        run("move_instance", {"id": known["id"], "remote": values["remote"], "now": values["now"]})


def make_job(run: Run, study_uid: str, now: float, *, again: bool = False) -> int:
    """The revision that takes the study's new instances: the latest if no worker ever saw it, else one more."""
    latest = run.one("latest_job", {"study_uid": study_uid})
    if latest is not None and latest["state"] == JobState.QUEUED and latest["token"] == 0:
        revision = int(latest["revision"])
        run("absorb", {"id": latest["id"], "now": now})
    else:
        revision = int(latest["revision"]) + 1 if latest is not None else 1
        run("add_job", {"study_uid": study_uid, "revision": revision, "now": now, "again": int(again)})
    run("assign_instances", {"study_uid": study_uid, "revision": revision})
    return revision
