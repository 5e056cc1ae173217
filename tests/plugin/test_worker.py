"""The worker: real reading, composing and writing around a light scorer, and every way in which it can go wrong."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from inference.errors import BundleError, RefusalError, ResourceError
from inference.findings import RefusalCode
from inference.reading import StudyInput
from plugin.jobs import Queue
from plugin.rows import JobRow, JobState, ObjectKind
from plugin.settings import Station
from plugin.worker import Worker
from plugin.writing import results_folder
from tests.plugin.fakes import FakeScorer, deposit, film
from tests.plugin.queue_helpers import SC, SR, Clock, claimed, settings_for

CANARY = "Zebra^Canary"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue.open(settings_for(tmp_path, destinations=[{"kind": "folder", "path": tmp_path / "out"}]))
    yield queue
    queue.close()


def arrive(queue: Queue, clock: Clock, *films: Dataset, broken: bytes | None = None) -> str:
    for one in films:
        deposit(queue, one, clock.now, broken=broken)
    assert queue.sweep(clock.forward(5)) == 1
    return str(films[0].StudyInstanceUID)


def work(queue: Queue, clock: Clock, before: Callable[[StudyInput], None] | None = None) -> bool:
    return Worker(queue, queue.settings, FakeScorer(before), worker_id="w", clock=clock).step()


def only_job(queue: Queue, study: str) -> JobRow:
    (job,) = queue.jobs_of(study)
    return job


def test_a_study_becomes_a_report_and_heatmaps_in_the_outbox(queue: Queue, clock: Clock) -> None:
    study = arrive(queue, clock, film(1, 1), film(1, 2))
    assert work(queue, clock)
    assert not work(queue, clock)
    job = only_job(queue, study)
    assert (job.state, job.status, job.error) == ("done", "scored", None)
    assert job.result is not None
    assert '"status": "scored"' in job.result
    objects = queue.objects_of(job.job_id)
    assert [item.kind for item in objects] == [ObjectKind.HEATMAP, ObjectKind.HEATMAP, ObjectKind.REPORT]
    assert [item.sop_class_uid for item in objects] == [SC, SC, SR]
    for item in objects:
        path = queue.settings.data_dir / item.relative_path
        assert dcmread(path).SOPInstanceUID == item.sop_uid == path.stem
        assert path.stat().st_size == item.size
    assert [t.sop_uid for t in queue.next_deliveries("folder", "d", clock.now)] == [item.sop_uid for item in objects]


def test_a_second_attempt_writes_the_same_bytes(queue: Queue, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between writing and finish: the next attempt makes the very same objects."""
    study = arrive(queue, clock, film(1))
    claim = claimed(queue, clock, worker="w")
    with monkeypatch.context() as patch:
        patch.setattr(queue, "finish", lambda *_arguments, **_more: None)
        Worker(queue, queue.settings, FakeScorer(), worker_id="w", clock=clock)._process(claim)
    first = {path.name: path.read_bytes() for path in results_folder(queue.settings.data_dir, claim).iterdir()}
    assert len(first) == 2
    queue.expire_worker("w", clock.forward(3))
    queue.claim("w", clock.now)
    clock.forward(1000)
    assert work(queue, clock)
    objects = queue.objects_of(only_job(queue, study).job_id)
    second = {f"{o.sop_uid}.dcm": (queue.settings.data_dir / o.relative_path).read_bytes() for o in objects}
    assert second == first
    assert not results_folder(queue.settings.data_dir, claim).exists()  # nothing of the lost attempt is left


def test_a_later_revision_names_the_report_before(queue: Queue, clock: Clock) -> None:
    study = arrive(queue, clock, film(1, 1))
    work(queue, clock)
    arrive(queue, clock, film(1, 2))
    work(queue, clock)
    first, second = queue.jobs_of(study)
    before = queue.objects_of(first.job_id)
    after = queue.objects_of(second.job_id)
    assert len(after) == 2  # the first film's heatmap exists already and is not made again
    report = dcmread(queue.settings.data_dir / after[-1].relative_path)
    referenced = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert referenced.ReferencedSOPInstanceUID == before[-1].sop_uid != after[-1].sop_uid


def test_our_own_objects_coming_late_lead_to_no_new_report(queue: Queue, clock: Clock) -> None:
    study = arrive(queue, clock, film(1, 1))
    work(queue, clock)
    foreign = film(1, 7)  # as from another Genu: its UID is not in this queue
    foreign.Manufacturer = "Genu"
    arrive(queue, clock, foreign)
    work(queue, clock)
    second = queue.jobs_of(study)[1]
    assert (second.state, second.status) == ("done", "nothing_to_score")
    assert queue.objects_of(second.job_id) == ()


def test_scoring_again_without_a_change_sends_the_same_objects_again(queue: Queue, clock: Clock) -> None:
    study = arrive(queue, clock, film(1, 1))
    work(queue, clock)
    first = queue.objects_of(queue.jobs_of(study)[0].job_id)
    for task in queue.next_deliveries("folder", "d", clock.now):
        queue.delivered(task, clock.now)
    assert queue.score_again(study, clock.forward(60)) == 2
    work(queue, clock)
    second = queue.jobs_of(study)[1]
    assert (second.state, second.status) == ("done", "scored")
    assert queue.objects_of(second.job_id) == ()
    assert [t.sop_uid for t in queue.next_deliveries("folder", "d", clock.now)] == [item.sop_uid for item in first]
    assert len(list((queue.settings.data_dir / "results").iterdir())) == 1  # nothing is written twice


def test_scoring_again_after_a_change_makes_a_report_that_names_the_last(queue: Queue, clock: Clock) -> None:
    study = arrive(queue, clock, film(1, 1))
    work(queue, clock)
    queue.score_again(study, clock.forward(60))
    changed = queue.settings.model_copy(update={"station": Station(device_serial="2")})
    Worker(queue, changed, FakeScorer(), worker_id="w", clock=clock).step()
    before, after = (queue.objects_of(job.job_id)[-1] for job in queue.jobs_of(study))
    report = dcmread(queue.settings.data_dir / after.relative_path)
    referenced = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert referenced.ReferencedSOPInstanceUID == before.sop_uid != after.sop_uid


def test_a_refusal_that_escapes_the_scorer_is_a_result(queue: Queue, clock: Clock) -> None:
    def refuse(_study: StudyInput) -> None:
        raise RefusalError(RefusalCode.NOT_A_KNEE, "This is a chest.")

    study = arrive(queue, clock, film(1))
    work(queue, clock, refuse)
    job = only_job(queue, study)
    assert (job.state, job.status) == ("done", "refused")
    assert [item.kind for item in queue.objects_of(job.job_id)] == [ObjectKind.CARD, ObjectKind.REPORT]


@pytest.mark.parametrize("content", [b"", b"not DICOM at all", b"\0" * 128 + b"DICM" + b"\xff" * 64])
def test_a_study_of_broken_files_is_refused_and_the_next_is_scored(queue: Queue, clock: Clock, content: bytes) -> None:
    bad = arrive(queue, clock, film(1), broken=content)
    good = arrive(queue, clock, film(2))
    assert work(queue, clock)
    assert work(queue, clock)
    assert only_job(queue, bad).status == "refused"
    assert "unreadable" in str(only_job(queue, bad).result)
    assert only_job(queue, good).status == "scored"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ResourceError("no space left"), "ResourceError at .*: no space left"),
        (MemoryError(CANARY), "MemoryError at .*test_worker.py:[0-9]+ fail"),
        (ValueError(CANARY), "ValueError at"),
        (RecursionError(CANARY), "RecursionError at"),
        (BundleError("weights are gone"), "BundleError at .*: weights are gone"),
    ],
)
def test_errors_lead_to_retries_then_to_a_dead_letter_and_the_next_is_scored(
    queue: Queue, clock: Clock, caplog: pytest.LogCaptureFixture, error: Exception, shown: str
) -> None:
    bad = arrive(queue, clock, film(1))
    good = arrive(queue, clock, film(2))
    caplog.set_level(logging.DEBUG)

    def fail(study: StudyInput) -> None:
        if study.study_instance_uid == bad:
            raise error

    work(queue, clock, fail)
    assert only_job(queue, bad).state == "queued"
    work(queue, clock, fail)
    assert only_job(queue, good).status == "scored"
    for _ in range(4):
        clock.forward(1000)
        assert work(queue, clock, fail)
    clock.forward(1000)
    assert not work(queue, clock, fail)
    job = only_job(queue, bad)
    assert (job.state, job.status, job.attempts) == ("dead", "failed", 5)
    assert job.error is not None
    assert job.error.endswith("(attempt 5, given up)")
    assert re.search(shown, job.error)
    logged = "".join(str(vars(record)) for record in caplog.records if record.name.startswith("plugin"))
    assert CANARY not in job.error + logged
    assert not list((queue.settings.data_dir / "results").glob(f"{job.job_id}-*"))


def test_a_worker_that_lost_its_lease_leaves_no_trace(queue: Queue, clock: Clock) -> None:
    study = arrive(queue, clock, film(1))

    def be_suspended(_study: StudyInput) -> None:
        clock.forward(61)

    work(queue, clock, be_suspended)
    job = only_job(queue, study)
    assert (job.state, queue.objects_of(job.job_id)) == ("running", ())
    assert queue.next_deliveries("folder", "d", clock.now) == ()
    work(queue, clock)  # notices the loss
    clock.forward(10)
    work(queue, clock)
    assert only_job(queue, study).status == "scored"
    assert len(queue.next_deliveries("folder", "d", clock.now)) == 2


def test_importing_the_worker_loads_no_torch() -> None:
    code = "import plugin.worker, plugin.deliverer, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_received_file_that_cannot_be_opened_is_our_fault_and_no_refusal(queue: Queue, clock: Clock) -> None:
    study = arrive(queue, clock, film(1, 1))
    (path,) = [queue.settings.data_dir / path for path in queue.known_paths()]
    kept = path.rename(path.with_suffix(".away"))
    assert work(queue, clock)
    job = only_job(queue, study)
    assert (job.state, job.status) == (JobState.QUEUED, None)
    assert job.error is not None and "No such file" in job.error
    kept.rename(path)
    clock.forward(5)
    assert work(queue, clock)
    assert only_job(queue, study).status == "scored"
