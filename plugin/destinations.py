"""Where results go: a folder, a remote Storage SCP (PS3.4 annex B), or a web server (plugin.web_destinations).

Each object is confirmed by itself, by a Verdict. A destination that is down raises UnreachableError; an association
that breaks off in the middle raises DeliveryError from `send`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Any

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from inference.errors import ConfigurationError, DeliveryError
from plugin.logs import safe_uid
from plugin.settings import CStoreDestination, Destination, FolderDestination
from plugin.tls import client_context
from plugin.verdicts import Outcome, Outgoing, Session, UnreachableError, Verdict, judge, read_content, shown_status
from plugin.web_destinations import opened_web

CLOSING_SECONDS = 2.0
VERIFICATION = "1.2.840.10008.1.1"


@contextmanager
def opened(destination: Destination, items: Sequence[Outgoing], our_title: str) -> Iterator[Session]:
    """A session for these objects, one association at a remote node. Raises UnreachableError when it is down."""
    if isinstance(destination, FolderDestination):
        yield _folder(destination)
        return
    if not isinstance(destination, CStoreDestination):
        with opened_web(destination) as session:
            yield session
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
            return "" if code == 0 else f"{_where(destination)} answers C-ECHO with {shown_status(code)}"
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
        content = read_content(item)
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
