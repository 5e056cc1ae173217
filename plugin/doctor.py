"""Is this installation fit to score? One small check a question; each answer says what to do when it is no.

Nothing here loads torch: the bundle is loaded and its probe replayed in a child process, as a worker would.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from inference.errors import BundleError, GenuError
from inference.installed import installed
from plugin.destinations import echo
from plugin.jobs import Queue
from plugin.settings import (
    AnyDestination,
    CStoreDestination,
    FolderDestination,
    HttpEndpoint,
    Listener,
    OrthancDestination,
    Settings,
    dumps,
)
from plugin.web import WebError, WebServer

PROBE_SECONDS = 120.0
LOW_SPACE_FACTOR = 4


class Verdict(StrEnum):
    """How a check came out."""

    FINE = "fine"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """One answer: what was asked, how it came out, what was seen, and what to do (empty when fine)."""

    about: str
    verdict: Verdict
    seen: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Check]:
    """All checks, one after the other; some take seconds."""
    yield from check_bundles(settings)
    yield check_disk(settings)
    yield check_queue(settings)
    served = settings.orthanc.url if settings.orthanc else None
    if served is None:  # Genu has no listener where Orthanc receives
        yield check_port(settings)
    for destination in settings.delivery_targets:
        if not (isinstance(destination, OrthancDestination) and destination.url == served):
            yield check_destination(destination, settings)  # that one is asked more by plugin.orthanc_doctor
    if settings.dicomweb is not None:
        yield check_dicomweb("dicomweb", settings.dicomweb)


def check_bundles(settings: Settings) -> Iterator[Check]:
    """Each manifest is read here; loading and replaying happens once for all of them, in a child."""
    try:
        manifests = installed(settings.bundles, allow_undeployed=settings.allow_undeployed_bundles)
        for manifest in manifests:
            manifest.verify_files()
    except BundleError as error:
        yield Check("bundle", Verdict.FAILED, str(error), "put a whole bundle there, or mend `bundles`")
        return
    for identity in (manifest.identity() for manifest in manifests):
        told = f"{identity.name} {identity.version} ({identity.task}), digest {identity.digest[:12]}"
        if identity.synthetic:
            yield Check(
                "bundle", Verdict.WARNING, f"{told}: a synthetic stand-in", "what it says means nothing: set `bundles`"
            )
        else:
            yield Check("bundle", Verdict.FINE, told)
    yield _replay(settings)


def _replay(settings: Settings) -> Check:
    command = [sys.executable, "-m", "plugin.cli", "worker", "--check", "--config-stdin"]
    try:
        finished = subprocess.run(
            command, input=dumps(settings), capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        seen = f"not loaded after {PROBE_SECONDS:.0f} s"
        return Check("probe", Verdict.FAILED, seen, "look at the machine's load and memory, then run this again")
    if finished.returncode == 0:
        return Check("probe", Verdict.FINE, "the bundles load and answer their stored probes as they did when made")
    last = (finished.stderr.strip().splitlines() or [f"the child ended with status {finished.returncode}"])[-1]
    return Check("probe", Verdict.FAILED, last, "install the pinned packages again (make setup), or replace the bundle")


def check_disk(settings: Settings) -> Check:
    """The data folder can be made and written to, and has room."""
    folder = settings.data_dir
    trouble = _trouble_writing(folder, create=True)
    if trouble:
        return Check("disk", Verdict.FAILED, trouble, "let the service's user write there, or set another data_dir")
    free = shutil.disk_usage(_existing(folder)).free
    least = settings.listener.min_free_bytes
    seen = f"{folder.resolve()}: {free / 1024**3:.1f} GiB free; below {least / 1024**3:.1f} GiB nothing is received"
    if free < least:
        return Check("disk", Verdict.FAILED, seen, "free disk space, or set another data_dir")
    if free < least * LOW_SPACE_FACTOR:
        return Check("disk", Verdict.WARNING, seen, "free disk space soon")
    return Check("disk", Verdict.FINE, seen)


def check_queue(settings: Settings) -> Check:
    """The queue opens, and nothing in it has been given up."""
    if not settings.queue_path.exists():
        return Check("queue", Verdict.FINE, "there is none yet: `genu listen` makes it")
    try:
        queue = Queue.open(settings)
        snapshot = queue.snapshot()
        queue.close()
    except GenuError as error:
        remedy = "see that no other program holds the file and that the disk is sound"
        return Check("queue", Verdict.FAILED, str(error), remedy)
    dead = len(snapshot.dead_jobs) + len(snapshot.dead_deliveries)
    if dead:
        return Check("queue", Verdict.WARNING, f"{dead} dead letters", "`genu status` says why; then `genu retry`")
    return Check("queue", Verdict.FINE, f"{settings.queue_path} opens, no dead letters")


def check_port(settings: Settings) -> Check:
    """Either our listener answers on the port, or the port is free for it."""
    listener = settings.listener
    where = f"{listener.host}:{listener.port}"
    if listener.port == 0:
        return Check("port", Verdict.FINE, "port 0: a free one is taken at start")
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    try:
        with socket.create_server((listener.host, listener.port), family=family):
            return Check("port", Verdict.FINE, f"{where} is free: `genu listen` is not running there")
    except OSError as busy:
        reason = busy.strerror
    trouble = _ask_ourselves(listener)
    if not trouble:
        return Check("port", Verdict.FINE, f"a listener answers C-ECHO at {where}")
    seen = f"{where} cannot be taken ({reason}) and no listener answers C-ECHO there ({trouble})"
    if listener.tls is not None:
        remedy = (
            "if `genu listen` runs there it may not trust its own certificate: try `echoscu +tls` with that of a peer"
        )
        return Check("port", Verdict.WARNING, seen, remedy)
    remedy = "stop the program that has the port, or set listener.host and listener.port to an address of this machine"
    return Check("port", Verdict.FAILED, seen, remedy)


def _ask_ourselves(listener: Listener) -> str:
    """C-ECHO to our own listener, called as a peer that it knows; its certificate names it for others, not for us."""
    titles = [peer.ae_title for peer in listener.peers]
    ourselves = CStoreDestination(
        name="self",
        host=_reachable(listener.host),
        port=listener.port,
        ae_title=listener.ae_title,
        calling_ae_title=titles[0] if titles and "*" not in titles else None,
        connect_seconds=5,
        tls=listener.tls and listener.tls.model_copy(update={"require_peer_certificate": False}),
    )
    return echo(ourselves, listener.ae_title)


def _reachable(host: str) -> str:
    """An address to call for an address to listen on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  (compared, not bound)


def check_destination(destination: AnyDestination, settings: Settings) -> Check:
    """A remote node answers C-ECHO; a folder takes a file; an Orthanc says its version, a DICOMweb server searches."""
    about = f"destination {destination.name}"
    if isinstance(destination, FolderDestination):
        trouble = _trouble_writing(destination.path, create=destination.create)
        if trouble:
            return Check(
                about, Verdict.FAILED, trouble, "make the folder, or mount it, and let the service write there"
            )
        return Check(about, Verdict.FINE, f"{destination.path.resolve()} takes files")
    if isinstance(destination, OrthancDestination):
        return check_orthanc(about, destination)
    if not isinstance(destination, CStoreDestination):
        return check_dicomweb(about, destination)
    where = f"{destination.ae_title}@{destination.host}:{destination.port}"
    trouble = echo(destination, destination.calling_ae_title or settings.listener.ae_title)
    if trouble:
        remedy = "start it, check host, port and both AE titles, and that it knows ours; results wait until it answers"
        return Check(about, Verdict.FAILED, f"{where}: {trouble}", remedy)
    return Check(about, Verdict.FINE, f"{where} answers C-ECHO")


def check_orthanc(about: str, endpoint: HttpEndpoint) -> Check:
    """An Orthanc tells its version to us."""
    try:
        found = _asked(endpoint, "/system", {})
    except GenuError as error:
        remedy = "start it, check url, username and password; results wait until it answers"
        return Check(about, Verdict.FAILED, str(error), remedy)
    version = found.get("Version") if isinstance(found, dict) else None
    if not isinstance(version, str):
        return Check(about, Verdict.FAILED, f"{endpoint.url} answers, but not as an Orthanc does", "check url")
    return Check(about, Verdict.FINE, f"{endpoint.url} is Orthanc {version[:20]}")


def check_dicomweb(about: str, endpoint: HttpEndpoint) -> Check:
    """A DICOMweb server answers a search (QIDO-RS, PS3.18 10.6)."""
    try:
        _asked(endpoint, "/studies", {"limit": 1})
    except GenuError as error:
        if isinstance(error, WebError) and error.status in (405, 501):
            seen = f"{endpoint.url} has no search (status {error.status}), by which it could be asked"
            return Check(about, Verdict.WARNING, seen, "send a study, then look at `genu status`")
        remedy = "start it, check url (the part before /studies) and who we are to it; results wait until it answers"
        return Check(about, Verdict.FAILED, str(error), remedy)
    return Check(about, Verdict.FINE, f"{endpoint.url} answers a search")


def _asked(endpoint: HttpEndpoint, path: str, params: dict[str, int]) -> object:
    server = WebServer(endpoint)
    try:
        return server.get_json(path, params, "application/dicom+json" if params else "application/json")
    finally:
        server.close()


def _trouble_writing(folder: Path, *, create: bool) -> str:
    """Why a file cannot be written and synchronised in the folder; empty when it can.

    Looking changes nothing: where the service would make the folder, the nearest one that is there is tried.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=_existing(folder) if create else folder, prefix=".genu-doctor-") as file:
            file.write(b"genu")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return ""


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(candidate for candidate in (folder, *folder.resolve().parents) if candidate.exists())
