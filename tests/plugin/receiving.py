"""What the tests of reception share: a listener on a free port, small instances, DCMTK, a peer of raw bytes."""

import io
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from plugin import dimse
from plugin.association import Services
from plugin.commitment import Commitment
from plugin.jobs import Queue
from plugin.listener import Listener
from plugin.reception import Reception
from plugin.settings import Settings, load
from plugin.storage import InstanceStore

CR = str(ComputedRadiographyImageStorage)
EXPLICIT = str(ExplicitVRLittleEndian)
IMPLICIT = "1.2.840.10008.1.2"
VERIFICATION = "1.2.840.10008.1.1"
HOST = "127.0.0.1"


@dataclass
class Running:
    """A listener and what it fills."""

    listener: Listener
    queue: Queue
    settings: Settings

    @property
    def port(self) -> int:
        return self.listener.port

    def rows(self) -> list[dict[str, Any]]:
        with self.queue.database.read() as run:
            return [dict(row) for row in run.connection.execute("SELECT * FROM instance ORDER BY id")]

    def files(self) -> list[Path]:
        return sorted(
            path
            for folder in ("incoming", "instances")
            for path in (self.settings.data_dir / folder).iterdir()
            if path.is_file()
        )

    def stored(self, row: dict[str, Any]) -> Path:
        return self.settings.data_dir / row["relative_path"]


@contextmanager
def listening(
    folder: Path, *, destinations: list[dict[str, Any]] | None = None, request_seconds: float = 10.0, **listener: Any
) -> Iterator[Running]:
    """A running listener in this process; `listener` are its settings."""
    values = {"port": 0, "min_free_bytes": 0} | listener
    settings = load(None, {"data_dir": folder, "listener": values, "destinations": destinations or []})
    with ExitStack() as stack:
        store = InstanceStore(folder, min_free_bytes=settings.listener.min_free_bytes)
        stack.callback(store.close)
        queue = Queue.open(settings)
        stack.callback(queue.close)
        commitment = Commitment(queue, settings.listener.ae_title, settings.delivery_targets)
        service = Listener(settings, Services(Reception(store, queue), commitment), request_seconds=request_seconds)
        commitment.start()
        stack.callback(commitment.stop)
        service.start()
        stack.callback(service.stop, 3.0)
        yield Running(service, queue, settings)


def instance(sop_class: str = CR, *, syntax: str = EXPLICIT, pixels: int = 1000, **elements: Any) -> Dataset:
    """A small phantom instance with file meta; `elements` are DICOM keywords."""
    ds = Dataset()
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = generate_uid()
    ds.PatientName = "PHANTOM"
    ds.PatientID = "PHANTOM"
    ds.StudyInstanceUID = generate_uid()
    ds.SeriesInstanceUID = generate_uid()
    ds.PixelData = os.urandom(pixels)
    ds["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta = meta
    return ds


def data_set_bytes(ds: Dataset) -> bytes:
    """The data set as it goes over the wire."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return raw_data_set(buffer.getvalue())


def raw_data_set(file: bytes) -> bytes:
    """What follows the file meta information of a DICOM file."""
    (length,) = struct.unpack("<L", file[140:144])
    return file[144 + length :]


def write(ds: Dataset, path: Path) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


def dcmtk(program: str, *arguments: object, ok: bool = True) -> str:
    """Run one of DCMTK's programs; what it said, after checking how it ended."""
    done = subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"TCP_NODELAY": "1"},
        check=False,
    )
    said = done.stdout + done.stderr
    assert (done.returncode == 0) is ok, f"{program} ended with {done.returncode}: {said}"
    return said


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll until the condition holds; fails the test when it does not within `seconds`."""
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop, f"waited {seconds} s in vain"
        time.sleep(0.02)


# ---- the upper layer by hand


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def associate_rq(
    contexts: dict[int, tuple[str, list[str]]] | None = None,
    *,
    calling: str = "RAW",
    called: str = "GENU",
    max_pdu: int = 16384,
    extra_user: bytes = b"",
    version: int = 1,
    application: str = "1.2.840.10008.3.1.1.1",
) -> bytes:
    """An A-ASSOCIATE-RQ PDU."""
    contexts = contexts or {1: (CR, [EXPLICIT]), 3: (VERIFICATION, [IMPLICIT])}
    body = struct.pack(">HH16s16s32x", version, 0, called.ljust(16).encode(), calling.ljust(16).encode())
    body += item(0x10, application.encode())
    for number, (abstract, syntaxes) in contexts.items():
        inner = item(0x30, abstract.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
        body += item(0x20, bytes((number, 0, 0, 0)) + inner)
    body += item(0x50, item(0x51, struct.pack(">L", max_pdu)) + item(0x52, b"1.2.3") + extra_user)
    return struct.pack(">BBL", 1, 0, len(body)) + body


def p_data(context: int, control: int, payload: bytes) -> bytes:
    """A P-DATA-TF with one PDV; control: 1 command, 2 last."""
    pdv = struct.pack(">LBB", len(payload) + 2, context, control) + payload
    return struct.pack(">BBL", 4, 0, len(pdv)) + pdv


def store_rq(sop_instance: str, *, sop_class: str = CR, message_id: int = 1, has_data_set: bool = True) -> bytes:
    """A C-STORE-RQ command set."""
    return dimse.encode_command(
        {
            dimse.AFFECTED_CLASS: sop_class,
            dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
            dimse.MESSAGE_ID: message_id,
            0x0700: 0,
            dimse.DATA_SET_TYPE: 0 if has_data_set else dimse.NO_DATA_SET,
            dimse.AFFECTED_INSTANCE: sop_instance,
        }
    )


ECHO_RQ = dimse.encode_command(
    {
        dimse.AFFECTED_CLASS: VERIFICATION,
        dimse.COMMAND_FIELD: dimse.C_ECHO_RQ,
        dimse.MESSAGE_ID: 7,
        dimse.DATA_SET_TYPE: dimse.NO_DATA_SET,
    }
)
RELEASE_RQ = bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0))


class RawPeer:
    """A TCP peer that says exactly what it is told."""

    def __init__(self, port: int, sock: socket.socket | None = None) -> None:
        self.sock = sock or socket.create_connection((HOST, port), timeout=20)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def pdu(self) -> tuple[int, bytes]:
        """The next PDU from the listener; (0, b"") when it closed the connection."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        return head[0], self._exactly(int.from_bytes(head[2:6], "big"))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.sock.recv(count - len(data))
            except ConnectionResetError:
                return b""
            if not more:
                return b""
            data += more
        return data

    def associate(self, **request: Any) -> bytes:
        self.send(associate_rq(**request))
        kind, body = self.pdu()
        assert kind == 2, f"no A-ASSOCIATE-AC but {kind}: {body.hex()}"
        return body

    def response(self) -> dimse.Command:
        """The next message, which has to be a command set in one PDV."""
        kind, body = self.pdu()
        assert kind == 4, f"no P-DATA-TF but {kind}: {body.hex()}"
        return dimse.parse_command(body[6:])

    def store(self, ds: Dataset, context: int = 1, chunk: int = 16000) -> int:
        """One whole C-STORE; its status."""
        self.send(p_data(context, 3, store_rq(ds.SOPInstanceUID, sop_class=ds.SOPClassUID)))
        data = data_set_bytes(ds)
        for start in range(0, len(data), chunk):
            last = 2 if start + chunk >= len(data) else 0
            self.send(p_data(context, last, data[start : start + chunk]))
        status = self.response().number(dimse.STATUS)
        assert status is not None
        return status

    def echo(self, context: int = 3) -> int | None:
        self.send(p_data(context, 3, ECHO_RQ))
        return self.response().number(dimse.STATUS)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "RawPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: Path) -> Dataset:
    return pydicom.dcmread(path)
