"""From the last C-STORE of a study to its report in the PACS, the quiet period taken off; a service that is warm."""

import statistics
import time
from pathlib import Path

from tests.bench.films import kind, write_film, write_knees
from tests.plugin.peers import storescp
from tests.plugin.receiving import dcmtk, wait_until
from tests.plugin.standin import service

QUIET = 0.5
ROUNDS = 10


def measure(bundle: Path, scratch: Path) -> list[tuple[str, str, str]]:
    """Rows: what, median seconds, range."""
    knees = write_knees(scratch / "knees", ROUNDS + 2)
    pacs = scratch / "pacs"
    with storescp(pacs) as port:
        options = ["--quiet", QUIET, "--bundle", bundle, "--to-ae", f"PACS@127.0.0.1:{port}"]
        with service(scratch / "data", *options, log=scratch / "genu.log") as ours:
            _round(ours, pacs, knees[0])  # the worker loads torch meanwhile
            small = [_round(ours, pacs, path) for path in knees[1 : ROUNDS + 1]]
            large = [_round(ours, pacs, write_film(scratch))]
    rows = []
    for title, seconds in ((kind(), small), ("film 2500 x 2000, first of its kind", large)):
        beyond = [one - QUIET for one in seconds]
        rows.append((title, f"{statistics.median(beyond):.2f} s", f"{min(beyond):.2f} to {max(beyond):.2f} s"))
    return rows


def _round(port: int, pacs: Path, path: Path) -> float:
    """Seconds from the end of the C-STORE to the report's arrival."""
    before = _reports(pacs)
    dcmtk("storescu", "-aec", "GENU", "127.0.0.1", port, path)
    sent = time.time()
    wait_until(lambda: len(_reports(pacs)) > len(before), 120)
    (new,) = _reports(pacs) - before
    return new.stat().st_mtime - sent


def _reports(folder: Path) -> set[Path]:
    # storescp begins the file's name with the modality.
    return {path for path in folder.iterdir() if path.name.startswith("SR")}
