"""C-STORE and C-ECHO with real peers: what is kept, what is answered."""

import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from pydicom import uid
from pynetdicom import AE

from inference.errors import ConfigurationError
from plugin import dimse
from plugin.contexts import STORAGE_SYNTAXES
from plugin.storage import InstanceStore
from tests.plugin.receiving import (
    CR,
    EXPLICIT,
    HOST,
    IMPLICIT,
    RELEASE_RQ,
    RawPeer,
    associate_rq,
    data_set_bytes,
    dcmtk,
    instance,
    listening,
    p_data,
    raw_data_set,
    read,
    store_rq,
    wait_until,
    write,
)


def test_echo_by_dcmtk(tmp_path: Path) -> None:
    with listening(tmp_path) as running:
        assert "Success" in dcmtk("echoscu", "-v", "-aec", "ANY", HOST, running.port)


def test_bytes_are_kept_as_received_behind_our_file_meta(tmp_path: Path) -> None:
    ds = instance(PatientComments="BLANKS  INSIDE")
    with listening(tmp_path / "data") as running:
        dcmtk("storescu", "-aet", "SENDER", HOST, running.port, write(ds, tmp_path / "a.dcm"))
        (row,) = running.rows()
        kept = running.stored(row)
        assert raw_data_set(kept.read_bytes()) == raw_data_set((tmp_path / "a.dcm").read_bytes())
        meta = read(kept).file_meta
        assert meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert meta.SourceApplicationEntityTitle == "SENDER"
        assert meta.TransferSyntaxUID == row["transfer_syntax"]
        assert kept.stat().st_size == row["size"]
        assert (row["study_uid"], row["series_uid"]) == (ds.StudyInstanceUID, ds.SeriesInstanceUID)
        assert (row["calling_ae"], row["peer_host"]) == ("SENDER", "127.0.0.1")
        assert running.files() == [kept]


def test_bytes_that_no_writer_would_write_are_kept_too(tmp_path: Path) -> None:
    ds = instance(PatientComments="TRAILING BLANKS    ")
    data = data_set_bytes(ds).replace(b"PHANTOM ", b"\xffHANTOM\x00", 1)
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        peer.send(p_data(1, 3, store_rq(ds.SOPInstanceUID)) + p_data(1, 2, data))
        assert peer.response().number(dimse.STATUS) == dimse.SUCCESS
        assert raw_data_set(running.files()[0].read_bytes()) == data


def test_kept_file_is_a_dicom_file_for_dcmtk(tmp_path: Path) -> None:
    with listening(tmp_path / "data") as running:
        dcmtk("storescu", HOST, running.port, write(instance(), tmp_path / "a.dcm"))
        dcmtk("dcmftest", running.files()[0])


def test_same_instance_twice_is_one_instance(tmp_path: Path) -> None:
    file = write(instance(), tmp_path / "a.dcm")
    with listening(tmp_path / "data") as running:
        dcmtk("storescu", HOST, running.port, file, file)
        dcmtk("storescu", HOST, running.port, file)
        assert len(running.rows()) == 1
        assert len(running.files()) == 1


def test_same_uid_with_other_bytes_keeps_the_first(tmp_path: Path) -> None:
    first = instance()
    second = instance(SOPInstanceUID=first.SOPInstanceUID, StudyInstanceUID=first.StudyInstanceUID)
    second.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    with listening(tmp_path / "data") as running:
        dcmtk("storescu", HOST, running.port, write(first, tmp_path / "a.dcm"), write(second, tmp_path / "b.dcm"))
        (row,) = running.rows()
        assert running.stored(row).read_bytes().endswith(data_set_bytes(first))
        assert len(running.files()) == 1


@pytest.mark.parametrize("syntax", sorted(STORAGE_SYNTAXES))
def test_every_transfer_syntax_is_negotiated(tmp_path: Path, syntax: str) -> None:
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        body = peer.associate(contexts={1: (CR, ["1.2.3.4", syntax])})
        assert syntax.encode() in body


def test_syntaxes_that_the_issue_names_are_all_there() -> None:
    wanted = (
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
        uid.JPEG2000Lossless,
        uid.JPEG2000,
        uid.HTJ2KLossless,
        uid.RLELossless,
    )
    assert set(map(str, wanted)) <= STORAGE_SYNTAXES


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian])
def test_identifiers_are_found_in_every_encoding(tmp_path: Path, syntax: str) -> None:
    ds = instance(syntax=syntax)
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate(contexts={1: (CR, [syntax])})
        assert peer.store(ds) == dimse.SUCCESS
        (row,) = running.rows()
        assert row["study_uid"] == ds.StudyInstanceUID
        assert read(running.stored(row)).SeriesInstanceUID == ds.SeriesInstanceUID


def test_compressed_originals_of_real_scanners(tmp_path: Path, shared_data: Path) -> None:
    with tarfile.open(shared_data / "dicom" / "ct_transfer_syntaxes.tar.xz") as archive:
        archive.extractall(tmp_path / "ct", filter="data")
    files = sorted(path for path in (tmp_path / "ct").rglob("*.dcm"))
    with listening(tmp_path / "data") as running:
        entity = AE("PEER")
        for file in files:
            ds = read(file)
            if ds.file_meta.TransferSyntaxUID not in STORAGE_SYNTAXES:
                continue
            entity.requested_contexts = []
            entity.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
            association = entity.associate(HOST, running.port)
            assert association.is_established
            # One image in many syntaxes: each copy has to be an instance of its own.
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
            assert association.send_c_store(ds).Status == 0, file.name
            association.release()
            row = running.rows()[-1]
            assert row["transfer_syntax"] == ds.file_meta.TransferSyntaxUID
            assert read(running.stored(row)).PixelData == ds.PixelData
        assert len(running.rows()) >= 8


def test_classes_that_cannot_be_scored_are_kept_with_their_study(tmp_path: Path) -> None:
    classes = [
        uid.CTImageStorage,
        uid.UltrasoundImageStorage,
        uid.MRImageStorage,
        uid.EnhancedMRImageStorage,
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.XRayRadiofluoroscopicImageStorage,
        uid.XRayAngiographicImageStorage,
        uid.ComprehensiveSRStorage,
        uid.GrayscaleSoftcopyPresentationStateStorage,
        uid.KeyObjectSelectionDocumentStorage,
        uid.EncapsulatedPDFStorage,
        "1.3.12.2.1107.5.9.1",
    ]
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate(contexts={2 * i + 1: (str(c), [EXPLICIT]) for i, c in enumerate(classes)})
        for i, sop_class in enumerate(classes):
            assert peer.store(instance(str(sop_class)), context=2 * i + 1) == dimse.SUCCESS
        assert [row["sop_class_uid"] for row in running.rows()] == [str(c) for c in classes]


def test_unknown_abstract_and_transfer_syntaxes_are_refused_one_by_one(tmp_path: Path) -> None:
    with listening(tmp_path) as running:
        entity = AE("PEER")
        entity.add_requested_context("1.2.840.10008.5.1.4.1.2.2.1")  # Study Root FIND
        entity.add_requested_context(CR, "1.2.840.10008.1.2.999")
        entity.add_requested_context(uid.MRImageStorage)
        association = entity.associate(HOST, running.port)
        assert [context.result for context in association.rejected_contexts] == [3, 4]
        assert len(association.accepted_contexts) == 1
        association.release()


def test_data_set_of_another_class_is_a900(tmp_path: Path) -> None:
    ds = instance()
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        ds.SOPClassUID = str(uid.MRImageStorage)
        peer.send(p_data(1, 3, store_rq(ds.SOPInstanceUID)) + p_data(1, 2, data_set_bytes(ds)))
        response = peer.response()
        assert response.number(dimse.STATUS) == 0xA900
        assert "SOP Class" in response.text(dimse.ERROR_COMMENT)
        ds = instance()
        peer.send(p_data(1, 3, store_rq("1.2.3")) + p_data(1, 2, data_set_bytes(ds)))
        assert peer.response().number(dimse.STATUS) == 0xA900
        assert peer.store(instance()) == dimse.SUCCESS, "the association goes on"
        assert len(running.rows()) == len(running.files()) == 1


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_data_set_without_its_identifiers_is_c000(tmp_path: Path, keyword: str) -> None:
    ds = instance()
    delattr(ds, keyword)
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        assert peer.store(ds) == 0xC000
        assert running.rows() == running.files() == []


def test_bytes_that_are_no_data_set_are_c000(tmp_path: Path) -> None:
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        for garbage in (b"\0" * 5000, b"\xff" * 5000, b"GIF89a" * 100, b""):
            peer.send(p_data(1, 3, store_rq("1.2.3")) + p_data(1, 2, garbage))
            assert peer.response().number(dimse.STATUS) == 0xC000
        assert running.files() == []


def test_uids_from_the_network_never_become_paths(tmp_path: Path) -> None:
    with listening(tmp_path / "data") as running, RawPeer(running.port) as peer:
        peer.associate()
        evil = "../../../../tmp/evil"
        ds = instance(SOPInstanceUID="1" * len(evil))
        data = data_set_bytes(ds).replace(b"1" * len(evil), evil.encode())
        peer.send(p_data(1, 3, store_rq(evil)) + p_data(1, 2, data))
        assert peer.response().number(dimse.STATUS) == 0xC000
        good = instance()
        assert peer.store(good) == dimse.SUCCESS
        names = " ".join(path.name for path in (tmp_path / "data").rglob("*"))
        for value in (good.SOPInstanceUID, good.StudyInstanceUID, good.SeriesInstanceUID, "evil"):
            assert value not in names


def test_called_and_calling_titles_and_addresses(tmp_path: Path) -> None:
    peers = [{"ae_title": "KNOWN", "hosts": ["127.0.0.1"]}, {"ae_title": "ELSEWHERE", "hosts": ["192.0.2.7"]}]
    with listening(tmp_path, require_called_ae=True, peers=peers) as running:

        def reject(**request: str) -> bytes:
            with RawPeer(running.port) as peer:
                peer.send(associate_rq(**request))
                kind, body = peer.pdu()
                assert kind == 3
                return body[1:]

        assert reject(calling="STRANGER") == bytes((1, 1, 3))
        assert reject(calling="KNOWN", called="OTHER") == bytes((1, 1, 7))
        with RawPeer(running.port) as peer:
            peer.associate(calling="KNOWN")
            assert peer.store(instance()) == dimse.SUCCESS
        with RawPeer(running.port) as peer:
            peer.associate(calling="ELSEWHERE")
            assert peer.echo() == dimse.SUCCESS
            assert peer.store(instance()) == 0x0124
        assert len(running.rows()) == len(running.files()) == 1


def test_wrong_protocol_version_or_application_context_is_rejected(tmp_path: Path) -> None:
    with listening(tmp_path) as running:
        for request, reason in (({"version": 2}, (1, 2, 2)), ({"application": "1.2.3"}, (1, 1, 2))):
            with RawPeer(running.port) as peer:
                peer.send(associate_rq(**request))
                assert peer.pdu() == (3, bytes((0, *reason)))


def test_operation_that_is_not_served_is_answered_and_the_association_goes_on(tmp_path: Path) -> None:
    find = dimse.encode_command(
        {dimse.COMMAND_FIELD: 0x0020, dimse.MESSAGE_ID: 3, dimse.DATA_SET_TYPE: 0, dimse.AFFECTED_CLASS: CR}
    )
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        peer.send(p_data(1, 3, find) + p_data(1, 2, b"\0" * 100))
        response = peer.response()
        assert (response.field_code, response.number(dimse.STATUS)) == (0x8020, 0x0211)
        assert peer.echo() == dimse.SUCCESS
        peer.send(RELEASE_RQ)
        assert peer.pdu()[0] == 6


def test_many_small_fragments_and_several_in_one_pdu(tmp_path: Path) -> None:
    ds = instance(pixels=300)
    data = data_set_bytes(ds)
    command = store_rq(ds.SOPInstanceUID)
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        peer.send(p_data(1, 1, command[:20]) + p_data(1, 1, b"") + p_data(1, 3, command[20:]))
        pdvs = b"".join(p_data(1, 0, data[i : i + 1])[6:] for i in range(len(data))) + p_data(1, 2, b"")[6:]
        peer.send(bytes((4, 0)) + len(pdvs).to_bytes(4, "big") + pdvs)
        assert peer.response().number(dimse.STATUS) == dimse.SUCCESS
        assert running.stored(running.rows()[0]).read_bytes().endswith(data)


def test_stop_lets_an_instance_in_flight_finish(tmp_path: Path) -> None:
    ds = instance()
    data = data_set_bytes(ds)
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        peer.send(p_data(1, 3, store_rq(ds.SOPInstanceUID)) + p_data(1, 0, data[:100]))
        wait_until(lambda: bool(running.files()))
        stopper = threading.Thread(target=running.listener.stop, args=(10.0,))
        stopper.start()
        peer.send(p_data(1, 2, data[100:]))
        assert peer.response().number(dimse.STATUS) == dimse.SUCCESS
        stopper.join(8.0)
        assert not stopper.is_alive(), "an idle association must not hold up the stop"
        assert len(running.rows()) == 1


def test_a_taken_port_and_a_bad_folder_are_settings_errors(tmp_path: Path) -> None:
    with listening(tmp_path / "a") as running:
        with (
            pytest.raises(ConfigurationError, match=rf"listener.port {running.port}"),
            listening(tmp_path / "b", port=running.port),
        ):
            pass
        with pytest.raises(ConfigurationError, match="in use by another service"):
            InstanceStore(tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="data_dir"):
        InstanceStore(tmp_path / "file" / "data")


def test_listener_process_loads_nothing_that_decodes() -> None:
    script = (
        "import sys; import plugin.supervisor; "
        "bad = [m for m in sys.modules if m.split('.')[0] in "
        "('torch', 'torchvision', 'highdicom', 'timm')]; "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
