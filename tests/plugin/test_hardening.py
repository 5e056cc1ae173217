"""Peers that are slow, silent, oversized or malformed: each must leave the listener serving everybody else."""

import socket
import threading
import time
from pathlib import Path

import pytest

from plugin import association, dimse, listener, wire
from plugin.negotiation import MAX_REQUEST_BYTES
from plugin.wire import PDU_ABORT
from tests.plugin.receiving import (
    CR,
    ECHO_RQ,
    EXPLICIT,
    HOST,
    RawPeer,
    Running,
    associate_rq,
    data_set_bytes,
    dcmtk,
    instance,
    listening,
    p_data,
    store_rq,
    wait_until,
    write,
)

ENDLESS = 64 * 1024


@pytest.fixture(autouse=True)
def _short_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LINGER_SECONDS", 0.3)


def resident_kib() -> int:
    """Resident memory of this process, which holds the listener."""
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line).split()[1])


def closes(peer: RawPeer, seconds: float = 5.0) -> bool:
    """Whether the listener ends this connection, with or without an A-ABORT."""
    peer.sock.settimeout(seconds)
    try:
        while peer.pdu()[0]:
            pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("sent", [b"", b"\x01", b"\x01\x00\x00"])
def test_thirty_peers_that_send_little_and_stop_do_not_stop_a_good_one(tmp_path: Path, sent: bytes) -> None:
    with listening(tmp_path / "data", max_associations=4) as running:
        silent = [RawPeer(running.port) for _ in range(30)]
        for peer in silent:
            peer.send(sent)
        began = time.monotonic()
        dcmtk("storescu", HOST, running.port, write(instance(), tmp_path / "a.dcm"))
        assert time.monotonic() - began < 5.0
        assert len(running.rows()) == 1
        for peer in silent:
            peer.close()


def test_more_silent_peers_than_can_wait_push_out_the_oldest(tmp_path: Path) -> None:
    with listening(tmp_path / "data", max_associations=1) as running:
        silent = [RawPeer(running.port) for _ in range(listener.MIN_PENDING + 20)]
        assert closes(silent[0])
        dcmtk("echoscu", HOST, running.port)
        assert not closes(silent[-1], 0.2)
        for peer in silent:
            peer.close()


def test_slow_drip_hits_a_deadline_for_the_whole_request(tmp_path: Path) -> None:
    with listening(tmp_path, request_seconds=1.0) as running, RawPeer(running.port) as peer:
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in associate_rq():
                peer.send(bytes((byte,)))
                time.sleep(0.1)
        assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("declared", [0xFFFFFFFF, MAX_REQUEST_BYTES + 1])
def test_oversize_association_request_is_refused_without_buffering(tmp_path: Path, declared: int) -> None:
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        before = resident_kib()
        peer.send(b"\x01\x00" + declared.to_bytes(4, "big"))
        assert peer.pdu()[0] == PDU_ABORT
        with_stream = threading.Thread(target=flood, args=(peer,))
        with_stream.start()
        with_stream.join(5.0)
        assert not with_stream.is_alive(), "the listener goes on reading"
        assert resident_kib() - before < 20_000
        dcmtk("echoscu", HOST, running.port)


def flood(peer: RawPeer) -> None:
    """Send until the listener closes."""
    try:
        while True:
            peer.send(b"\0" * ENDLESS)
    except OSError:
        return


@pytest.mark.parametrize("declared", [0xFFFFFFFF, 200_000])
def test_oversize_pdu_within_an_association_is_aborted_at_its_header(tmp_path: Path, declared: int) -> None:
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        peer.send(b"\x04\x00" + declared.to_bytes(4, "big"))
        assert peer.pdu() == (PDU_ABORT, bytes((0, 0, 2, 6)))


def test_endless_data_set_is_answered_a700_aborted_and_leaves_nothing(tmp_path: Path) -> None:
    with listening(tmp_path, max_instance_bytes=1_000_000) as running, RawPeer(running.port) as peer:
        before = resident_kib()
        peer.associate()
        peer.send(p_data(1, 3, store_rq("1.2.3")))
        thread = threading.Thread(target=stream, args=(peer,))
        thread.start()
        assert peer.response().number(dimse.STATUS) == 0xA700
        assert peer.pdu()[0] == PDU_ABORT
        thread.join(5.0)
        assert not thread.is_alive()
        wait_until(lambda: running.files() == [])
        assert resident_kib() - before < 20_000
        assert running.rows() == []


def stream(peer: RawPeer) -> None:
    """Fragments of a data set, none of them the last."""
    try:
        while True:
            peer.send(p_data(1, 0, b"\0" * ENDLESS))
    except OSError:
        return


def test_endless_command_set_and_endless_request_data_are_aborted(tmp_path: Path) -> None:
    find = dimse.encode_command({dimse.COMMAND_FIELD: 0x0020, dimse.MESSAGE_ID: 1, dimse.DATA_SET_TYPE: 0})
    with listening(tmp_path) as running:
        for opening, control in ((b"", 1), (p_data(1, 3, find), 0)):
            with RawPeer(running.port) as peer:
                peer.associate()
                peer.send(opening)
                thread = threading.Thread(target=fragments, args=(peer, control))
                thread.start()
                assert peer.pdu()[0] == PDU_ABORT
                thread.join(10.0)
                assert not thread.is_alive()


def fragments(peer: RawPeer, control: int) -> None:
    try:
        while True:
            peer.send(p_data(1, control, b"\0" * ENDLESS))
    except OSError:
        return


def test_empty_fragments_do_not_keep_a_message_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "Limits", lambda **limits: association.Limits(**limits, message_grace=1.0))
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        peer.send(p_data(1, 3, store_rq("1.2.3")))
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < 10.0:
                peer.send(p_data(1, 0, b""))
                time.sleep(0.02)
        assert time.monotonic() - began < 8.0
        wait_until(lambda: running.files() == [])


def test_a_burst_does_not_earn_the_right_to_drip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "Limits", lambda **limits: association.Limits(**limits, message_grace=1.0))
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        peer.send(p_data(1, 3, store_rq("1.2.3")))
        for _ in range(50):
            peer.send(p_data(1, 0, b"\0" * 100_000))
        began = time.monotonic()
        assert closes(peer, 8.0)
        assert time.monotonic() - began < 6.0


def test_a_slow_but_steady_peer_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "Limits", lambda **limits: association.Limits(**limits, message_grace=0.5))
    ds = instance(pixels=20_000)
    data = data_set_bytes(ds)
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        peer.send(p_data(1, 3, store_rq(ds.SOPInstanceUID)))
        for start in range(0, len(data), 1000):
            peer.send(p_data(1, 2 if start + 1000 >= len(data) else 0, data[start : start + 1000]))
            time.sleep(0.08)
        assert peer.response().number(dimse.STATUS) == dimse.SUCCESS
        assert len(running.rows()) == 1


def test_idle_association_times_out_with_an_abort(tmp_path: Path) -> None:
    with listening(tmp_path, idle_seconds=0.5) as running, RawPeer(running.port) as peer:
        peer.associate()
        assert peer.echo() == dimse.SUCCESS
        assert peer.pdu()[0] == PDU_ABORT
        wait_until(lambda: running.listener.associations == 0)


def test_overall_limit_is_answered_with_a_rejection(tmp_path: Path) -> None:
    with listening(tmp_path, host="127.0.0.1", max_associations=4) as running:
        held = [from_host(running, f"127.0.0.{2 + i}") for i in range(4)]
        late = from_host(running, "127.0.0.9", accepted=False)
        assert late.pdu() == (3, bytes((0, 2, 3, 2)))
        held[0].close()
        wait_until(lambda: running.listener.associations == 3)
        from_host(running, "127.0.0.9").close()
        for peer in (*held, late):
            peer.close()


def test_one_host_cannot_take_all_places(tmp_path: Path) -> None:
    with listening(tmp_path, max_associations=4) as running:
        greedy = [from_host(running, "127.0.0.2") for _ in range(3)]
        refused = from_host(running, "127.0.0.2", accepted=False)
        assert refused.pdu() == (3, bytes((0, 2, 3, 2)))
        other = from_host(running, "127.0.0.3")
        assert other.echo() == dimse.SUCCESS
        for peer in (*greedy, refused, other):
            peer.close()


def from_host(running: Running, host: str, *, accepted: bool = True) -> RawPeer:
    """A peer with its own address."""
    peer = RawPeer(running.port, socket.create_connection((HOST, running.port), 10, source_address=(host, 0)))
    if accepted:
        peer.associate()
    else:
        peer.send(associate_rq())
    return peer


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 600,
        b"\x01\x00\x00\x00\x00\x04abcd",
        b"\x04\x00\x00\x00\x00\x00",
        associate_rq()[:-10] + b"\x51\x00\xff\xff" + b"\0" * 6,
    ],
)
def test_nonsense_instead_of_a_request(tmp_path: Path, nonsense: bytes) -> None:
    with listening(tmp_path) as running:
        with RawPeer(running.port) as peer:
            peer.send(nonsense)
            assert closes(peer)
        dcmtk("echoscu", HOST, running.port)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x09\x00\x00\x00\x00\x04abcd",  # unknown PDU type
        associate_rq(),  # a second request
        b"\x05\x00\x00\x00\x00\xff" + b"\0" * 255,  # release of the wrong length
        b"\x04\x00\x00\x00\x00\x03abc",  # too short for a PDV
        b"\x04\x00\x00\x00\x00\x08\xff\xff\xff\xff\x01\x03ab",  # PDV longer than its PDU
        b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x01\x01\x03",  # PDV shorter than its header
        p_data(99, 3, ECHO_RQ),  # context never accepted
        p_data(1, 2, b"abc"),  # data set without a command
        p_data(3, 3, b"\0\0\0\0"),  # no command set
        p_data(3, 3, b""),
        p_data(1, 3, store_rq("1.2.3")) + p_data(3, 3, ECHO_RQ),  # a second message inside of the first
        p_data(1, 3, store_rq("1.2.3")) + b"\x05\x00\x00\x00\x00\x04\0\0\0\0",  # release in the middle
    ],
)
def test_nonsense_within_an_association_is_aborted(tmp_path: Path, nonsense: bytes) -> None:
    with listening(tmp_path) as running:
        with RawPeer(running.port) as peer:
            peer.associate()
            peer.send(nonsense)
            assert peer.pdu()[0] == PDU_ABORT
        dcmtk("echoscu", HOST, running.port)
        wait_until(lambda: running.files() == [])
        assert running.rows() == []


def test_peer_that_vanishes_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with listening(tmp_path) as running:
        for goodbye in (b"", b"\x07\x00\x00\x00\x00\x04\0\0\0\0"):
            with RawPeer(running.port) as peer:
                peer.associate()
                peer.send(p_data(1, 3, store_rq("1.2.3")) + p_data(1, 0, b"\0" * 100_000))
                wait_until(lambda: len(running.files()) == 1)
                peer.send(goodbye)
            wait_until(lambda: running.files() == [])


def test_peer_that_does_not_take_its_answers_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SEND_SECONDS", 0.5)
    with listening(tmp_path) as running:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect((HOST, running.port))
        sock.settimeout(10)
        peer = RawPeer(running.port, sock)
        peer.associate()
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < 30:
                peer.send(p_data(3, 3, ECHO_RQ) * 1000)
        peer.close()
        wait_until(lambda: running.listener.associations == 0)


def test_unreadable_maximum_length_of_the_peer(tmp_path: Path) -> None:
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate(max_pdu=6)
        peer.send(p_data(3, 3, ECHO_RQ))
        assert peer.pdu()[0] == PDU_ABORT


def test_answers_respect_the_maximum_length_of_the_peer(tmp_path: Path) -> None:
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate(max_pdu=32, contexts={1: (CR, [EXPLICIT])})
        peer.send(p_data(1, 3, store_rq("1.2.3")) + p_data(1, 2, b"\0" * 64))
        collected = b""
        last = False
        while not last:
            kind, body = peer.pdu()
            assert kind == 4
            assert len(body) <= 32
            collected += body[6:]
            last = bool(body[5] & 2)
        assert dimse.parse_command(collected).number(dimse.STATUS) == 0xC000
