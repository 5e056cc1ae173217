"""Logs: JSON lines with actions and UIDs; what libraries say about data sets stays out."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from plugin import logs

CANARY = "Zebra^Canary"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A logger's worth of JSON lines, without touching the process's own logging."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines())
    logger = logging.getLogger("genu-test")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.removeHandler(handler)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_with_action_and_fields(stream: io.StringIO) -> None:
    logger = logging.getLogger("genu-test")
    logs.event(logger, "study.scored", study_uid="1.2.3", seconds=0.5, refusals=["not_a_knee"], name="worker\n1")
    (line,) = lines(stream)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "action": "study.scored",
        "study_uid": "1.2.3",
        "seconds": 0.5,
        "refusals": ["not_a_knee"],
        "name": "worker\n1",
    }
    assert stream.getvalue().count("\n") == 1


def test_a_uid_that_is_none_is_hashed(stream: io.StringIO) -> None:
    logs.event(logging.getLogger("genu-test"), "x", study_uid=CANARY, sop_uid="1." + "2" * 70)
    (line,) = lines(stream)
    assert line["study_uid"].startswith("not-a-uid-")
    assert line["sop_uid"].startswith("not-a-uid-")


def test_messages_of_libraries_are_kept_out(stream: io.StringIO) -> None:
    logger = logging.getLogger("genu-test")
    logger.error("Invalid value for VR PN: %r", CANARY)
    try:
        raise ValueError(CANARY)
    except ValueError:
        logger.exception("cannot decode %s", CANARY)
    first, second = lines(stream)
    assert (first["action"], first["logger"]) == ("library.message", "genu-test")
    assert first["at"].startswith("test_logs.py:")
    assert second["error"].startswith("ValueError at plugin/test_logs.py:")
    assert CANARY not in stream.getvalue()


def test_an_error_is_described_without_its_message() -> None:
    try:
        int(CANARY)
    except ValueError as error:
        assert logs.describe(error).startswith("ValueError at plugin/test_logs.py:")
        assert logs.frames(error.__traceback__)[0].endswith("test_an_error_is_described_without_its_message")
        assert CANARY not in logs.describe(error)


SCRIPT = f"""
import logging, threading, warnings
from plugin import logs
logs.configure("info")
logging.getLogger("pynetdicom.acse").error("{CANARY}")
warnings.warn("Invalid value {CANARY}")
from pydicom import Dataset
ds = Dataset()
ds.PatientBirthDate = "{CANARY}"
ds.StudyInstanceUID = "{CANARY}"
logging.getLogger("plugin.x").info("%d", "{CANARY}")
logs.event(logging.getLogger("plugin.x"), "alive", study_uid="1.2")
thread = threading.Thread(target=int, args=("{CANARY}",))
thread.start()
thread.join()
int("{CANARY}")
"""


def test_nothing_else_gets_out_of_a_process() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    said = [json.loads(line) for line in done.stderr.splitlines()]
    actions = [line["action"] for line in said]
    assert actions.count("alive") == 1
    assert "thread.crashed" in actions
    assert actions[-1] == "process.crashed"
    assert "library.message" in actions
    assert CANARY not in done.stderr
    assert done.stdout == ""
    assert done.returncode == 1
