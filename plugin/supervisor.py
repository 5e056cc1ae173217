"""`genu listen`: the listener, the sweep that finds whole studies, and the child processes that score and deliver.

Children are started again when they end, with a growing pause while they end soon; they die with this process, however
it ends. On SIGTERM or SIGINT associations may finish first, then the children are asked to stop.

    python -m plugin.cli listen --data-dir genu-data --port 11112
"""

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from inference.errors import RetryableError
from plugin import logs
from plugin.association import Services
from plugin.commitment import Commitment
from plugin.jobs import Queue
from plugin.lifetime import Lifetime
from plugin.listener import Listener
from plugin.reception import Reception
from plugin.settings import CStoreDestination, Settings, dumps
from plugin.storage import InstanceStore
from plugin.tls import client_context

_log = logging.getLogger(__name__)

SWEEP_SECONDS = 0.2
STOP_SECONDS = 20.0  # for associations to finish, then again for children
FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 30.0
HEALTHY_SECONDS = 10.0

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Role:
    """What a child does: a command of `genu`, and a name that stays the same when it is started again."""

    command: str
    name: str


def roles(settings: Settings) -> tuple[Role, ...]:
    """The children of an installation."""
    workers = tuple(Role("worker", f"worker-{number}") for number in range(1, settings.workers.count + 1))
    return (*workers, Role("deliver", "deliverer"))


def child_command(role: Role, parent: int) -> list[str]:
    """The command line of a child; the settings come by its standard input, for other users see command lines."""
    program = [sys.executable, "-m", "plugin.cli", role.command]
    return [*program, "--config-stdin", "--name", role.name, "--parent", str(parent)]


def children(settings: Settings) -> list["Child"]:
    """The children of an installation, not started yet."""
    given = dumps(settings).encode("utf-8")
    return [Child(role, child_command(role, os.getpid()), given) for role in roles(settings)]


def pause_after(failures: int) -> float:
    """Seconds to wait before a child that ended soon `failures` times in a row is started again."""
    return min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 20))


def _die_with(parent: int) -> Callable[[], None]:
    """Runs in the child between fork and exec: the kernel kills it when the thread that started it ends."""

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before prctl
            os._exit(1)

    return prepare


class Child:
    """One supervised process. All methods are to be called from one thread, which has to outlive the child."""

    def __init__(self, role: Role, command: list[str], given: bytes = b"") -> None:
        """`given` is what it reads from its standard input."""
        self.role = role
        self._command = command
        self._given = given
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._failures = 0
        self._next_start = 0.0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process else None

    def tend(self, now: float) -> None:
        """Start the process when it does not run and its pause is over; note when it has ended. `now` is monotonic."""
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            self._process = None
            self._failures = 1 if now - self._started >= HEALTHY_SECONDS else self._failures + 1
            pause = pause_after(self._failures)
            self._next_start = now + pause
            logs.event(
                _log, "child.ended", level=logging.WARNING, child=self.role.name, status=status, pause=round(pause, 2)
            )
        if now >= self._next_start:
            self._start(now)

    def _start(self, now: float) -> None:
        # A session of its own: Ctrl-C in a terminal reaches only the supervisor, which stops the rest in order.
        # preexec_fn is the only way to PR_SET_PDEATHSIG; it calls nothing but prctl and getppid.
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509
            )
        except OSError as error:  # no memory or no process left: reception goes on, and this is tried again
            self._failures += 1
            self._next_start = now + pause_after(self._failures)
            logs.event(
                _log,
                "child.not_started",
                level=logging.ERROR,
                child=self.role.name,
                error=os.strerror(error.errno or 0),
            )
            return
        self._started = now
        self._hand_over(self._process)
        logs.event(_log, "child.started", child=self.role.name, pid=self._process.pid)

    def _hand_over(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError), process.stdin or contextlib.nullcontext() as stream:
            if stream is not None:
                stream.write(self._given)

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        if self._process is not None:
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Wait for the end of the process; kill it when it does not come."""
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            logs.event(_log, "child.killed", level=logging.WARNING, child=self.role.name)
            self._process.kill()
            self._process.wait()
        self._process = None


def stop_children(family: Sequence[Child]) -> None:
    """Ask all to stop, and wait for them together."""
    for child in family:
        child.ask_to_stop()
    stop = time.monotonic() + STOP_SECONDS
    for child in family:
        child.wait(max(0.0, stop - time.monotonic()))


@contextlib.contextmanager
def reception(settings: Settings) -> Iterator[tuple[Listener, Queue]]:
    """A listener that accepts, and the queue it fills; both are closed on the way out. Raises ConfigurationError."""
    with contextlib.ExitStack() as stack:
        store = InstanceStore(settings.data_dir, min_free_bytes=settings.listener.min_free_bytes)
        stack.callback(store.close)
        queue = Queue.open(settings)
        stack.callback(queue.close)
        removed = store.clean(queue.known_paths(), most=settings.listener.max_associations)
        if removed:
            logs.event(_log, "storage.cleaned", removed=removed)
        queue.open_reception(time.time())
        commitment = Commitment(queue, settings.listener.ae_title, settings.delivery_targets)
        listener = Listener(settings, Services(Reception(store, queue), commitment))
        commitment.start()
        stack.callback(commitment.stop)
        listener.start()
        stack.callback(listener.stop, STOP_SECONDS)
        yield listener, queue


def _announce(settings: Settings, listener: Listener) -> None:
    """The line that says that the service is up: scripts and tests wait for it."""
    logs.event(
        _log,
        "listener.ready",
        host=settings.listener.host,
        port=listener.port,
        ae_title=settings.listener.ae_title,
        tls=settings.listener.tls is not None,
        data_dir=str(settings.data_dir),
        destinations=[target.name for target in settings.delivery_targets],
    )


def _sweep(queue: Queue) -> None:
    try:
        queue.sweep(time.time())
    except RetryableError as error:
        logs.event(_log, "sweep.failed", level=logging.ERROR, error=str(error))


def _check_certificates(settings: Settings) -> None:
    """Raises ConfigurationError for a destination that can never be called; the listener checks its own."""
    for target in settings.delivery_targets:
        if isinstance(target, CStoreDestination) and target.tls is not None:
            client_context(target.tls)


def run_listen(settings: Settings) -> int:
    """Run the service until SIGTERM or SIGINT; the exit status of the process. Call it from the main thread.

    Raises ConfigurationError when the port, the folder or the certificates cannot be used.
    """
    lifetime = Lifetime().install()
    _check_certificates(settings)
    family = children(settings)
    status = 0
    with reception(settings) as (listener, queue):
        _announce(settings, listener)
        try:
            while not lifetime.wait(SWEEP_SECONDS):
                for child in family:
                    child.tend(time.monotonic())
                _sweep(queue)
                if not listener.is_alive:
                    status = 1
                    break
            logs.event(_log, "listener.stopping", associations=listener.associations)
            listener.stop(STOP_SECONDS)
        finally:
            stop_children(family)
    logs.event(_log, "listener.stopped", status=status)
    return status
