"""`genu doctor --orthanc`: asked of real Orthancs, of strangers, and of what Genu's plugin may say in trouble."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from plugin import orthanc_doctor
from plugin.cli import main
from plugin.demo import free_port
from plugin.doctor import Check, Verdict
from plugin.settings import HttpEndpoint
from tests.plugin.orthanc_rig import PASSWORD, ROOT, USER, each_orthanc, orthanc
from tests.plugin.scripted import Answer, Request, scripted
from tests.plugin.standin import genu, standin_bundle

FINE, WARNING, FAILED = Verdict.FINE, Verdict.WARNING, Verdict.FAILED
SYSTEM = {"ApiVersion": 17, "Version": "1.10.1", "Name": "there", "IsHttpServerSecure": True}
STATUS = {
    "version": version("genu"),
    "data_dir": "/var/lib/genu",
    "orthanc": {"cursor": 41, "last_change": 42, "waiting_instances": 1, "error": None, "stable_age": 30},
    "children": [{"name": "worker-1", "running": True, "pid": 5}, {"name": "deliverer", "running": True, "pid": 6}],
    "bundles": [{"name": "genu-kl", "version": "0.1.0", "synthetic": False}],
    "destinations": [{"name": "orthanc", "dead": 0}],
    "dead": [],
}


def endpoint(url: str, username: str = USER, password: str = PASSWORD) -> HttpEndpoint:
    return HttpEndpoint.model_validate({"url": url, "username": username, "password": password, "connect_seconds": 2})


def examined(url: str, *who: str) -> dict[str, Check]:
    """The answers by what they are about; each one that is not fine says what to do."""
    checks = list(orthanc_doctor.examine_orthanc(endpoint(url, *who)))
    assert all(check.remedy for check in checks if check.verdict is not FINE), checks
    found = {check.about: check for check in checks}
    assert len(found) == len(checks), checks
    return found


@contextmanager
def answering(answers: Mapping[str, tuple[int, Any]]) -> Iterator[str]:
    """The address of a server that gives these answers, 404 to everything else."""

    def answer(request: Request) -> Answer:
        status, body = answers.get(request.path, (404, {}))
        return status, {}, body if isinstance(body, bytes) else json.dumps(body).encode()

    with scripted(answer) as server:
        yield server.url


@each_orthanc
def test_an_orthanc_without_plugins(kind: str, tmp_path: Path) -> None:
    with orthanc(tmp_path, {"Name": "archive"}, program=kind) as server:
        found = examined(server.url)
    assert found["orthanc"].verdict is FINE and "called archive" in found["orthanc"].seen
    assert found["orthanc version"].verdict is FINE
    assert found["orthanc access"] == Check("orthanc access", FINE, "a password is asked for")
    assert found["orthanc results"].verdict is FINE
    assert found["orthanc dicom-web"].verdict is WARNING and "orthanc-dicomweb" in found["orthanc dicom-web"].remedy
    assert found["orthanc python"].verdict is WARNING and "genu orthanc" in found["orthanc python"].remedy
    assert found["orthanc genu"].verdict is WARNING and "PythonScript" in found["orthanc genu"].remedy


@each_orthanc
def test_an_orthanc_with_plugins_but_without_genu(kind: str, tmp_path: Path) -> None:
    script = tmp_path / "other.py"
    script.write_text("import orthanc\n")
    plugins = ("libOrthancPython.so", "libOrthancDicomWeb.so")
    with orthanc(tmp_path / "o", {"PythonScript": str(script)}, plugins=plugins, program=kind) as server:
        found = examined(server.url)
    assert found["orthanc dicom-web"].verdict is FINE
    assert found["orthanc python"].verdict is FINE and {"4.0", "5.0"} & set(found["orthanc python"].seen.split())
    assert found["orthanc genu"].verdict is WARNING


@each_orthanc
def test_an_orthanc_with_genu(kind: str, tmp_path: Path) -> None:
    script = str(ROOT / "plugin" / "orthanc_plugin.py")
    section = {"data_dir": str(tmp_path / "data"), "bundles": [str(standin_bundle())]}
    plugins = ("libOrthancPython.so", "libOrthancDicomWeb.so")
    configuration = {"PythonScript": script, "Genu": section}
    with orthanc(tmp_path / "o", configuration, plugins=plugins, program=kind) as server:
        server.until(lambda: server.session.get(f"{server.url}/genu/status", timeout=30).ok)
        server.until(lambda: server.get("/genu/status")["orthanc"]["error"] is None)
        found = examined(server.url)
    assert {check.verdict for about, check in found.items() if about != "orthanc genu"} == {FINE}, found
    assert found["orthanc genu"].verdict is WARNING and "a synthetic stand-in" in found["orthanc genu"].seen
    assert f"version {version('genu')}" in found["orthanc genu"].seen
    assert "worker-1, deliverer" in found["orthanc service"].seen
    assert found["orthanc changes"].seen.startswith("in the queue up to change")


def test_a_genu_that_cannot_start_says_why(tmp_path: Path) -> None:
    configuration = {
        "PythonScript": str(ROOT / "plugin" / "orthanc_plugin.py"),
        "Genu": {"data_dir": str(tmp_path / "data"), "workers": {"count": -1}},
    }
    with orthanc(tmp_path / "o", configuration, plugins=("libOrthancPython.so",)) as server:
        server.until(lambda: "workers.count" in examined(server.url)["orthanc genu"].seen)
        found = examined(server.url)["orthanc genu"]
    assert found.verdict is FAILED and "status 503" in found.seen


def test_a_wrong_password_and_none_at_all_are_told_apart(tmp_path: Path) -> None:
    with orthanc(tmp_path) as server:
        wrong = examined(server.url, USER, "guess")
        none = examined(server.url, "", "")
    assert list(wrong) == list(none) == ["orthanc"], "nothing more can be asked"
    assert wrong["orthanc"].verdict is FAILED and f"user {USER!r}" in wrong["orthanc"].seen
    assert "guess" not in wrong["orthanc"].seen + wrong["orthanc"].remedy
    assert none["orthanc"].verdict is FAILED and "GENU_ORTHANC__PASSWORD" in none["orthanc"].remedy


def test_an_orthanc_that_asks_nobody_for_a_password_is_named(tmp_path: Path) -> None:
    with orthanc(tmp_path, {"AuthenticationEnabled": False}) as server:
        found = examined(server.url)
    assert found["orthanc access"].verdict is FINE and "no password" in found["orthanc access"].seen


def test_an_orthanc_that_lets_in_everybody_is_a_warning() -> None:
    # IsHttpServerSecure is false exactly when RemoteAccessAllowed goes without users (seen with 1.10 and 1.12).
    with answering({"/system": (200, SYSTEM | {"IsHttpServerSecure": False})}) as url:
        found = examined(url)["orthanc access"]
    assert found.verdict is WARNING and "RegisteredUsers" in found.remedy


@pytest.mark.parametrize(
    "answers",
    [
        {"/system": (200, b"<html>It works</html>")},
        {"/system": (200, {"Version": "9"})},
        {"/system": (200, ["Version", "ApiVersion"])},
        {"/system": (500, SYSTEM)},
        {},
    ],
    ids=["html", "other json", "list", "error", "404"],
)
def test_another_server_on_the_port_is_no_orthanc(answers: dict[str, tuple[int, Any]]) -> None:
    with answering(answers) as url:
        found = examined(url)
    assert list(found) == ["orthanc"]
    assert found["orthanc"].verdict is FAILED and "not Orthanc" in found["orthanc"].seen


def test_nobody_on_the_port() -> None:
    found = examined(f"http://127.0.0.1:{free_port()}")
    assert found["orthanc"].verdict is FAILED and "start Orthanc" in found["orthanc"].remedy


@pytest.mark.parametrize(
    ("said", "verdict"),
    [("1.9.7", FAILED), ("1.10.0", FINE), ("1.12.11", FINE), ("mainline", FINE), ("2.0", FINE), ("\x1b[31m", FAILED)],
)
def test_old_versions_are_refused(said: str, verdict: Verdict) -> None:
    check = orthanc_doctor.check_version({"Version": said})
    assert check.verdict is verdict and check.seen.isprintable()


@pytest.mark.parametrize(
    ("system", "verdict"),
    [
        ({"ReadOnly": True}, FAILED),
        ({"MaximumStorageSize": 1000, "MaximumStorageMode": "Reject"}, FAILED),
        ({"MaximumStorageSize": 1000, "MaximumStorageMode": "Recycle"}, WARNING),
        ({"MaximumStorageSize": 5000, "MaximumStorageMode": "Reject"}, FINE),
        ({"MaximumStorageSize": 0}, FINE),
    ],
    ids=["read-only", "full", "recycling", "room", "no limit"],
)
def test_where_results_cannot_be_put_is_found(system: dict[str, Any], verdict: Verdict) -> None:
    with answering({"/system": (200, SYSTEM | system), "/statistics": (200, {"TotalDiskSizeMB": 990})}) as url:
        assert examined(url)["orthanc results"].verdict is verdict


def with_genu(status: int, body: Any) -> dict[str, Check]:
    answers = {
        "/system": (200, SYSTEM),
        "/plugins": (200, ["explorer.js", "dicom-web", "python"]),
        "/plugins/python": (200, {"Version": "4.0"}),
        "/genu/status": (status, body),
    }
    with answering(answers) as url:
        return examined(url)


def test_what_genu_says_of_itself_is_shown() -> None:
    found = with_genu(200, STATUS)
    assert {check.verdict for check in found.values()} == {FINE}
    assert "genu-kl 0.1.0" in found["orthanc genu"].seen
    assert "worker-1, deliverer" in found["orthanc service"].seen
    assert "change 41 of 42" in found["orthanc changes"].seen and "not stable yet: 1" in found["orthanc changes"].seen
    assert found["orthanc StableAge"].seen.startswith("30 s")


@pytest.mark.parametrize(
    ("change", "about", "verdict", "told"),
    [
        ({"version": "0.0.1"}, "orthanc genu", WARNING, "0.0.1"),
        ({"children": [{"name": "worker-1", "running": False}]}, "orthanc service", FAILED, "worker-1"),
        ({"children": []}, "orthanc service", FAILED, "any worker"),
        ({"bundles": [{"error": "no bundle at /there"}]}, "orthanc service", FAILED, "no bundle at /there"),
        ({"orthanc": {"error": "status 401"}}, "orthanc changes", FAILED, "status 401"),
        ({"dead": [{"study": "1.2", "error": "x"}]}, "orthanc dead letters", WARNING, "1 studies"),
        ({"destinations": [{"name": "pacs", "dead": 3}]}, "orthanc dead letters", WARNING, "3 results"),
    ],
    ids=["version", "worker", "none", "bundle", "changes", "studies", "results"],
)
def test_trouble_of_the_service_is_found(change: dict[str, Any], about: str, verdict: Verdict, told: str) -> None:
    found = with_genu(200, STATUS | change)
    assert found[about].verdict is verdict and told in found[about].seen
    assert {check.verdict for name, check in found.items() if name != about} == {FINE}


@pytest.mark.parametrize("body", [{"error": "the service is starting"}, b"Internal error", []])
def test_a_service_that_does_not_answer_is_found(body: Any) -> None:
    found = with_genu(503, body)
    assert found["orthanc genu"].verdict is FAILED and "status 503" in found["orthanc genu"].seen


@pytest.mark.parametrize("body", [{"version": 7, "orthanc": [], "children": {}, "bundles": [1], "dead": 3}, {"x": 1}])
def test_an_answer_that_is_not_what_it_should_be_ends_in_sentences(body: Any) -> None:
    assert FAILED in {check.verdict for check in with_genu(200, body).values()}


def test_the_command_asks_the_orthanc_of_its_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENU_ORTHANC__USERNAME", USER)
    monkeypatch.setenv("GENU_ORTHANC__PASSWORD", PASSWORD)
    monkeypatch.setenv("GENU_BUNDLES", json.dumps([str(standin_bundle())]))
    with orthanc(tmp_path / "orthanc") as server:
        there = genu("doctor", "--orthanc", server.url, "--data-dir", tmp_path / "data")
    assert there.returncode == 0, there.stdout + there.stderr
    assert f"orthanc: {server.url} is Orthanc" in there.stdout
    assert there.stdout.count(server.url) == 1, "one Orthanc, asked once"
    assert "port:" not in there.stdout, "Orthanc listens, Genu does not"


def test_the_command_says_no_with_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("plugin.commands.doctor.examine", lambda _settings: ())
    assert main(["doctor", "--orthanc", f"http://127.0.0.1:{free_port()}"]) == 1
    assert "failed  orthanc:" in capsys.readouterr().out
    assert main(["doctor", "--orthanc", "localhost:8042"]) == 2
    assert "http://host:port" in capsys.readouterr().err
