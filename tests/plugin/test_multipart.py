"""Multipart answers as they arrive: every cut, every size, and what is not one."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.multipart import HEADER_BYTES, PREAMBLE_BYTES, MultipartError, first_part, media_type

BODY = b"\r\n--\r\n--boundar\r\n\r\n--boundaryless" + bytes(range(256))
HEAD = b"Content-Type: application/dicom; transfer-syntax=1.2.840.10008.1.2.1\r\nContent-Length: 9\r\n\r\n"


def answer(body: bytes = BODY, head: bytes = HEAD, before: bytes = b"", end: bytes = b"--\r\n") -> bytes:
    return before + b"--boundary=1\r\n" + head + body + b"\r\n--boundary=1" + end


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def read(data: bytes, size: int = 7, boundary: str = "boundary=1") -> bytes:
    return b"".join(first_part(cut(data, size), boundary))


@pytest.mark.parametrize("size", [*range(1, 40), 1000])
def test_the_boundary_may_lie_across_any_chunks(size: int) -> None:
    assert read(answer(), size) == BODY


@given(st.binary(max_size=300), st.integers(1, 64))
def test_any_body_comes_back(body: bytes, size: int) -> None:
    assert read(answer(body), size) == body


@pytest.mark.parametrize(
    "data",
    [
        answer(before=b"This is a multipart answer.\r\n"),
        answer(before=b"\r\n"),
        answer(head=b"\r\n"),
        answer(head=b"content-type:APPLICATION/DICOM\r\n\r\n"),
        answer(end=b"\r\nContent-Type: application/dicom\r\n\r\nanother\r\n--boundary=1--"),
        answer(end=b""),
        answer().replace(b"--boundary=1\r\n", b"--boundary=1 \t\r\n", 1),
    ],
    ids=["preamble", "empty line", "no headers", "cases", "two parts", "no end", "padding"],
)
def test_forms_that_are_allowed(data: bytes) -> None:
    assert read(data) == BODY


@pytest.mark.parametrize("end", range(1, len(answer(b"abc")) - 4))
def test_a_cut_anywhere_is_noticed(end: int) -> None:
    with pytest.raises(MultipartError):
        read(answer(b"abc")[:end])


@pytest.mark.parametrize(
    ("data", "boundary", "said"),
    [
        (answer(head=b"Content-Type: text/html\r\n\r\n"), "boundary=1", "text/html"),
        (b"--boundary=1--\r\n\r\n", "boundary=1", "no part"),
        (answer(), "", "no usable boundary"),
        (answer(), "x" * 201, "no usable boundary"),
        (answer(), "b\u00e4r", "no usable boundary"),
        (answer(before=b"x" * 2 * PREAMBLE_BYTES), "boundary=1", "does not come within"),
        (answer(head=b"X: " + b"x" * 2 * HEADER_BYTES + b"\r\n\r\n"), "boundary=1", "does not come within"),
        (b"", "boundary=1", "ends before"),
    ],
)
def test_what_is_none_says_why(data: bytes, boundary: str, said: str) -> None:
    with pytest.raises(MultipartError, match=said):
        read(data, 1000, boundary)


def test_nothing_is_held_back_but_one_chunk() -> None:
    """A part without an end is handed on as it comes: whoever counts the bytes can stop it."""
    endless = itertools.chain([b"--b\r\n\r\n"], itertools.repeat(b"x" * 1000))
    pieces = first_part(endless, "b")
    sizes = [len(next(pieces)) for _ in range(1000)]
    assert max(sizes) <= 1010


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('multipart/related; type="application/dicom"; boundary="a b"', ("multipart/related", "a b")),
        ("Multipart/Related;BOUNDARY=abc;type=application/dicom", ("multipart/related", "abc")),
        ('multipart/related; boundary="a;b"', ("multipart/related", "a;b")),
        ("application/dicom", ("application/dicom", "")),
        ("", ("", "")),
    ],
)
def test_media_types(value: str, expected: tuple[str, str]) -> None:
    kind, parameters = media_type(value)
    assert (kind, parameters.get("boundary", "")) == expected
