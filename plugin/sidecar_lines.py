"""What comes from the sidecar, as lines of bounded length. Standard library only, for it runs inside Orthanc.

Our own log lines (plugin.logs) are passed on; any other may quote a data set, so only that it came is told.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '[A-Za-z0-9_.]+'")


class Lines:
    """Cuts a stream into lines of at most `most` bytes; of a longer one only that it came is kept."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = bytearray()
        self._too_long = False

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """The lines that are whole now, without their ends; None for each that was too long."""
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            self._keep(part)
            yield None if self._too_long else bytes(self._rest)
            self._rest.clear()
            self._too_long = False
        self._keep(rest)

    def _keep(self, part: bytes) -> None:
        self._too_long = self._too_long or len(self._rest) + len(part) > self._most
        if not self._too_long:
            self._rest += part


@dataclass(frozen=True)
class LogLine:
    """One line for Orthanc's log; `error` is the sentence in it that says what went wrong, if there is one."""

    level: str
    text: str
    error: str = ""


def read_log_line(line: bytes | None) -> LogLine:
    """A line of the sidecar's standard error."""
    try:
        entry = json.loads(line or b"")
        level, action = entry["level"], entry["action"]
        if level not in LEVELS or not isinstance(action, str):
            return _unknown(line)
    except (ValueError, TypeError, KeyError, RecursionError):
        return _unknown(line)
    error = entry.get("error")
    return LogLine(level, json.dumps(entry, ensure_ascii=True), error if isinstance(error, str) else "")


def _unknown(line: bytes | None) -> LogLine:
    text = (line or b"").decode("ascii", "replace").strip()
    if _NO_MODULE.fullmatch(text):  # from before Genu ran; it quotes nobody
        return LogLine("error", text, text)
    return LogLine("warning", json.dumps({"level": "warning", "action": "library.message"}))
