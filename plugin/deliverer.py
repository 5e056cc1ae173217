"""`genu deliver`: takes the outbox to its destinations, each at its own pace. No torch here.

One thread for each destination, so that one that is slow or down holds up no other; within a destination one
association carries a batch. Run by `genu listen`; `genu deliver --config FILE` runs it alone.
"""

import logging
import threading
import time
from collections.abc import Callable

from inference.errors import DeliveryError, RetryableError
from plugin import logs, routing
from plugin.boundary import Boundary
from plugin.destinations import opened
from plugin.jobs import Queue
from plugin.lifetime import Lifetime
from plugin.rows import DeliveryState, DeliveryTask
from plugin.settings import Destination, Settings
from plugin.verdicts import Outcome, Outgoing, Session, UnreachableError, Verdict

_log = logging.getLogger(__name__)

OWNER = "deliverer"
STOP_SECONDS = 10.0
RECOVERY_SECONDS = 1.0  # pause after a fault of the queue itself
Clock = Callable[[], float]


def run(settings: Settings, *, owner: str = OWNER, parent: int | None = None) -> int:
    """Deliver until told to stop; the exit status of the process.

    `owner` must be unique among the deliverers of one queue that run at the same time. With `parent` the process ends
    when that process does.
    """
    lifetime = Lifetime(parent).install()
    queue = Queue.open(settings)
    queue.release_deliveries(owner)
    threads = [
        threading.Thread(
            target=Courier(queue, settings, target, owner=owner, lifetime=lifetime).run, name=target.name, daemon=True
        )
        for target in routing.destinations_for(settings)
    ]
    for thread in threads:
        thread.start()
    names = [thread.name for thread in threads]
    logs.event(_log, "deliverer.started", destinations=names)
    _warn_of_leftovers(queue, names)
    while not lifetime.wait(0.2):
        if not all(thread.is_alive() for thread in threads):
            return 1  # a courier crashed and said so in the log: start afresh
    for thread in threads:
        thread.join(timeout=STOP_SECONDS)
    if not any(thread.is_alive() for thread in threads):  # else one still waits for its peer, and dies with us
        queue.release_deliveries(owner)
        queue.close()
    return 0


def _warn_of_leftovers(queue: Queue, names: list[str]) -> None:
    """What waits for a destination that the settings no longer have is kept, and nobody sends it."""
    for row in queue.snapshot().destinations:
        if row.pending and row.name not in names:
            logs.event(_log, "destination.unknown", level=logging.WARNING, destination=row.name, pending=row.pending)


class Courier:
    """Serves one destination."""

    def __init__(
        self,
        queue: Queue,
        settings: Settings,
        destination: Destination,
        *,
        owner: str = OWNER,
        lifetime: Lifetime | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._destination = destination
        self._owner = owner
        self._lifetime = lifetime or Lifetime()
        self._clock = clock

    def run(self) -> None:
        """Serve until life is over."""
        while not self._lifetime.over():
            busy = False
            with Boundary(self._queue_failed):
                busy = self.step()
            if not busy:
                self._lifetime.wait(self._settings.delivery.poll_seconds)

    def step(self) -> bool:
        """Deliver one batch; False when there was none."""
        name = self._destination.name
        tasks = self._queue.next_deliveries(name, self._owner, self._clock())
        if not tasks:
            return False
        try:
            with opened(self._destination, [self._item(task) for task in tasks], self._our_title) as session:
                for task in tasks:
                    if self._lifetime.over() or not self._deliver(session, task):
                        break
        except UnreachableError as error:
            until = self._queue.destination_down(name, self._owner, str(error), self._clock())
            wait = round(until - self._clock(), 1)
            logs.event(_log, "destination.down", level=logging.WARNING, destination=name, error=str(error), wait=wait)
        self._queue.release_deliveries(self._owner, name)
        return True

    def _deliver(self, session: Session, task: DeliveryTask) -> bool:
        """Send one object and record the verdict; False when the way is lost and the rest must wait."""
        started = time.monotonic()
        verdict, lost = None, True
        with Boundary(_pass_unreachable) as boundary:
            try:
                verdict, lost = session.send(self._item(task)), False
            except UnreachableError:
                raise
            except DeliveryError as error:
                # Put off this object alone: if it is what the peer stumbles over, the others get past it.
                verdict = Verdict(Outcome.DEFERRED, str(error))
        self._record(task, verdict or _bug(boundary.error), started)
        return not lost

    def _record(self, task: DeliveryTask, verdict: Verdict, started: float) -> None:
        now = self._clock()
        action, level = f"object.{verdict.outcome.value}", logging.WARNING
        if verdict.outcome is Outcome.STORED:
            self._queue.delivered(task, now)
            level = logging.WARNING if verdict.text else logging.INFO
        elif verdict.outcome is Outcome.DEFERRED:
            self._queue.deferred(task, verdict.text, now)
        elif self._queue.refused(task, verdict.text, now) is DeliveryState.DEAD:
            action, level = "object.dead", logging.ERROR
        logs.event(
            _log,
            action,
            level=level,
            study_uid=task.study_uid,
            sop_uid=task.sop_uid,
            kind=task.kind.value,
            destination=task.destination,
            seconds=round(time.monotonic() - started, 4),
            **({"text": verdict.text} if verdict.text else {}),
        )

    def _queue_failed(self, error: Exception) -> None:
        """A fault of the queue (disk full, database busy) may mend; anything else is a bug and ends the process."""
        if not isinstance(error, RetryableError):
            raise error
        logs.event(_log, "queue.unavailable", level=logging.ERROR, error=str(error))
        self._lifetime.wait(RECOVERY_SECONDS)

    def _item(self, task: DeliveryTask) -> Outgoing:
        path = self._settings.data_dir.joinpath(task.relative_path)
        return Outgoing(path, task.sop_class_uid, task.sop_uid, task.study_uid)

    @property
    def _our_title(self) -> str:
        return self._settings.listener.ae_title


def _pass_unreachable(error: Exception) -> None:
    if isinstance(error, UnreachableError):
        raise error


def _bug(error: Exception | None) -> Verdict:
    """An object that we cannot send for a reason of our own: refused, so that it blocks nothing for ever."""
    text = logs.describe(error) if error else "no verdict"
    trace = logs.frames(error.__traceback__) if error else []
    logs.event(_log, "delivery.crashed", level=logging.ERROR, error=text, frames=trace)
    return Verdict(Outcome.REFUSED, f"it could not be sent: {text}")
