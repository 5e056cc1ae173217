"""Rules by sender."""

from plugin.completeness import Wait
from plugin.routing import accepts_secondary_capture, destinations_for, find_peer, may_send, wait_for
from plugin.rows import Source
from plugin.settings import Settings, load

XRAY, ARCHIVE, STRANGER = Source("XRAY", "10.0.0.1"), Source("ARCHIVE", "10.0.0.2"), Source("XRAY", "10.0.0.9")
PEERS = [
    {"ae_title": "XRAY", "hosts": ["10.0.0.1"], "quiet_seconds": 20, "accept_secondary_capture": True},
    {"ae_title": "ARCHIVE", "max_seconds": 60},
]
SETTINGS = load(None, {"listener": {"peers": PEERS}})


def test_a_peer_is_known_by_title_and_address() -> None:
    assert find_peer(SETTINGS, XRAY) == SETTINGS.listener.peers[0]
    assert find_peer(SETTINGS, STRANGER) is None


def test_who_may_send() -> None:
    assert may_send(Settings(), STRANGER)
    assert may_send(SETTINGS, ARCHIVE)
    assert not may_send(SETTINGS, STRANGER)
    anybody = load(None, {"listener": {"peers": [*PEERS, {"ae_title": "*"}]}})
    assert may_send(anybody, STRANGER)


def test_the_most_patient_source_decides() -> None:
    assert wait_for(SETTINGS, [XRAY]) == Wait(20.0, 300.0)
    assert wait_for(SETTINGS, [ARCHIVE]) == Wait(5.0, 60.0)
    assert wait_for(SETTINGS, [XRAY, ARCHIVE]) == Wait(20.0, 300.0)
    assert wait_for(SETTINGS, []) == Wait(5.0, 300.0)


def test_secondary_capture_only_where_every_source_opted_in() -> None:
    assert accepts_secondary_capture(SETTINGS, [XRAY])
    assert not accepts_secondary_capture(SETTINGS, [XRAY, ARCHIVE])
    assert not accepts_secondary_capture(SETTINGS, [STRANGER])
    assert not accepts_secondary_capture(SETTINGS, [])


def test_results_go_to_every_destination() -> None:
    assert [target.name for target in destinations_for(Settings())] == ["outgoing"]
