"""What Genu needs of Orthanc's REST API (1.10 and newer): changes, studies, instances.

Identifiers are checked before they enter an address, and answers before they are used: a server that speaks otherwise
is an error, not a surprise further on.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO
from urllib.parse import quote

from inference.errors import DataError
from plugin.negotiation import is_uid
from plugin.rows import RemoteInstance
from plugin.settings import HttpEndpoint
from plugin.web import Downloaded, WebError, WebServer

CHANGES_AT_ONCE = 1000
STUDIES_AT_ONCE = 500
_IDENTIFIER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")


class NotOrthancError(WebError):
    """The server answers, but not as Orthanc does."""


@dataclass(frozen=True)
class Change:
    """One entry of Orthanc's log of changes: `seq` grows, `at` is in POSIX seconds to the second."""

    seq: int
    kind: str
    resource: str
    at: float


@dataclass(frozen=True)
class Changes:
    """Entries in their order; `last` is where to go on, and `done` whether that is the end for now."""

    entries: tuple[Change, ...]
    last: int
    done: bool


@dataclass(frozen=True)
class ArchivedStudy:
    """A study as Orthanc sees it: its own identifier, ours, and whether nothing came for its StableAge."""

    identifier: str
    study_uid: str
    is_stable: bool


class OrthancApi:
    """A session with one Orthanc, for one thread. Every method raises WebError."""

    def __init__(self, endpoint: HttpEndpoint) -> None:
        self._web = WebServer(endpoint)

    def close(self) -> None:
        """Close the connections."""
        self._web.close()

    @property
    def url(self) -> str:
        """Where it is."""
        return self._web.url

    def version(self) -> str:
        """Orthanc's version, such as "1.10.1"; NotOrthancError when something else answers."""
        answer = self._web.get_json("/system")
        if not isinstance(answer, dict) or "ApiVersion" not in answer:
            raise NotOrthancError(f"{self.url}/system: the answer is not Orthanc's; check the address", 200)
        return str(answer.get("Version", ""))

    def last_change(self) -> int:
        """The number of the last change, 0 when there was none."""
        return self._changes("/changes?last").last

    def changes(self, since: int, limit: int = CHANGES_AT_ONCE) -> Changes:
        """What changed after the change number `since`."""
        return self._changes(f"/changes?since={since}&limit={limit}")

    def _changes(self, path: str) -> Changes:
        answer = self._web.get_json(path)
        with _understood(path):
            entries = tuple(
                Change(int(entry["Seq"]), str(entry["ChangeType"]), str(entry["ID"]), _seconds(entry["Date"]))
                for entry in answer["Changes"]
            )
            return Changes(entries, int(answer["Last"]), bool(answer["Done"]))

    def study(self, identifier: str) -> ArchivedStudy | None:
        """One study, None when it is not there (any more)."""
        return self._study(f"/studies/{checked(identifier)}")

    def parent_study(self, instance: str) -> ArchivedStudy | None:
        """The study of an instance, None when the instance is not there (any more)."""
        return self._study(f"/instances/{checked(instance)}/study")

    def _study(self, path: str) -> ArchivedStudy | None:
        try:
            answer = self._web.get_json(path)
        except WebError as error:
            if error.is_missing:
                return None
            raise
        with _understood(path):
            study_uid = str(answer["MainDicomTags"]["StudyInstanceUID"]).strip()
            return ArchivedStudy(checked(str(answer["ID"])), study_uid, bool(answer["IsStable"]))

    def find_studies(self, study_uid: str) -> tuple[str, ...]:
        """The identifiers of the studies with this Study Instance UID: one for each patient it was filed under."""
        if not is_uid(study_uid):
            raise DataError(f"{study_uid!r} is no Study Instance UID")
        answer = self._web.exchange("POST", "/tools/lookup", data=study_uid.encode("ascii"))
        if answer.status != 200:
            raise WebError(f"POST {self.url}/tools/lookup: status {answer.status}", answer.status)
        with _understood("/tools/lookup"):
            found = _list(json.loads(answer.content))
            return tuple(checked(str(entry["ID"])) for entry in found if entry["Type"] == "Study")

    def all_studies(self) -> Iterator[str]:
        """The identifiers of all studies, page by page."""
        since = 0
        while True:
            answer = self._web.get_json(f"/studies?since={since}&limit={STUDIES_AT_ONCE}")
            with _understood("/studies"):
                page = [checked(str(identifier)) for identifier in _list(answer)]
            yield from page
            since += len(page)
            if not page:
                return

    def instances(self, study: str) -> tuple[RemoteInstance, ...]:
        """All instances of a study, in the order of their SOP Instance UIDs; empty when it is gone."""
        path = f"/studies/{checked(study)}"
        try:
            series = self._web.get_json(f"{path}/series?expand")
            instances = self._web.get_json(f"{path}/instances?expand")
        except WebError as error:
            if error.is_missing:
                return ()
            raise
        with _understood(path):
            tags = {entry["ID"]: entry["MainDicomTags"] for entry in _list(series)}
            # An instance whose series came between the two answers is of the next time.
            found = [
                RemoteInstance(
                    series_uid=str(tags[entry["ParentSeries"]].get("SeriesInstanceUID", "")),
                    sop_uid=str(entry["MainDicomTags"]["SOPInstanceUID"]),
                    remote=checked(str(entry["ID"])),
                    modality=str(tags[entry["ParentSeries"]].get("Modality", "")),
                    size=int(entry["FileSize"]),
                )
                for entry in _list(instances)
                if entry["ParentSeries"] in tags
            ]
        return tuple(sorted(found, key=lambda instance: instance.sop_uid))

    def download(self, instance: str, target: BinaryIO, most: int) -> Downloaded:
        """The file of an instance, at most `most` bytes."""
        return self._web.download(f"/instances/{checked(instance)}/file", target, most)


def is_identifier(text: str) -> bool:
    """Whether this has the form of Orthanc's identifiers (a SHA-1 in five groups)."""
    return _IDENTIFIER.fullmatch(text) is not None


def checked(identifier: str) -> str:
    """An identifier that may stand in an address; raises DataError for anything else."""
    if not is_identifier(identifier):
        raise DataError(f"{quote(identifier[:80])!r} is no identifier of Orthanc")
    return identifier


@contextmanager
def _understood(path: str) -> Iterator[None]:
    """An answer of another form than Orthanc's is an error of the server, not of ours."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, DataError) as error:
        raise NotOrthancError(
            f"{path}: the answer is not Orthanc's ({type(error).__name__}); check the address"
        ) from error


def _list(answer: object) -> list[Any]:
    if not isinstance(answer, list):
        raise TypeError("no list")
    return answer


def _seconds(date: str) -> float:
    """Orthanc's "20261122T033656", in UTC, as POSIX seconds."""
    return datetime.strptime(date, "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
