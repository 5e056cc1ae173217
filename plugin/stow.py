"""STOW-RS (PS3.18 10.5): one instance as a request, and what the answer says about just that instance. Pure.

Answers come as DICOM JSON or as the XML of PS3.19, whatever was asked for; some servers name no type at all.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from inference.errors import RetryableError
from plugin.verdicts import Outcome, Verdict, judge, shown_status
from plugin.web import SUCCESS, Answer

FAILED_SOP_SEQUENCE = "00081198"
REFERENCED_SOP_SEQUENCE = "00081199"
OTHER_FAILURES_SEQUENCE = "0008119A"  # failures that name no instance, PS3.18 10.5.3.2
REFERENCED_SOP_INSTANCE_UID = "00081155"
WARNING_REASON = "00081196"
FAILURE_REASON = "00081197"
ACCEPTED = 202  # some were stored with warnings, or not at all
MAX_DEPTH = 16


@dataclass(frozen=True)
class _Element:
    """One data element: values as text, or the items of a sequence."""

    values: tuple[str, ...] = ()
    items: tuple["_Items", ...] = ()


_Items = Mapping[str, _Element]


class NotUnderstoodError(RetryableError):
    """The body is no data set in a notation that we read."""


def encode_request(content: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body that store one file (PS3.18 8.6.1.2)."""
    boundary = uuid.uuid4().hex
    while boundary.encode() in content:
        boundary = uuid.uuid4().hex
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Accept": "application/dicom+json",
    }
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n"
    return headers, head.encode() + content + f"\r\n--{boundary}--\r\n".encode()


def judge_answer(answer: Answer, sop_uid: str) -> Verdict:
    """What the server says about the instance `sop_uid`, the only one of the request. Of any status."""
    try:
        dataset = _parse(answer.content)
    except NotUnderstoodError:
        return _without_word(answer.status, "an answer that cannot be read")
    failure = _failure(dataset, sop_uid)
    if failure is not None:
        return judge(failure, "STOW-RS failure")
    for item in _sequence(dataset, REFERENCED_SOP_SEQUENCE):
        if _uid(item) == sop_uid:
            warning = _number(item, WARNING_REASON)
            return Verdict(Outcome.STORED, f"stored with warning {shown_status(warning)}" if warning else "")
    if _sequence(dataset, REFERENCED_SOP_SEQUENCE) or _sequence(dataset, FAILED_SOP_SEQUENCE):
        return Verdict(Outcome.REFUSED, f"STOW-RS status {answer.status} for other instances, not for this one")
    return _without_word(answer.status, "no instance in the answer", named=bool(dataset))


def _without_word(status: int, what: str, *, named: bool = False) -> Verdict:
    """An answer that says nothing about the instance: 200 alone means that all are stored (PS3.18 table 10.5.3-1).

    `named` is a readable answer that lists nothing: the server did not recognise what it was sent.
    """
    if status in SUCCESS and status != ACCEPTED and not named:
        return Verdict(Outcome.STORED, f"STOW-RS status {status} with {what}")
    return Verdict(Outcome.REFUSED, f"STOW-RS status {status} with {what}")


def _failure(dataset: _Items, sop_uid: str) -> int | None:
    """The Failure Reason of this instance (PS3.18 table I.2-2); 0x0110 where it failed without a reason."""
    failures = [item for item in _sequence(dataset, FAILED_SOP_SEQUENCE) if _uid(item) in (sop_uid, "")]
    failures += _sequence(dataset, OTHER_FAILURES_SEQUENCE)
    if not failures:
        return None
    return _number(failures[0], FAILURE_REASON) or 0x0110  # PS3.7 C.5.13: processing failure


def _sequence(dataset: _Items, tag: str) -> tuple[_Items, ...]:
    return dataset.get(tag, _Element()).items


def _uid(item: _Items) -> str:
    values = item.get(REFERENCED_SOP_INSTANCE_UID, _Element()).values
    return values[0].strip("\0 ") if values else ""


def _number(item: _Items, tag: str) -> int | None:
    values = item.get(tag, _Element()).values
    return int(values[0]) if values and values[0].isascii() and values[0].isdigit() else None


def _parse(content: bytes) -> _Items:
    """A data set in JSON (PS3.18 annex F) or XML (PS3.19 annex A); by its first character, as types are often wrong."""
    text = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"{", b"[")):
        return _from_json(text)
    if text.startswith(b"<"):
        return _from_xml(text)
    raise NotUnderstoodError


def _from_json(text: bytes) -> _Items:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotUnderstoodError from error
    if isinstance(found, list) and len(found) == 1:  # some servers answer a list of one data set
        found = found[0]
    if not isinstance(found, dict):
        raise NotUnderstoodError
    return _json_items(found, MAX_DEPTH)


def _json_items(found: Mapping[str, Any], depth: int) -> _Items:
    if depth == 0:
        raise NotUnderstoodError
    elements = {}
    for tag, element in found.items():
        values = element.get("Value") if isinstance(element, dict) else None
        if isinstance(values, list):
            elements[tag.upper()] = _Element(
                tuple(str(value) for value in values if isinstance(value, str | int)),
                tuple(_json_items(value, depth - 1) for value in values if isinstance(value, dict)),
            )
    return elements


def _from_xml(text: bytes) -> _Items:
    # No answer needs them, and entities can grow without bound; in UTF-16 they would not be found.
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text or b"\0" in text:
        raise NotUnderstoodError
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  (no entities, see above)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding nobody knows
        raise NotUnderstoodError from error
    if _local_name(root) != "NativeDicomModel":
        raise NotUnderstoodError
    return _xml_items(root, MAX_DEPTH)


def _xml_items(parent: ElementTree.Element, depth: int) -> _Items:
    if depth == 0:
        raise NotUnderstoodError
    return {
        element.get("tag", "").upper(): _Element(
            tuple((child.text or "").strip() for child in element if _local_name(child) == "Value"),
            tuple(_xml_items(child, depth - 1) for child in element if _local_name(child) == "Item"),
        )
        for element in parent
        if _local_name(element) == "DicomAttribute"
    }


def _local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
