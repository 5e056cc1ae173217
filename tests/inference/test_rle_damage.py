"""Damaged RLE (PS3.5 annex G): the decoder is written in Rust and panics over some of it, which is no Exception."""

import random
from pathlib import Path

import pytest

from inference import decoding
from inference.decoding import decode
from inference.errors import RefusalError
from inference.findings import RefusalCode
from inference.instances import read_instance
from inference.limits import DEFAULT_LIMITS
from tests import malformed, phantoms

RLE = "1.2.840.10008.1.2.5"
HEADER = 64 + 8  # of the frame, and of its item


def test_a_changed_byte_never_ends_in_anything_but_a_refusal(tmp_path: Path) -> None:
    sound = malformed.encoded(phantoms.compress(malformed.small(), RLE))
    begin = sound.rindex(b"\xfe\xff\x00\xe0") + HEADER
    path, refused = tmp_path / "rle.dcm", 0
    for seed in range(120):
        chance = random.Random(seed)
        damaged = bytearray(sound)
        damaged[chance.randrange(begin, len(sound))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            decode(read_instance(path), DEFAULT_LIMITS)
        except RefusalError as error:
            assert error.refusal.code in (RefusalCode.UNDECODABLE_PIXELS, RefusalCode.UNREADABLE)
            refused += 1
    assert refused > 1, "the bytes changed do not matter to the decoder: look where the frame begins"


def test_a_panic_is_a_refusal_and_an_interrupt_is_not() -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    with pytest.raises(RefusalError), decoding._codec_errors("RLE Lossless"):
        raise panic("index out of bounds")
    with pytest.raises(KeyboardInterrupt), decoding._codec_errors("RLE Lossless"):
        raise KeyboardInterrupt
