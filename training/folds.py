"""Patient-grouped, stratified folds, and the checks that nothing leaks across them. They fail loudly.

A message names knees (SOP Instance UID and side), never patients.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from inference.errors import DataError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
COPY = 0.999  # of |r|: above it a column is the target by another name
_BINS = 8
_NAMED = 3
_BLOCK = 512  # columns looked at together


def patient_folds(patients: Sequence[str], target: Floats, folds: int, seed: int) -> Ints:
    """The fold of each knee, 0..folds-1, (N,): all knees of a patient in one, the target alike in all.

    Args:
        patients: PatientID of each knee, (N,).
        target: (N,), finite; binned for the stratification, never used otherwise.
        folds: how many, at least 2.
        seed: decides which patient goes where.

    Raises:
        DataError: there are fewer patients than folds, or a fold stays empty.
    """
    groups = np.asarray(patients, dtype=np.str_)
    known = len(np.unique(groups))
    if folds < 2 or known < folds:
        raise DataError(f"{folds} folds of {known} patient(s): take 2 folds or more, and no more than patients.")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    result = np.full(len(groups), -1, np.int64)
    for number, (_, held) in enumerate(splitter.split(np.zeros(len(groups)), _bins(target, folds), groups)):
        result[held] = number
    if len(np.unique(result)) < folds or (result < 0).any():
        raise DataError(f"a fold of {folds} is empty: {known} patients with {len(groups)} knees are too few.")
    return result


def _bins(target: Floats, folds: int) -> Ints:
    """Quantile bins, each of at least `folds` knees: neighbours are merged until it is so."""
    edges = np.unique(np.quantile(target, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, target, side="left")
    merged, result = 0, np.zeros(len(target), np.int64)
    values, counts = np.unique(bins, return_counts=True)
    rest, held = len(target), 0
    for value, count in zip(values, counts, strict=True):
        result[bins == value] = merged
        held, rest = held + count, rest - count
        if held >= folds and rest >= folds:
            merged, held = merged + 1, 0
    return result


def check_folds(knees: Sequence[str], patients: Sequence[str], folds: Ints) -> None:
    """All knees of a patient are in one fold.

    Raises:
        DataError: how many patients are in several, with the first of their knees.
    """
    by_patient: dict[str, int] = {}
    torn = [
        knee
        for knee, patient, fold in zip(knees, patients, folds, strict=True)
        if by_patient.setdefault(patient, int(fold)) != fold
    ]
    if torn:
        among = set(torn)
        count = len({patient for knee, patient in zip(knees, patients, strict=True) if knee in among})
        raise DataError(
            f"{count} patient(s) are in more than one fold, knees {_first(torn)}: split by patient and fit again."
        )


def check_pixels(knees: Sequence[str], patients: Sequence[str], folds: Ints, pixels: Mapping[str, str]) -> None:
    """No image is in two folds under the names of two patients.

    Args:
        knees, patients, folds: (N,) each.
        pixels: knee to a hash of what the network saw of it (`key` of an embedding's keys.parquet).

    Raises:
        DataError: how many images are, with the first of their knees.
    """
    seen: dict[str, tuple[str, str, int]] = {}
    twice = []
    for knee, patient, fold in zip(knees, patients, folds, strict=True):
        first, owner, place = seen.setdefault(pixels[knee], (knee, patient, int(fold)))
        if owner != patient and place != fold:
            twice += [f"{first} = {knee}"]
    if twice:
        raise DataError(
            f"{len(twice)} knee(s) have the very pixels of another PatientID's knee in another fold: {_first(twice)}. "
            "Give both one PatientID, or leave one of them out of the cohort."
        )


def check_rows(knees: Sequence[str], patients: Sequence[str], train: Bools, held: Bools) -> None:
    """No held-out knee is of a patient with a knee among the training rows.

    Raises:
        DataError: how many knees are, and the first of them.
    """
    learnt = {patient for patient, used in zip(patients, train, strict=True) if used}
    leaked = [
        knee
        for knee, patient, out in zip(knees, patients, held, strict=True)
        if out and patient in learnt
    ]  # fmt: skip
    if leaked:
        raise DataError(
            f"{len(leaked)} knee(s) would be predicted by a model that learnt from their own patient: {_first(leaked)}."
        )


def check_features(features: npt.NDArray[np.floating], target: Floats, names: Sequence[str] | str) -> None:
    """No column is a copy of the target (|r| above 0.999 over the rows that have a value).

    Args:
        features: (N, D), NaN where there is no value.
        target: (N,).
        names: of the columns, or of the matrix as a whole.

    Raises:
        DataError: names the columns.
    """
    copies = []
    for start in range(0, features.shape[1], _BLOCK):
        block = np.asarray(features[:, start : start + _BLOCK], np.float64)
        strength = _correlation(block, target)
        for column in np.flatnonzero(strength > COPY):
            number = start + int(column)
            copies.append(f"{names}[{number}]" if isinstance(names, str) else names[number])
    if copies:
        raise DataError(
            f"{len(copies)} column(s) are the target by another name (|r| > {COPY}): {_first(copies)}. "
            "Leave them out: nothing is predicted that way."
        )


def _correlation(block: Floats, target: Floats) -> Floats:
    """|r| of each column with the target, (D,); 0 where fewer than ten rows or no spread are there."""
    known = np.isfinite(block)
    count = known.sum(axis=0)
    safe = np.maximum(count, 1)
    truth = np.where(known, target[:, None], 0.0)
    values = np.where(known, block, 0.0)
    values = np.where(known, values - values.sum(axis=0) / safe, 0.0)
    truth = np.where(known, truth - truth.sum(axis=0) / safe, 0.0)
    spread = np.sqrt((values**2).sum(axis=0) * (truth**2).sum(axis=0))
    usable = (count >= 10) & (spread > 1e-12)
    strength = np.abs((values * truth).sum(axis=0)) / np.where(usable, spread, 1.0)
    return np.asarray(np.where(usable, strength, 0.0), np.float64)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
