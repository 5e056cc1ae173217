"""The REST routes of Genu inside Orthanc: what they answer. Orthanc's plugin passes requests on and sends the answers.

GET  /genu/status               the service: queue, children, destinations, how far Orthanc's changes are known
GET  /genu/studies/{id}         one study, by Orthanc's identifier or Study Instance UID: states, reasons, objects
POST /genu/studies/{id}/score   score it (again)
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from inference.errors import BundleError, ConfigurationError
from inference.installed import installed
from plugin import summaries
from plugin.jobs import Queue
from plugin.negotiation import is_uid
from plugin.orthanc_api import ArchivedStudy, OrthancApi, is_identifier
from plugin.routing import from_archive
from plugin.rows import JobRow
from plugin.settings import Settings

Body = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """An HTTP status and the JSON object that goes with it."""

    status: int
    body: Body


class Routes:
    """Answers requests; to be used by one thread. Raises WebError and ResourceError."""

    def __init__(self, settings: Settings, queue: Queue, service: Callable[[], Body]) -> None:
        """`service` says what only the running service knows: its children, and how it follows Orthanc."""
        if settings.orthanc is None:
            raise ConfigurationError("no Orthanc is configured: set `orthanc`")
        self._settings, self._queue, self._service = settings, queue, service
        self._api = OrthancApi(settings.orthanc)
        self._source = from_archive(settings)

    def answer(self, method: str, path: Sequence[str]) -> Reply:
        """The reply to `method` on the parts of a path below /genu."""
        match (method, *path):
            case ("GET", "status"):
                return Reply(200, self.status())
            case ("GET", "studies", identifier):
                return self._study(identifier)
            case ("POST", "studies", identifier, "score"):
                return self._score(identifier)
        return Reply(404, {"error": "there is no such route; docs/orthanc.md lists them"})

    def status(self) -> Body:
        """The whole service."""
        snapshot = self._queue.snapshot()
        return {
            "version": version("genu"),
            "data_dir": str(self._settings.data_dir.absolute()),
            **self._service(),
            "bundles": _bundles(self._settings),
            "jobs": {state.value: count for state, count in snapshot.jobs.items()},
            "destinations": [
                {
                    "name": row.name,
                    "pending": row.pending,
                    "delivered": row.delivered,
                    "dead": row.dead,
                    "failures": row.failures,
                    "error": row.error,
                }
                for row in snapshot.destinations
            ],
            "dead": [
                {"study": job.study_uid, "revision": job.revision, "error": job.error} for job in snapshot.dead_jobs
            ],
        }

    def _study(self, identifier: str) -> Reply:
        found = self._find(identifier)
        study_uid = found.study_uid if found else identifier
        jobs = self._queue.jobs_of(study_uid)
        if found is None and not jobs:
            return _missing()
        latest = jobs[-1] if jobs else None
        body: Body = {
            "study": study_uid,
            "orthanc_id": found.identifier if found else None,
            "state": latest.state.value if latest else "unknown",
            "status": latest.status if latest else None,
            "summary": summaries.of_job(latest),
            "revisions": [self._revision(job) for job in jobs],
        }
        return Reply(200, body)

    def _score(self, identifier: str) -> Reply:
        study = self._find(identifier)
        if study is None:
            return _missing()
        now = time.time()
        # Whatever is there now: a person who asks does not want to wait for the study to be stable.
        revision = self._queue.take_study(study.study_uid, self._api.instances(study.identifier), self._source, now)
        if revision is None:
            revision = self._queue.score_again(study.study_uid, now)
        if revision is None:
            return Reply(404, {"error": "nothing in this study that Genu did not write itself"})
        return Reply(202, {"study": study.study_uid, "orthanc_id": study.identifier, "revision": revision})

    def _find(self, identifier: str) -> ArchivedStudy | None:
        if is_identifier(identifier):
            return self._api.study(identifier)
        if is_uid(identifier):
            return next((self._api.study(found) for found in self._api.find_studies(identifier)), None)
        return None

    def _revision(self, job: JobRow) -> Body:
        return {
            "revision": job.revision,
            "state": job.state.value,
            "status": job.status,
            "attempts": job.attempts,
            "error": job.error,
            "created_at": job.created_at,
            "finished_at": job.finished_at,
            "result": json.loads(job.result) if job.result else None,
            "objects": [
                {
                    "kind": item.kind.value,
                    "sop_uid": item.sop_uid,
                    "series_uid": item.series_uid,
                    "deliveries": [
                        {"destination": name, "state": state.value, "error": error}
                        for name, state, error in self._queue.deliveries_of(item.sop_uid)
                    ],
                }
                for item in self._queue.objects_of(job.job_id)
            ],
        }


def _missing() -> Reply:
    return Reply(404, {"error": "no such study: give Orthanc's identifier of a study, or a Study Instance UID"})


def _bundles(settings: Settings) -> list[Body]:
    """What the workers load; a bundle that cannot be read says so here, and in the workers' log."""
    try:
        manifests = installed(settings.bundles, allow_undeployed=settings.allow_undeployed_bundles)
        told = [manifest.identity() for manifest in manifests]
    except BundleError as error:
        return [{"error": str(error)}]
    return [{"name": one.name, "version": one.version, "task": one.task, "synthetic": one.synthetic} for one in told]
