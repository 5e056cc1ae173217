"""Orthanc's changes, followed: a real Orthanc, ended in every way, and a log that no real one would write."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from plugin.changes import ASK_SECONDS, NAME, Follower, Waiting
from plugin.jobs import Queue
from plugin.orthanc_api import Change, Changes, OrthancApi
from plugin.routing import from_archive
from plugin.rows import Cursor, RemoteInstance
from plugin.settings import Orthanc, load
from plugin.web import WebError
from plugin.worker import Worker
from tests.plugin.fakes import FakeScorer, film
from tests.plugin.orthanc_rig import PASSWORD, USER, OrthancServer, orthanc
from tests.plugin.queue_helpers import claimed, finish


class Clock:
    """The real clock, which a test can set ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    @property
    def now(self) -> float:
        return self()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def empty(server: OrthancServer) -> OrthancServer:
    """The shared Orthanc with nothing in it, running."""
    if server.process is None or server.process.poll() is not None:
        server.start()
    for study in server.get("/studies"):
        server.session.delete(f"{server.url}/studies/{study}").raise_for_status()
    return server


@pytest.fixture
def queue(tmp_path: Path, server: OrthancServer) -> Iterator[Queue]:
    settings = load(
        None, {"data_dir": tmp_path, "orthanc": {"url": server.url, "username": USER, "password": PASSWORD}}
    )
    queue = Queue.open(settings)
    yield queue
    queue.close()


def follower(queue: Queue, clock: Clock | None = None, **options: Any) -> Follower:
    assert queue.settings.orthanc is not None
    return Follower(
        OrthancApi(queue.settings.orthanc),
        queue,
        clock=clock or time.time,
        quiet_seconds=0.5,
        source=from_archive(queue.settings),
        **options,
    )


def begun(queue: Queue, clock: Clock | None = None, **options: Any) -> Follower:
    found = follower(queue, clock, **options)
    found.begin(since=None, existing=False)
    return found


def put(server: OrthancServer, folder: Path, *films: Dataset) -> list[str]:
    """Store films by REST; their Orthanc identifiers."""
    stored = []
    for dataset in films:
        path = folder / f"{dataset.SOPInstanceUID[-20:]}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        stored.append(server.put(path)["ID"])
    return stored


def studies(queue: Queue) -> list[tuple[str, int]]:
    return [(job.study_uid, job.revision) for job in reversed(queue.recent_jobs(100))]


def test_a_study_is_queued_when_it_is_stable_and_only_once(empty: OrthancServer, queue: Queue, tmp_path: Path) -> None:
    following = begun(queue)
    before = following.cursor
    put(empty, tmp_path, film(1, 1), film(1, 2))
    following.step()
    assert studies(queue) == []
    assert following.waiting == 2
    assert following.cursor <= before + 1  # never past an instance that is not in the queue
    empty.until(lambda: following.step() or studies(queue), 20)
    assert studies(queue) == [(film(1).StudyInstanceUID, 1)]
    assert following.waiting == 0
    assert following.cursor == following.last_change == empty.get("/changes", last="")["Last"]
    assert len(claimed(queue, Clock()).inputs) == 2
    assert follower(queue).step() == 0  # all changes read again
    assert len(studies(queue)) == 1


def test_stability_lost_with_a_killed_orthanc_is_found_again(
    empty: OrthancServer, queue: Queue, tmp_path: Path
) -> None:
    following = begun(queue)
    put(empty, tmp_path, film(2, 1))
    following.step()
    empty.kill()
    empty.start()
    again = begun(queue)
    again.step()
    assert studies(queue) == []  # its sender gets a quiet period to go on
    empty.until(lambda: again.step() or studies(queue), 10)
    assert studies(queue) == [(film(2).StudyInstanceUID, 1)]
    assert again.waiting == 0


def test_what_came_while_nobody_followed_is_found(empty: OrthancServer, queue: Queue, tmp_path: Path) -> None:
    begun(queue)
    put(empty, tmp_path, film(3, 1))
    time.sleep(2.5)  # stable while we are away
    put(empty, tmp_path, film(4, 1))
    empty.stop()
    empty.start()
    again = begun(queue)
    empty.until(lambda: again.step() or len(studies(queue)) == 2, 10)
    assert {uid for uid, _ in studies(queue)} == {film(3).StudyInstanceUID, film(4).StudyInstanceUID}


def test_new_images_and_own_results(empty: OrthancServer, queue: Queue, tmp_path: Path) -> None:
    clock = Clock()
    following = begun(queue)
    put(empty, tmp_path, film(5, 1))
    empty.until(lambda: following.step() or studies(queue), 20)
    own = film(5, 9)
    claim = claimed(queue, clock)  # type: ignore[arg-type]
    made = finish(queue, claim, clock)  # type: ignore[arg-type]
    own.SOPInstanceUID = own.file_meta.MediaStorageSOPInstanceUID = made[0].sop_uid
    (identifier,) = put(empty, tmp_path, own)
    empty.until(lambda: following.step() == 0 and following.waiting == 0, 20, f"{identifier} still waits")
    assert len(studies(queue)) == 1
    put(empty, tmp_path, film(5, 2))
    empty.until(lambda: following.step() or len(studies(queue)) == 2, 20)
    second = claimed(queue, clock)  # type: ignore[arg-type]
    assert [item.is_new for item in second.inputs] == [False, True]


def test_an_instance_deleted_before_its_study_is_stable_holds_nothing_up(
    empty: OrthancServer, queue: Queue, tmp_path: Path
) -> None:
    clock = Clock()
    following = begun(queue, clock)
    following.step()
    (identifier,) = put(empty, tmp_path, film(6, 1))
    following.step()
    assert following.waiting == 1
    empty.session.delete(f"{empty.url}/instances/{identifier}").raise_for_status()
    clock.ahead = ASK_SECONDS + 1
    following.step()
    assert following.waiting == 0
    assert following.cursor == following.last_change


def test_a_study_that_still_grows_is_not_asked_for(empty: OrthancServer, queue: Queue, tmp_path: Path) -> None:
    clock = Clock()
    following = begun(queue, clock)
    following.step()
    put(empty, tmp_path, film(7, 1))
    following.step()
    clock.ahead = ASK_SECONDS + 1
    following.step()
    assert studies(queue) == []
    assert following.waiting == 1
    clock.ahead = 0
    empty.until(lambda: following.step() or studies(queue), 20)


def test_a_study_deleted_before_it_is_scored_is_new_when_it_is_sent_again(
    empty: OrthancServer, queue: Queue, tmp_path: Path
) -> None:
    worker = Worker(queue, queue.settings, FakeScorer(), worker_id="w")
    following = begun(queue)
    for revision, status in ((1, "nothing_to_score"), (2, "scored")):
        (identifier,) = put(empty, tmp_path, film(41, 1))
        empty.until(lambda revision=revision: following.step() or len(studies(queue)) == revision, 20)
        if revision == 1:
            study = empty.get(f"/instances/{identifier}/study")["ID"]
            empty.session.delete(f"{empty.url}/studies/{study}").raise_for_status()
        assert worker.step()
        assert queue.jobs_of(film(41).StudyInstanceUID)[-1].status == status


def test_a_study_under_two_patients_does_not_go_round(empty: OrthancServer, queue: Queue, tmp_path: Path) -> None:
    clock = Clock()
    following = begun(queue)
    results: list[Dataset] = []
    for patient in ("A", "B"):
        one = film(40, 1)
        one.PatientID = patient
        put(empty, tmp_path, one)
        empty.until(lambda: following.step() or len(studies(queue)) > len(results), 20)
        (made,) = finish(queue, claimed(queue, clock), clock)[:1]  # type: ignore[arg-type]
        own = film(40, 9)
        own.PatientID = patient
        own.SOPInstanceUID = own.file_meta.MediaStorageSOPInstanceUID = made.sop_uid
        results.append(own)
    for own in results:  # each makes its study stable once more
        put(empty, tmp_path, own)
        empty.until(lambda: following.step() == 0 and following.waiting == 0, 20)
    assert len(studies(queue)) == 2


def test_a_study_at_which_orthanc_fails_holds_up_no_other(
    empty: OrthancServer, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    following = begun(queue, clock)
    stored = put(empty, tmp_path, film(20, 1), film(20, 2), film(21, 1))
    bad = empty.get(f"/instances/{stored[0]}/study")["ID"]
    real = following._api.instances

    def instances(study: str) -> tuple[RemoteInstance, ...]:
        if study == bad:
            raise WebError("no answer in time")
        return real(study)

    monkeypatch.setattr(following._api, "instances", instances)
    time.sleep(2.5)
    errors = 0
    for _ in range(6):
        try:
            following.step()
        except WebError:
            errors += 1
        clock.ahead += 0.6 * ASK_SECONDS
    assert studies(queue) == [(film(21).StudyInstanceUID, 1)]
    assert (errors, following.waiting) == (3, 2)  # it is tried again, but not at every step
    assert following.cursor < following.last_change
    monkeypatch.setattr(following._api, "instances", real)
    clock.ahead += ASK_SECONDS
    following.step()
    assert len(studies(queue)) == 2
    assert following.cursor == following.last_change


def test_another_database_is_read_from_its_beginning(empty: OrthancServer, queue: Queue, tmp_path: Path) -> None:
    put(empty, tmp_path, film(8, 1))
    time.sleep(2.5)
    last = empty.get("/changes", last="")["Last"]
    for cursor, identity in ((Cursor("", last + 1000), ""), (Cursor("old", last), "new")):
        queue.move_cursor(NAME, cursor)
        following = begun(queue, identity=identity)
        following.step()
        assert film(8).StudyInstanceUID in {uid for uid, _ in studies(queue)}
    queue.move_cursor(NAME, Cursor("same", last))
    assert begun(queue, identity="same").cursor == last


@pytest.mark.parametrize("told", [True, False])
def test_deleting_the_newest_study_does_not_bring_up_those_from_before(
    empty: OrthancServer, queue: Queue, tmp_path: Path, told: bool
) -> None:
    """Whether the plugin tells since when Genu runs in this Orthanc, or nobody does."""
    put(empty, tmp_path, film(12, 1))
    time.sleep(4)  # stable in an earlier second than that of the start
    installed, identity = (float(int(time.time())), "same") if told else (None, "")
    first = follower(queue, identity=identity)
    first.begin(since=installed, existing=False)
    (identifier,) = put(empty, tmp_path, film(13, 1))
    empty.until(lambda: first.step() or studies(queue), 20)
    newest = empty.get(f"/instances/{identifier}/study")["ID"]
    empty.session.delete(f"{empty.url}/studies/{newest}").raise_for_status()
    assert empty.get("/changes", last="")["Last"] < first.cursor  # Orthanc has forgotten the last changes
    again = follower(queue, identity=identity)
    again.begin(since=installed, existing=False)
    again.step()
    assert studies(queue) == [(film(13).StudyInstanceUID, 1)]


def test_first_start(empty: OrthancServer, queue: Queue, tmp_path: Path) -> None:
    put(empty, tmp_path, film(10, 1))
    time.sleep(2.5)
    installed = time.time()
    put(empty, tmp_path, film(11, 1))
    time.sleep(2.5)
    following = follower(queue)
    following.begin(since=installed, existing=False)
    following.step()
    assert [uid for uid, _ in studies(queue)] == [film(11).StudyInstanceUID]
    queue.move_cursor(NAME, Cursor("", -1))
    with queue.database.write() as run:
        run.connection.execute("DELETE FROM archive")
    existing = follower(queue)
    existing.begin(since=installed, existing=True)
    assert {uid for uid, _ in studies(queue)} == {film(10).StudyInstanceUID, film(11).StudyInstanceUID}


class Log:
    """A log of changes with gaps, of which only `changes` and `last_change` are asked."""

    def __init__(self, entries: list[tuple[int, float]]) -> None:
        self.entries = tuple(Change(seq, "NewPatient", "x", at) for seq, at in entries)
        self.asked = 0

    def last_change(self) -> int:
        return self.entries[-1].seq if self.entries else 0

    def changes(self, since: int, limit: int = 1000) -> Changes:
        self.asked += 1
        found = tuple(entry for entry in self.entries if entry.seq > since)[:limit]
        return Changes(found, found[-1].seq if found else since, done=True)


@pytest.mark.parametrize("seqs", [[], [1], [5], [1, 2, 3, 4], [3, 9, 10, 4000], list(range(1, 3000, 7))])
def test_the_place_of_a_time_in_the_log(queue: Queue, seqs: list[int]) -> None:
    for cut in range(0, len(seqs) + 1, max(1, len(seqs) // 9)):
        log = Log([(seq, 100.0 + index) for index, seq in enumerate(seqs)])
        found = follower(queue)
        found._api = log  # type: ignore[assignment]
        place = found._change_before(100.0 + cut, log.last_change())
        later = [seq for seq in seqs if seq > place]
        assert later == seqs[cut:]
        assert log.asked <= 14


def test_what_waits_holds_the_cursor_back() -> None:
    waiting = Waiting()
    assert waiting.covered(9) == 9
    waiting.add("a", 4, 10.0)
    waiting.add("b", 6, 11.0)
    waiting.add("a", 8, 12.0)  # overwritten: the first change still counts
    assert waiting.covered(9) == 3
    assert waiting.due(10.5) == []
    assert waiting.due(11.5) == ["b"]
    waiting.postpone(["b", "unknown"], 20.0)
    assert waiting.due(12.5) == ["a"]
    assert [waiting.is_due(name, 12.5) for name in ("a", "b", "unknown")] == [True, False, False]
    waiting.drop(["a", "unknown"])
    assert (waiting.covered(9), len(waiting)) == (5, 1)


def test_settings_name_the_archive() -> None:
    assert from_archive(load(None, {"orthanc": {"url": "http://pacs.example:8042"}})).peer_host == "pacs.example"
    assert Orthanc().url == "http://127.0.0.1:8042"
