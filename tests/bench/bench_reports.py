"""`genu-train evaluate` and `report` of a made run of the published cohort's size: 33,000 knees, ten systems.

python -m tests.bench.bench_reports
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.training.made_runs import about, constants, knees_of, out_of_fold
from training.cv_evaluate import evaluate_run
from training.predictions import Predictions, write_predictions
from training.report import write_report

PATIENTS = 22_000


def measure(_bundle: Path, scratch: Path) -> list[tuple[str, str, str]]:
    """Rows: step, seconds of one core, seconds on the clock."""
    run, size = made(scratch / "run")
    steps = (("figures with 1,000 resamples", evaluate_run), ("the page", write_report))
    return [(f"{name}, {size}", *_timed(lambda step=step: step(run))) for name, step in steps]  # type: ignore[misc]


def made(run: Path) -> tuple[Path, str]:
    """A run of three baselines and seven systems; what it holds in words."""
    run.mkdir(parents=True)
    knees = knees_of(PATIENTS)
    knees.write_parquet(run / "knees.parquet")
    grade = knees["kl"].fill_null(2).to_numpy()[:, None].astype(np.float64)
    draw = np.random.default_rng(0)
    means = {
        "constant_mean": constants(knees, np.mean),
        "constant_median": constants(knees, np.median),
        "kl_only": out_of_fold(knees, grade),
    }
    for number in range(7):
        seen = knees["effusion"].to_numpy()[:, None] + draw.normal(0, number / 5, (len(knees), 1))
        means[f"system{number}"] = out_of_fold(knees, np.hstack([grade, seen]))
    for name, mean in means.items():
        told = about(name, "system" if name.startswith("system") else "baseline")
        write_predictions(
            run, Predictions(name, tuple(knees["knee"]), knees["fold"].to_numpy(), mean, mean, about=told)
        )
    told = {"kind": "regression", "target": "pain", "bounds": [0, 10], "unit": "points", "synthetic": True}
    (run / "run.json").write_text(json.dumps(told))
    return run, f"{len(knees):,} knees of {PATIENTS:,} patients, {len(means)} systems"


def _timed(step: Callable[[], object]) -> tuple[str, str]:
    clock, core = time.perf_counter(), time.process_time()
    step()
    return f"{time.process_time() - core:.1f} s", f"{time.perf_counter() - clock:.1f} s"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for row in measure(Path(), Path(folder)):
            print("  ".join(row))
