"""Studies from a DICOMweb server: a real Orthanc, and a scripted server for what it never answers."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from inference.errors import DataError, ResourceError
from plugin.dicomweb import DicomWebReader, Listed
from plugin.fetching import one_of_each
from plugin.settings import DicomWeb
from plugin.web import WebError
from tests import phantoms
from tests.plugin.orthanc_rig import PASSWORD, USER, OrthancServer, orthanc
from tests.plugin.replies import dicom_json, in_turn, reply
from tests.plugin.scripted import Answer, Request, scripted

STUDY, SERIES = "1.2.3", "1.2.3.4"
DICOM = b"\0" * 128 + b"DICM" + b"content\r\n--" * 50
MULTIPART = 'multipart/related; type="application/dicom"; boundary="b o"'


@contextmanager
def reading(url: str, most: int = 1024 * 1024, *, whole_mr: bool = False, **more: Any) -> Iterator[DicomWebReader]:
    endpoint = DicomWeb(url=url, **{"connect_seconds": 5, "response_seconds": 5} | more)
    reader = DicomWebReader(endpoint, most, whole_mr=whole_mr)
    try:
        yield reader
    finally:
        reader.close()


# ---- a real Orthanc


@pytest.fixture(scope="module", params=["installed", "trixie"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    folder = tmp_path_factory.mktemp("orthanc")
    with orthanc(folder, plugins=("libOrthancDicomWeb.so",), program=request.param) as running:
        yield running


def of(server: OrthancServer, **more: Any) -> Any:
    return reading(f"{server.url}/dicom-web", **{"username": USER, "password": SecretStr(PASSWORD)} | more)


@pytest.mark.parametrize("syntax", ["", "1.2.840.10008.1.2.4.90"])
def test_a_study_comes_as_it_was_stored(server: OrthancServer, tmp_path: Path, syntax: str) -> None:
    dataset = phantoms.dx_knee("L", identity=f"web{syntax}")
    if syntax:
        dataset = phantoms.compress(dataset, syntax)
    stored = phantoms.write(dataset, tmp_path / "stored.dcm")
    server.put(stored)
    (tmp_path / "got").mkdir()
    with of(server, most=64 * 1024**2) as reader:
        (file,) = reader.fetch_study(dataset.StudyInstanceUID, tmp_path / "got")
    assert sha256(file.read_bytes()).digest() == sha256(stored.read_bytes()).digest()


def test_of_an_mr_series_one_instance_is_fetched_or_all(server: OrthancServer, tmp_path: Path) -> None:
    slices = phantoms.mr_knee("web-mr", slices=5)
    for number, one in enumerate(slices):
        server.put(phantoms.write(one, tmp_path / "given" / f"{number}.dcm"))
    uid = slices[0].StudyInstanceUID
    (tmp_path / "got").mkdir()
    with of(server, most=64 * 1024**2) as reader:
        listed = reader.instances(uid)
        assert [item.sop_uid for item in listed] == sorted(one.SOPInstanceUID for one in slices)
        assert {(item.series_uid, item.modality) for item in listed} == {(slices[0].SeriesInstanceUID, "MR")}
        assert len(reader.fetch_study(uid, tmp_path / "got")) == 1
    (tmp_path / "whole").mkdir()
    with of(server, most=64 * 1024**2, whole_mr=True) as reader:
        assert len(reader.fetch_study(uid, tmp_path / "whole")) == 5


def test_pages_of_a_real_server(server: OrthancServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin.dicomweb.INSTANCES_AT_ONCE", 2)
    slices = phantoms.mr_knee("web-pages", slices=5)
    for number, one in enumerate(slices):
        server.put(phantoms.write(one, tmp_path / f"{number}.dcm"))
    with of(server) as reader:
        assert len(reader.instances(slices[0].StudyInstanceUID)) == 5


def test_a_study_that_orthanc_does_not_have(server: OrthancServer, tmp_path: Path) -> None:
    with of(server) as reader, pytest.raises(DataError, match=r"has no study 1\.2\.3"):
        reader.fetch_study(STUDY, tmp_path)


def test_a_wrong_password_is_told_and_not_shown(server: OrthancServer) -> None:
    with of(server, password=SecretStr("ZQXCANARY")) as reader, pytest.raises(WebError, match="401") as raised:
        reader.instances(STUDY)
    assert "ZQXCANARY" not in str(raised.value)


# ---- the list


def entry(number: int, study: str = STUDY, modality: str | None = "DX", series: str = SERIES) -> dict[str, Any]:
    found: dict[str, Any] = {
        "00080018": {"vr": "UI", "Value": [f"{series}.{number}"]},
        "0020000D": {"vr": "UI", "Value": [study]},
        "0020000E": {"vr": "UI", "Value": [series]},
    }
    return found | ({"00080060": {"vr": "CS", "Value": [modality]}} if modality else {})


def numbers(listed: tuple[Listed, ...]) -> list[int]:
    return sorted(int(item.sop_uid.rpartition(".")[2]) for item in listed)


def pages(total: int, cap: int, *, mind_offset: bool = True, mind_limit: bool = True) -> Callable[[Request], Answer]:
    """A server with `total` instances that gives at most `cap` at once."""

    def answer(asked: Request) -> Answer:
        start = int(asked.query.get("offset", 0)) if mind_offset else 0
        most = min(cap, int(asked.query.get("limit", cap))) if mind_limit else cap
        found = [entry(number) for number in range(total)][start : start + most]
        return dicom_json(found) if found else reply(204)

    return answer


@pytest.mark.parametrize("total", [0, 1, 9, 10, 11, 20, 35])
@pytest.mark.parametrize(
    "server",
    [
        {"cap": 100},
        {"cap": 3},  # fewer than we ask for
        {"cap": 100, "mind_offset": False, "mind_limit": False},  # everything, each time
        {"cap": 100, "mind_offset": False},
    ],
)
def test_a_list_is_whole_however_the_server_pages(
    total: int, server: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugin.dicomweb.INSTANCES_AT_ONCE", 10)
    with scripted(pages(total, **server)) as peer, reading(peer.url) as reader:
        assert numbers(reader.instances(STUDY)) == list(range(total))
    assert {asked.place for asked in peer.requests} == {f"/studies/{STUDY}/instances"}
    assert {asked.headers["Accept"] for asked in peer.requests} == {"application/dicom+json"}


@pytest.mark.parametrize("status", [204, 404, 410])
def test_no_such_study(status: int) -> None:
    with scripted(in_turn(reply(status))) as peer, reading(peer.url) as reader:
        assert reader.instances(STUDY) == ()


def test_a_list_without_an_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin.dicomweb.MAX_INSTANCES", 100)

    def endless(asked: Request) -> Answer:
        start = int(asked.query["offset"])
        return dicom_json([entry(number) for number in range(start, start + 30)])

    with scripted(endless) as peer, reading(peer.url) as reader, pytest.raises(WebError, match="more than 100"):
        reader.instances(STUDY)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (dicom_json({"00080018": {}}), "not the DICOM JSON"),
        (dicom_json(["1.2.3"]), "not the DICOM JSON"),
        (dicom_json([{}]), "not the DICOM JSON"),
        (dicom_json([entry(1) | {"00080018": {"vr": "UI", "Value": ["../../system"]}}]), "not the DICOM JSON"),
        (dicom_json([entry(1) | {"0020000E": {"vr": "UI", "Value": ["1.2?x=y"]}}]), "not the DICOM JSON"),
        (dicom_json([entry(1) | {"00080018": {"vr": "UI", "Value": [{"x": 1}]}}]), "not the DICOM JSON"),
        (dicom_json([entry(1, study="1.2.9")]), "about other studies"),
        (reply(200, "text/html", [b"<html>"]), "not JSON"),
        (reply(200, "application/json", [b"[" * 100_000]), "not JSON"),
        (reply(302, Location="http://127.0.0.1:1"), "302, a redirect, which is not followed"),
        (reply(503), "503"),
        (reply(200, "application/dicom+json", [b"["], Content_Length=str(100)), "broke off|broken"),
    ],
)
def test_an_answer_that_is_no_list_is_an_error(answer: Answer, said: str) -> None:
    with scripted(in_turn(answer)) as peer, reading(peer.url) as reader, pytest.raises(WebError, match=said):
        reader.instances(STUDY)


@pytest.mark.parametrize("uid", ["", "../1", "1.2/instances", "1.2?limit=1", "1.2#", "1.2 ", "a", "1" * 65, "1..2"])
def test_what_is_no_uid_never_enters_an_address(uid: str) -> None:
    with scripted(in_turn(reply(200))) as peer, reading(peer.url) as reader, pytest.raises(DataError, match="no Study"):
        reader.instances(uid)
    assert not peer.requests


def test_everything_but_series_without_radiographs_is_one_of_each() -> None:
    listed = [
        Listed(f"{series}.{number}", series, modality)
        for series, modality in (("1.1", "MR"), ("1.2", "DX"), ("1.3", ""), ("1.4", "mr"), ("1.5", "OT"), ("1.6", "SR"))
        for number in (1, 2)
    ]
    counts = [len([item for item in one_of_each(listed) if item.series_uid == f"1.{number}"]) for number in range(1, 7)]
    assert counts == [1, 2, 2, 1, 2, 1]
    whole = one_of_each(listed, whole_mr=True)
    counts = [len([item for item in whole if item.series_uid == f"1.{number}"]) for number in range(1, 7)]
    assert counts == [2, 2, 2, 2, 2, 1]


# ---- one instance


def part(content: bytes = DICOM, head: bytes = b"Content-Type: application/dicom\r\n\r\n") -> bytes:
    return b"--b o\r\n" + head + content + b"\r\n--b o--\r\n"


def fetch(answer: Answer | None, target: Path, most: int = 1024 * 1024) -> bool:
    with scripted(in_turn(answer)) as peer, reading(peer.url, most) as reader:
        found = reader.fetch(STUDY, Listed("1.2.3.4.5", SERIES, "DX"), target)
    (asked,) = peer.requests
    assert asked.path == f"/studies/{STUDY}/series/{SERIES}/instances/1.2.3.4.5"
    assert "application/dicom" in asked.headers["Accept"]
    return found


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, MULTIPART, [part()]),
        reply(200, MULTIPART, pieces(part(), 1)),
        reply(200, MULTIPART, pieces(part(), 97)),
        reply(206, MULTIPART, [part()]),
        reply(200, MULTIPART, [part()], Content_Length=""),
        reply(200, 'multipart/related; boundary="b o"; start=x', [b"preamble\r\n" + part(head=b"\r\n")]),
        reply(200, "application/dicom", [DICOM]),
        reply(200, MULTIPART, [gzip.compress(part())], Content_Encoding="gzip"),
    ],
)
def test_one_instance_in_every_form(answer: Answer, tmp_path: Path) -> None:
    assert fetch(answer, tmp_path / "one.dcm")
    assert (tmp_path / "one.dcm").read_bytes() == DICOM


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(200, MULTIPART, [part()[:-30]]), "ends before"),
        (reply(200, MULTIPART, [part()[:-30]], Content_Length=""), "ends before"),
        (reply(200, MULTIPART, [part()[:-30]], Content_Length=str(len(part()))), "broke off|broken"),
        (reply(200, "application/dicom", [DICOM], Content_Length=str(len(DICOM) + 1)), "broke off|broken"),
        (reply(200, MULTIPART, [gzip.compress(part())[:-20]], Content_Encoding="gzip"), "ends before"),
        (reply(200, MULTIPART, [b"no gzip"], Content_Encoding="gzip"), "ContentDecodingError"),
        (reply(200, "text/html", [b"<html>log in</html>"]), "text/html"),
        (reply(200, "multipart/related; type=x", [part()]), "no usable boundary"),
        (reply(200, MULTIPART, [part(head=b"Content-Type: text/plain\r\n\r\n")]), "text/plain"),
        (reply(200, "", [DICOM]), "its type is ''"),
        (reply(204), "its type is ''"),
        (reply(302, Location="http://127.0.0.1:1"), "302, a redirect"),
        (reply(406), "406"),
        (reply(503), "503"),
        (None, "broke off"),
    ],
)
def test_an_answer_that_is_no_instance_is_an_error(answer: Answer | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(WebError, match=said):
        fetch(answer, tmp_path / "one.dcm")


@pytest.mark.parametrize("content_type", [MULTIPART, "application/dicom"])
def test_an_instance_beyond_the_bound_is_not_taken(content_type: str, tmp_path: Path) -> None:
    content = b"x" * 1000
    body = part(content) if content_type == MULTIPART else content
    assert fetch(reply(200, content_type, [body]), tmp_path / "one.dcm", most=1000)
    with pytest.raises(WebError, match="more than 999 bytes"):
        fetch(reply(200, content_type, [body]), tmp_path / "two.dcm", most=999)


def test_what_never_ends_is_ended_early(tmp_path: Path) -> None:
    """256 MiB in a quarter of a packed megabyte: neither memory nor disk takes it."""
    packed = gzip.compress(part(b"\0" * 256 * 1024**2), compresslevel=9)
    answer = reply(200, MULTIPART, [packed], Content_Encoding="gzip")
    with pytest.raises(WebError, match="more than"):
        fetch(answer, tmp_path / "one.dcm", most=1024**2)
    assert (tmp_path / "one.dcm").stat().st_size <= 1024**2


def test_an_instance_that_is_gone_is_left_out(tmp_path: Path) -> None:
    def answers(asked: Request) -> Answer:
        if asked.place.endswith("/instances"):
            return dicom_json([entry(1), entry(2)] if asked.query["offset"] == "0" else [])
        return reply(404) if asked.path.endswith(".1") else reply(200, MULTIPART, [part()])

    seen: list[int] = []
    with scripted(answers) as peer, reading(peer.url) as reader:
        files = reader.fetch_study(STUDY, tmp_path, lambda: seen.append(1))
    assert [file.read_bytes() for file in files] == [DICOM]
    assert len(seen) == 2


def test_a_study_of_which_nothing_is_left_is_no_study(tmp_path: Path) -> None:
    def answers(asked: Request) -> Answer:
        return dicom_json([entry(1)]) if asked.place.endswith("/instances") else reply(404)

    with (
        scripted(answers) as peer,
        reading(peer.url) as reader,
        pytest.raises(DataError, match="none of its instances"),
    ):
        reader.fetch_study(STUDY, tmp_path)


def test_our_own_disk_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot write"):
        fetch_into_nowhere(tmp_path)


def fetch_into_nowhere(folder: Path) -> None:
    with scripted(in_turn(reply(200, MULTIPART, [part()]))) as peer, reading(peer.url) as reader:
        reader.fetch(STUDY, Listed("1.2.3.4.5", SERIES, "DX"), folder / "missing" / "one.dcm")
