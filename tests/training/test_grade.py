"""Grades of a cohort by a bundle: what it says of the very crops, once; and the crops that fine-tuning reads."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from inference.bundle import Answer, Bundle, decode
from inference.errors import BundleError, DataError, UsageError
from inference.findings import RefusalCode
from inference.manifest import Manifest
from inference.preprocess import PreprocessSpec
from tests import phantom_pixels, phantoms
from training import embed_decode
from training.cli import main
from training.embed_knees import Film, films, read_cohort, read_film
from training.grade import GradePlan, grade, read_grades
from training.knee_crops import gather
from training.standin import write_random_bundle


class Site:
    """One film of both knees, one that is none, and the cohort of them."""

    def __init__(self, folder: Path) -> None:
        self.export, self.cohort = folder / "export", folder / "cohort"
        self.rows: list[dict[str, Any]] = []
        self._film("both", phantom_pixels.bilateral(seed=3), "RL")
        self._film("chest", phantom_pixels.chest(), "L")
        self.cohort.mkdir()
        pq.write_table(pa.Table.from_pylist(self.rows), self.cohort / "cohort.parquet")

    def _film(self, name: str, pixels: np.ndarray, sides: str) -> None:
        ds = phantoms.wrap_dx(pixels, sides if len(sides) == 1 else "B", identity=name, bits=12)
        phantoms.write(ds, self.export / f"{name}.dcm")
        uid = str(ds.SOPInstanceUID)
        flags = {"bilateral": len(sides) == 2, "flipped": False, "inverted": False}
        self.rows += [
            {"knee": f"{uid}/{side}", "SOPInstanceUID": uid, "path": f"{name}.dcm", "side": side, **flags}
            for side in sides
        ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The films that were decoded."""
    seen: list[str] = []

    def counted(film: Film) -> Any:
        seen.append(film.path.stem)
        return read_film(film)

    monkeypatch.setattr(embed_decode, "read_film", counted)
    return seen


def plan(site: Site, out: Path, bundle: Path) -> GradePlan:
    return GradePlan(site.cohort, site.export, out, bundle, batch=2, workers=0, device="cpu")


def test_grades_are_what_the_bundle_says_of_the_crops_and_are_made_once(
    site: Site, bundle: Path, tmp_path: Path, reads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = plan(site, tmp_path / "grades.parquet", bundle)
    report = grade(asked)
    assert (report.knees, report.graded, report.computed, report.cached, report.failed) == (3, 2, 2, 0, 1)
    found = read_grades(asked.out)
    loaded = Bundle.load(bundle, "cpu")
    (film, _) = films(site.export, read_cohort(site.cohort), loaded.spec, {})
    for knee in read_film(film):
        assert knee.crop is not None
        expected = loaded.probabilities(torch.from_numpy(knee.crop)[None, None].float() / 255).double().numpy()
        row = found.knees.index(knee.row.knee)
        assert np.allclose(found.probabilities[row], expected[0], atol=1e-5)
        assert found.grades[row] == decode(expected, loaded.manifest.decoder)[0]
    table = pq.read_table(asked.out)
    assert table.column_names == ["knee", "grade", "p0", "p1", "p2", "p3", "p4"]
    assert np.allclose(found.probabilities.sum(axis=1), 1)
    assert (found.synthetic, found.about["digest"]) == (True, Manifest.read(bundle).digest)
    with asked.failures.open(newline="") as file:
        (failed,) = csv.DictReader(file)
    assert (failed["knee"], failed["side"]) == (site.rows[2]["knee"], "L")
    assert failed["code"] and failed["reason"].endswith(".")

    del reads[:]
    before = asked.out.read_bytes()
    again = grade(asked)
    assert (again.graded, again.computed, again.cached, again.failed, reads) == (2, 0, 2, 1, [])
    assert asked.out.read_bytes() == before
    arguments = ["grade", "--cohort", site.cohort, "--export", site.export, "--out", asked.out, "--workers", 0]
    assert main([str(each) for each in [*arguments, "--bundle", bundle, "--device", "cpu"]]) == 0
    said = capsys.readouterr().out
    assert "0 knees went through the bundle, 2 had before" in said
    assert "2 of 3 knees have a grade (KL 0: " in said and f"), 1 are in {asked.failures}" in said
    assert "its weights are random, the grades mean nothing" in said


def test_another_bundle_grades_anew(site: Site, bundle: Path, tmp_path: Path) -> None:
    other = write_random_bundle(tmp_path / "other", seed=1)
    first = plan(site, tmp_path / "grades.parquet", bundle)
    grade(first)
    one = read_grades(first.out)
    report = grade(plan(site, first.out, other))
    assert (report.computed, report.cached) == (2, 0)
    assert not np.allclose(read_grades(first.out).probabilities, one.probabilities)
    assert grade(first).cached == 2


def test_a_knee_that_the_service_would_refuse_as_unlike_is_a_failure(
    site: Site, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Bundle.load

    def strict(folder: Path, device: str | None = None) -> Bundle:
        loaded = plain(folder, device)
        limited = replace(loaded, manifest=replace(loaded.manifest, unlike_limit=2.0))
        monkeypatch.setattr(
            Bundle, "answer", lambda _, crops: Answer(torch.full((2, 5), 0.2), torch.tensor([1.0, 3.0]))
        )
        return limited

    monkeypatch.setattr(Bundle, "load", strict)
    asked = plan(site, tmp_path / "grades.parquet", bundle)
    report = grade(asked)
    assert (report.graded, report.computed, report.failed) == (1, 2, 2)
    found = read_grades(asked.out)
    assert len(found.knees) == 1
    with asked.failures.open(newline="") as file:
        codes = [row["code"] for row in csv.DictReader(file)]
    assert RefusalCode.UNLIKE_TRAINING in codes


def test_crops_are_those_of_embed_and_are_read_from_disk(site: Site, tmp_path: Path, reads: list[str]) -> None:
    rows, spec = read_cohort(site.cohort), PreprocessSpec(crop_size=64, size=(64, 64))
    gather(site.export, rows, spec, tmp_path)
    assert len(reads) == 2
    crops = gather(site.export, rows, spec, tmp_path)
    assert len(reads) == 2  # only hashed
    (film, _) = films(site.export, rows, spec, {})
    expected = {knee.row.knee: knee.crop for knee in read_film(film)}
    right, left = site.rows[0]["knee"], site.rows[1]["knee"]
    for knee, image in zip((left, right, left), crops.take([left, right, left]), strict=True):
        wanted = expected[knee]
        assert wanted is not None and np.array_equal(image, wanted)
    lost = site.rows[2]["knee"]
    assert (left in crops, lost in crops, set(crops.failures)) == (True, False, {lost})
    with pytest.raises(DataError, match=f"{lost} has no crop: {crops.failures[lost][0]}"):
        crops.take([lost])
    assert crops.digest([left, right]) != crops.digest([right, left])


def test_what_makes_no_sense_says_so(site: Site, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "grades.parquet"
    with pytest.raises(UsageError, match="--batch 0"):
        grade(GradePlan(site.cohort, site.export, out, bundle, batch=0))
    with pytest.raises(DataError, match="is no folder"):
        grade(GradePlan(site.cohort, tmp_path / "nowhere", out, bundle, workers=0))
    with pytest.raises(BundleError, match="no bundle at"):
        grade(GradePlan(site.cohort, site.export, out, tmp_path / "nowhere"))
    with pytest.raises(DataError, match="holds no grades"):
        read_grades(site.cohort / "cohort.parquet")
    manifest = json.loads((bundle / "bundle.json").read_text())
    assert manifest["synthetic"] is True


@pytest.mark.parametrize(
    ("made", "out", "message"),
    [
        ("grades.parquet/", "grades.parquet", "grades.parquet is a folder; name a file"),
        ("grades.failures.csv/", "grades.parquet", "grades.failures.csv is a folder"),
        ("grades.kept", "grades.parquet", "grades.kept is a file where a folder is needed"),
        ("here", "here/grades.parquet", "here is a file where a folder is needed"),
    ],
)
def test_an_output_that_cannot_be_written_is_said_before_anything_is_graded(
    site: Site, bundle: Path, tmp_path: Path, reads: list[str], made: str, out: str, message: str
) -> None:
    if made.endswith("/"):
        (tmp_path / made).mkdir()
    else:
        (tmp_path / made).touch()
    with pytest.raises(UsageError, match=message):
        grade(plan(site, tmp_path / out, bundle))
    assert not reads


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--device cuda: torch sees no GPU here"):
        grade(GradePlan(tmp_path, tmp_path, tmp_path / "grades.parquet", device="cuda"))
