"""The walk to the four UIDs: any encoding, any nesting, any garbage, within its limits."""

import contextlib
import io
import struct
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from inference.errors import UnreadableError
from plugin.identifiers import BIG_ENDIAN, DEFLATED, IMPLICIT, Identifiers, identify
from tests.plugin.receiving import EXPLICIT, data_set_bytes, instance

SYNTAXES = (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED)
WHOLE = {syntax: data_set_bytes(instance(syntax=syntax, pixels=10)) for syntax in SYNTAXES}


def walk(data: bytes, syntax: str = EXPLICIT, offset: int = 0) -> Identifiers:
    return identify(io.BytesIO(data), offset, len(data), syntax)


def nested(depth: int, *, undefined: bool) -> Dataset:
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3"
    for _ in range(depth):
        outer = Dataset()
        outer.ReferencedStudySequence = Sequence([inner])
        outer["ReferencedStudySequence"].is_undefined_length = undefined
        inner.is_undefined_length_sequence_item = undefined
        inner = outer
    return inner


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_before_the_identifiers_are_stepped_over(syntax: str, undefined: bool) -> None:
    ds = instance(syntax=syntax)
    ds.update(nested(5, undefined=undefined))
    ds.ReferencedStudySequence[0].StudyInstanceUID = "9.9.9"
    found = walk(data_set_bytes(ds), syntax)
    assert found == Identifiers(ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID)


def test_offset_and_uids_with_padding_of_either_kind() -> None:
    ds = instance(StudyInstanceUID="1.2.3.4.5")
    data = data_set_bytes(ds).replace(b"1.2.3.4.5\0", b"1.2.3.4.5 ")
    assert walk(b"before" + data, offset=6).study_instance_uid == "1.2.3.4.5"


def test_un_sequence_of_undefined_length_is_implicit_inside() -> None:
    ds = instance()
    data = data_set_bytes(ds)
    inner = struct.pack("<HHL", 0x0008, 0x1155, 4) + b"1.2\0"
    element = (
        struct.pack("<HH2sHL", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF)
        + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
        + inner
        + struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    )
    place = data.index(struct.pack("<HH", 0x0010, 0x0010))
    assert walk(data[:place] + element + data[place:]).study_instance_uid == ds.StudyInstanceUID


@pytest.mark.parametrize("depth", [200, 4_000, 50_000])
def test_deep_nesting_is_walked_or_refused_but_never_recursed(depth: int) -> None:
    opening = struct.pack("<HH2sHL", 0x0008, 0x1110, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closing = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    ds = instance()
    data = data_set_bytes(ds)
    place = data.index(struct.pack("<HH", 0x0010, 0x0010))
    data = data[:place] + opening * depth + closing * depth + data[place:]
    if depth < 5_000:
        assert walk(data).study_instance_uid == ds.StudyInstanceUID
    else:
        with pytest.raises(UnreadableError, match="deep"):
            walk(data)


def test_deflate_bomb_behind_the_identifiers_costs_nothing_and_before_them_is_refused() -> None:
    ds = instance()
    head = data_set_bytes(ds)
    place = head.index(struct.pack("<HH", 0x0010, 0x0010))
    bomb = struct.pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, 400_000_000)

    def deflated(*parts: bytes) -> bytes:
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed = b"".join(packer.compress(part) for part in parts)
        packed += b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(100))
        return packed + packer.flush()

    assert walk(deflated(head), DEFLATED).study_instance_uid == ds.StudyInstanceUID
    began = time.monotonic()
    with pytest.raises(UnreadableError, match="larger"):
        walk(deflated(head[:place], bomb), DEFLATED)
    assert time.monotonic() - began < 3.0


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0xFFFFFFFF, 5_000_000])
def test_absurd_lengths_are_refused(length: int) -> None:
    data = struct.pack("<HH2sHL", 0x0008, 0x0005, b"OB", 0, length) + b"\0" * 100
    with pytest.raises(UnreadableError):
        walk(data)


def test_endless_elements_are_refused_in_time() -> None:
    data = struct.pack("<HH2sH", 0x0008, 0x0005, b"CS", 0) * 1_000_000
    began = time.monotonic()
    with pytest.raises(UnreadableError, match="200000 elements"):
        walk(data)
    assert time.monotonic() - began < 5.0


@given(data=st.binary(max_size=400), syntax=st.sampled_from(SYNTAXES))
@settings(max_examples=300, deadline=None)
def test_garbage_is_refused_and_nothing_else_is_raised(data: bytes, syntax: str) -> None:
    with pytest.raises(UnreadableError):
        walk(data, syntax)


@given(data=st.data(), syntax=st.sampled_from(SYNTAXES))
@settings(max_examples=200, deadline=None)
def test_damaged_data_sets_are_read_or_refused(data: st.DataObject, syntax: str) -> None:
    raw = bytearray(WHOLE[syntax])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    with contextlib.suppress(UnreadableError):
        walk(bytes(raw[:cut]), syntax)
