"""Orthanc and DICOMweb servers as destinations: a real Orthanc, and a scripted server for what it never answers."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydicom import dcmread

from inference.errors import DeliveryError
from plugin.deliverer import Courier
from plugin.destinations import opened
from plugin.jobs import Queue
from plugin.settings import OrthancDestination, StowDestination, load
from plugin.verdicts import Outcome, Outgoing, UnreachableError, Verdict
from tests.plugin.orthanc_rig import PASSWORD, USER, OrthancServer, orthanc
from tests.plugin.peers import free_port
from tests.plugin.queue_helpers import Clock, settings_for
from tests.plugin.replies import dicom_json, in_turn, reply
from tests.plugin.scripted import Answer, Request, scripted
from tests.plugin.test_deliverer import score
from tests.plugin.test_destinations import item

STORED = Verdict(Outcome.STORED)
DESTINATIONS = ["orthanc", "stow"]


@pytest.fixture(scope="module", params=["installed", "trixie"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    folder, plugins = tmp_path_factory.mktemp("orthanc"), ("libOrthancDicomWeb.so",)
    with orthanc(folder, {"OverwriteInstances": False}, plugins=plugins, program=request.param) as running:
        yield running


def destination(kind: str, url: str, **changes: Any) -> OrthancDestination | StowDestination:
    who = {"username": USER, "password": SecretStr(PASSWORD), "connect_seconds": 5, "response_seconds": 5} | changes
    if kind == "orthanc":
        return OrthancDestination(url=url, **who)
    return StowDestination(url=url, **who)


def of(server: OrthancServer, kind: str, **changes: Any) -> OrthancDestination | StowDestination:
    return destination(kind, server.url if kind == "orthanc" else f"{server.url}/dicom-web", **changes)


def send(target: OrthancDestination | StowDestination, *items: Outgoing) -> list[Verdict]:
    with opened(target, items, "GENU") as session:
        return [session.send(one) for one in items]


# ---- a real Orthanc


@pytest.mark.parametrize("kind", DESTINATIONS)
def test_orthanc_has_the_bytes_that_we_sent(server: OrthancServer, kind: str, tmp_path: Path) -> None:
    items = [item(tmp_path, 100 * DESTINATIONS.index(kind) + n) for n in (1, 2)]
    assert send(of(server, kind), *items) == [STORED, STORED]
    for one in items:
        (found,) = server.session.post(f"{server.url}/tools/lookup", data=one.sop_uid, timeout=10).json()
        file = server.session.get(f"{server.url}/instances/{found['ID']}/file", timeout=10).content
        assert file == one.path.read_bytes()


@pytest.mark.parametrize("kind", DESTINATIONS)
def test_what_is_there_already_is_stored(server: OrthancServer, kind: str, tmp_path: Path) -> None:
    one = item(tmp_path, 300 + DESTINATIONS.index(kind))
    assert send(of(server, kind), one, one) == [STORED, STORED]


def test_a_patient_who_was_deleted_does_not_come_back(server: OrthancServer, tmp_path: Path) -> None:
    one, other = item(tmp_path, 501), item(tmp_path, 502)
    study = str(dcmread(one.path).StudyInstanceUID)
    ours = of(server, "orthanc", only_known_studies=True)
    for known in server.session.post(f"{server.url}/tools/lookup", data=study, timeout=10).json():
        server.session.delete(server.url + known["Path"], timeout=10).raise_for_status()
    (verdict,) = send(ours, replace(one, study_uid=study))
    assert verdict == Verdict(Outcome.REFUSED, "its study is not in Orthanc any more")
    assert server.session.post(f"{server.url}/tools/lookup", data=study, timeout=10).json() == []
    assert send(of(server, "orthanc"), other) == [STORED]  # elsewhere nothing is asked
    assert send(ours, replace(one, study_uid=str(dcmread(other.path).StudyInstanceUID))) == [STORED]


def test_the_orthanc_that_we_serve_gets_nothing_for_a_deleted_study() -> None:
    (own,) = load(None, {"orthanc": {"url": "http://127.0.0.1:8042"}}).delivery_targets
    assert isinstance(own, OrthancDestination) and own.only_known_studies


@pytest.mark.parametrize("kind", DESTINATIONS)
def test_one_that_orthanc_does_not_take_is_refused_the_others_are_stored(
    server: OrthancServer, kind: str, tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage.dcm"
    garbage.write_bytes(b"no DICOM at all")
    gone = Outgoing(tmp_path / "gone.dcm", "1.2.3", "2.25.9")
    verdicts = send(of(server, kind), Outgoing(garbage, "1.2.3", "2.25.8"), gone, item(tmp_path, 1))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.REFUSED, Outcome.REFUSED, Outcome.STORED]
    assert "400" in verdicts[0].text
    assert "on our disk" in verdicts[1].text


@pytest.mark.parametrize("kind", DESTINATIONS)
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password": SecretStr("wrong")}, "status 401: check username and password"),
        ({"url": f"http://127.0.0.1:{free_port()}"}, "cannot be reached"),
        ({"url": "http://no.such.host.invalid"}, "cannot be reached"),
        ({"authorities": Path("/gone.pem")}, "/gone.pem"),
    ],
)
def test_who_we_are_and_where_it_is_concern_the_destination(
    server: OrthancServer, kind: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UnreachableError, match=said) as raised:
        send(of(server, kind).model_copy(update=changes), item(tmp_path, 1))
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize("kind", DESTINATIONS)
def test_a_wrong_address_on_a_right_server_is_no_refusal(server: OrthancServer, kind: str, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="404: is the url right"):
        send(destination(kind, f"{server.url}/elsewhere"), item(tmp_path, 1))


@pytest.mark.parametrize("kind", DESTINATIONS)
def test_tls_that_we_do_not_trust_is_down(server: OrthancServer, kind: str, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="TLS"):
        send(destination(kind, server.url.replace("http:", "https:")), item(tmp_path, 1))


# ---- what any server may answer


@pytest.mark.parametrize("kind", DESTINATIONS)
@pytest.mark.parametrize("status", [301, 302, 401, 403, 404, 405, 429, 501, 502, 503, 504])
def test_statuses_that_concern_the_whole_destination(kind: str, status: int, tmp_path: Path) -> None:
    answer = reply(status, Location="http://127.0.0.1:1/" if status < 400 else "")
    with scripted(in_turn(answer)) as peer, pytest.raises(UnreachableError, match=str(status)):
        send(destination(kind, peer.url), item(tmp_path, 1))
    assert len(peer.requests) == 1, "a redirect is not followed"


@pytest.mark.parametrize("kind", DESTINATIONS)
@pytest.mark.parametrize("answer", [reply(500), reply(408), None, reply(200, Content_Length=str(100))])
def test_a_fault_at_one_object_puts_off_that_object_alone(kind: str, answer: Answer | None, tmp_path: Path) -> None:
    with scripted(in_turn(answer)) as peer, pytest.raises(DeliveryError) as raised:
        send(destination(kind, peer.url), item(tmp_path, 1))
    assert not isinstance(raised.value, UnreachableError)


@pytest.mark.parametrize("kind", DESTINATIONS)
def test_out_of_storage_is_waited_out(kind: str, tmp_path: Path) -> None:
    with scripted(in_turn(reply(507))) as peer:
        (verdict,) = send(destination(kind, peer.url), item(tmp_path, 1))
    assert verdict.outcome is Outcome.DEFERRED
    assert "507" in verdict.text


@pytest.mark.parametrize("kind", DESTINATIONS)
@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_statuses_that_concern_the_object(kind: str, status: int, tmp_path: Path) -> None:
    with scripted(in_turn(reply(status))) as peer:
        (verdict,) = send(destination(kind, peer.url), item(tmp_path, 1))
    assert verdict.outcome is Outcome.REFUSED
    assert str(status) in verdict.text


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (b'{"Status": "Success"}', Outcome.STORED),
        (b'{"Status": "AlreadyStored"}', Outcome.STORED),
        (b'{"Status": "FilteredOut"}', Outcome.REFUSED),
        (b'{"Status": 5}', Outcome.REFUSED),
        (b'["Success"]', Outcome.REFUSED),
        (b"<html>welcome</html>", Outcome.REFUSED),
        (b"", Outcome.REFUSED),
    ],
)
def test_orthancs_own_word_decides(content: bytes, outcome: Outcome, tmp_path: Path) -> None:
    with scripted(in_turn(reply(200, "application/json", [content]))) as peer:
        (verdict,) = send(destination("orthanc", peer.url), item(tmp_path, 1))
    assert verdict.outcome is outcome
    assert (peer.requests[0].path, peer.requests[0].headers["Expect"]) == ("/instances", "")


# ---- STOW-RS


def reason(tag: str, value: Any) -> dict[str, Any]:
    return {tag: {"vr": "US", "Value": [value]}}


def instance(uid: str, **more: Any) -> dict[str, Any]:
    found = {"00081150": {"vr": "UI", "Value": ["1.2.3"]}, "00081155": {"vr": "UI", "Value": [uid]}}
    return found | more


def stow_answer(**sequences: list[dict[str, Any]]) -> dict[str, Any]:
    tags = {"failed": "00081198", "referenced": "00081199", "other": "0008119A"}
    return {tags[name]: {"vr": "SQ", "Value": items} for name, items in sequences.items()}


def stow(answer: Answer, folder: Path) -> Verdict:
    with scripted(in_turn(answer)) as peer:
        (verdict,) = send(destination("stow", peer.url), item(folder, 1))
    return verdict


OURS = "2.25.71"


@pytest.mark.parametrize(
    ("status", "answer", "outcome", "said"),
    [
        (200, stow_answer(referenced=[instance(OURS)]), Outcome.STORED, ""),
        (200, stow_answer(referenced=[instance("2.25.1"), instance(OURS)]), Outcome.STORED, ""),
        (202, stow_answer(referenced=[instance(OURS, **reason("00081196", 0xB000))]), Outcome.STORED, "warning 0xB000"),
        (202, stow_answer(failed=[instance(OURS, **reason("00081197", 0xA700))]), Outcome.DEFERRED, "0xA700"),
        (202, stow_answer(failed=[instance(OURS, **reason("00081197", 0x0122))]), Outcome.REFUSED, "0x0122"),
        (202, stow_answer(failed=[instance("2.25.1")], referenced=[instance(OURS)]), Outcome.STORED, ""),
        (200, stow_answer(failed=[instance(OURS, **reason("00081197", 0xC000))]), Outcome.REFUSED, "0xC000"),
        (409, stow_answer(failed=[instance(OURS, **reason("00081197", 0x0110))]), Outcome.REFUSED, "0x0110"),
        (409, stow_answer(failed=[instance(OURS, **reason("00081197", 0x0111))]), Outcome.STORED, "0x0111"),
        (409, stow_answer(failed=[instance(OURS, **reason("00081197", 45070))]), Outcome.STORED, "0xB00E"),
        (409, stow_answer(failed=[instance(OURS)]), Outcome.REFUSED, "0x0110"),
        (409, stow_answer(failed=[reason("00081197", 0xA900)]), Outcome.REFUSED, "0xA900"),
        (409, stow_answer(other=[reason("00081197", 0xC123)]), Outcome.REFUSED, "0xC123"),
        (409, stow_answer(failed=[instance("2.25.1")]), Outcome.REFUSED, "other instances"),
        (200, stow_answer(referenced=[instance("2.25.1")]), Outcome.REFUSED, "other instances"),
        (200, stow_answer(failed=[], referenced=[]), Outcome.REFUSED, "no instance"),
        (200, [stow_answer(referenced=[instance(OURS)])], Outcome.STORED, ""),
        (200, {}, Outcome.STORED, "no instance"),
        (202, {}, Outcome.REFUSED, "no instance"),
        (200, {"00081199": {"Value": "x"}, "00081198": 5, "0008119A": None}, Outcome.STORED, "no instance"),
    ],
)
@pytest.mark.parametrize("content_type", ["application/dicom+json", "text/plain", ""])
def test_the_answer_about_our_instance_decides(
    status: int, answer: Any, outcome: Outcome, said: str, content_type: str, tmp_path: Path
) -> None:
    verdict = stow(dicom_json(answer, status, content_type), tmp_path)
    assert verdict.outcome is outcome
    assert said in verdict.text
    assert said or not verdict.text


XML = """<?xml version="1.0" encoding="utf-8"?>
<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">
  <DicomAttribute tag="00081198" vr="SQ" keyword="FailedSOPSequence"><Item number="1">
    <DicomAttribute tag="00081155" vr="UI"><Value number="1">2.25.71</Value></DicomAttribute>
    <DicomAttribute tag="00081197" vr="US"><Value number="1">{reason}</Value></DicomAttribute>
  </Item></DicomAttribute>
</NativeDicomModel>"""


def test_answers_in_xml_are_understood(tmp_path: Path) -> None:
    for number, outcome in ((0xA700, Outcome.DEFERRED), (0x0111, Outcome.STORED), (0x0122, Outcome.REFUSED)):
        answer = reply(409, "application/dicom+xml", [XML.format(reason=number).encode()])
        assert stow(answer, tmp_path).outcome is outcome


DEEP_JSON = b'{"00081198": {"Value": [' * 40 + b"]}}" * 40
DEEP_XML = b"<NativeDicomModel>" + b'<DicomAttribute tag="00081198"><Item>' * 40
DEEP_XML += b"</Item></DicomAttribute>" * 40 + b"</NativeDicomModel>"
BOMB = b'<!DOCTYPE a [<!ENTITY b "' + b"c" * 10 + b'">]><NativeDicomModel>&b;</NativeDicomModel>'
HIDDEN_BOMB = (
    '<!DOCTYPE a [<!ENTITY b "272">]><NativeDicomModel><DicomAttribute tag="00081198"><Item>'
    '<DicomAttribute tag="00081197"><Value>&b;</Value></DicomAttribute></Item></DicomAttribute></NativeDicomModel>'
).encode("utf-16-le")


@pytest.mark.parametrize(
    "content",
    [
        BOMB,
        HIDDEN_BOMB,
        b"<html></html>",
        b"<NativeDicomModel",
        b"[" * 100_000,
        DEEP_JSON,
        DEEP_XML,
        b"\xff\xfe",
        b"OK",
        b"[1, 2]",
    ],
    ids=["entity", "entity in UTF-16", "html", "cut", "brackets", "deep json", "deep xml", "binary", "text", "numbers"],
)
def test_answers_that_cannot_be_read_leave_the_status(content: bytes, tmp_path: Path) -> None:
    for status, outcome in ((200, Outcome.STORED), (202, Outcome.REFUSED), (409, Outcome.REFUSED)):
        verdict = stow(reply(status, "application/dicom+json", [content]), tmp_path)
        assert verdict.outcome is outcome
        assert f"{status} with an answer that cannot be read" in verdict.text


def test_the_request_is_what_the_standard_asks_for(tmp_path: Path) -> None:
    with scripted(in_turn(reply(200))) as peer:
        one = item(tmp_path, 1)
        send(destination("stow", peer.url), one)
    (asked,) = peer.requests
    kind = re.fullmatch(r'multipart/related; type="application/dicom"; boundary=(\w+)', asked.headers["Content-Type"])
    assert kind
    head, _, rest = asked.body.partition(b"\r\n\r\n")
    assert head == f"--{kind[1]}\r\nContent-Type: application/dicom".encode()
    assert rest == one.path.read_bytes() + f"\r\n--{kind[1]}--\r\n".encode()
    assert (asked.path, asked.headers["Accept"]) == ("/studies", "application/dicom+json")
    assert asked.headers["Authorization"].startswith("Basic ")


def test_a_token_is_sent_as_it_is(tmp_path: Path) -> None:
    with scripted(in_turn(reply(200))) as peer:
        send(StowDestination(url=peer.url, token=SecretStr("Bearer abc")), item(tmp_path, 1))
    assert peer.requests[0].headers["Authorization"] == "Bearer abc"


# ---- with the deliverer


def test_an_object_that_brings_the_server_to_a_500_does_not_block_the_others(tmp_path: Path) -> None:
    clock = Clock()
    queue = Queue.open(
        settings_for(tmp_path, destinations=[{"kind": "stow", "url": f"http://127.0.0.1:{free_port()}"}])
    )
    poison, *others = score(queue, clock, 1, 2)

    def answers(asked: Request) -> Answer:
        poisoned = poison.sop_uid.encode() in asked.body.partition(b"DICM")[2][:600]
        return reply(500) if poisoned else reply(200)

    with scripted(answers) as peer:
        courier = Courier(queue, queue.settings, destination("stow", peer.url), clock=clock)
        for _ in range(4):
            courier.step()
    (row,) = queue.snapshot().destinations
    queue.close()
    assert (row.delivered, row.pending) == (len(others), 1)


def test_results_wait_for_an_orthanc_that_is_down_and_arrive_when_it_is_back(tmp_path: Path) -> None:
    clock = Clock()
    server = OrthancServer(tmp_path / "orthanc", {}, plugins=("libOrthancDicomWeb.so",))
    targets = [of(server, "orthanc"), of(server, "stow")]
    queue = Queue.open(settings_for(tmp_path, destinations=[target.model_dump() for target in targets]))
    objects = score(queue, clock, 1)
    couriers = [Courier(queue, queue.settings, target, clock=clock) for target in targets]
    for courier in couriers:
        assert courier.step()
    assert [(row.delivered, row.pending) for row in queue.snapshot().destinations] == [(0, 2), (0, 2)]
    try:
        server.start()
        clock.forward(600)
        for courier in couriers:
            assert courier.step()
        assert [(row.delivered, row.pending) for row in queue.snapshot().destinations] == [(2, 0), (2, 0)]
        found = [server.get(path)["MainDicomTags"]["SOPInstanceUID"] for path in paths(server)]
        assert sorted(found) == sorted(one.sop_uid for one in objects)
    finally:
        server.kill()
        server.session.close()
        queue.close()


def paths(server: OrthancServer) -> list[str]:
    return [f"/instances/{identifier}" for identifier in server.get("/instances")]
