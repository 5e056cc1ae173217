"""A study of three MR series of 160 slices, 384 x 384: processor time by stage and peak memory, from file to report.

One process, one thread; the study is generated, and so are the bundles: EfficientNet-B0 at its full size with random
weights, one for each sequence. The functions that `Predictor` runs are timed where they are called.
python -m tests.bench.bench_mri FOLDER BUNDLE... measures folders that are there.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydicom import Dataset, dcmwrite
from threadpoolctl import threadpool_limits

from dicom_templates.compose import compose
from dicom_templates.context import ReportContext
from inference import mr_scoring
from inference.findings import StudyFindings
from inference.mr_sequences import MRSequence
from inference.reading import group_studies
from inference.slice_bundle import SliceBundle
from inference.volumes import VolumeSpec
from tests.mr_phantoms import Grid, mr_series, sampled, write
from tests.plugin.standin import ROOT
from tests.slice_runs import MadeSlices, slice_bundle

SLICES, SIZE = 160, 384
_STUDY = {"StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1", "PatientID": "bench"}


def measure(_bundle: Path, scratch: Path) -> list[tuple[str, str, str]]:
    """Rows: stage, processor time, and peak memory at its end."""
    make_study(scratch / "study")
    bundles = [
        slice_bundle(MadeSlices(sequence=spec.sequence, slices=spec.slices, size=spec.size, full=True))
        for spec in map(VolumeSpec.default, MRSequence)
    ]
    command = [sys.executable, "-m", "tests.bench.bench_mri", str(scratch / "study"), *map(str, bundles)]
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


class Stages:
    """Names, processor seconds and peak memory (MB) of stages, in the order of their ends."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, int]] = []
        self.sequence = ""

    def timed(self, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run and note."""
        began = time.process_time()
        result = work(*arguments)
        self.rows.append((name, time.process_time() - began, _peak()))
        return result

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Note every call of a function from now on; the sequence is that of the last series that was decoded."""
        inner = getattr(owner, attribute)

        def outer(*arguments: Any) -> Any:
            if attribute == "read_volume":
                self.sequence = f"{arguments[1].sequence.wording}: "
            return self.timed(f"{self.sequence}{name}", inner, *arguments)

        setattr(owner, attribute, outer)


def stages(folder: Path, bundles: Sequence[Path]) -> list[tuple[str, float, int]]:
    """Name, processor seconds and peak memory (MB) of each stage."""
    noted = Stages()
    noted.timed("start", lambda: None)
    loaded = noted.timed("bundles: read, hash, probe", lambda: tuple(SliceBundle.load(path, "cpu") for path in bundles))
    (study,) = noted.timed("headers of all files", group_studies, [folder])
    for owner, attribute, name in (
        (mr_scoring, "choose", "choose three series"),
        (mr_scoring, "read_volume", "decode the slices that are read"),
        (mr_scoring, "rendered", "grey values for the pictures"),
        (mr_scoring, "finish", "N4, percentiles, 224 x 224"),
        (SliceBundle, "read", "EfficientNet-B0"),
        (SliceBundle, "predict", "networks and Grad-CAM"),
    ):
        noted.watch(owner, attribute, name)
    began = time.process_time(), sum(row[1] for row in noted.rows)
    found = mr_scoring.score_mr(study, loaded)
    rest = time.process_time() - began[0] - (sum(row[1] for row in noted.rows) - began[1])
    noted.rows.append(("maps back onto the source images", rest, _peak()))
    if len(found.volumes) != len(bundles):
        raise SystemExit(f"{len(found.volumes)} results, {len(bundles)} expected: {found.refusals}")
    findings = StudyFindings(
        study_instance_uid=study.study_instance_uid, volumes=found.volumes, refusals=found.refusals,
        mr_images=found.images, models=tuple(bundle.manifest.identity() for bundle in loaded),
        looked_at=mr_scoring.looked_at(found), looks=found.looks,
    )  # fmt: skip
    headers = [instance.header for instance in study.instances]
    context = ReportContext(datetime.now().astimezone(), "bench", "2.25.1", "1")
    composed = noted.timed("compose report, pictures, maps", compose, findings, headers, context)
    noted.timed(f"encode {len(composed.all)} objects", lambda: [_encoded(made) for made in composed.all])
    return noted.rows


def _encoded(dataset: Dataset) -> int:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.tell()


def _peak() -> int:
    """Most memory so far, MB; of this program alone, unlike ru_maxrss, which begins with that of its parent."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(1):
        print(json.dumps(stages(Path(sys.argv[1]), [Path(one) for one in sys.argv[2:]])))
