"""An HTTP server that answers as told: for what a real DICOMweb server never answers on demand."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """An answer; `pieces` are written one by one. A `length` beyond theirs is an answer that breaks off.

    Without a length it ends when the connection does.
    """

    status: int = 200
    content_type: str = ""
    pieces: Sequence[bytes] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = -1  # -1: what the pieces have; None: not told

    @classmethod
    def json(cls, found: Any, status: int = 200, content_type: str = "application/dicom+json") -> "Reply":
        return cls(status, content_type, [json.dumps(found).encode()])


@dataclass
class ScriptedServer:
    """`answers` are given in turn, the last one for ever; one of None breaks off the connection without a word."""

    url: str
    answers: Callable[[Asked], Reply | None]
    asked: list[Asked] = field(default_factory=list)


def in_turn(*replies: Reply | None) -> Callable[[Asked], Reply | None]:
    left = list(replies)
    return lambda _asked: left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def scripted(answers: Callable[[Asked], Reply | None]) -> Iterator[ScriptedServer]:
    state = ScriptedServer("", answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(
                self.command,
                parts.path,
                dict(parse_qsl(parts.query)),
                {k.lower(): v for k, v in self.headers.items()},
                body,
            )
            state.asked.append(asked)
            reply = state.answers(asked)
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            if reply.content_type:
                self.send_header("Content-Type", reply.content_type)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            length = sum(map(len, reply.pieces)) if reply.length == -1 else reply.length
            if length is not None and reply.status != 204:
                self.send_header("Content-Length", str(length))
            self.close_connection = reply.length != -1
            self.end_headers()
            try:
                for piece in reply.pieces:
                    self.wfile.write(piece)
                    self.wfile.flush()
            except OSError:  # the client had enough
                self.close_connection = True

        do_GET = do_POST = _answer

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/root"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
