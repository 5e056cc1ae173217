"""The machine's Chromium for tests: headless, and without a way off the machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

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
