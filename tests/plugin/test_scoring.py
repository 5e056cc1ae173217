"""`genu score`: real processes, the real way from file to objects, with a stand-in model; and what crashes cost."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pydicom
import pytest

from dicom_templates import checker
from inference.findings import StudyFindings
from inference.reading import StudyInput
from plugin import scoring
from plugin.results import failed_line, schema
from plugin.scoring import CRASHED, Request, Scored, default_jobs, score_studies
from plugin.settings import Settings
from tests import phantoms
from tests.plugin.standin import genu, standin_bundle

CANARY = "ZQXCANARY"


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """One run over a folder with everything in it: input folder, output folder, the finished process."""
    given = tmp_path_factory.mktemp("given")
    phantoms.write(phantoms.plant_canaries(phantoms.dx_bilateral(), CANARY), given / "a" / f"{CANARY}.dcm")
    phantoms.write(phantoms.plant_canaries(phantoms.dx_knee("L"), CANARY), given / "b" / "no-extension")
    phantoms.write(phantoms.dx_chest(), given / "chest.dcm")
    phantoms.write(phantoms.mr_knee()[0], given / "mr.dcm")
    (given / "notes.txt").write_text("no DICOM")
    broken = phantoms.write(phantoms.dx_knee("R"), given / "broken.dcm")
    broken.write_bytes(broken.read_bytes()[:400])
    out = given.parent / "scored"
    done = genu("score", given, "--out", out, "--bundle", standin_bundle(), "--jobs", 2, "-v")
    assert done.returncode == 0, done.stderr
    return given, out, done


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_every_study_has_its_line_and_the_lines_fit_the_schema(scored: tuple[Path, Path, Any]) -> None:
    found = lines(scored[1])
    for line in found:
        jsonschema.validate(line, schema())
    by_study = {line["study"]: line for line in found}
    expected = {
        phantoms.dx_bilateral().StudyInstanceUID: ("scored", ["R", "L"]),
        phantoms.dx_knee("L").StudyInstanceUID: ("scored", ["L"]),
        phantoms.dx_chest().StudyInstanceUID: ("refused", []),
        phantoms.mr_knee()[0].StudyInstanceUID: ("nothing_to_score", []),
        "": ("refused", []),
    }
    assert {
        study: (line["status"], [knee["side"] for knee in line["knees"]]) for study, line in by_study.items()
    } == expected
    assert [refusal["code"] for refusal in by_study[""]["refusals"]] == ["unreadable"]
    assert by_study[phantoms.dx_chest().StudyInstanceUID]["refusals"][0]["code"] == "not_a_knee"
    (look,) = by_study[phantoms.dx_chest().StudyInstanceUID]["looks"]
    assert [step["question"] for step in look["steps"] if not step["passed"]] == ["Anatomy"]
    assert list(by_study)[-1] == "", "what belongs to no study comes last"


def test_the_files_named_are_the_files_written_and_pass_our_checker(scored: tuple[Path, Path, Any]) -> None:
    _, out, _ = scored
    named = [name for line in lines(out) for name in line["files"]]
    assert sorted(named) == sorted(path.name for path in out.iterdir() if path.name != "results.jsonl")
    for line in lines(out):
        objects = [pydicom.dcmread(out / name) for name in line["files"]]
        cards = len({refusal.get("source") for refusal in line["refusals"]})
        assert len(objects) == (
            len(line["knees"]) + cards + 1 if line["status"] in ("scored", "refused") and line["study"] else 0
        )
        assert checker.check_study(objects) == []
        for dataset in objects:
            assert dataset.StudyInstanceUID == line["study"]
        if objects:
            assert objects[-1].Modality == "SR"


def test_the_report_is_printed_as_a_tree_and_broken_files_are_named_to_the_person(
    scored: tuple[Path, Path, Any],
) -> None:
    given, _, done = scored
    assert done.stdout.count("Imaging Measurement Report") == 3
    assert str(given / "broken.dcm") in done.stderr
    assert "2 scored, 2 refused, 1 nothing to score" in done.stderr


def test_no_identity_in_results_or_names(scored: tuple[Path, Path, Any]) -> None:
    _, out, done = scored
    assert CANARY not in (out / "results.jsonl").read_text()
    assert CANARY not in done.stdout + done.stderr
    assert not [path for path in out.iterdir() if CANARY in path.name]


def test_the_same_work_twice_has_the_same_names(scored: tuple[Path, Path, Any], tmp_path: Path) -> None:
    given, out, _ = scored
    one = given / "a" / f"{CANARY}.dcm"
    done = genu("score", one, "--out", tmp_path, "--bundle", standin_bundle())
    assert done.returncode == 0, done.stderr
    (line,) = lines(tmp_path)
    assert line in lines(out)


def test_own_results_among_the_inputs_change_nothing(tmp_path: Path) -> None:
    phantoms.write(phantoms.dx_knee("L"), tmp_path / "film.dcm")
    runs = []
    for _ in range(2):
        done = genu("score", tmp_path, "--out", tmp_path / "out", "--bundle", standin_bundle())
        assert done.returncode == 0, done.stderr
        runs.append(lines(tmp_path / "out"))
    assert runs[0] == runs[1]
    assert len(list((tmp_path / "out").iterdir())) == len(runs[0][0]["files"]) + 1


def test_a_folder_that_takes_no_results_is_told(tmp_path: Path) -> None:
    film = phantoms.write(phantoms.dx_knee("L"), tmp_path / "film.dcm")
    (tmp_path / "results.jsonl.part").mkdir()  # as a folder without permission: it cannot be opened for writing
    done = genu("score", film, "--out", tmp_path, "--bundle", standin_bundle())
    assert done.returncode == 2
    assert done.stderr.startswith(f"genu score: --out {tmp_path}: cannot be written to")


def test_wrong_use_ends_with_2_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    bundle = standin_bundle()
    for wrong in (
        [tmp_path],
        [tmp_path / "missing.dcm"],
        [tmp_path / ("long" * 99)],
        [tmp_path, "--jobs", 0],
        [tmp_path, "--config", tmp_path / "missing.toml"],
        [tmp_path, "--bundle", tmp_path / "missing"],
    ):
        done = genu("score", "--bundle", bundle, *wrong, "--out", tmp_path / "out")
        assert done.returncode == 2, (wrong, done.stderr)
        assert done.stderr.startswith("genu score: ")
        assert not (tmp_path / "out" / "results.jsonl").exists()


def test_a_bundle_that_was_changed_is_not_used(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(standin_bundle(), tmp_path / "bundle"))
    weights = bundle / "weights.safetensors"
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    film = phantoms.write(phantoms.dx_knee("L"), tmp_path / "film.dcm")
    done = genu("score", film, "--out", tmp_path / "out", "--bundle", bundle)
    assert done.returncode == 1
    assert "weights.safetensors" in done.stderr


def test_processes_are_started_only_where_they_pay() -> None:
    assert default_jobs(1) == 1
    assert default_jobs(16) == 1
    assert default_jobs(10**6) == len(os.sched_getaffinity(0))


# ---- crashes: the children run these in place of the real scoring


def sound_bundle(_settings: Settings) -> str:
    return ""


def crash_on_demand(_request: Request, study: StudyInput) -> Scored:
    if study.study_instance_uid.startswith("9"):
        os._exit(1)
    return Scored(failed_line(study.study_instance_uid), "came back")


def request_for(folder: Path) -> Request:
    return Request(Settings(), folder, datetime(2026, 1, 1, tzinfo=UTC))


def test_a_study_that_kills_its_process_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_load", sound_bundle)
    monkeypatch.setattr(scoring, "_score", crash_on_demand)
    uids = ["1.1", "1.2", "9.1", "1.3", "9.2", "1.4"]
    outcomes = list(score_studies(request_for(tmp_path), [StudyInput(uid) for uid in uids], jobs=2))
    assert [outcome.line["study"] for outcome in outcomes] == uids
    assert [outcome.error == CRASHED for outcome in outcomes] == [uid.startswith("9") for uid in uids]


class Failing:
    """A predictor with a bug."""

    def score(self, study: StudyInput, *, accept_secondary_capture: bool = False) -> StudyFindings:
        raise ZeroDivisionError(CANARY)


def test_a_bug_is_a_failed_line_and_says_where_but_not_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_scorer", lambda _settings: Failing())
    outcome = scoring._score(request_for(tmp_path), StudyInput("1.2.3"))
    assert outcome.line == failed_line("1.2.3")
    assert "ZeroDivisionError" in outcome.error
    assert any("test_scoring.py" in frame for frame in outcome.frames)
    assert CANARY not in outcome.error + "".join(outcome.frames)
