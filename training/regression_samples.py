"""What heads learn from: knees with image features, grade and the person, and the columns that are made of them.

Whatever is made from data here (levels, medians) is made from the rows that `Design.of` is given: training rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from training.folds import patient_folds

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]
Strings = npt.NDArray[np.str_]
UNKNOWN = 5  # the column of knees without a grade, after KL 0..4
INNER = 4  # folds of the inner cross-validation
EASE = 10.0  # of other columns beside an image: they are penalised a hundredth as much
_WHOLE = 0.95
_RARE = 10  # knees; a race with fewer counts as another one


class Tokens(Protocol):
    """Patch tokens of knees, read in bounded pieces."""

    def batches(self, knees: Sequence[str], size: int, seed: int | None) -> Iterator[tuple[Ints, Matrix]]:
        """(places among `knees`, tokens float32 (n, P, C)) until each knee came once; mixed when there is a seed."""
        ...

    @property
    def digest(self) -> str:
        """What decides the tokens."""
        ...


@dataclass(frozen=True, eq=False)
class Samples:
    """N knees.

    knees, patients: keys. image: (N, D) or (N, 0). grades: 0..4, UNKNOWN for none. age: years, NaN for unknown.
    sex, race: empty for unknown. tokens: where a head wants them.
    """

    knees: Strings
    patients: Strings
    image: Matrix
    grades: Ints
    age: Floats
    sex: Strings
    race: Strings
    tokens: Tokens | None = None

    def __len__(self) -> int:
        return len(self.knees)

    def take(self, rows: npt.NDArray[np.bool_] | Ints) -> "Samples":
        """Some of the knees."""
        names = ("knees", "patients", "image", "grades", "age", "sex", "race")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


@dataclass(frozen=True, eq=False)
class Curve:
    """One figure after one epoch."""

    epoch: int
    name: str
    value: float


class Fitted(Protocol):
    """A head that has learnt."""

    @property
    def chosen(self) -> Mapping[str, Any]:
        """What was chosen on the training rows."""
        ...

    @property
    def curves(self) -> Sequence[Curve]:
        """Epoch by epoch, of heads that learn so."""
        ...

    def predict(self, samples: Samples) -> tuple[Floats, Floats]:
        """Mean and median, (N,) each, not yet cut to bounds."""
        ...

    def final(self) -> Mapping[str, Any] | None:
        """Fields of a `FinalHead` (kind, tensors, ...), None for a head that is not exported."""
        ...


class Head(Protocol):
    """Something that learns from samples."""

    @property
    def name(self) -> str:
        """As in `system.json`."""
        ...

    def fit(self, samples: Samples, target: Floats, seed: int) -> Fitted:
        """Learn from these rows alone."""
        ...


@dataclass(frozen=True, eq=False)
class Design:
    """The columns that a linear head sees, decided on training rows.

    parts: of "image", "grades", "people". age: median that stands for a missing age. races: levels with a column.
    """

    parts: tuple[str, ...]
    age: float = 0.0
    races: tuple[str, ...] = ()

    @classmethod
    def of(cls, samples: Samples, parts: tuple[str, ...]) -> "Design":
        """Decide on these rows."""
        if "people" not in parts:
            return cls(parts)
        known = samples.age[np.isfinite(samples.age)]
        levels, counts = np.unique(samples.race[samples.race != ""], return_counts=True)
        races = tuple(str(level) for level, count in zip(levels, counts, strict=True) if count >= _RARE)
        return cls(parts, float(np.median(known)) if len(known) else 0.0, races)

    def columns(self, samples: Samples) -> Matrix:
        """(N, D) float32."""
        blocks = [self._block(part, samples) for part in self.parts]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def ease(self, samples: Samples) -> Floats:
        """(D,) by how much a column is spared from the penalty: those of KL and person beside an image are."""
        few = samples.take(np.arange(min(1, len(samples))))
        widths = [self._block(part, few).shape[1] for part in self.parts]
        spared = [EASE if "image" in self.parts and part != "image" else 1.0 for part in self.parts]
        return np.repeat(spared, widths)

    def _block(self, part: str, samples: Samples) -> Matrix:
        if part == "image":
            return samples.image
        return one_hot(samples.grades) if part == "grades" else self._people(samples)

    def _people(self, samples: Samples) -> Matrix:
        missing = ~np.isfinite(samples.age)
        years = (np.where(missing, self.age, samples.age) - self.age) / 10
        other = (samples.race != "") & ~np.isin(samples.race, self.races)
        columns = [years, years**2, missing, samples.sex == "F", samples.sex == "M", samples.sex == ""]
        columns += [samples.race == race for race in self.races] + [samples.race == "", other]
        return np.stack(columns, axis=1).astype(np.float32)


def is_whole(target: Floats) -> bool:
    """Whether a target comes in whole numbers (95 % of it), and so does its median."""
    return bool(np.mean(target == np.rint(target)) >= _WHOLE)


def one_hot(grades: Ints) -> Matrix:
    """(N,) grades to (N, 6): KL 0..4, unknown."""
    return np.eye(UNKNOWN + 1, dtype=np.float32)[grades]


def inner_folds(samples: Samples, target: Floats, seed: int) -> Ints:
    """Patient-grouped folds among training rows, (N,); two or more.

    Raises:
        DataError: there are fewer than two patients.
    """
    count = min(INNER, len(np.unique(samples.patients)))
    return patient_folds(samples.patients.tolist(), target, max(count, 2), seed)
