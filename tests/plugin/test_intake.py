"""Studies that Orthanc keeps: what is new in them, scoring again, the cursor, and queues of the first version."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.errors import ConfigurationError
from inference.findings import StudyStatus
from plugin.jobs import Queue
from plugin.rows import Cursor, DeliveryState, JobState, RemoteInstance, Source
from tests.plugin.queue_helpers import Clock, claimed, finish, settings_for, whole

STUDY = "1.2.7"
ORTHANC = Source("orthanc", "127.0.0.1")


def remote(number: int, *, of: str = "a", modality: str = "DX") -> RemoteInstance:
    return RemoteInstance(f"{STUDY}.9", f"{STUDY}.9.{number}", f"{of}-{number}", modality, 1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue.open(settings_for(tmp_path))
    yield queue
    queue.close()


def take(queue: Queue, clock: Clock, *numbers: int, of: str = "a") -> int | None:
    return queue.take_study(STUDY, [remote(number, of=of) for number in numbers], ORTHANC, clock.now)


def test_a_study_is_taken_once_and_again_only_with_something_new(queue: Queue, clock: Clock) -> None:
    assert take(queue, clock, 1, 2) == 1
    claim = claimed(queue, clock)
    assert [(item.remote, item.relative_path, item.sha256) for item in claim.inputs] == [
        ("a-1", None, None),
        ("a-2", None, None),
    ]
    assert claim.sources == (ORTHANC,)
    finish(queue, claim, clock)
    assert take(queue, clock, 1, 2) is None
    assert take(queue, clock, 1, 2, 3) == 2
    second = claimed(queue, clock)
    assert [item.is_new for item in second.inputs] == [False, False, True]
    assert second.predecessor is not None
    assert not second.again


def test_new_instances_join_a_revision_that_no_worker_has_seen(queue: Queue, clock: Clock) -> None:
    assert take(queue, clock, 1) == 1
    assert take(queue, clock, 1, 2) == 1
    assert len(claimed(queue, clock).inputs) == 2


def test_our_own_results_are_nothing_new(queue: Queue, clock: Clock) -> None:
    take(queue, clock, 1)
    made = finish(queue, claimed(queue, clock), clock)
    back = [RemoteInstance(item.series_uid, item.sop_uid, f"own-{item.sop_uid}", "SR", 1) for item in made]
    assert queue.take_study(STUDY, [remote(1), *back], ORTHANC, clock.now) is None
    assert len(queue.jobs_of(STUDY)) == 1


def test_a_study_filed_under_another_patient_is_scored_there(queue: Queue, clock: Clock) -> None:
    take(queue, clock, 1, of="a")
    finish(queue, claimed(queue, clock), clock)
    assert take(queue, clock, 1, of="b") == 2
    (item,) = claimed(queue, clock).inputs
    assert (item.remote, item.is_new) == ("b-1", True)


def test_what_was_received_as_a_file_stays_one(queue: Queue, clock: Clock) -> None:
    whole(queue, STUDY, [1], clock)
    assert take(queue, clock, 1) is None
    (item,) = claimed(queue, clock).inputs
    assert item.remote is None
    assert item.relative_path is not None


def test_a_listener_started_on_the_same_folder_removes_nothing_of_it(queue: Queue, clock: Clock) -> None:
    take(queue, clock, 1)
    whole(queue, "1.2.8", [1], clock)
    assert len(list(queue.known_paths())) == 1


def test_scoring_again_waits_for_what_waits_already(queue: Queue, clock: Clock) -> None:
    assert queue.score_again(STUDY, clock.now) is None
    take(queue, clock, 1)
    assert queue.score_again(STUDY, clock.now) == 1
    claim = claimed(queue, clock)
    assert queue.score_again(STUDY, clock.now) == 1
    queue.fail(claim, "broken", retry=False, now=clock.now)
    assert queue.score_again(STUDY, clock.now) == 1
    assert queue.jobs_of(STUDY)[0].state is JobState.QUEUED
    finish(queue, claimed(queue, clock), clock)
    assert queue.score_again(STUDY, clock.now) == 2
    assert len(queue.jobs_of(STUDY)) == 2


def test_a_repetition_knows_how_the_last_report_was_made(queue: Queue, clock: Clock) -> None:
    take(queue, clock, 1)
    first = finish(queue, claimed(queue, clock), clock)[-1]
    clock.forward(10)
    take(queue, clock, 1, 2)
    made_at = clock.now
    second = finish(queue, claimed(queue, clock), clock)[-1]
    clock.forward(10)
    queue.score_again(STUDY, clock.now)
    claim = claimed(queue, clock)
    assert claim.again
    assert claim.predecessor is not None and claim.predecessor.sop_instance_uid == second.sop_uid
    assert claim.repeat is not None and claim.repeat.predecessor is not None
    assert claim.repeat.created_at == made_at
    assert claim.repeat.predecessor.sop_instance_uid == first.sop_uid
    assert not any(item.is_new for item in claim.inputs)


def test_a_repetition_that_made_nothing_new_delivers_what_there_is_once_more(queue: Queue, clock: Clock) -> None:
    take(queue, clock, 1)
    made = [item.sop_uid for item in finish(queue, claimed(queue, clock), clock)]
    for task in queue.next_deliveries("pacs", "d", clock.now):
        queue.delivered(task, clock.now)
    queue.score_again(STUDY, clock.now)
    claim = claimed(queue, clock)
    queue.finish(claim, (), "{}", status=StudyStatus.SCORED, destinations=["pacs", "new"], now=clock.now, again=made)
    assert [task.sop_uid for task in queue.next_deliveries("pacs", "d", clock.now)] == made
    assert [task.sop_uid for task in queue.next_deliveries("new", "d", clock.now)] == made
    assert queue.deliveries_of(made[0])[0] == ("new", DeliveryState.PENDING, None)
    assert queue.knows_objects(made) and not queue.knows_objects([*made, "2.25.999"])


def test_images_that_come_before_the_repetition_make_it_an_ordinary_revision(queue: Queue, clock: Clock) -> None:
    take(queue, clock, 1)
    finish(queue, claimed(queue, clock), clock)
    queue.score_again(STUDY, clock.now)
    assert take(queue, clock, 1, 2) == 2
    claim = claimed(queue, clock)
    assert not claim.again and claim.repeat is None
    assert [item.is_new for item in claim.inputs] == [False, True]


def test_an_archive_that_is_away_costs_no_attempt(queue: Queue, clock: Clock) -> None:
    take(queue, clock, 1)
    for _ in range(queue.settings.queue.max_attempts + 2):
        claim = claimed(queue, clock)
        assert claim.attempt == 1
        queue.defer(claim, "nobody answers", clock.now)
        assert queue.claim("w", clock.now) is None
        clock.forward(queue.settings.queue.backoff_seconds)
    assert queue.jobs_of(STUDY)[0].error == "nobody answers"
    queue.finish(claimed(queue, clock), (), "{}", status=StudyStatus.SCORED, destinations=[], now=clock.now)
    assert queue.jobs_of(STUDY)[0].error is None


def test_the_cursor_is_kept(queue: Queue, tmp_path: Path) -> None:
    assert queue.cursor("orthanc") is None
    queue.move_cursor("orthanc", Cursor("db", 4))
    queue.move_cursor("orthanc", Cursor("db", 9))
    again = Queue.open(settings_for(tmp_path))
    assert again.cursor("orthanc") == Cursor("db", 9)
    again.close()


def test_a_queue_of_the_first_version_goes_on(tmp_path: Path, clock: Clock) -> None:
    settings = settings_for(tmp_path)
    with sqlite3.connect(settings.queue_path) as old:
        old.executescript((Path(__file__).parent / "data" / "queue_v1.sql").read_text())
    old.close()
    for _ in range(2):  # the second time there is nothing to migrate
        queue = Queue.open(settings)
        assert sorted(queue.known_paths()) == ["instances/a.dcm", "instances/b.dcm"]
        queue.close()
    queue = Queue.open(settings)
    assert queue.sweep(clock.now) == 1
    claim = claimed(queue, clock)
    assert (claim.study_uid, claim.inputs[0].sha256) == ("1.2.2", "bb")
    finish(queue, claim, clock)
    assert queue.score_again("1.2.1", clock.now) == 2
    assert len(queue.next_deliveries("pacs", "d", clock.now)) == 3
    with queue.database.read() as run:
        assert run.connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1
        assert run.connection.execute("PRAGMA foreign_key_check").fetchall() == []
    queue.close()


def test_migrated_and_new_queues_have_the_same_columns_and_indexes(tmp_path: Path) -> None:
    old_path = settings_for(tmp_path).queue_path
    with sqlite3.connect(old_path) as old:
        old.executescript((Path(__file__).parent / "data" / "queue_v1.sql").read_text())
    old.close()
    shapes = []
    for folder in (tmp_path, tmp_path / "fresh"):
        queue = Queue.open(settings_for(folder))
        queue.close()
        database = sqlite3.connect(queue.database.path)
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master ORDER BY name")]
        columns = {name: database.execute(f"PRAGMA table_info({name})").fetchall() for name in names}
        # SQLite numbers them in the order of their making; an added column comes last in both.
        shapes.append((names, {name: sorted(row[1:] for row in rows) for name, rows in columns.items()}))
        database.close()
    assert shapes[0] == shapes[1]


def test_an_instance_is_a_file_or_remote_never_both(queue: Queue) -> None:
    database = sqlite3.connect(queue.database.path)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        database.execute(
            "INSERT INTO instance (study_uid, series_uid, sop_uid, relative_path, remote, size, calling_ae, peer_host,"
            " received_at, seen_at) VALUES ('1', '1', '1', 'a', 'b', 1, 'x', 'y', 0, 0)"
        )
    database.close()


def test_a_newer_queue_is_left_alone(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with sqlite3.connect(settings.queue_path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ConfigurationError, match="version 99"):
        Queue.open(settings)
