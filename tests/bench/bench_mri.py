"""A study of three MR series of 160 slices, 384 x 384: processor time by stage and peak memory of preprocessing.

One process, one thread; the study is generated. python -m tests.bench.bench_mri FOLDER measures a folder that is there.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from inference.bias import correct_bias
from inference.mr_sequences import MRSequence
from inference.mr_series import select_series
from inference.reading import group_studies
from inference.volumes import VolumeSpec, finish, read_volume
from tests.mr_phantoms import Grid, mr_series, sampled, write
from tests.plugin.standin import ROOT

SLICES, SIZE = 160, 384
_STUDY = {"StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1", "PatientID": "bench"}


def measure(_bundle: Path, scratch: Path) -> list[tuple[str, str, str]]:
    """Rows: stage, processor time, and peak memory at its end."""
    make_study(scratch / "study")
    command = [sys.executable, "-m", "tests.bench.bench_mri", str(scratch / "study")]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), check=True, capture_output=True, text=True)
    return [(name, f"{seconds:.2f} s", f"{peak} MB") for name, seconds, peak in json.loads(done.stdout)]


def make_study(folder: Path, slices: int = SLICES, size: int = SIZE) -> None:
    """Three series of one knee, each of so many slices of a quarter of the phantom, repeated to full size."""
    for sequence in MRSequence:
        plane, step = sequence.plane.value, 110 / slices
        small = Grid(plane, slices, size // 4, size // 4, 480 / size, 480 / size, step)
        pixels = np.kron(sampled(small, "R"), np.ones((1, 4, 4), np.uint16)).astype(np.uint16)
        grid = Grid(plane, slices, size, size, 120 / size, 120 / size, step)
        timing = "dess" if sequence is MRSequence.SAG_3D_DESS else "tse"
        write(
            mr_series("R", grid, identity=sequence.value, description=f"{sequence.name}_RIGHT", timing=timing,
                      pixels=pixels, attributes=_STUDY),
            folder / sequence.value,
        )  # fmt: skip


def stages(folder: Path) -> list[tuple[str, float, int]]:
    """Name, processor seconds and peak memory (MB) of each stage."""
    rows: list[tuple[str, float, int]] = []

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        rows.append((name, time.process_time() - began, _peak()))
        return result

    timed("start", lambda: None)
    (study,) = timed("headers of all files", lambda: group_studies([folder]))
    for sequence in MRSequence:
        spec = VolumeSpec.default(sequence)
        (series,) = timed(f"{sequence.wording}: choose", lambda s=sequence: select_series(study.instances, s)).chosen
        raw = timed(f"{sequence.wording}: decode {spec.slices} slices", lambda s=series, p=spec: read_volume(s, p))
        timed(f"{sequence.wording}: N4 alone", lambda r=raw, p=spec: correct_bias(r.values, p.bias))
        timed(f"{sequence.wording}: N4, percentiles, 224 x 224", lambda r=raw, p=spec: finish(r, p))
        del raw
    return rows


def _peak() -> int:
    """Most memory so far, MB; of this program alone, unlike ru_maxrss, which begins with that of its parent."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


if __name__ == "__main__":
    with threadpool_limits(1):
        print(json.dumps(stages(Path(sys.argv[1]))))
