"""The wire: PDUs off one socket, within limits of size and of time (PS3.8 section 9.3).

One thread reads one connection through one fixed buffer and reads nothing ahead of what that buffer holds, so that a
peer which is faster than the disk is held back by TCP itself. Every wait has a deadline; a declared length is checked
before anything is read for it.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator

from inference.errors import GenuError

READ_AHEAD_BYTES = 256 * 1024
SEND_SECONDS = 30.0
GRACE_SECONDS = 60.0
MINIMUM_BYTES_PER_SECOND = 4096
LINGER_SECONDS = 2.0

PDU_ASSOCIATE_RQ = 0x01
PDU_P_DATA = 0x04
PDU_RELEASE_RQ = 0x05
PDU_ABORT = 0x07

# Sources and reasons of an A-ABORT (PS3.8 table 9-26).
ABORT_BY_USER = (0x00, 0x00)
ABORT_NOT_SPECIFIED = (0x02, 0x00)
ABORT_UNRECOGNISED_PDU = (0x02, 0x01)
ABORT_UNEXPECTED_PDU = (0x02, 0x02)
ABORT_INVALID_PARAMETER = (0x02, 0x06)


class PeerError(GenuError):
    """The peer ended the association out of turn, or Genu has to end it. `abort` is what to send: (source, reason)."""

    abort: tuple[int, int] | None = None


class PeerGoneError(PeerError):
    """The peer closed or reset the connection, or sent an A-ABORT: there is nobody to answer."""


class PeerTooSlowError(PeerError):
    """A deadline passed while the peer owed bytes, or while it would not take ours."""

    abort = ABORT_NOT_SPECIFIED


class ProtocolError(PeerError):
    """What arrived is not the DICOM upper layer protocol."""

    def __init__(self, message: str, abort: tuple[int, int] = ABORT_INVALID_PARAMETER) -> None:
        super().__init__(message)
        self.abort = abort


class Connection:
    """One connected socket, plain or TLS, read through a fixed buffer under a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = memoryview(bytearray(READ_AHEAD_BYTES))
        self._start = 0
        self._end = 0
        self.set_deadline(GRACE_SECONDS)

    def set_deadline(self, seconds: float) -> None:
        """All that is read from now on has to arrive within `seconds`, however slowly it drips.

        What `credit` reports earns more time: each further span of `seconds` has to bring a minimum rate.
        """
        self._span = seconds
        self._deadline = time.monotonic() + seconds
        self._progress = 0

    def credit(self, payload: int) -> None:
        """Count `payload` bytes of a message towards the minimum rate."""
        self._progress += payload

    def wait(self, seconds: float) -> bool:
        """Whether at least one byte is there within `seconds`."""
        if self._start < self._end:
            return True
        self._start = self._end = 0
        return self._receive(seconds)

    def _receive(self, seconds: float) -> bool:
        """Read what the socket has into the free end of the buffer; False when nothing comes within `seconds`."""
        self._socket.settimeout(seconds)
        try:
            count = self._socket.recv_into(self._buffer[self._end :])
        except TimeoutError:
            return False
        except OSError as error:
            raise PeerGoneError(f"the connection broke: {error}") from error
        if not count:
            raise PeerGoneError("the peer closed the connection")
        self._end += count
        return True

    def _more(self) -> None:
        """Block until the buffer, which must be empty, holds at least one byte."""
        self._start = self._end = 0
        while True:
            allowed = self._deadline - time.monotonic()
            if allowed > 0 and self._receive(allowed):
                return
            if self._progress < MINIMUM_BYTES_PER_SECOND * self._span:
                raise PeerTooSlowError("the peer did not send in time what it owed")
            self.set_deadline(self._span)

    def chunks(self, count: int) -> Iterator[memoryview]:
        """Exactly `count` bytes, as views of the buffer: each is valid until the next is asked for."""
        while count:
            if self._start == self._end:
                self._more()
            stop = min(self._end, self._start + count)
            chunk = self._buffer[self._start : stop]
            self._start = stop
            count -= len(chunk)
            yield chunk

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes; memory grows with what arrives, not with what was declared."""
        stop = self._start + count
        if stop <= self._end:
            taken = bytes(self._buffer[self._start : stop])
            self._start = stop
            return taken
        return b"".join(bytes(chunk) for chunk in self.chunks(count))

    def pdu_header(self) -> tuple[int, int]:
        """Type and length of the next PDU."""
        header = self.take(6)
        return header[0], int.from_bytes(header[2:6], "big")

    def send(self, data: bytes) -> None:
        """Send all of `data`; raises PeerTooSlowError when the peer does not take it."""
        self._socket.settimeout(SEND_SECONDS)
        try:
            self._socket.sendall(data)
        except TimeoutError as error:
            raise PeerTooSlowError("the peer does not take what is sent to it") from error
        except OSError as error:
            raise PeerGoneError(f"the connection broke: {error}") from error

    def close(self) -> None:
        """Close so that the last bytes sent reach the peer: unread input would turn the close into a reset."""
        stop = time.monotonic() + LINGER_SECONDS
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.settimeout(LINGER_SECONDS)
            with contextlib.suppress(OSError, ValueError):  # ValueError: no TLS layer is left
                self._socket = self._socket.unwrap()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while (left := stop - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv_into(self._buffer):
                    break
        self._socket.close()


def abort_pdu(source: int, reason: int) -> bytes:
    """An A-ABORT (PS3.8 9.3.8)."""
    return bytes((PDU_ABORT, 0, 0, 0, 0, 4, 0, 0, source, reason))


def release_response_pdu() -> bytes:
    """An A-RELEASE-RP (PS3.8 9.3.7)."""
    return bytes((0x06, 0, 0, 0, 0, 4, 0, 0, 0, 0))


def data_pdus(context_id: int, command: bool, payload: bytes, max_pdu: int) -> Iterator[bytes]:
    """`payload` as P-DATA-TF PDUs of one PDV each, none longer than `max_pdu` (0: the peer names no limit)."""
    room = min(max_pdu, READ_AHEAD_BYTES) - 6 if max_pdu else READ_AHEAD_BYTES
    if room <= 0:
        raise ProtocolError(f"the peer's maximum PDU length {max_pdu} leaves no room for data")
    for start in range(0, len(payload), room):
        part = payload[start : start + room]
        control = int(command) | (2 if start + room >= len(payload) else 0)
        length = len(part) + 2
        yield (
            bytes((PDU_P_DATA, 0))
            + (length + 4).to_bytes(4, "big")
            + length.to_bytes(4, "big")
            + bytes((context_id, control))
            + part
        )
