"""Where results go: a folder, or a remote Storage SCP (PS3.4 annex B). Each object is confirmed by itself.

A destination that is down raises UnreachableError; an association that breaks off in the middle raises DeliveryError
from `send`. What a destination says about one object is a Verdict.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from socket import socket
from typing import Any, Protocol

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.status import code_to_category

from inference.errors import ConfigurationError, DeliveryError
from plugin.logs import safe_uid
from plugin.settings import CStoreDestination, Destination, FolderDestination
from plugin.tls import client_context

CLOSING_SECONDS = 2.0
VERIFICATION = "1.2.840.10008.1.1"
OUT_OF_RESOURCES = range(0xA700, 0xA800)  # PS3.4 B.2.3: it may mend
DUPLICATE_INSTANCE = 0x0111  # PS3.7 annex C.5.1; our UIDs are derived, so what is there is this very object


class UnreachableError(DeliveryError):
    """The destination as a whole is down: no object has a chance now."""


class Outcome(StrEnum):
    """What became of one object."""

    STORED = "stored"
    DEFERRED = "deferred"  # not now: try again, without a limit
    REFUSED = "refused"  # not this object: try again a few times, then give it up


@dataclass(frozen=True)
class Verdict:
    """What a destination said about one object: the outcome, and the status or reason as text."""

    outcome: Outcome
    text: str = ""


@dataclass(frozen=True)
class Outgoing:
    """One result file on its way."""

    path: Path
    sop_class_uid: str
    sop_uid: str


class Session(Protocol):
    """An open way to a destination."""

    def send(self, item: Outgoing) -> Verdict:
        """Deliver one object. Raises DeliveryError when the way is lost, UnreachableError when it is down."""


@contextmanager
def opened(destination: Destination, items: Sequence[Outgoing], our_title: str) -> Iterator[Session]:
    """A session for these objects, one association at a remote node. Raises UnreachableError when it is down."""
    if isinstance(destination, FolderDestination):
        yield _folder(destination)
        return
    classes = tuple(dict.fromkeys(item.sop_class_uid for item in items))
    with associated(destination, classes, our_title) as association:
        yield AssociationSession(association)


def echo(destination: CStoreDestination, our_title: str) -> str:
    """Ask by C-ECHO whether a node is there; returns what is wrong, empty when it answers."""
    try:
        with associated(destination, (VERIFICATION,), our_title) as association:
            if not association.accepted_contexts:
                return f"{_where(destination)} accepts the association but not C-ECHO"
            code = getattr(association.send_c_echo(), "Status", None)
            return "" if code == 0 else f"{_where(destination)} answers C-ECHO with {_hex(code)}"
    except UnreachableError as error:
        return str(error)


class FolderSession:
    """Writes files named by our SOP Instance UIDs. A file is there whole or not at all, and survives a power cut."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(self, item: Outgoing) -> Verdict:
        """Copy, fsync, rename onto the final name, fsync the folder: doing it twice leaves one file."""
        if safe_uid(item.sop_uid) != item.sop_uid:
            return Verdict(Outcome.REFUSED, "its SOP Instance UID is no UID and cannot be a file name")
        content = _content(item)
        if isinstance(content, Verdict):
            return content
        part = self._folder / f".{item.sop_uid}.part"
        try:
            with part.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(self._folder / f"{item.sop_uid}.dcm")
            fsync_folder(self._folder)
        except OSError as error:
            raise UnreachableError(f"cannot write to the folder {self._folder}: {error.strerror}") from error
        return Verdict(Outcome.STORED)


class AssociationSession:
    """C-STORE over one association."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}

    def send(self, item: Outgoing) -> Verdict:
        """Store one instance and judge the status that the peer answers for it (PS3.4 B.2.3)."""
        if item.sop_class_uid not in self._accepted:
            return Verdict(Outcome.REFUSED, f"no presentation context accepted for SOP class {item.sop_class_uid}")
        if not item.path.is_file():
            return Verdict(Outcome.REFUSED, "the result file is missing on our disk")
        if not self._association.is_established:
            raise DeliveryError("the association was lost before the object was sent")
        answer = self._association.send_c_store(dcmread(item.path))
        code = getattr(answer, "Status", None)
        if code is None:
            raise DeliveryError("no answer to the C-STORE: the association was lost or the peer was too slow")
        return judge(int(code))


def judge(status: int) -> Verdict:
    """A C-STORE status as a verdict: success and warnings are stored; A7xx may mend; every other failure refuses.

    "Duplicate SOP Instance" is how some archives answer what they hold already, which a delivery cut off by a kill is.
    """
    if status == 0x0000:
        return Verdict(Outcome.STORED)
    if code_to_category(status) == "Warning" or status == DUPLICATE_INSTANCE:
        return Verdict(Outcome.STORED, f"stored with warning {_hex(status)}")
    if status in OUT_OF_RESOURCES:
        return Verdict(Outcome.DEFERRED, f"C-STORE status {_hex(status)}: out of resources")
    return Verdict(Outcome.REFUSED, f"C-STORE status {_hex(status)}")


def fsync_folder(folder: Path) -> None:
    """Make names in a folder durable (POSIX: a rename is not, until its folder is synced)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder(destination: FolderDestination) -> FolderSession:
    try:
        if destination.create:
            destination.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnreachableError(f"cannot make the folder {destination.path}: {error.strerror}") from error
    if not destination.path.is_dir():
        raise UnreachableError(f"the folder {destination.path} is not there: mount or make it")
    return FolderSession(destination.path)


@contextmanager
def associated(
    destination: CStoreDestination,
    classes: Sequence[str],
    our_title: str,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[Association]:
    """An association, released at the end. Raises UnreachableError when the peer is not there or rejects it.

    It is not established when the peer accepted the association but none of the contexts.
    """
    ae = AE(ae_title=destination.calling_ae_title or our_title)
    ae.connection_timeout = destination.connect_seconds
    ae.acse_timeout = destination.connect_seconds
    ae.dimse_timeout = destination.response_seconds
    ae.network_timeout = destination.response_seconds
    for sop_class in classes:
        ae.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    links: list[socket] = []
    opening = (evt.EVT_CONN_OPEN, lambda event: links.append(event.assoc.dul.socket.socket))
    options: dict[str, Any] = {"ae_title": destination.ae_title, "evt_handlers": [opening], "ext_neg": list(roles)}
    try:
        if destination.tls is not None:
            options["tls_args"] = (client_context(destination.tls), destination.host)
        association = ae.associate(destination.host, destination.port, **options)
    except ConfigurationError as error:  # certificates that were there when the service started
        raise UnreachableError(f"{_where(destination)} cannot be called: {error}") from error
    except OSError as error:  # pynetdicom resolves the name outside of its own error handling
        raise UnreachableError(f"{_where(destination)} cannot be reached: {error.strerror}") from error
    try:
        answer = association.acceptor.primitive
        # No context accepted is an answer about the objects, though pynetdicom aborts on it: the session refuses each.
        if not association.is_established and (answer is None or answer.result != 0 or association.accepted_contexts):
            raise UnreachableError(_why_not(association, _where(destination)))
        yield association
    finally:
        if association.is_established:
            association.release()
        association.dul.join(CLOSING_SECONDS)
        for link in links:  # pynetdicom does not close the socket of a connection that the peer closed first
            link.close()


def _why_not(association: Association, where: str) -> str:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return f"{where} rejects the association: {answer.reason_str}"
    return f"{where} cannot be reached, or broke off the association"


def _where(destination: CStoreDestination) -> str:
    return f"{destination.ae_title}@{destination.host}:{destination.port}"


def _hex(status: object) -> str:
    return f"0x{status:04X}" if isinstance(status, int) else "nothing"


def _content(item: Outgoing) -> bytes | Verdict:
    try:
        return item.path.read_bytes()
    except OSError as error:
        return Verdict(Outcome.REFUSED, f"the result file cannot be read on our disk: {error.strerror}")
