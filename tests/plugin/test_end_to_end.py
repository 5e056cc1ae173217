"""The whole way with real parts: DCMTK's storescu -> `genu listen` and its children -> DCMTK's storescp.

One service with a stand-in model serves all tests of this module; each sends studies of its own.
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pydicom
import pytest
from pydicom import Dataset

from dicom_templates import checker
from plugin.jobs import Queue
from plugin.results import schema
from plugin.settings import load
from tests import phantoms
from tests.plugin.peers import storescp
from tests.plugin.receiving import dcmtk, wait_until
from tests.plugin.standin import genu, logged, service, standin_bundle

REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
SECONDS = 90.0
CANARY = "ZQXCANARY"

pytestmark = pytest.mark.skipif(
    shutil.which("storescp") is None, reason="needs storescp and storescu of DCMTK: apt-get install dcmtk"
)


@dataclass(frozen=True)
class Site:
    """A running service and its PACS."""

    port: int
    data_dir: Path
    pacs: Path
    log: Path
    scratch: Path

    def send(self, *datasets: Dataset) -> None:
        files = [phantoms.write(ds, self.scratch / f"{ds.SOPInstanceUID}.dcm") for ds in datasets]
        dcmtk("storescu", "-aec", "GENU", "-aet", "MODALITY", "127.0.0.1", self.port, *files)

    def stored(self, study: str) -> list[Dataset]:
        """What the PACS holds of a study, in the order of its arrival."""
        files = sorted(self.pacs.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        found = [pydicom.dcmread(path, force=True) for path in files]
        return [dataset for dataset in found if dataset.get("StudyInstanceUID") == study]

    def reports(self, study: str) -> list[Dataset]:
        return [dataset for dataset in self.stored(study) if dataset.SOPClassUID == REPORT]

    def wait_for_reports(self, study: str, count: int = 1) -> list[Dataset]:
        wait_until(lambda: len(self.reports(study)) >= count, SECONDS)
        self.wait_until_idle()
        return self.reports(study)

    def status(self) -> dict[str, Any]:
        done = genu("status", "--json", "--data-dir", self.data_dir)
        assert done.returncode == 0, done.stderr
        loaded: dict[str, Any] = json.loads(done.stdout)
        return loaded

    def wait_until_idle(self) -> None:
        queue = Queue.open(load(None, {"data_dir": self.data_dir}))
        wait_until(lambda: queue.snapshot().is_empty, SECONDS)
        queue.close()

    def revisions(self, study: str) -> list[dict[str, Any]]:
        return [job for job in self.status()["studies"] if job["study_uid"] == study]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    log = folder / "genu.log"
    options = ["--quiet", 0.5, "--bundle", standin_bundle()]
    with (
        storescp(folder / "pacs") as pacs,
        service(folder / "data", *options, "--to-ae", f"PACS@127.0.0.1:{pacs}", log=log) as port,
    ):
        yield Site(port, folder / "data", folder / "pacs", log, folder / "scratch")


def test_a_bilateral_and_a_single_knee_come_back_as_reports_and_heatmaps(site: Site) -> None:
    both, one = phantoms.dx_bilateral(identity="e2e-both"), phantoms.dx_knee("R", identity="e2e-one")
    both.PatientName = one.PatientName = "PHANTOM^DRAWN"  # our checker holds KNEE in a caption for the patient's name
    site.send(both, one)
    for film, sides in ((both, ["L", "R"]), (one, ["R"])):
        (report,) = site.wait_for_reports(film.StudyInstanceUID)
        objects = site.stored(film.StudyInstanceUID)
        heatmaps = [dataset for dataset in objects if dataset.SOPClassUID != REPORT]
        assert sorted(heatmap.Laterality for heatmap in heatmaps) == sides
        assert (report.PatientID, report.PatientName) == (film.PatientID, film.PatientName)
        assert report.AccessionNumber == film.AccessionNumber
        for dataset in objects:
            assert not checker.check(dataset)
    (job,) = site.revisions(both.StudyInstanceUID)
    assert (job["state"], job["status"]) == ("done", "scored")
    jsonschema.validate(job["result"], schema())
    assert len(job["result"]["files"]) == 3
    assert not site.status()["dead_jobs"]


def test_what_cannot_be_scored_is_refused_in_a_report(site: Site) -> None:
    chest = phantoms.dx_chest(identity="e2e-chest")
    site.send(chest)
    (report,) = site.wait_for_reports(chest.StudyInstanceUID)
    objects = site.stored(chest.StudyInstanceUID)
    assert sorted(int(dataset.SeriesNumber) for dataset in objects) == [9901, 9904]
    assert checker.check_study(objects) == []
    assert "R-NOT-KNEE" in str(report)
    (job,) = site.revisions(chest.StudyInstanceUID)
    assert len(job["result"]["files"]) == 2
    assert [refusal["code"] for refusal in job["result"]["refusals"]] == ["not_a_knee"]


def test_an_mr_study_is_none_of_our_business(site: Site) -> None:
    slices = phantoms.mr_knee("e2e-mr", 2)
    site.send(*slices)
    wait_until(lambda: bool(site.revisions(slices[0].StudyInstanceUID)), SECONDS)
    site.wait_until_idle()
    (job,) = site.revisions(slices[0].StudyInstanceUID)
    assert (job["status"], job["result"]["files"]) == ("nothing_to_score", [])
    assert not site.stored(slices[0].StudyInstanceUID)


def test_the_same_study_sent_twice_is_scored_once(site: Site) -> None:
    film = phantoms.dx_knee("L", identity="e2e-twice")
    site.send(film)
    site.wait_for_reports(film.StudyInstanceUID)
    site.send(film)
    time.sleep(1.5)
    site.wait_until_idle()
    assert len(site.reports(film.StudyInstanceUID)) == 1
    assert len(site.revisions(film.StudyInstanceUID)) == 1


def test_an_image_that_comes_later_supersedes_the_report(site: Site) -> None:
    first = phantoms.dx_knee("L", identity="e2e-late")
    later = phantoms.dx_knee("R", identity="e2e-late")
    later.SOPInstanceUID = later.file_meta.MediaStorageSOPInstanceUID = phantoms.uid("e2e-late", "second")
    site.send(first)
    (before,) = site.wait_for_reports(first.StudyInstanceUID)
    site.send(later)
    reports = site.wait_for_reports(first.StudyInstanceUID, 2)
    assert len(reports) == 2
    (after,) = (report for report in reports if report.SOPInstanceUID != before.SOPInstanceUID)
    (named,) = after.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in before
    latest = max(site.revisions(first.StudyInstanceUID), key=lambda job: int(job["revision"]))
    assert [knee["side"] for knee in latest["result"]["knees"]] in (["L", "R"], ["R", "L"])


def test_a_broken_file_harms_nobody(site: Site) -> None:
    broken = phantoms.dx_knee("L", identity="e2e-broken")
    broken.PixelData = broken.PixelData[: len(broken.PixelData) // 3]
    good = phantoms.dx_knee("L", identity="e2e-good")
    site.send(broken, good)
    site.wait_for_reports(good.StudyInstanceUID)
    (report,) = site.wait_for_reports(broken.StudyInstanceUID)
    assert not checker.check(report)
    (job,) = site.revisions(broken.StudyInstanceUID)
    assert [refusal["code"] for refusal in job["result"]["refusals"]] == ["undecodable_pixels"]


def test_identity_reaches_the_objects_and_nothing_else(site: Site) -> None:
    film = phantoms.plant_canaries(phantoms.dx_knee("L", identity="e2e-canary"), CANARY)
    site.send(film)
    site.wait_for_reports(film.StudyInstanceUID)
    for dataset in site.stored(film.StudyInstanceUID):
        assert dataset.PatientName == film.PatientName
        assert not checker.check(dataset)
    assert CANARY not in site.log.read_text()
    shown = genu("status", "--data-dir", site.data_dir)
    assert film.StudyInstanceUID in shown.stdout
    assert CANARY not in shown.stdout + json.dumps(site.status())
    assert not [path for path in [*site.data_dir.rglob("*"), *site.pacs.iterdir()] if CANARY in path.name]


def test_every_line_of_the_log_is_json_and_no_child_ever_ended(site: Site) -> None:
    assert not logged(site.log, "child.ended")
    assert not logged(site.log, "process.crashed")


def test_the_doctor_finds_the_running_service_and_its_pacs(site: Site, tmp_path: Path) -> None:
    config = tmp_path / "genu.toml"
    pacs = logged(site.log, "listener.ready")[-1]
    config.write_text(f'bundles = ["{standin_bundle()}"]\n[listener]\nport = {pacs["port"]}\n')
    done = genu("doctor", "--config", config, "--data-dir", site.data_dir)
    assert done.returncode == 0, done.stdout
    assert "a listener answers C-ECHO" in done.stdout
