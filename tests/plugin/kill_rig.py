"""The rig of the kill test: a sender that never gives up, processes that are killed, and the final account.

All processes are kept busy most of the time (the sender does not pause, scoring and storing take a while), so that
kills fall between two steps and not into idleness.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pynetdicom import AE, evt

from plugin.jobs import Queue
from plugin.rows import JobState
from plugin.settings import Settings, dumps, load
from tests.phantoms import write
from tests.plugin.fakes import film
from tests.plugin.kill_roles import ROLES, WEIGHTS
from tests.plugin.peers import free_port
from tests.plugin.queue_helpers import SC, SR

FILMS = 2
QUIET_SECONDS = 2.0
BACKLOG = 25  # studies that wait for a worker: beyond it the sender rests
STORING_SECONDS = 0.02


def settings_in(folder: Path, archive_port: int) -> Settings:
    """Short waits, and more attempts than kills can eat: what is tested is loss, not patience."""
    pacs = {"kind": "cstore", "host": "127.0.0.1", "port": archive_port, "ae_title": "PACS"}
    return load(
        None,
        {
            "data_dir": folder / "data",
            "listener": {"port": free_port(), "min_free_bytes": 0},
            "completeness": {"quiet_seconds": QUIET_SECONDS},
            "workers": {"poll_seconds": 0.02},
            "queue": {"max_attempts": 1000, "backoff_seconds": 0.02, "backoff_max_seconds": 0.2},
            "delivery": {"backoff_seconds": 0.02, "backoff_max_seconds": 0.2, "poll_seconds": 0.02},
            "destinations": [pacs, {"kind": "folder", "path": folder / "out"}],
        },
    )


class Processes:
    """The service's processes; each can be killed, and is then started anew."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self._log = log.open("ab")
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.plugin.kill_roles", dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._line() == "ready"
        self._pids = {role: self._start(role) for role in ROLES}

    def kill(self, role: str) -> None:
        """kill -9, and a fresh process in its place."""
        os.kill(self._pids[role], signal.SIGKILL)
        while Path(f"/proc/{self._pids[role]}").exists():
            time.sleep(0.001)
        self._pids[role] = self._start(role)

    def close(self) -> None:
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
        self._nursery.kill()
        self._nursery.communicate()
        self._log.close()

    def _start(self, role: str) -> int:
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(f"{role}\n")
        self._nursery.stdin.flush()
        return int(self._line())

    def _line(self) -> str:
        assert self._nursery.stdout is not None
        return self._nursery.stdout.readline().strip()


class Sender(threading.Thread):
    """A modality (DCMTK's storescu): sends study after study, and each again until all of it is answered 0x0000."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(name="sender")
        where = ["127.0.0.1", str(settings.listener.port)]
        self._command = ["storescu", "-aet", "XR", "-aec", "GENU", "-ta", "5", "-td", "5", *where]
        self._queue = Queue.open(settings)
        self._folder = folder
        self.stopping = threading.Event()
        self.accepted: dict[str, int] = {}  # study -> films
        self.retries = 0

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            films = [film(number, index, size=16) for index in range(1, FILMS + 1)]
            paths = [str(write(one, self._folder / f"{index}.dcm")) for index, one in enumerate(films)]
            while not self._stored(paths):
                self.retries += 1
                time.sleep(0.02)
            self.accepted[films[0].StudyInstanceUID] = FILMS
            while self._queue.snapshot().jobs[JobState.QUEUED] > BACKLOG and not self.stopping.is_set():
                time.sleep(0.05)
        self._queue.close()

    def _stored(self, paths: list[str]) -> bool:
        environment = os.environ | {"TCP_NODELAY": "1"}  # without it DCMTK waits 44 ms an image
        done = subprocess.run([*self._command, *paths], check=False, capture_output=True, env=environment)
        return done.returncode == 0


@dataclass
class Archive:
    """The PACS: what it was sent, by SOP Instance UID, with the digests of the bytes of each arrival."""

    port: int = field(default_factory=free_port)
    received: dict[str, list[str]] = field(default_factory=dict)
    studies: Counter[tuple[str, str]] = field(default_factory=Counter)

    def on_store(self, event: Any) -> int:
        time.sleep(STORING_SECONDS / 2)
        uid = str(event.request.AffectedSOPInstanceUID)
        arrivals = self.received.setdefault(uid, [])
        arrivals.append(sha256(event.request.DataSet.getvalue()).hexdigest())
        if len(arrivals) == 1:
            self.studies[str(event.dataset.StudyInstanceUID), str(event.request.AffectedSOPClassUID)] += 1
        time.sleep(STORING_SECONDS / 2)
        return 0x0000

    @contextmanager
    def serving(self) -> Iterator[None]:
        ae = AE(ae_title="PACS")
        for sop_class in (SC, SR):
            ae.add_supported_context(sop_class)
        handlers = [(evt.EVT_C_STORE, self.on_store)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None
        try:
            yield
        finally:
            server.shutdown()


def run_rounds(folder: Path, rounds: int, seed: int, pause: tuple[float, float]) -> str:
    """Kill one process a round, at a random moment, while studies come in; returns one line on what was seen."""
    choice = random.Random(seed)
    archive = Archive()
    with archive.serving():
        settings = settings_in(folder, archive.port)
        processes = Processes(settings, folder / "log.jsonl")
        sender = Sender(settings, folder / "films")
        try:
            sender.start()
            kills: Counter[str] = Counter()
            bag: list[str] = []
            for _ in range(rounds):
                time.sleep(choice.uniform(*pause))
                if not bag:  # each role as often as its weight says, in any order
                    bag = [role for role, weight in zip(ROLES, WEIGHTS, strict=True) for _ in range(weight)]
                    choice.shuffle(bag)
                role = bag.pop()
                processes.kill(role)
                kills[role] += 1
            sender.stopping.set()
            sender.join(timeout=60)
            assert not sender.is_alive()
            _wait_until_empty(settings, seconds=60 + rounds * 0.5)
            processes.kill("listener")  # one more start, which cleans up
            time.sleep(0.5)
        finally:
            sender.stopping.set()
            processes.close()
        _check(settings, sender.accepted, archive)
    twice = sum(len(arrivals) - 1 for arrivals in archive.received.values())
    text = f"{rounds} kills {dict(kills)}, {len(sender.accepted)} studies, {sender.retries} sent again by the sender"
    return f"{text}, {_attempts(settings)} scored again, {twice} delivered again"


def _attempts(settings: Settings) -> int:
    """How often a job was taken up again."""
    database = sqlite3.connect(settings.queue_path)
    again = int(database.execute("SELECT SUM(attempts - 1) FROM job").fetchone()[0])
    database.close()
    return again


def _wait_until_empty(settings: Settings, seconds: float) -> None:
    queue = Queue.open(settings)
    deadline = time.monotonic() + seconds
    while not (snapshot := queue.snapshot()).is_empty:
        assert time.monotonic() < deadline, snapshot
        time.sleep(0.05)
    queue.close()


def _check(settings: Settings, accepted: dict[str, int], archive: Archive) -> None:
    """Every accepted study has exactly one report and its heatmaps at both destinations; nothing else is anywhere."""
    expected: Counter[tuple[str, str]] = Counter()
    for study, films in accepted.items():
        expected[study, SR] += 1
        expected[study, SC] += films
    folder = settings.delivery_targets[1].path  # type: ignore[union-attr]
    files = [dcmread(path, stop_before_pixels=True) for path in folder.iterdir()]
    assert Counter((str(ds.StudyInstanceUID), str(ds.SOPClassUID)) for ds in files) == expected
    assert archive.studies == expected
    assert set(archive.received) == {str(ds.SOPInstanceUID) for ds in files}
    # What was sent again after a kill between the answer and the commit is the same instance, byte for byte.
    assert [uid for uid, arrivals in archive.received.items() if len(set(arrivals)) > 1] == []
    queue = Queue.open(settings)
    snapshot = queue.snapshot()
    paths = sorted(queue.known_paths())
    queue.close()
    assert (snapshot.is_empty, snapshot.dead, snapshot.instances) == (True, 0, sum(accepted.values()))
    on_disk = [path for path in settings.data_dir.rglob("*.dcm") if "results" not in path.parts]
    assert sorted(path.relative_to(settings.data_dir).as_posix() for path in on_disk) == paths
    database = sqlite3.connect(settings.queue_path)
    assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    database.close()
