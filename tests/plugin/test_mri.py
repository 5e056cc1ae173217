"""Bundles for knee MRI in the service: what arrives is scored, said, delivered, and nothing new when it returns."""

import json
import logging
import tarfile
from collections.abc import Iterator, Sequence
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import jsonschema
import pydicom
import pytest
from pydicom import Dataset
from rich.console import Console

from dicom_templates.checker import check_study
from inference.mr_sequences import MRSequence
from inference.predictor import Predictor
from inference.studies import is_own_result
from plugin import doctor, logs, summaries
from plugin.commands.queue import render
from plugin.deliverer import Courier
from plugin.doctor import Check, Verdict
from plugin.jobs import Queue
from plugin.results import schema
from plugin.routes import _bundles
from plugin.rows import JobRow, ObjectKind
from plugin.settings import load
from plugin.worker import Worker, load_predictor
from tests import phantoms
from tests.inference.mr_bundle import random_backbone, small_volume, write_bundle
from tests.mr_phantoms import Grid, enhanced_series, mr_series, write
from tests.plugin.fakes import deposit
from tests.plugin.peers import archive
from tests.plugin.queue_helpers import SR, Clock, settings_for
from tests.plugin.standin import genu, standin_bundle

FRAMES = "1.2.840.10008.5.1.4.1.1.7.4"
MAP = "1.2.840.10008.5.1.4.1.1.30"
PEOPLE = {"PatientAge": "061Y", "PatientSize": "1.72"}

OF_THE_STUDY = (
    *("SpecificCharacterSet", "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription"),
    *("AccessionNumber", "ReferringPhysicianName", "PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
)


@cache
def bundles() -> tuple[Path, ...]:
    """For the grade, for the coronal series and for the DESS; with random weights."""
    root = Path(mkdtemp(prefix="genu-mri-"))
    backbone = random_backbone(root / "weights")
    coronal = write_bundle(root / "coronal", backbone)
    dess = write_bundle(root / "dess", backbone, small_volume(MRSequence.SAG_3D_DESS, 12), target="womac_pain_class")
    return standin_bundle(), coronal, dess


@cache
def predictor() -> Predictor:
    return Predictor.load(bundles(), threads=1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    targets = [{"kind": "folder", "path": tmp_path / "out"}]
    queue = Queue.open(settings_for(tmp_path, bundles=[str(path) for path in bundles()], destinations=targets))
    yield queue
    queue.close()


def arrive(queue: Queue, clock: Clock, datasets: Sequence[Dataset]) -> str:
    for dataset in datasets:
        deposit(queue, dataset, clock.now)
    assert queue.sweep(clock.forward(5)) == 1
    return str(datasets[0].StudyInstanceUID)


def work(queue: Queue, clock: Clock, scorer: Predictor | None = None) -> JobRow:
    assert Worker(queue, queue.settings, scorer or predictor(), worker_id="w", clock=clock).step()
    return queue.recent_jobs(1)[0]


def objects_of(queue: Queue, job: JobRow) -> list[Dataset]:
    return [pydicom.dcmread(queue.settings.data_dir / item.relative_path) for item in queue.objects_of(job.job_id)]


def told(job: JobRow) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(job.result or "{}")
    jsonschema.validate(line, schema())
    return line


def test_a_series_becomes_a_report_pictures_and_a_map(
    queue: Queue, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    arrive(queue, clock, mr_series("R", attributes=PEOPLE))
    job = work(queue, clock)
    assert (job.state, job.status, job.error) == ("done", "scored", None)
    line = told(job)
    (volume,) = line["volumes"]
    assert (volume["side"], volume["target"], volume["clinical"]["known"]) == (
        "R",
        "progression_abs",
        ["age", "height"],
    )
    # The DESS that the other bundle wants is not there.
    assert [refusal["code"] for refusal in line["refusals"]] == ["wrong_plane"]
    made = queue.objects_of(job.job_id)
    assert [item.sop_class_uid for item in made[:2]] == [FRAMES, MAP]
    assert made[-1].sop_class_uid == SR
    assert {item.kind for item in made[:2]} == {ObjectKind.HEATMAP}
    assert [f"{item.sop_uid}.dcm" for item in made] == line["files"]
    assert check_study(objects_of(queue, job)) == []
    assert summaries.of_job(job).startswith("Right knee, coronal IW TSE: probability 0.")
    console = Console(width=300, record=True, file=StringIO())
    console.print(render(queue))
    assert "R progression_abs 0." in console.export_text()
    (done,) = [line for line in map(logs.JsonLines().format, caplog.records) if '"job.done"' in line]
    assert '"volumes": 1' in done
    assert "061" not in caplog.text


def test_both_knees_and_sequences_of_one_study(queue: Queue, clock: Clock) -> None:
    grid = Grid("sagittal", slices=20, step_mm=3.0)
    first = mr_series("L", identity="a")
    others = [
        *mr_series("R", identity="b"),
        *mr_series("R", grid, identity="c", description="SAG_3D_DESS", timing="dess"),
    ]
    for ds in others:
        ds.StudyInstanceUID, ds.PatientID, ds.PatientName = (
            first[0].StudyInstanceUID, first[0].PatientID, first[0].PatientName,
        )  # fmt: skip
    film = phantoms.dx_knee("L")
    for keyword in OF_THE_STUDY:
        setattr(film, keyword, first[0][keyword].value)
    arrive(queue, clock, [film, *first, *others])
    job = work(queue, clock)
    line = told(job)
    assert [(one["side"], one["target"]) for one in line["volumes"]] == [
        ("L", "progression_abs"),
        ("R", "progression_abs"),
        ("R", "womac_pain_class"),
    ]
    assert [knee["side"] for knee in line["knees"]] == ["L"]
    assert line["refusals"] == []
    assert len(line["looks"]) == 4
    found = [item.sop_class_uid for item in queue.objects_of(job.job_id)]
    assert (found.count(FRAMES), found.count(MAP), found.count(SR)) == (3, 3, 1)
    assert check_study(objects_of(queue, job)) == []


def test_scoring_again_sends_the_same_objects_and_own_results_are_nothing_new(queue: Queue, clock: Clock) -> None:
    study = arrive(queue, clock, mr_series("R"))
    first = work(queue, clock)
    before = [item.sop_uid for item in queue.objects_of(first.job_id)]
    for task in queue.next_deliveries("folder", "d", clock.now):
        queue.delivered(task, clock.now)
    assert queue.score_again(study, clock.forward(60)) == 2
    again = work(queue, clock)
    assert (again.status, queue.objects_of(again.job_id)) == ("scored", ())
    assert [task.sop_uid for task in queue.next_deliveries("folder", "d", clock.now)] == before


def test_a_series_that_comes_later_leads_to_a_report_that_names_the_earlier_one(queue: Queue, clock: Clock) -> None:
    right, left = mr_series("R", identity="a"), mr_series("L", identity="b")
    for ds in left:
        ds.StudyInstanceUID, ds.PatientID, ds.PatientName = (
            right[0].StudyInstanceUID, right[0].PatientID, right[0].PatientName,
        )  # fmt: skip
    arrive(queue, clock, right)
    before = objects_of(queue, work(queue, clock))
    clock.forward(60)
    arrive(queue, clock, left)
    job = work(queue, clock)
    assert [one["side"] for one in told(job)["volumes"]] == ["L", "R"]
    now = objects_of(queue, job)
    (named,) = now[-1].PredecessorDocumentsSequence
    (series,) = named.ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before[-1].SOPInstanceUID
    assert now[-1].InstanceNumber == before[-1].InstanceNumber + 1
    assert not {one.SOPInstanceUID for one in now} & {one.SOPInstanceUID for one in before}, "what is the same stays"
    assert len(told(job)["files"]) == 6, "pictures and map of both knees, the card of the DESS, the report"
    assert check_study([*before[:-1], *now]) == []


def test_own_results_are_nothing_new(queue: Queue, clock: Clock, tmp_path: Path) -> None:
    """A PACS that forwards all it stores sends them to the next Genu, beside the series or alone."""
    series = mr_series("R")
    arrive(queue, clock, series)
    first = work(queue, clock)
    own = objects_of(queue, first)
    assert all(is_own_result(dataset) for dataset in own)
    for folder, datasets in (("beside", [*series, *own]), ("alone", own)):
        other = Queue.open(settings_for(tmp_path / folder, bundles=list(map(str, bundles()))))
        arrive(other, clock, datasets)
        line = told(work(other, clock))
        assert line["volumes"] == (told(first)["volumes"] if folder == "beside" else [])
        assert line["status"] == ("scored" if folder == "beside" else "nothing_to_score")
        assert len(line["looks"]) == (1 if folder == "beside" else 0)
        other.close()


def test_without_a_bundle_for_it_there_is_nothing_to_score_and_no_report(queue: Queue, clock: Clock) -> None:
    arrive(queue, clock, mr_series("R"))
    films = Predictor(predictor().bundle, predictor().reader)
    job = work(queue, clock, films)
    line = told(job)
    assert (job.status, line["files"], line["volumes"]) == ("nothing_to_score", [], [])
    assert [refusal["code"] for refusal in line["refusals"]] == ["unsupported_sop_class"]


def test_an_enhanced_object_goes_through(queue: Queue, clock: Clock) -> None:
    arrive(queue, clock, [enhanced_series("L", compressed=True, shuffle=2)])
    job = work(queue, clock)
    line = told(job)
    (volume,) = line["volumes"]
    assert (volume["side"], volume["total"]) == ("L", 13)
    assert volume["peak"]["frame"] >= 1
    assert check_study(objects_of(queue, job)) == []


def test_what_is_refused_says_so_in_a_report(queue: Queue, clock: Clock) -> None:
    arrive(queue, clock, mr_series("R", laterality=None))
    job = work(queue, clock)
    line = told(job)
    assert (job.status, line["volumes"]) == ("refused", [])
    assert [refusal["code"] for refusal in line["refusals"]] == ["side_unknown", "wrong_plane"]
    assert queue.objects_of(job.job_id)[-1].sop_class_uid == SR
    assert check_study(objects_of(queue, job)) == []
    assert "Neither laterality attributes nor descriptions say which knee this is" in summaries.of_job(job)


def test_all_objects_are_stored_by_an_archive_that_takes_their_classes(tmp_path: Path, clock: Clock) -> None:
    with archive([FRAMES, MAP, SR]) as peer:
        target = {"kind": "cstore", "name": "pacs", "host": "127.0.0.1", "port": peer.port, "ae_title": "PACS"}
        queue = Queue.open(settings_for(tmp_path, bundles=[str(path) for path in bundles()], destinations=[target]))
        arrive(queue, clock, mr_series("R"))
        job = work(queue, clock)
        Courier(queue, queue.settings, queue.settings.destinations[0], clock=clock).step()
        wanted = [item.sop_uid for item in queue.objects_of(job.job_id) if item.sop_class_uid in (FRAMES, MAP, SR)]
        assert [uid for uid in peer.stored if uid in wanted] == wanted
        queue.close()


def test_doctor_and_status_name_the_bundles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_replay", lambda _settings: Check("probe", Verdict.FINE, "replayed"))
    settings = load(None, {"data_dir": tmp_path, "bundles": [str(path) for path in bundles()]})
    checks = list(doctor.check_bundles(settings))
    for check, task in zip(checks, ("kl", "jsn_progression", "womac_pain"), strict=False):
        assert f"({task})" in check.seen
    assert [bundle["task"] for bundle in _bundles(settings)] == ["kl", "jsn_progression", "womac_pain"]
    loaded: Any = load_predictor(settings)
    assert [identity.task for identity in loaded.identities] == ["kl", "jsn_progression", "womac_pain"]
    assert loaded.slices[1].network.backbone is loaded.slices[0].network.backbone


def test_a_real_series_without_a_side_is_refused_and_with_one_scored(
    queue: Queue, clock: Clock, shared_data: Path, tmp_path: Path
) -> None:
    """A sagittal DESS of 80 slices whose header says neither body part nor side; then copies that say both."""
    with tarfile.open(shared_data / "dicom" / "knee_mri_sag_dess.tar.xz") as tar:
        tar.extractall(tmp_path / "dess", filter="data")
    files = [path for path in (tmp_path / "dess").rglob("*") if path.is_file()]
    slices = [pydicom.dcmread(path) for path in files]
    arrive(queue, clock, slices)
    refused = told(work(queue, clock))
    assert refused["status"] == "refused"
    assert {refusal["code"] for refusal in refused["refusals"]} == {"side_unknown", "wrong_plane"}
    assert len(refused["looks"]) == 1
    for number, ds in enumerate(slices):
        ds.Laterality, ds.BodyPartExamined, ds.StudyInstanceUID = "R", "KNEE", "1.2.3.4"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{number}"
    arrive(queue, clock, slices)
    job = work(queue, clock)
    scored = told(job)
    (volume,) = scored["volumes"]
    assert (volume["side"], volume["sequence"], volume["total"]) == ("R", "sagittal 3D DESS", 80)
    assert len(volume["slices"]) == 12
    assert [refusal["code"] for refusal in scored["refusals"]] == ["wrong_plane"]
    assert check_study(objects_of(queue, job)) == []


def test_genu_score_tells_the_same(queue: Queue, clock: Clock, tmp_path: Path) -> None:
    series = mr_series("R")
    arrive(queue, clock, series)
    write(series, tmp_path / "series")
    given = [argument for path in bundles() for argument in ("--bundle", path)]
    done = genu("score", tmp_path / "series", "--out", tmp_path / "scored", *given)
    assert done.returncode == 0, done.stderr
    line = json.loads((tmp_path / "scored" / "results.jsonl").read_text())
    by_service = told(work(queue, clock))
    assert {**line, "files": []} == {**by_service, "files": []}
    assert line["files"][:2] == by_service["files"][:2], "pictures and map are the same objects"
