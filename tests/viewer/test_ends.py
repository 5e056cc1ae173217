"""How `make viewer` ends: nothing stays behind, and what is missing is said in a sentence."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from plugin.viewer_servers import ohif_folder
from tests.phantoms import dx_knee, write
from tests.viewer.conftest import ROOT, require_servers, started


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def gone(processes: list[psutil.Process], seconds: float = 30.0) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    require_servers()
    write(dx_knee("L", identity="viewer-ends"), tmp_path / "samples" / "knee.dcm")
    return tmp_path / "samples"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_in_order(tmp_path: Path, samples: Path, number: signal.Signals) -> None:
    with started(tmp_path / "out", "--samples", str(samples), until="stored") as viewer:
        others = family(viewer.process.pid)
        assert {other.name() for other in others} >= {"nginx", "Orthanc"}
        viewer.process.send_signal(number)
        assert viewer.process.wait(60) == 0
        assert gone(others)


def test_kill_9_leaves_nothing_behind(tmp_path: Path, samples: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv of util-linux")
    with started(tmp_path / "out", "--samples", str(samples), until="stored") as viewer:
        others = family(viewer.process.pid)
        viewer.process.kill()
        assert gone(others)


def test_the_end_of_a_server_is_told(tmp_path: Path, samples: Path) -> None:
    with started(tmp_path / "out", "--samples", str(samples), until="stored") as viewer:
        (nginx,) = [
            other
            for other in family(viewer.process.pid)
            if other.name() == "nginx" and other.ppid() == viewer.process.pid
        ]
        nginx.terminate()
        rest, _ = viewer.process.communicate(timeout=60)
        assert viewer.process.returncode == 1
        assert "a server has ended" in rest and "nginx.log" in rest


def run(*options: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "plugin.viewer", *map(str, options)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_port_that_is_taken_is_told(tmp_path: Path, samples: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--samples", samples, "--out", tmp_path / "out", "--port", port)
    assert done.returncode == 1
    assert f"port {port}" in done.stdout and "Traceback" not in done.stdout + done.stderr


def test_what_is_missing_is_told(tmp_path: Path, samples: Path) -> None:
    out = ("--out", tmp_path / "out")
    begun = time.monotonic()
    for options, words in {
        ("--samples", tmp_path / "nowhere"): "no DICOM file below",
        ("--samples", samples, "--ohif", tmp_path): ".ci/setup tools viewer",
        ("--samples", samples, "--bundle", tmp_path): "bundle",
    }.items():
        done = run(*options, *out)
        assert done.returncode == 1 and words in done.stdout and not done.stderr, done
    assert time.monotonic() - begun < 60


def test_the_pinned_version_is_what_setup_unpacks() -> None:
    version, digest = (ROOT / "plugin" / "ohif" / "pinned.txt").read_text().split()
    assert ohif_folder().name == f"ohif-{version}" and len(digest) == 128
