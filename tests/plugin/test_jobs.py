"""The queue: reception, whole studies, leases, fencing, retries, dead letters, revisions."""

import multiprocessing
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.errors import ConfigurationError, ResourceError
from inference.findings import StudyStatus
from plugin.jobs import Queue, StaleClaimError
from plugin.rows import JobState, Source
from tests.plugin.queue_helpers import Clock, claimed, finish, received, send, settings_for, whole

STUDY, OTHER = "1.2.3", "1.2.4"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue.open(settings_for(tmp_path))
    yield queue
    queue.close()


def states(queue: Queue, study: str = STUDY) -> list[str]:
    return [job.state.value for job in queue.jobs_of(study)]


# ---- reception


def test_the_same_instance_twice_is_one(queue: Queue, clock: Clock) -> None:
    assert queue.admit(received(STUDY, 1, clock.now))
    assert not queue.admit(received(STUDY, 1, clock.now))
    assert queue.snapshot().instances == 1


def test_other_bytes_under_a_known_uid_do_not_replace_the_first(
    queue: Queue, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    first = received(STUDY, 1, clock.now)
    assert queue.admit(first)
    assert not queue.admit(received(STUDY, 1, clock.now, content="other"))
    assert list(queue.known_paths()) == [first.relative_path]
    assert "instance.conflict" in caplog.messages


def test_the_same_instance_uid_in_two_studies_is_two(queue: Queue, clock: Clock) -> None:
    one = received(STUDY, 1, clock.now)
    assert queue.admit(one)
    two = received(OTHER, 1, clock.now)
    assert queue.admit(type(two)(**{**vars(two), "sop_uid": one.sop_uid}))


def test_our_own_results_coming_back_are_not_taken(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    report = finish(queue, claimed(queue, clock), clock)[-1]
    back = received(STUDY, 2, clock.now)
    assert not queue.admit(type(back)(**{**vars(back), "sop_uid": report.sop_uid}))
    assert queue.sweep(clock.forward(100)) == 0
    assert queue.stored_class(report.sop_uid) == report.sop_class_uid  # success was answered, so it can be committed to


# ---- whole studies


def test_a_study_is_whole_after_the_quiet_period(queue: Queue, clock: Clock) -> None:
    send(queue, STUDY, [1], clock.now)
    send(queue, STUDY, [2], clock.forward(3))
    assert queue.sweep(clock.forward(4.9)) == 0
    assert queue.claim("w", clock.now) is None
    assert queue.sweep(clock.forward(0.1)) == 1
    assert queue.sweep(clock.now) == 0
    assert [item.sop_uid for item in claimed(queue, clock).inputs] == [f"{STUDY}.9.1", f"{STUDY}.9.2"]


def test_a_repeated_instance_prolongs_the_quiet_period(queue: Queue, clock: Clock) -> None:
    send(queue, STUDY, [1], clock.now)
    assert not queue.admit(received(STUDY, 1, clock.forward(4)))
    assert queue.sweep(clock.forward(4)) == 0
    assert queue.sweep(clock.forward(1)) == 1


def test_a_study_that_never_ends_is_whole_at_the_maximum(tmp_path: Path, clock: Clock) -> None:
    queue = Queue.open(settings_for(tmp_path, completeness={"quiet_seconds": 5, "max_seconds": 10}))
    sent = 0
    while not queue.sweep(clock.now):
        send(queue, STUDY, [sent], clock.now)
        sent += 1
        clock.forward(2)
    assert sent == 5
    queue.close()


def test_a_restart_of_the_listener_gives_a_full_quiet_period(queue: Queue, clock: Clock) -> None:
    send(queue, STUDY, [1], clock.now)
    queue.open_reception(clock.forward(1000))
    assert queue.sweep(clock.forward(4.9)) == 0
    assert queue.sweep(clock.forward(0.1)) == 1


def test_a_clock_that_was_set_back_keeps_no_study_waiting(queue: Queue, clock: Clock) -> None:
    send(queue, STUDY, [1], clock.now)
    assert queue.sweep(clock.forward(-3600)) == 0
    assert queue.sweep(clock.forward(5)) == 1


def test_the_quiet_period_depends_on_the_source(tmp_path: Path, clock: Clock) -> None:
    peers = [{"ae_title": "SLOW", "quiet_seconds": 60}, {"ae_title": "*"}]
    queue = Queue.open(settings_for(tmp_path, listener={"peers": peers}))
    queue.admit(received(STUDY, 1, clock.now, ae="SLOW"))
    queue.admit(received(OTHER, 1, clock.now, ae="XR"))
    assert queue.sweep(clock.forward(5)) == 1
    assert claimed(queue, clock).sources == (Source("XR", "127.0.0.1"),)
    assert queue.sweep(clock.forward(55)) == 1
    queue.close()


# ---- revisions


def test_a_study_sent_again_unchanged_makes_no_new_job(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1, 2], clock)
    finish(queue, claimed(queue, clock), clock)
    for number in (1, 2):
        assert not queue.admit(received(STUDY, number, clock.forward(1)))
    assert queue.sweep(clock.forward(1000)) == 0
    assert states(queue) == ["done"]


def test_late_instances_join_a_job_that_no_worker_has_seen(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    whole(queue, STUDY, [2], clock)
    claim = claimed(queue, clock)
    assert (claim.revision, len(claim.inputs)) == (1, 2)
    assert claim.created_at == clock.now
    assert states(queue) == ["running"]


def test_late_instances_make_a_revision_that_names_the_report_before(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    first = claimed(queue, clock)
    whole(queue, STUDY, [2], clock)
    assert len(first.inputs) == 1
    assert queue.claim("other", clock.now) is None  # the second waits for the first
    report = finish(queue, first, clock)[-1]
    second = claimed(queue, clock)
    assert (second.revision, [item.is_new for item in second.inputs]) == (2, [False, True])
    assert second.predecessor is not None
    assert second.predecessor.sop_instance_uid == report.sop_uid
    assert second.predecessor.study_uid == STUDY
    finish(queue, second, clock)
    assert states(queue) == ["done", "done"]


def test_instances_that_came_but_are_not_quiet_yet_stay_out_of_a_claim(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    send(queue, STUDY, [2], clock.now)
    assert len(claimed(queue, clock).inputs) == 1


def test_a_revision_after_a_dead_one_has_the_last_report_as_predecessor(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    report = finish(queue, claimed(queue, clock), clock)[-1]
    whole(queue, STUDY, [2], clock)
    queue.fail(claimed(queue, clock), "broken", retry=False, now=clock.now)
    whole(queue, STUDY, [3], clock)
    third = claimed(queue, clock)
    assert third.revision == 3
    assert third.predecessor is not None
    assert third.predecessor.sop_instance_uid == report.sop_uid
    finish(queue, third, clock)
    assert states(queue) == ["done", "superseded", "done"]
    assert queue.retry(clock.now).jobs == 0


def test_an_object_that_exists_already_is_not_sent_again(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    objects = finish(queue, claimed(queue, clock), clock)
    whole(queue, STUDY, [2], clock)
    queue.finish(claimed(queue, clock), objects, "{}", status=StudyStatus.SCORED, destinations=["pacs"], now=clock.now)
    assert len(queue.next_deliveries("pacs", "d", clock.now)) == len(objects)


# ---- leases and fencing


def test_one_job_goes_to_one_worker(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    claimed(queue, clock)
    assert queue.claim("other", clock.now) is None


def test_a_heartbeat_keeps_the_lease(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    claim = claimed(queue, clock)
    for _ in range(10):
        queue.heartbeat(claim, clock.forward(40))
    assert queue.claim("other", clock.now) is None
    finish(queue, claim, clock)
    assert states(queue) == ["done"]


def test_who_lost_the_lease_can_do_nothing_more(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    old = claimed(queue, clock)
    clock.forward(61)
    for act in (
        lambda: queue.heartbeat(old, clock.now),
        lambda: finish(queue, old, clock),
        lambda: queue.fail(old, "x", retry=True, now=clock.now),
    ):
        with pytest.raises(StaleClaimError, match="token 1"):
            act()
    assert queue.claim("w", clock.now) is None  # back-off after the loss
    clock.forward(5)
    new = claimed(queue, clock)
    assert (new.token, new.attempt, new.created_at) == (2, 2, old.created_at)
    with pytest.raises(StaleClaimError):
        finish(queue, old, clock)
    finish(queue, new, clock)
    assert len(queue.next_deliveries("pacs", "d", clock.now)) == 2


def test_a_restarted_worker_frees_what_its_predecessor_held(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    claimed(queue, clock, worker="slot-0")
    assert queue.expire_worker("slot-1", clock.now) == 0
    assert queue.expire_worker("slot-0", clock.now) == 1
    assert queue.claim("slot-0", clock.now) is None  # back-off: a study that kills workers must not go in circles
    clock.forward(5)
    assert claimed(queue, clock).attempt == 2


# ---- retries and dead letters


def test_failures_back_off_and_end_as_a_dead_letter_with_the_reason(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    for wait in (5, 10, 20, 40):
        assert queue.fail(claimed(queue, clock), "disk full", retry=True, now=clock.now) is JobState.QUEUED
        assert queue.claim("w", clock.forward(wait - 0.001)) is None
        clock.forward(0.001)
    assert queue.fail(claimed(queue, clock), "disk full", retry=True, now=clock.now) is JobState.DEAD
    (job,) = queue.jobs_of(STUDY)
    assert (job.state, job.status) == (JobState.DEAD, "failed")
    assert job.error == "disk full (attempt 5, given up)"
    assert queue.snapshot().dead_jobs == (job,)
    assert queue.snapshot().is_empty


def test_a_study_that_kills_its_worker_is_given_up(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    for attempt in range(1, 6):
        assert claimed(queue, clock, worker="slot").attempt == attempt
        queue.expire_worker("slot", clock.forward(1))  # kill -9: nothing was said
        assert queue.claim("slot", clock.now) is None
        clock.forward(300)
    assert states(queue) == ["dead"]
    assert "killed" in str(queue.jobs_of(STUDY)[0].error)


def test_a_poisoned_study_holds_up_no_other(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    whole(queue, OTHER, [1], clock)
    assert claimed(queue, clock, worker="slot").study_uid == STUDY
    queue.expire_worker("slot", clock.forward(1))
    assert claimed(queue, clock, worker="slot").study_uid == OTHER


def test_retry_gives_fresh_attempts_to_the_latest_revision_only(queue: Queue, clock: Clock) -> None:
    for number in (1, 2):
        whole(queue, STUDY, [number], clock)
        queue.fail(claimed(queue, clock), "broken", retry=False, now=clock.now)
    whole(queue, OTHER, [1], clock)
    queue.fail(claimed(queue, clock), "broken", retry=False, now=clock.now)
    assert queue.retry(clock.now, STUDY).jobs == 1
    assert states(queue) == ["superseded", "queued"]
    assert states(queue, OTHER) == ["dead"]
    claim = claimed(queue, clock)
    assert (claim.revision, claim.attempt, claim.token) == (2, 1, 2)
    assert queue.retry(clock.now).jobs == 1


def test_a_retried_job_takes_no_new_instances_in(queue: Queue, clock: Clock) -> None:
    """What a worker has seen stays as it is: it may have written results of it."""
    whole(queue, STUDY, [1], clock)
    queue.fail(claimed(queue, clock), "broken", retry=False, now=clock.now)
    queue.retry(clock.now)
    whole(queue, STUDY, [2], clock)
    assert len(claimed(queue, clock).inputs) == 1


# ---- several processes, durability, faults


def _admit_and_claim(folder: Path, number: int, results: "multiprocessing.Queue[list[int]]") -> None:
    queue = Queue.open(settings_for(folder))
    for index in range(20):
        queue.admit(received(f"1.5.{number}", index, 1000.0))
    queue.sweep(2000.0)
    jobs = []
    while claim := queue.claim(f"w{number}", 2000.0):
        finish(queue, claim, Clock(2000.0))
        jobs.append(claim.job_id)
    results.put(jobs)


def test_several_processes_share_a_new_queue(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[list[int]] = context.Queue()
    processes = [context.Process(target=_admit_and_claim, args=(tmp_path, n, results)) for n in range(3)]
    for process in processes:
        process.start()
    done = [job for _ in processes for job in results.get(timeout=60)]
    for process in processes:
        process.join()
    assert len(done) == len(set(done))
    queue = Queue.open(settings_for(tmp_path))
    snapshot = queue.snapshot()
    assert (snapshot.instances, snapshot.receiving) == (60, 0)
    assert snapshot.jobs[JobState.DONE] == len(done) >= 3
    assert sum(len(job.result or "") > 0 for job in queue.recent_jobs(99)) == len(done)
    queue.close()


def test_threads_share_one_queue_object(queue: Queue, clock: Clock) -> None:
    threads = [threading.Thread(target=send, args=(queue, f"1.6.{n}", range(10), clock.now)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert queue.snapshot().instances == 80


def test_commits_are_durable(queue: Queue) -> None:
    with queue.database.read() as run:
        assert run.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert run.connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_busy_database_is_a_resource_error(tmp_path: Path, clock: Clock) -> None:
    queue = Queue.open(settings_for(tmp_path, queue={"busy_seconds": 0.05}))
    blocker = sqlite3.connect(queue.settings.queue_path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(ResourceError, match=r"queue\.sqlite"):
        queue.admit(received(STUDY, 1, clock.now))
    blocker.execute("ROLLBACK")
    blocker.close()
    assert queue.admit(received(STUDY, 1, clock.now))
    queue.close()


def test_a_file_that_is_no_queue_is_named(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    settings.queue_path.write_bytes(b"this is not a database, whatever its name says" * 99)
    with pytest.raises(ConfigurationError, match=r"queue\.sqlite"):
        Queue.open(settings)


def test_a_queue_of_another_version_is_left_alone(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    Queue.open(settings).close()
    other = sqlite3.connect(settings.queue_path)
    other.execute("PRAGMA user_version=99")
    other.close()
    with pytest.raises(ConfigurationError, match="version 99"):
        Queue.open(settings)


def test_finish_is_all_or_nothing(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    claim = claimed(queue, clock)
    queue.database._connection.execute(
        "CREATE TEMP TRIGGER t BEFORE INSERT ON delivery BEGIN SELECT RAISE(ABORT, 'x'); END"
    )
    with pytest.raises(sqlite3.IntegrityError):
        finish(queue, claim, clock)
    queue.database._connection.execute("DROP TRIGGER t")
    assert states(queue) == ["running"]
    assert queue.objects_of(claim.job_id) == ()
    objects = finish(queue, claim, clock)
    assert queue.objects_of(claim.job_id) == tuple(objects)


def test_every_statement_of_the_sql_file_is_used() -> None:
    from plugin.database import STATEMENTS

    folder = Path(__file__).parents[2] / "plugin"
    code = "".join((folder / name).read_text() for name in ("jobs.py", "intake.py", "outbox.py", "database.py"))
    assert [name for name in STATEMENTS if f'"{name}"' not in code] == []
