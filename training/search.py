"""Hyperparameters by cross-validation on `train`: `genu-train search`.

Folds are grouped by patient and alike in grades. Only rows of labels.csv whose split is `train` are kept before the
first image is opened, so that no file of another split is read. Each fit starts from ImageNet weights (or random ones)
and sees the other folds' knees only; it keeps a checkpoint an epoch, and, when done, its logits of the held-out fold.
Successive halving (Jamieson and Talwalkar, AISTATS 2016) over folds: every candidate on the first, the best on all.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from inference.errors import DataError
from training.config import MemberConfig
from training.crops import CropSet, load_crops
from training.fit import fit_member, predict_logits
from training.folds import check_folds, check_pixels, check_rows, patient_folds
from training.halves import rounded
from training.index import read_index
from training.labels import read_label_table
from training.search_space import Candidate, Space
from training.search_table import Held, Row, table
from training.splits import held_back

SPLIT = "train"
_VERSION = 1


@dataclass(frozen=True)
class Source:
    """Where knees and first weights come from, and the search's folder."""

    export: Path
    index: Path
    labels: Path
    out: Path
    initial_weights: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class Folded:
    """Knees of `train` with the fold of each, (N,), and the key of all that decides a fit besides its candidate."""

    knees: CropSet
    folds: npt.NDArray[np.int64]
    key: str


class Listener(Protocol):
    """Is told how far a search is."""

    def read(self, done: int, total: int) -> None:
        """So many knees are read."""

    def fits(self, candidate: str, fold: int, place: int, total: int) -> None:
        """A fit begins, number `place` (from 1) of the `total` of its stage."""

    def epoch(self, candidate: str, fold: int, epochs: int, figures: Mapping[str, float]) -> None:
        """An epoch is done; `figures` as of `training.fit.fit_member`."""

    def rows(self, rows: Sequence[Row]) -> None:
        """A fit is done; the table as it is now."""


def read_knees(source: Source, space: Space, progress: Callable[[int, int], None] | None = None) -> CropSet:
    """The knees of `train` that take part; no file of another split is opened.

    Raises:
        DataError: there is no split `train`, or a labelled image cannot be used.
    """
    labels = [label for label in read_label_table(source.labels) if label.split == SPLIT]
    if not labels:
        raise DataError(f"{source.labels} has no row of the split {SPLIT!r}: nothing else is searched on.")
    knees = load_crops(source.export, read_index(source.index), labels, source.out, progress=progress)[SPLIT]
    return knees if space.share == 1 else knees.where(held_back(knees.subjects, space.share, salt="search"))


def fold(knees: CropSet, space: Space, weights: Sequence[Path]) -> Folded:
    """Patient-grouped folds that are alike in grades.

    Raises:
        DataError: there are too few patients, or an image stands under two patients in two folds.
    """
    folds = patient_folds(knees.subjects, knees.grades.astype(np.float64), space.folds, space.seed)
    seen = [hashlib.sha256(np.ascontiguousarray(crop).tobytes()).hexdigest() for crop in knees.crops]
    check_folds(knees.uids, knees.subjects, folds)
    check_pixels(knees.uids, knees.subjects, folds, dict(zip(knees.uids, seen, strict=True)))
    parts = [_VERSION, seen, knees.grades.tolist(), folds.tolist(), [_digest(path) for path in weights]]
    return Folded(knees, folds, hashlib.sha256(json.dumps(parts).encode()).hexdigest())


def search(source: Source, space: Space, only: Sequence[str], told: Listener) -> list[Row]:
    """Fit what is missing and return the table; goes on where it stopped.

    Args:
        source: the knees and the folder.
        space: the candidates.
        only: names of candidates or members; none for all.
        told: of the progress.

    Raises:
        DataError: as `read_knees`, `fold` and `Space.only`.
    """
    wanted = space.only(only)
    data = fold(read_knees(source, space, told.read), space, source.initial_weights)
    work = _Work(source, space, data, told)
    first = space.halving.folds if space.halving else space.folds
    for candidates in space.members().values():
        mine = [candidate for candidate in candidates if candidate in wanted]
        if not mine:
            continue
        work.fit(mine, range(first))
        if space.halving is not None:
            going_on = promoted(work.rows(), mine, space.halving.keep)
            work.fit(going_on, range(first, space.folds))
    return work.rows()


def promoted(rows: Sequence[Row], candidates: Sequence[Candidate], keep: int) -> list[Candidate]:
    """The reference and the `keep` others with the least log loss on the first folds."""
    losses = {row.candidate.name: row.first_loss for row in rows}
    others = sorted(
        (c for c in candidates if not c.is_reference and losses.get(c.name) is not None),
        key=lambda candidate: (losses[candidate.name], candidate.name),
    )
    return [*(c for c in candidates if c.is_reference), *others[:keep]]


class _Work:
    """The fits of one search and their folder."""

    def __init__(self, source: Source, space: Space, data: Folded, told: Listener) -> None:
        self._source, self._space, self._data, self._told = source, space, data, told

    def has(self, candidate: Candidate, number: int) -> bool:
        return self._answer(candidate, number).exists()

    def rows(self) -> list[Row]:
        """The table of everything that is done."""
        held = {
            candidate.name: [
                self._held(candidate, number) for number in range(self._space.folds) if self.has(candidate, number)
            ]
            for candidate in self._space.candidates
        }
        return table(self._space, held)

    def fit(self, candidates: Sequence[Candidate], folds: Sequence[int]) -> None:
        """Fit each candidate on each of the folds, where it is not done."""
        todo = [(number, candidate) for number in folds for candidate in candidates if not self.has(candidate, number)]
        for place, (number, candidate) in enumerate(todo, start=1):
            self._told.fits(candidate.name, number, place, len(todo))
            self._one(candidate, number)
            self._told.rows(self.rows())

    def _one(self, candidate: Candidate, number: int) -> None:
        knees, held = self._data.knees, self._data.folds == number
        check_rows(knees.uids, knees.subjects, ~held, held)
        answer, config = self._answer(candidate, number), candidate.config
        answer.parent.mkdir(parents=True, exist_ok=True)
        (answer.parent / "candidate.json").write_text(_config_text(config) + "\n", encoding="utf-8")
        # Nothing is looked at on the way: the held-out fold is answered once, by the last weights.
        model = fit_member(
            config,
            knees.where((~held).tolist()),
            knees.where([False] * len(knees)),
            answer.parent,
            self._source.initial_weights,
            lambda figures: self._told.epoch(candidate.name, number, config.epochs, figures),
        )
        logits = predict_logits(rounded(model), config, knees.crops[held]).numpy()
        part = answer.with_suffix(".part.npy")
        np.save(part, logits)
        part.replace(answer)
        (answer.parent / "checkpoint.safetensors").unlink()

    def _held(self, candidate: Candidate, number: int) -> Held:
        answer, rows = self._answer(candidate, number), np.flatnonzero(self._data.folds == number)
        log = (answer.parent / "log.jsonl").read_text("utf-8").splitlines()
        return Held(
            number,
            np.load(answer, allow_pickle=False),
            self._data.knees.grades[rows],
            tuple(self._data.knees.subjects[row] for row in rows),
            sum(float(json.loads(line)["seconds"]) for line in log),
        )

    def _answer(self, candidate: Candidate, number: int) -> Path:
        """Where the held-out logits are; the folder follows from all that decides them: equals share it."""
        key = hashlib.sha256(f"{self._data.key}{_config_text(candidate.config)}".encode()).hexdigest()[:16]
        return self._source.out / "fits" / key / f"fold-{number}" / "held.npy"


def _config_text(config: MemberConfig) -> str:
    values = asdict(config)
    del values["name"], values["ships"]
    return json.dumps(values, sort_keys=True)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read the initial weights {path}: {error.strerror}.") from error
