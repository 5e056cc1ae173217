"""`genu score` against a naive script that makes the same objects, both from the start of the process to its end.

The naive script runs twice: with the threads that torch takes by itself, and with one. Where other programs have the
CPUs the first can be many times slower than the second, because torch's threads wait for each other.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.films import kind, write_knees
from tests.plugin.standin import ROOT

KNEES = 200


def measure(bundle: Path, scratch: Path) -> list[tuple[str, str, str]]:
    """Rows: what, seconds and knees a second, ratio to the naive script."""
    files = write_knees(scratch / "knees", KNEES)
    naive = _seconds("-m", "tests.bench.naive", bundle, scratch / "naive", *files)
    single = _seconds("-m", "tests.bench.naive", bundle, scratch / "single", *files, OMP_NUM_THREADS="1")
    ours = _seconds("-m", "plugin.cli", "score", scratch / "knees", "--out", scratch / "out", "--bundle", bundle)
    made = [len(list((scratch / name).glob("*.dcm"))) for name in ("naive", "out")]
    assert made[0] == made[1], f"not the same work: {made}"
    return [
        (f"naive script, {KNEES} {kind()}", f"{naive:.1f} s, {KNEES / naive:.1f} knees/s", "1.0"),
        ("the same with one torch thread", f"{single:.1f} s, {KNEES / single:.1f} knees/s", f"{naive / single:.2f}"),
        (f"genu score, {KNEES} {kind()}", f"{ours:.1f} s, {KNEES / ours:.1f} knees/s", f"{naive / ours:.2f}"),
    ]


def _seconds(*arguments: object, **environment: str) -> float:
    began = time.perf_counter()
    command = [sys.executable, *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True, capture_output=True)
    return time.perf_counter() - began
