"""Destinations: real associations, real DCMTK, real folders."""

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from inference.errors import DeliveryError
from plugin.destinations import echo, opened
from plugin.settings import CStoreDestination, FolderDestination, Tls
from plugin.verdicts import Outcome, Outgoing, UnreachableError, Verdict, judge
from tests.plugin.peers import archive, free_port, storescp
from tests.plugin.queue_helpers import SC, SR

# pynetdicom drops the socket of a refused connection without closing it.
refused_connection = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


def item(folder: Path, number: int, sop_class: str = SR) -> Outgoing:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = f"2.25.7{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.1", "2.25.2"
    dataset.PatientID, dataset.PatientName, dataset.Modality = "P", "A^B", "SR"
    path = folder / f"{number}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return Outgoing(path, sop_class, str(dataset.SOPInstanceUID))


def pacs(port: int, ae_title: str = "PACS") -> CStoreDestination:
    return CStoreDestination(host="127.0.0.1", port=port, ae_title=ae_title, connect_seconds=5, response_seconds=5)


def send(destination: CStoreDestination | FolderDestination, items: list[Outgoing]) -> list[Verdict]:
    with opened(destination, items, "GENU") as session:
        return [session.send(one) for one in items]


# ---- C-STORE


def test_dcmtk_stores_what_we_send_in_one_association(tmp_path: Path) -> None:
    items = [item(tmp_path, 1, SC), item(tmp_path, 2, SR)]
    with storescp(tmp_path / "in") as port:
        assert send(pacs(port), items) == [Verdict(Outcome.STORED)] * 2
    received = sorted((tmp_path / "in").iterdir())
    assert [dcmread(path).SOPInstanceUID for path in received] == ["2.25.71", "2.25.72"]
    assert all(dcmread(path).PatientName == "A^B" for path in received)


def test_a_peer_that_wants_implicit_vr_gets_it(tmp_path: Path) -> None:
    with storescp(tmp_path / "in", "+xi") as port:
        assert send(pacs(port), [item(tmp_path, 1)]) == [Verdict(Outcome.STORED)]
    (path,) = (tmp_path / "in").iterdir()
    assert dcmread(path).file_meta.TransferSyntaxUID.is_implicit_VR


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, Outcome.STORED),
        (0xB000, Outcome.STORED),
        (0x0111, Outcome.STORED),  # duplicate SOP instance: it is there already
        (0xB006, Outcome.STORED),
        (0xB007, Outcome.STORED),
        (0x0107, Outcome.STORED),
        (0xA700, Outcome.DEFERRED),
        (0xA7FF, Outcome.DEFERRED),
        (0xA900, Outcome.REFUSED),
        (0xC000, Outcome.REFUSED),
        (0xCFFF, Outcome.REFUSED),
        (0x0122, Outcome.REFUSED),
        (0x0124, Outcome.REFUSED),
        (0x0110, Outcome.REFUSED),
        (0xFF00, Outcome.REFUSED),  # pending is no answer to a C-STORE
    ],
)
def test_statuses(status: int, outcome: Outcome) -> None:
    verdict = judge(status)
    assert verdict.outcome is outcome
    assert status == 0 or f"0x{status:04X}" in verdict.text


def test_each_object_has_its_own_verdict(tmp_path: Path) -> None:
    items = [item(tmp_path, n) for n in range(1, 5)]
    with archive([SR], statuses=[0xA700, 0xC123, 0xB000]) as peer:
        verdicts = send(pacs(peer.port), items)
    assert [v.outcome for v in verdicts] == [Outcome.DEFERRED, Outcome.REFUSED, Outcome.STORED, Outcome.STORED]
    assert "0xC123" in verdicts[1].text
    assert peer.stored == [items[2].sop_uid, items[3].sop_uid]
    assert peer.associations == 1


def test_a_class_that_the_peer_does_not_take_is_refused_the_others_are_sent(tmp_path: Path) -> None:
    items = [item(tmp_path, 1, SC), item(tmp_path, 2, SR)]
    with archive([SR]) as peer:
        refused, stored = send(pacs(peer.port), items)
    assert refused.outcome is Outcome.REFUSED
    assert SC in refused.text
    assert stored.outcome is Outcome.STORED


def test_no_class_accepted_at_all_leaves_the_object_to_be_refused(tmp_path: Path) -> None:
    with archive([]) as peer:
        (verdict,) = send(pacs(peer.port), [item(tmp_path, 1)])
    assert verdict.outcome is Outcome.REFUSED
    assert "presentation context" in verdict.text


def test_an_abort_in_the_middle_is_not_an_answer(tmp_path: Path) -> None:
    with archive([SR], statuses=[None]) as peer, pytest.raises(DeliveryError) as raised:
        send(pacs(peer.port), [item(tmp_path, 1)])
    assert not isinstance(raised.value, UnreachableError)


@refused_connection
def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="cannot be reached"):
        send(pacs(free_port()), [item(tmp_path, 1)])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid"),
        ({"tls": Tls(authorities=Path("/gone.pem"))}, "/gone.pem"),
    ],
)
def test_a_name_that_is_not_resolved_or_a_lost_certificate_is_down_not_fatal(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnreachableError, match=said):
        send(pacs(free_port()).model_copy(update=changes), [item(tmp_path, 1)])


def test_a_peer_that_rejects_us_says_why(tmp_path: Path) -> None:
    with archive([SR]) as peer, pytest.raises(UnreachableError, match=r"OTHER@127.*rejects.*[Cc]alled"):
        send(pacs(peer.port, "OTHER"), [item(tmp_path, 1)])


def test_a_lost_result_file_is_refused_not_fatal(tmp_path: Path) -> None:
    gone = item(tmp_path, 1)
    gone.path.unlink()
    with archive([SR]) as peer:
        lost, stored = send(pacs(peer.port), [gone, item(tmp_path, 2)])
    assert (lost.outcome, stored.outcome) == (Outcome.REFUSED, Outcome.STORED)


@refused_connection
def test_echo() -> None:
    with archive([]) as peer:
        assert echo(pacs(peer.port), "GENU") == ""
        assert "rejects" in echo(pacs(peer.port, "OTHER"), "GENU")
    assert "cannot be reached" in echo(pacs(free_port()), "GENU")


@refused_connection
def test_tls_to_dcmtk_and_only_to_who_can_prove_itself(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*new, *names], check=True, capture_output=True, timeout=30)
    with storescp(tmp_path / "in", "+tls", str(key), str(certificate), "-ic") as port:
        trusting = Tls(certificate=certificate, private_key=key, authorities=certificate)
        plain = pacs(port)
        assert send(plain.model_copy(update={"tls": trusting}), [item(tmp_path, 1)]) == [Verdict(Outcome.STORED)]
        for wrong in (plain, plain.model_copy(update={"tls": Tls()})):
            with pytest.raises(UnreachableError):
                send(wrong, [item(tmp_path, 2)])
    assert len(list((tmp_path / "in").iterdir())) == 1


# ---- folder


def test_a_file_gets_the_name_of_its_uid_and_the_same_bytes(tmp_path: Path) -> None:
    one = item(tmp_path, 1)
    target = FolderDestination(path=tmp_path / "a" / "b")
    for _ in range(2):
        assert send(target, [one]) == [Verdict(Outcome.STORED)]
    (file,) = target.path.iterdir()
    assert file.name == f"{one.sop_uid}.dcm"
    assert file.read_bytes() == one.path.read_bytes()


def test_a_part_left_by_a_crash_is_replaced(tmp_path: Path) -> None:
    one = item(tmp_path, 1)
    target = FolderDestination(path=tmp_path / "out")
    target.path.mkdir()
    (target.path / f".{one.sop_uid}.part").write_bytes(b"half")
    send(target, [one])
    assert [path.name for path in target.path.iterdir()] == [f"{one.sop_uid}.dcm"]


def test_file_and_folder_are_synced_before_it_counts_as_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    send(FolderDestination(path=tmp_path / "out"), [item(tmp_path, 1)])
    assert synced == [False, True]


def test_a_uid_that_is_none_never_becomes_a_path(tmp_path: Path) -> None:
    one = item(tmp_path, 1)
    evil = Outgoing(one.path, one.sop_class_uid, "../evil")
    assert send(FolderDestination(path=tmp_path / "out"), [evil])[0].outcome is Outcome.REFUSED
    assert not list(tmp_path.glob("**/*evil*"))


def test_a_share_that_is_not_mounted_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="mount"):
        send(FolderDestination(path=tmp_path / "share", create=False), [item(tmp_path, 1)])
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreachableError, match="file"):
        send(FolderDestination(path=tmp_path / "file" / "x"), [item(tmp_path, 1)])


def test_a_folder_that_cannot_be_written_is_down(tmp_path: Path) -> None:
    target = FolderDestination(path=tmp_path / "out")
    one = item(tmp_path, 1)
    (target.path / f".{one.sop_uid}.part").mkdir(parents=True)  # stands in for a full disk; root ignores modes
    with pytest.raises(UnreachableError, match="cannot write"):
        send(target, [one])
