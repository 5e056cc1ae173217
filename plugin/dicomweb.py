"""Studies of a DICOMweb server on our disk: listed by QIDO-RS (PS3.18 10.6), fetched by WADO-RS (PS3.18 10.4).

One instance a request, streamed into its file and never longer than listener.max_instance_bytes; dicomweb-client is not
used because its multipart decoder buffers without a bound. What of a study is fetched, `plugin.fetching` says.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.errors import DataError, ResourceError
from plugin.fetching import one_of_each
from plugin.multipart import MultipartError, first_part, media_type
from plugin.negotiation import is_uid
from plugin.settings import DicomWeb
from plugin.web import WebError, WebServer

INSTANCES_AT_ONCE = 500
MAX_INSTANCES = 50_000  # of one study; a server that goes on beyond that does not end at all
SOP_INSTANCE_UID = "00080018"
MODALITY = "00080060"
STUDY_INSTANCE_UID = "0020000D"
SERIES_INSTANCE_UID = "0020000E"

_WADO_HEADERS = {
    # The stored transfer syntax: nothing is decoded or compressed anew on the way.
    "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*',
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True, order=True)
class Listed:
    """One instance as the server lists it; `modality` is empty where it does not say."""

    sop_uid: str
    series_uid: str
    modality: str


class DicomWebReader:
    """A session with one server, for one thread. Every method raises WebError."""

    def __init__(self, endpoint: DicomWeb, most: int, *, whole_mr: bool = False) -> None:
        """`most` is the longest instance in bytes; `whole_mr` fetches MR series whole."""
        self._web = WebServer(endpoint)
        self._most, self._whole_mr = most, whole_mr

    def close(self) -> None:
        """Close the connections."""
        self._web.close()

    def instances(self, study_uid: str) -> tuple[Listed, ...]:
        """All instances of a study, in the order of their UIDs; empty when the server has no such study.

        Servers may give fewer than asked for, or all at once: a page that brings nothing new ends the list.
        """
        path = f"/studies/{checked(study_uid)}/instances"
        found: dict[str, Listed] = {}
        asked = 0
        while page := self._page(path, {"limit": INSTANCES_AT_ONCE, "offset": asked}):
            new = {item.sop_uid: item for item in self._listed(page, path, study_uid)}
            if new.keys() <= found.keys():
                # It does not mind the offset; it may have minded the limit.
                found |= {item.sop_uid: item for item in self._listed(self._page(path, {}), path, study_uid)}
                break
            found |= new
            asked += len(page)
            if len(found) > MAX_INSTANCES:
                raise WebError(f"GET {self._web.url}{path}: more than {MAX_INSTANCES} instances in one study")
        return tuple(sorted(found.values()))

    def _page(self, path: str, paging: Mapping[str, int]) -> Sequence[Any]:
        try:
            page = self._web.get_json(path, {"includefield": MODALITY, **paging}, "application/dicom+json")
        except WebError as error:
            if error.is_missing:
                return ()
            raise
        if page is None:  # 204
            return ()
        if not isinstance(page, list):
            raise self._not_understood(path)
        return page

    def _listed(self, page: Sequence[Any], path: str, study_uid: str) -> Iterator[Listed]:
        for entry in page:
            if not isinstance(entry, dict):
                raise self._not_understood(path)
            listed = Listed(_text(entry, SOP_INSTANCE_UID), _text(entry, SERIES_INSTANCE_UID), _text(entry, MODALITY))
            if not is_uid(listed.sop_uid) or not is_uid(listed.series_uid):
                raise self._not_understood(path)
            if _text(entry, STUDY_INSTANCE_UID) not in ("", study_uid):
                raise WebError(f"GET {self._web.url}{path}: the answer is about other studies")
            yield listed

    def fetch(self, study_uid: str, listed: Listed, target: Path) -> bool:
        """One instance into a new file; False when the server has it no more.

        Raises WebError, and ResourceError when our disk fails.
        """
        path = f"/studies/{checked(study_uid)}/series/{listed.series_uid}/instances/{listed.sop_uid}"
        try:
            with target.open("wb") as stream:
                self._web.download(path, stream, self._most, headers=_WADO_HEADERS, decode=_instance)
        except MultipartError as error:
            raise WebError(f"GET {self._web.url}{path}: the answer is no instance: {error}") from error
        except OSError as error:
            raise ResourceError(f"cannot write to {target.parent}: {error.strerror}; free space there") from error
        except WebError as error:
            if error.is_missing:
                return False
            raise
        return True

    def fetch_study(self, study_uid: str, folder: Path, on_progress: Callable[[], None] | None = None) -> list[Path]:
        """The files of a study that scoring needs. Raises WebError, ResourceError, and DataError without a study."""
        listed = one_of_each(self.instances(study_uid), whole_mr=self._whole_mr)
        if not listed:
            raise DataError(f"{self._web.url} has no study {study_uid}")
        files = []
        for number, item in enumerate(listed):
            target = folder / f"{number}.dcm"
            if self.fetch(study_uid, item, target):
                files.append(target)
            if on_progress is not None:
                on_progress()
        if not files:
            raise DataError(f"{self._web.url} lists the study {study_uid} and has none of its instances")
        return files

    def _not_understood(self, path: str) -> WebError:
        return WebError(f"GET {self._web.url}{path}: the answer is not the DICOM JSON of a search")


def checked(study_uid: str) -> str:
    """A UID that may stand in an address. Raises DataError."""
    if not is_uid(study_uid):
        raise DataError(f"{study_uid[:80]!r} is no Study Instance UID: it has digits and dots, at most 64")
    return study_uid


def _instance(content_type: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes of the file in an answer; some servers answer one instance without the multipart around it."""
    kind, parameters = media_type(content_type)
    if kind == "application/dicom":
        return chunks
    if kind != "multipart/related":
        raise MultipartError(f"its type is {content_type[:60]!r}")
    return first_part(chunks, parameters.get("boundary", ""))


def _text(entry: Mapping[str, Any], tag: str) -> str:
    """The first value of an element in DICOM JSON (PS3.18 annex F), empty without one."""
    element = entry.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]).strip("\0 ") if isinstance(values, list) and values and isinstance(values[0], str) else ""
