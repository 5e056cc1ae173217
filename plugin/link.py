"""The sidecar's end of its link with Orthanc's plugin: JSON objects, one a line, over fd 0, a socket.

    plugin -> sidecar   {"type": "hello", "genu": {...}, "orthanc": {"url", "token"}, "since": 0.0, "database": ""}
                        {"type": "nudge"}       something became stable
                        {"type": "request", "id": 7, "method": "GET", "path": ["status"]}
    sidecar -> plugin   {"type": "answer", "id": 7, "status": 200, "body": {...}}

When the other end is gone, so is Orthanc. plugin/sidecar_link.py is that other end.
"""

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inference.errors import ConfigurationError, GenuError
from plugin import logs
from plugin.boundary import Boundary
from plugin.routes import Reply
from plugin.settings import Settings, from_orthanc

_log = logging.getLogger(__name__)

LINE_BYTES = 1024**2


@dataclass(frozen=True)
class Hello:
    """What the plugin says first: `since` when Genu runs in this Orthanc (POSIX), its StableAge in seconds if known."""

    settings: Settings
    since: float | None
    database: str
    stable_age: int | None = None


class Link:
    """Reads lines from the socket at `descriptor` and answers requests."""

    def __init__(self, descriptor: int = 0) -> None:
        """Raises ConfigurationError when there is no socket."""
        try:
            self._socket = socket.socket(fileno=os.dup(descriptor))
            self._stream = self._socket.makefile("rb")
        except OSError as error:
            raise ConfigurationError("--link is for Orthanc's plugin, which starts `genu orthanc` itself") from error

    def hello(self) -> Hello:
        """The first line. Raises ConfigurationError when it is none, or when the settings in it are wrong."""
        line = self._line()
        if line.get("type") != "hello":
            raise ConfigurationError(
                "Orthanc's plugin did not say hello: it and this program are of different versions"
            )
        section, known = line.get("genu"), line.get("orthanc")
        if not isinstance(section, Mapping) or not isinstance(known, Mapping):
            raise ConfigurationError(
                'the "Genu" section of Orthanc\'s configuration is no table: write {"name": value}'
            )
        since, age = line.get("since"), line.get("stable_age")
        return Hello(
            settings=from_orthanc(section, known),
            since=None if since is None else float(since),
            database=str(line.get("database", "")),
            stable_age=age if isinstance(age, int) else None,
        )

    def serve(self, answer: Callable[[str, list[str]], Reply], nudge: Callable[[], None]) -> None:
        """Until the other end is gone."""
        while line := self._line():
            if line.get("type") == "nudge":
                nudge()
            elif line.get("type") == "request":
                self._send({"type": "answer", "id": line.get("id"), **_reply(line, answer)})

    def start(self, answer: Callable[[str, list[str]], Reply], nudge: Callable[[], None]) -> threading.Thread:
        """`serve` in a thread; it ends when the other end is gone."""
        thread = threading.Thread(target=self.serve, args=(answer, nudge), name="link", daemon=True)
        thread.start()
        return thread

    def _line(self) -> dict[str, Any]:
        """The next object, empty at the end; a line that is too long or no object ends the link."""
        try:
            raw = self._stream.readline(LINE_BYTES + 1)
            line = json.loads(raw) if raw.endswith(b"\n") else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return line if isinstance(line, dict) else {}

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(message).encode("ascii") + b"\n")
        except OSError:
            logs.event(_log, "link.lost", level=logging.WARNING)


def _reply(line: dict[str, Any], answer: Callable[[str, list[str]], Reply]) -> dict[str, Any]:
    errors: list[Exception] = []
    reply = Reply(500, {})
    with Boundary(errors.append):
        reply = answer(str(line["method"]), [str(part) for part in line["path"]])
    if errors:
        error = errors[0]
        text = str(error) if isinstance(error, GenuError) else logs.describe(error)
        logs.event(_log, "request.failed", level=logging.ERROR, error=text, frames=logs.frames(error.__traceback__))
        reply = Reply(503 if isinstance(error, GenuError) else 500, {"error": text})
    return {"status": reply.status, "body": reply.body}
