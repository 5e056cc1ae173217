"""Random access to the bytes of a data set, from a file or from a deflated stream, never more than a limit."""

import os
import zlib
from typing import Protocol

from inference.errors import UnreadableError
from inference.findings import RefusalCode

_WINDOW = 1 << 16
_DEFLATED_CHUNK = 1 << 16


class ByteSource(Protocol):
    """Bytes by offset; a read past the end returns fewer bytes."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`."""

    def holds(self, end: int) -> bool:
        """Whether there are at least `end` bytes."""


class FileSource:
    """An open regular file, read through a small window."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._window = b""
        self._start = 0

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`."""
        begin = offset - self._start
        if begin >= 0 and begin + count <= len(self._window):
            return self._window[begin : begin + count]
        count = max(0, min(count, self._size - offset))
        if count > _WINDOW:
            return self._pread(offset, count)
        self._window, self._start = self._pread(offset, _WINDOW), offset
        return self._window[:count]

    def holds(self, end: int) -> bool:
        """Whether there are at least `end` bytes."""
        return end <= self._size

    def _pread(self, offset: int, count: int) -> bytes:
        parts = []
        while count > 0 and (part := os.pread(self._descriptor, count, offset)):
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return b"".join(parts)


class BytesSource:
    """Bytes that are in memory already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`."""
        return self._data[offset : offset + count]

    def holds(self, end: int) -> bool:
        """Whether there are at least `end` bytes."""
        return end <= len(self._data)


class InflatedSource:
    """A deflated data set (PS3.5 A.5), inflated only as far as it is asked for and never past `limit` bytes."""

    def __init__(self, packed: ByteSource, start: int, limit: int) -> None:
        self._packed = packed
        self._next = start
        self._limit = limit
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._data = bytearray()

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset` of the inflated data set."""
        self._inflate_to(offset + count)
        return bytes(self._data[offset : offset + count])

    def holds(self, end: int) -> bool:
        """Whether the inflated data set has at least `end` bytes."""
        self._inflate_to(end)
        return end <= len(self._data)

    def _inflate_to(self, end: int) -> None:
        # A declared length decides nothing here: only what really comes out of the stream is kept.
        while len(self._data) < end and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail
            if not packed:
                packed = self._packed.read_at(self._next, _DEFLATED_CHUNK)
                self._next += len(packed)
            if not packed:
                return
            try:
                self._data += self._inflater.decompress(packed, _DEFLATED_CHUNK * 4)
            except zlib.error:
                raise UnreadableError(
                    RefusalCode.UNREADABLE,
                    "The deflated data set is damaged: its compressed stream cannot be inflated. Send the image again.",
                ) from None
            if len(self._data) > self._limit:
                raise UnreadableError(
                    RefusalCode.UNREADABLE,
                    f"The deflated data set grows beyond the limit of {self._limit} bytes. "
                    "Send the image uncompressed if it is genuine.",
                )
