"""Storage Commitment Push Model, as SCP (PS3.4 annex J): N-ACTION in, N-EVENT-REPORT out.

Genu commits to an instance when its bytes and its row are durable, which is the case before a C-STORE is answered, so
the report is ready at once. It goes out on the association of the request. When that ends before the peer answered, a
new association is opened to the destination of the settings whose AE title is the peer's; a peer that is no destination
cannot be called, and has to ask again. Reports that are still to be sent are held in memory only, likewise.
"""

import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset
from pynetdicom import build_role
from pynetdicom.dsutils import encode

from inference.errors import ResourceError
from plugin import dimse, logs
from plugin.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from plugin.destinations import associated
from plugin.identifiers import BIG_ENDIAN, IMPLICIT
from plugin.negotiation import AcceptedContext
from plugin.outcomes import Caller, Outcome
from plugin.references import CommitmentRequest, Reference, ReferencesError, parse_references
from plugin.settings import CStoreDestination
from plugin.verdicts import UnreachableError

_log = logging.getLogger(__name__)

ACTION_REQUEST = 1
EVENT_COMPLETE = 1
EVENT_FAILURES = 2
CLASS_CONFLICT = 0x0119
NO_SUCH_OBJECT = 0x0112
MAX_WAITING = 1000
ATTEMPTS = 3
RETRY_SECONDS = 10.0


class Holdings(Protocol):
    """What commitment needs of the queue."""

    def stored_class(self, sop_uid: str) -> str | None:
        """The SOP Class UID of an instance that is stored durably, or None. Raises ResourceError."""


@dataclass(frozen=True)
class Report:
    """The answer to one transaction: what is stored, and what is not and why (Failure Reason, PS3.3 C.14)."""

    peer_ae: str
    message_id: int
    transaction_uid: str
    stored: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]

    @property
    def event_type(self) -> int:
        """Event Type ID (PS3.4 table J.3-2)."""
        return EVENT_FAILURES if self.failed else EVENT_COMPLETE

    @property
    def command(self) -> bytes:
        """The N-EVENT-REPORT-RQ command set (PS3.7 10.3.1)."""
        return dimse.encode_command(
            {
                dimse.AFFECTED_CLASS: STORAGE_COMMITMENT,
                dimse.COMMAND_FIELD: dimse.N_EVENT_REPORT_RQ,
                dimse.MESSAGE_ID: self.message_id,
                dimse.DATA_SET_TYPE: dimse.DATA_SET_PRESENT,
                dimse.AFFECTED_INSTANCE: STORAGE_COMMITMENT_INSTANCE,
                dimse.EVENT_TYPE: self.event_type,
            }
        )

    def data_set(self) -> Dataset:
        """The event information."""
        event = Dataset()
        event.TransactionUID = self.transaction_uid
        if self.stored:
            event.ReferencedSOPSequence = [_item(reference) for reference in self.stored]
        if self.failed:
            event.FailedSOPSequence = [_item(reference, reason) for reference, reason in self.failed]
        return event

    def encoded(self, transfer_syntax: str) -> bytes:
        """The event information in a transfer syntax of the association."""
        data = encode(self.data_set(), transfer_syntax == IMPLICIT, transfer_syntax != BIG_ENDIAN)
        if data is None:
            raise TypeError("pynetdicom could not encode an event that Genu made")
        return data


def _item(reference: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item


class Commitment:
    """Answers requests, and sends the reports that could not go out on their own association from one thread."""

    def __init__(self, holdings: Holdings, ae_title: str, destinations: Sequence[object]) -> None:
        self._holdings = holdings
        self._ae_title = ae_title
        self._addresses = {
            destination.ae_title: destination
            for destination in destinations
            if isinstance(destination, CStoreDestination)
        }
        self._waiting: queue.Queue[Report | None] = queue.Queue(MAX_WAITING)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send_waiting, name="commitment", daemon=True)

    def start(self) -> None:
        """Begin to send reports that were left over."""
        self._thread.start()

    def stop(self) -> None:
        """Give up what is still waiting, and wait for the one being sent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def request(
        self, caller: Caller, context: AcceptedContext, command: dimse.Command, data: bytes, message_id: int
    ) -> tuple[Outcome, Report | None]:
        """One N-ACTION: its status, and the report that is to follow. `message_id` is for the report's request."""
        if not caller.may_store:
            return Outcome(dimse.NOT_AUTHORISED, "this node may not store here: see listener.peers"), None
        if command.number(dimse.ACTION_TYPE) != ACTION_REQUEST:
            return Outcome(dimse.NO_SUCH_ACTION, "the only action is 1, request storage commitment"), None
        if command.text(dimse.REQUESTED_INSTANCE) != STORAGE_COMMITMENT_INSTANCE:
            return Outcome(dimse.NO_SUCH_INSTANCE, "not the well-known storage commitment instance"), None
        try:
            wanted = parse_references(data, context.transfer_syntax)
            report = self._report(caller.source.calling_ae, wanted, message_id)
        except ReferencesError as error:
            return Outcome(dimse.PROCESSING_FAILURE, str(error)), None
        except ResourceError as error:
            logs.event(_log, "commitment.not_answered", level=logging.ERROR, error=str(error))
            return Outcome(dimse.PROCESSING_FAILURE, "the queue cannot be read at the moment"), None
        return Outcome(dimse.SUCCESS), report

    def _report(self, peer_ae: str, wanted: CommitmentRequest, message_id: int) -> Report:
        stored: list[Reference] = []
        failed: list[tuple[Reference, int]] = []
        for reference in wanted.references:
            sop_class = self._holdings.stored_class(reference.sop_instance_uid)
            if sop_class is None:
                failed.append((reference, NO_SUCH_OBJECT))
            elif sop_class != reference.sop_class_uid:
                failed.append((reference, CLASS_CONFLICT))
            else:
                stored.append(reference)
        logs.event(
            _log,
            "commitment.requested",
            transaction_uid=wanted.transaction_uid,
            stored=len(stored),
            failed=len(failed),
        )
        return Report(peer_ae, message_id, wanted.transaction_uid, tuple(stored), tuple(failed))

    def send_later(self, report: Report) -> None:
        """The association ended before the peer answered: call the peer, if its address is known."""
        if report.peer_ae not in self._addresses:
            logs.event(
                _log,
                "commitment.undelivered",
                level=logging.WARNING,
                transaction_uid=report.transaction_uid,
                error="the peer left before it took the report, and no destination of the settings has its AE title",
            )
            return
        try:
            self._waiting.put_nowait(report)
        except queue.Full:
            logs.event(_log, "commitment.dropped", level=logging.ERROR, transaction_uid=report.transaction_uid)

    def _send_waiting(self) -> None:
        while not self._stopping.is_set():
            report = self._waiting.get()
            if report is None:
                return
            sent = False
            for attempt in range(ATTEMPTS):
                sent = self._call(report)
                if sent or self._stopping.wait(RETRY_SECONDS * attempt):
                    break
            action = "commitment.delivered" if sent else "commitment.undelivered"
            level = logging.INFO if sent else logging.WARNING
            logs.event(_log, action, level=level, transaction_uid=report.transaction_uid)

    def _call(self, report: Report) -> bool:
        """One association to the peer, in the role of SCP, with one N-EVENT-REPORT."""
        address = self._addresses[report.peer_ae]
        role = build_role(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
        try:
            with associated(address, (STORAGE_COMMITMENT,), self._ae_title, [role]) as association:
                if not association.is_established:
                    return False
                status, _ = association.send_n_event_report(
                    report.data_set(), report.event_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
                )
        except (UnreachableError, ValueError, RuntimeError):  # the context was not accepted, or the peer left
            return False
        return bool(status) and status.Status == dimse.SUCCESS
