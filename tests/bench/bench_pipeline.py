"""What the pipeline costs above the bare forward pass of the networks, for one knee."""

import statistics
import time
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from pathlib import Path

import torch
from pydicom import dcmwrite

from dicom_templates.compose import Composed, ReportContext, compose
from inference.findings import StudyFindings
from inference.predictor import Predictor
from inference.reading import StudyInput, read_study
from tests.bench.films import kind, write_film, write_knees

ROUNDS = 15


def measure(bundle: Path, scratch: Path) -> list[tuple[str, str, str]]:
    """Rows: what, milliseconds, ratio to the bare forward."""
    predictor = Predictor.load([bundle], threads=1)  # as genu score has it
    size = predictor.bundle.spec.crop_size
    crop = torch.rand(1, 1, size, size)
    forward = median_ms(lambda: predictor.bundle.probabilities(crop))
    rows = [
        ("bare forward, one knee", f"{forward:.1f} ms", "1.0"),
        row("forward and Grad-CAM", median_ms(lambda: predictor.bundle.predict(crop)), forward),
    ]
    for title, path in ((kind(), write_knees(scratch, 1)[0]), ("film 2500 x 2000", write_film(scratch))):
        rows += _steps(predictor, path, title, forward)
    return rows


def _steps(predictor: Predictor, path: Path, title: str, forward: float) -> list[tuple[str, str, str]]:
    context = ReportContext(datetime.now().astimezone(), "bench", "2.25.1", "1")
    study = read_study([path])
    findings = predictor.score(study)

    def composed(study: StudyInput, findings: StudyFindings) -> Composed:
        return compose(findings, [instance.header for instance in study.instances], context)

    def encode(made: Composed) -> None:
        for dataset in made.all:
            dcmwrite(BytesIO(), dataset, enforce_file_format=True)

    def whole() -> None:
        study = read_study([path])
        encode(composed(study, predictor.score(study)))

    made = composed(study, findings)
    return [
        row(f"{title}: read the header", median_ms(lambda: read_study([path])), forward),
        row(f"{title}: select, decode, find, score, explain", median_ms(lambda: predictor.score(study)), forward),
        row(f"{title}: compose report and heatmap", median_ms(lambda: composed(study, findings)), forward),
        row(f"{title}: encode", median_ms(lambda: encode(made)), forward),
        row(f"{title}: all of it", median_ms(whole), forward),
    ]


def row(title: str, milliseconds: float, forward: float) -> tuple[str, str, str]:
    """A row of the table."""
    return title, f"{milliseconds:.1f} ms", f"{milliseconds / forward:.1f}"


def median_ms(action: Callable[[], object]) -> float:
    """Median of some rounds after a warm-up."""
    action()
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        found.append(time.perf_counter() - began)
    return 1000 * statistics.median(found)
