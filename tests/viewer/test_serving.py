"""What nginx lets through, and to whom."""

import json
import stat

import psutil
import pytest
import requests

from tests.viewer.conftest import Viewer


@pytest.fixture
def session() -> requests.Session:
    found = requests.Session()
    found.trust_env = False
    return found


def children(viewer: Viewer) -> list[psutil.Process]:
    return psutil.Process(viewer.process.pid).children(recursive=True)


def test_nginx_listens_on_loopback_only(viewer: Viewer) -> None:
    (master,) = [child for child in children(viewer) if child.name() == "nginx" and child.ppid() == viewer.process.pid]
    addresses = {found.laddr for found in master.net_connections("tcp") if found.status == psutil.CONN_LISTEN}
    assert addresses == {("127.0.0.1", int(viewer.url.rpartition(":")[2]))}


def test_orthanc_itself_wants_the_password(viewer: Viewer, session: requests.Session) -> None:
    config = viewer.folder / "orthanc" / "orthanc.json"
    settings = json.loads(config.read_text())
    url = f"http://127.0.0.1:{settings['HttpPort']}"
    assert session.get(f"{url}/studies").status_code == 401
    ((user, password),) = settings["RegisteredUsers"].items()
    assert session.get(f"{url}/studies", auth=(user, password)).status_code == 200
    assert not settings["RemoteAccessAllowed"] and not settings["DicomServerEnabled"]
    for secret in (config, viewer.folder / "nginx" / "nginx.conf"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert password not in viewer.said


@pytest.mark.parametrize("path", ["/", "/viewer?StudyInstanceUIDs=1.2", "/anything"])
def test_every_page_of_ohif_is_its_index(viewer: Viewer, session: requests.Session, path: str) -> None:
    answer = session.get(viewer.url + path)
    assert answer.status_code == 200 and "OHIF Viewer" in answer.text
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "http:" not in policy and "https:" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_our_configuration_is_served_in_place_of_ohifs(viewer: Viewer, session: requests.Session) -> None:
    answer = session.get(f"{viewer.url}/app-config.js")
    assert "name: 'genu'" in answer.text and answer.headers["Content-Type"] == "application/javascript"


@pytest.mark.parametrize("path", ["/missing.js", "/ort/ort.js", "/../../nginx/nginx.conf.js"])
def test_a_missing_file_is_missing(viewer: Viewer, session: requests.Session, path: str) -> None:
    assert session.get(viewer.url + path).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/dicom-web/studies"),
        ("DELETE", "/dicom-web/studies/1.2"),
        ("POST", "/orthanc/instances"),
        ("POST", "/orthanc/tools/reset"),
        ("POST", "/orthanc/tools/execute-script"),
        ("PUT", "/orthanc/modalities/x"),
        ("DELETE", "/orthanc/studies/x"),
        ("DELETE", "/orthanc/genu/status"),
        ("POST", "/"),
        ("PUT", "/app-config.js"),
    ],
)
def test_what_would_change_something_is_refused(
    viewer: Viewer, session: requests.Session, method: str, path: str
) -> None:
    assert session.request(method, viewer.url + path, data=b"x").status_code == 403


def test_a_strangers_name_for_this_machine_is_refused(viewer: Viewer, session: requests.Session) -> None:
    port = viewer.url.rpartition(":")[2]
    for host, status in {"evil.example": 421, f"evil.example:{port}": 421, f"localhost:{port}": 200}.items():
        assert session.get(f"{viewer.url}/dicom-web/studies", headers={"Host": host}).status_code == status


def test_another_sites_page_can_start_nothing(viewer: Viewer, session: requests.Session) -> None:
    url = f"{viewer.url}/orthanc/genu/studies/1.2.3/score"
    for origin, status in {"http://evil.example": 403, "null": 403, viewer.url: 404}.items():
        assert session.post(url, headers={"Origin": origin}).status_code == status
    find = f"{viewer.url}/orthanc/tools/find"
    assert session.post(find, headers={"Origin": "http://evil.example"}, json={}).status_code == 403


def test_lists_in_queries_reach_orthanc(viewer: Viewer, session: requests.Session) -> None:
    # Orthanc's DICOMweb plugin 1.7 takes %2C for a part of the name of an attribute.
    (study, *_) = viewer.studies
    query = f"StudyInstanceUID={study}&includefield=00081030%2C00080060%2C00080090%2C00100030"
    (found,) = session.get(f"{viewer.url}/dicom-web/studies?{query}").json()
    assert found["00081030"]["Value"] and found["0020000D"]["Value"] == [study]
    assert found["00081190"]["Value"][0].startswith(viewer.url)
