"""Pairs of knees for readers: the folder that `genu-train readers draw` writes, `serve` shows and `evaluate` judges.

    BENCH/bench.json                 the pairs and the sizes of their pictures; nothing of who or what they are
    BENCH/knees/ID/001.png ...       slices, 16-bit grey, in the order of the volume
    BENCH/truth.json                 which knee of a pair progressed, and where it comes from; `serve` never opens it
    BENCH/answers/DIGEST.jsonl       a reader's answers, a line each (training.readers_answers)
    BENCH/evaluation/                what `evaluate` writes

The task is that of Schiratti et al. 2021 (Arthritis Res Ther 23:262): of a pair one knee progressed and one did not,
and the reader says which. A copy without truth.json can be given away: it serves as well.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from inference.errors import DataError, UsageError

BENCH, TRUTH, KNEES, ANSWERS = "bench.json", "truth.json", "knees", "answers"
STRATA: Final = ("almost certain", "likely", "doubtful")
_VERSION: Final = 1
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{12}")
_MOST: Final = 4096  # rows, columns or slices of a picture


@dataclass(frozen=True)
class Strata:
    """How many pairs of each stratum, and its edges: the change of the progressor's joint space, mm (loss is negative).

    almost certain: change < `almost_certain`. likely: from there to below `likely`. doubtful: from there to below
    `progression`. The other knee of a pair changed by more than `progression`, that is, lost less or gained.
    """

    counts: tuple[int, int, int] = (10, 130, 10)
    almost_certain: float = -1.1
    likely: float = -0.6
    progression: float = -0.5

    def __post_init__(self) -> None:
        edges = (self.almost_certain, self.likely, self.progression)
        if min(self.counts) < 0 or not sum(self.counts):
            raise UsageError(f"--strata {','.join(map(str, self.counts))}: three numbers from 0, not all of them 0.")
        if not all(map(math.isfinite, edges)) or not edges[0] <= edges[1] <= edges[2]:
            raise UsageError(f"edges of strata {edges} mm: they must ascend, as in -1.1, -0.6, -0.5.")

    def bounds(self, number: int) -> tuple[float, float]:
        """From (inclusive) and to (exclusive) of a stratum, mm."""
        edges = (-math.inf, self.almost_certain, self.likely, self.progression)
        return edges[number], edges[number + 1]

    def told(self, number: int) -> str:
        """A stratum in words."""
        low, high = self.bounds(number)
        return f"change < {high:g} mm" if math.isinf(low) else f"{low:g} <= change < {high:g} mm"


@dataclass(frozen=True)
class Knee:
    """What is shown of a knee: size and spacing (mm) of its slices, and the grey values that begin as black and white.

    edges: what lies at the left and at the right border of a slice. order: what lies at the first and the last slice.
    sha256: of its files.
    """

    slices: int
    rows: int
    columns: int
    row_mm: float
    column_mm: float
    window: tuple[int, int]
    edges: tuple[str, str]
    order: tuple[str, str]
    sha256: str


@dataclass(frozen=True)
class Bench:
    """What bench.json holds; `folder` is where it lies, `digest` the SHA-256 of that file.

    pairs: identifier of each pair and of its two knees, in an order that means nothing.
    months: from the image to the second measurement, None where the cohort does not say.
    source: "series" (every slice as measured) or "prepared" (the slices of a network). mirrored: all look like left.
    """

    folder: Path
    digest: str
    pairs: tuple[tuple[str, str, str], ...]
    knees: Mapping[str, Knee]
    sequence: str
    months: int | None
    loss_mm: float
    source: str
    mirrored: bool
    synthetic: bool

    def picture(self, knee: str, number: int) -> Path:
        """The file of a slice, `number` from 1. Raises DataError for one that there is not."""
        if knee not in self.knees or not 1 <= number <= self.knees[knee].slices:
            raise DataError(f"{self.folder} has no slice {number} of a knee {knee!r}.")
        return self.folder / KNEES / knee / f"{number:03d}.png"


@dataclass(frozen=True)
class TruePair:
    """What is true of a pair: identifier, stratum (a name of STRATA), progressor and the other knee.

    keys: of both in the cohort, progressor first. changes: of the joint space of both, mm.
    """

    pair: str
    stratum: str
    progressor: str
    other: str
    keys: tuple[str, str]
    changes: tuple[float, float]


@dataclass(frozen=True)
class Truth:
    """What truth.json holds: the pairs, and `about` how they were drawn."""

    pairs: tuple[TruePair, ...]
    about: Mapping[str, Any] = field(default_factory=dict)


def write_bench(folder: Path, bench: Bench, truth: Truth) -> str:
    """Write bench.json and truth.json into a folder whose pictures are there; returns the digest."""
    values = {name: value for name, value in asdict(bench).items() if name not in ("folder", "digest")}
    text = json.dumps({"version": _VERSION, **values}, indent=1) + "\n"
    (folder / BENCH).write_text(text, encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    content = {
        "version": _VERSION,
        "bench": digest,
        "about": dict(truth.about),
        "pairs": list(map(asdict, truth.pairs)),
    }
    (folder / TRUTH).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return digest


def read_bench(folder: Path) -> Bench:
    """The pairs in a folder, without the truth.

    Raises:
        DataError: there are none, they are of another version of Genu, or the file is damaged.
    """
    path = folder / BENCH
    try:
        raw = path.read_bytes()
        values = json.loads(raw)
        if values.pop("version") != _VERSION:
            raise DataError(f"{path} is of another version of Genu: draw the pairs again.")
        knees = {_identifier(name): _knee(one) for name, one in values.pop("knees").items()}
        pairs = tuple((_identifier(name), one, other) for name, one, other in values.pop("pairs"))
        if not pairs or len({name for name, *_ in pairs}) < len(pairs):
            raise DataError(f"{path} has no pairs, or one twice: draw them again.")
        shown = [knee for _, *both in pairs for knee in both]
        if len(set(shown)) < len(shown) or set(shown) != knees.keys():
            raise DataError(f"{path}: a knee is in two pairs, or in none: draw the pairs again.")
        return Bench(folder=folder, digest=hashlib.sha256(raw).hexdigest(), pairs=pairs, knees=knees, **values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}): make the folder with `genu-train readers draw`.") from error


def read_truth(bench: Bench) -> Truth:
    """What is true of the pairs.

    Raises:
        DataError: truth.json is missing or damaged, or of other pairs.
    """
    path = bench.folder / TRUTH
    try:
        values = json.loads(path.read_text("utf-8"))
        if values["bench"] != bench.digest:
            raise DataError(f"{path} is of other pairs than {BENCH}: put the two files of one draw together.")
        pairs = tuple(
            TruePair(**{**one, "keys": _two(one["keys"]), "changes": _two(one["changes"])}) for one in values["pairs"]
        )
        if [(one.pair, {one.progressor, one.other}) for one in pairs] != [(p, {a, b}) for p, a, b in bench.pairs]:
            raise DataError(f"{path} has other pairs than {BENCH}: draw them again.")
        return Truth(pairs, values["about"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}): it is needed to judge answers.") from error


def _knee(values: Mapping[str, Any]) -> Knee:
    pairs = {name: _two(values[name]) for name in ("window", "edges", "order")}
    knee = Knee(**{**values, **pairs})
    for size in (knee.slices, knee.rows, knee.columns):
        if not isinstance(size, int) or not 1 <= size <= _MOST:
            raise ValueError(f"a knee has {knee.slices} slices of {knee.rows} x {knee.columns}")
    if not (knee.row_mm > 0 and knee.column_mm > 0):
        raise ValueError("a pixel has no size")
    return knee


def _identifier(text: str) -> str:
    """Identifiers become names of folders: nothing but twelve hexadecimal digits."""
    if not _IDENTIFIER.fullmatch(text):
        raise ValueError(f"{text!r} is no identifier")
    return text


def _two(values: Sequence[Any]) -> tuple[Any, Any]:
    one, other = values
    return one, other
