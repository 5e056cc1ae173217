"""What is taken from the sidecar's output, and what is not passed on."""

import json

from hypothesis import given
from hypothesis import strategies as st

from plugin.sidecar_lines import Lines, read_log_line

CANARY = "DOE^JANE"


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b""))), st.data())
def test_lines_are_the_same_however_the_stream_is_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    reader, found = Lines(10), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += list(reader.feed(stream[begin:end]))
    assert found == [line if len(line) <= 10 else None for line in lines]


def test_an_endless_line_is_not_kept() -> None:
    reader = Lines(1000)
    for _ in range(1000):
        assert list(reader.feed(b"x" * 1000)) == []
    assert len(reader._rest) <= 1000
    assert list(reader.feed(b"\nnext\n")) == [None, b"next"]


def test_our_log_lines_are_passed_on_with_their_level_and_error() -> None:
    line = read_log_line(b'{"level": "error", "action": "study.failed", "error": "disk full"}')
    assert (line.level, line.error) == ("error", "disk full")
    assert json.loads(line.text)["action"] == "study.failed"


def test_anything_else_may_quote_a_data_set_and_is_not_passed_on() -> None:
    for line in (
        CANARY.encode(),
        json.dumps({"patient": CANARY}).encode(),
        json.dumps({"level": CANARY, "action": "a"}).encode(),
        json.dumps({"level": "info", "action": [CANARY]}).encode(),
        json.dumps([CANARY]).encode(),
        f"ModuleNotFoundError: No module named '{CANARY}'".encode(),
        b"\xff\xfe" + CANARY.encode(),
        b"[" * 100_000,
        None,
    ):
        entry = read_log_line(line)
        assert CANARY not in entry.text + entry.error
        assert json.loads(entry.text)["action"] == "library.message"
        assert entry.level == "warning"


def test_a_missing_package_is_told() -> None:
    entry = read_log_line(b"ModuleNotFoundError: No module named 'pydantic'")
    assert entry.level == "error"
    assert "pydantic" in entry.error
