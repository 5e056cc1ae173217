"""A bundle for tests that need scoring but no true grades, and the programs of the service as real processes."""

import atexit
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.plugin.receiving import wait_until

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def standin_bundle() -> Path:
    """A small random bundle, made once a test run."""
    from training.standin import write_random_bundle

    folder = Path(tempfile.mkdtemp(prefix="genu-standin-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_random_bundle(folder / "bundle")


def genu(*arguments: object, seconds: float = 180.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "plugin.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)


@contextmanager
def service(data_dir: Path, *options: object, log: Path) -> Iterator[int]:
    """`genu listen` as a process of its own; yields its port. Stops it in order and expects a clean end."""
    command = [sys.executable, "-m", "plugin.cli", "listen", "--data-dir", str(data_dir), "--port", "0"]
    with log.open("wb") as stream:
        command += map(str, options)
        process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream)
        try:
            wait_until(lambda: bool(logged(log, "listener.ready")) or process.poll() is not None, 60)
            assert process.poll() is None, log.read_text()
            yield int(logged(log, "listener.ready")[-1]["port"])
            process.terminate()
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def logged(log: Path, action: str) -> list[dict[str, Any]]:
    """The log lines of one action; every line must be JSON."""
    lines: Sequence[str] = log.read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["action"] == action]
