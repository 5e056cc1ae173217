"""One C-STORE: bytes on disk, row committed, then the status (PS3.4 annex B.2.3).

The order is the promise: Success is only ever returned after `Part.keep` (rename, fsync of file and folder) and
`Queue.admit` (a committed transaction). Whatever fails before leaves no file and no row, and the peer is told.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from inference.errors import GenuError, ResourceError, UnreadableError
from plugin import dimse, logs
from plugin.identifiers import Identifiers, identify
from plugin.negotiation import AcceptedContext, is_uid
from plugin.outcomes import Caller, Outcome
from plugin.rows import ReceivedInstance
from plugin.storage import InstanceStore, Part, file_meta

_log = logging.getLogger(__name__)


class Admits(Protocol):
    """What reception needs of the queue."""

    def admit(self, received: ReceivedInstance) -> bool:
        """Commit a row; False when the instance is there already. Raises ResourceError."""


class Receiving:
    """One data set on its way in. A context manager: leaving it without success leaves nothing on disk."""

    def __init__(
        self, reception: "Reception", caller: Caller, context: AcceptedContext, command: dimse.Command
    ) -> None:
        self._reception = reception
        self._caller = caller
        self._context = context
        self._class = command.text(dimse.AFFECTED_CLASS)
        self._instance = command.text(dimse.AFFECTED_INSTANCE)
        self._begun = time.monotonic()
        self._part: Part | None = None
        self._refused = self._examine(command)
        if self._refused is None:
            self._open()

    def _examine(self, command: dimse.Command) -> Outcome | None:
        """What is wrong before the data set is seen, if anything."""
        if not self._caller.may_store:
            return Outcome(dimse.NOT_AUTHORISED, "this node may not store here: see listener.peers")
        if not command.has_data_set:
            return Outcome(dimse.CANNOT_UNDERSTAND, "C-STORE without a data set")
        if self._class != self._context.abstract_syntax:
            return Outcome(dimse.DOES_NOT_MATCH, "SOP Class is not that of the presentation context")
        if not is_uid(self._instance):
            return Outcome(dimse.CANNOT_UNDERSTAND, "Affected SOP Instance UID is not a UID")
        return None

    def _open(self) -> None:
        meta = file_meta(self._class, self._instance, self._context.transfer_syntax, self._caller.source.calling_ae)
        try:
            self._part = self._reception.store.part(meta)
        except ResourceError as error:
            self._out_of_resources(error)

    def _out_of_resources(self, error: GenuError) -> Outcome:
        logs.event(_log, "instance.not_stored", level=logging.ERROR, sop_uid=self._instance, error=str(error))
        self._discard()
        self._refused = Outcome(dimse.OUT_OF_RESOURCES, "out of resources: the disk or the queue fails")
        return self._refused

    def _discard(self) -> None:
        if self._part is not None:
            self._part.discard()
            self._part = None

    def write(self, chunk: memoryview) -> None:
        """Take the next bytes; after a refusal they are let go, so that the peer can be answered in its turn."""
        if self._part is None:
            return
        try:
            self._part.write(chunk)
        except ResourceError as error:
            self._out_of_resources(error)

    def finish(self) -> Outcome:
        """The data set is complete: make it durable and commit its row, or say why not."""
        if self._refused is not None or self._part is None:
            return self._refused or Outcome(dimse.PROCESSING_FAILURE)
        try:
            identifiers = self._identify(self._part)
            refused = self._compare(identifiers)
            return refused or self._admit(self._part, identifiers)
        except UnreadableError as error:
            reason = error.refusal.reason
            logs.event(_log, "instance.not_understood", level=logging.WARNING, sop_uid=self._instance, error=reason)
            return Outcome(dimse.CANNOT_UNDERSTAND, reason)
        except GenuError as error:  # the disk or the queue: whatever it is, this instance is not stored
            return self._out_of_resources(error)

    def _identify(self, part: Part) -> Identifiers:
        with part.reader() as file:
            return identify(file, part.data_offset, part.data_offset + part.size, self._context.transfer_syntax)

    def _compare(self, identifiers: Identifiers) -> Outcome | None:
        if identifiers.sop_class_uid != self._class:
            return Outcome(dimse.DOES_NOT_MATCH, "SOP Class UID differs between command and data set")
        if identifiers.sop_instance_uid != self._instance:
            return Outcome(dimse.DOES_NOT_MATCH, "SOP Instance UID differs between command and data set")
        return None

    def _admit(self, part: Part, identifiers: Identifiers) -> Outcome:
        kept = part.keep()
        received = ReceivedInstance(
            study_uid=identifiers.study_instance_uid,
            series_uid=identifiers.series_instance_uid,
            sop_uid=self._instance,
            sop_class_uid=self._class,
            transfer_syntax=self._context.transfer_syntax,
            relative_path=kept.relative_path,
            size=kept.size,
            sha256=kept.sha256,
            calling_ae=self._caller.source.calling_ae,
            peer_host=self._caller.source.peer_host,
            received_at=self._reception.clock(),
        )
        is_new = self._reception.queue.admit(received)
        if is_new:
            part.release()
        logs.event(
            _log,
            "instance.received",
            study_uid=received.study_uid,
            sop_uid=received.sop_uid,
            is_new=is_new,
            bytes=received.size,
            seconds=round(time.monotonic() - self._begun, 4),
        )
        return Outcome(dimse.SUCCESS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()


@dataclass(frozen=True)
class Reception:
    """Where received instances go. `clock` gives POSIX seconds."""

    store: InstanceStore
    queue: Admits
    clock: Callable[[], float] = time.time

    def receive(self, caller: Caller, context: AcceptedContext, command: dimse.Command) -> Receiving:
        """Begin one C-STORE."""
        return Receiving(self, caller, context, command)
