"""The command line: options become settings, and errors become exit codes and sentences."""

import io
from pathlib import Path

import pytest

from inference.errors import ConfigurationError
from plugin.cli import build_parser, main
from plugin.commands.options import parse_ae_address, settings_of
from plugin.settings import CStoreDestination, FolderDestination, Settings, dumps


def settings(*argv: str) -> Settings:
    return settings_of(build_parser().parse_args(argv))


def test_without_options_the_defaults_hold() -> None:
    assert settings("listen") == Settings()


def test_options_of_listen_become_settings(tmp_path: Path) -> None:
    found = settings(
        *("listen", "--data-dir", str(tmp_path), "--host", "0.0.0.0", "--port", "104", "--ae-title", "KNEES"),
        *("--workers", "3", "--quiet", "1.5", "--bundle", "a", "--bundle", "b"),
        *("--to-folder", "out", "--to-ae", "PACS@pacs.example:11113", "--to-ae", "SECOND@[::1]:104"),
    )
    assert (found.data_dir, found.listener.host, found.listener.port) == (tmp_path, "0.0.0.0", 104)
    assert (found.listener.ae_title, found.workers.count, found.completeness.quiet_seconds) == ("KNEES", 3, 1.5)
    assert found.bundles == (Path("a"), Path("b"))
    folder, first, second = found.destinations
    assert isinstance(folder, FolderDestination) and folder.path == Path("out")
    assert isinstance(first, CStoreDestination) and isinstance(second, CStoreDestination)
    assert (first.name, first.ae_title, first.host, first.port) == ("pacs", "PACS", "pacs.example", 11113)
    assert (second.name, second.host) == ("pacs-2", "::1")


def test_options_win_over_the_file_and_the_rest_of_the_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "genu.toml"
    file.write_text('data_dir = "elsewhere"\n[listener]\nport = 4242\nae_title = "FILED"\n')
    found = settings("listen", "--config", str(file), "--port", "4343")
    assert (found.listener.port, found.listener.ae_title, found.data_dir) == (4343, "FILED", Path("elsewhere"))


def test_a_child_gets_exactly_the_settings_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = settings("listen", "--port", "4343", "--to-folder", "out")
    monkeypatch.setenv("GENU_LISTENER__PORT", "1")
    monkeypatch.setattr("sys.stdin", io.StringIO(dumps(parent)))
    assert settings("worker", "--config-stdin") == parent


@pytest.mark.parametrize(
    "text", ["PACS", "PACS@host", "@host:104", "PACS@host:port", "A@B@c:104", "TOOLONGANAETITLE1@h:1"]
)
def test_a_wrong_address_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ConfigurationError, match="AE@host:port"):
        parse_ae_address(text)


def test_wrong_settings_end_with_status_2_and_name_the_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--config", "/nowhere/genu.toml"]) == 2
    assert "/nowhere/genu.toml" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["unknown"], ["score"], ["score", "x"], ["listen", "--port", "many"]])
def test_wrong_arguments_end_with_status_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2


def test_status_without_a_queue_says_where_it_looked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--data-dir", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "looking must not make a queue"
