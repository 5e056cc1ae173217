"""`genu status` and `genu retry` on a real queue."""

import json
from pathlib import Path

import pytest

from inference.findings import Refusal, RefusalCode, StudyFindings, StudyStatus
from plugin.cli import main
from plugin.jobs import Queue
from plugin.results import encode, result_line
from plugin.rows import JobState, ObjectKind, ReceivedInstance, ResultObject
from plugin.settings import Settings, load

STUDY = "1.2.826.0.1.3680043.10.1"
NOW = 1_800_000_000.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(None, {"data_dir": tmp_path, "completeness": {"quiet_seconds": 1}, "delivery": {"max_refusals": 1}})


@pytest.fixture
def queue(settings: Settings) -> Queue:
    return Queue.open(settings)


def receive(queue: Queue, study: str = STUDY) -> None:
    queue.admit(
        ReceivedInstance(
            study_uid=study,
            series_uid=f"{study}.1",
            sop_uid=f"{study}.1.1",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
            transfer_syntax="1.2.840.10008.1.2.1",
            relative_path=f"instances/{study}.dcm",
            size=1,
            sha256="00" * 32,
            calling_ae="MODALITY",
            peer_host="127.0.0.1",
            received_at=NOW,
        )
    )
    queue.sweep(NOW + 10)


def shown(capsys: pytest.CaptureFixture[str], settings: Settings, *argv: str) -> str:
    assert main([*argv, "--data-dir", str(settings.data_dir)]) == 0
    return capsys.readouterr().out


def test_status_tells_outcome_refusals_and_destinations(
    queue: Queue, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(queue)
    claim = queue.claim("worker", NOW + 10)
    assert claim is not None
    refusal = Refusal(RefusalCode.SIDE_UNKNOWN, "Nothing says which knee this is.")
    line = encode(result_line(StudyFindings(STUDY, refusals=(refusal,), radiographs=1)))
    report = ResultObject(ObjectKind.REPORT, "2.25.2", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.1", "r", 1, "00" * 32)
    queue.finish(claim, [report], line, status=StudyStatus.REFUSED, destinations=["pacs"], now=NOW + 11)
    (task,) = queue.next_deliveries("pacs", "deliverer", NOW + 12)
    queue.refused(task, "status 0xA900", NOW + 12)

    text = shown(capsys, settings, "status")
    for word in (STUDY, "refused", "side_unknown", "Nothing says which knee this is.", "pacs", "status 0xA900"):
        assert word in text
    data = json.loads(shown(capsys, settings, "status", "--json"))
    assert data["studies"][0]["result"]["refusals"][0]["code"] == "side_unknown"
    assert data["jobs"]["done"] == 1
    assert data["dead_deliveries"][0]["error"] == "status 0xA900"

    assert "1 to send again" in shown(capsys, settings, "retry", STUDY)
    assert not json.loads(shown(capsys, settings, "status", "--json"))["dead_deliveries"]


def test_names_and_errors_are_shown_as_they_are(
    queue: Queue, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(queue)
    claim = queue.claim("worker", NOW + 10)
    assert claim is not None
    line = encode(result_line(StudyFindings(STUDY)))
    report = ResultObject(ObjectKind.REPORT, "2.25.2", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.1", "r", 1, "00" * 32)
    name, error = "[pacs] :id:", "PACS@[fe80::1]:104 [errno 111]"
    queue.finish(claim, [report], line, status=StudyStatus.REFUSED, destinations=[name], now=NOW + 11)
    queue.destination_down(name, "deliverer", error, NOW + 12)
    text = shown(capsys, settings, "status")
    assert name in text and error in text
    assert json.loads(shown(capsys, settings, "status", "--json"))["destinations"][0]["name"] == name


def test_a_dead_letter_is_told_with_its_reason_and_goes_back_to_work(
    queue: Queue, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(queue)
    claim = queue.claim("worker", NOW + 10)
    assert claim is not None
    queue.fail(claim, "ZeroDivisionError in knees.py", retry=False, now=NOW + 11)

    text = shown(capsys, settings, "status")
    assert "ZeroDivisionError in knees.py" in text
    assert "genu retry" in text
    assert "1 to score again" in shown(capsys, settings, "retry", "--all")
    assert queue.snapshot().jobs[JobState.QUEUED] == 1


def test_retry_wants_a_study_that_there_is(
    queue: Queue, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(queue)
    folder = ["--data-dir", str(settings.data_dir)]
    assert main(["retry", *folder]) == 2
    assert main(["retry", "--all", STUDY, *folder]) == 2
    assert main(["retry", "9.9.9", *folder]) == 2
    assert "9.9.9" in capsys.readouterr().err
