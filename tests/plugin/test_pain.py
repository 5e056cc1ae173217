"""A bundle for pain beside the grader: `genu score`, the service, status and pages; and what its terms keep out."""

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pydicom
import pytest
from pydicom import Dataset

from dicom_templates import codes
from dicom_templates.check_images import burned_pain
from dicom_templates.check_report import children, pain_of
from dicom_templates.checker import check_study
from dicom_templates.pain import ORIGIN
from inference.errors import BundleError
from plugin import doctor, explain, explain_page, summaries
from plugin.doctor import Check, Verdict
from plugin.explain import Page
from plugin.results import schema
from plugin.routes import _bundles
from plugin.settings import Settings, load
from plugin.worker import load_predictor
from tests import phantoms
from tests.dicom_templates.factory import PAIN, knee
from tests.pain_runs import Made, pain_bundle
from tests.plugin.receiving import dcmtk, wait_until
from tests.plugin.standin import genu, service, standin_bundle

REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
EXCLUDED = Made("biomedclip", features="fused")


def settings(**values: Any) -> Settings:
    return load(None, {"bundles": [standin_bundle(), pain_bundle()]} | values)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Dataset]]:
    """A film of both knees through `genu score`: the film, its line and its objects."""
    folder = tmp_path_factory.mktemp("pain")
    film = phantoms.write(phantoms.dx_bilateral(), folder / "film.dcm")
    done = genu("score", film, "--out", folder / "out", "--bundle", standin_bundle(), "--bundle", pain_bundle())
    assert done.returncode == 0, done.stderr
    line = json.loads((folder / "out" / "results.jsonl").read_text())
    return film, line, [pydicom.dcmread(folder / "out" / name) for name in line["files"]]


def test_line_report_and_heatmap_tell_the_same(scored: tuple[Path, dict[str, Any], list[Dataset]]) -> None:
    _, line, objects = scored
    jsonschema.validate(line, schema())
    assert check_study(objects) == []
    *heatmaps, report = objects
    (measurements,) = children(report, codes.IMAGING_MEASUREMENTS.value)
    groups = children(measurements, codes.MEASUREMENT_GROUP.value)
    assert [one["side"] for one in line["knees"]] == ["R", "L"]
    for told, group, heatmap in zip(line["knees"], groups, heatmaps, strict=True):
        pain = told["pain"]
        numbers = (pain["score"], pain["low"], pain["high"])
        assert numbers == pain_of(group)
        assert tuple(f"{number:.1f}" for number in numbers) == burned_pain(heatmap)
        assert 0 <= pain["low"] <= pain["score"] <= pain["high"] <= 10
        assert (pain["coverage"], pain["origin"], pain["model"]["synthetic"]) == (0.9, ORIGIN, True)
        assert pain["model"]["name"] == "genu-pain-system" != told["model"]["name"]


def test_the_summary_tells_it(scored: tuple[Path, dict[str, Any], list[Dataset]]) -> None:
    pain = scored[1]["knees"][0]["pain"]
    interval = f"90 % interval {pain['low']:.1f} to {pain['high']:.1f}"
    assert f", predicted pain {pain['score']:.1f} of 10 ({interval}; {ORIGIN})" in summaries.of_result(scored[1])


@pytest.mark.skipif(shutil.which("storescu") is None, reason="needs storescu of DCMTK: apt-get install dcmtk")
def test_the_service_makes_the_same_heatmaps(
    scored: tuple[Path, dict[str, Any], list[Dataset]], tmp_path: Path
) -> None:
    film, line, _ = scored
    out = tmp_path / "out"
    options = ["--bundle", standin_bundle(), "--bundle", pain_bundle(), "--to-folder", out, "--quiet", "0.3"]
    with service(tmp_path / "data", *options, log=tmp_path / "log") as port:
        dcmtk("storescu", "-aec", "GENU", "-aet", "MODALITY", "127.0.0.1", port, film)
        wait_until(lambda: len(list(out.rglob("*.dcm"))) == 3, 180)
    there = {path.stem: path for path in out.rglob("*.dcm")}
    before = {Path(name).stem: scored[2][number] for number, name in enumerate(line["files"])}
    heatmaps = [uid for uid, dataset in before.items() if dataset.SOPClassUID != REPORT]
    assert len(heatmaps) == 2
    for uid in heatmaps:
        assert pydicom.dcmread(there[uid]) == before[uid]
    done = genu("status", "--data-dir", tmp_path / "data", "--json")
    assert done.returncode == 0, done.stderr
    assert ORIGIN in done.stdout


def test_what_the_terms_exclude_is_not_loaded(scored: tuple[Path, dict[str, Any], list[Dataset]]) -> None:
    folder = pain_bundle(EXCLUDED)
    done = genu("score", scored[0], "--out", scored[0].parent / "no", "--bundle", folder)
    assert done.returncode == 1
    assert "allow_undeployed_bundles = true" in done.stderr
    assert not list((scored[0].parent / "no").glob("*.dcm"))
    with pytest.raises(BundleError, match="exclude use in a running service"):
        load_predictor(settings(bundles=[folder, standin_bundle()]))
    allowed = settings(bundles=[folder, standin_bundle()], allow_undeployed_bundles=True)
    predictor: Any = load_predictor(allowed)
    assert [identity.task for identity in predictor.identities] == ["kl", "pain"]


def test_the_doctor_and_the_status_name_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_replay", lambda _settings: Check("probe", Verdict.FINE, "replayed"))
    first, second, _ = doctor.check_bundles(settings())
    assert "(kl)" in first.seen
    assert "(pain)" in second.seen
    assert second.verdict is Verdict.WARNING, "a stand-in"
    (refused,) = doctor.check_bundles(settings(bundles=[pain_bundle(EXCLUDED)]))
    assert refused.verdict is Verdict.FAILED
    assert [bundle["task"] for bundle in _bundles(settings())] == ["kl", "pain"]
    assert "exclude use" in str(_bundles(settings(bundles=[pain_bundle(EXCLUDED)]))[0]["error"])


def test_the_page_of_an_image_tells_it() -> None:
    from dataclasses import replace

    from inference.findings import FilmLook

    one = replace(knee(), pain=PAIN)
    sentence = f"Predicted pain 4.3 of 10 (90 % interval 0.0 to 8.8), {ORIGIN} (genu-pain 0.2.0)."
    assert sentence in explain.knee_lines(one)
    assert not [line for line in explain.knee_lines(knee()) if "pain" in line]
    page = Page("1.2.3", FilmLook(one.source), knees=(one,), models=one.models, software="0.1.0")
    text = explain_page.render(page)
    assert sentence in text
    assert f"Model genu-pain 0.2.0, bundle {PAIN.model.digest[:12]}" in text
