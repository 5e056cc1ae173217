"""A small HTTP server whose answers a test writes itself: what real servers never say when one wants them to."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def place(self) -> str:
        return urlsplit(self.path).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.path).query))


@dataclass
class Scripted:
    """Address of the server, and what was asked of it."""

    url: str
    requests: list[Request] = field(default_factory=list)


# Status, headers, and the body whole or in pieces as they are sent; without an answer the connection is broken off.
Answer = tuple[int, dict[str, str], bytes | Sequence[bytes]]


@contextmanager
def scripted(answer: Callable[[Request], Answer | None]) -> Iterator[Scripted]:
    """A server on loopback that answers every request by `answer`.

    A body shorter than its Content-Length breaks off; with an empty one its length is not told.
    """

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            request = Request(self.command, self.path, dict(self.headers), self.rfile.read(length))
            server.requests.append(request)
            found = answer(request)
            if found is None:
                return
            status, headers, body = found
            pieces = [body] if isinstance(body, bytes) else body
            self.send_response(status)
            for name, value in ({"Content-Length": str(sum(map(len, pieces)))} | headers).items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # the client had enough
                for piece in pieces:
                    self.wfile.write(piece)
                    self.wfile.flush()

        do_GET = do_POST = do_PUT = do_DELETE = handle_any

        def log_message(self, *_arguments: Any) -> None:
            """Silence."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Scripted(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
