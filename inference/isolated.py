"""GDCM as a decoder plug-in of pydicom, in a process of its own (see `inference.codec_child`).

Fuzzing made GDCM's JPEG codec abort its process (an uncaught C++ exception); a worker must outlive that.
The child starts with the first frame that needs it, about 0.1 s, and is kept.
"""

import atexit
import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import JPEG2000TransferSyntaxes

PLUGIN = "genu-gdcm"
SYNTAXES = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 90, 91))
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = dict.fromkeys(SYNTAXES, ("gdcm>=3.0.10",))

_CHILD = Path(__file__).with_name("codec_child.py")
_TIMEOUT_SECONDS = 60.0


def is_available(uid: str) -> bool:
    """Whether GDCM is installed (asked by pydicom when the plug-in is added)."""
    return uid in DECODER_DEPENDENCIES and find_spec("gdcm") is not None


def register() -> None:
    """Add the plug-in to pydicom's decoders; may be called again."""
    for syntax in SYNTAXES:
        decoder = get_decoder(syntax)
        if PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "_decode_frame"))


class CodecProcess:
    """One child process, started when needed and started anew when it died; one frame at a time."""

    def __init__(self, timeout: float = _TIMEOUT_SECONDS) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def decode(self, request: dict[str, object], frame: bytes) -> bytes:
        """The pixels of one frame; RuntimeError when the codec refuses, dies or takes too long."""
        described = json.dumps(request).encode()
        with self._lock:
            process = self._running()
            try:
                return self._ask(process, struct.pack("<LL", len(described), len(frame)) + described + frame)
            except (OSError, EOFError, TimeoutError):
                self._stop()
                raise RuntimeError("the codec process ended or took too long") from None

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is not None:
            self._stop()
        if self._process is None or self._owner != os.getpid():
            # -I: neither the working folder nor the environment decides what is imported there.
            command = [sys.executable, "-I", str(_CHILD)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._owner = os.getpid()
        return self._process

    def _ask(self, process: "subprocess.Popen[bytes]", message: bytes) -> bytes:
        if process.stdin is None or process.stdout is None:
            raise EOFError
        deadline = time.monotonic() + self._timeout
        process.stdin.write(message)
        process.stdin.flush()
        status, length = struct.unpack("<BL", self._read(process.stdout.fileno(), 5, deadline))
        pixels = self._read(process.stdout.fileno(), length, deadline)
        if status:
            raise RuntimeError("the codec refused the frame")
        return pixels

    def _read(self, descriptor: int, count: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = os.read(descriptor, min(count - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def close(self) -> None:
        """End the child, unless it is that of a process that forked this one; the next frame starts another."""
        with self._lock:
            if self._owner == os.getpid():
                self._stop()


CODEC = CodecProcess()
atexit.register(CODEC.close)


def _decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """One frame for pydicom's runner, with the options set as its own GDCM plug-in sets them."""
    syntax, stored = str(runner.transfer_syntax), runner.bits_stored
    if runner.transfer_syntax in JPEG2000TransferSyntaxes:
        stored = int(runner.get_option("j2k_precision", stored))
        runner.set_option("bits_allocated", 8 if stored <= 8 else 16 if stored <= 16 else 32)
    request: dict[str, object] = {
        "syntax": syntax,
        "rows": runner.rows,
        "columns": runner.columns,
        "samples": runner.samples_per_pixel,
        "allocated": runner.bits_allocated,
        "stored": stored,
        "signed": runner.pixel_representation,
        "photometric": str(runner.photometric_interpretation),
        "planar": runner.planar_configuration if runner.samples_per_pixel > 1 else 0,
    }
    pixels = CODEC.decode(request, src)
    if runner.transfer_syntax in JPEG2000TransferSyntaxes and request["photometric"] in ("YBR_ICT", "YBR_RCT"):
        runner.set_option("photometric_interpretation", "RGB")
    return pixels
