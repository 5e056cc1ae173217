"""Systems and baselines on knee MRI: what each sees, and how a fold of it is fitted and answers.

The baselines are those without which an AUC says nothing: a measured joint space width alone can reach about .77 on the
relative endpoint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inference.errors import UsageError
from inference.slice_nets import SliceNetSpec
from training.folds import patient_folds
from training.regression_samples import Curve
from training.slice_fit import Floats, Ints, SliceFitConfig, SliceModel, Slices, best_threshold, fit_slices

CLINICAL = ("age", "sex", "bmi", "height", "weight", "mjsw", "kl", "womac_pain", "injury", "surgery")


@dataclass(frozen=True)
class SliceSystem:
    """One row of the table. clinical: variables it sees; image: whether it sees slices."""

    name: str
    title: str
    kind: str
    clinical: tuple[str, ...]
    image: bool

    @property
    def head(self) -> str:
        """In words, for the report."""
        if self.image:
            return "attention over slices"
        return "logistic regression" if self.clinical else "training folds' shares"


@dataclass(frozen=True, eq=False)
class SliceSamples:
    """Rows: slices (N, S, D), clinical (N, len(CLINICAL)) with NaN, patients (N,)."""

    slices: Slices
    clinical: Floats
    patients: npt.NDArray[np.str_]

    def take(self, rows: npt.NDArray[np.bool_]) -> "SliceSamples":
        """The chosen rows."""
        return SliceSamples(self.slices[rows], self.clinical[rows], self.patients[rows])

    def columns(self, names: Sequence[str]) -> Floats:
        """Clinical variables by name, (N, len(names))."""
        return self.clinical[:, [CLINICAL.index(name) for name in names]]


class FittedFold(Protocol):
    """A fold's model."""

    @property
    def threshold(self) -> float | None:
        """Of the second class of two."""

    @property
    def chosen(self) -> Mapping[str, Any]:
        """What was chosen inside of the fold, for people."""

    @property
    def curves(self) -> Sequence[Curve]:
        """Figures by epoch; none where nothing is learnt by epochs."""

    def probabilities(self, samples: SliceSamples) -> Floats:
        """(N, K)."""

    def attention(self, samples: SliceSamples) -> Floats | None:
        """Weights of the slices, (N, S); None of a system that sees none."""


def systems(target: str) -> tuple[SliceSystem, ...]:
    """Baselines first. WOMAC pain is never among the variables where WOMAC pain is what is asked."""
    known = tuple(name for name in CLINICAL if not (target.startswith("womac") and name == "womac_pain"))
    header = ("age", "sex", "bmi", "height", "weight")
    return (
        SliceSystem("prevalence", "Shares of the training folds for everybody", "baseline", (), False),
        SliceSystem("jsw_only", "Minimum medial joint space width alone", "baseline", ("mjsw",), False),
        SliceSystem("kl_only", "KL grade alone", "baseline", ("kl",), False),
        SliceSystem("clinical_only", "Clinical variables alone", "baseline", known, False),
        SliceSystem("image", "Slices alone", "system", (), True),
        SliceSystem("image_header", "Slices, and what a DICOM header can say of the person", "system", header, True),
        SliceSystem("image_clinical", "Slices and clinical variables", "system", known, True),
    )


def chosen_systems(target: str, names: Sequence[str] | None) -> tuple[SliceSystem, ...]:
    """All baselines, and the systems that are named; None for all.

    Raises:
        UsageError: there is none of a name.
    """
    table = systems(target)
    unknown = sorted(set(names or ()) - {system.name for system in table})
    if unknown:
        raise UsageError(
            f"there is no system {', '.join(unknown)}; there are {', '.join(system.name for system in table)}."
        )
    return tuple(s for s in table if names is None or s.kind == "baseline" or s.name in names)


def fit_fold(
    system: SliceSystem, samples: SliceSamples, labels: Ints, classes: int, config: SliceFitConfig, seed: int,
    *, bidirectional: bool = False,
) -> FittedFold:  # fmt: skip
    """Fit a system on training rows.

    Args:
        system: what it sees.
        samples: (N) training rows. labels: (N,), 0..classes-1.
        classes: two or more.
        config: of the slice network. bidirectional: its GRU reads both ways (whole volumes).
        seed: of everything random.
    """
    if not system.image:
        return _Simple.fit(system, samples, labels, classes, seed)
    spec = SliceNetSpec(
        features=samples.slices.shape[2], bidirectional=bidirectional, clinical=system.clinical, classes=classes
    )
    columns = samples.columns(system.clinical)
    return _Network(
        fit_slices(samples.slices, columns, labels, samples.patients.tolist(), spec, config, seed), system.clinical
    )


@dataclass(eq=False)
class _Network:
    model: SliceModel
    clinical: tuple[str, ...]

    @property
    def threshold(self) -> float | None:
        return self.model.threshold

    @property
    def chosen(self) -> Mapping[str, Any]:
        return {
            "best epochs": list(self.model.epochs),
            "temperature": round(self.model.temperature, 4),
            "threshold": None if self.threshold is None else round(self.threshold, 6),
        }

    @property
    def curves(self) -> Sequence[Curve]:
        return self.model.curves

    def probabilities(self, samples: SliceSamples) -> Floats:
        return self.model.probabilities(samples.slices, samples.columns(self.clinical))

    def attention(self, samples: SliceSamples) -> Floats:
        return self.model.attention(samples.slices)


@dataclass(eq=False)
class _Simple:
    """Shares, or logistic regression on imputed, standardised variables with missing indicators."""

    system: SliceSystem
    shares: Floats
    medians: Floats
    model: Any
    threshold: float | None
    chosen: Mapping[str, Any]
    curves: Sequence[Curve] = field(default_factory=tuple)

    @classmethod
    def fit(cls, system: SliceSystem, samples: SliceSamples, labels: Ints, classes: int, seed: int) -> "_Simple":
        shares = np.bincount(labels, minlength=classes) / len(labels)
        columns = samples.columns(system.clinical)
        known = np.isfinite(columns)
        medians = np.array([np.median(c[k]) if k.any() else 0.0 for c, k in zip(columns.T, known.T, strict=True)])
        found = cls(system, shares, medians, None, None, {})
        if system.clinical and len(np.unique(labels)) > 1:
            found.model = _logistic().fit(found._design(columns), labels)
        if classes == 2:
            # Out of inner folds: a threshold of fitted rows would be too sure of itself.
            inner = np.zeros(len(labels))
            parts = patient_folds(samples.patients.tolist(), labels.astype(np.float64), 5, seed)
            for part in range(5):
                held = parts == part
                inner[held] = found._inner(columns, labels, ~held, held, shares)
            found.threshold = best_threshold(labels, inner)
            found.chosen = {"threshold": round(found.threshold, 6)}
        return found

    def _inner(
        self, columns: Floats, labels: Ints, train: npt.NDArray[np.bool_], held: npt.NDArray[np.bool_], shares: Floats
    ) -> Floats:
        if self.model is None or len(np.unique(labels[train])) < 2:
            return np.full(int(held.sum()), shares[1])
        model = _logistic().fit(self._design(columns[train]), labels[train])
        return np.asarray(model.predict_proba(self._design(columns[held]))[:, 1], np.float64)

    def probabilities(self, samples: SliceSamples) -> Floats:
        count, classes = len(samples.patients), len(self.shares)
        if self.model is None:
            return np.tile(self.shares, (count, 1))
        found = np.zeros((count, classes))
        found[:, self.model.classes_] = self.model.predict_proba(self._design(samples.columns(self.system.clinical)))
        return found

    def attention(self, samples: SliceSamples) -> None:
        return None

    def _design(self, columns: Floats) -> Floats:
        missing = ~np.isfinite(columns)
        return np.concatenate([np.where(missing, self.medians, columns), missing.astype(np.float64)], axis=1)


def _logistic() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=500))
