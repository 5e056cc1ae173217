"""From a row of a cohort to the crop of one knee, by the pixels, the finder and the preprocessing of inference.

The rows say which knee is which and how the film is stored; the pixels have to agree with them. What does not become a
crop becomes a reason. `read_film` is what a decode worker runs.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from inference.errors import DataError, RefusalError, UnreadableError
from inference.films import squared_pixels
from inference.finder import Finder, Sighting, Sightings
from inference.findings import Box, RefusalCode, Side
from inference.fitness import unfit_exposure, unfit_looks, unfit_place
from inference.pixels import load_display
from inference.preprocess import PreprocessSpec, crop, equalise_flat, stored
from inference.reading import read_instance
from inference.sides import Shown, lateral_of
from inference.spacing import pixel_shape
from training.export_names import Export
from training.exports import Held, Item, held

_VERSION = 1  # of what this module makes of a film; a change of it is a miss
_INVERTED = 0.5
_ALIKE = 1.6  # two knees on one film are of about one size
_COLUMNS = ("knee", "SOPInstanceUID", "path", "side", "bilateral", "flipped", "inverted")
Unfound = tuple[RefusalCode, str]


@dataclass(frozen=True)
class KneeRow:
    """One knee of an image, by the cohort: `flipped` the patient's left is at the left, `inverted` bone is dark."""

    knee: str
    sop_instance_uid: str
    path: str
    side: Side
    bilateral: bool
    flipped: bool
    inverted: bool


@dataclass(frozen=True)
class Film:
    """The knees of one image that are to be read. `known` are the sources of each knee that need not be read again."""

    export: Export
    knees: tuple[KneeRow, ...]
    spec: PreprocessSpec
    known: tuple[frozenset[str], ...]

    @property
    def path(self) -> Path:
        """What the index calls the file."""
        return Path(self.knees[0].path)

    @property
    def item(self) -> Item:
        """The file, wherever it is."""
        return Item(self.export, self.knees[0].path)


@dataclass(frozen=True, eq=False)
class PreparedKnee:
    """What came of one knee.

    `source` is the SHA-256 of the file's content and of all else that decides the crop, empty where the file cannot be
    opened. Then one of three: `crop` uint8 (S, S) on the canonical side with the SHA-256 of its `pixels`; a `code` and
    a `reason`; or neither, for a source that was known.
    """

    row: KneeRow
    source: str
    crop: npt.NDArray[np.uint8] | None = None
    pixels: str = ""
    code: str = ""
    reason: str = ""


def read_cohort(folder: Path) -> list[KneeRow]:
    """The knees of `cohort.parquet`, those of one image beside each other.

    Raises:
        DataError: the file or a column is missing, a value is null or of another kind, a knee is there twice, or a path
            leads out of the export.
    """
    return read_rows(folder / "cohort.parquet")


def read_rows(path: Path) -> list[KneeRow]:
    """The knees of a table with the columns of a cohort, as `read_cohort`. Raises DataError."""
    try:
        names = pq.read_schema(path).names
        missing = [name for name in _COLUMNS if name not in names]
        if missing:
            raise DataError(f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(names)}.")
        table = pq.read_table(path, columns=list(_COLUMNS)).to_pylist()
        rows = [_row(values) for values in table]
    except (OSError, pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}): make it with `genu-train cohort`.") from error
    if not rows:
        raise DataError(f"{path} holds no knee.")
    if len({row.knee for row in rows}) < len(rows):
        raise DataError(f"{path} holds a knee twice: each has one row.")
    return sorted(rows, key=lambda row: (row.path, row.knee))


def films(
    export: Export, rows: Sequence[KneeRow], spec: PreprocessSpec, known: dict[str, frozenset[str]]
) -> Iterator[Film]:
    """The rows by image; `known` sources by knee."""
    for _, group in groupby(rows, key=lambda row: (row.path, row.sop_instance_uid)):
        knees = tuple(group)
        yield Film(export, knees, spec, tuple(known.get(row.knee, frozenset()) for row in knees))


def known_film(film: Film) -> list[PreparedKnee] | None:
    """The knees of a film that need not be read, by the hash of its file alone; None where one of them has to be."""
    try:
        sources = _sources(film, film.item.digest())
    except (OSError, UnreadableError):
        return None
    if not all(source in known for source, known in zip(sources, film.known, strict=True)):
        return None
    return [PreparedKnee(row, source) for row, source in zip(film.knees, sources, strict=True)]


def read_film(film: Film) -> list[PreparedKnee]:
    """Every knee of a film, in the order of its rows.

    Raises:
        ResourceError: memory or descriptors are short, or a store does not answer; BundleError: the shipped finder
            cannot be used.
    """
    try:
        with held(film.item) as file:
            return _read(film, file)
    except OSError as error:
        return _unopened(film, RefusalCode.UNREADABLE, f"the file cannot be opened ({error.strerror}).")
    except UnreadableError as error:
        return _unopened(film, error.refusal.code, error.refusal.reason)


def _unopened(film: Film, code: RefusalCode, reason: str) -> list[PreparedKnee]:
    return [PreparedKnee(row, "", code=code, reason=reason) for row in film.knees]


def _read(film: Film, file: Held) -> list[PreparedKnee]:
    sources = _sources(film, file.content)
    found = [PreparedKnee(row, source) for row, source in zip(film.knees, sources, strict=True)]
    wanted = [n for n, known in enumerate(film.known) if sources[n] not in known]
    for flags in dict.fromkeys(_flags(film.knees[n]) for n in wanted):
        numbers = [n for n in wanted if _flags(film.knees[n]) == flags]
        crops = _crops(file, [film.knees[n] for n in numbers], film.spec)
        for number, made in zip(numbers, crops, strict=True):
            found[number] = _prepared(film.knees[number], sources[number], made)
    return found


def source_digest(content: str, row: KneeRow, spec: PreprocessSpec) -> str:
    """SHA-256 of a file's content, of what the cohort says of the knee, of how it is cut out, and of the finder."""
    said = [row.sop_instance_uid, row.side, *_flags(row)]
    parts = [_VERSION, content, said, spec.to_json(), finder().digest, asdict(finder().thresholds)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def finder() -> Finder:
    """The shipped finder, loaded once in each process. Raises BundleError."""
    return Finder.load()


def _sources(film: Film, content: str) -> list[str]:
    return [source_digest(content, row, film.spec) for row in film.knees]


def _flags(row: KneeRow) -> tuple[bool, bool, bool]:
    return row.bilateral, row.flipped, row.inverted


def _row(values: dict[str, Any]) -> KneeRow:
    knee, uid, path = (values[name] for name in ("knee", "SOPInstanceUID", "path"))
    bilateral, flipped, inverted = flags = [values[name] for name in ("bilateral", "flipped", "inverted")]
    if not all(isinstance(text, str) and text for text in (knee, uid, path)) or {type(flag) for flag in flags} != {
        bool
    }:
        raise ValueError(f"a value of the knee {values['knee']!r} is null or of another kind")
    place = PurePosixPath(path)
    if place.is_absolute() or ".." in place.parts:
        raise ValueError(f"the path of the knee {values['knee']!r} leads out of the export")
    return KneeRow(knee, uid, path, Side(values["side"]), bilateral, flipped, inverted)


def _prepared(row: KneeRow, source: str, made: npt.NDArray[np.uint8] | Unfound) -> PreparedKnee:
    if isinstance(made, tuple):
        return PreparedKnee(row, source, code=made[0], reason=made[1])
    return PreparedKnee(row, source, made, hashlib.sha256(f"{made.shape}".encode() + made.tobytes()).hexdigest())


def _crops(file: Held, rows: Sequence[KneeRow], spec: PreprocessSpec) -> list[npt.NDArray[np.uint8] | Unfound]:
    """Of rows with the same flags."""
    first = rows[0]
    try:
        instance = read_instance(file.path, place=file.place)
        if instance.sop_instance_uid != first.sop_instance_uid:
            reason = f"the file holds the instance {instance.sop_instance_uid}, the cohort another one."
            return [(RefusalCode.IDENTITY_CONTRADICTORY, reason)] * len(rows)
        image = load_display(instance)
    except RefusalError as error:
        return [(error.refusal.code, error.refusal.reason)] * len(rows)
    values = image.values
    if first.inverted:
        values = 1 - values
        if image.padding is not None:
            values[image.padding] = 0.0
    if first.flipped:
        values = np.ascontiguousarray(values[:, ::-1])
    shape = pixel_shape(instance.header)
    sightings = finder().look(squared_pixels(values, shape))
    return [_crop(values, shape, sightings, row, spec) for row in rows]


def _crop(
    values: npt.NDArray[np.float32], shape: float, sightings: Sightings, row: KneeRow, spec: PreprocessSpec
) -> npt.NDArray[np.uint8] | Unfound:
    columns = values.shape[1]
    sighting = _mine(sightings, row, columns)
    if isinstance(sighting, tuple):
        return sighting
    square = sighting.box
    box = Box(square.left, square.top / shape, square.right, square.bottom / shape)
    unfit = (
        _contradiction(sighting, row, columns)
        or unfit_place(box, *values.shape)
        or unfit_looks(sighting, finder().thresholds)
    )
    if unfit is not None:
        return unfit
    cut = crop(values, box, spec.crop_size, mirror=row.side is not spec.canonical_side)
    if (unfit := unfit_exposure(cut)) is not None:
        return unfit
    return stored(equalise_flat(cut, spec))


def _mine(sightings: Sightings, row: KneeRow, columns: int) -> Sighting | Unfound:
    """The row's knee among those that were found on an upright film whose columns run to the patient's left."""
    limits = finder().thresholds
    knees = sorted((knee for knee in sightings.knees if knee.score >= limits.knee), key=lambda knee: knee.x)
    best = max((knee.score for knee in sightings.knees), default=0.0)
    if sightings.other_view >= limits.other_view:
        return RefusalCode.NO_FRONTAL_VIEW, f"it looks like a lateral or axial view ({sightings.other_view:.2f})."
    if sightings.turned >= limits.turned and sightings.turned > best:
        return RefusalCode.FILM_TURNED, f"the knee lies on its side or head down ({sightings.turned:.2f})."
    if not knees:
        reason = f"no frontal knee was found: the best place has {best:.2f}, at least {limits.knee:.2f} is needed."
        return RefusalCode.NO_KNEE_FOUND, reason
    expected = 2 if row.bilateral else 1
    if len(knees) > expected or (len(knees) == 2 and not _beside(*knees)):
        reason = f"{len(knees)} knees were found, by the cohort the film shows {expected}, side by side if two."
        return RefusalCode.SIDE_UNKNOWN, reason
    if len(knees) == expected:
        return knees[-1 if row.side is Side.LEFT else 0]
    seen = Shown(knees[0].x / columns, knees[0].fibula_right)
    if seen.half != lateral_of(row.side, columns_to_left=True):
        return RefusalCode.NO_KNEE_FOUND, "one of two knees was found, and it lies where the other one would."
    return knees[0]


def _contradiction(sighting: Sighting, row: KneeRow, columns: int) -> Unfound | None:
    """Pixels that say surely what the cohort denies."""
    seen = Shown(sighting.x / columns, sighting.fibula_right).lateral
    if seen == -lateral_of(row.side, columns_to_left=True):
        reason = (
            f"the fibula lies where that of the other knee would: side {row.side} or flipped={row.flipped} is wrong."
        )
        return RefusalCode.SIDE_CONTRADICTORY, reason
    if sighting.inverted > _INVERTED:
        reason = (
            f"bones are dark with inverted={row.inverted} of the cohort, once its photometric interpretation is used."
        )
        return RefusalCode.POOR_EXPOSURE, reason
    return None


def _beside(one: Sighting, other: Sighting) -> bool:
    alike = max(one.size, other.size) <= _ALIKE * min(one.size, other.size)
    return alike and abs(one.x - other.x) > abs(one.y - other.y)
