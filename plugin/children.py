"""Programs that `make demo` and `make viewer` start on this machine, and end again."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from inference.errors import ResourceError

HOST = "127.0.0.1"
STOP_SECONDS = 30.0


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, *, apart: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process; asked to end, then made to. `environment` is all of its environment; ours when None.

    `apart` is for servers with children of their own: Ctrl-C in the terminal does not reach them, so that they end in
    our order, and the kernel asks them to end should we be killed.
    """
    guard = shutil.which("setpriv") if apart else None
    whole = [guard, "--pdeathsig", "TERM", "--", *command] if guard else list(command)
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            whole,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=apart,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def until(condition: Callable[[], object], seconds: float, trouble: str, log: Path) -> None:
    """Wait for something true. Raises ResourceError with the last line of the log when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise ResourceError(f"{trouble} after {seconds:.0f} s: {last_line(log)}")
        time.sleep(0.05)


def connects(port: int) -> bool:
    """Whether something accepts connections on this port of the loopback interface."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def last_line(log: Path) -> str:
    """The end of a log, for a message."""
    return ([*log.read_text(encoding="utf-8", errors="replace").splitlines()] or ["its log is empty"])[-1]
