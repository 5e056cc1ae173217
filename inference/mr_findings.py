"""The word list's part for knee MRI: what a model found on one knee of a series. Imports `inference.findings` alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.findings import Box, Evidence, ModelIdentity, Saliency, Side, SourceImage


@dataclass(frozen=True)
class ClinicalValue:
    """One clinical variable that a probability rests on.

    `name` and unit of `value`: age (years), sex (0 male, 1 female), bmi (kg/m2), height (m), weight (kg), mjsw (mm),
    kl (0..4), womac_pain (0..20), injury and surgery (0, 1). `source` names the DICOM keywords that it was read from;
    None where nothing said it, so that `value` is the median of the training patients.
    """

    name: str
    value: float
    source: str | None

    @property
    def imputed(self) -> bool:
        """Whether the training median stands in."""
        return self.source is None


@dataclass(frozen=True)
class OutcomeFinding:
    """Probability of an outcome of one knee as a model predicts it from an MR series; never what was observed.

    `target` is the label that was learnt ("progression_abs", "womac_pain_class", ...); `classes` its classes in words,
    the last one what is asked for. `probabilities`, one a class, are calibrated and sum to 1; `low` and `high` are
    their intervals, by `method`. `threshold`, of the last of two classes, was chosen inside the training folds.
    """

    target: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    method: str
    threshold: float | None
    clinical: tuple[ClinicalValue, ...]
    model: ModelIdentity

    @property
    def above(self) -> bool | None:
        """Whether the last class reaches the threshold; None without one."""
        return None if self.threshold is None else self.probabilities[-1] >= self.threshold


@dataclass(frozen=True)
class Grid:
    """Directions and distances that all slices of a series share (PS3.3 C.7.6.2): mm, unit vectors in LPS.

    `across` is the direction of increasing columns, `down` of increasing rows, `step` leads from slice to slice (mm).
    """

    across: tuple[float, float, float]
    down: tuple[float, float, float]
    step: tuple[float, float, float]
    row_mm: float
    column_mm: float


@dataclass(frozen=True, eq=False)
class SeenSlice:
    """One source slice that a model read.

    `index` counts all slices of the series in the order of their places, from 0; `position` is the centre of its first
    pixel (mm, LPS). `attention` is its share of the answer; those of all slices sum to 1. `saliency` lies on the source
    image, un-mirrored; 1 is the highest of all slices. `rendering`: uint8 (rows, columns), as a reader would see it.
    """

    source: SourceImage
    index: int
    position: tuple[float, float, float]
    attention: float
    saliency: Saliency
    rendering: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class VolumeFinding:
    """What one model found on one knee of an MR series.

    `sequence` in words ("coronal IW TSE"); `slices` in the order of their places, each source image once; `total`
    counts those of the series; `chosen_by` is "description" or "timing". `region` bounds the highest saliency on the
    slice `peak`, in its pixels.
    """

    side: Side
    series_instance_uid: str
    sequence: str
    chosen_by: str
    outcome: OutcomeFinding
    slices: tuple[SeenSlice, ...]
    total: int
    grid: Grid
    peak: int
    region: Box
    evidence: tuple[Evidence, ...] = ()

    @property
    def top(self) -> SeenSlice:
        """The slice of the highest saliency."""
        return self.slices[self.peak]

    @property
    def model(self) -> ModelIdentity:
        """Who spoke."""
        return self.outcome.model

    @property
    def synthetic(self) -> bool:
        """Whether it is a stand-in, whose output must say so."""
        return self.outcome.model.synthetic
