"""One association from its A-ASSOCIATE-RQ to its end: messages in, services called, responses out (PS3.7, PS3.8).

One thread runs one association and reads the next bytes only when the last are dealt with. Every message has to keep a
minimum rate, every pause between messages has an end, and no length is believed before it is checked.
"""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from plugin import dimse, logs
from plugin.commitment import Commitment, Report
from plugin.contexts import STORAGE_CLASSES, STORAGE_COMMITMENT, VERIFICATION
from plugin.negotiation import AcceptedContext, AssociationRequest
from plugin.outcomes import Caller
from plugin.reception import Reception
from plugin.wire import (
    ABORT_BY_USER,
    ABORT_UNEXPECTED_PDU,
    ABORT_UNRECOGNISED_PDU,
    GRACE_SECONDS,
    PDU_ABORT,
    PDU_ASSOCIATE_RQ,
    PDU_P_DATA,
    PDU_RELEASE_RQ,
    Connection,
    PeerGoneError,
    ProtocolError,
    abort_pdu,
    data_pdus,
    release_response_pdu,
)

_log = logging.getLogger(__name__)

PDU_SLACK_BYTES = 6  # some peers count the PDU header into the maximum length
MAX_SMALL_DATA_SET_BYTES = 4 * 1024 * 1024  # data sets that are held in memory: N-ACTION, and requests not served
MAX_UNANSWERED = 16
POLL_SECONDS = 0.25
STOP_IDLE_SECONDS = 1.0


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    max_pdu: int
    max_instance: int
    idle: float
    message_grace: float = GRACE_SECONDS


@dataclass(frozen=True)
class Services:
    """What an association may call."""

    reception: Reception
    commitment: Commitment


@dataclass(frozen=True)
class Serving:
    """What all associations of one listener share; `stopping` asks them to come to an end."""

    services: Services
    limits: Limits
    stopping: threading.Event


@dataclass(frozen=True)
class Fragment:
    """The head of one presentation data value; its `length` bytes are still to be read."""

    context_id: int
    is_command: bool
    is_last: bool
    length: int


class Association:
    """An established association, served by `run` until it ends."""

    def __init__(
        self,
        connection: Connection,
        request: AssociationRequest,
        caller: Caller,
        serving: Serving,
    ) -> None:
        self._connection = connection
        self._request = request
        self._caller = caller
        self._services = serving.services
        self._limits = serving.limits
        self._stopping = serving.stopping
        self._left_in_pdu = 0
        self._unanswered: dict[int, Report] = {}
        self._reports = 0
        self.messages = 0

    def run(self) -> None:
        """Serve until the peer releases, or falls silent, or the listener stops. Raises PeerError on anything else."""
        try:
            while self._await_message():
                self._connection.set_deadline(self._limits.message_grace)
                first = self._fragment(release_allowed=True)
                if first is None:
                    self._connection.send(release_response_pdu())
                    return
                self._message(first)
                self.messages += 1
            self._connection.send(abort_pdu(*ABORT_BY_USER))
        finally:
            for report in self._unanswered.values():
                self._services.commitment.send_later(report)

    def _await_message(self) -> bool:
        """Wait for the first byte of a message; False when the peer is idle for too long, or when we stop."""
        if self._left_in_pdu:
            return True
        begun = time.monotonic()
        while not self._connection.wait(POLL_SECONDS):
            idle = time.monotonic() - begun
            if idle > self._limits.idle:
                logs.event(_log, "association.idle", calling_ae=self._caller.source.calling_ae, seconds=round(idle, 1))
                return False
            if self._stopping.is_set() and idle > STOP_IDLE_SECONDS:
                return False
        return True

    def _fragment(self, *, release_allowed: bool = False) -> Fragment | None:
        """The next fragment head; None for an A-RELEASE-RQ, where one is allowed."""
        while not self._left_in_pdu:
            kind, length = self._connection.pdu_header()
            if kind == PDU_P_DATA:
                if length > self._limits.max_pdu + PDU_SLACK_BYTES:
                    raise ProtocolError(f"a P-DATA-TF declares {length} bytes, {self._limits.max_pdu} were agreed")
                self._left_in_pdu = length
            elif kind == PDU_RELEASE_RQ and length == 4 and release_allowed:
                self._connection.take(4)
                return None
            elif kind == PDU_ABORT:
                raise PeerGoneError("the peer aborted")
            elif PDU_ASSOCIATE_RQ <= kind < PDU_ABORT:
                raise ProtocolError(f"PDU type {kind:02X} is not expected here", ABORT_UNEXPECTED_PDU)
            else:
                raise ProtocolError(f"PDU type {kind:02X} is unknown", ABORT_UNRECOGNISED_PDU)
        return self._fragment_head()

    def _fragment_head(self) -> Fragment:
        if self._left_in_pdu < 6:
            raise ProtocolError("a P-DATA-TF ends in the middle of a presentation data value")
        head = self._connection.take(6)
        length = int.from_bytes(head[:4], "big")
        if not 2 <= length <= self._left_in_pdu - 4:
            raise ProtocolError(f"a presentation data value of {length} bytes does not fit into its PDU")
        if head[4] not in self._request.accepted:
            raise ProtocolError(f"presentation context {head[4]} was not accepted")
        self._left_in_pdu -= length + 4
        return Fragment(head[4], bool(head[5] & 1), bool(head[5] & 2), length - 2)

    def _payload(self, first: Fragment | None, context_id: int, *, command: bool) -> Iterator[memoryview]:
        """The bytes of one command set or data set, fragment by fragment until the last."""
        fragment = first
        while True:
            fragment = fragment or self._fragment()
            if fragment is None or fragment.context_id != context_id or fragment.is_command is not command:
                raise ProtocolError("fragments of two messages are mixed")
            for chunk in self._connection.chunks(fragment.length):
                self._connection.credit(len(chunk))
                yield chunk
            if fragment.is_last:
                return
            fragment = None

    def _small(self, first: Fragment | None, context_id: int, limit: int, *, command: bool) -> bytes:
        """A command set or a small data set in memory."""
        collected = bytearray()
        for chunk in self._payload(first, context_id, command=command):
            collected += chunk
            if len(collected) > limit:
                raise ProtocolError(f"a {'command' if command else 'data'} set is larger than {limit} bytes")
        return bytes(collected)

    def _message(self, first: Fragment) -> None:
        context_id = first.context_id
        data = self._small(first, context_id, dimse.MAX_COMMAND_BYTES, command=True)
        command = dimse.parse_command(data)
        context = self._request.accepted[context_id]
        code = command.field_code
        if code == dimse.C_STORE_RQ and context.abstract_syntax in STORAGE_CLASSES:
            self._store(command, context_id, context)
        elif code == dimse.C_ECHO_RQ and context.abstract_syntax == VERIFICATION and not command.has_data_set:
            self.respond(context_id, dimse.response_to(command, dimse.SUCCESS))
        elif code == dimse.N_ACTION_RQ and context.abstract_syntax == STORAGE_COMMITMENT:
            self._commit(command, context_id, context)
        elif code & dimse.RESPONSE:
            self._unanswered.pop(command.number(dimse.RESPONDED_ID) or 0, None)
            if command.has_data_set:
                self._small(None, context_id, MAX_SMALL_DATA_SET_BYTES, command=False)
        elif code != dimse.C_CANCEL_RQ:
            if command.has_data_set:
                self._small(None, context_id, MAX_SMALL_DATA_SET_BYTES, command=False)
            comment = "this operation is not served in this presentation context"
            self.respond(context_id, dimse.response_to(command, dimse.UNRECOGNISED_OPERATION, comment))

    def respond(self, context_id: int, command: bytes, data_set: bytes = b"") -> None:
        """Send a command set, and the data set that belongs to it if there is one."""
        parts = list(data_pdus(context_id, True, command, self._request.max_pdu))
        if data_set:
            parts += data_pdus(context_id, False, data_set, self._request.max_pdu)
        self._connection.send(b"".join(parts))

    def _store(self, command: dimse.Command, context_id: int, context: AcceptedContext) -> None:
        """C-STORE (PS3.7 9.1.1): the data set goes to disk as it comes."""
        received = 0
        with self._services.reception.receive(self._caller, context, command) as receiving:
            if command.has_data_set:
                for chunk in self._payload(None, context_id, command=False):
                    received += len(chunk)
                    if received > self._limits.max_instance:
                        self._refuse_endless(command, context_id)
                    receiving.write(chunk)
            outcome = receiving.finish()
        self.respond(context_id, dimse.response_to(command, outcome.status, outcome.comment))

    def _refuse_endless(self, command: dimse.Command, context_id: int) -> None:
        """Answer A700 without waiting for the end of the data set, which may never come, and abort."""
        comment = f"the instance is larger than {self._limits.max_instance} bytes"
        self.respond(context_id, dimse.response_to(command, dimse.OUT_OF_RESOURCES, comment))
        raise ProtocolError(f"{comment}: see listener.max_instance_bytes", ABORT_BY_USER)

    def _commit(self, command: dimse.Command, context_id: int, context: AcceptedContext) -> None:
        """N-ACTION of Storage Commitment (PS3.4 annex J): answered, and the report sent at once on this association."""
        data = b""
        if command.has_data_set:
            data = self._small(None, context_id, MAX_SMALL_DATA_SET_BYTES, command=False)
        self._reports = self._reports % 0xFFFF + 1
        outcome, report = self._services.commitment.request(self._caller, context, command, data, self._reports)
        self.respond(context_id, dimse.response_to(command, outcome.status, outcome.comment))
        if report is not None:
            if len(self._unanswered) >= MAX_UNANSWERED:
                raise ProtocolError(f"{MAX_UNANSWERED} commitment reports are not answered yet", ABORT_BY_USER)
            self._unanswered[report.message_id] = report
            self.respond(context_id, report.command, report.encoded(context.transfer_syntax))
