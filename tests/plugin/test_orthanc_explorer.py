"""Orthanc Explorer in a real Chromium: the state of a study, the button, reasons. Screenshots: out/orthanc-test."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from pydicom import Dataset

from tests import phantoms
from tests.browser import chromium
from tests.plugin.orthanc_genu import GenuOrthanc, genu_orthanc
from tests.plugin.orthanc_rig import PASSWORD, ROOT, USER

SCREENSHOTS = ROOT / "out" / "orthanc-test"
MILLISECONDS = 60_000.0
ONCE = pytest.mark.parametrize("site", ["installed"], indirect=True, scope="module")  # the kind makes no difference


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("--disable-gpu") as running:
        yield running


@pytest.fixture(scope="module", params=["installed", "trixie"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GenuOrthanc]:
    folder = tmp_path_factory.mktemp(f"explorer-{request.param}")
    with genu_orthanc(folder, {"StableAge": 2}, program=request.param) as server:
        server.status()
        yield server


@pytest.fixture
def page(site: GenuOrthanc, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A fresh page; afterwards a screenshot, and no error in any script."""
    context = browser.new_context(
        http_credentials={"username": USER, "password": PASSWORD}, viewport={"width": 1300, "height": 800}
    )
    context.set_default_timeout(MILLISECONDS)
    opened = context.new_page()
    troubles: list[str] = []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    try:
        yield opened
    finally:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_")).strip("-")
        opened.screenshot(path=SCREENSHOTS / f"{name}.png")
        context.close()
    assert not troubles


def put(site: GenuOrthanc, ds: Dataset) -> str:
    """Store it by REST; Orthanc's identifier of the study."""
    return str(site.put(phantoms.write(ds, Path(site.folder) / f"{ds.SOPInstanceUID}.dcm"))["ParentStudy"])


def show(page: Page, site: GenuOrthanc, study: str) -> None:
    page.goto(f"{site.url}/app/explorer.html#study?uuid={study}")


def test_a_study_is_followed_until_its_results_are_there_and_scored_again_by_the_button(
    page: Page, site: GenuOrthanc
) -> None:
    film = phantoms.dx_knee("L", identity="explorer-film")
    study = put(site, film)
    show(page, site, study)
    state = page.locator("#genu-state")
    expect(state).to_contain_text("Genu has not looked at this study")
    # Nobody touches the page, and it comes to tell the grade and to list the new series.
    expect(state).to_contain_text("Left knee: Kellgren-Lawrence grade", timeout=MILLISECONDS)
    expect(page.locator("#list-series li:not([data-role=list-divider])")).to_have_count(3, timeout=MILLISECONDS)
    expect(state).to_have_text(site.wait_for(film.StudyInstanceUID)["summary"])
    page.get_by_role("link", name="Score with Genu").click()
    expect(state).to_have_attribute("data-revision", "2", timeout=MILLISECONDS)
    expect(state).to_have_attribute("data-state", "done", timeout=MILLISECONDS)
    assert len(site.wait_for(film.StudyInstanceUID, 2)["revisions"]) == 2


@ONCE
def test_the_reason_of_a_refusal_is_shown(page: Page, site: GenuOrthanc) -> None:
    chest = phantoms.dx_chest(identity="explorer-chest")
    study = put(site, chest)
    show(page, site, study)
    page.get_by_role("link", name="Score with Genu").click()  # before it is stable
    (refusal,) = site.wait_for(chest.StudyInstanceUID)["revisions"][0]["result"]["refusals"]
    expect(page.locator("#genu-state")).to_contain_text(refusal["reason"], timeout=MILLISECONDS)


@ONCE
def test_what_comes_from_the_server_is_text(page: Page, site: GenuOrthanc) -> None:
    hostile = '<img src="x" onerror="window.broken = true">'
    study = put(site, phantoms.dx_knee("R", identity="explorer-hostile"))

    def answer(route: Route) -> None:
        body = {"state": "done", "summary": hostile, "revisions": []}
        route.fulfill(json=body if route.request.method == "GET" else {"error": hostile}, status=200)

    page.route("**/genu/studies/**", answer)
    show(page, site, study)
    expect(page.locator("#genu-state")).to_have_text(hostile)
    assert page.locator("#genu-state img").count() == 0
    assert not page.evaluate("window.broken")


@ONCE
def test_when_genu_does_not_answer_the_page_says_why(page: Page, site: GenuOrthanc) -> None:
    study = put(site, phantoms.dx_knee("R", identity="explorer-hostile"))
    page.route("**/genu/studies/**", lambda route: route.fulfill(status=503, json={"error": "Genu does not run: x"}))
    show(page, site, study)
    expect(page.locator("#genu-state")).to_have_text("Not available: Genu does not run: x")
