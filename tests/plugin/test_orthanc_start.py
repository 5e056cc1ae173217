"""What the plugin makes of Orthanc's configuration."""

import json
from pathlib import Path
from typing import Any

import pytest

from plugin import orthanc_start
from plugin.orthanc_start import Known, Place, is_of_another_site, most_requests, remembered, sidecar, to_remember
from plugin.settings import from_orthanc, load
from plugin.sidecar_link import Sidecar

ROOT = Path(__file__).resolve().parents[2]
KNOWN = Known("Bearer token", "database", 5.0)
SSL = {"SslEnabled": True, "SslCertificate": "orthanc.pem"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    python = tmp_path / "genu" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    return Place(configuration=Path("/etc/orthanc"), root=tmp_path / "genu", working=tmp_path)


def started(place: Place, configuration: dict[str, Any], **environment: str) -> Sidecar:
    return sidecar(configuration, place, environment, KNOWN)


def orthanc(place: Place, configuration: dict[str, Any], **environment: str) -> dict[str, Any]:
    found: dict[str, Any] = started(place, configuration, **environment).hello["orthanc"]
    return found


def test_without_any_settings_orthancs_defaults_are_known(place: Place) -> None:
    made = started(place, {})
    assert made.hello["orthanc"] == {"url": "http://127.0.0.1:8042", "token": "Bearer token"}
    assert (made.hello["genu"], made.hello["since"], made.hello["database"]) == ({}, 5.0, "database")
    assert made.command[0] == str(place.root / ".venv" / "bin" / "python")
    assert made.command[-2:] == ("orthanc", "--link")
    json.dumps(made.hello)


def test_the_settings_that_result_are_those_of_the_typed_model(place: Place) -> None:
    section = {"data_dir": "/srv/genu", "orthanc": {"score_existing": True}, "workers": {"count": 2}}
    hello = started(place, {"HttpPort": 8043, "Genu": section}).hello
    settings = from_orthanc(hello["genu"], hello["orthanc"])
    assert settings.orthanc is not None
    assert settings.orthanc.url == "http://127.0.0.1:8043"
    assert settings.orthanc.token.get_secret_value() == "Bearer token"
    assert settings.orthanc.score_existing
    assert settings.workers.count == 2


def test_https_trusts_orthancs_own_certificate_and_no_other(place: Place) -> None:
    known = orthanc(place, {"HttpPort": 8043} | SSL)
    assert (known["url"], known["authorities"]) == ("https://127.0.0.1:8043", "/etc/orthanc/orthanc.pem")
    given = {"Genu": {"orthanc": {"authorities": "/etc/ca.pem"}}}
    assert "authorities" not in orthanc(place, SSL | given)


def test_a_client_certificate_that_orthanc_wants_has_to_be_given(place: Place) -> None:
    with pytest.raises(ValueError, match="SslVerifyPeers"):
        started(place, SSL | {"SslVerifyPeers": True})
    given = {"Genu": {"orthanc": {"certificate": "/a.pem", "private_key": "/b.pem"}}}
    assert started(place, SSL | given | {"SslVerifyPeers": True})


def test_without_rest_there_is_no_genu(place: Place) -> None:
    with pytest.raises(ValueError, match="HttpServerEnabled"):
        started(place, {"HttpServerEnabled": False})


def test_a_user_or_token_that_is_given_stands_instead_of_the_plugins_token(place: Place) -> None:
    for configuration, environment in (
        ({"Genu": {"orthanc": {"username": "a"}}}, {}),
        ({"Genu": {"orthanc": {"token": "Bearer own"}}}, {}),
        ({}, {"GENU_ORTHANC__USERNAME": "a"}),
    ):
        assert "token" not in orthanc(place, configuration, **environment)


def test_the_python_is_the_one_that_is_named_then_that_of_the_checkout_then_that_of_the_installation(
    place: Place, tmp_path: Path
) -> None:
    named = {"Genu": {"orthanc": {"python": "/opt/a"}}}
    assert started(place, named).command[0] == "/opt/a"
    assert started(place, named, GENU_ORTHANC__PYTHON="/opt/b").command[0] == "/opt/b"
    installed = Place(tmp_path, tmp_path / "env" / "lib" / "python3.11" / "site-packages", tmp_path)
    with pytest.raises(ValueError, match=r"make setup.*orthanc\.python"):
        sidecar({}, installed, {}, KNOWN)
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python3").touch()
    assert sidecar({}, installed, {}, KNOWN).command[0] == str(tmp_path / "env" / "bin" / "python3")


def test_a_section_that_is_no_table_is_left_to_the_sidecar_to_refuse(place: Place) -> None:
    for section in ([1], "text", {"orthanc": 1}):
        assert started(place, {"Genu": section}).hello["genu"] == section


def test_the_environment_is_cleaned(place: Place) -> None:
    given = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "GENU_WORKERS__COUNT": "2",
        "GENU_ORTHANC__SCORE_EXISTING": "true",
        "GENU_ORTHANC_PASSWORD": "secret",
        "PYTHONHOME": "/usr",
        "VIRTUAL_ENV": "/env",
        "ORTHANC__POSTGRESQL__PASSWORD": "secret",
    }
    kept = started(place, {}, **given).environment
    assert set(kept) == {"PATH", "CUDA_VISIBLE_DEVICES", "GENU_WORKERS__COUNT", "GENU_ORTHANC__SCORE_EXISTING"} | {
        "PYTHONPATH"
    }
    assert kept["PYTHONPATH"] == str(place.root)


def test_what_is_remembered_in_orthancs_database_comes_back() -> None:
    database, since = remembered("", 7.5)
    assert since == 7.5
    assert remembered("", 7.5)[0] != database
    assert remembered(to_remember(database, since), 99.0) == (database, 7.5)
    for damaged in ("{", "[]", '{"database": "a"}', '{"database": "a", "since": []}', "1"):
        assert remembered(damaged, 7.5)[1] == 7.5


@pytest.mark.parametrize(
    ("headers", "other"),
    [
        ({}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"origin": "http://a:8042", "host": "a:8042"}, False),
        ({"origin": "https://a", "host": "127.0.0.1:8042", "x-forwarded-host": "a"}, False),
        ({"origin": "http://b", "host": "a:8042"}, True),
        ({"origin": "null", "host": "a:8042"}, True),
        ({"origin": "http://b"}, True),
        ({"origin": "null"}, True),
    ],
)
def test_requests_of_pages_from_elsewhere_are_told_apart(headers: dict[str, str], other: bool) -> None:
    assert is_of_another_site(headers) is other


def test_orthanc_keeps_threads_to_answer_the_sidecar() -> None:
    assert most_requests({}) == 25
    assert most_requests({"HttpThreadsCount": 8}) == 4
    assert most_requests({"HttpThreadsCount": 1}) == 1
    assert most_requests({"HttpThreadsCount": "x"}) == 25


def test_the_configuration_that_ships_is_json_that_both_sides_read(place: Place) -> None:
    path = ROOT / "orthanc.json"
    configuration = json.loads(path.read_text(encoding="utf-8"))
    assert configuration["AuthenticationEnabled"]
    assert not configuration["RemoteAccessAllowed"]
    assert not configuration["DicomAlwaysAllowStore"]
    assert all(modality["Host"] == "127.0.0.1" for modality in configuration["DicomModalities"].values())
    assert load(path).data_dir == Path(configuration["Genu"]["data_dir"])
    assert (ROOT / configuration["PythonScript"]).is_file()
    assert started(place, configuration).hello["orthanc"]["url"] == f"http://127.0.0.1:{configuration['HttpPort']}"


def test_the_names_that_only_orthanc_reads_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENU_ORTHANC_PASSWORD", "a")
    monkeypatch.setenv("GENU_ORTHANC_PLUGINS", "/b")
    assert load() == load()
    assert orthanc_start.OURS in "GENU_ORTHANC_PASSWORD"
