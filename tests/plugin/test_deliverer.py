"""The deliverer: batches to real destinations; what is down, refuses, breaks off or crashes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin import deliverer, destinations
from plugin.deliverer import Courier
from plugin.jobs import Queue
from plugin.rows import DestinationRow, ResultObject
from plugin.settings import CStoreDestination, FolderDestination, Settings, dumps
from plugin.worker import Worker
from tests.plugin.fakes import FakeScorer, deposit, film
from tests.plugin.peers import archive, free_port
from tests.plugin.queue_helpers import SC, SR, Clock, settings_for

refused_connection = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_settings(folder: Path, port: int) -> Settings:
    pacs = {"kind": "cstore", "host": "127.0.0.1", "port": port, "ae_title": "PACS", "response_seconds": 5}
    return settings_for(folder, destinations=[pacs, {"kind": "folder", "path": folder / "out"}])


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue.open(make_settings(tmp_path, free_port()))
    yield queue
    queue.close()


def score(queue: Queue, clock: Clock, *studies: int) -> list[ResultObject]:
    """Studies with one film each, scored: their objects, in the order of delivery."""
    made: list[ResultObject] = []
    for study in studies:
        one = film(study)
        deposit(queue, one, clock.now)
        queue.sweep(clock.forward(5))
        assert Worker(queue, queue.settings, FakeScorer(), clock=clock).step()
        made += queue.objects_of(queue.jobs_of(one.StudyInstanceUID)[0].job_id)
    return made


def courier(queue: Queue, clock: Clock, index: int = 0) -> Courier:
    return Courier(queue, queue.settings, queue.settings.delivery_targets[index], clock=clock)


def port_of(queue: Queue) -> int:
    target = queue.settings.delivery_targets[0]
    assert isinstance(target, CStoreDestination)
    return target.port


def row(queue: Queue, name: str) -> DestinationRow:
    return next(row for row in queue.snapshot().destinations if row.name == name)


def test_all_objects_of_several_studies_go_in_one_association(queue: Queue, clock: Clock) -> None:
    objects = score(queue, clock, 1, 2, 3)
    with archive([SC, SR], port_of(queue)) as peer:
        assert courier(queue, clock).step()
        assert not courier(queue, clock).step()
    assert peer.stored == [item.sop_uid for item in objects]
    assert peer.associations == 1
    assert (row(queue, "pacs").pending, row(queue, "pacs").delivered) == (0, 6)


@refused_connection
def test_a_destination_that_is_down_holds_up_neither_the_other_nor_scoring(queue: Queue, clock: Clock) -> None:
    objects = score(queue, clock, 1)
    for _ in range(20):  # days
        assert courier(queue, clock).step()
        clock.forward(300)
    assert row(queue, "pacs").failures == 20
    assert "cannot be reached" in str(row(queue, "pacs").error)
    objects += score(queue, clock, 2)
    assert courier(queue, clock, 1).step()
    assert len(list((queue.settings.data_dir / "out").iterdir())) == 4
    with archive([SC, SR], port_of(queue)) as peer:
        assert courier(queue, clock).step()
    assert peer.stored == [item.sop_uid for item in objects]
    assert row(queue, "pacs").failures == 0
    assert queue.snapshot().is_empty


def test_a_refused_object_is_not_sent_and_ends_as_a_dead_letter(queue: Queue, clock: Clock) -> None:
    heatmap, report = score(queue, clock, 1)
    with archive([SC, SR], port_of(queue), statuses=[0xA900, 0x0000, 0xC000, 0x0122, 0xA901, 0xA902]) as peer:
        for _ in range(5):
            assert courier(queue, clock).step()
            clock.forward(600)
        assert not courier(queue, clock).step()
    assert peer.stored == [report.sop_uid]
    (dead,) = queue.snapshot().dead_deliveries
    assert (dead.sop_uid, dead.error) == (heatmap.sop_uid, "C-STORE status 0xA902")


def test_out_of_resources_is_waited_out(queue: Queue, clock: Clock) -> None:
    score(queue, clock, 1)
    with archive([SC, SR], port_of(queue), statuses=[0xA700] * 20) as peer:
        for _ in range(11):
            courier(queue, clock).step()
            clock.forward(600)
        assert len(peer.stored) == 2
    assert (row(queue, "pacs").pending, queue.snapshot().dead) == (0, 0)


def test_a_warning_counts_as_stored_and_is_logged(queue: Queue, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    score(queue, clock, 1)
    with archive([SC, SR], port_of(queue), statuses=[0xB000]):
        courier(queue, clock).step()
    assert queue.next_deliveries("pacs", "d", clock.forward(1e6)) == ()
    (record,) = [r for r in caplog.records if r.name == "plugin.deliverer" and r.levelname == "WARNING"]
    assert "0xB000" in record.genu_fields["text"]


def test_an_object_at_which_the_peer_breaks_off_does_not_block_the_others(queue: Queue, clock: Clock) -> None:
    objects = score(queue, clock, 1, 2)
    with archive([SC, SR], port_of(queue), statuses=[None]) as peer:
        assert courier(queue, clock).step()
        assert peer.stored == []
        assert courier(queue, clock).step()
        assert peer.stored == [item.sop_uid for item in objects[1:]]
        clock.forward(10)
        assert courier(queue, clock).step()
    assert peer.stored[-1] == objects[0].sop_uid


def test_an_object_that_we_cannot_send_does_not_block_the_others(
    queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    heatmap, report = score(queue, clock, 1)
    real = destinations.dcmread

    def crash(path: Path) -> object:
        if path.stem == heatmap.sop_uid:
            raise ZeroDivisionError("Zebra^Canary")
        return real(path)

    monkeypatch.setattr(destinations, "dcmread", crash)
    with archive([SC, SR], port_of(queue)) as peer:
        for _ in range(7):
            courier(queue, clock).step()
            clock.forward(600)
    assert peer.stored == [report.sop_uid]
    (dead,) = queue.snapshot().dead_deliveries
    assert "ZeroDivisionError" in str(dead.error)
    assert "Canary" not in str(dead.error)


def test_a_full_disk_is_a_destination_that_is_down(queue: Queue, clock: Clock) -> None:
    heatmap, _ = score(queue, clock, 1)
    target = queue.settings.delivery_targets[1]
    assert isinstance(target, FolderDestination)
    blocker = target.path / f".{heatmap.sop_uid}.part"
    blocker.mkdir(parents=True)
    assert courier(queue, clock, 1).step()
    assert row(queue, "folder").failures == 1
    assert not courier(queue, clock, 1).step()
    blocker.rmdir()
    clock.forward(2)
    assert courier(queue, clock, 1).step()
    assert row(queue, "folder").pending == 0


def test_what_waits_for_a_destination_that_is_gone_is_kept_and_said(
    queue: Queue, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    score(queue, clock, 1)
    deliverer._warn_of_leftovers(queue, ["folder"])
    (record,) = [record for record in caplog.records if record.msg == "destination.unknown"]
    assert record.genu_fields == {"destination": "pacs", "pending": 2}


@pytest.mark.parametrize("ending", ["SIGTERM", "parent"])
def test_the_process_delivers_and_ends_when_told(tmp_path: Path, clock: Clock, ending: str) -> None:
    with archive([SC, SR]) as peer:
        settings = make_settings(tmp_path, peer.port)
        queue = Queue.open(settings)
        score(queue, clock, 1)
        code = (
            "import os, sys\n"
            "from plugin import deliverer, settings\n"
            "sys.exit(deliverer.run(settings.loads(sys.argv[1]), parent=os.getppid()))\n"
        )
        # A shell in between is the parent that dies.
        command = [sys.executable, "-c", code, dumps(settings)]
        script = 'trap "" TERM; "$@" & echo $!; wait'
        shell = subprocess.Popen(["sh", "-c", script, "sh", *command], stdout=subprocess.PIPE, text=True)
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        _until(lambda: queue.snapshot().is_empty)
        assert len(peer.stored) == 2
        if ending == "SIGTERM":
            os.kill(child, signal.SIGTERM)
            assert shell.wait(timeout=20) == 0
        else:
            shell.kill()
            shell.wait()
        _until(lambda: not _alive(child))
        shell.stdout.close()
        queue.close()
    assert deliverer.OWNER == "deliverer"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
