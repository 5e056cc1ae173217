"""Answers of DICOMweb servers for tests.plugin.scripted."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from tests.plugin.scripted import Answer, Request


def reply(status: int = 200, content_type: str = "", pieces: bytes | Sequence[bytes] = b"", **headers: str) -> Answer:
    """An answer; `headers` are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": content_type} | named, pieces


def dicom_json(found: Any, status: int = 200, content_type: str = "application/dicom+json") -> Answer:
    return reply(status, content_type, json.dumps(found).encode())


def in_turn(*answers: Answer | None) -> Callable[[Request], Answer | None]:
    """The answers in turn, the last one for ever."""
    left = list(answers)
    return lambda _request: left.pop(0) if len(left) > 1 else left[0]
