"""The first part of a multipart answer (RFC 2046 5.1), as it arrives: bounded memory, whatever the server sends.

A part that does not end with its delimiter is an error: it was cut off.
"""

from collections.abc import Iterator
from email.message import Message

from inference.errors import RetryableError

PREAMBLE_BYTES = 16 * 1024
HEADER_BYTES = 16 * 1024
BOUNDARY_CHARACTERS = 200  # RFC 2046 allows 70; no server needs more than this
_LINE = b"\r\n"


class MultipartError(RetryableError):
    """The answer is no multipart answer, or is cut off."""


def media_type(value: str) -> tuple[str, dict[str, str]]:
    """Type and parameters of a Content-Type, names in lower case; an empty type where there is none."""
    message = Message()
    message["Content-Type"] = value
    parameters = message.get_params(failobj=[]) or []
    if not parameters:
        return "", {}
    return parameters[0][0].strip().lower(), {name.lower(): text for name, text in parameters[1:]}


def first_part(chunks: Iterator[bytes], boundary: str) -> Iterator[bytes]:
    """The body of the first part, piece by piece; its end is sure once the iteration ends. Raises MultipartError."""
    if not 1 <= len(boundary) <= BOUNDARY_CHARACTERS or not boundary.isascii() or not boundary.isprintable():
        raise MultipartError("its Content-Type names no usable boundary")
    delimiter = _LINE + b"--" + boundary.encode("ascii")
    source = _Source(chunks)
    source.until(delimiter, PREAMBLE_BYTES, "its boundary")
    head = source.until(_LINE + _LINE, HEADER_BYTES, "the end of the headers of its part")
    if head.startswith(b"--"):
        raise MultipartError("it has no part")
    _require_dicom(head)
    yield from source.body(delimiter)


def _require_dicom(head: bytes) -> None:
    """`head` begins with what follows the boundary on its line, which may be blanks only."""
    for line in head.split(_LINE)[1:]:
        name, _, value = line.decode("latin-1").partition(":")
        if name.strip().lower() == "content-type" and media_type(value.strip())[0] != "application/dicom":
            raise MultipartError(f"its part is {value.strip()[:60]!r}, not application/dicom")


class _Source:
    """Bytes that were received and not yet used; never much more than one chunk."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = bytearray(_LINE)  # so that a boundary at the very beginning looks like every other

    def until(self, mark: bytes, most: int, what: str) -> bytes:
        """What comes before `mark`; both are used up."""
        start = 0
        while (at := self._buffer.find(mark, start)) < 0:
            if len(self._buffer) > most + len(mark):
                raise MultipartError(f"{what} does not come within {most} bytes")
            start = max(0, len(self._buffer) - len(mark) + 1)
            self._receive(what)
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return found

    def body(self, mark: bytes) -> Iterator[bytes]:
        """What comes before `mark`, in pieces; a mark may lie across two chunks."""
        while (at := self._buffer.find(mark)) < 0:
            sure = len(self._buffer) - len(mark) + 1
            if sure > 0:
                yield bytes(self._buffer[:sure])
                del self._buffer[:sure]
            self._receive("the end of its part")
        yield bytes(self._buffer[:at])

    def _receive(self, what: str) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise MultipartError(f"it ends before {what}")
        self._buffer += chunk
