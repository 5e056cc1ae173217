"""The outbox: batches under a lease, confirmation object by object, back-off, dead letters."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.jobs import Queue
from plugin.rows import DeliveryState, ObjectKind
from tests.plugin.queue_helpers import Clock, claimed, finish, settings_for, whole

STUDY = "1.2.3"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Iterator[Queue]:
    """One study scored: a heatmap and a report, for two destinations."""
    queue = Queue.open(settings_for(tmp_path, delivery={"max_refusals": 3}))
    whole(queue, STUDY, [1], clock)
    finish(queue, claimed(queue, clock), clock, destinations=["pacs", "folder"])
    yield queue
    queue.close()


def test_each_destination_gets_each_object_heatmap_first(queue: Queue, clock: Clock) -> None:
    for name in ("pacs", "folder"):
        tasks = queue.next_deliveries(name, "d", clock.now)
        assert [task.kind for task in tasks] == [ObjectKind.HEATMAP, ObjectKind.REPORT]
        for task in tasks:
            queue.delivered(task, clock.now)
        assert queue.next_deliveries(name, "d", clock.forward(1e6)) == ()
    assert queue.snapshot().is_empty


def test_a_batch_belongs_to_one_deliverer_until_its_lease_ends(queue: Queue, clock: Clock) -> None:
    assert len(queue.next_deliveries("pacs", "a", clock.now)) == 2
    assert queue.next_deliveries("pacs", "b", clock.now) == ()
    assert len(queue.next_deliveries("pacs", "b", clock.forward(301))) == 2


def test_a_restarted_deliverer_frees_what_its_predecessor_held(queue: Queue, clock: Clock) -> None:
    queue.next_deliveries("pacs", "a", clock.now)
    queue.release_deliveries("a")
    assert len(queue.next_deliveries("pacs", "a", clock.now)) == 2


def test_what_was_stored_is_stored_whoever_holds_the_lease(queue: Queue, clock: Clock) -> None:
    tasks = queue.next_deliveries("pacs", "a", clock.now)
    later = queue.next_deliveries("pacs", "b", clock.forward(301))
    queue.delivered(tasks[0], clock.now)
    assert queue.refused(tasks[1], "no", clock.now) is DeliveryState.PENDING  # not a's to say any more
    queue.deferred(tasks[1], "no", clock.now)
    queue.delivered(later[1], clock.now)
    (row,) = [row for row in queue.snapshot().destinations if row.name == "pacs"]
    assert (row.pending, row.delivered, row.dead) == (0, 2, 0)


def test_refusals_end_as_a_dead_letter_with_the_status(queue: Queue, clock: Clock) -> None:
    outcomes = []
    for _ in range(3):
        heatmap, report = queue.next_deliveries("pacs", "d", clock.now)
        outcomes.append(queue.refused(heatmap, "C-STORE status 0xA900", clock.now))
        queue.release_deliveries("d")
        clock.forward(600)
    assert outcomes == [DeliveryState.PENDING, DeliveryState.PENDING, DeliveryState.DEAD]
    (dead,) = queue.snapshot().dead_deliveries
    assert (dead.sop_uid, dead.error, dead.destination) == (heatmap.sop_uid, "C-STORE status 0xA900", "pacs")
    assert [task.sop_uid for task in queue.next_deliveries("pacs", "d", clock.now)] == [report.sop_uid]
    assert queue.retry(clock.now).deliveries == 1
    assert [task.sop_uid for task in queue.next_deliveries("pacs", "d", clock.now)] == [heatmap.sop_uid]


def test_an_object_that_is_put_off_is_tried_for_ever(queue: Queue, clock: Clock) -> None:
    for attempt in range(20):
        heatmap, _ = queue.next_deliveries("pacs", "d", clock.now)
        queue.deferred(heatmap, "C-STORE status 0xA700", clock.now)
        queue.release_deliveries("d")
        wait = min(2 * 2**attempt, 300)
        assert len(queue.next_deliveries("pacs", "d", clock.forward(wait - 0.001))) == 1
        queue.release_deliveries("d")
        clock.forward(0.001)
    assert queue.snapshot().dead_deliveries == ()


def test_a_destination_that_is_down_is_left_alone_for_longer_and_longer(queue: Queue, clock: Clock) -> None:
    waits = []
    for _ in range(12):
        assert queue.next_deliveries("pacs", "d", clock.now)
        waits.append(queue.destination_down("pacs", "d", "cannot be reached", clock.now) - clock.now)
        assert queue.next_deliveries("pacs", "d", clock.forward(waits[-1] - 0.001)) == ()
        clock.forward(0.001)
    assert waits[:3] == [2, 4, 8]
    assert waits[-1] == 300
    (down,) = [row for row in queue.snapshot().destinations if row.failures]
    assert (down.name, down.failures, down.error) == ("pacs", 12, "cannot be reached")
    assert len(queue.next_deliveries("folder", "d", clock.now)) == 2  # the other is not held up
    queue.delivered(queue.next_deliveries("pacs", "d", clock.now)[0], clock.now)
    assert not any(row.failures for row in queue.snapshot().destinations)


@pytest.mark.parametrize("answer", ["refused", "deferred"])
def test_a_destination_that_answers_is_not_down_whatever_it_says(queue: Queue, clock: Clock, answer: str) -> None:
    queue.destination_down("pacs", "d", "cannot be reached", clock.now)
    heatmap, _ = queue.next_deliveries("pacs", "d", clock.forward(600))
    getattr(queue, answer)(heatmap, "C-STORE status", clock.now)
    (row,) = [row for row in queue.snapshot().destinations if row.name == "pacs"]
    assert (row.failures, row.error) == (0, None)


def test_retry_asks_a_destination_at_once(queue: Queue, clock: Clock) -> None:
    queue.next_deliveries("pacs", "d", clock.now)
    queue.destination_down("pacs", "d", "cannot be reached", clock.now)
    assert queue.next_deliveries("pacs", "d", clock.now) == ()
    queue.retry(clock.now)
    assert len(queue.next_deliveries("pacs", "d", clock.now)) == 2


def test_revisions_leave_in_order(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [2], clock)
    finish(queue, claimed(queue, clock), clock, destinations=["pacs"])
    assert [task.revision for task in queue.next_deliveries("pacs", "d", clock.now)] == [1, 1, 2, 2]


def test_a_stuck_revision_does_not_keep_the_next_one_back(queue: Queue, clock: Clock) -> None:
    for task in queue.next_deliveries("pacs", "d", clock.now):
        queue.deferred(task, "C-STORE status 0xA700", clock.now)
    whole(queue, STUDY, [2], clock)
    finish(queue, claimed(queue, clock), clock, destinations=["pacs"])
    clock.forward(-4)  # within the back-off of the first
    with queue.database.write() as run:
        run.connection.execute("UPDATE delivery SET not_before = ? WHERE attempts = 0", (clock.now,))
    assert [task.revision for task in queue.next_deliveries("pacs", "d", clock.now)] == [2, 2]
