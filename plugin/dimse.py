"""DIMSE command sets: the few fields the listener reads and writes (PS3.7 section 9.3, 10.3 and annex E).

A command set is always Implicit VR Little Endian, group 0000 and small; it is read into a plain mapping of elements.
"""

from dataclasses import dataclass, field

from plugin.negotiation import text_of
from plugin.wire import ProtocolError

MAX_COMMAND_BYTES = 64 * 1024

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
N_EVENT_REPORT_RQ = 0x0100
N_ACTION_RQ = 0x0130
C_CANCEL_RQ = 0x0FFF
RESPONSE = 0x8000

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_ACTION = 0x0123
NOT_AUTHORISED = 0x0124
UNRECOGNISED_OPERATION = 0x0211
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

NO_DATA_SET = 0x0101
DATA_SET_PRESENT = 0x0001

AFFECTED_CLASS = 0x0002
REQUESTED_CLASS = 0x0003
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
RESPONDED_ID = 0x0120
DATA_SET_TYPE = 0x0800
STATUS = 0x0900
ERROR_COMMENT = 0x0902
AFFECTED_INSTANCE = 0x1000
REQUESTED_INSTANCE = 0x1001
EVENT_TYPE = 0x1002
ACTION_TYPE = 0x1008

_MAX_COMMENT = 64  # LO


@dataclass(frozen=True)
class Command:
    """One command set: element numbers of group 0000 to their raw values."""

    elements: dict[int, bytes] = field(repr=False)

    def number(self, element: int) -> int | None:
        """The value of a US element; None when it is absent or not of two bytes."""
        value = self.elements.get(element, b"")
        return int.from_bytes(value, "little") if len(value) == 2 else None

    def text(self, element: int) -> str:
        """The value of a UI or AE element without padding; empty when absent."""
        return text_of(self.elements.get(element, b""))

    @property
    def field_code(self) -> int:
        """Command Field (0000,0100); raises ProtocolError when it is missing."""
        code = self.number(COMMAND_FIELD)
        if code is None:
            raise ProtocolError("a command set has no Command Field (0000,0100)")
        return code

    @property
    def has_data_set(self) -> bool:
        """Whether a data set follows (0000,0800)."""
        return self.number(DATA_SET_TYPE) not in (NO_DATA_SET, None)


def parse_command(data: bytes) -> Command:
    """Read a command set; raises ProtocolError when it is not one."""
    elements: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        start = position + 8
        end = start + int.from_bytes(data[position + 4 : start], "little")
        if end > len(data) or data[position : position + 2] != b"\0\0":
            raise ProtocolError("a command set is not Implicit VR Little Endian of group 0000")
        elements[int.from_bytes(data[position + 2 : position + 4], "little")] = data[start:end]
        position = end
    return Command(elements)


def _element(number: int, value: bytes) -> bytes:
    return b"\0\0" + number.to_bytes(2, "little") + len(value).to_bytes(4, "little") + value


def encode_command(values: dict[int, int | str]) -> bytes:
    """A command set with its group length: numbers are US, texts are padded to even length (UI with zero)."""
    body = b""
    for number in sorted(values):
        value = values[number]
        if isinstance(value, int):
            body += _element(number, value.to_bytes(2, "little"))
        else:
            raw = value.encode("ascii", errors="replace")
            pad = b" " if number == ERROR_COMMENT else b"\0"
            body += _element(number, raw + pad * (len(raw) % 2))
    return _element(0, len(body).to_bytes(4, "little")) + body


def response_to(command: Command, status: int, comment: str = "") -> bytes:
    """The response to a request, without data set; the comment says in English what was wrong (PS3.7 annex C)."""
    values: dict[int, int | str] = {
        COMMAND_FIELD: command.field_code | RESPONSE,
        RESPONDED_ID: command.number(MESSAGE_ID) or 0,
        DATA_SET_TYPE: NO_DATA_SET,
        STATUS: status,
    }
    sop_class = command.text(AFFECTED_CLASS) or command.text(REQUESTED_CLASS)
    instance = command.text(AFFECTED_INSTANCE) or command.text(REQUESTED_INSTANCE)
    if sop_class:
        values[AFFECTED_CLASS] = sop_class
    if instance:
        values[AFFECTED_INSTANCE] = instance
    if (action := command.number(ACTION_TYPE)) is not None:
        values[ACTION_TYPE] = action
    if comment:
        values[ERROR_COMMENT] = comment[:_MAX_COMMENT]
    return encode_command(values)
