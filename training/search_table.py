"""Figures of candidates from what they answered to knees of folds that they had not seen, and which one is chosen.

Probabilities are those after a temperature, as a bundle has one: in each fold the held-out patients are halved by a
hash and each half gets the likelihood's choice on the other, so no knee has a part in its own. The log loss without one
stands beside. Intervals: 95 %, patients resampled (training.resampling); differences to the reference are paired, on
the same resamples of the same knees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.flop_counter import FlopCounterMode

from inference.bundle import decode
from inference.heads import GRADES, KLGrader
from training.config import MemberConfig
from training.metrics import log_loss
from training.resampling import Estimate, PatientBootstrap, estimate
from training.search_space import Candidate, Space
from training.splits import held_back

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FIGURES = ("log_loss", "log_loss_uncalibrated", "quadratic_kappa", "accuracy")
_TEMPERATURES = np.geomspace(0.3, 3.0, 200)
_LEAST = 1e-12  # of a probability whose logarithm is taken


@dataclass(frozen=True, eq=False)
class Held:
    """What one fit answered to its held-out fold: logits (N, 5), grades (N,), patients, seconds of fitting."""

    fold: int
    logits: npt.NDArray[np.float32]
    grades: Ints
    patients: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Row:
    """One candidate of the table.

    folds: those that are done; figures are over their knees.
    figures: by the names of `FIGURES`.
    differences: this candidate less the reference, on the folds that both have; empty for the reference.
    later: as `differences`, on the folds after the halving only, which chose nothing; empty without one.
    by_fold: log loss of each fold that is done.
    first_loss: log loss over the folds that every candidate is fitted on; None until they are done.
    gflop: of a forward of one knee times the epochs: what training costs, for ties.
    chosen: of its member, among the candidates that have all folds.
    tied: no more than one standard error behind the best one.
    """

    candidate: Candidate
    folds: tuple[int, ...]
    knees: int
    patients: int
    figures: Mapping[str, Estimate]
    differences: Mapping[str, Estimate]
    later: Mapping[str, Estimate]
    by_fold: tuple[float, ...]
    first_loss: float | None
    gflop: float
    seconds: float
    chosen: bool = False
    tied: bool = False


def table(space: Space, held: Mapping[str, Sequence[Held]]) -> list[Row]:
    """The rows of all candidates, those without a finished fold included.

    Args:
        space: the candidates.
        held: by candidate, what is done of it, by fold.
    """
    rows: list[Row] = []
    for candidates in space.members().values():
        reference = held[candidates[0].name]
        mine = [_row(space, candidate, held[candidate.name], reference) for candidate in candidates]
        rows += _chosen(space, mine, held)
    return rows


def calibrated(held: Held) -> Floats:
    """Probabilities (N, 5) after a temperature that the other half of the fold's patients chose."""
    probabilities = np.empty(held.logits.shape, np.float64)
    half = np.asarray(held_back(held.patients, 0.5, salt="temperature"))
    for part in (half, ~half):
        temperature = _temperature(held.logits[~part], held.grades[~part])
        probabilities[part] = _softmax(held.logits[part] / temperature)
    return probabilities


def training_gflop(config: MemberConfig) -> float:
    """Billions of floating point operations of one knee's forward passes through all epochs."""
    return _forward_gflop(config.backbone, config.spec.size) * config.epochs


@cache
def _forward_gflop(backbone: str, size: tuple[int, int]) -> float:
    model = KLGrader(backbone).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, *size))
    return float(counter.get_total_flops()) / 1e9


def _temperature(logits: npt.NDArray[np.float32], grades: Ints) -> float:
    """The likelihood's choice; 1 where there is nothing to choose by."""
    if not len(grades):
        return 1.0
    losses = [log_loss(grades, _softmax(logits / temperature)) for temperature in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def _softmax(logits: npt.NDArray[np.floating]) -> Floats:
    values = np.exp(np.asarray(logits, np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(values / values.sum(axis=1, keepdims=True), np.float64)


def _row(space: Space, candidate: Candidate, done: Sequence[Held], reference: Sequence[Held]) -> Row:
    folds = tuple(held.fold for held in done)
    patients = [patient for held in done for patient in held.patients]
    figures: dict[str, Estimate] = {}
    if done:
        sums = _sums(done, space.decoder)
        bootstrap = PatientBootstrap(patients)
        draws = _of_sums(bootstrap.sums(sums))
        figures = {name: estimate(value[0], draws[name]) for name, value in _of_sums(sums.sum(axis=0)[None]).items()}
    losses = {held.fold: log_loss(held.grades, calibrated(held)) for held in done}
    chosen_by = space.halving.folds if space.halving else space.folds
    first = [held for held in done if held.fold < chosen_by]
    others = [] if candidate.is_reference else reference
    knees = [len(held.grades) for held in first]
    return Row(
        candidate,
        folds,
        sum(len(held.grades) for held in done),
        len(set(patients)),
        figures,
        _estimates(done, others, space.decoder),
        _estimates([held for held in done if held.fold >= chosen_by], others, space.decoder),
        tuple(losses.values()),
        float(np.average([losses[held.fold] for held in first], weights=knees)) if len(first) == chosen_by else None,
        training_gflop(candidate.config),
        sum(held.seconds for held in done),
    )


def _estimates(done: Sequence[Held], reference: Sequence[Held], decoder: str) -> dict[str, Estimate]:
    """Paired differences on the folds that both have; empty where there is none."""
    both = {held.fold for held in reference} & {held.fold for held in done}
    if not both:
        return {}
    first, second = ([held for held in part if held.fold in both] for part in (done, reference))
    return {name: estimate(value, draws) for name, (value, draws) in _differences(first, second, decoder).items()}


def _chosen(space: Space, rows: Sequence[Row], held: Mapping[str, Sequence[Held]]) -> list[Row]:
    """The rows, the one that is chosen marked, and all that lie within one standard error of the best."""
    finished = [row for row in rows if len(row.folds) == space.folds]
    if not finished:
        return list(rows)
    best = min(finished, key=lambda row: row.figures["log_loss"].value or 0.0)
    tied = {row.candidate.name for row in finished if _within_one_error(row, best, held, space.decoder)}
    among = [row for row in finished if row.candidate.name in tied]
    chosen = min(
        among, key=lambda row: (not row.candidate.is_reference, row.gflop, row.figures["log_loss"].value or 0.0)
    )
    return [
        replace(row, chosen=row.candidate.name == chosen.candidate.name, tied=row.candidate.name in tied)
        for row in rows
    ]


def _within_one_error(row: Row, best: Row, held: Mapping[str, Sequence[Held]], decoder: str) -> bool:
    """Whether the paired difference of log loss to the best one is at most its bootstrap standard error."""
    if row is best:
        return True
    found = _differences(held[row.candidate.name], held[best.candidate.name], decoder)
    value, draws = found["log_loss"]
    return value <= float(np.std(draws, ddof=1))


def _differences(first: Sequence[Held], second: Sequence[Held], decoder: str) -> dict[str, tuple[float, Floats]]:
    """`first` less `second`, with the same in every resample; both hold the same knees in the same order."""
    bootstrap = PatientBootstrap([patient for held in first for patient in held.patients])
    mine, theirs = _sums(first, decoder), _sums(second, decoder)
    width = mine.shape[1]
    drawn = bootstrap.sums(np.concatenate([mine, theirs], axis=1))
    ours, others = _of_sums(drawn[:, :width]), _of_sums(drawn[:, width:])
    value, other = _of_sums(mine.sum(axis=0)[None]), _of_sums(theirs.sum(axis=0)[None])
    return {name: (float(value[name][0] - other[name][0]), ours[name] - others[name]) for name in FIGURES}


def _sums(done: Sequence[Held], decoder: str) -> Floats:
    """Of each knee what the figures are sums of, (N, 28): 1, both losses, and its place in the confusion table."""
    parts = []
    for held in done:
        rows, chances = np.arange(len(held.grades)), calibrated(held)
        losses = [-np.log(p[rows, held.grades].clip(_LEAST)) for p in (chances, _softmax(held.logits))]
        place = np.zeros((len(rows), GRADES * GRADES))
        place[rows, held.grades * GRADES + decode(chances, decoder)] = 1
        parts.append(np.column_stack([np.ones(len(rows)), *losses, place]))
    return np.concatenate(parts)


def _of_sums(sums: Floats) -> dict[str, Floats]:
    """The figures of (R, 28) sums, (R,) each. Kappa: Cohen (1968), quadratic weights; NaN where it has none."""
    count = sums[:, 0]
    confusion = sums[:, 3:].reshape(-1, GRADES, GRADES)
    weights = np.square(np.subtract.outer(np.arange(GRADES), np.arange(GRADES))).astype(np.float64)
    observed = np.einsum("rij,ij->r", confusion, weights)
    expected = np.einsum("ri,rj,ij->r", confusion.sum(axis=2), confusion.sum(axis=1), weights) / count
    kappa = np.full(len(sums), np.nan)
    known = expected > 0
    kappa[known] = 1 - observed[known] / expected[known]
    return {
        "log_loss": sums[:, 1] / count,
        "log_loss_uncalibrated": sums[:, 2] / count,
        "quadratic_kappa": kappa,
        "accuracy": np.einsum("rii->r", confusion) / count,
    }
