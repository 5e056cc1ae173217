"""What is sent, and what a destination said about it: the words that every kind of destination and the deliverer share.

A destination that is down raises UnreachableError; one that breaks off at one object raises DeliveryError.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pynetdicom.status import code_to_category

from inference.errors import DeliveryError

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
    study_uid: str = ""


class Session(Protocol):
    """An open way to a destination."""

    def send(self, item: Outgoing) -> Verdict:
        """Deliver one object. Raises DeliveryError when the way is lost, UnreachableError when it is down."""


def judge(status: int, service: str = "C-STORE") -> Verdict:
    """A storage status as a verdict: success and warnings are stored; A7xx may mend; every other failure refuses.

    "Duplicate SOP Instance" is how some archives answer what they hold already, which a delivery cut off by a kill is.
    """
    if status == 0x0000:
        return Verdict(Outcome.STORED)
    if code_to_category(status) == "Warning" or status == DUPLICATE_INSTANCE:
        return Verdict(Outcome.STORED, f"stored with warning {shown_status(status)}")
    if status in OUT_OF_RESOURCES:
        return Verdict(Outcome.DEFERRED, f"{service} status {shown_status(status)}: out of resources")
    return Verdict(Outcome.REFUSED, f"{service} status {shown_status(status)}")


def shown_status(status: object) -> str:
    """A status as the standard writes it."""
    return f"0x{status:04X}" if isinstance(status, int) else "nothing"


def read_content(item: Outgoing) -> bytes | Verdict:
    """The bytes of the file, or the verdict that it is lost."""
    try:
        return item.path.read_bytes()
    except OSError as error:
        return Verdict(Outcome.REFUSED, f"the result file cannot be read on our disk: {error.strerror}")
