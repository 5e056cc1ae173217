"""The association request and its answers, as other implementations see them and under damage."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ

from plugin.dimse import encode_command, parse_command
from plugin.negotiation import accept_pdu, is_uid, parse_request, reject_pdu, text_of
from plugin.wire import ProtocolError, abort_pdu, data_pdus
from tests.plugin.receiving import CR, EXPLICIT, IMPLICIT, associate_rq, item


def test_acceptance_is_what_pynetdicom_reads() -> None:
    contexts = {1: (CR, [IMPLICIT, EXPLICIT]), 3: ("1.2.3", [IMPLICIT]), 5: (CR, ["1.2.3"]), 255: (CR, [EXPLICIT])}
    role = item(0x54, len(CR).to_bytes(2, "big") + CR.encode() + b"\1\1")
    request = parse_request(associate_rq(contexts, extra_user=role)[6:])
    pdu = A_ASSOCIATE_AC()
    pdu.decode(accept_pdu(request, 131072))
    primitive = pdu.to_primitive()
    results = primitive.presentation_context_definition_results_list
    assert [(context.context_id, context.result) for context in results] == [(1, 0), (3, 3), (5, 4), (255, 0)]
    assert results[0].transfer_syntax == [IMPLICIT], "the first of the peer's that is accepted"
    assert primitive.maximum_length_received == 131072
    assert (primitive.calling_ae_title, primitive.called_ae_title) == ("RAW", "GENU")
    roles = [entry for entry in primitive.user_information if hasattr(entry, "scu_role")]
    assert [(entry.scu_role, entry.scp_role) for entry in roles] == [(True, False)]


def test_rejection_is_what_pynetdicom_reads() -> None:
    pdu = A_ASSOCIATE_RJ()
    pdu.decode(reject_pdu(2, 3, 2))
    assert (pdu.result, pdu.source, pdu.reason_diagnostic) == (2, 3, 2)
    assert abort_pdu(2, 6) == bytes((7, 0, 0, 0, 0, 4, 0, 0, 2, 6))


def test_text_of_hostile_titles_is_printable_ascii() -> None:
    assert text_of(b"  AE\0\0") == "AE"
    assert text_of(b"A\nB\xff\x1b[31m") == "A?B??[31m"


@pytest.mark.parametrize(
    ("text", "valid"),
    [("1.2.3", True), ("1.02.3", True), ("", False), ("1..2", False), ("1" * 65, False), ("1.x", False)],
)
def test_is_uid(text: str, valid: bool) -> None:
    assert is_uid(text) is valid


@given(body=st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_garbage_requests_are_protocol_errors_at_worst(body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        accept_pdu(parse_request(body), 131072)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_requests_are_protocol_errors_at_worst(data: st.DataObject) -> None:
    raw = bytearray(associate_rq()[6:])
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        accept_pdu(parse_request(bytes(raw)), 131072)


@given(data=st.binary(max_size=200))
def test_garbage_command_sets_are_protocol_errors_at_worst(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        parse_command(data)


@given(payload=st.binary(max_size=500), max_pdu=st.integers(7, 100))
def test_fragments_carry_the_payload_within_the_limit(payload: bytes, max_pdu: int) -> None:
    pdus = list(data_pdus(5, True, payload, max_pdu))
    assert b"".join(pdu[12:] for pdu in pdus) == payload
    assert all(len(pdu) - 6 <= max_pdu for pdu in pdus)
    assert [pdu[11] for pdu in pdus] == [1] * (len(pdus) - 1) + [3] * bool(pdus)


def test_command_sets_survive_the_round_trip() -> None:
    command = parse_command(encode_command({0x0002: CR, 0x0100: 1, 0x0902: "odd", 0x1000: "1.2"}))
    assert command.field_code == 1
    assert command.text(0x0002) == CR
    assert command.text(0x0902) == "odd"
    with pytest.raises(ProtocolError, match="Command Field"):
        _ = parse_command(encode_command({0x0110: 1})).field_code
