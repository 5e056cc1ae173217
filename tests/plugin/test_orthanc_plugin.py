"""Genu inside a real Orthanc, with a stand-in for the bundle: what its users see. One Orthanc for all of them."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_templates import checker
from tests import phantoms
from tests.plugin.orthanc_genu import REPORT, SECONDARY_CAPTURE, GenuOrthanc, genu_orthanc

ONCE = pytest.mark.parametrize("site", ["installed"], indirect=True, scope="module")  # the kind makes no difference
NOBODY = "00000000-00000000-00000000-00000000-00000000"


@pytest.fixture(scope="module", params=["installed", "trixie"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GenuOrthanc]:
    genu = {"queue": {"backoff_seconds": 1.0}, "orthanc": {"poll_seconds": 0.5}}
    folder = tmp_path_factory.mktemp(f"orthanc-{request.param}")
    with genu_orthanc(folder, genu=genu | {"data_dir": str(folder / "genu")}, program=request.param) as server:
        yield server


@pytest.fixture(scope="module")
def film(site: GenuOrthanc) -> Dataset:
    """A film of both knees that was sent and scored."""
    ds = phantoms.dx_bilateral(identity="orthanc-both")
    ds.PatientName = "PHANTOM^DRAWN"
    site.send_datasets(ds)
    site.wait_for(ds.StudyInstanceUID)
    return ds


def test_a_study_that_is_sent_comes_back_as_report_and_heatmaps_in_the_same_study(
    site: GenuOrthanc, film: Dataset
) -> None:
    study = site.wait_for(film.StudyInstanceUID)
    assert study["status"] == "scored"
    assert "left knee" in study["summary"].lower()
    objects = [ds for ds in site.objects(film.StudyInstanceUID) if ds.SOPInstanceUID != film.SOPInstanceUID]
    assert sorted(ds.SOPClassUID for ds in objects) == [SECONDARY_CAPTURE, SECONDARY_CAPTURE, REPORT]
    for ds in objects:
        assert (ds.PatientID, ds.PatientName) == (film.PatientID, film.PatientName)
        assert not checker.check(ds)
    assert len(site.get(f"/studies/{study['orthanc_id']}/series")) == 4


def test_own_results_make_the_study_stable_again_and_start_no_job(site: GenuOrthanc, film: Dataset) -> None:
    identifier = site.identifier(film.StudyInstanceUID)
    site.until(lambda: site.changes("StableStudy", identifier) >= 2, 20)
    jobs = site.wait_until_idle()["jobs"]
    time.sleep(1.0)
    assert site.wait_until_idle()["jobs"] == jobs
    assert len(site.study(film.StudyInstanceUID)["revisions"]) == 1


def test_a_study_is_scored_again_when_asked_by_either_identifier(site: GenuOrthanc, film: Dataset) -> None:
    for revision, identifier in ((2, site.identifier(film.StudyInstanceUID)), (3, film.StudyInstanceUID)):
        answer = site.ask("POST", f"/studies/{identifier}/score")
        assert (answer.status_code, answer.json()["revision"]) == (202, revision)
        site.wait_for(film.StudyInstanceUID, revision)


def test_an_image_that_comes_later_supersedes_the_report(site: GenuOrthanc) -> None:
    first = phantoms.dx_knee("L", identity="orthanc-late")
    later = phantoms.dx_knee("R", identity="orthanc-late")
    later.SOPInstanceUID = later.file_meta.MediaStorageSOPInstanceUID = phantoms.uid("orthanc-late", "second")
    site.send_datasets(first)
    site.wait_for(first.StudyInstanceUID)
    (before,) = site.reports(first.StudyInstanceUID)
    site.send_datasets(later)
    study = site.wait_for(first.StudyInstanceUID, 2)
    (after,) = [ds for ds in site.reports(first.StudyInstanceUID) if ds.SOPInstanceUID != before.SOPInstanceUID]
    (named,) = after.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert sorted(knee["side"] for knee in study["revisions"][-1]["result"]["knees"]) == ["L", "R"]


@ONCE
def test_an_mr_study_is_none_of_our_business(site: GenuOrthanc) -> None:
    slices = phantoms.mr_knee("orthanc-mr", 3)
    site.send_datasets(*slices)
    study = site.wait_for(slices[0].StudyInstanceUID)
    assert (study["status"], study["revisions"][0]["objects"]) == ("nothing_to_score", [])
    assert len(site.objects(slices[0].StudyInstanceUID)) == 3


@ONCE
def test_a_refusal_is_seen_by_rest_and_in_a_report(site: GenuOrthanc) -> None:
    chest = phantoms.dx_chest(identity="orthanc-chest")
    site.send_datasets(chest)
    study = site.wait_for(chest.StudyInstanceUID)
    (refusal,) = study["revisions"][0]["result"]["refusals"]
    assert refusal["code"] == "not_a_knee"
    assert refusal["reason"] in study["summary"]
    (look,) = study["revisions"][0]["result"]["looks"]
    assert refusal["reason"] in look["steps"][-1]["answer"]
    (report,) = site.reports(chest.StudyInstanceUID)
    assert "R-NOT-KNEE" in str(report)


@ONCE
def test_a_study_is_scored_before_it_is_stable_when_asked(site: GenuOrthanc) -> None:
    film = phantoms.dx_knee("L", identity="orthanc-now")
    identifier = site.put(phantoms.write(film, site.folder / "now.dcm"))["ParentStudy"]
    answer = site.ask("POST", f"/studies/{identifier}/score")
    assert answer.status_code == 202, answer.text
    site.wait_for(film.StudyInstanceUID)
    site.until(lambda: site.changes("StableStudy", identifier) >= 1, 20)
    site.wait_until_idle()
    assert len(site.study(film.StudyInstanceUID)["revisions"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", f"/studies/{NOBODY}", {}, 404),
        ("POST", "/studies/1.2.3.4/score", {}, 404),
        ("GET", "/nothing", {}, 404),
        ("GET", "/studies/%2e%2e%2fsystem", {}, 404),
        ("GET", "/studies/" + "1" * 5000, {}, 404),
        ("POST", "/status", {}, 405),
        ("GET", "/studies/1.2/score", {}, 405),
        ("DELETE", "/studies/1.2", {}, 405),
        ("POST", "/studies/1.2.3.4/score", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/studies/1.2.3.4/score", {"Origin": "http://elsewhere.example"}, 403),
        ("POST", "/studies/1.2.3.4/score", {"Sec-Fetch-Site": "same-origin"}, 404),
    ],
)
def test_other_requests_are_refused(
    site: GenuOrthanc, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    assert site.ask(method, path, headers=headers).status_code == status


@ONCE
def test_nobody_is_let_in_without_orthancs_password(site: GenuOrthanc) -> None:
    assert site.ask("GET", "/status", auth=("genu-test", "wrong")).status_code == 401


def test_torch_never_enters_orthancs_process(site: GenuOrthanc) -> None:
    assert site.process is not None
    loaded = Path(f"/proc/{site.process.pid}/maps").read_text()
    assert "libpython3" in loaded
    for library in ("torch", "numpy", "pydantic", "sqlite3.cpython"):
        assert library not in loaded
    # The probe itself: where torch is, it is seen.
    worker = site.child("worker-1")
    site.until(lambda: "libtorch_cpu" in Path(f"/proc/{worker.pid}/maps").read_text(), 30)


@ONCE
def test_a_killed_worker_costs_nothing(site: GenuOrthanc) -> None:
    film = phantoms.dx_knee("L", identity="orthanc-worker")
    worker = site.child("worker-1")
    site.send_datasets(film)
    site.until(lambda: site.study(film.StudyInstanceUID).get("state") in ("queued", "running", "done"), 20)
    worker.send_signal(signal.SIGKILL)
    assert site.get("/system")["ApiVersion"]
    assert site.wait_for(film.StudyInstanceUID)["status"] == "scored"
    assert len(site.reports(film.StudyInstanceUID)) == 1


@ONCE
def test_a_killed_sidecar_costs_nothing(site: GenuOrthanc) -> None:
    film = phantoms.dx_knee("R", identity="orthanc-sidecar")
    site.status()
    sidecar = site.sidecar()
    site.send_datasets(film)
    sidecar.send_signal(signal.SIGKILL)
    sidecar.wait(5)
    assert site.ask("GET", "/status").status_code in (200, 503)
    assert site.get("/system")["ApiVersion"]
    assert site.wait_for(film.StudyInstanceUID)["status"] == "scored"
    assert len(site.reports(film.StudyInstanceUID)) == 1
    assert site.sidecar().pid != sidecar.pid


@ONCE
def test_the_log_of_orthanc_names_no_patient(site: GenuOrthanc) -> None:
    assert "Genu: " in site.log_text()
    assert "PHANTOM^" not in site.log_text()
    assert "Bearer" not in site.log_text()


def test_everything_ends_with_orthanc(site: GenuOrthanc) -> None:
    # The last of this module.
    site.status()
    family = site.processes()
    assert len(family) >= 3
    began = time.monotonic()
    assert site.stop() == 0
    assert time.monotonic() - began < 15.0
    assert not [process for process in family if process.is_running()]


def test_orthanc_says_at_once_that_a_study_is_stable(tmp_path: Path) -> None:
    film = phantoms.dx_knee("L", identity="orthanc-nudge")
    rarely = {"orthanc": {"poll_seconds": 600}, "workers": {"count": 0}, "data_dir": str(tmp_path / "genu")}
    with genu_orthanc(tmp_path, genu=rarely) as server:
        server.until(lambda: server.status()["orthanc"]["error"] is None, 20)
        server.send_datasets(film)
        server.until(lambda: server.study(film.StudyInstanceUID).get("state") == "queued", 20)
