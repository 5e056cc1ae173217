"""Storage Commitment with pynetdicom as the SCU: on the same association, and on a new one."""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import encode

from plugin import dimse
from plugin.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from plugin.references import ReferencesError, parse_references
from tests.plugin.receiving import CR, EXPLICIT, HOST, RELEASE_RQ, RawPeer, Running, instance, listening, p_data


def request(*references: tuple[str, str]) -> Dataset:
    ds = Dataset()
    ds.TransactionUID = generate_uid()
    ds.ReferencedSOPSequence = []
    for sop_class, sop_instance in references:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = sop_instance
        ds.ReferencedSOPSequence.append(item)
    return ds


@contextmanager
def scu(running: Running, syntax: str = EXPLICIT) -> Iterator[tuple[Association, "queue.Queue[evt.Event]"]]:
    """An association of a modality that stores and asks for commitment; reports arrive in the queue."""
    reports: queue.Queue[Any] = queue.Queue()

    def on_report(event: evt.Event) -> tuple[int, None]:
        reports.put((event.event_type, event.event_information))
        return 0x0000, None

    entity = AE("MODALITY")
    entity.add_requested_context(CR, EXPLICIT)
    entity.add_requested_context(STORAGE_COMMITMENT, syntax)
    association = entity.associate(HOST, running.port, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)])
    assert association.is_established
    try:
        yield association, reports
    finally:
        association.release()


def ask(association: Association, ds: Dataset, action: int = 1) -> int:
    status, _ = association.send_n_action(ds, action, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
    return int(status.Status)


def take(reports: "queue.Queue[Any]") -> tuple[int, Dataset]:
    """The next report. pynetdicom's SCU can wait for ever when it sends or releases while its handler still returns."""
    report: tuple[int, Dataset] = reports.get(timeout=5)
    time.sleep(0.3)
    return report


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_stored_instances_are_committed_and_others_named_with_the_reason(tmp_path: Path, syntax: str) -> None:
    with listening(tmp_path) as running, scu(running, syntax) as (association, reports):
        stored = instance()
        assert association.send_c_store(stored).Status == 0
        wanted = request((CR, stored.SOPInstanceUID))
        assert ask(association, wanted) == 0
        event_type, information = take(reports)
        assert event_type == 1
        assert information.TransactionUID == wanted.TransactionUID
        assert information.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == stored.SOPInstanceUID
        assert "FailedSOPSequence" not in information

        wanted = request(
            (CR, stored.SOPInstanceUID), (CR, "1.2.3"), ("1.2.840.10008.5.1.4.1.1.4", stored.SOPInstanceUID)
        )
        assert ask(association, wanted) == 0
        event_type, information = take(reports)
        assert event_type == 2
        reasons = [item.FailureReason for item in information.FailedSOPSequence]
        assert reasons == [0x0112, 0x0119]
        assert len(information.ReferencedSOPSequence) == 1


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    with listening(tmp_path) as running, scu(running) as (association, reports):
        assert ask(association, request((CR, "1.2.3")), action=2) == dimse.NO_SUCH_ACTION
        empty = Dataset()
        empty.TransactionUID = generate_uid()
        assert ask(association, empty) == dimse.PROCESSING_FAILURE
        assert reports.empty()


def test_unknown_peers_get_no_commitment(tmp_path: Path) -> None:
    peers = [{"ae_title": "MODALITY", "hosts": ["192.0.2.1"]}]
    with listening(tmp_path, peers=peers) as running, scu(running) as (association, _):
        assert ask(association, request((CR, "1.2.3"))) == dimse.NOT_AUTHORISED


def test_report_goes_to_the_configured_address_when_the_peer_left(tmp_path: Path) -> None:
    reports: queue.Queue[Any] = queue.Queue()

    def on_report(event: evt.Event) -> tuple[int, None]:
        reports.put((event.event_type, event.event_information.TransactionUID))
        return 0x0000, None

    modality = AE("MODALITY")
    modality.add_supported_context(STORAGE_COMMITMENT, scu_role=True, scp_role=True)
    server = modality.start_server((HOST, 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)])
    port = server.socket.getsockname()[1]
    home = {"kind": "cstore", "name": "modality", "host": HOST, "port": port, "ae_title": "MODALITY"}
    try:
        with listening(tmp_path, destinations=[home]) as running:
            stored = instance()
            with RawPeer(running.port) as peer:
                peer.associate(
                    calling="MODALITY",
                    contexts={1: (CR, [EXPLICIT]), 3: (STORAGE_COMMITMENT, [ImplicitVRLittleEndian])},
                )
                assert peer.store(stored) == 0
                command = dimse.encode_command(
                    {
                        dimse.REQUESTED_CLASS: STORAGE_COMMITMENT,
                        dimse.COMMAND_FIELD: dimse.N_ACTION_RQ,
                        dimse.MESSAGE_ID: 2,
                        dimse.DATA_SET_TYPE: 0,
                        dimse.REQUESTED_INSTANCE: STORAGE_COMMITMENT_INSTANCE,
                        dimse.ACTION_TYPE: 1,
                    }
                )
                wanted = request((CR, stored.SOPInstanceUID))
                peer.send(p_data(3, 3, command) + p_data(3, 2, encoded(wanted)))
                assert peer.response().number(dimse.STATUS) == 0
                peer.send(RELEASE_RQ)  # without an answer to the report that came meanwhile
            assert reports.get(timeout=10) == (1, wanted.TransactionUID)
    finally:
        server.shutdown()


def encoded(ds: Dataset) -> bytes:
    data = encode(ds, True, True)
    assert data is not None
    return data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        b"\x08\x00\x99\x11\xff\xff\xff\xff",
        b"\x08\x00\x95\x11\xff\xff\xff\x00abc",
        b"\x08\x00\x95\x11\x04\x00\x00\x001.2\0",
    ],
)
def test_malformed_references_are_named_errors(data: bytes) -> None:
    with pytest.raises(ReferencesError):
        parse_references(data, ImplicitVRLittleEndian)
