"""`make viewer` as a process, and a Chromium that may speak to nobody else."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from pydicom import Dataset

from plugin.viewer_servers import ohif_folder
from tests.browser import chromium
from tests.phantoms import dx_knee, write
from tests.plugin.orthanc_rig import require_orthanc
from tests.plugin.standin import standin_bundle
from tests.viewer.mr_results import write_mr
from tests.viewer.ohif import Ohif
from tests.viewer.samples import has_crops, write_samples

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "out" / "viewer-test"
SECONDS = 240.0


@dataclass
class Viewer:
    """A running `make viewer`: where it is, and what it said."""

    process: subprocess.Popen[str]
    folder: Path
    said: str

    @property
    def url(self) -> str:
        return re.findall(r"http://127\.0\.0\.1:\d+", self.said)[0]

    @property
    def studies(self) -> dict[str, str]:
        """Study Instance UID -> what it says of the study."""
        pairs = re.findall(r"^ {2}(.+)\n {2}http\S+StudyInstanceUIDs=([0-9.]+)$", self.said, re.MULTILINE)
        return {uid: summary for summary, uid in pairs}


@contextmanager
def started(folder: Path, *options: str, until: str) -> Iterator[Viewer]:
    """`make viewer`'s program; yields once it says `until`, or has ended."""
    command = [sys.executable, "-u", "-m", "plugin.viewer", "--out", str(folder), "--port", "0", *options]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    said, end = "", time.monotonic() + SECONDS
    try:
        for line in process.stdout:
            said += line
            if until in line or time.monotonic() > end:
                break
        yield Viewer(process, folder, said)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=60)
        finally:
            process.kill()


def require_servers() -> None:
    require_orthanc()
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    if shutil.which("nginx", path=places) is None:
        pytest.skip("needs nginx: apt-get install nginx-light")
    if not (ohif_folder() / "index.html").exists():
        pytest.skip(f"needs the OHIF viewer in {ohif_folder()}: .ci/setup tools viewer")


def without_pixels() -> Dataset:
    """A refusal that has no image to be drawn on."""
    found = dx_knee("L", identity="viewer-without-pixels")
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(found, keyword)
    return found


@pytest.fixture(scope="package")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    require_servers()
    folder = tmp_path_factory.mktemp("viewer")
    write_samples(folder / "samples")
    write(without_pixels(), folder / "more" / "without_pixels.dcm")
    write_mr(folder / "more" / "mr")
    options = ["--samples", str(folder / "samples"), "--add", str(folder / "more")]
    if not has_crops():  # as `make viewer` does: the shipped grader refuses drawn knees
        options += ["--bundle", str(standin_bundle())]
    with started(folder / "out", *options, until="Ctrl-C") as running:
        assert running.process.poll() is None and "Ctrl-C" in running.said, running.said
        yield running


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist") as running:
        yield running


@pytest.fixture
def ohif(viewer: Viewer, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Ohif]:
    """A fresh page. Afterwards: a screenshot, no request to elsewhere, nothing blocked, no error in a script."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    page: Page = context.new_page()
    asked, troubles = [], []
    context.on("request", lambda made: asked.append(made.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda said: troubles.append(said.text) if "Content Security Policy" in said.text else None)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_")).strip("-")
    try:
        yield Ohif(page, viewer.url, SCREENSHOTS / name)
    finally:
        page.screenshot(path=SCREENSHOTS / f"{name}.png")
        context.close()
    elsewhere = [url for url in asked if not url.startswith((viewer.url, "blob:", "data:"))]
    assert asked and not elsewhere
    assert not troubles
