"""Settings: which source wins, and what a wrong one says."""

from pathlib import Path

import pytest

from inference.errors import ConfigurationError
from plugin.settings import Settings, dumps, load, loads


def test_defaults_need_nothing() -> None:
    settings = load()
    assert settings == Settings()
    assert settings.listener.host == "127.0.0.1"
    assert settings.completeness.quiet_seconds == 5.0
    assert settings.delivery_targets[0].path == settings.data_dir / "outgoing"


def test_file_then_environment_then_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "genu.toml"
    file.write_text('data_dir = "/a"\n[listener]\nport = 1\nae_title = "FILE"\n[workers]\ncount = 3\n')
    monkeypatch.setenv("GENU_LISTENER__PORT", "2")
    monkeypatch.setenv("GENU_WORKERS__COUNT", "4")
    settings = load(file, {"workers": {"count": 5}})
    assert settings.listener.ae_title == "FILE"
    assert settings.listener.port == 2
    assert settings.workers.count == 5


def test_genu_section_of_a_json_file(tmp_path: Path) -> None:
    file = tmp_path / "orthanc.json"
    file.write_text('{"Name": "x", "Genu": {"destinations": [{"kind": "folder", "path": "/out"}]}}')
    assert load(file).destinations[0].name == "folder"


def test_lists_in_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENU_LISTENER__PEERS", '[{"ae_title": "XR", "quiet_seconds": 9}]')
    assert load().listener.peers[0].quiet_seconds == 9


def test_a_child_process_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(None, {"destinations": [{"kind": "cstore", "host": "h", "port": 104, "ae_title": "PACS"}]})
    monkeypatch.setenv("GENU_LISTENER__PORT", "1")
    assert loads(dumps(settings)) == settings


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"listener": {"ae_title": "SEVENTEEN LETTERS"}}, ["listener.ae_title", "SEVENTEEN LETTERS", "16"]),
        ({"listener": {"prot": 1}}, ["listener.prot", "docs/settings.md"]),
        ({"listener": {"port": 70000}}, ["listener.port", "70000"]),
        ({"queue": {"heartbeat_seconds": 40}}, ["queue", "heartbeat_seconds", "lease_seconds"]),
        ({"destinations": [{"kind": "cstore", "host": "h", "port": 104}]}, ["ae_title", "missing"]),
        ({"destinations": [{"kind": "ftp"}]}, ["destinations.0", "folder"]),
        ({"destinations": [{"kind": "folder", "path": "a"}, {"kind": "folder", "path": "b"}]}, ["two destinations"]),
        ({"listener": {"tls": {"certificate": "a.pem"}}}, ["private_key"]),
    ],
)
def test_a_wrong_setting_is_named(overrides: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(None, overrides)
    assert [word for word in words if word not in str(raised.value)] == []


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        load(tmp_path / "none.toml")
    for name, text in (("a.toml", "x ="), ("a.json", "{"), ("b.json", '{"Genu": 3}')):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigurationError, match=name.replace(".", r"\.")):
            load(tmp_path / name)


@pytest.mark.parametrize("name", ["GENU_LISTNER__PORT", "GENU_DATADIR"])
def test_a_misspelt_variable_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigurationError, match=name):
        load()


def test_variables_of_make_and_of_the_tests_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENU_SOAK_ROUNDS", "500")
    load()


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e10, 0.0])
def test_times_that_no_timer_takes_are_refused(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=r"workers\.job_seconds"):
        load(None, {"workers": {"job_seconds": seconds}})


def test_a_variable_that_is_no_json_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENU_DESTINATIONS", "folder")
    with pytest.raises(ConfigurationError, match="destinations"):
        load()


@pytest.mark.parametrize(
    "overrides",
    [
        {"orthanc": {"username": "genu", "password": 271828}},
        {"orthanc": {"token": 271828}},
        {"orthanc": {"url": "http://genu:271828@pacs:8042"}},
        {"destinations": [{"kind": "stow", "url": "https://genu:271828@pacs/dicom-web"}]},
        {"destinations": [{"kind": "stow", "url": "https://pacs", "username": "genu", "password": 271828}]},
    ],
)
def test_what_a_wrong_setting_says_is_no_secret(overrides: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"password|token|url") as raised:
        load(None, overrides)
    assert "271828" not in str(raised.value)
