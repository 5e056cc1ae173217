"""`genu explain`: the page in a real browser, the picture pixel by pixel, and no identity in either."""

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from dicom_templates import codes
from dicom_templates.film_drawing import KNEE, edges
from dicom_templates.identity import RESEARCH_MARK, SYNTHETIC_MARK
from inference.findings import (
    Box,
    Evidence,
    FilmLook,
    Refusal,
    RefusalCode,
    SeenKnee,
    SeenLetter,
    Side,
    Spacing,
    Step,
    StudyFindings,
)
from inference.studies import select
from plugin import cli, explain, explain_page, explain_picture
from plugin.explain import Page, pages_of
from tests import phantoms
from tests.browser import Browse, browsing
from tests.dicom_templates.factory import STAND_IN, header, image, knee, study, uid
from tests.dicom_templates.test_film_drawing import places
from tests.judging import judged

SIZE = (400, 600)
CANARY = "ZEBRACANARY"
HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"&"


def film(*, written_on: bool = False, refused: bool = True, synthetic: bool = False) -> Page:
    """The right knee of a film scored, the left one refused for metal, one more place, a letter."""
    crop = np.full((224, 224), 99, np.uint8)
    scored = knee(Side.RIGHT, 2, size=SIZE, box=Box(40, 60, 240, 260), conformal_set=(2, 3))
    scored = replace(scored, spacing=Spacing("detector", 0.2, 0.2, "ImagerPixelSpacing"))
    if synthetic:
        scored = replace(scored, model=STAND_IN)
    seen = (
        SeenKnee(scored.box, 0.97, 1.0, 0.02, 0.0, 0.0, Side.RIGHT, None, crop),
        SeenKnee(Box(360, 60, 560, 260), 0.91, 0.0, 0.98, 0.9, 0.0, Side.LEFT, RefusalCode.METAL),
        SeenKnee(Box(250, 300, 350, 390), 0.31, 0.0, 0.5, 0.0, 0.0),
    )
    look = FilmLook(
        image(size=SIZE),
        (Evidence("side", "ImageLaterality", "B", "B"), Evidence("view", "ViewPosition", "AP", "frontal")),
        (Step("Anatomy", "a knee, by BodyPartExamined."), Step("Left knee", "metal_or_implant: there.", passed=False)),
        seen,
        (SeenLetter(Side.LEFT, True, Box(560, 20, 580, 40)),),
        inverted=True,
    )
    refusals = [Refusal(RefusalCode.METAL, "there is metal over the joint.", uid(1), Side.LEFT)] if refused else []
    findings = replace(study([scored], refusals), looks=(look,))
    annotation = {"BurnedInAnnotation": "YES"} if written_on else {}
    (page,) = pages_of(findings, [header(size=SIZE, **annotation)], "0.1.0")
    return page


def page_of(dataset: Dataset) -> Page:
    """The page of an image that its header refuses."""
    found = judged(dataset)
    findings = StudyFindings("2.25.1", refusals=found.refusals, radiographs=found.radiographs, looks=found.looks)
    (page,) = pages_of(findings, [dataset], "0.1.0")
    return page


def words(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)))


@pytest.fixture(scope="module")
def browse() -> Iterator[Browse]:
    with browsing() as browse:
        yield browse


def test_a_browser_shows_the_page_and_asks_nobody_else(browse: Browse, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(explain_page.render(film()), encoding="utf-8")
    text, troubles, shot = browse(path, whole=True)
    assert troubles == []
    for told in (
        "RIGHT KNEE: KELLGREN-LAWRENCE GRADE 2",
        "LEFT KNEE NOT SCORED",
        RESEARCH_MARK,
        "Letter L at column 570, row 30, in mirror writing.",
        "Pixel spacing: detector",
        "Grey values were inverted",
        "RIGHT knee, KL 2 (2-3, 90 %)",
        "Conformal set: grades 2 to 3. For 90 % of knees the true grade is in theirs",
    ):
        assert told in text
    (tmp_path / "shot.png").write_bytes(shot)
    pixels = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"))
    assert pixels.shape[1] == 1180 and pixels.shape[0] > 1500
    assert places(pixels, KNEE).sum() > 500  # the policy lets pictures and style through


def test_a_hostile_value_stays_text(browse: Browse, tmp_path: Path) -> None:
    page = film()
    look = replace(
        page.look,
        evidence=(Evidence("side", HOSTILE, HOSTILE, HOSTILE),),
        steps=(Step(HOSTILE, HOSTILE), Step(HOSTILE, HOSTILE, passed=False)),
    )
    model = replace(page.models[0], name=HOSTILE, version=HOSTILE)
    refusal = Refusal(RefusalCode.METAL, HOSTILE, uid(1), Side.LEFT)
    path = tmp_path / "page.html"
    hostile = replace(page, look=look, refusals=(refusal,), models=(model,), software=HOSTILE, name=HOSTILE)
    path.write_text(explain_page.render(hostile), encoding="utf-8")
    text, troubles, _ = browse(path)
    assert troubles == []
    assert text.count("<script>alert('x')</script>") >= 6
    assert "<script" not in path.read_text() and "onerror=alert(1)>" not in path.read_text()
    assert explain_picture.draw(hostile).pixels.shape[1] == explain_picture.WIDTH


def test_the_page_forbids_all_that_it_does_not_need() -> None:
    html = explain_page.render(film())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    assert not re.search(r"<(script|link|iframe|object|form)|\bon[a-z]+=| style=|javascript:|@import|url\(", html)
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,)', html)
    assert html.isascii()


def test_page_and_picture_tell_codes_steps_and_evidence() -> None:
    text = words(explain_page.render(film()))
    for told in ("metal_or_implant", codes.REMEDIES[RefusalCode.METAL], "There is metal over the joint."):
        assert told in text
    for told in (
        "a knee, by BodyPartExamined.",
        "It ended here.",
        "ImageLaterality",
        "frontal",
        "0.97",
        "40, 60, 240, 260",
    ):
        assert told in text
    assert text.count(RESEARCH_MARK) == 2
    assert SYNTHETIC_MARK not in text
    assert SYNTHETIC_MARK in words(explain_page.render(film(synthetic=True)))
    plain, marked = (explain_picture.draw(film(synthetic=synthetic)).pixels for synthetic in (False, True))
    assert marked.shape[0] > plain.shape[0]


def test_the_picture_has_its_boxes_where_the_knees_are() -> None:
    picture = explain_picture.draw(film())
    assert picture.pixels.shape[1] == explain_picture.WIDTH and picture.pixels.dtype == np.uint8
    assert picture.film is not None and picture.scale == pytest.approx(explain_picture.FILM[0] / 600)
    column, row = picture.film
    size = (round(600 * picture.scale), round(400 * picture.scale))
    there = places(picture.pixels, KNEE)
    for box in (Box(40, 60, 240, 260), Box(360, 60, 560, 260)):
        left, top, right, bottom = edges(box, size, picture.scale)
        sides = (
            there[row + top, column + left : column + right],
            there[row + bottom, column + left : column + right],
            there[row + top : row + bottom, column + left],
            there[row + top : row + bottom, column + right],
        )
        assert all(side.mean() > 0.5 for side in sides)
    assert len(np.unique(picture.pixels[row : row + size[1], column : column + size[0]])) > 100


def test_a_film_that_is_written_on_is_not_drawn() -> None:
    shown, withheld = film(), film(written_on=True)
    assert withheld.film is None
    html = explain_page.render(withheld)
    assert explain.WITHHELD in words(html)
    assert explain_page.render(shown).count("<img") == 4 and html.count("<img") == 1  # the attention alone
    assert explain_picture.draw(withheld).film is None


def test_a_film_refused_by_its_header_says_so() -> None:
    page = page_of(phantoms.dx_lateral("L"))
    text = words(explain_page.render(page))
    assert explain.NOT_LOOKED_AT in text and "no_frontal_view" in text and "ViewPosition" in text
    assert "The knees that were scored" not in text and "NOT SCORED" in text
    assert explain_picture.draw(page).pixels.std() > 10


def test_the_questions_of_the_header_are_known() -> None:
    (candidate,) = judged(phantoms.dx_knee("L")).candidates
    assert {step.question for step in candidate.steps} <= explain.HEADER_QUESTIONS


def test_no_identity_from_a_header_reaches_the_page() -> None:
    for dataset in (
        phantoms.dx_lateral("L"),
        phantoms.dx_chest(),
        phantoms.dx_knee("L", attributes={"ImageType": "X"}),
    ):
        planted = phantoms.plant_canaries(dataset, CANARY)
        assert CANARY in str(planted.PatientName)
        found = judged(planted)
        looks = found.looks or tuple(FilmLook(image(), c.evidence, c.steps) for c in found.candidates)
        for page in pages_of(
            StudyFindings("2.25.1", refusals=found.refusals, radiographs=1, looks=looks), [planted], "0.1.0"
        ):
            assert CANARY[:8].casefold() not in explain_page.render(page).casefold()
            assert CANARY[:8].casefold() not in page.name.casefold()


def test_what_has_no_uid_is_numbered(tmp_path: Path) -> None:
    from inference.reading import read_study

    (tmp_path / "a.dcm").write_bytes(b"nothing")
    selection = select(read_study([tmp_path / "a.dcm"]))
    findings = StudyFindings("", refusals=selection.refusals, looks=selection.looks)
    (page,) = pages_of(findings, [], "0.1.0", start=3)
    assert page.name == "image-3" and [refusal.code for refusal in page.refusals] == [RefusalCode.UNREADABLE]
    hostile = replace(selection.looks[0], source=replace(image(), sop_instance_uid="../../x"))
    (page,) = pages_of(replace(findings, looks=(hostile,)), [], "0.1.0")
    assert page.name == "image-1"


def run(*arguments: object) -> int:
    return cli.main(["explain", *map(str, arguments)])


def test_several_images_become_as_many_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "Zebracanary^Anna", tmp_path / "pages"
    datasets = [
        phantoms.dx_bilateral(identity="explain-both"),
        phantoms.dx_lateral("R", identity="explain-lateral"),
        phantoms.dx_knee("L", identity="explain-one", attributes={"BurnedInAnnotation": "YES"}),
    ]
    for number, dataset in enumerate(datasets):
        phantoms.write(phantoms.plant_canaries(dataset, CANARY), folder / f"ZEBRACANARY-{number}.dcm")
    assert run(folder, "--out", out) == 0
    names = {f"{dataset.SOPInstanceUID}.{kind}" for dataset in datasets for kind in ("html", "png")}
    assert {path.name for path in out.iterdir()} == names
    said = capsys.readouterr()
    for text in (said.out, *(path.read_text() for path in out.glob("*.html"))):
        assert "zebracan" not in text.casefold()
    both = words((out / f"{datasets[0].SOPInstanceUID}.html").read_text())
    for question in ("Anatomy", "View", "Side by header", "Frontal knees on the film", "Side:"):
        assert question in both
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            pixels = np.asarray(picture)
            assert picture.info == {}
        assert pixels.shape[1] == explain_picture.WIDTH and pixels.std() > 10


def test_what_cannot_be_read_has_a_page_and_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"not DICOM")
    assert run(broken, "--out", tmp_path / "out", "--html") == 1
    assert "unreadable: The file is not a DICOM file" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["image-1.html"]
    assert "Can it be read" in (tmp_path / "out" / "image-1.html").read_text()
    assert run(tmp_path / "nowhere") == 2
    assert "there is no" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty") == 2
    assert run(broken, "--out", broken / "below") == 2
    assert "name a folder" in capsys.readouterr().err


def test_a_kind_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"nothing")
    for option, kinds in (("--png", {".png"}), ("--html", {".html"})):
        assert run(tmp_path / "a.dcm", "--out", tmp_path / option, option) == 1
        assert {path.suffix for path in (tmp_path / option).iterdir()} == kinds
