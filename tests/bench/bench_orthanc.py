"""What Genu costs an Orthanc: its start, and its C-STORE rate, with and without Genu in turn.

    python -m tests.bench --only orthanc

"Without" is an Orthanc with the DICOMweb plugin; "with" adds the Python plugin and Genu in it. Reception is measured
while nothing is scored, for scoring takes a CPU of its own: StableAge is long, and the worker has loaded before. What
it is while a worker scores is a row of its own, and depends on how many CPUs there are. Orthanc, too, has TCP_NODELAY=1
in its environment: without it DCMTK's waiting, 45 ms an image, would hide what Genu costs.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import psutil
import pytest

from tests.bench import bench_receive
from tests.bench.films import write_knees
from tests.plugin.orthanc_rig import ROOT, OrthancServer

STARTS, PAIRS = 15, 7
COUNT, MEGABYTES = 200, 2.1
KNEES = 150  # studies to score meanwhile: more than a worker does while the images come
NEVER, SOON = 3600, 1  # StableAge in seconds
LOADED_SECONDS, IDLE_SECONDS = 1.5, 2.0  # processor time that loading torch takes at least; how long all rest then
WITHOUT, WITH, SCORING = "Orthanc alone", "with Genu", "with Genu, which scores meanwhile"

Rows = list[tuple[str, str, str]]


@dataclass(frozen=True)
class Sent:
    """One sending: its rate, and the processor time of Orthanc and all that runs for Genu (seconds)."""

    rate: bench_receive.Rate
    cpu: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.rate.seconds

    def __str__(self) -> str:
        return f"{' '.join(str(self.rate).split())}, {1000 * self.cpu / self.rate.images:.1f} ms CPU each"


def measure(bundle: Path, scratch: Path) -> Rows:
    """Rows: what, median and range, difference to Orthanc alone."""
    try:
        return [*_starts(bundle, scratch), *_rates(bundle, scratch)]
    except pytest.skip.Exception as reason:
        return [(f"not measured: {reason}", "", "")]


class _Watched(OrthancServer):
    """Looks for its first answer all the time, not every 100 ms."""

    def _answers(self) -> bool:
        while not super()._answers():
            time.sleep(0.002)
        return True


@contextmanager
def _running(folder: Path, bundle: Path, kind: str) -> Iterator[tuple[_Watched, float]]:
    """A fresh Orthanc and how many seconds it took to answer; killed, with all that Genu runs, and removed."""
    config: dict[str, Any] = {"StableAge": SOON if kind == SCORING else NEVER}
    plugins = ["libOrthancDicomWeb.so"]
    if kind != WITHOUT:
        plugins.append("libOrthancPython.so")
        config["PythonScript"] = str(ROOT / "plugin" / "orthanc_plugin.py")
        config["Genu"] = {"data_dir": str(folder / "genu"), "bundles": [str(bundle)]}
    server = _Watched(folder, config, plugins=tuple(plugins))
    began = time.perf_counter()
    try:
        server.start({"TCP_NODELAY": "1"})
        yield server, time.perf_counter() - began
    finally:
        family = _family(server)
        server.kill()
        server.session.close()
        _gone, left = psutil.wait_procs(family, 10)  # they end with Orthanc, by themselves
        for process in left:
            process.kill()
        rmtree(folder)


def _process(server: OrthancServer) -> psutil.Process:
    assert server.process is not None
    return psutil.Process(server.process.pid)


def _family(server: OrthancServer) -> list[psutil.Process]:
    return _process(server).children(recursive=True)


def _cpu(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _starts(bundle: Path, scratch: Path) -> Rows:
    seconds: dict[str, list[float]] = {WITHOUT: [], WITH: []}
    for number in range(STARTS + 1):
        for kind in _in_turn(number):
            with _running(scratch / "start", bundle, kind) as (_server, took):
                if number:  # the first round fills the page cache
                    seconds[kind].append(took)
    later = [ours - alone for alone, ours in zip(seconds[WITHOUT], seconds[WITH], strict=True)]
    return [
        ("start to first answer, Orthanc alone", _milliseconds(seconds[WITHOUT]), ""),
        ("start to first answer, with Genu", _milliseconds(seconds[WITH]), f"{_milliseconds(later)} later"),
    ]


def _rates(bundle: Path, scratch: Path) -> Rows:
    files = bench_receive.make_images(scratch / "images", COUNT + 1, MEGABYTES)
    knees = write_knees(scratch / "knees", KNEES)
    rows: Rows = []
    for associations in (1, 4):
        found: dict[str, list[Sent]] = {WITHOUT: [], WITH: []}
        for number in range(PAIRS):
            for kind in _in_turn(number):
                found[kind].append(_sending(scratch / "rate", bundle, kind, files, associations))
        found[SCORING] = [_sending(scratch / "rate", bundle, SCORING, files, associations, knees)]
        rows += [_row(kind, associations, found) for kind in found]
    return rows


def _sending(
    folder: Path, bundle: Path, kind: str, files: Sequence[Path], associations: int, knees: Sequence[Path] = ()
) -> Sent:
    """All files but the first, which is the warm-up; while `knees` are scored, if there are any."""
    warm_up, *images = files
    with _running(folder, bundle, kind) as (server, _took):
        bench_receive.send(server.dicom_port, [warm_up], 1)
        _settle(server)
        if knees:
            bench_receive.send(server.dicom_port, knees, 1)
            server.until(lambda: server.get("/genu/status")["jobs"]["done"] > 0)
        processes = [_process(server), *_family(server)]
        before = _cpu(processes)
        seconds = bench_receive.send(server.dicom_port, images, associations)
        cpu = _cpu(processes) - before
        if knees:
            jobs = server.get("/genu/status")["jobs"]
            assert jobs["queued"] + jobs["running"] > 0, "all was scored before the images had come: more KNEES"
        assert server.get("/statistics")["CountInstances"] >= len(files)
    rate = bench_receive.Rate(len(images), sum(file.stat().st_size for file in images) / 1e6, seconds)
    return Sent(rate, cpu)


def _settle(server: OrthancServer) -> None:
    """Wait until Genu's processes have loaded and rest."""
    family: list[psutil.Process] = []
    if "Genu" in server.config:
        server.until(lambda: server.session.get(f"{server.url}/genu/status", timeout=30).ok)
        server.until(lambda: all(child["running"] for child in server.get("/genu/status")["children"]))
        family = _family(server)

    def is_idle() -> bool:
        before = _cpu(family)
        time.sleep(IDLE_SECONDS)
        return (not family or before > LOADED_SECONDS) and _cpu(family) - before < 0.05 * IDLE_SECONDS

    server.until(is_idle)


def _in_turn(number: int) -> tuple[str, str]:
    """Which one goes first changes, so that what came before falls on both."""
    return (WITHOUT, WITH) if number % 2 == 0 else (WITH, WITHOUT)


def _row(kind: str, associations: int, found: dict[str, list[Sent]]) -> tuple[str, str, str]:
    """The best of all sendings, which passing load disturbed least; and, of the pairs, the median and the range."""
    best = {kind: min(sent, key=lambda one: one.seconds) for kind, sent in found.items()}
    compared = f"{best[WITHOUT].seconds / best[kind].seconds:.2f}"
    if kind == WITH:
        pairs = [alone.seconds / ours.seconds for alone, ours in zip(found[WITHOUT], found[WITH], strict=True)]
        compared += f"; of pairs {statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"
    return f"C-STORE by {associations} association(s), {kind}", str(best[kind]), compared


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1000 * statistics.median(seconds):.0f} ms ({1000 * min(seconds):.0f} to {1000 * max(seconds):.0f})"
