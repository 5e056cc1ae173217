"""The whole service as it ships (`genu listen` with its children and torch), killed at its worst moments."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from plugin.jobs import Queue
from plugin.settings import load
from tests.phantoms import dx_knee, write
from tests.plugin.peers import free_port
from tests.plugin.queue_helpers import SR
from tests.plugin.standin import standin_bundle

pytestmark = pytest.mark.skipif(shutil.which("storescu") is None, reason="needs DCMTK: apt-get install dcmtk")

STUDIES = 3


class Service:
    """`genu listen` as a process, and what its log says."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self.port = free_port()
        self.settings = load(None, {"data_dir": folder / "data"})
        self._log = folder / "log.jsonl"
        options = [
            "--data-dir",
            folder / "data",
            "--port",
            self.port,
            "--to-folder",
            self.out,
            "--bundle",
            standin_bundle(),
        ]
        self._command = [sys.executable, "-m", "plugin.cli", "listen", *map(str, options), "--quiet", "1"]
        # One second of patience after a lost attempt instead of five.
        self._environment = os.environ | {"GENU_QUEUE__BACKOFF_SECONDS": "1", "OMP_NUM_THREADS": "1"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        seen = len(self.events("listener.ready"))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stderr=log, env=self._environment)
        until(lambda: len(self.events("listener.ready")) > seen)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(timeout=60)
        finally:
            self._process.kill()

    def events(self, action: str, **fields: object) -> list[dict[str, Any]]:
        text = self._log.read_text(encoding="utf-8") if self._log.exists() else ""
        lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        return [line for line in lines if line["action"] == action and fields.items() <= line.items()]

    def pids(self) -> dict[str, int]:
        return {line["child"]: line["pid"] for line in self.events("child.started")}

    def send(self, path: Path) -> None:
        def sent() -> bool:
            command = ["storescu", "-aec", "GENU", "127.0.0.1", str(self.port), str(path)]
            return subprocess.run(command, check=False, capture_output=True).returncode == 0

        until(sent)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    service.start()
    yield service
    assert service.stop() == 0


def test_killed_at_the_worst_moments(service: Service, tmp_path: Path) -> None:
    films = [write(dx_knee("L", seed=seed), tmp_path / f"{seed}.dcm") for seed in range(STUDIES)]
    service.send(films[0])
    # The children start after the port is open; killed before that, this life would have none.
    until(lambda: set(service.pids()) == {"worker-1", "deliverer"})
    children = service.pids()
    service.kill()  # the whole service, between the answer and the end of the quiet period
    until(lambda: not any(alive(pid) for pid in children.values()))
    service.start()
    for film in films[1:]:
        service.send(film)
    until(lambda: bool(service.events("job.claimed")))
    os.kill(service.pids()["worker-1"], signal.SIGKILL)  # in the middle of a study
    until(lambda: bool(service.events("object.stored")))
    os.kill(service.pids()["deliverer"], signal.SIGKILL)  # in the middle of a batch
    queue = Queue.open(service.settings)
    until(lambda: queue.snapshot().is_empty)
    queue.close()
    found = [dcmread(path, stop_before_pixels=True) for path in service.out.iterdir()]
    reports = Counter(str(ds.StudyInstanceUID) for ds in found if ds.SOPClassUID == SR)
    assert reports == {str(dcmread(film).StudyInstanceUID): 1 for film in films}
    assert len(found) == sum(line["knees"] for line in service.events("job.done")) + STUDIES
    # One start each for the service's two lives and for the kill; the last may come after the work is done.
    for child in ("worker-1", "deliverer"):
        until(lambda child=child: len(service.events("child.started", child=child)) >= 3)  # type: ignore[misc]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)
