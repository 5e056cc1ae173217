"""The machine's Chromium for tests: headless, and without a way off the machine."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

Browse = Callable[..., tuple[str, list[str], bytes]]
# Its own calls home, which are not the page's, do not leave the machine either.
ALONE = ("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-component-update")


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """A running Chromium with these command-line options besides; skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own refuses root
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=[*options, *ALONE, *sandbox])
        yield running
        running.close()


@contextmanager
def browsing() -> Iterator[Browse]:
    """Opens files: (path, width, media, whole picture) to text, what went wrong or was asked for, a screenshot."""
    with chromium() as running:

        def browse(
            path: Path, width: int = 1180, media: str = "screen", whole: bool = False
        ) -> tuple[str, list[str], bytes]:
            shown = running.new_page(viewport={"width": width, "height": 900})
            shown.set_default_timeout(180_000)  # a page of 16,000 pixels on a busy machine
            shown.emulate_media(media=media)  # type: ignore[arg-type]
            troubles: list[str] = []
            shown.on("console", lambda said: troubles.append(said.text))
            shown.on("pageerror", lambda error: troubles.append(str(error)))
            shown.on("dialog", lambda dialog: troubles.append(dialog.message))
            shown.on(
                "request", lambda made: troubles.append(made.url) if made.url[:5] not in ("file:", "data:") else None
            )
            shown.goto(path.as_uri())
            broken = shown.evaluate("[...document.images].filter(i => !i.naturalWidth || !i.alt).length")
            troubles += [f"{broken} pictures are not shown or say nothing"] if broken else []
            wide = shown.evaluate("document.documentElement.scrollWidth - innerWidth")
            troubles += [f"{wide} pixels too wide"] if wide > 0 else []
            text, shot = shown.inner_text("body"), shown.screenshot(full_page=whole)
            shown.close()
            return text, troubles, shot

        yield browse
