"""Structured logs: one JSON object a line on stderr, with an action, UIDs and durations; never a patient's identity.

Only `event` writes free fields, and its values are ours. Everything else that reaches a handler (pynetdicom, pydicom,
warnings, uncaught exceptions) may quote data sets: of it only who spoke, how loud, and the place in the code are kept.
"""

import json
import logging
import re
import sys
import threading
import traceback
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TextIO

Value = str | int | float | bool | None | tuple[str, ...] | list[str]

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_FIELDS = "genu_fields"
_OURS = ("plugin", "inference", "dicom_templates", "training")


def event(logger: logging.Logger, action: str, *, level: int = logging.INFO, **fields: Value) -> None:
    """Log `action` ("study.scored") with fields. Names that end in `_uid` carry UIDs; anything else there is hashed."""
    if logger.isEnabledFor(level):
        # pynetdicom and others may hold the name "message" and "name": our fields travel under one key of their own.
        logger.log(level, action, extra={_FIELDS: fields}, stacklevel=2)


def safe_uid(value: str) -> str:
    """The value when it has the form of a UID (PS3.5 9.1), else a short digest: a peer may put anything into a UID."""
    if len(value) <= 64 and _UID.fullmatch(value):
        return value
    return "not-a-uid-" + sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def frames(trace: TracebackType | None, limit: int = 12) -> list[str]:
    """The innermost frames as "file:line function": no source lines, no values."""
    summary = traceback.extract_tb(trace)[-limit:]
    return [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in summary]


def describe(error: BaseException) -> str:
    """An exception as text that may be stored and shown: its class and the innermost place, never its message."""
    where = frames(error.__traceback__, limit=1)
    return type(error).__name__ + (f" at {where[0]}" if where else "")


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, action, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, ASCII only."""
        time = datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds")
        line: dict[str, Value] = {"time": time, "level": record.levelname.lower()}
        fields = getattr(record, _FIELDS, None)
        if fields is None:
            line |= {"action": "library.message", "logger": record.name, "at": f"{record.filename}:{record.lineno}"}
        else:
            line["action"] = record.getMessage()
            line |= {name: _checked(name, value) for name, value in fields.items()}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
            line["frames"] = frames(record.exc_info[2])
        return json.dumps(line, ensure_ascii=True, default=str)


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Make this process log as JSON lines to `stream` (stderr), and nothing in any other way."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    # pynetdicom installs a handler of its own when asked to, and its DEBUG dumps whole messages.
    for name in ("pynetdicom", "pydicom", "highdicom"):
        library = logging.getLogger(name)
        library.setLevel(logging.ERROR)
        library.handlers.clear()
        library.propagate = True
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # else a formatting error prints the record's arguments
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    _log = logging.getLogger("plugin")
    event(_log, "process.crashed", level=logging.CRITICAL, error=kind.__name__, frames=frames(trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    _log = logging.getLogger("plugin")
    name = args.exc_type.__name__
    event(_log, "thread.crashed", level=logging.CRITICAL, error=name, frames=frames(args.exc_traceback))


def _checked(name: str, value: Value) -> Value:
    if name.endswith("_uid") and isinstance(value, str):
        return safe_uid(value)
    return value


def _short(filename: str) -> str:
    """The last two parts of a path: enough to find it, and no user's home folder."""
    return "/".join(Path(filename).parts[-2:])
