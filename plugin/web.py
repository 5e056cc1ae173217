"""One way to speak HTTP to Orthanc and DICOMweb servers: who we are, whom we trust, how long we wait, how much we take.

Neither redirects nor proxies, .netrc or other things of the environment are followed: what is configured is called.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.exceptions import NewConnectionError, ProtocolError

from inference.errors import ConfigurationError, RetryableError
from plugin.settings import HttpEndpoint

ANSWER_BYTES = 64 * 1024**2  # the longest answer that is held in memory
CHUNK_BYTES = 256 * 1024
SUCCESS = range(200, 300)

Parameters = Mapping[str, str | int]
Decode = Callable[[str, Iterator[bytes]], Iterator[bytes]]


class WebError(RetryableError):
    """A web server gives no whole answer (`status` is None) or one with a status that is no success.

    `connected` is false when nobody was there at all, or nobody whom we trust.
    """

    def __init__(self, message: str, status: int | None = None, *, connected: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.connected = connected

    @property
    def may_mend(self) -> bool:
        """Nobody answers, the server has trouble, or it does not let us in: the request itself is not at fault."""
        return self.status is None or self.status in (401, 403, 408, 429) or self.status >= 500

    @property
    def is_missing(self) -> bool:
        """404 or 410: there is no such thing, and asking again will not bring it."""
        return self.status in (404, 410)


@dataclass(frozen=True)
class Answer:
    """A whole answer, of any status."""

    status: int
    content_type: str
    content: bytes


@dataclass(frozen=True)
class Downloaded:
    """What was written: size in bytes and SHA-256."""

    size: int
    sha256: str


class _Token(AuthBase):
    """Sends the Authorization header as it was given to us."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._value
        return request


def _as_it_is(_content_type: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    return chunks


class WebServer:
    """A server and our session with it; to be used by one thread. Every method raises WebError."""

    def __init__(self, endpoint: HttpEndpoint) -> None:
        """Raises ConfigurationError when a certificate file is not there."""
        self.url = endpoint.url
        for file in (endpoint.authorities, endpoint.certificate, endpoint.private_key):
            if file is not None and not file.is_file():
                raise ConfigurationError(f"{file} is no file: give the path of a PEM file")
        self._timeout = (endpoint.connect_seconds, endpoint.response_seconds)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = _credentials(endpoint)
        self._session.verify = str(endpoint.authorities) if endpoint.authorities else True
        if endpoint.certificate and endpoint.private_key:
            self._session.cert = (str(endpoint.certificate), str(endpoint.private_key))

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def get_json(self, path: str, params: Parameters | None = None, accept: str = "application/json") -> Any:
        """GET and parse; `path` is below the server's URL and is made of our own words and checked identifiers."""
        answer = self.exchange("GET", path, params=params, headers={"Accept": accept})
        if answer.status not in SUCCESS:
            raise self._refusal("GET", path, answer.status)
        try:
            return json.loads(answer.content) if answer.content else None
        except (ValueError, RecursionError) as error:
            raise WebError(f"GET {self.url}{path}: the answer is not JSON", answer.status) from error

    def exchange(
        self,
        method: str,
        path: str,
        *,
        params: Parameters | None = None,
        data: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request and its whole answer, whatever its status. An answer of more than ANSWER_BYTES is an error."""
        with self.stream(method, path, params=params, data=data, headers=headers) as response:
            content = bytearray()
            for chunk in self._chunks(response, path):
                content += chunk
                if len(content) > ANSWER_BYTES:
                    raise WebError(f"{method} {self.url}{path}: the answer has more than {ANSWER_BYTES} bytes")
            return Answer(response.status_code, response.headers.get("Content-Type", ""), bytes(content))

    def download(
        self,
        path: str,
        target: BinaryIO,
        most: int,
        *,
        headers: Mapping[str, str] | None = None,
        decode: Decode = _as_it_is,
    ) -> Downloaded:
        """GET into a file, at most `most` bytes; a longer answer is an error of the status 413.

        `decode` gets the Content-Type and the chunks, and gives back the chunks to write.
        """
        digest, size = hashlib.sha256(), 0
        with self.stream("GET", path, headers=headers) as response:
            if response.status_code not in SUCCESS:
                raise self._refusal("GET", path, response.status_code)
            for chunk in decode(response.headers.get("Content-Type", ""), self._chunks(response, path)):
                size += len(chunk)
                if size > most:
                    raise WebError(f"GET {self.url}{path}: more than {most} bytes (listener.max_instance_bytes)", 413)
                digest.update(chunk)
                target.write(chunk)
        return Downloaded(size, digest.hexdigest())

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Parameters | None = None,
        data: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[requests.Response]:
        """A response whose body is still to be read, of any status."""
        ask = functools.partial(
            self._session.request,
            method,
            self.url + path,
            params=dict(params or {}),
            data=data,
            headers=dict(headers or {}),
            timeout=self._timeout,
            allow_redirects=False,
            stream=True,
        )
        try:
            response = _again_if_stale(ask) if method == "GET" else ask()
        except requests.RequestException as error:
            raise self._unreachable(method, path, error) from error
        with response:
            yield response

    def _chunks(self, response: requests.Response, path: str) -> Iterator[bytes]:
        try:
            yield from response.iter_content(CHUNK_BYTES)
        except requests.RequestException as error:
            raise self._unreachable("GET", path, error) from error

    def _refusal(self, method: str, path: str, status: int) -> WebError:
        return WebError(f"{method} {self.url}{path}: status {status}{hint(status)}", status)

    def _unreachable(self, method: str, path: str, error: requests.RequestException) -> WebError:
        """The library's own text is left out: it may quote headers."""
        return WebError(f"{method} {self.url}{path}: {_reason(error)}", connected=not _nobody_there(error))


def _again_if_stale(ask: Callable[[], requests.Response]) -> requests.Response:
    """Once more when the server closed a kept connection as it was used again: Orthanc does so after a quiet second."""
    try:
        return ask()
    except requests.ConnectionError as error:
        if not (error.args and isinstance(error.args[0], ProtocolError)):
            raise
    return ask()


def hint(status: int) -> str:
    """What to do about a status, to be put behind it."""
    if status in range(300, 400):
        return ", a redirect, which is not followed: set url to where it leads"
    return {
        401: ": check username and password",
        403: ": the server does not allow it to this user",
    }.get(status, "")


def _credentials(endpoint: HttpEndpoint) -> AuthBase | None:
    if endpoint.token.get_secret_value():
        return _Token(endpoint.token.get_secret_value())
    if endpoint.username:
        return HTTPBasicAuth(endpoint.username.encode(), endpoint.password.get_secret_value().encode())
    return None


def _nobody_there(error: requests.RequestException) -> bool:
    """Whether the connection itself failed: refused, no such host, no answer to the handshake, no trust."""
    if isinstance(error, requests.exceptions.SSLError | requests.exceptions.ConnectTimeout):
        return True
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", None), NewConnectionError)


def _reason(error: requests.RequestException) -> str:
    reasons: tuple[tuple[type[requests.RequestException], str], ...] = (
        (requests.exceptions.SSLError, "its certificate is not trusted, or TLS fails: see authorities"),
        (requests.exceptions.ConnectTimeout, "no connection in time"),
        (requests.exceptions.ReadTimeout, "no answer in time"),
        (requests.exceptions.ConnectionError, "it cannot be reached, or broke off the connection"),
        (requests.exceptions.ChunkedEncodingError, "it broke off its answer"),
    )
    return next((text for kind, text in reasons if isinstance(error, kind)), type(error).__name__)
