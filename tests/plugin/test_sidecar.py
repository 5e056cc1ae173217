"""`genu orthanc` as a process against a real Orthanc: the routes, the ends, the other service on the same folder."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from plugin.jobs import Queue
from plugin.settings import load
from plugin.storage import hold
from tests.phantoms import dx_bilateral, dx_knee, mr_knee, write
from tests.plugin.orthanc_rig import PASSWORD, USER, OrthancServer, orthanc
from tests.plugin.peers import free_port
from tests.plugin.standin import standin_bundle

NOBODY = "00000000-00000000-00000000-00000000-00000000"


class Sidecar:
    """The process, and Orthanc's end of its link."""

    def __init__(self, folder: Path, section: dict[str, Any], known: dict[str, Any]) -> None:
        self.log = folder / "sidecar.log"
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(30)
        self.stream = self.ours.makefile("rb")
        with theirs, self.log.open("ab") as log:
            command = [sys.executable, "-m", "plugin.cli", "orthanc", "--link"]
            self.process = subprocess.Popen(command, stdin=theirs, stderr=log, start_new_session=True)
        hello = {"type": "hello", "genu": section, "orthanc": known, "since": time.time(), "database": "test"}
        self.say(hello)
        self.asked = 0

    def say(self, message: dict[str, Any]) -> None:
        self.ours.sendall(json.dumps(message).encode() + b"\n")

    def ask(self, method: str, *path: str) -> tuple[int, dict[str, Any]]:
        self.asked += 1
        self.say({"type": "request", "id": self.asked, "method": method, "path": list(path)})
        answer = json.loads(self.stream.readline())
        assert answer["id"] == self.asked
        return answer["status"], answer["body"]

    def events(self, action: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["action"] == action]

    def hang_up(self) -> None:
        self.stream.close()
        self.ours.close()

    def end(self) -> None:
        self.hang_up()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()


@contextmanager
def sidecar(folder: Path, server: OrthancServer, *, ready: bool = True) -> Iterator[Sidecar]:
    settings = {"data_dir": str(folder / "data"), "bundles": [str(standin_bundle())]}
    running = Sidecar(folder, settings, {"url": server.url, "username": USER, "password": PASSWORD})
    try:
        if ready:
            server.until(lambda: running.events("orthanc.ready"), 20)
        yield running
    finally:
        running.end()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def test_routes_of_studies_scored_refused_unknown_and_scored_again(server: OrthancServer, tmp_path: Path) -> None:
    with sidecar(tmp_path, server) as running:
        assert running.ask("GET", "studies", NOBODY)[0] == 404
        assert running.ask("POST", "studies", "..", "score")[0] == 404
        assert running.ask("GET", "nonsense")[0] == 404
        files = [write(film, tmp_path / f"{i}.dcm") for i, film in enumerate((dx_bilateral(), mr_knee()[0]))]
        knees, slices = (server.put(file)["ParentStudy"] for file in files)
        status, fresh = running.ask("GET", "studies", knees)
        assert (status, fresh["state"], fresh["revisions"]) == (200, "unknown", [])
        assert "has not looked" in fresh["summary"]
        assert running.ask("POST", "studies", knees, "score")[0] == 202  # at once, not when it is stable

        def state(study: str) -> str:
            return str(running.ask("GET", "studies", study)[1]["state"])

        server.until(lambda: state(knees) == "done" and state(slices) == "done", 60)
        scored = running.ask("GET", "studies", knees)[1]
        assert scored["status"] == "scored"
        assert {knee["side"] for knee in scored["revisions"][0]["result"]["knees"]} == {"L", "R"}
        assert scored["summary"].startswith("Right knee: Kellgren-Lawrence grade")
        assert [item["kind"] for item in scored["revisions"][0]["objects"]] == ["heatmap", "heatmap", "report"]
        nothing = running.ask("GET", "studies", slices)[1]
        assert nothing["status"] == "nothing_to_score"
        assert "MR Image Storage" in nothing["summary"]
        assert nothing["revisions"][0]["objects"] == []
        by_uid = running.ask("GET", "studies", scored["study"])[1]
        assert by_uid["orthanc_id"] == knees

        stored = server.until(lambda: (n := server.get("/statistics")["CountInstances"]) == 5 and n, 30)
        report = scored["revisions"][0]["objects"][-1]
        (found,) = server.session.post(f"{server.url}/tools/lookup", data=report["sop_uid"]).json()
        server.session.delete(f"{server.url}{found['Path']}").raise_for_status()
        assert running.ask("POST", "studies", knees, "score")[1]["revision"] == 2
        server.until(lambda: state(knees) == "done" and server.get("/statistics")["CountInstances"] == stored, 60)
        back = server.session.post(f"{server.url}/tools/lookup", data=report["sop_uid"]).json()
        assert [entry["ID"] for entry in back] == [found["ID"]]

        told = running.ask("GET", "status")[1]
        assert told["jobs"] == {"queued": 0, "running": 0, "done": 3, "dead": 0, "superseded": 0}
        assert told["orthanc"]["error"] is None and told["orthanc"]["version"] == server.get("/system")["Version"]
        assert [child["name"] for child in told["children"]] == ["worker-1", "deliverer"]
        assert all(child["running"] for child in told["children"])
        assert told["bundles"][0]["synthetic"] is True
        text = running.log.read_text() + json.dumps(told)
        assert PASSWORD not in text and "Authorization" not in text
        for process in psutil.Process(running.process.pid).children():
            assert PASSWORD not in " ".join(process.cmdline())


def test_the_end_of_orthanc_is_the_end_of_all(server: OrthancServer, tmp_path: Path) -> None:
    with sidecar(tmp_path, server) as running:
        running.ask("GET", "status")
        server.until(lambda: len(running.events("child.started")) == 2, 20)
        children = psutil.Process(running.process.pid).children()
        running.hang_up()
        assert running.process.wait(30) == 0
        assert running.events("orthanc.stopped")
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_the_next_sidecar_waits_for_the_one_before(server: OrthancServer, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with hold(tmp_path / "data"):
            running = stack.enter_context(sidecar(tmp_path, server, ready=False))
            status, body = running.ask("GET", "status")
            assert status == 503 and "starting" in body["error"]
            assert not running.events("orthanc.ready")
        server.until(lambda: running.ask("GET", "status")[0] == 200, 10)
    with hold(tmp_path / "data"), sidecar(tmp_path, server, ready=False) as waiting:
        waiting.hang_up()
        waiting.process.wait(10)
        assert "another service" in waiting.events("process.failed")[0]["error"]


@pytest.mark.parametrize("section", [{"workers": {"count": -1}}, {"completeness": 5}, {"orthanc": {"url": "ftp://x"}}])
def test_wrong_settings_end_with_status_2_and_a_line(server: OrthancServer, tmp_path: Path, section: Any) -> None:
    running = Sidecar(tmp_path, section, {"url": server.url})
    assert running.process.wait(30) == 2
    (line,) = running.events("process.failed")
    assert line["level"] == "critical"
    assert next(iter(section)) in line["error"]
    running.hang_up()


def test_an_orthanc_that_is_away_is_waited_for_and_told(tmp_path: Path) -> None:
    section = {"data_dir": str(tmp_path / "data"), "workers": {"count": 0}}
    running = Sidecar(tmp_path, section, {"url": f"http://127.0.0.1:{free_port()}"})
    try:
        end = time.monotonic() + 20
        while "cannot be reached" not in str(running.ask("GET", "status")[1].get("orthanc")):
            assert time.monotonic() < end
            time.sleep(0.1)
        status, body = running.ask("GET", "studies", NOBODY)
        assert status == 503 and "cannot be reached" in body["error"]
    finally:
        running.end()


def test_alone_against_any_orthanc(server: OrthancServer, tmp_path: Path) -> None:
    config = tmp_path / "genu.toml"
    config.write_text(
        f'data_dir = "{tmp_path / "data"}"\nbundles = ["{standin_bundle()}"]\n'
        f'[orthanc]\nurl = "{server.url}"\nusername = "{USER}"\npassword = "{PASSWORD}"\n'
    )
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "plugin.cli", "orthanc", "--config", str(config)]
        process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
    try:
        server.until(lambda: b"orthanc.following" in (tmp_path / "log").read_bytes(), 30)
        study = server.put(write(dx_knee("R"), tmp_path / "r.dcm"))["ParentStudy"]
        series = server.until(lambda: len(found := server.get(f"/studies/{study}/series")) == 3 and found, 60)
        assert {entry["MainDicomTags"]["Modality"] for entry in series} == {"DX", "OT", "SR"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    queue = Queue.open(load(config))
    assert queue.snapshot().is_empty
    queue.close()


def test_without_an_orthanc_it_says_what_to_set(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "plugin.cli", "orthanc", "--data-dir", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GENU_")}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 2
    assert "no Orthanc is configured" in finished.stderr
