"""The durable queue: instances -> whole studies -> jobs under a lease -> results in the outbox.

The only module, with plugin.outbox, that touches SQLite; every statement stands in jobs.sql. Each method is one
transaction and durable when it returns. Any number of processes may use one queue at once. Times come from the caller.
docs/queue.md draws the states and says what a kill -9 does at each point.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from inference.errors import GenuError
from inference.findings import StudyStatus
from plugin import logs, routing
from plugin.completeness import Arrivals, is_whole
from plugin.database import Database, Row, Run
from plugin.intake import Intake, make_job
from plugin.outbox import Outbox
from plugin.retries import backoff
from plugin.rows import (
    Claim,
    DeliveryRow,
    DeliveryState,
    DestinationRow,
    Input,
    JobRow,
    JobState,
    ObjectKind,
    Predecessor,
    ReceivedInstance,
    Repeat,
    ResultObject,
    Retried,
    Snapshot,
    Source,
)
from plugin.settings import Settings

_log = logging.getLogger(__name__)

LOST = "the worker was lost (killed, crashed or silent) while it scored this study"


class StaleClaimError(GenuError):
    """The lease of a claim ran out or somebody else holds the job now: whatever the worker did is void."""


class Queue(Intake, Outbox):
    """The queue in the SQLite file at `path`; deliveries and Orthanc's studies are in the base classes. Thread-safe.

    Raises ResourceError from every method when the database is busy for too long or the disk fails, and
    ConfigurationError when the file is no queue.
    """

    def __init__(self, path: Path, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.database = Database(path, self.settings.queue.busy_seconds)
        Intake.__init__(self, self.database)
        Outbox.__init__(self, self.database, self.settings.delivery)

    @classmethod
    def open(cls, settings: Settings) -> "Queue":
        """The queue of an installation."""
        return cls(settings.queue_path, settings)

    def close(self) -> None:
        """Close the connection."""
        self.database.close()

    # ---- reception

    def open_reception(self, now: float) -> None:
        """The listener starts at `now`: studies that are being received get a full quiet period anew."""
        with self.database.write() as run:
            run("open_reception", {"now": now})

    def admit(self, received: ReceivedInstance) -> bool:
        """Take an instance into its study; True when it is new, and its file now belongs to the queue.

        False means: answer success and delete the file. It is there already, the same or with other bytes (the first
        is kept and the conflict is logged), or it is one of our own results coming back.
        """
        values = asdict(received)
        with self.database.write() as run:
            known = run.one("known_instance", values)
            own = run.exists("own_result", values)
            if known is not None:
                run("see_instance_again", {"id": known["id"], "received_at": received.received_at})
            elif not own:
                run("add_instance", values)
        if own:
            action = "instance.own_result"
        elif known is None:
            action = "instance.admitted"
        else:
            action = "instance.repeated" if known["sha256"] == received.sha256 else "instance.conflict"
        level = logging.WARNING if action == "instance.conflict" else logging.DEBUG
        logs.event(_log, action, level=level, study_uid=received.study_uid, sop_uid=received.sop_uid)
        return action == "instance.admitted"

    def stored_class(self, sop_uid: str) -> str | None:
        """The SOP Class UID of an instance that is stored durably, or None: what Storage Commitment asks.

        Our own results count: when a PACS sends one back we answer success and keep the file that we made.
        """
        with self.database.read() as run:
            row = run.one("stored_class", {"sop_uid": sop_uid})
        return None if row is None else str(row["sop_class_uid"])

    def known_paths(self) -> Iterator[str]:
        """The relative paths of all instances that the queue owns; files beside them are orphans."""
        with self.database.read() as run:
            rows = run.all("known_paths")
        return (row["relative_path"] for row in rows)

    def sweep(self, now: float) -> int:
        """Turn studies that are whole at `now` into jobs; the number of jobs made or enlarged."""
        with self.database.read() as run:
            if not run.exists("any_pending_instance"):
                return 0
        changed: list[tuple[str, int]] = []
        with self.database.write() as run:
            run("clamp_future_instances", {"now": now})
            opened = run.one("reception")
            opened_at = float(opened["opened_at"]) if opened else 0.0
            for row in run.all("receiving_studies"):
                study_uid = str(row["study_uid"])
                if self._is_whole(run, study_uid, row["first"], opened_at, now):
                    changed.append((study_uid, make_job(run, study_uid, now)))
        for study_uid, revision in changed:
            logs.event(_log, "study.whole", study_uid=study_uid, revision=revision)
        return len(changed)

    def _is_whole(self, run: Run, study_uid: str, first: float, opened_at: float, now: float) -> bool:
        last = run.one("last_seen", {"study_uid": study_uid})
        arrivals = Arrivals(first=first, last=min(float(last["last"]), now) if last else first)
        wait = routing.wait_for(self.settings, _sources(run.all("pending_sources", {"study_uid": study_uid})))
        return is_whole(arrivals, opened_at, wait, now)

    # ---- scoring

    def claim(self, worker_id: str, now: float, lease: float | None = None) -> Claim | None:
        """The right to the next job for `lease` seconds (queue.lease_seconds), or None when there is nothing to do.

        The attempt counts from here: a study that kills its worker becomes a dead letter after queue.max_attempts.
        """
        lease = lease or self.settings.queue.lease_seconds
        with self.database.read() as run:
            if not run.exists("any_claimable", {"now": now}):
                return None
        with self.database.write() as run:
            lost = [
                (row["study_uid"], self._give_up(run, row, LOST, now)) for row in run.all("expired_jobs", {"now": now})
            ]
            job = run.one("next_job", {"now": now})
            claim = _claim(run, job, worker_id, now, lease) if job is not None else None
        for study_uid, state in lost:
            logs.event(_log, "job.lost", level=logging.WARNING, study_uid=study_uid, state=state.value)
        return claim

    def heartbeat(self, claim: Claim, now: float) -> None:
        """Prolong the lease. Raises StaleClaimError when it is lost."""
        with self.database.write() as run:
            beat = run("heartbeat", _held(claim, now) | {"lease_until": now + claim.lease})
            if not beat.rowcount:
                raise _stale(claim)

    def finish(
        self,
        claim: Claim,
        objects: Sequence[ResultObject],
        result_json: str,
        *,
        status: StudyStatus,
        destinations: Sequence[str],
        now: float,
        again: Sequence[str] = (),
    ) -> None:
        """Store the outcome and put the objects, in their order, into the outbox of every destination.

        The files must be fsynced before. Objects whose UID an earlier revision made already are left out; those named
        in `again` (SOP Instance UIDs of such objects) are delivered once more.
        Raises StaleClaimError when the lease is lost; nothing is stored then.
        """
        with self.database.write() as run:
            _require_held(run, claim, now)
            for position, item in enumerate(objects):
                row = run.one("add_object", asdict(item) | {"job_id": claim.job_id, "position": position})
                for destination in destinations if row else ():
                    run("add_delivery", {"object_id": row["id"] if row else 0, "destination": destination, "now": now})
            for sop_uid in again:
                row = run.one("known_object", {"sop_uid": sop_uid})
                for destination in destinations if row else ():
                    run("deliver_again", {"object_id": row["id"] if row else 0, "destination": destination, "now": now})
            run("finish", {"id": claim.job_id, "status": status.value, "result": result_json, "now": now})
            run("supersede_dead", {"study_uid": claim.study_uid, "revision": claim.revision})

    def fail(self, claim: Claim, error: str, *, retry: bool, now: float) -> JobState:
        """The attempt failed for the reason `error` (no patient data): QUEUED for a later attempt, or DEAD.

        Raises StaleClaimError when the lease is lost.
        """
        with self.database.write() as run:
            job = _require_held(run, claim, now)
            return self._give_up(run, job, error, now, retry=retry)

    def defer(self, claim: Claim, error: str, now: float) -> None:
        """What keeps the images is away: later again, and this attempt does not count. Raises StaleClaimError."""
        with self.database.write() as run:
            job = _require_held(run, claim, now)
            run("defer", {"id": job["id"], "error": error, "not_before": now + self.settings.queue.backoff_seconds})

    def expire_worker(self, worker_id: str, now: float) -> int:
        """A worker of this name starts, so the one before is dead: its leases end now. Returns how many."""
        with self.database.write() as run:
            return run("expire_worker", {"worker_id": worker_id, "past": now - 1e-3}).rowcount

    def _give_up(self, run: Run, job: Row, error: str, now: float, *, retry: bool = True) -> JobState:
        """End an attempt of `job` (a row with id and attempts): back into the queue after a while, or dead."""
        queue, attempts = self.settings.queue, int(job["attempts"])
        if not retry or attempts >= queue.max_attempts:
            run("bury", {"id": job["id"], "error": f"{error} (attempt {attempts}, given up)", "now": now})
            return JobState.DEAD
        wait = backoff(attempts, queue.backoff_seconds, queue.backoff_max_seconds)
        run("requeue", {"id": job["id"], "error": error, "not_before": now + wait})
        return JobState.QUEUED

    # ---- looking and mending

    def retry(self, now: float, study_uid: str | None = None) -> Retried:
        """Re-queue dead letters (of one study or all), with fresh attempts, and try every waiting delivery now.

        Of a study only the latest revision is scored again: it contains the earlier ones, which become SUPERSEDED.
        """
        of_study = {"study_uid": study_uid, "now": now}
        with self.database.write() as run:
            run("supersede_dead_before_latest", of_study)
            jobs = run("retry_jobs", of_study).rowcount
            run("hurry_deliveries", of_study)
            deliveries = run("retry_deliveries", of_study).rowcount
            run("hurry_destinations", {"now": now})
        return Retried(jobs=jobs, deliveries=deliveries)

    def jobs_of(self, study_uid: str) -> tuple[JobRow, ...]:
        """All revisions of a study, oldest first."""
        with self.database.read() as run:
            return tuple(_job_row(row) for row in run.all("jobs_of", {"study_uid": study_uid}))

    def recent_jobs(self, limit: int) -> tuple[JobRow, ...]:
        """The latest jobs, newest first."""
        with self.database.read() as run:
            return tuple(_job_row(row) for row in run.all("recent_jobs", {"limit": limit}))

    def knows_objects(self, sop_uids: Sequence[str]) -> bool:
        """Whether every one of these objects was made before."""
        with self.database.read() as run:
            return all(run.exists("known_object", {"sop_uid": sop_uid}) for sop_uid in sop_uids)

    def deliveries_of(self, sop_uid: str) -> tuple[tuple[str, DeliveryState, str | None], ...]:
        """Destination, state and error of each delivery of an object."""
        with self.database.read() as run:
            rows = run.all("deliveries_of", {"sop_uid": sop_uid})
        return tuple((row["destination"], DeliveryState(row["state"]), row["error"]) for row in rows)

    def objects_of(self, job_id: int) -> tuple[ResultObject, ...]:
        """What a job made, in the order of delivery."""
        with self.database.read() as run:
            rows = run.all("objects_of", {"job_id": job_id})
        return tuple(ResultObject(**dict(row) | {"kind": ObjectKind(row["kind"])}) for row in rows)

    def snapshot(self) -> Snapshot:
        """The whole queue at one moment, for `genu status`."""
        with self.database.read() as run:
            jobs = dict.fromkeys(JobState, 0) | {JobState(row["state"]): row["n"] for row in run.all("job_counts")}
            counts = run.all("instance_counts")[0]
            return Snapshot(
                instances=counts["instances"],
                receiving=counts["receiving"],
                jobs=jobs,
                destinations=tuple(_destination_row(row) for row in run.all("destination_counts")),
                dead_jobs=tuple(_job_row(row) for row in run.all("dead_jobs")),
                dead_deliveries=tuple(
                    DeliveryRow(**dict(row) | {"kind": ObjectKind(row["kind"]), "state": DeliveryState(row["state"])})
                    for row in run.all("dead_deliveries")
                ),
            )


def _claim(run: Run, job: Row, worker_id: str, now: float, lease: float) -> Claim:
    run("claim", {"id": job["id"], "worker_id": worker_id, "lease_until": now + lease})
    key = {"study_uid": job["study_uid"], "revision": job["revision"]}
    before = run.one("predecessor", key)
    return Claim(
        job_id=job["id"],
        study_uid=job["study_uid"],
        revision=job["revision"],
        token=job["token"] + 1,
        attempt=job["attempts"] + 1,
        worker_id=worker_id,
        lease=lease,
        created_at=job["created_at"],
        inputs=tuple(_input(row, job["revision"]) for row in run.all("inputs", key)),
        sources=_sources(run.all("sources", key)),
        predecessor=_predecessor(before),
        again=bool(job["again"]),
        repeat=_repeat(run, job["study_uid"], before) if job["again"] else None,
    )


def _predecessor(row: Row | None) -> Predecessor | None:
    if row is None:
        return None
    return Predecessor(row["study_uid"], row["series_uid"], row["sop_class_uid"], row["sop_uid"])


def _repeat(run: Run, study_uid: str, last: Row | None) -> Repeat | None:
    """The circumstances of the last report (`last`), under which the same work gives the same objects."""
    if last is None:
        return None
    before = run.one("predecessor", {"study_uid": study_uid, "revision": last["revision"]})
    return Repeat(last["created_at"], _predecessor(before))


def _held(claim: Claim, now: float) -> dict[str, int | float]:
    return {"id": claim.job_id, "token": claim.token, "now": now}


def _require_held(run: Run, claim: Claim, now: float) -> Row:
    """The job (id, attempts), when the claim still holds; else StaleClaimError."""
    row = run.one("held", _held(claim, now))
    if row is None:
        raise _stale(claim)
    return row


def _stale(claim: Claim) -> StaleClaimError:
    return StaleClaimError(
        f"worker {claim.worker_id} lost the lease of job {claim.job_id} (token {claim.token}): its work is dropped; "
        "raise queue.lease_seconds if this happens while it is alive"
    )


def _sources(rows: Sequence[Row]) -> tuple[Source, ...]:
    return tuple(sorted(Source(row["calling_ae"], row["peer_host"]) for row in rows))


def _input(row: Row, revision: int) -> Input:
    path = row["relative_path"]
    return Input(
        sop_uid=row["sop_uid"],
        series_uid=row["series_uid"],
        relative_path=PurePosixPath(path) if path is not None else None,
        remote=row["remote"],
        modality=row["modality"],
        size=row["size"],
        sha256=row["sha256"],
        is_new=row["revision"] == revision,
        revision=row["revision"],
    )


def _job_row(row: Row) -> JobRow:
    return JobRow(
        job_id=row["id"],
        study_uid=row["study_uid"],
        revision=row["revision"],
        state=JobState(row["state"]),
        status=row["status"],
        attempts=row["attempts"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        error=row["error"],
        result=row["result"],
    )


def _destination_row(row: Row) -> DestinationRow:
    return DestinationRow(
        name=row["name"],
        pending=row["pending"],
        delivered=row["delivered"],
        dead=row["dead"],
        failures=row["failures"],
        next_attempt_at=row["not_before"],
        error=row["error"],
    )
