"""The part of the queue that says what still has to go where. Use it through plugin.jobs.Queue.

An object is off the outbox of a destination only when that destination confirmed this very instance.
"""

from pathlib import PurePosixPath

from plugin.database import Database, Parameters, Run
from plugin.retries import backoff
from plugin.rows import DeliveryState, DeliveryTask, ObjectKind
from plugin.settings import Delivery


class Outbox:
    """Deliveries: leased in batches, confirmed one by one."""

    def __init__(self, database: Database, delivery: Delivery) -> None:
        self._outbox = database
        self._delivery = delivery

    def next_deliveries(self, destination: str, owner: str, now: float) -> tuple[DeliveryTask, ...]:
        """The next batch for a destination, leased to `owner`; empty while the destination is being left alone."""
        with self._outbox.read() as run:
            if not run.exists("any_delivery", {"destination": destination, "now": now}):
                return ()
        with self._outbox.write() as run:
            values: Parameters = {"destination": destination, "now": now, "batch": self._delivery.batch}
            rows = run.all("next_deliveries", values)
            for row in rows:
                until = now + self._delivery.lease_seconds
                run("lease_delivery", {"id": row["id"], "owner": owner, "lease_until": until})
        return tuple(
            DeliveryTask(
                delivery_id=row["id"],
                destination=destination,
                owner=owner,
                study_uid=row["study_uid"],
                revision=row["revision"],
                kind=ObjectKind(row["kind"]),
                sop_class_uid=row["sop_class_uid"],
                sop_uid=row["sop_uid"],
                relative_path=PurePosixPath(row["relative_path"]),
                attempts=row["attempts"],
            )
            for row in rows
        )

    def delivered(self, task: DeliveryTask, now: float) -> None:
        """The destination confirmed the instance. True whoever holds the lease now: what is stored is stored."""
        with self._outbox.write() as run:
            run("delivered", {"id": task.delivery_id, "now": now})
            run("destination_up", {"name": task.destination})

    def deferred(self, task: DeliveryTask, error: str, now: float) -> None:
        """The destination may take the object later (out of resources, connection lost): again, without a limit.

        It answered, so it is not down, whatever it thinks of the object.
        """
        with self._outbox.write() as run:
            run("destination_up", {"name": task.destination})
            held = run.one("held_delivery", {"id": task.delivery_id, "owner": task.owner})
            if held is not None:
                self._put_off(run, task, held["attempts"] + 1, error, now, refusal=0)

    def refused(self, task: DeliveryTask, error: str, now: float) -> DeliveryState:
        """The destination does not want the object: again up to delivery.max_refusals times, then a dead letter."""
        with self._outbox.write() as run:
            run("destination_up", {"name": task.destination})
            held = run.one("held_delivery", {"id": task.delivery_id, "owner": task.owner})
            if held is None:
                return DeliveryState.PENDING
            if held["refusals"] + 1 >= self._delivery.max_refusals:
                run("bury_delivery", {"id": task.delivery_id, "error": error})
                return DeliveryState.DEAD
            self._put_off(run, task, held["refusals"] + 1, error, now, refusal=1)
            return DeliveryState.PENDING

    def destination_down(self, name: str, owner: str, error: str, now: float) -> float:
        """The destination cannot be reached: leave it alone for a while, for ever again. Returns the next time."""
        with self._outbox.write() as run:
            row = run.one("destination_state", {"name": name})
            failures = (row["failures"] if row else 0) + 1
            until = now + backoff(failures, self._delivery.backoff_seconds, self._delivery.backoff_max_seconds)
            run("destination_down", {"name": name, "failures": failures, "not_before": until, "error": error})
            run("release_deliveries", {"owner": owner, "destination": name})
        return until

    def release_deliveries(self, owner: str, destination: str | None = None) -> None:
        """Give back what `owner` holds, unsent: at its start (the one before is dead) or after a lost association."""
        with self._outbox.write() as run:
            run("release_deliveries", {"owner": owner, "destination": destination})

    def _put_off(self, run: Run, task: DeliveryTask, failures: int, error: str, now: float, *, refusal: int) -> None:
        wait = backoff(failures, self._delivery.backoff_seconds, self._delivery.backoff_max_seconds)
        values: Parameters = {"id": task.delivery_id, "error": error, "not_before": now + wait, "refusal": refusal}
        run("put_off_delivery", values)
