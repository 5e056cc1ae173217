"""Which rules and which destinations a study gets, from who sent it. Pure."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from plugin.completeness import Wait
from plugin.rows import Source
from plugin.settings import Destination, Peer, Settings

ARCHIVE = "orthanc (REST API)"  # stands for the calling AE title, and is longer than one can be


def from_archive(settings: Settings) -> Source:
    """Where the studies of the configured Orthanc come from."""
    return Source(ARCHIVE, urlsplit(settings.orthanc.url).hostname or "" if settings.orthanc else "")


def find_peer(settings: Settings, source: Source) -> Peer | None:
    """The first configured peer that this calling AE title and address fit, or None."""
    for peer in settings.listener.peers:
        title_fits = peer.ae_title in ("*", source.calling_ae)
        if title_fits and (not peer.hosts or source.peer_host in peer.hosts):
            return peer
    return None


def may_send(settings: Settings, source: Source) -> bool:
    """Whether this node may store here: anybody when no peer is configured, else only the configured ones."""
    return not settings.listener.peers or find_peer(settings, source) is not None


def wait_for(settings: Settings, sources: Sequence[Source]) -> Wait:
    """How long to wait for more of a study; the most patient of its sources decides."""
    default = settings.completeness
    peers = [find_peer(settings, source) for source in sources]
    quiet = [peer.quiet_seconds if peer and peer.quiet_seconds else default.quiet_seconds for peer in peers]
    maximum = [peer.max_seconds if peer and peer.max_seconds else default.max_seconds for peer in peers]
    return Wait(quiet=max(quiet, default=default.quiet_seconds), maximum=max(maximum, default=default.max_seconds))


def accepts_secondary_capture(settings: Settings, sources: Sequence[Source]) -> bool:
    """Whether Secondary Capture images of a study are scored: only when every source of it opted in."""
    return bool(sources) and all(_opted_in(settings, source) for source in sources)


def _opted_in(settings: Settings, source: Source) -> bool:
    if source.calling_ae == ARCHIVE:
        return settings.orthanc is not None and settings.orthanc.accept_secondary_capture
    peer = find_peer(settings, source)
    return peer is not None and peer.accept_secondary_capture


def destinations_for(settings: Settings) -> tuple[Destination, ...]:
    """Where the results of a study go: today every destination."""
    return settings.delivery_targets
