"""Orthanc's end of the link to the sidecar, the process that has Genu's queue and supervises its workers.

Standard library only, for it runs inside Orthanc. One thread starts the sidecar, starts it again when it ends, and
reads what it says. When Orthanc ends, in whatever way, so does the link, and the sidecar goes. What is spoken over the
link stands in plugin/link.py, which is the other end; log lines come by the sidecar's standard error.
"""

import json
import os
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from plugin.boundary import Boundary
from plugin.sidecar_lines import Lines, LogLine, read_log_line

FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 30.0
HEALTHY_SECONDS = 10.0
STOP_SECONDS = 4.0  # a container gets ten, and Orthanc needs three of them; the queue outlives any end
CHECK_SECONDS = 0.5

MAX_REQUEST_BYTES: Final = 4096
MAX_ANSWER_BYTES = 16 * 1024**2
MAX_LOG_LINE_BYTES = 16 * 1024
MAX_PENDING = 32  # each holds one of Orthanc's HTTP threads
READ_BYTES = 64 * 1024
READS_AT_ONCE = 32  # before the other end is looked at
MISUSE = 2  # the exit status that says: wrong settings


@dataclass(frozen=True)
class Answer:
    """What the sidecar says, or what is said in its place: a status of HTTP, and a value to be sent as JSON."""

    status: int
    body: Any


@dataclass(frozen=True)
class Sidecar:
    """How it is started: command line, its whole environment, working directory, and the first line it is told."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    hello: Mapping[str, Any]


@dataclass
class _Pending:
    """Somebody who waits for an answer."""

    done: threading.Event = field(default_factory=threading.Event)
    answer: Answer | None = None

    def give(self, answer: Answer) -> None:
        self.answer = answer
        self.done.set()


@dataclass
class _Life:
    """One sidecar: what it said last that was an error, and in the end why it is gone."""

    reason: str = "the sidecar ended"
    final: bool = False
    error: str = ""

    def note(self, entry: LogLine) -> None:
        if entry.level in ("error", "critical") and entry.error:
            self.error = entry.error

    def crashed(self, error: Exception) -> None:
        self.reason = f"the link to the sidecar failed: {describe(error)}"

    def not_started(self, program: str, error: OSError) -> None:
        # Anything else, such as no memory or no process left, may mend.
        self.final = isinstance(error, FileNotFoundError | PermissionError)
        self.reason = f"{program} cannot be started: {os.strerror(error.errno or 0)}"

    def ended(self, status: int, program: str) -> None:
        how = f"the sidecar ended with status {status}" if status >= 0 else f"the sidecar died of signal {-status}"
        self.final = status == MISUSE
        if self.error.startswith("ModuleNotFoundError"):
            self.reason = f"Genu is not installed for {program} ({self.error})"
        elif self.final:
            self.reason = self.error or f"{how}; {program} -m plugin.cli --version may say why"
        else:
            self.reason = f"{how}: {self.error}" if self.error else how


def describe(error: BaseException) -> str:
    """An exception as its class and place, never its message: as plugin.logs does, but that takes long to import."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else ""  # noqa: PTH119
    return type(error).__name__ + place


def pause_after(failures: int) -> float:
    """Seconds to wait before a sidecar that ended soon `failures` times in a row is started again."""
    return min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 20))


class SidecarLink:
    """Starts the sidecar and speaks with it. Its methods may be called from any thread, and raise nothing."""

    def __init__(self, sidecar: Sidecar, log: Callable[[str, str], None], *, most_pending: int = MAX_PENDING) -> None:
        """`log` takes a level ("info", "warning", "error" ...) and one line, in the link's own thread.

        `most_pending` is how many requests may wait for an answer at once.
        """
        self._sidecar = sidecar
        self._log = log
        self._most_pending = most_pending
        self._thread = threading.Thread(target=self._run, name="genu-link", daemon=True)
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # guards what follows
        self._socket: socket.socket | None = None  # there while the sidecar can be spoken to
        self._trouble = "Genu is starting"
        self._pending: dict[int, _Pending] = {}
        self._last_id = 0

    @property
    def pid(self) -> int | None:
        """The sidecar's process id while it runs."""
        process = self._process
        return process.pid if process else None

    @property
    def trouble(self) -> str:
        """Why it cannot be spoken to; empty when it can."""
        with self._lock:
            return "" if self._socket is not None else self._trouble

    def start(self) -> None:
        """Start the thread, which starts the sidecar."""
        self._thread.start()

    def nudge(self) -> None:
        """Something is new in Orthanc. Never waits: a nudge that finds no room is lost, for enough of them wait."""
        with self._lock:
            self._send({"type": "nudge"})

    def request(self, method: str, path: Sequence[str], timeout: float) -> Answer:
        """Ask, and wait at most `timeout` seconds: 503 when there is no sidecar, 504 when its answer is late."""
        with self._lock:
            if self._socket is None:
                return _refused(503, self._trouble)
            self._last_id += 1
            number = self._last_id
            room = len(self._pending) < self._most_pending
            if not room or not self._send({"type": "request", "id": number, "method": method, "path": list(path)}):
                return _refused(503, "Genu has more to answer than it can; ask again later")
            waiting = self._pending[number] = _Pending()
        waiting.done.wait(timeout)
        with self._lock:
            self._pending.pop(number, None)
        return waiting.answer or _refused(504, f"Genu did not answer within {timeout:g} seconds")

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End the link, which ends the sidecar; it is killed when it has not gone after `seconds`."""
        self._stopping.set()
        self._hang_up("Genu has stopped")
        if not self._thread.is_alive():
            return
        self._thread.join(seconds)
        process = self._process
        if self._thread.is_alive() and process is not None:
            self._log("warning", f"the sidecar was still there after {seconds:g} seconds, and is killed")
            process.kill()
            self._thread.join(4 * CHECK_SECONDS)

    def _send(self, message: Mapping[str, Any]) -> bool:
        """Whether the whole message found room at once. To be called with the lock."""
        line = json.dumps(message).encode("ascii") + b"\n"
        if self._socket is None or len(line) > MAX_REQUEST_BYTES:
            return False
        try:
            # Without a signal: Orthanc could die of SIGPIPE. So short a message goes whole or not at all.
            return self._socket.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(line)
        except OSError:
            return False

    def _hang_up(self, trouble: str) -> None:
        """From now on there is nobody to speak to, for this reason."""
        with self._lock:
            self._trouble = trouble
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
                self._socket = None
            for waiting in self._pending.values():
                waiting.give(_refused(503, trouble))
            self._pending.clear()

    # From here on everything runs in the link's thread.

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began, life = time.monotonic(), _Life()
            with Boundary(life.crashed):
                self._live(life)
            if self._stopping.is_set():
                return
            if life.final:
                self._hang_up(f"Genu does not run: {life.reason}. Mend it and start Orthanc again")
                self._log("error", self.trouble)
                return
            failures = 1 if time.monotonic() - began >= HEALTHY_SECONDS else failures + 1
            pause = pause_after(failures)
            self._hang_up(f"Genu will be started again: {life.reason}")
            self._log("error", f"{life.reason}; it is started again in {pause:g} seconds")
            self._stopping.wait(pause)

    def _live(self, life: _Life) -> None:
        """One sidecar from its start to its end."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = self._start(theirs, life)
            if process is None:
                return
            self._process = process
            try:
                self._converse(ours, process, life)
            finally:
                self._hang_up("Genu's sidecar has just ended")
                if process.poll() is None:  # it is of no use without the link
                    process.kill()
                status = process.wait()
                self._process = None
        life.ended(status, self._sidecar.command[0])

    def _start(self, theirs: socket.socket, life: _Life) -> subprocess.Popen[bytes] | None:
        # No preexec_fn: Orthanc has many threads. A session of its own: Ctrl-C in Orthanc's terminal is for Orthanc.
        try:
            return subprocess.Popen(
                list(self._sidecar.command),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=self._sidecar.folder,
                env=dict(self._sidecar.environment),
                close_fds=True,
                start_new_session=True,
            )
        except OSError as error:
            life.not_started(self._sidecar.command[0], error)
            return None

    def _converse(self, ours: socket.socket, process: subprocess.Popen[bytes], life: _Life) -> None:
        """Say hello, then read answers and log lines until it closes the link."""
        assert process.stderr is not None  # noqa: S101  a pipe, as asked for
        ours.setblocking(False)
        os.set_blocking(process.stderr.fileno(), False)
        hello = memoryview(json.dumps({"type": "hello", **self._sidecar.hello}).encode("ascii") + b"\n")
        answers, lines = Lines(MAX_ANSWER_BYTES), Lines(MAX_LOG_LINE_BYTES)
        with process.stderr as errors, selectors.DefaultSelector() as selector:
            selector.register(ours, selectors.EVENT_READ | selectors.EVENT_WRITE)
            selector.register(errors, selectors.EVENT_READ)
            talking = True
            while talking:
                for key, ready in selector.select(CHECK_SECONDS):
                    if key.fileobj is errors:
                        if not self._read_log(errors.fileno(), lines, life):
                            selector.unregister(errors)
                    elif ready & selectors.EVENT_WRITE:
                        hello = hello[_sent(ours, hello) :]
                        if not hello:
                            selector.modify(ours, selectors.EVENT_READ)
                            self._open(ours)
                    else:
                        talking = self._read_answers(ours.fileno(), answers)
                if self._stopping.is_set() and process.poll() is not None:
                    talking = False
            with suppress(subprocess.TimeoutExpired):  # its last words are written before its end
                process.wait(STOP_SECONDS)
            self._read_log(errors.fileno(), lines, life)

    def _open(self, ours: socket.socket) -> None:
        with self._lock:
            if self._stopping.is_set():
                with suppress(OSError):
                    ours.shutdown(socket.SHUT_WR)
            else:
                self._socket = ours

    def _read_answers(self, descriptor: int, answers: Lines) -> bool:
        """Hand out what has come; False at the end."""
        chunk: bytes | None = b""
        for _ in range(READS_AT_ONCE):
            if not (chunk := _read(descriptor)):
                break
            for line in answers.feed(chunk):
                self._take_answer(line)
        return chunk != b""

    def _take_answer(self, line: bytes | None) -> None:
        try:
            message = json.loads(line or b"")
            number, answer = int(message["id"]), Answer(int(message["status"]), message["body"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            self._log("error", "the sidecar said something that is no answer")
            return
        with self._lock:
            waiting = self._pending.pop(number, None)
        if waiting is not None:  # else it came too late
            waiting.give(answer)

    def _read_log(self, descriptor: int, lines: Lines, life: _Life) -> bool:
        """Pass on what has come; False at the end."""
        chunk: bytes | None = b""
        for _ in range(READS_AT_ONCE):
            if not (chunk := _read(descriptor)):
                break
            for line in lines.feed(chunk):
                entry = read_log_line(line)
                life.note(entry)
                self._log(entry.level, entry.text)
        return chunk != b""


def _refused(status: int, reason: str) -> Answer:
    return Answer(status, {"error": reason})


def _sent(line: socket.socket, message: memoryview) -> int:
    """How much of it went; everything when nobody is there to take it, which the reading end will notice."""
    try:
        return line.send(message, socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return 0
    except OSError:
        return len(message)


def _read(descriptor: int) -> bytes | None:
    """What is there now; None when that is nothing, b"" at the end."""
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""
