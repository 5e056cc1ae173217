"""What Genu costs an Orthanc: its start, and its C-STORE rate, with and without Genu in turn.

    python -m tests.bench --only orthanc

"Without" is an Orthanc with the DICOMweb plugin; "with" adds the Python plugin and Genu in it. Reception is measured
while nothing is scored, for scoring takes a CPU of its own: StableAge is long, and the worker has loaded before. What
it is while a worker scores is a row of its own, and depends on how many CPUs there are. Orthanc, too, has TCP_NODELAY=1
in its environment: without it DCMTK's waiting, 45 ms an image, would hide what Genu costs.
"""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import psutil
import pytest

from tests.bench import bench_receive
from tests.bench.films import write_knees
from tests.plugin.orthanc_rig import ROOT, OrthancServer

STARTS, PAIRS = 15, 12
COUNT, MEGABYTES, ASSOCIATIONS = 200, 2.1, (1, 4)
KNEES = 150  # studies to score meanwhile: more than a worker does while the images come
NEVER, SOON = 3600, 1  # StableAge in seconds
LOADED_SECONDS, IDLE_SECONDS = 1.5, 2.0  # processor time that loading torch takes at least; how long all rest then
WITHOUT, WITH, SCORING = "Orthanc alone", "with Genu", "with Genu, which scores meanwhile"
KINDS = (WITHOUT, WITH, SCORING)

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
    """Its children; none when it has ended, which whoever started it says."""
    with suppress(psutil.NoSuchProcess):
        return _process(server).children(recursive=True)
    return []


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
    sets = {
        count: bench_receive.make_images(scratch / f"images{count}", COUNT + 1, MEGABYTES) for count in ASSOCIATIONS
    }
    knees = write_knees(scratch / "knees", KNEES)
    found: dict[tuple[str, int], list[Sent]] = {(kind, count): [] for count in ASSOCIATIONS for kind in KINDS}
    for number in range(PAIRS):
        with ExitStack() as stack:  # both at once, and one of them rests: the same passing load falls on both
            servers = {
                kind: stack.enter_context(_running(scratch / f"rate{place}", bundle, kind))[0]
                for place, kind in enumerate((WITHOUT, WITH))
            }
            for server in servers.values():
                _settle(server)
            for count in ASSOCIATIONS:
                for kind in _in_turn(number):
                    found[kind, count].append(_sending(servers[kind], sets[count], count))
    for count in ASSOCIATIONS:
        with _running(scratch / "scoring", bundle, SCORING) as (server, _took):
            _settle(server)
            bench_receive.send(server.dicom_port, knees, 1)
            server.until(lambda: server.get("/genu/status")["jobs"]["done"] > 0)
            found[SCORING, count].append(_sending(server, sets[count], count))
            jobs = server.get("/genu/status")["jobs"]
            assert jobs["queued"] + jobs["running"] > 0, "all was scored before the images had come: more KNEES"
    return [_row(kind, count, found) for count in ASSOCIATIONS for kind in KINDS]


def _sending(server: OrthancServer, files: Sequence[Path], associations: int) -> Sent:
    """Send all files but the first, which is the warm-up; what the disk still has to write is written before."""
    warm_up, *images = files
    bench_receive.send(server.dicom_port, [warm_up], 1)
    os.sync()
    processes = [_process(server), *_family(server)]
    before, there = _cpu(processes), server.get("/statistics")["CountInstances"]
    seconds = bench_receive.send(server.dicom_port, images, associations)
    cpu = _cpu(processes) - before
    assert server.get("/statistics")["CountInstances"] >= there + len(images)
    return Sent(bench_receive.Rate(len(images), sum(file.stat().st_size for file in images) / 1e6, seconds), cpu)


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


def _row(kind: str, associations: int, found: dict[tuple[str, int], list[Sent]]) -> tuple[str, str, str]:
    """The median sending; and the median of the ratios of pairs, which ran within seconds of each other."""
    alone, sent = found[WITHOUT, associations], found[kind, associations]
    middle = sorted(sent, key=lambda one: one.seconds)[len(sent) // 2]
    if kind == WITHOUT:
        compared = "1.00"
    elif kind == WITH:
        ratios = [one.seconds / ours.seconds for one, ours in zip(alone, sent, strict=True)]
        compared = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    else:
        compared = f"{statistics.median(one.seconds for one in alone) / middle.seconds:.2f}"
    return f"C-STORE by {associations} association(s), {kind}", str(middle), compared


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1000 * statistics.median(seconds):.0f} ms ({1000 * min(seconds):.0f} to {1000 * max(seconds):.0f})"
