"""A made OAI without pixels: tables, contents.csv and the index that its files would have."""

from pathlib import Path
from typing import Any

import polars as pl

from training.synth_oai_plan import Participant, effects, plan
from training.synth_oai_tables import write_contents, write_tables
from training.synth_oai_truth import folder, series_uid, study_uid

INDEX: dict[str, Any] = {
    **dict.fromkeys(
        ("path", "reason", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality",
         "SeriesDescription", "StudyDate"), pl.String()),
    "ImageOrientationPatient": pl.List(pl.Float64()),
}  # fmt: skip
CORONAL, SAGITTAL = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0], [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]


def write_index(rows: list[tuple[Any, ...]], path: Path) -> None:
    pl.DataFrame(rows, schema=INDEX, orient="row").write_parquet(path)


def index_rows(people: list[Participant]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for person in people:
        for scan in person.scans:
            coronal = scan.sequence.startswith("COR") != scan.wrong_plane
            series, day = series_uid(person, scan), f"{person.day(scan.visit):%Y%m%d}"
            for number in range(1, scan.slices + 1):
                path = f"{folder(person, scan)}/{number:03d}"
                if scan.broken and number == scan.slices // 2:
                    rows.append((path, "unreadable", *[None] * 8))
                    continue
                rows.append((
                    path, None, f"{series}.{number}", study_uid(person, scan), series, person.identifier,
                    "CR" if scan.sequence == "film" else "MR", scan.header, day, CORONAL if coronal else SAGITTAL,
                ))  # fmt: skip
    return rows


def make(folder_: Path, patients: int, seed: int, **changes: float) -> list[Participant]:
    """Tables in `tables`, contents.csv in `images`, and `index.parquet`."""
    people = plan(patients, seed, effects(changes), 11)
    write_tables(people, folder_ / "tables", seed)
    write_contents(people, folder_ / "images", seed)
    write_index(index_rows(people), folder_ / "index.parquet")
    return people
