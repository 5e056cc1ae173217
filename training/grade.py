"""Kellgren-Lawrence grades of a cohort's knees by a bundle: `genu-train grade`, the grader behind the text.

Knees are decoded, found, refused and cut out as `genu-train embed` and the service do it. What was graded is kept
beside the output under pixels, preprocessing and bundle: a second run, or one after a kill, goes on.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from inference.bundle import Bundle, decode
from inference.errors import BundleError, DataError, UsageError
from inference.heads import GRADES
from inference.manifest import SHIPPED
from inference.unlike import unlike_training
from training.embed_knees import KneeRow, read_cohort
from training.embed_shards import Shards
from training.export_names import Export
from training.knee_work import Compute, KneeWork, Progress, alone, check_work, write_failures

_ABOUT = b"genu"  # of the table's metadata
_NAME, _UNLIKE = "probabilities", "unlike"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GradePlan:
    """What `grade` is asked for.

    cohort: folder of cohort.parquet. export: the DICOM export. out: the Parquet file to write.
    bundle: of the task "kl"; None for the one that ships. batch: knees of one forward. workers: decode processes.
    device: "cpu" or "cuda"; None takes a GPU when there is one.
    """

    cohort: Path
    export: Export
    out: Path
    bundle: Path | None = None
    batch: int = 32
    workers: int = 2
    device: str | None = None

    @property
    def failures(self) -> Path:
        """CSV of the knees without a grade: knee, SOPInstanceUID, side, code, reason."""
        return self.out.with_name(f"{self.out.stem}.failures.csv")

    @property
    def kept(self) -> Path:
        """Folder of what was graded, by bundle."""
        return self.out.with_name(f"{self.out.stem}.kept")


@dataclass(frozen=True)
class GradeReport:
    """`graded` of the cohort's `knees` have a grade, `failed` have none.

    `computed` went through the bundle in this run, `cached` in one before; it may refuse some of them all the same.
    """

    knees: int
    graded: int
    computed: int
    cached: int
    failed: int
    torn: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Grades:
    """Grades by knee: `grades` (N,) 0..4 as the bundle decodes, `probabilities` (N, 5), calibrated.

    about: "bundle", "version", "digest", "synthetic", "decoder", "unlike_limit" of what graded, and "crop", how knees
    were cut out.
    """

    knees: tuple[str, ...]
    grades: npt.NDArray[np.int64]
    probabilities: Floats
    about: dict[str, Any]

    @property
    def synthetic(self) -> bool:
        """The bundle's weights are random: the grades mean nothing."""
        return bool(self.about["synthetic"])


def grade(plan: GradePlan, progress: Progress | None = None) -> GradeReport:
    """Grade a cohort into `plan.out`, going on where an earlier run stopped.

    Raises:
        UsageError: a number makes no sense, the device is not here, or the output cannot lie there; DataError: no
            cohort, no export, or another run is at work; BundleError: the bundle does not load or is of another task;
            ResourceError: memory, disk, or a worker that was ended.
    """
    check_work(plan.batch, plan.workers)
    _check_out(plan)
    if plan.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here.")
    rows = read_cohort(plan.cohort)
    bundle = Bundle.load(plan.bundle or SHIPPED, plan.device)
    if bundle.manifest.task != "kl":
        raise BundleError(f"{plan.bundle} is of the task {bundle.manifest.task!r}: name a bundle of the task 'kl'.")
    about = _about(bundle)
    limit = bundle.manifest.unlike_limit
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    with alone(plan.kept):
        shards = Shards.open(plan.kept / digest[:16])
        work = KneeWork(shards, digest, _compute(bundle), plan.batch)
        work.run(plan.export, rows, bundle.spec, plan.workers, progress)
        graded = _publish(plan, rows, work, limit, about)
    return GradeReport(len(rows), graded, work.computed, work.cached, len(work.failures), tuple(shards.torn))


def read_grades(path: Path) -> Grades:
    """What `grade` wrote.

    Raises:
        DataError: it is not there, cannot be read, or is another table.
    """
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[_ABOUT])
        probabilities = np.stack([table[f"p{kl}"].to_numpy() for kl in range(GRADES)], axis=1).astype(np.float64)
        grades = table["grade"].to_numpy().astype(np.int64)
        return Grades(tuple(table["knee"].to_pylist()), grades, probabilities, dict(about))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{path} holds no grades ({error}): make it with `genu-train grade --out {path}`.") from error


def _check_out(plan: GradePlan) -> None:
    """That the files can be written where they are to be: said before the hours of grading, not after them."""
    below = (plan.out.parent, *plan.out.parent.parents)
    if taken := next((path for path in (plan.kept, *below) if path.exists() and not path.is_dir()), None):
        raise UsageError(f"--out {plan.out}: {taken} is a file where a folder is needed; name another file.")
    if taken := next((path for path in (plan.out, plan.failures) if path.is_dir()), None):
        raise UsageError(f"--out {plan.out}: {taken} is a folder; name a file, such as {taken / 'grades.parquet'}.")


def _about(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "bundle": manifest.name,
        "version": manifest.version,
        "digest": manifest.digest,
        "synthetic": manifest.synthetic,
        "decoder": manifest.decoder,
        "unlike_limit": manifest.unlike_limit,
        "crop": bundle.spec.to_json(),
    }


def _compute(bundle: Bundle) -> Compute:
    def forward(crops: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        answer = bundle.answer(torch.from_numpy(crops).float()[:, None] / 255)
        unlike = torch.zeros(len(crops)) if answer.unlike is None else answer.unlike
        return {_NAME: _single(answer.probabilities), _UNLIKE: _single(unlike)}

    return forward


def _single(values: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(values.numpy(), np.float32)


def _publish(plan: GradePlan, rows: list[KneeRow], work: KneeWork, limit: float | None, about: dict[str, Any]) -> int:
    """The table and the failures, to which a knee goes that the service would refuse as unlike the training ones.

    Returns how many knees have a grade.
    """
    knees, found = [], []
    for row, probabilities, unlike in _answers(plan, rows, work):
        unfit = None if limit is None else unlike_training(unlike, limit)
        if unfit is not None:
            work.failures.append((row, *unfit))
        else:
            knees.append(row.knee)
            found.append(probabilities)
    values = np.array(found, np.float64).reshape(-1, GRADES)
    values /= np.maximum(values.sum(axis=1, keepdims=True), 1e-12)
    columns = {f"p{kl}": pa.array(values[:, kl]) for kl in range(GRADES)}
    grades = pa.array(decode(values, about["decoder"]), pa.int64())
    table = pa.table({"knee": pa.array(knees, pa.string()), "grade": grades, **columns})
    part = plan.out.with_name(plan.out.name + ".part")
    pq.write_table(table.replace_schema_metadata({_ABOUT: json.dumps(about)}), part)
    write_failures(plan.failures, work.failures)
    part.replace(plan.out)
    return len(knees)


def _answers(
    plan: GradePlan, rows: list[KneeRow], work: KneeWork
) -> Iterator[tuple[KneeRow, npt.NDArray[np.float32], float]]:
    """Probabilities (5,) and unlikeness of each knee that was computed, in the order of their names."""
    shards: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    for row in sorted((row for row in rows if row.knee in work.found), key=lambda row: row.knee):
        shard, place = work.shards.places[work.found[row.knee]]
        try:
            if shard not in shards:
                shards[shard] = load_file(work.shards.folder / f"{shard}.safetensors")
            yield row, shards[shard][_NAME][place], float(shards[shard][_UNLIKE][place])
        except (OSError, SafetensorError, KeyError) as error:
            raise DataError(f"{shard} of {plan.kept} cannot be read ({error}): run the command again.") from error
