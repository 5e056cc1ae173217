"""`genu explain` on MR series: each has its page: what was chosen, what not and why, and where the model looked."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from dicom_templates.identity import RESEARCH_MARK, SYNTHETIC_MARK
from inference.findings import FilmLook, Refusal, RefusalCode, Side, SourceImage, Step, StudyFindings
from inference.mr_scoring import score_mr
from inference.reading import read_study
from plugin import explain, explain_mr, explain_page, explain_picture
from plugin.explain import Page, pages_of
from tests import phantoms
from tests.browser import Browse
from tests.dicom_templates import mr_findings
from tests.dicom_templates.mr_findings import pain_classes, progression, series, volume
from tests.inference.test_mr_scoring import COR, DESS, one_study, random
from tests.mr_phantoms import Grid, mr_series, write
from tests.plugin.test_explain import browse, words

__all__ = ["browse"]
CANARY = "ZEBRACANARY"


def look(headers: Sequence[Dataset], *steps: Step) -> FilmLook:
    first = min(headers, key=lambda header: str(header.SOPInstanceUID))
    source = SourceImage(first.SOPClassUID, first.SOPInstanceUID, first.SeriesInstanceUID, first.Rows, first.Columns)
    return FilmLook(source, (), (Step("Can it be read", "yes, as a DICOM object."), *steps))


def two_knees(**attributes: str) -> tuple[Page, Page]:
    """The left knee scored for two outcomes, the right one refused."""
    left, right = series(), series(Side.RIGHT)
    for header in left:
        for keyword, value in attributes.items():
            setattr(header, keyword, value)
    gap = "inconsistent_geometry: a slice is missing."
    looks = (
        look(left, Step("Coronal IW TSE", "13 slices, left knee, by description.")),
        look(right, Step("Coronal IW TSE", gap, passed=False)),
    )
    refusal = Refusal(RefusalCode.INCONSISTENT_GEOMETRY, "a slice is missing.", right[3].SOPInstanceUID, Side.RIGHT)
    volumes = [volume(left, outcome=progression()), volume(left, outcome=pain_classes())]
    findings = replace(mr_findings.study(volumes, [refusal], [*left, *right]), looks=looks)
    one, other = pages_of(findings, [*left, *right], "0.1.0")
    return one, other


def test_a_scored_series_tells_what_was_predicted_and_where_the_model_looked() -> None:
    page, _ = two_knees()
    assert explain.verdict(page) == (
        "LEFT KNEE: probability 0.62 (0.41 to 0.80) of joint space narrowing of 0.5 mm or more within 12 months",
        "LEFT KNEE: probability 0.50 (0.35 to 0.65) of WOMAC pain, class 'much pain'",
    )
    html = explain_page.render(page)
    text = re.sub(r"\s+", " ", words(html))
    for told in (
        "It is predicted from image, not measured.",
        "It is predicted from image, not patient-reported.",
        "at or above the threshold of 0.40",
        "no pain 0.20, some pain 0.30, much pain 0.50",
        "8 of its 13 slices were read.",
        "Highest saliency: slice 4 of 13, columns 10 to 24, rows 12 to 24.",
        "Clinical variables read from the header: age, sex.",
        "the median of the training patients stands in: mjsw.",
        "13 slices, left knee, by description.",
        "inconsistent_geometry: a slice is missing.",
        RESEARCH_MARK,
    ):
        assert told in text, told
    assert "63" not in text.replace("0.63", ""), "values of clinical variables are the patient's"
    assert html.count("<img ") == 6
    assert SYNTHETIC_MARK not in text
    assert "It ended here" not in text


def test_a_refused_series_says_why_and_what_to_do() -> None:
    _, page = two_knees()
    assert explain.verdict(page) == ("RIGHT KNEE NOT SCORED",)
    text = words(explain_page.render(page))
    assert "What to do:" in text
    assert "Right knee: inconsistent_geometry" in text
    assert "<img " not in explain_page.render(page)
    assert page.models == ()


def test_slices_with_something_written_on_them_are_not_shown() -> None:
    page, _ = two_knees(BurnedInAnnotation="YES")
    html = explain_page.render(page)
    assert explain_mr.WITHHELD in words(html)
    assert "<img " not in html
    assert explain_picture.draw(page).pixels.shape[1] == explain_picture.WIDTH


def test_the_sheet_has_every_slice_with_its_attention() -> None:
    found = volume(series(), outcome=progression())
    sheet = explain_mr.sheet(found, 800)
    assert sheet.shape[1] == 800
    marked = (sheet == np.array(explain_mr.BOX)).all(axis=2)
    assert marked.any()
    rows, columns = np.nonzero(marked)
    assert 200 <= columns.mean() <= 400, "the second of four in a row is the one of the highest saliency"
    assert rows.max() < sheet.shape[0] / 2
    full = int((sheet == np.array(explain_mr.AMBER)).all(axis=2).any(axis=0).sum())
    lowered = replace(found, slices=tuple(replace(one, attention=0.0) for one in found.slices[1:]), peak=0)
    assert int((explain_mr.sheet(lowered, 800) == np.array(explain_mr.AMBER)).all(axis=2).any(axis=0).sum()) < full / 4
    plain, heat = explain_mr.peak_pictures(found, 300)
    assert plain.shape == heat.shape
    assert max(plain.shape[:2]) == 300
    assert not np.array_equal(plain, heat)
    many = replace(found, slices=found.slices * 8)
    assert explain_mr.sheet(many, 800).shape[1] == 800


def test_a_browser_shows_the_page_and_asks_nobody_else(browse: Browse, tmp_path: Path) -> None:
    page, _ = two_knees()
    path = tmp_path / "page.html"
    path.write_text(explain_page.render(page), encoding="utf-8")
    text, troubles, shot = browse(path, whole=True)
    assert troubles == []
    assert "The MR series of this study" in text
    assert len(shot) > 50_000


def test_series_of_a_study_as_the_predictor_leaves_them(tmp_path: Path) -> None:
    """Chosen, passed over and refused series each have one page; nothing of the person stands on any."""
    made = one_study(
        mr_series("R", identity="a"),
        mr_series("R", identity="b", attributes={"SeriesTime": "111500"}),
        mr_series("L", Grid(slices=6), identity="c"),
        mr_series("L", Grid(plane="axial"), identity="d", description="AX PD"),
    )
    planted = [phantoms.plant_canaries(ds, CANARY) for one in made for ds in one]
    for ds in planted:
        ds.PatientID, ds.BodyPartExamined, ds.PatientBirthDate = CANARY, "KNEE", ""
        ds.Laterality = (
            "R" if ds.SeriesInstanceUID in (made[0][0].SeriesInstanceUID, made[1][0].SeriesInstanceUID) else "L"
        )
    study = read_study(write(planted, tmp_path))
    found = score_mr(study, [random(COR), random(DESS, slices=16)])
    findings = StudyFindings(
        study.study_instance_uid, volumes=found.volumes, refusals=found.refusals, mr_images=found.images,
        looks=found.looks,
    )  # fmt: skip
    pages = list(pages_of(findings, [instance.header for instance in study.instances], "0.1.0"))
    assert len(pages) == 4
    for page in pages:
        html = explain_page.render(page)
        assert CANARY[:8].casefold() not in html.casefold()
        explain_picture.draw(page)
    said = {page.name: explain.verdict(page)[0] for page in pages}
    later = made[1][0].SeriesInstanceUID
    assert said[later].startswith("RIGHT KNEE: probability ")
    assert said[made[0][0].SeriesInstanceUID] == "NOT SCORED"
    assert "Another series of this knee and sequence is the later one." in words(explain_page.render(pages[0]))
    assert said[made[2][0].SeriesInstanceUID] == "LEFT KNEE NOT SCORED"


def test_mr_without_a_bundle_is_told_as_before() -> None:
    source = SourceImage("1.2.840.10008.5.1.4.1.1.4", "", "", 0, 0)
    told = Step("SOP class", "unsupported_sop_class: no radiograph.", passed=False)
    (page,) = pages_of(StudyFindings("2.25.1", looks=(FilmLook(source, (), (told,)),)), [], "0.1.0")
    assert not page.is_series
    assert page.name == "image-1"
