"""A real Orthanc on loopback, with a fresh storage folder, for tests and benchmarks.

HTTP is closed to other machines (RemoteAccessAllowed) and asks for a password; the DICOM port takes associations from
loopback only, although Orthanc binds every interface.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from plugin.demo import free_port
from tests.plugin.orthanc_trixie import Missing, Program, trixie

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = Path("/usr/share/orthanc/plugins")
USER, PASSWORD = "genu-test", "not-a-secret"
START_SECONDS = 30.0
FIRST_TRIES = 3
STORESCU = {"AET": "STORESCU", "Host": "127.0.0.1", "Port": 104}

# Runs a test with the system's Orthanc (1.10 on Debian 12) and with Debian 13's 1.12: `orthanc(..., program=kind)`.
each_orthanc = pytest.mark.parametrize("kind", ["installed", "trixie"])


def require_orthanc() -> str:
    """Path of the Orthanc program; skips the test where it or a plugin is missing."""
    program = shutil.which("Orthanc", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    plugins = ("libOrthancPython.so", "libOrthancDicomWeb.so")
    if program is None or not all((PLUGINS / name).exists() for name in plugins):
        pytest.skip("needs Orthanc: apt-get install orthanc orthanc-python orthanc-dicomweb")
    return program


def require_program(kind: str) -> Program:
    """The program that a test runs with, "installed" or "trixie"; skips the test where there is none."""
    if kind == "installed":
        return Program((require_orthanc(),), PLUGINS)
    try:
        return trixie()
    except Missing as reason:
        pytest.skip(str(reason))


class OrthancServer:
    """One Orthanc: configuration, process, REST. Start and stop it as often as wanted on the same folder."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        plugins: tuple[str, ...] = (),
        cwd: Path = ROOT,
        program: str = "installed",
    ):
        self.program = require_program(program)
        self.folder, self.cwd = folder, cwd
        self.log = folder / "orthanc.log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.config: dict[str, Any] = {
            "Name": "test",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "Plugins": [str(self.program.plugins / name) for name in plugins],
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "DicomAlwaysAllowStore": False,
            "DicomAlwaysAllowEcho": False,
            "DicomCheckModalityHost": True,
            "DicomModalities": {"storescu": STORESCU},
            "StableAge": 1,
            "OverwriteInstances": True,
        } | dict(config)
        self._take_ports()
        self.config_path = folder / "orthanc.json"
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.auth = (USER, PASSWORD)
        # A kept connection is dropped after a second, maybe as it is used.
        self.session.mount("http://", HTTPAdapter(max_retries=Retry(3, connect=0, status=0, redirect=False)))

    def _take_ports(self) -> None:
        self.http_port, self.dicom_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.config |= {"HttpPort": self.http_port, "DicomPort": self.dicom_port}

    def start(self, environment: Mapping[str, str] | None = None) -> "OrthancServer":
        """Start, and wait for the first answer. At its first start it may find that somebody was quicker to a port."""
        for _ in range(FIRST_TRIES if self.process is None else 0):
            self._launch(environment)
            if self._is_up():
                return self
            self._take_ports()
        self._launch(environment)
        self.until(self._answers, START_SECONDS, "Orthanc does not answer")
        return self

    def _is_up(self) -> bool:
        """Whether it answers, and not: a port was taken."""
        assert self.process is not None
        try:
            return bool(self.until(self._answers, START_SECONDS, "Orthanc does not answer"))
        except AssertionError:
            if self.process.poll() is None or "already in use" not in self.log_text():
                raise
            return False

    def _launch(self, environment: Mapping[str, str] | None) -> None:
        self.config_path.write_text(json.dumps(self.config))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program.command, str(self.config_path)],
                cwd=self.cwd,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | dict(self.program.environment) | dict(environment or {}),
                start_new_session=True,
            )

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"Orthanc ended with {self.process.returncode}: {self.log_text()[-2000:]}"
        try:
            return self.session.get(f"{self.url}/system", timeout=2).ok
        except requests.RequestException:
            return False

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            self.kill()

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def get(self, path: str, **params: Any) -> Any:
        response = self.session.get(self.url + path, params=params, timeout=30)
        response.raise_for_status()
        return response.json()

    def put(self, file: Path) -> dict[str, Any]:
        """Store a file by REST; Orthanc's answer, with the IDs."""
        # Without an empty Expect header Orthanc waits a second.
        answer = self.session.post(f"{self.url}/instances", data=file.read_bytes(), headers={"Expect": ""}, timeout=30)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def send(self, *files: Path) -> None:
        """Store files by DCMTK's storescu."""
        command = ["storescu", "-aec", "ORTHANC", "127.0.0.1", str(self.dicom_port), *map(str, files)]
        subprocess.run(command, check=True, env=os.environ | {"TCP_NODELAY": "1"}, capture_output=True, timeout=300)

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until(self, condition: Callable[[], Any], seconds: float = 60.0, trouble: str = "it did not happen") -> Any:
        """Wait for something true, and give it back."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"{trouble} within {seconds:.0f} s; {self.log_text()[-3000:]}"
            time.sleep(0.1)
        return found


@contextmanager
def orthanc(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *,
    plugins: tuple[str, ...] = (),
    cwd: Path = ROOT,
    program: str = "installed",
) -> Iterator[OrthancServer]:
    """A running Orthanc; killed at the end."""
    server = OrthancServer(folder, config or {}, plugins=plugins, cwd=cwd, program=program)
    try:
        yield server.start()
    finally:
        server.kill()
        server.session.close()
