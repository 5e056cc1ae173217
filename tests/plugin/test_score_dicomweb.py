"""`genu score --dicomweb`: from a real Orthanc through real processes and back into it, with a stand-in model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from plugin.cli import build_parser, main
from plugin.commands.options import settings_of
from plugin.settings import Settings, StowDestination
from tests import phantoms
from tests.plugin.orthanc_rig import PASSWORD, USER, OrthancServer, orthanc
from tests.plugin.peers import free_port
from tests.plugin.replies import in_turn, reply
from tests.plugin.scripted import scripted
from tests.plugin.standin import genu, standin_bundle

SR = "1.2.840.10008.5.1.4.1.1.88.34"
SC = "1.2.840.10008.5.1.4.1.1.7"
MISSING = "1.2.3.4.5.6.7"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    """An Orthanc that holds a bilateral film and an MR series."""
    folder = tmp_path_factory.mktemp("orthanc")
    with orthanc(folder, plugins=("libOrthancDicomWeb.so",)) as running:
        for number, dataset in enumerate([phantoms.dx_bilateral(), *phantoms.mr_knee(slices=3)]):
            running.put(phantoms.write(dataset, folder / f"{number}.dcm"))
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENU_DICOMWEB__USERNAME", USER)
    monkeypatch.setenv("GENU_DICOMWEB__PASSWORD", PASSWORD)


def score(out: Path, *arguments: object) -> Any:
    return genu("score", "--out", out, "--bundle", standin_bundle(), "--jobs", 1, *arguments)


def lines(out: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return {line["study"]: line for line in found}


def search(server: OrthancServer, study: str, sop_class: str) -> list[str]:
    """SOP Instance UIDs by QIDO-RS."""
    found = server.get(f"/dicom-web/studies/{study}/instances", SOPClassUID=sop_class)
    return sorted(entry["00080018"]["Value"][0] for entry in found)


def test_a_study_is_fetched_scored_and_its_results_are_found_where_it_came_from(
    server: OrthancServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    knees, mr = phantoms.dx_bilateral().StudyInstanceUID, phantoms.mr_knee()[0].StudyInstanceUID
    root, out = f"{server.url}/dicom-web", tmp_path / "out"
    studies = [option for uid in (MISSING, knees, mr, knees) for option in ("--study", uid)]
    done = score(out, "--dicomweb", root, *studies, "--to-dicomweb", f"{root}/")
    assert done.returncode == 1, "a study that could not be fetched is a failure, and holds up no other"
    assert f"has no study {MISSING}" in done.stderr
    found = lines(out)
    expected = {MISSING: "failed", knees: "scored", mr: "nothing_to_score"}
    assert {uid: line["status"] for uid, line in found.items()} == expected
    assert [knee["side"] for knee in found[knees]["knees"]] == ["R", "L"]
    assert "3 objects stored, 0 not" in done.stderr

    made = [pydicom.dcmread(out / name) for name in found[knees]["files"]]
    for sop_class, count in ((SR, 1), (SC, 2)):
        ours = sorted(str(one.SOPInstanceUID) for one in made if one.SOPClassUID == sop_class)
        assert len(ours) == count
        assert search(server, knees, sop_class) == ours
    assert not list((tmp_path / "tmp").glob("genu-dicomweb-*")), "what was fetched is removed"
    assert PASSWORD not in done.stdout + done.stderr

    again = score(tmp_path / "again", "--dicomweb", root, "--study", knees)
    assert again.returncode == 0, again.stderr
    line = lines(tmp_path / "again")[knees]
    assert (line["status"], line["knees"]) == ("scored", found[knees]["knees"]), "own results change nothing"


def test_what_is_not_taken_back_is_told_and_fails_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENU_DICOMWEB__URL", "https://pacs.example/web")
    film = phantoms.write(phantoms.dx_knee("L"), tmp_path / "film.dcm")

    with scripted(in_turn(reply(409), reply(200))) as peer:
        nobody = f"http://127.0.0.1:{free_port()}/web"
        done = score(tmp_path / "out", film, "--to-dicomweb", nobody, "--to-dicomweb", peer.url)
    assert done.returncode == 1
    assert f"2 objects not stored at {nobody}" in done.stderr
    assert f"not stored at {peer.url}: STOW-RS status 409" in done.stderr
    assert "1 scored; 1 objects stored, 3 not" in done.stderr
    assert all("Authorization" not in asked.headers for asked in peer.requests), "this server was not told who we are"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "what to score"),
        (["x.dcm", "--study", "1.2.3"], "what to score"),
        (["--dicomweb", "http://127.0.0.1:1"], "what to score"),
        (["--study", "1.2.3"], "--dicomweb URL"),
        (["--dicomweb", "http://u:p@127.0.0.1:1", "--study", "1.2.3"], "no user name or password in the address"),
        (["--dicomweb", "http://127.0.0.1:1", "--study", "../x"], "no Study Instance UID"),
    ],
)
def test_wrong_use_ends_with_status_2(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"GENU_DICOMWEB__{name}")
    assert main(["score", "--out", str(tmp_path / "out"), *argv]) == 2
    assert said in capsys.readouterr().err


def settings(*argv: str) -> Settings:
    return settings_of(build_parser().parse_args(argv))


def test_results_go_to_the_server_of_the_settings_by_what_stands_there_and_to_no_other() -> None:
    root, other = "https://pacs.example/web", "https://other.example/web"
    options = ("--to-dicomweb", f"{root}/", "--to-dicomweb", other)
    found = settings("score", "--out", "o", "--study", "1.2", "--dicomweb", root, *options)
    assert found.dicomweb is not None
    assert (found.dicomweb.url, found.dicomweb.username) == (root, USER)
    first, second = found.destinations
    assert isinstance(first, StowDestination) and isinstance(second, StowDestination)
    assert (first.name, first.url, first.username) == ("dicomweb", root, USER)
    assert first.password.get_secret_value() == PASSWORD
    assert (second.name, second.url, second.username) == ("dicomweb-2", other, "")


def test_listen_sends_to_a_dicomweb_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"GENU_DICOMWEB__{name}")
    (target,) = settings("listen", "--to-dicomweb", "http://127.0.0.1:8042/dicom-web").destinations
    assert isinstance(target, StowDestination)
    assert (target.kind, target.url) == ("stow", "http://127.0.0.1:8042/dicom-web")


def test_a_server_that_answers_nonsense_fails_the_study(tmp_path: Path) -> None:
    with scripted(in_turn(reply(200, "text/html", [b"<html>log in</html>"]))) as peer:
        done = score(tmp_path / "out", "--dicomweb", peer.url, "--study", MISSING)
    assert done.returncode == 1
    assert "the answer is not JSON" in done.stderr
    assert lines(tmp_path / "out")[MISSING]["status"] == "failed"
