"""A-ASSOCIATE: what a peer proposes, and the answer to it (PS3.8 sections 9.3.2 to 9.3.4, PS3.7 annex D.3).

Pure: bytes in, frozen rows out, bytes back. Nothing here trusts a length that the peer wrote.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from plugin.contexts import accepted_syntaxes
from plugin.wire import ProtocolError

MAX_REQUEST_BYTES = 1024 * 1024

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLEMENTATION_CLASS = "2.25.279839127243666048371254857024737022333"
IMPLEMENTATION_VERSION = "GENU_0_1"

# Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21).
REJECT_CONTEXT_NAME = (1, 1, 2)
REJECT_CALLING_AE = (1, 1, 3)
REJECT_CALLED_AE = (1, 1, 7)
REJECT_PROTOCOL_VERSION = (1, 2, 2)
REJECT_LOCAL_LIMIT = (2, 3, 2)

_ITEM_APPLICATION = 0x10
_ITEM_CONTEXT_RQ = 0x20
_ITEM_CONTEXT_AC = 0x21
_ITEM_ABSTRACT = 0x30
_ITEM_TRANSFER = 0x40
_ITEM_USER = 0x50
_ITEM_MAX_LENGTH = 0x51
_ITEM_IMPLEMENTATION = 0x52
_ITEM_ROLE = 0x54
_ITEM_VERSION = 0x55

_RESULT_ACCEPTED = 0
_RESULT_NO_ABSTRACT = 3
_RESULT_NO_TRANSFER = 4

_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
MAX_UID_LENGTH = 64


def is_uid(text: str) -> bool:
    """Whether `text` is a UID (PS3.5 section 9), leading zeros in a component forgiven as archives have them."""
    return len(text) <= MAX_UID_LENGTH and _UID.fullmatch(text) is not None


def text_of(value: bytes) -> str:
    """A UID or AE title as text: padding off, bytes that are not printable ASCII shown as question marks."""
    text = value.decode("ascii", errors="replace").strip("\0 ")
    return "".join(character if character.isascii() and character.isprintable() else "?" for character in text)


@dataclass(frozen=True)
class ProposedContext:
    """One presentation context of the request, transfer syntaxes in the order of the peer."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]

    @cached_property
    def result(self) -> tuple[int, str]:
        """Result code (PS3.8 table 9-18) and the transfer syntax chosen: the first of the peer's that is accepted."""
        accepted = accepted_syntaxes(self.abstract_syntax)
        if not accepted:
            return _RESULT_NO_ABSTRACT, ""
        for syntax in self.transfer_syntaxes:
            if syntax in accepted:
                return _RESULT_ACCEPTED, syntax
        return _RESULT_NO_TRANSFER, ""


@dataclass(frozen=True)
class AcceptedContext:
    """One presentation context that both sides use."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True)
class AssociationRequest:
    """An A-ASSOCIATE-RQ. `titles` are 64 bytes of titles and reserved bytes, to be echoed; `max_pdu` 0 is no limit."""

    titles: bytes
    called_ae: str
    calling_ae: str
    protocol_version: int
    application_context: str
    contexts: tuple[ProposedContext, ...]
    max_pdu: int
    roles: tuple[tuple[str, bool], ...]  # abstract syntax, whether the peer offers to be SCU of it

    @cached_property
    def accepted(self) -> dict[int, AcceptedContext]:
        """The contexts in use, by their id."""
        return {
            context.context_id: AcceptedContext(context.abstract_syntax, context.result[1])
            for context in self.contexts
            if context.result[0] == _RESULT_ACCEPTED
        }


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each item of a variable field; raises ProtocolError where a length does not fit."""
    position = 0
    while position < len(data):
        start = position + 4
        end = start + int.from_bytes(data[position + 2 : start], "big")
        if start > len(data) or end > len(data):
            raise ProtocolError("an item of the association request is longer than the request")
        yield data[position], data[start:end]
        position = end


def _proposed(data: bytes) -> ProposedContext:
    """One presentation context item of a request."""
    if len(data) < 4:
        raise ProtocolError("a presentation context item is too short")
    abstract = ""
    syntaxes: list[str] = []
    for kind, value in _items(data[4:]):
        if kind == _ITEM_ABSTRACT:
            abstract = text_of(value)
        elif kind == _ITEM_TRANSFER:
            syntaxes.append(text_of(value))
    return ProposedContext(data[0], abstract, tuple(syntaxes))


def _role(data: bytes) -> tuple[str, bool]:
    """One SCP/SCU role selection sub-item (PS3.7 D.3.3.4)."""
    length = int.from_bytes(data[:2], "big")
    if len(data) < length + 4:
        raise ProtocolError("a role selection item is too short")
    return text_of(data[2 : 2 + length]), bool(data[2 + length])


def parse_request(body: bytes) -> AssociationRequest:
    """Read the body of an A-ASSOCIATE-RQ PDU (without its first six bytes); raises ProtocolError."""
    if len(body) < 68:
        raise ProtocolError(f"an association request of {len(body)} bytes is too short")
    application = ""
    contexts: dict[int, ProposedContext] = {}
    roles: list[tuple[str, bool]] = []
    max_pdu = 0
    for kind, value in _items(body[68:]):
        if kind == _ITEM_APPLICATION:
            application = text_of(value)
        elif kind == _ITEM_CONTEXT_RQ:
            context = _proposed(value)
            contexts[context.context_id] = context
        elif kind == _ITEM_USER:
            for user_kind, user_value in _items(value):
                if user_kind == _ITEM_MAX_LENGTH:
                    max_pdu = int.from_bytes(user_value[:4], "big")
                elif user_kind == _ITEM_ROLE:
                    roles.append(_role(user_value))
    return AssociationRequest(
        titles=body[4:68],
        called_ae=text_of(body[4:20]),
        calling_ae=text_of(body[20:36]),
        protocol_version=int.from_bytes(body[:2], "big"),
        application_context=application,
        contexts=tuple(contexts.values()),
        max_pdu=max_pdu,
        roles=tuple(roles),
    )


def _item(kind: int, value: bytes) -> bytes:
    return bytes((kind, 0)) + len(value).to_bytes(2, "big") + value


def _uid_item(kind: int, uid: str) -> bytes:
    return _item(kind, uid.encode("ascii"))


def _context_answer(context: ProposedContext) -> bytes:
    result, syntax = context.result
    # The sub-item must be there in a refusal too, where its value means nothing.
    shown = syntax or "1.2.840.10008.1.2"
    return _item(_ITEM_CONTEXT_AC, bytes((context.context_id, 0, result, 0)) + _uid_item(_ITEM_TRANSFER, shown))


def _role_answer(uid: str, scu: bool) -> bytes:
    """Genu is only ever the SCP: the peer may be SCU, never SCP."""
    name = uid.encode("ascii")
    return _item(_ITEM_ROLE, len(name).to_bytes(2, "big") + name + bytes((int(scu), 0)))


def accept_pdu(request: AssociationRequest, max_pdu: int) -> bytes:
    """The A-ASSOCIATE-AC for a request; `max_pdu` is the longest P-DATA that the peer may send."""
    served = {context.abstract_syntax for context in request.accepted.values()}
    user = (
        _item(_ITEM_MAX_LENGTH, max_pdu.to_bytes(4, "big"))
        + _uid_item(_ITEM_IMPLEMENTATION, IMPLEMENTATION_CLASS)
        + b"".join(_role_answer(uid, scu) for uid, scu in request.roles if uid in served)
        + _uid_item(_ITEM_VERSION, IMPLEMENTATION_VERSION)
    )
    body = (
        b"\0\1\0\0"
        + request.titles
        + _uid_item(_ITEM_APPLICATION, APPLICATION_CONTEXT)
        + b"".join(_context_answer(context) for context in request.contexts)
        + _item(_ITEM_USER, user)
    )
    return b"\x02\0" + len(body).to_bytes(4, "big") + body


def reject_pdu(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return bytes((0x03, 0, 0, 0, 0, 4, 0, result, source, reason))
