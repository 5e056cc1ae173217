"""Keeps a claim alive while its study is scored, and ends a worker that hangs."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType

from inference.errors import ResourceError
from plugin import logs
from plugin.jobs import Queue, StaleClaimError
from plugin.rows import Claim

_log = logging.getLogger(__name__)

OVERDUE_STATUS = 70
ALARM_SECONDS = 5.0  # after the limit


def end_process() -> None:
    """The last resort against code that hangs, in a decoder for example: Python cannot stop a thread."""
    os._exit(OVERDUE_STATUS)


class Heartbeat:
    """Within the block a thread prolongs the lease every `interval` seconds.

    After `limit` seconds it stops to, and calls `overdue`, which ends the process: the attempt is counted already, so
    that a study that hangs every time becomes a dead letter. Code that hangs and keeps Python's lock, as decoders in
    C may, lets no thread run: there the kernel ends the process by SIGALRM, a little later.
    """

    def __init__(
        self,
        queue: Queue,
        claim: Claim,
        *,
        interval: float,
        limit: float,
        clock: Callable[[], float] = time.time,
        overdue: Callable[[], None] = end_process,
    ) -> None:
        self._queue, self._claim, self._clock, self._overdue = queue, claim, clock, overdue
        self._interval, self._limit = interval, limit
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat-{claim.job_id}", daemon=True)

    def __enter__(self) -> "Heartbeat":
        """Start beating."""
        signal.setitimer(signal.ITIMER_REAL, self._limit + ALARM_SECONDS)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop beating."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        end = time.monotonic() + self._limit
        uid = self._claim.study_uid
        while not self._done.wait(min(self._interval, max(end - time.monotonic(), 0.0))):
            if time.monotonic() >= end:
                logs.event(_log, "job.overdue", level=logging.ERROR, study_uid=uid, seconds=self._limit)
                self._overdue()
                return
            try:
                self._queue.heartbeat(self._claim, self._clock())
            except StaleClaimError:
                logs.event(_log, "job.lease_lost", level=logging.WARNING, study_uid=uid)
                return
            except ResourceError as error:
                logs.event(_log, "queue.unavailable", level=logging.ERROR, error=str(error))
