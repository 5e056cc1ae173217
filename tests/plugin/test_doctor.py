"""`genu doctor`: each check finds what it is for, and says what to do."""

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inference.errors import BundleError
from plugin import doctor
from plugin.cli import main
from plugin.doctor import Verdict
from plugin.settings import Settings, load
from tests.plugin.orthanc_rig import PASSWORD, USER, orthanc
from tests.plugin.peers import archive
from tests.plugin.receiving import listening
from tests.plugin.replies import in_turn, reply
from tests.plugin.scripted import Answer, scripted
from tests.plugin.standin import genu, standin_bundle


def settings(tmp_path: Path, **values: object) -> Settings:
    return load(None, {"data_dir": tmp_path / "data", "bundles": [standin_bundle()], "listener": {"port": 0}} | values)


def test_a_sound_installation_passes_and_a_stand_in_is_named(tmp_path: Path) -> None:
    done = genu("doctor", "--data-dir", tmp_path / "data", "--config", _config(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answer their stored probes" in done.stdout
    assert "synthetic stand-in" in done.stdout
    assert not (tmp_path / "data").exists(), "looking changes nothing"


def _config(tmp_path: Path) -> Path:
    file = tmp_path / "genu.toml"
    file.write_text(f'bundles = ["{standin_bundle()}"]\n[listener]\nport = 0\n')
    return file


def test_a_damaged_bundle_is_found_without_loading_it(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(standin_bundle(), tmp_path / "bundle"))
    (bundle / "weights.safetensors").unlink()
    (check,) = doctor.check_bundles(settings(tmp_path, bundles=[bundle]))
    assert (check.verdict, check.about) == (Verdict.FAILED, "bundle")
    assert "weights.safetensors" in check.seen and check.remedy


def test_a_bundle_that_does_not_replay_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The manifest is sound but the child cannot load the bundle: here because the child is given none.
    monkeypatch.setattr(doctor, "dumps", lambda _settings: settings(tmp_path, bundles=[tmp_path]).model_dump_json())
    *_, probe = doctor.check_bundles(settings(tmp_path))
    assert (probe.verdict, probe.about) == (Verdict.FAILED, "probe")
    assert "bundle.json" in probe.seen


def test_a_full_disk_and_a_low_one_are_told_apart(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    verdicts = [
        doctor.check_disk(settings(tmp_path, listener={"min_free_bytes": least})).verdict
        for least in (free * 2, free // 2, 0)
    ]
    assert verdicts == [Verdict.FAILED, Verdict.WARNING, Verdict.FINE]


def test_a_folder_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    check = doctor.check_disk(settings(tmp_path))
    assert check.verdict is Verdict.FAILED
    assert str(tmp_path / "data") in check.seen


def test_a_port_is_free_or_ours_or_taken(tmp_path: Path) -> None:
    with listening(tmp_path / "other") as running:
        ours = doctor.check_port(settings(tmp_path, listener={"port": running.port}))
    assert ours.verdict is Verdict.FINE and "answers C-ECHO" in ours.seen
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        # A stranger that closes what it accepts: no C-ECHO.
        stranger.settimeout(0.01)
        taken = doctor.check_port(settings(tmp_path, listener={"port": port}))
    assert taken.verdict is Verdict.FAILED and "stop the program" in taken.remedy
    free = doctor.check_port(settings(tmp_path, listener={"port": port}))
    assert free.verdict is Verdict.FINE and "is free" in free.seen


@pytest.mark.parametrize(
    "values", [{"peers": ({"ae_title": "XRAY1", "hosts": ["192.0.2.1"]},)}, {"host": "::1"}], ids=["peers", "ipv6"]
)
def test_a_listener_that_does_not_know_its_own_title_or_speaks_ipv6_is_found(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    with listening(tmp_path / "other", **values) as running:
        ours = settings(tmp_path, listener={"port": running.port, **values})
        check = doctor.check_port(ours)
        assert check.verdict is Verdict.FINE and "answers C-ECHO" in check.seen, check
    check = doctor.check_port(ours)
    assert check.verdict is Verdict.FINE and "is free" in check.seen, check


def test_a_tls_listener_whose_certificate_names_another_host_is_found(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=genu.example"]
    subprocess.run([*new, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=30)
    tls = {"certificate": certificate, "private_key": key, "authorities": certificate}
    with listening(tmp_path / "other", tls=tls) as running:
        check = doctor.check_port(settings(tmp_path, listener={"port": running.port, "tls": tls}))
    assert check.verdict is Verdict.FINE and "answers C-ECHO" in check.seen, check


# pynetdicom does not close its socket when a connection is refused.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning")
def test_destinations_are_asked(tmp_path: Path) -> None:
    with archive([]) as peer:
        there = {"kind": "cstore", "name": "pacs", "host": "127.0.0.1", "port": peer.port, "ae_title": "PACS"}
        found = settings(tmp_path, destinations=[there])
        assert doctor.check_destination(found.destinations[0], found).verdict is Verdict.FINE
    gone = doctor.check_destination(found.destinations[0], found)
    assert gone.verdict is Verdict.FAILED
    assert "PACS@127.0.0.1" in gone.seen and "AE titles" in gone.remedy


def test_web_destinations_and_the_server_to_read_from_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "check_bundles", lambda _settings: [])  # takes seconds, and is tested above
    who = {"username": USER, "password": PASSWORD}
    with orthanc(tmp_path / "orthanc", plugins=("libOrthancDicomWeb.so",)) as server:
        root = f"{server.url}/dicom-web"
        targets = [{"kind": "orthanc", "url": server.url}, {"kind": "stow", "url": root}]
        found = settings(tmp_path, destinations=[target | who for target in targets], dicomweb={"url": root} | who)
        checks = [check for check in doctor.examine(found) if check.about.startswith(("destination", "dicomweb"))]
        assert [check.about for check in checks] == ["destination orthanc", "destination dicomweb", "dicomweb"]
        assert {check.verdict for check in checks} == {Verdict.FINE}
        assert "is Orthanc 1." in checks[0].seen
        strangers = settings(tmp_path, destinations=targets)
        for target in strangers.destinations:
            refused = doctor.check_destination(target, strangers)
            assert refused.verdict is Verdict.FAILED and "401" in refused.seen and refused.remedy
    for target in found.destinations:
        gone = doctor.check_destination(target, found)
        assert gone.verdict is Verdict.FAILED and "cannot be reached" in gone.seen


@pytest.mark.parametrize(
    ("kind", "answer", "verdict"),
    [
        ("stow", reply(405), Verdict.WARNING),  # takes objects, has no search
        ("stow", reply(501), Verdict.WARNING),
        ("stow", reply(404), Verdict.FAILED),
        ("stow", reply(200, "text/html", b"<html>"), Verdict.FAILED),
        ("stow", reply(204), Verdict.FINE),  # an empty archive
        ("orthanc", reply(200, "application/json", b"[]"), Verdict.FAILED),
        ("orthanc", reply(200, "text/html", b"<html>"), Verdict.FAILED),
    ],
)
def test_what_else_may_answer_there(kind: str, answer: Answer, verdict: Verdict, tmp_path: Path) -> None:
    with scripted(in_turn(answer)) as peer:
        found = settings(tmp_path, destinations=[{"kind": kind, "url": peer.url}])
        assert doctor.check_destination(found.destinations[0], found).verdict is verdict


def test_a_destination_folder_that_is_not_mounted_is_found(tmp_path: Path) -> None:
    share = {"kind": "folder", "name": "share", "path": tmp_path / "share", "create": False}
    found = settings(tmp_path, destinations=[share])
    assert doctor.check_destination(found.destinations[0], found).verdict is Verdict.FAILED
    (tmp_path / "share").mkdir()
    assert doctor.check_destination(found.destinations[0], found).verdict is Verdict.FINE


def test_a_failed_check_is_exit_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BundleError("no bundle at all")

    monkeypatch.setattr(doctor, "installed", broken)
    assert main(["doctor", "--data-dir", str(tmp_path)]) == 1
    assert "no bundle at all" in capsys.readouterr().out
