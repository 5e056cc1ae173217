"""`genu orthanc`: serves one Orthanc: follows its changes, and supervises the children that score and deliver.

Started by Orthanc's plugin with --link; by hand against any Orthanc that it can reach:

    python -m plugin.cli orthanc --config genu.toml        # with a section [orthanc]: url, username, password
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from inference.errors import ConfigurationError, RetryableError
from plugin import fetching, logs
from plugin.changes import Follower
from plugin.jobs import Queue
from plugin.lifetime import Lifetime
from plugin.link import Hello, Link
from plugin.orthanc_api import OrthancApi
from plugin.routes import Reply, Routes
from plugin.routing import from_archive
from plugin.settings import Settings
from plugin.storage import hold
from plugin.supervisor import Child, children, stop_children

_log = logging.getLogger(__name__)

HOLD_SECONDS = 60.0  # how long the sidecar of an Orthanc that was killed may need to end
TEND_SECONDS = 0.2
RETRY_SECONDS = 5.0


class Following:
    """The thread that follows Orthanc; a fault of Orthanc or of our disk is waited out."""

    def __init__(self, hello: Hello, queue: Queue) -> None:
        settings = hello.settings
        if settings.orthanc is None:
            raise ConfigurationError(
                "no Orthanc is configured: give a section `orthanc` with url, username and password"
            )
        self._hello, self._orthanc = hello, settings.orthanc
        self._api = OrthancApi(settings.orthanc)
        self._follower = Follower(
            self._api,
            queue,
            clock=time.time,
            quiet_seconds=settings.completeness.quiet_seconds,
            source=from_archive(settings),
            identity=hello.database,
        )
        self._wake = threading.Event()
        self._stopping = False
        self._version = ""
        self._error: str | None = "not connected yet"
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin; it ends with `stop`."""
        self._thread.start()

    def nudge(self) -> None:
        """Look at once."""
        self._wake.set()

    def stop(self) -> None:
        """End, after the step in hand."""
        self._stopping = True
        self._wake.set()
        self._thread.join(RETRY_SECONDS)

    @property
    def is_alive(self) -> bool:
        """Whether it follows; when not, it crashed and said so in the log."""
        return self._thread.is_alive()

    def told(self) -> dict[str, Any]:
        """How far it is, for /genu/status."""
        return {
            "url": self._api.url,
            "version": self._version,
            "cursor": self._follower.cursor,
            "last_change": self._follower.last_change,
            "waiting_instances": self._follower.waiting,
            "stable_age": self._hello.stable_age,
            "error": self._error,
        }

    def _run(self) -> None:
        begun = False
        while not self._stopping:
            pause = self._orthanc.poll_seconds
            self._wake.clear()
            try:
                if not begun:
                    self._version = self._api.version()
                    self._follower.begin(since=self._hello.since, existing=self._orthanc.score_existing)
                    logs.event(_log, "orthanc.following", url=self._api.url, version=self._version)
                    begun = True
                self._follower.step()
                self._tell(None)
            except RetryableError as error:
                self._tell(str(error))
                pause = RETRY_SECONDS
            self._wake.wait(pause)

    def _tell(self, error: str | None) -> None:
        """Log trouble once, not at every attempt."""
        if error is not None and error != self._error:
            logs.event(_log, "orthanc.unavailable", level=logging.WARNING, error=error)
        self._error = error


def run_linked() -> int:
    """As Orthanc's plugin starts it. Raises ConfigurationError."""
    link = Link()
    hello = link.hello()
    logs.configure(hello.settings.log_level)
    return run(hello, link)


def run_alone(settings: Settings) -> int:
    """By hand, against the Orthanc of the settings. Raises ConfigurationError without one."""
    return run(Hello(settings, since=None, database=""), None)


class Desk:
    """Where requests and nudges go: to the service once it runs."""

    def __init__(self) -> None:
        self.routes: Routes | None = None
        self.following: Following | None = None

    def answer(self, method: str, path: list[str]) -> Reply:
        """The reply to a request of the plugin."""
        if self.routes is None:
            return Reply(503, {"error": "Genu is starting; when this lasts, another service holds its data folder"})
        return self.routes.answer(method, path)

    def nudge(self) -> None:
        """Something became stable."""
        if self.following is not None:
            self.following.nudge()


def run(hello: Hello, link: Link | None) -> int:
    """Serve until SIGTERM, SIGINT or the end of the link; the exit status of the process.

    Raises ConfigurationError when the data folder or the destinations cannot be used.
    """
    settings = hello.settings
    lifetime = Lifetime().install()
    desk = Desk()
    served = link.start(desk.answer, desk.nudge) if link else None

    def over() -> bool:
        return lifetime.over() or (served is not None and not served.is_alive())

    with _service(hello, over) as (queue, following, family):
        desk.following = following
        desk.routes = Routes(settings, queue, lambda: _told(following, family))
        logs.event(
            _log,
            "orthanc.ready",
            data_dir=str(settings.data_dir.absolute()),
            destinations=[target.name for target in settings.delivery_targets],
        )
        while not over():
            if not following.is_alive:
                return 1
            for child in family:
                child.tend(time.monotonic())
            lifetime.wait(TEND_SECONDS)
    logs.event(_log, "orthanc.stopped")
    return 0


@contextlib.contextmanager
def _service(hello: Hello, over: Callable[[], bool]) -> Iterator[tuple[Queue, Following, list[Child]]]:
    settings = hello.settings
    with contextlib.ExitStack() as stack:
        stack.enter_context(hold(settings.data_dir, HOLD_SECONDS, over))
        fetching.drop_leftovers(settings.data_dir)
        queue = Queue.open(settings)
        stack.callback(queue.close)
        following = Following(hello, queue)
        family = children(settings)
        stack.callback(stop_children, family)
        following.start()
        stack.callback(following.stop)
        yield queue, following, family


def _told(following: Following, family: list[Child]) -> dict[str, Any]:
    return {
        "orthanc": following.told(),
        "children": [{"name": child.role.name, "running": child.pid is not None, "pid": child.pid} for child in family],
    }
