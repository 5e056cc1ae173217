"""Results over HTTP: into Orthanc by its REST API, into any DICOMweb server by STOW-RS (PS3.18 10.5).

One object a request, so that every answer is about one object. A server that nobody reaches, that does not know us or
that has no such address is down as a whole; what it says about the object refuses or defers this object alone.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from inference.errors import ConfigurationError, DeliveryError
from plugin.settings import OrthancDestination, StowDestination
from plugin.stow import encode_request, judge_answer
from plugin.verdicts import Outcome, Outgoing, Session, UnreachableError, Verdict, read_content
from plugin.web import SUCCESS, Answer, WebError, WebServer, hint

# None of these is about the object: who we are, where we asked, how the server feels.
NO_PLACE = frozenset({404, 405, 410, 501})
NOT_ABOUT_THE_OBJECT = NO_PLACE | {401, 402, 403, 407, 429, 502, 503, 504} | frozenset(range(300, 400))
INSUFFICIENT_STORAGE = 507  # RFC 4918 11.5
REQUEST_TIMEOUT = 408
STORED_BY_ORTHANC = frozenset({"Success", "AlreadyStored"})
SHOWN_CHARACTERS = 60


@contextmanager
def opened_web(destination: OrthancDestination | StowDestination) -> Iterator[Session]:
    """A session over kept-alive connections. Raises UnreachableError when a certificate file is not there."""
    try:
        server = WebServer(destination)
    except ConfigurationError as error:  # files that were there when the service started
        raise UnreachableError(f"{destination.url} cannot be called: {error}") from error
    try:
        if isinstance(destination, OrthancDestination):
            yield OrthancSession(server, only_known_studies=destination.only_known_studies)
        else:
            yield StowSession(server)
    finally:
        server.close()


class OrthancSession:
    """POST /instances, one file a request; with `only_known_studies` a patient who was deleted does not come back."""

    def __init__(self, server: WebServer, *, only_known_studies: bool = False) -> None:
        self._server = server
        self._only_known_studies = only_known_studies

    def send(self, item: Outgoing) -> Verdict:
        """Store one instance; Orthanc's word for it decides."""
        content = read_content(item)
        if isinstance(content, Verdict):
            return content
        if self._only_known_studies and not self._has_study(item.study_uid):
            return Verdict(Outcome.REFUSED, "its study is not in Orthanc any more")
        answer = _post(self._server, "/instances", content, {"Content-Type": "application/dicom"})
        if isinstance(answer, Verdict):
            return answer
        if answer.status not in SUCCESS:
            return Verdict(Outcome.REFUSED, f"Orthanc answers status {answer.status}")
        word = _status_word(answer)
        if word in STORED_BY_ORTHANC:
            return Verdict(Outcome.STORED)
        return Verdict(Outcome.REFUSED, f"Orthanc answers {word or 'no status'!r} instead of 'Success'")

    def _has_study(self, study_uid: str) -> bool:
        """Whether Orthanc has the study; no when it answers anything but a list that names one."""
        answer = _post(self._server, "/tools/lookup", study_uid.encode("ascii"), {})
        if isinstance(answer, Verdict) or answer.status not in SUCCESS:
            return False
        try:
            found = json.loads(answer.content)
        except ValueError:
            return False
        return isinstance(found, list) and any(isinstance(e, dict) and e.get("Type") == "Study" for e in found)


class StowSession:
    """STOW-RS, one instance a request."""

    def __init__(self, server: WebServer) -> None:
        self._server = server

    def send(self, item: Outgoing) -> Verdict:
        """Store one instance and judge what the server says about it."""
        content = read_content(item)
        if isinstance(content, Verdict):
            return content
        headers, body = encode_request(content)
        answer = _post(self._server, "/studies", body, headers)
        return answer if isinstance(answer, Verdict) else judge_answer(answer, item.sop_uid)


def _post(server: WebServer, path: str, content: bytes, headers: dict[str, str]) -> Answer | Verdict:
    """The answer, when it is about the object. Raises UnreachableError, and DeliveryError when this object alone fails.

    An answer that breaks off, or 500, may be what just this object does to the server: others have to get past it.
    Out of resources defers, as it does in a C-STORE.
    """
    try:
        # Without an empty Expect header Orthanc waits a second.
        answer = server.exchange("POST", path, data=content, headers={**headers, "Expect": ""})
    except WebError as error:
        raise (DeliveryError if error.connected else UnreachableError)(str(error)) from error
    where, status = f"POST {server.url}{path}", answer.status
    if status in NOT_ABOUT_THE_OBJECT:
        remedy = ": is the url right?" if status in NO_PLACE else hint(status)
        raise UnreachableError(f"{where}: status {status}{remedy}")
    if status == INSUFFICIENT_STORAGE:
        return Verdict(Outcome.DEFERRED, f"status {status}: out of resources")
    if status == REQUEST_TIMEOUT or status >= 500:
        raise DeliveryError(f"{where}: status {status}")
    return answer


def _status_word(answer: Answer) -> str:
    """Orthanc's Status, such as Success, AlreadyStored or FilteredOut; empty when the answer is something else."""
    try:
        found = json.loads(answer.content)
    except ValueError:
        return ""
    word = found.get("Status") if isinstance(found, dict) else None
    return word[:SHOWN_CHARACTERS] if isinstance(word, str) else ""
