"""`genu worker`: claims a study, scores it, writes report, heatmaps and refusal cards, and hands them to the outbox.

The only process that loads torch, and only in `load_predictor`. `genu listen` starts and supervises as many as
configured; `genu worker --config FILE` runs one alone.
"""

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

from dicom_templates.compose import Composed, compose
from inference.errors import GenuError, RefusalError, RetryableError
from inference.findings import StudyFindings
from inference.reading import StudyInput, read_study
from inference.studies import is_own_result
from plugin import logs, provenance, results, routing, writing
from plugin.boundary import Boundary
from plugin.fetching import Fetcher, InputFile
from plugin.heartbeat import Heartbeat
from plugin.jobs import Queue, StaleClaimError
from plugin.lifetime import Lifetime
from plugin.rows import Claim, JobState, Predecessor, local_time
from plugin.settings import Settings
from plugin.web import WebError

_log = logging.getLogger(__name__)

RECOVERY_SECONDS = 1.0  # pause after a fault of the queue itself


class Scorer(Protocol):
    """What a worker needs of a predictor."""

    def score(self, study: StudyInput, *, accept_secondary_capture: bool = False) -> StudyFindings:
        """The findings of one study."""


def run(settings: Settings, *, worker_id: str | None = None, parent: int | None = None) -> int:
    """Load the bundles and work until told to stop; the exit status of the process.

    `worker_id` must be unique among the workers of one queue that run at the same time; a supervisor gives its slots
    fixed names, so that what a killed worker held is free as soon as the next one starts. With `parent` the process
    ends when that process does. Raises BundleError when a bundle does not load or replay.
    """
    lifetime = Lifetime(parent).install()
    scorer = load_predictor(settings)
    queue = Queue.open(settings)
    Worker(queue, settings, scorer, worker_id=worker_id, lifetime=lifetime).run()
    queue.close()
    return 0


def load_predictor(settings: Settings) -> Scorer:
    """The predictor with the configured bundles, or the one that ships; torch is imported here."""
    from inference.predictor import Predictor

    allowed = settings.allow_undeployed_bundles
    return Predictor.load(settings.bundles, threads=settings.workers.threads, allow_undeployed=allowed)


class Worker:
    """Takes one job after the other."""

    def __init__(
        self,
        queue: Queue,
        settings: Settings,
        scorer: Scorer,
        *,
        worker_id: str | None = None,
        lifetime: Lifetime | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue, self._settings, self._scorer, self._clock = queue, settings, scorer, clock
        self._fetcher = Fetcher(settings)
        self._lifetime = lifetime or Lifetime()
        self.worker_id = worker_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    def run(self) -> None:
        """Work until life is over; a study in hand is finished first."""
        self._queue.expire_worker(self.worker_id, self._clock())
        logs.event(_log, "worker.started", worker=self.worker_id)
        while not self._lifetime.over():
            busy = False
            with Boundary(self._queue_failed):
                busy = self.step()
            if not busy:
                self._lifetime.wait(self._settings.workers.poll_seconds)
        logs.event(_log, "worker.stopped", worker=self.worker_id)

    def step(self) -> bool:
        """Take one job to its next state; False when there was none."""
        claim = self._queue.claim(self.worker_id, self._clock())
        if claim is None:
            return False
        uid, started = claim.study_uid, time.monotonic()
        logs.event(_log, "job.claimed", study_uid=uid, revision=claim.revision, attempt=claim.attempt)
        interval, limit = self._settings.queue.heartbeat_seconds, self._settings.workers.job_seconds
        with (
            Boundary(partial(self._failed, claim)),
            Heartbeat(self._queue, claim, interval=interval, limit=limit, clock=self._clock),
        ):
            findings = self._process(claim)
            logs.event(
                _log,
                "job.done",
                study_uid=uid,
                revision=claim.revision,
                status=findings.status.value,
                knees=len(findings.knees),
                volumes=len(findings.volumes),
                refusals=[refusal.code.value for refusal in findings.refusals],
                seconds=round(time.monotonic() - started, 3),
            )
        return True

    def _process(self, claim: Claim) -> StudyFindings:
        with self._fetcher.files(claim) as files:
            self._queue.forget(claim.study_uid, self._fetcher.gone(claim, files))
            study = read_study([file.path for file in files], study_instance_uid=claim.study_uid)
            secondary = routing.accepts_secondary_capture(self._settings, claim.sources)
            if _only_own_results_are_new(claim, study, files):
                findings = StudyFindings(claim.study_uid)
            else:
                findings = self._score(study, secondary=secondary)
        inputs = [(file.sop_uid, file.sha256) for file in files]
        composed = self._compose(claim, study, findings, inputs, secondary=secondary)
        made = [str(dataset.SOPInstanceUID) for dataset in composed.all]
        # Of a repetition that came out the same everything is there already, and is only sent again.
        is_known = claim.again and self._queue.knows_objects(made)
        objects = () if is_known else writing.write_results(composed, self._settings.data_dir, claim)
        self._queue.finish(
            claim,
            objects,
            results.encode(results.result_line(findings, [f"{uid}.dcm" for uid in made])),
            status=findings.status,
            destinations=[target.name for target in routing.destinations_for(self._settings)],
            now=self._clock(),
            again=made if claim.again else (),
        )
        writing.drop_earlier_attempts(self._settings.data_dir, claim)
        return findings

    def _score(self, study: StudyInput, *, secondary: bool) -> StudyFindings:
        try:
            return self._scorer.score(study, accept_secondary_capture=secondary)
        except RefusalError as error:
            return StudyFindings(study.study_instance_uid, refusals=(error.refusal,), radiographs=1)

    def _compose(
        self,
        claim: Claim,
        study: StudyInput,
        findings: StudyFindings,
        inputs: Sequence[tuple[str, str]],
        *,
        secondary: bool,
    ) -> Composed:
        """All objects. A repetition is first made as the last report was: if nothing has changed, it is that one."""

        def composed(created: datetime, predecessor: Predecessor | None) -> Composed:
            context = provenance.report_context(
                self._settings,
                created=created,
                inputs=inputs,
                accept_secondary_capture=secondary,
                predecessor=predecessor,
            )
            return compose(findings, [instance.header for instance in study.instances], context)

        if claim.repeat is not None:
            same = composed(local_time(claim.repeat.created_at), claim.repeat.predecessor)
            if self._queue.knows_objects([str(dataset.SOPInstanceUID) for dataset in same.all]):
                return same
        return composed(claim.created, claim.predecessor)

    def _failed(self, claim: Claim, error: Exception) -> None:
        """The boundary: an exception becomes a state of the job. No message but our own goes into queue or log."""
        uid = claim.study_uid
        text = logs.describe(error) + (f": {error}" if isinstance(error, GenuError) else "")
        trace = [] if isinstance(error, RetryableError) else logs.frames(error.__traceback__)
        try:
            if isinstance(error, StaleClaimError):
                raise error
            if isinstance(error, WebError) and error.may_mend:
                self._queue.defer(claim, text, self._clock())
                logs.event(_log, "job.deferred", level=logging.WARNING, study_uid=uid, error=text)
                return
            state = self._queue.fail(claim, text, retry=True, now=self._clock())
        except StaleClaimError:
            # The files stay: should the finish have gone through after all, the queue points at them.
            logs.event(_log, "job.stale", level=logging.WARNING, study_uid=uid, token=claim.token)
            return
        writing.drop_results(self._settings.data_dir, claim)
        level, action = (logging.ERROR, "job.dead") if state is JobState.DEAD else (logging.WARNING, "job.failed")
        logs.event(_log, action, level=level, study_uid=uid, attempt=claim.attempt, error=text, frames=trace)

    def _queue_failed(self, error: Exception) -> None:
        """A fault of the queue (disk full, database busy) may mend; anything else is a bug and ends the process."""
        if not isinstance(error, RetryableError):
            raise error
        logs.event(_log, "queue.unavailable", level=logging.ERROR, error=str(error))
        self._lifetime.wait(RECOVERY_SECONDS)


def _only_own_results_are_new(claim: Claim, study: StudyInput, files: Sequence[InputFile]) -> bool:
    """Whether this revision is due to Genu's own objects alone: to report on them would go round for ever.

    A PACS that forwards all it stores sends them to the next Genu, or back to this one after its queue was lost.
    """
    new = {file.sop_uid for file in files if file.is_new}
    late = [instance for instance in study.instances if instance.sop_instance_uid in new]
    return (
        not claim.again
        and claim.predecessor is not None
        and len(late) == len(new)
        and all(is_own_result(instance.header) for instance in late)
    )
