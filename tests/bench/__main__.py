"""`make bench`: all measurements in one run, side by side; with --write they go into docs/performance.md.

With --only just the tables of these measurements are written, each with when and by which command; the others stay.

python -m tests.bench [--write] [--bundle DIR] [--only receive,pipeline,latency,score,index,orthanc,n4,mri,reports]
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import torch

from inference.manifest import SHIPPED, Manifest
from tests.bench import (
    bench_index,
    bench_latency,
    bench_mri,
    bench_n4,
    bench_orthanc,
    bench_pipeline,
    bench_receive,
    bench_reports,
    bench_score,
)
from tests.plugin.standin import standin_bundle

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Rows = list[tuple[str, str, str]]


def receive(_bundle: Path, scratch: Path) -> Rows:
    """Rows: receiver, rate, ratio to storescp with as many associations."""
    count, size, rounds = 200, 2.1, 3
    files = bench_receive.make_images(scratch / "images", count + 1, size)
    rows: Rows = []
    for associations in (1, 4):
        best: dict[str, bench_receive.Rate] = {}
        for _ in range(rounds):  # in turn, so that a passing load falls on both
            for title, receiver in (("storescp --fork", bench_receive.storescp), ("Genu", bench_receive.genu)):
                rate = bench_receive.measure(receiver, scratch / "received", files, associations)
                best[title] = min(best.get(title, rate), rate, key=lambda one: one.seconds)
        for title, rate in best.items():
            ratio = best["storescp --fork"].seconds / rate.seconds
            rows.append((f"{title}, {associations} association(s)", " ".join(str(rate).split()), f"{ratio:.2f}"))
    seconds = bench_receive.disk_alone(scratch / "disk", files)
    alone = bench_receive.Rate(len(files), sum(file.stat().st_size for file in files) / 1e6, seconds)
    return [*rows, ("the same durable writes without a network, one thread", " ".join(str(alone).split()), "")]


SECTIONS: dict[str, tuple[str, tuple[str, str, str], Callable[[Path, Path], Rows]]] = {
    "receive": ("Images received, 2.1 MB each", ("receiver", "rate", "to storescp"), receive),
    "pipeline": ("Above the bare forward", ("step", "median", "to forward"), bench_pipeline.measure),
    "latency": (
        "Last C-STORE to stored report, without the quiet period",
        ("study", "median", "range"),
        bench_latency.measure,
    ),
    "score": ("A folder of knees", ("program", "time", "faster by"), bench_score.measure),
    "index": ("Headers of an export, from memory", ("program", "rate", "to dcmread"), bench_index.measure),
    "orthanc": ("An Orthanc with and without Genu", ("what", "measured", "to Orthanc alone"), bench_orthanc.measure),
    "n4": ("Bias field of a knee MRI (N4)", ("filter", "processor time", "faster by"), bench_n4.measure),
    "mri": ("A knee MRI of three series of 160 slices", ("stage", "processor time", "peak memory"), bench_mri.measure),
    "reports": ("Report of a cross-validated run", ("step", "one core", "on the clock"), bench_reports.measure),
}


def main() -> int:
    """Measure, print, and write when asked to."""
    parser = argparse.ArgumentParser(description="Measure Genu's speed.")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--bundle", type=Path, help="model bundle (default: the shipped one, else a random stand-in)")
    parser.add_argument("--only", default=",".join(SECTIONS), help="which measurements, separated by commas")
    options = parser.parse_args()
    bundle = options.bundle or (SHIPPED if (SHIPPED / "bundle.json").exists() else standin_bundle())
    names, measured = options.only.split(","), header(bundle)
    print(measured)
    whole = set(names) == set(SECTIONS)
    told = "" if whole else f'In a run of its own, `make bench ARGS="--only {options.only}"`. {measured.strip()}'
    tables = {}
    for name in names:
        title, columns, measure = SECTIONS[name]
        with tempfile.TemporaryDirectory(prefix="genu-bench-") as scratch:
            rows = measure(bundle, Path(scratch))
        tables[title] = table(title, columns, rows, told)
        print(tables[title], flush=True)
    if options.write:
        PAGE.write_text(merged(PAGE.read_text(encoding="utf-8"), tables, measured if whole else ""), encoding="utf-8")
    return 0


def merged(page: str, tables: Mapping[str, str], measured: str) -> str:
    """The page with these tables, by title, in place of those of before; with `measured`, of a whole run, of all."""
    before, _, rest = page.partition(BEGIN)
    block, _, after = rest.partition(END)
    head, *old = block.split("\n### ")
    there = {} if measured else {text.partition("\n")[0]: f"\n### {text}" for text in old}
    there |= tables
    return f"{before}{BEGIN}\n{(measured or head).lstrip()}{''.join(there.values())}{END}{after}"


def header(bundle: Path) -> str:
    """Where and with what it was measured."""
    identity = Manifest.read(bundle).identity()
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    cpus, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return (
        f"\nMeasured {datetime.now().astimezone():%Y-%m-%d %H:%M} on {cpus} CPUs ({cpu}), Python "
        f"{platform.python_version()}, torch {torch.__version__}; load average before the run {load:.1f}; bundle "
        f"{identity.name} {identity.version}{' (a random stand-in)' if identity.synthetic else ''}.\n"
    )


def table(title: str, columns: tuple[str, str, str], rows: Rows, told: str = "") -> str:
    """A Markdown table, `told` above it."""
    lines = [
        f"\n### {title}\n",
        *([f"{told}\n"] if told else []),
        f"| {' | '.join(columns)} |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
