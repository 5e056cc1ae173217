"""`genu listen` as a process: readiness, children that come back, and ends of every kind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from inference.errors import ConfigurationError
from plugin import supervisor
from plugin.settings import load
from plugin.supervisor import Child, Role, pause_after, roles
from tests.plugin.receiving import HOST, RawPeer, dcmtk, instance, wait_until, write

SERVICE = """
import sys
from pathlib import Path
from plugin import logs, supervisor
from plugin.settings import load

supervisor.child_command = lambda role, parent: [
    sys.executable, "-c", "import time; time.sleep(600)", role.name
]
settings = load(None, {
    "data_dir": Path(sys.argv[1]),
    "listener": {"port": 0, "min_free_bytes": 0},
    "workers": {"count": 2},
    "completeness": {"quiet_seconds": 0.3},
})
logs.configure("info")
sys.exit(supervisor.run_listen(settings))
"""


class Service:
    """The service in a process of its own, with idle children."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as stderr:
            self.process = subprocess.Popen([sys.executable, "-c", SERVICE, str(folder / "data")], stderr=stderr)

    def events(self, action: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["action"] == action]

    @property
    def port(self) -> int:
        wait_until(lambda: bool(self.events("listener.ready")), 20)
        return int(self.events("listener.ready")[0]["port"])

    def children(self, count: int = 3) -> list[psutil.Process]:
        wait_until(lambda: len(psutil.Process(self.process.pid).children()) == count, 20)
        return psutil.Process(self.process.pid).children()


@contextmanager
def service(folder: Path) -> Iterator[Service]:
    running = Service(folder)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def gone(children: list[psutil.Process]) -> bool:
    return not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_ready_line_names_the_port_and_sigterm_ends_everything_well(tmp_path: Path) -> None:
    with service(tmp_path) as running:
        dcmtk("storescu", HOST, running.port, write(instance(), tmp_path / "a.dcm"))
        children = running.children()
        wait_until(lambda: bool(running.events("study.whole")))
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(15) == 0
        assert gone(children)
        assert running.events("listener.stopped")


def test_sigint_finishes_the_association_in_flight_first(tmp_path: Path) -> None:
    with service(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        assert peer.store(instance()) == 0
        running.process.send_signal(signal.SIGINT)
        wait_until(lambda: bool(running.events("listener.stopping")))
        assert peer.store(instance()) == 0
        assert running.process.wait(15) == 0


def test_a_killed_child_comes_back(tmp_path: Path) -> None:
    with service(tmp_path) as running:
        assert running.port
        children = running.children()
        children[0].kill()
        wait_until(lambda: gone(children[:1]) and bool(running.events("child.ended")))
        assert len(running.children()) == 3
        assert running.events("child.ended")[0]["status"] == -signal.SIGKILL


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    with service(tmp_path) as running:
        assert running.port
        children = running.children()
        running.process.kill()
        wait_until(lambda: gone(children), 5)


def test_certificates_of_a_destination_that_are_not_there_stop_the_start(tmp_path: Path) -> None:
    home = {"kind": "cstore", "host": HOST, "port": 104, "ae_title": "PACS", "tls": {"authorities": "/gone.pem"}}
    settings = load(None, {"data_dir": tmp_path, "listener": {"port": 0}, "destinations": [home]})
    with pytest.raises(ConfigurationError, match=r"/gone\.pem"):
        supervisor.run_listen(settings)


def test_roles_and_command_line() -> None:
    settings = load(None, {"workers": {"count": 2}})
    assert [role.name for role in roles(settings)] == ["worker-1", "worker-2", "deliverer"]
    command = supervisor.child_command(Role("worker", "worker-1"), os.getpid())
    assert command[:4] == [sys.executable, "-m", "plugin.cli", "worker"]
    assert command[command.index("--parent") + 1] == str(os.getpid())


def test_pauses_grow_and_are_capped() -> None:
    pauses = [pause_after(failures) for failures in range(1, 60)]
    assert pauses[0] == supervisor.FIRST_PAUSE_SECONDS
    assert pauses == sorted(pauses)
    assert pauses[-1] == supervisor.MAX_PAUSE_SECONDS


def test_a_child_that_ends_at_once_is_not_started_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(Role("worker", "worker-1"), [sys.executable, "-c", "raise SystemExit(3)"])
    starts = []
    start = Child._start
    monkeypatch.setattr(Child, "_start", lambda self, now: (starts.append(now), start(self, now)))
    stop = time.monotonic() + 1.0
    while time.monotonic() < stop:
        child.tend(time.monotonic())
        time.sleep(0.01)
    child.wait(5.0)
    assert 2 <= len(starts) <= 5


def test_a_child_that_cannot_be_started_does_not_end_the_service() -> None:
    child = Child(Role("worker", "worker-1"), ["/no/such/program"])
    child.tend(100.0)
    assert child.pid is None
    child._command = [sys.executable, "-c", "import time; time.sleep(60)"]
    child.tend(100.05)
    assert child.pid is None  # its pause is not over
    child.tend(100.2)
    assert child.pid is not None
    child.ask_to_stop()
    child.wait(5.0)


def test_a_child_is_given_its_settings_by_a_pipe_and_a_deaf_one_does_no_harm(tmp_path: Path) -> None:
    copy = f"import sys; open({str(tmp_path / 'given')!r}, 'w').write(sys.stdin.read())"
    child = Child(Role("worker", "worker-1"), [sys.executable, "-c", copy], b'{"secret": "s3cret"}')
    child.tend(time.monotonic())
    child.wait(10.0)
    assert (tmp_path / "given").read_text() == '{"secret": "s3cret"}'
    deaf = Child(Role("worker", "worker-1"), ["true"], b"x" * 1_000_000)
    deaf.tend(time.monotonic())
    deaf.wait(10.0)


def test_no_secret_stands_on_a_command_line() -> None:
    pacs = {"kind": "stow", "url": "https://pacs.example/dicom-web", "username": "u", "password": "s3cret"}
    for child in supervisor.children(load(None, {"destinations": [pacs]})):
        assert b"s3cret" in child._given
        assert not any("s3cret" in word for word in child._command)


def test_a_child_that_does_not_stop_is_killed() -> None:
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    child = Child(Role("worker", "worker-1"), [sys.executable, "-c", ignore])
    child.tend(time.monotonic())
    time.sleep(0.5)
    child.ask_to_stop()
    began = time.monotonic()
    child.wait(0.5)
    assert time.monotonic() - began < 5.0
    assert child.pid is None
