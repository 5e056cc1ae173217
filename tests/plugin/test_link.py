"""The sidecar's end of the link: hello, requests, nudges, and lines that are none."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.errors import ConfigurationError, ResourceError
from plugin.link import LINE_BYTES, Link
from plugin.routes import Reply


class Plugin:
    """The other end."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.link = Link(theirs.fileno())
        theirs.close()
        self.stream = self.ours.makefile("rb")

    def say(self, message: Any) -> None:
        self.ours.sendall((message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n")

    def hear(self) -> dict[str, Any]:
        heard: dict[str, Any] = json.loads(self.stream.readline())
        return heard

    def close(self) -> None:
        self.stream.close()
        self.ours.close()


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    found = Plugin()
    yield found
    found.close()
    found.link._stream.close()
    found.link._socket.close()


def hello(**section: object) -> dict[str, Any]:
    known = {"url": "http://127.0.0.1:1"}
    here = {"since": 12.5, "database": "d", "stable_age": 10}
    return {"type": "hello", "genu": section, "orthanc": known, **here}


def test_hello_carries_the_settings(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENU_WORKERS__COUNT", "3")
    plugin.say(hello(data_dir="here", orthanc={"url": "http://127.0.0.1:2"}, workers={"count": 2}))
    found = plugin.link.hello()
    assert found.settings.data_dir == Path("here")
    assert found.settings.orthanc is not None
    assert found.settings.orthanc.url == "http://127.0.0.1:2"  # the section wins over what the plugin found out
    assert found.settings.workers.count == 3  # and the environment over both
    assert (found.since, found.database, found.stable_age) == (12.5, "d", 10)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (hello(nonsense=1), "nonsense"),
        (hello() | {"genu": [1]}, "no table"),
        ({"type": "nudge"}, "did not say hello"),
        (b"not json", "did not say hello"),
        (b"[" * 100_000, "did not say hello"),
        (b"7", "did not say hello"),
    ],
)
def test_a_wrong_hello_is_a_configuration_error(plugin: Plugin, line: Any, text: str) -> None:
    plugin.say(line)
    with pytest.raises(ConfigurationError, match=text):
        plugin.link.hello()


def test_no_socket_is_told() -> None:
    with Path("/dev/null").open() as nothing, pytest.raises(ConfigurationError, match="Orthanc's plugin"):
        Link(nothing.fileno())


def test_requests_are_answered_and_faults_are_too(plugin: Plugin) -> None:
    def answer(method: str, path: list[str]) -> Reply:
        if path == ["broken"]:
            raise ValueError("Zebra^Canary")
        if path == ["away"]:
            raise ResourceError("the disk is full")
        return Reply(202, {"method": method, "path": path})

    nudged = threading.Event()
    thread = plugin.link.start(answer, nudged.set)
    plugin.say({"type": "nudge"})
    plugin.say({"type": "something new"})
    plugin.say({"type": "request", "id": 1, "method": "POST", "path": ["studies", "x", "score"]})
    assert plugin.hear() == {
        "type": "answer",
        "id": 1,
        "status": 202,
        "body": {"method": "POST", "path": ["studies", "x", "score"]},
    }
    plugin.say({"type": "request", "id": 2, "method": "GET", "path": ["broken"]})
    crashed = plugin.hear()
    assert crashed["status"] == 500
    assert "ValueError" in crashed["body"]["error"] and "Zebra" not in json.dumps(crashed)
    plugin.say({"type": "request", "id": 3, "method": "GET", "path": ["away"]})
    assert plugin.hear() == {"type": "answer", "id": 3, "status": 503, "body": {"error": "the disk is full"}}
    plugin.say({"type": "request", "id": 4})
    assert plugin.hear()["status"] == 500
    assert nudged.is_set()
    plugin.close()
    thread.join(5)
    assert not thread.is_alive()


def test_a_line_without_an_end_ends_the_link(plugin: Plugin) -> None:
    thread = plugin.link.start(lambda _method, _path: Reply(200, {}), lambda: None)
    threading.Thread(target=plugin.say, args=(b"x" * (LINE_BYTES + 10),), daemon=True).start()
    thread.join(10)
    assert not thread.is_alive()
