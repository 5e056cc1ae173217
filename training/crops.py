"""The labelled knees of an indexed export as crops, by the selection, pixels and cropping of inference.

A film of at most `crop_size` rows and columns is a crop of one knee already and is taken as it is. On every other one
knees are found and cut as the service does it; what the service would refuse is left out, with its reason.
Kept beside the run as one .npy file, keyed by the files and by everything that decides the crops.
"""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.errors import DataError, RefusalError
from inference.pixels import load_display
from inference.preprocess import PreprocessSpec, prepare, stored, whole
from inference.reading import StudyInput, read_instance
from inference.studies import select
from training.film_knees import Knee, cut_film, identity
from training.labels import Label

LEFT_OUT = "left_out.csv"
NOT_INDEXED = "not_indexed"
_COLUMNS = ("SOPInstanceUID", "side", "reason")
_VERSION = 2  # of crops of crops, which a run may hold since long
_FILMS_VERSION = 1
_Rows = Sequence[tuple[Label, dict[str, Any]]]
_Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class CropSet:
    """Knees: `crops` uint8 (N, S, S) on the canonical side, `grades` (N,), patients and SOP Instance UIDs."""

    crops: npt.NDArray[np.uint8]
    grades: npt.NDArray[np.int64]
    subjects: tuple[str, ...]
    sides: tuple[str, ...]
    uids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.grades)

    def where(self, mask: Sequence[bool]) -> "CropSet":
        """The knees for which `mask` is true."""
        rows = np.flatnonzero(np.asarray(mask))
        return CropSet(
            self.crops[rows],
            self.grades[rows],
            *(tuple(values[i] for i in rows) for values in (self.subjects, self.sides, self.uids)),
        )


@dataclass(frozen=True)
class LeftOut:
    """A labelled knee that has no crop; `reason` begins with a code."""

    sop_instance_uid: str
    side: str
    reason: str

    @property
    def code(self) -> str:
        """Such as no_knee_found."""
        return self.reason.partition(":")[0]


def load_crops(
    export: Path,
    index: Sequence[dict[str, Any]],
    labels: Sequence[Label],
    cache: Path,
    *,
    spec: PreprocessSpec = PreprocessSpec(),  # noqa: B008 - frozen
    progress: _Progress | None = None,
) -> dict[str, CropSet]:
    """Crops of the labelled knees, by split; those without one, and why, stand in `cache`/left_out.csv.

    Raises:
        DataError: no labelled film is in the index, none of its knees can be used, or a crop of one knee is refused by
            the selection or has another side in its header than in its label.
    """
    films: dict[str, dict[str, Any]] = {}
    for row in index:
        films.setdefault(row["SOPInstanceUID"], row)
    order = {uid: number for number, uid in enumerate(films)}
    known = [label for label in labels if label.sop_instance_uid in films]
    if not known:
        raise DataError(f"none of the {len(labels)} labelled images is in the index of {export}: index that export.")
    known.sort(key=lambda label: (order[label.sop_instance_uid], label.side))
    rows = [(label, films[label.sop_instance_uid]) for label in known]
    crops, refused = _cached(export, rows, cache, spec, progress)
    absent = [
        LeftOut(label.sop_instance_uid, label.side, f"{NOT_INDEXED}: the image is not in the index.")
        for label in labels
        if label.sop_instance_uid not in films
    ]
    _write_left_out(cache / LEFT_OUT, [*absent, *refused])
    without = {(knee.sop_instance_uid, knee.side) for knee in refused}
    if len(without) == len(known):
        raise DataError(f"no labelled knee can be used, the first since {refused[0].reason} See {cache / LEFT_OUT}.")
    everything = CropSet(
        crops,
        np.asarray([label.kl for label in known], np.int64),
        tuple(label.patient for label in known),
        tuple(label.side for label in known),
        tuple(label.sop_instance_uid for label in known),
    )
    split_of = ["" if (label.sop_instance_uid, label.side) in without else label.split for label in known]
    return {split: everything.where([mine == split for mine in split_of]) for split in sorted({*split_of} - {""})}


def read_left_out(folder: Path) -> list[LeftOut]:
    """The knees that the last `load_crops` into this folder left out."""
    path = folder / LEFT_OUT
    return _read_left_out(path) if path.is_file() else []


def counted(left_out: Iterable[LeftOut]) -> dict[str, int]:
    """How many knees were left out, by code; the most frequent first."""
    return dict(Counter(knee.code for knee in left_out).most_common())


def left_out_line(folder: Path) -> str:
    """What to tell a person of the knees without a crop; empty where there is none."""
    counts = counted(read_left_out(folder))
    told = ", ".join(f"{count} {code}" for code, count in counts.items())
    return f"{sum(counts.values())} labelled knees left out ({told}): see {folder / LEFT_OUT}" if counts else ""


def is_crop(row: dict[str, Any], spec: PreprocessSpec) -> bool:
    """Whether a film of the index is a crop of one knee already: no larger than a crop."""
    rows, columns = row["Rows"], row["Columns"]
    return rows is not None and columns is not None and max(rows, columns) <= spec.crop_size


def _cached(
    export: Path, rows: _Rows, cache: Path, spec: PreprocessSpec, progress: _Progress | None
) -> tuple[npt.NDArray[np.uint8], list[LeftOut]]:
    """Crops (N, S, S), mapped from the file, zero for those that are left out."""
    parts = [[row["path"], row["size"], row["mtime_ns"], label.side] for label, row in rows]
    deciding: list[Any] = [_VERSION, spec.to_json(), parts]
    if films := not all(is_crop(row, spec) for _, row in rows):
        deciding += [_FILMS_VERSION, identity(), [is_crop(row, spec) for _, row in rows]]
    path = cache / f"crops-{hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:16]}.npy"
    refused = path.with_suffix(".csv")
    if not path.exists() or (films and not refused.exists()):
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        left_out = _cut(export, rows, part, spec, progress)
        if films:
            _write_left_out(refused, left_out)
        part.replace(path)
    found: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return found, _read_left_out(refused) if films else []


def _cut(export: Path, rows: _Rows, path: Path, spec: PreprocessSpec, progress: _Progress | None) -> list[LeftOut]:
    """Into a file, film by film: memory holds one."""
    shape = (len(rows), spec.crop_size, spec.crop_size)
    crops = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    refused, done = [], 0
    for _, group in groupby(rows, key=lambda row: row[0].sop_instance_uid):
        knees = list(group)
        row, sides = knees[0][1], [label.side for label, _ in knees]
        cut: Sequence[Knee]
        if is_crop(row, spec):
            cut = [_one(export / row["path"], side, spec) for side in sides]
        else:
            cut = cut_film(export / row["path"], sides, spec)
        for (label, _), made in zip(knees, cut, strict=True):
            if isinstance(made, str):
                refused.append(LeftOut(label.sop_instance_uid, label.side, made))
            else:
                crops[done] = made
            done += 1
        if progress is not None:
            progress(done, len(rows))
    crops.flush()
    return refused


def _one(path: Path, side: str, spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """A film that is a crop of one knee already: that it cannot be used is a fault of the export, not of the film."""
    try:
        instance = read_instance(path)
        selection = select(StudyInput(instance.study_instance_uid, (instance,), ()))
        if not selection.candidates:
            raise DataError(f"{path} has a label but is refused: {selection.refusals[0].reason}")
        if (stated := selection.candidates[0].stating.side) != side:
            raise DataError(f"{path}: the label says {side}, the header {stated}.")
        image = load_display(instance)
    except RefusalError as error:
        raise DataError(f"{path} has a label but is refused: {error.refusal.reason}") from error
    return stored(prepare(image.values, whole(*image.values.shape), spec, mirror=side != spec.canonical_side))


def _write_left_out(path: Path, knees: Sequence[LeftOut]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows((knee.sop_instance_uid, knee.side, knee.reason) for knee in knees)


def _read_left_out(path: Path) -> list[LeftOut]:
    with path.open(newline="", encoding="utf-8") as file:
        return [LeftOut(*(row[name] for name in _COLUMNS)) for row in csv.DictReader(file)]
