"""OHIF as a person uses it: open a study, open a series, read, look."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Page

from inference.pixels import load_display
from inference.reading import read_instance

SECONDS = 60.0
CANVAS = ".cornerstone-viewport-element canvas"


class Ohif:
    """One page."""

    def __init__(self, page: Page, url: str, screenshots: Path) -> None:
        self.page, self.url, self.screenshots = page, url, screenshots
        page.set_default_timeout(SECONDS * 1000)

    def list_studies(self) -> list[str]:
        """The study list, a text for each row."""
        self.page.goto(self.url)
        rows = self.page.locator("table tbody tr", has_text="2026")
        rows.first.wait_for()
        return [" ".join(text.split()) for text in rows.all_inner_texts()]

    def open_study(self, study_uid: str) -> None:
        self.page.goto(f"{self.url}/viewer?StudyInstanceUIDs={study_uid}")
        self.page.get_by_text("Confirm and hide").click()
        self.page.locator(CANVAS).first.wait_for()

    def thumbnails(self) -> list[str]:
        """The series that the page offers."""
        found = self.page.locator("[data-cy^=study-browser-thumbnail]")
        return [" ".join(text.split()) for text in found.all_inner_texts()]

    def open_series(self, description: str) -> None:
        self.page.locator("[data-cy^=study-browser-thumbnail]", has_text=description).dblclick()

    def overlay(self, word: str) -> str:
        """The text drawn over the image, once `word` is in it; a line for each of its lines."""
        self.page.locator("svg.svg-layer text", has_text=word).first.wait_for()
        return "\n".join(self.page.locator("svg.svg-layer text tspan").all_text_contents())

    def boxes(self) -> dict[str, tuple[float, float, float, float]]:
        """For each text over the image its first line, and (left, top, right, bottom) in CSS pixels of the page."""
        found = {}
        for text in self.page.locator("svg.svg-layer text").all():
            box = text.bounding_box()
            assert box is not None
            first = text.locator("tspan").first.text_content() or ""
            found[first] = (box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])
        return found

    def canvas(self) -> tuple[float, float, float, float]:
        box = self.page.locator(CANVAS).first.bounding_box()
        assert box is not None
        return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]

    def shown(self) -> npt.NDArray[np.uint8]:
        """What a person sees of the viewport, as RGB."""
        picture = self.page.locator(CANVAS).first.screenshot()
        return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))

    def wait_for(self, picture: npt.NDArray[np.uint8], likeness: float = 0.9) -> npt.NDArray[np.uint8]:
        """Wait until the viewport shows the picture; what it shows."""
        return until(lambda: (seen := self.shown()), lambda seen: alike(seen, picture) > likeness)

    def keep(self, name: str) -> None:
        self.page.screenshot(path=f"{self.screenshots}-{name}.png")


def until(look: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + SECONDS
    while not good(found := look()):
        assert time.monotonic() < end, "the viewport does not show the picture"
        time.sleep(0.25)
    return found


def fitted(picture: npt.NDArray[np.uint8], rows: int, columns: int) -> npt.NDArray[np.float64]:
    """The picture as a viewport of this size shows it: whole, in the middle, on black."""
    scale = min(rows / picture.shape[0], columns / picture.shape[1])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    canvas = Image.new("RGB", (columns, rows))
    canvas.paste(
        Image.fromarray(picture).convert("RGB").resize(size), ((columns - size[0]) // 2, (rows - size[1]) // 2)
    )
    return small(np.asarray(canvas))


def small(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    columns = 200
    rows = round(columns * picture.shape[0] / picture.shape[1])
    return np.asarray(Image.fromarray(picture).resize((columns, rows), Image.Resampling.BOX), dtype=np.float64)


def alike(seen: npt.NDArray[np.uint8], picture: npt.NDArray[np.uint8]) -> float:
    """The least correlation of red, green and blue between the viewport and what it should show."""
    wanted, found = fitted(picture, *seen.shape[:2]), small(seen)
    return min(correlation(wanted[..., channel], found[..., channel]) for channel in range(3))


def correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def film(path: Path) -> npt.NDArray[np.uint8]:
    """A source image as a reader sees it."""
    values = load_display(read_instance(path)).values
    return np.rint(values * 255).astype(np.uint8)
