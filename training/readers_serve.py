"""The page of `genu-train readers serve`: loopback only, for one reader, with nothing in it that tells the truth.

Served are the page's own files, and by position in the reader's order the sizes and slices of two knees. Identifiers of
pairs and knees, truth.json and other readers' answers are never sent. Every question but those for the page's own files
needs the token of this start, which stands in the address behind "#" and so is sent to nobody; Host and Origin must be
this server's, so that no other page can ask or answer (DNS rebinding, cross-site requests).
"""

import hmac
import json
import re
import secrets
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from inference.errors import DataError, ResourceError, UsageError
from training.readers import Bench
from training.readers_answers import AnswerFile, order_of

PAGE: Final = Path(__file__).parent / "readers_page"
_FILES: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in ("page", "knee", "png")},
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_LARGEST: Final = 2048  # bytes of an answer
_ANSWER: Final = ("number", "choice", "confidence", "seconds")
_SECONDS: Final = 60.0  # a connection may be silent
_PICTURE: Final = re.compile(r"/api/pair/([0-9]{1,5})/(first|second)/([0-9]{1,4})\.png")
_PAIR: Final = re.compile(r"/api/pair/([0-9]{1,5})")


class ReaderServer(ThreadingHTTPServer):
    """Serves one reader's pairs on 127.0.0.1; `address` is what a browser opens."""

    daemon_threads = True

    def __init__(self, bench: Bench, answers: AnswerFile, port: int = 0) -> None:
        """Listen. Raises UsageError when the port is taken."""
        self.bench, self.answers = bench, answers
        self.order = order_of(bench, answers.reader)
        self.token = secrets.token_urlsafe(24)
        self.lock = threading.Lock()
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise UsageError(f"--port {port} cannot be had ({error.strerror}): 0 takes a free one.") from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def host(self) -> str:
        """Host and port, as a browser names them."""
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def address(self) -> str:
        """The page with its token."""
        return f"http://{self.host}/#{self.token}"

    def session(self) -> dict[str, Any]:
        """What the page begins with: the task, and what was answered so far, by position."""
        bench = self.bench
        return {
            "reader": self.answers.reader, "total": len(self.order), "ties": self.answers.ties, "months": bench.months,
            "loss_mm": bench.loss_mm, "source": bench.source, "mirrored": bench.mirrored, "synthetic": bench.synthetic,
            "answers": [self._answer(number) for number in range(1, len(self.order) + 1)],
        }  # fmt: skip

    def pair(self, number: int) -> dict[str, Any] | None:
        """Sizes of the two knees of a position, from 1; None beyond the first pair after those that are answered."""
        if not self._open(number):
            return None
        shown = self.order[number - 1]
        return {"first": self._knee(shown.first), "second": self._knee(shown.second)}

    def picture(self, number: int, which: str, slice_: int) -> bytes | None:
        """A PNG, or None where there is none."""
        if not self._open(number):
            return None
        shown = self.order[number - 1]
        knee = shown.first if which == "first" else shown.second
        if not 1 <= slice_ <= self.bench.knees[knee].slices:
            return None
        return self.bench.picture(knee, slice_).read_bytes()

    def answer(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Keep an answer. Raises UsageError where it makes no sense, ResourceError where it cannot be kept."""
        number, choice, confidence, seconds = (values.get(name) for name in _ANSWER)
        seen = found if isinstance(found := values.get("seen"), list) else []
        numbers = [number, *seen, *([] if confidence is None else [confidence])]
        timed = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if any(type(one) is not int for one in numbers) or not timed:
            raise UsageError("an answer has number, choice, confidence, seconds and the slices seen.")
        with self.lock:
            if not isinstance(number, int) or not self._open(number) or number > self._done() + 1:
                raise UsageError(f"pair {number} cannot be answered yet.")
            self.answers.add(
                self.order[number - 1], str(choice), confidence=confidence, seconds=seconds or 0, seen=seen
            )
            return {"answers": [self._answer(one) for one in range(1, len(self.order) + 1)]}

    def _open(self, number: int) -> bool:
        """Answered pairs, the first that is not, and the one after it, which the page loads ahead."""
        return 1 <= number <= min(len(self.order), self._done() + 2)

    def _done(self) -> int:
        """How many pairs from the first on are answered."""
        done = [shown.pair in self.answers.answers for shown in self.order]
        return done.index(False) if False in done else len(done)

    def _answer(self, number: int) -> dict[str, Any] | None:
        found = self.answers.answers.get(self.order[number - 1].pair)
        return None if found is None else {"choice": found.choice, "confidence": found.confidence}

    def _knee(self, name: str) -> dict[str, Any]:
        knee = self.bench.knees[name]
        return {
            "slices": knee.slices, "rows": knee.rows, "columns": knee.columns, "row_mm": knee.row_mm,
            "column_mm": knee.column_mm, "window": knee.window, "edges": knee.edges, "order": knee.order,
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: ReaderServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Genu", ""
    timeout = _SECONDS

    def do_GET(self) -> None:
        if not self._own():
            return
        if self.path in _FILES:
            name, kind = _FILES[self.path]
            self._send(HTTPStatus.OK, (PAGE / name).read_bytes(), kind)
        elif self._known():
            self._api()

    def do_POST(self) -> None:
        if not self._own() or not self._known():
            return
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or len(length) > 6 or self.headers.get("Transfer-Encoding"):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "an answer needs a Content-Length")
        elif int(length) > _LARGEST:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an answer has at most {_LARGEST} bytes")
        elif self.headers.get("Content-Type") != "application/json" or self.path != "/api/answer":
            self.rfile.read(int(length))
            self._refuse(HTTPStatus.NOT_FOUND, "answers go to /api/answer, as JSON")
        else:
            self._answer(self.rfile.read(int(length)))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged: what a reader looks at is nobody's business."""

    def _answer(self, body: bytes) -> None:
        try:
            values = json.loads(body)
            self._json(self.server.answer(values if isinstance(values, dict) else {}))
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST, "no JSON")
        except UsageError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except ResourceError as error:
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, str(error))

    def _api(self) -> None:
        try:
            if self.path == "/api/session":
                self._json(self.server.session())
            elif (asked := _PICTURE.fullmatch(self.path)) is not None:
                found = self.server.picture(int(asked[1]), asked[2], int(asked[3]))
                if found is None:
                    self._refuse(HTTPStatus.NOT_FOUND, "there is no such slice yet")
                else:
                    self._send(HTTPStatus.OK, found, "image/png")
            elif (asked := _PAIR.fullmatch(self.path)) is not None and (pair := self.server.pair(int(asked[1]))):
                self._json(pair)
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "there is no such thing")
        except (DataError, OSError):
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "a picture cannot be read: is the folder still there?")

    def _own(self) -> bool:
        """Host and Origin are this server's."""
        hosts = self.headers.get_all("Host") or []
        origin = self.headers.get("Origin")
        if hosts == [self.server.host] and origin in (None, f"http://{self.server.host}"):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "this page is for its own address only")
        return False

    def _known(self) -> bool:
        said = self.headers.get("X-Genu-Token", "")
        if hmac.compare_digest(said.encode(), self.server.token.encode()):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "open the address that `genu-train readers serve` printed")
        return False

    def _json(self, values: Mapping[str, Any]) -> None:
        self._send(HTTPStatus.OK, json.dumps(values).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True  # a body that was not read would be taken for the next question
        self._send(status, json.dumps({"error": reason}).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
        }.items():  # fmt: skip
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
