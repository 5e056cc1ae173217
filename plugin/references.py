"""The data set of a Storage Commitment request: a transaction and the instances it names (PS3.4 table J.3-1).

Read by hand because it comes from the network: one flat pass over bytes that are already bounded, without recursion.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from inference.errors import GenuError
from plugin.identifiers import BIG_ENDIAN, IMPLICIT, SHORT_LENGTHS
from plugin.negotiation import is_uid, text_of

_UNDEFINED = 0xFFFFFFFF
_ITEM = 0xFFFEE000
_REFERENCED_SEQUENCE = 0x00081199
_REFERENCED_CLASS = 0x00081150
_REFERENCED_INSTANCE = 0x00081155
_TRANSACTION = 0x00081195
MAX_REFERENCES = 20_000


class ReferencesError(GenuError):
    """The request does not say which instances are meant."""


@dataclass(frozen=True)
class Reference:
    """One instance whose storage is asked for."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class CommitmentRequest:
    """What an N-ACTION asks: every reference has two valid UIDs."""

    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass
class _Reading:
    transaction: str = ""
    items: list[dict[int, str]] = field(default_factory=list)


def _elements(data: bytes, transfer_syntax: str) -> Iterator[tuple[int, bytes]]:
    """Tags and values; the referenced sequence and its items are entered, all other values are whole."""

    def number(start: int, stop: int) -> int:
        return int.from_bytes(data[start:stop], "big" if transfer_syntax == BIG_ENDIAN else "little")

    position = 0
    while position < len(data):
        tag = (number(position, position + 2) << 16) | number(position + 2, position + 4)
        if transfer_syntax == IMPLICIT or tag >> 16 == 0xFFFE:
            start = position + 8
            length = number(position + 4, start)
        else:
            short = data[position + 4 : position + 6] in SHORT_LENGTHS
            start = position + (8 if short else 12)
            length = number(position + (6 if short else 8), start)
        if start > len(data):
            raise ReferencesError("the data set ends in the middle of an element")
        if tag == _REFERENCED_SEQUENCE or tag >> 16 == 0xFFFE:
            yield tag, b""
            position = start
            continue
        if length == _UNDEFINED or start + length > len(data):
            raise ReferencesError("an element is longer than the data set")
        yield tag, data[start : start + length]
        position = start + length


def parse_references(data: bytes, transfer_syntax: str) -> CommitmentRequest:
    """Read the request; raises ReferencesError when a UID is missing or malformed, or when there are too many."""
    reading = _Reading()
    for tag, value in _elements(data, transfer_syntax):
        if tag == _TRANSACTION:
            reading.transaction = text_of(value)
        elif tag == _ITEM:
            reading.items.append({})
        elif tag in (_REFERENCED_CLASS, _REFERENCED_INSTANCE) and reading.items:
            reading.items[-1][tag] = text_of(value)
        if len(reading.items) > MAX_REFERENCES:
            raise ReferencesError(f"more than {MAX_REFERENCES} instances in one request")
    references = tuple(
        Reference(item.get(_REFERENCED_CLASS, ""), item.get(_REFERENCED_INSTANCE, "")) for item in reading.items
    )
    if not is_uid(reading.transaction) or not references:
        raise ReferencesError("Transaction UID or Referenced SOP Sequence is missing")
    if not all(is_uid(item.sop_class_uid) and is_uid(item.sop_instance_uid) for item in references):
        raise ReferencesError("a Referenced SOP Class or Instance UID is missing or not a UID")
    return CommitmentRequest(reading.transaction, references)
