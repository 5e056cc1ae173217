"""One HTTP session: identity, bounds, and every way in which a server may fail us."""

import base64
import io
import socket
import subprocess
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from inference.errors import ConfigurationError
from plugin import web
from plugin.settings import HttpEndpoint
from plugin.web import WebError, WebServer
from tests.plugin.peers import free_port
from tests.plugin.scripted import Answer, Request, scripted

SECRET = "s3cret-\u00e9"


def ok(_request: Request) -> Answer:
    return 200, {"Content-Type": "application/json"}, b'{"a": [1, 2]}'


def test_json_and_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing of the environment is followed
    with scripted(ok) as server:
        WebServer(HttpEndpoint(url=server.url + "/", username="us:er", password=SECRET)).get_json("/x", {"limit": 1})
        assert WebServer(HttpEndpoint(url=server.url, token="Bearer abc")).get_json("/y") == {"a": [1, 2]}
        WebServer(HttpEndpoint(url=server.url)).get_json("/z")
        basic, bearer, nobody = server.requests
    assert (basic.method, basic.path) == ("GET", "/x?limit=1")
    assert base64.b64decode(basic.headers["Authorization"].removeprefix("Basic ")).decode() == f"us:er:{SECRET}"
    assert bearer.headers["Authorization"] == "Bearer abc"
    assert "Authorization" not in nobody.headers


@pytest.mark.parametrize(
    ("status", "may_mend", "is_missing"),
    [
        (401, True, False),
        (403, True, False),
        (404, False, True),
        (410, False, True),
        (500, True, False),
        (503, True, False),
        (400, False, False),
        (302, False, False),
    ],
)
def test_a_status_that_is_no_success(status: int, may_mend: bool, is_missing: bool) -> None:
    with scripted(lambda _request: (status, {"Location": "http://127.0.0.1:9/"}, b"{}")) as server:
        with pytest.raises(WebError, match=f"status {status}") as caught:
            WebServer(HttpEndpoint(url=server.url, username="u", password=SECRET)).get_json("/x")
        assert len(server.requests) == 1  # a redirect is not followed: it would carry our password elsewhere
    assert (caught.value.may_mend, caught.value.is_missing) == (may_mend, is_missing)
    assert SECRET not in str(caught.value)


def test_an_answer_that_is_not_json() -> None:
    with scripted(lambda _request: (200, {}, b"<html>")) as server, pytest.raises(WebError, match="not JSON"):
        WebServer(HttpEndpoint(url=server.url)).get_json("/x")


def test_no_more_is_taken_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "ANSWER_BYTES", 1000)
    with scripted(lambda _request: (200, {}, b"x" * 1001)) as server:
        session = WebServer(HttpEndpoint(url=server.url))
        with pytest.raises(WebError, match="more than 1000 bytes"):
            session.exchange("GET", "/x")
        target = io.BytesIO()
        with pytest.raises(WebError, match="more than 500 bytes") as caught:
            session.download("/x", target, most=500)
        assert caught.value.status == 413 and not caught.value.may_mend
        assert len(target.getvalue()) <= 500
        done = session.download("/x", io.BytesIO(), most=1001)
        assert (done.size, done.sha256) == (1001, sha256(b"x" * 1001).hexdigest())


def test_nobody_there_and_names_that_lead_nowhere() -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "http://no-such-host.invalid"):
        with pytest.raises(WebError, match="cannot be reached") as caught:
            WebServer(HttpEndpoint(url=url)).get_json("/x")
        assert caught.value.status is None and caught.value.may_mend


def test_an_answer_that_breaks_off() -> None:
    with scripted(lambda _request: (200, {"Content-Length": "100", "Connection": "close"}, b"short")) as server:
        session = WebServer(HttpEndpoint(url=server.url))
        with pytest.raises(WebError, match="broke off"):
            session.exchange("GET", "/x")
        with pytest.raises(WebError, match="broke off"):
            session.download("/x", io.BytesIO(), most=1000)


def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = HttpEndpoint(url=f"http://127.0.0.1:{silent.getsockname()[1]}", response_seconds=0.2)
        with pytest.raises(WebError, match="no answer in time"):
            WebServer(endpoint).get_json("/x")


def test_certificates(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    port = free_port()
    serve = ["openssl", "s_server", "-accept", str(port), "-cert", certificate, "-key", key, "-www", "-quiet"]
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _until_open(port)
            url = f"https://localhost:{port}"
            trusted = WebServer(HttpEndpoint(url=url, authorities=certificate)).exchange("GET", "/")
            assert trusted.status == 200 and b"s_server" in trusted.content
            with pytest.raises(WebError, match="not trusted"):
                WebServer(HttpEndpoint(url=url)).exchange("GET", "/")
        finally:
            process.kill()
    with pytest.raises(ConfigurationError, match=r"gone\.pem"):
        WebServer(HttpEndpoint(url="https://x", authorities=tmp_path / "gone.pem"))


def _until_open(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            threading.Event().wait(0.05)
        else:
            return
    raise AssertionError("openssl s_server did not start")


def test_a_connection_that_the_server_closed_meanwhile_is_made_anew() -> None:
    """Orthanc keeps a quiet connection for one second, which is also how often it is asked for changes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            first, _ = listener.accept()
            with first:
                answer(first)
                first.recv(65536)  # asked again, and closed without an answer
            second, _ = listener.accept()
            with second:
                answer(second)

        def answer(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        server = WebServer(HttpEndpoint(url=f"http://127.0.0.1:{listener.getsockname()[1]}"))
        assert server.get_json("/a") == {}
        assert server.get_json("/b") == {}
        server.close()
        thread.join()
