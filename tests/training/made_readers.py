"""For readers: a cohort of MR series that nobody has, with known changes of the joint space; pairs without pictures."""

import random
from pathlib import Path

import numpy as np
import polars as pl

from tests.mr_phantoms import Grid, mr_series, sampled
from tests.phantoms import write
from training.readers import STRATA, Bench, Knee, TruePair, Truth, read_bench, write_bench

# Of each stratum, edges of the rules among them: -1.1 is likely, -0.6 is doubtful, -0.5 is in no pair at all.
CHANGES = (-1.101, -1.9, -1.1, -0.7, -0.85, -0.601, -0.6, -0.501, -0.5, -0.499, -0.2, 0.0, 0.1, 0.3, -0.3, 0.05, 0.2)
NAME = "Hidden^Person"


def write_cohort(root: Path) -> pl.DataFrame:
    """ROOT/images and ROOT/cohort: one patient a change; sides alternate, sizes and slices differ."""
    rows = []
    for number, change in enumerate(CHANGES):
        side = "LR"[number % 2]
        grid = Grid(slices=11 + number % 3, rows=24 + number % 2, columns=28, row_mm=4.0, column_mm=3.5)
        pixels = sampled(grid, side) + np.uint16(40 * number)
        name = f"COR_IW_TSE_{'LEFT' if side == 'L' else 'RIGHT'}"
        patient = {"PatientID": f"SECRET-{number:03d}", "PatientName": NAME}
        found = mr_series(side, grid, identity=f"reader-{number}", description=name, pixels=pixels, attributes=patient)
        for place, ds in enumerate(found):
            write(ds, root / "images" / "00m" / patient["PatientID"] / f"{place:03d}.dcm")
        series = str(found[0].SeriesInstanceUID)
        rows.append({
            "knee": f"{series}/{side}/V00-V01", "SeriesInstanceUID": series, "PatientID": patient["PatientID"],
            "path": f"00m/{patient['PatientID']}", "side": side, "sequence": "COR_IW_TSE", "followup": 12,
            "sex": "MF"[number % 4 // 2], "age": 50.0 + number, "delta_mjsw": change,
            "progression_abs": int(change <= -0.5),
        })  # fmt: skip
    random.Random(0).shuffle(rows)
    table = pl.DataFrame(rows)
    (root / "cohort").mkdir(parents=True)
    table.write_parquet(root / "cohort" / "cohort.parquet")
    return table


def bare(folder: Path, counts: tuple[int, int, int] = (10, 130, 10)) -> tuple[Bench, Truth]:
    """Pairs without pictures: what answers and figures need."""
    generator = np.random.default_rng(7)
    strata = np.repeat(STRATA, counts).tolist()
    pairs, truth, knees = [], [], {}
    for number, stratum in enumerate(strata):
        pair, progressor, other = (generator.bytes(6).hex() for _ in range(3))
        pairs.append((pair, *sorted((progressor, other))))
        for name in (progressor, other):
            knees[name] = Knee(12, 8, 8, 1.0, 1.0, (0, 9), ("medial", "lateral"), ("front", "back"), "0" * 64)
        keys = (f"1.{number}.1/L/V00-V01", f"1.{number}.2/R/V00-V01")
        truth.append(TruePair(pair, str(stratum), progressor, other, keys, (-0.7, 0.1)))
    folder.mkdir(parents=True)
    bench = Bench(folder, "", tuple(sorted(pairs)), knees, "cor_iw_tse", 12, 0.5, "series", True, False)  # type: ignore[arg-type]
    known = Truth(tuple(sorted(truth, key=lambda one: one.pair)), {"once": "patient", "seed": 7})
    write_bench(folder, bench, known)
    return read_bench(folder), known
