"""Pictures that are no training knees, as crops: what the score of `inference.unlike` has to keep from being graded.

Drawn ones of every kind that is to be refused, since no data set at hand holds hips, hands or lateral knees, and real
ones out of folders of DICOM files (chests, MR and CT slices). Each film is taken as a whole and in parts, as if a knee
had been found on it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inference.errors import DataError, RefusalError
from inference.findings import Box
from inference.pixels import load_display
from inference.preprocess import PreprocessSpec, equalise_flat, prepare, whole
from inference.reading import read_instance
from training.drawings import PARTS, axial_knee, elsewhere, lateral_knee, scrambled
from training.exposure import exposed, other_bones
from training.filmmaking import Placed, drawn_leg
from training.schematic import CROP, Schematic, schematic_knee

Image = npt.NDArray[np.float32]
Crops = npt.NDArray[np.uint8]
Maker = Callable[[np.random.Generator, Image], Image]

_EXPOSURE = 0.4
_CANVAS = 512
_PARTS_OF_A_FILM = 4


def drawn_strangers(knees: Crops, spec: PreprocessSpec, count: int = 40, seed: int = 0) -> dict[str, Crops]:
    """Drawn pictures and changed knees by kind, each uint8 (count, S, S).

    Args:
        knees: crops (N, S, S) that lend drawings their texture.
        spec: how crops are made.
        count: of each kind.
        seed: decides everything.
    """
    groups = {}
    for kind, (name, make) in enumerate(_makers().items()):
        rng = np.random.default_rng([seed, kind])
        made = []
        for number in range(count):
            knee = np.asarray(knees[int(rng.integers(len(knees)))], np.float32) / np.float32(255)
            film = np.ascontiguousarray(np.clip(make(rng, knee), 0, 1), np.float32)
            made.append(_cut(film, spec, rng, whole_film=number % 2 == 0))
        groups[name] = np.stack(made)
    return groups


def real_strangers(folders: Sequence[Path], spec: PreprocessSpec, seed: int = 0) -> dict[str, Crops]:
    """Every image below these folders that can be shown, by modality and body part; whole, and in parts.

    Raises:
        DataError: there is none.
    """
    found: dict[str, list[Crops]] = {}
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    for number, path in enumerate(paths):
        rng = np.random.default_rng([seed, number])
        try:
            instance = read_instance(path)
            film = load_display(instance).values
        except RefusalError:
            continue
        header = instance.header
        name = f"{header.get('Modality') or 'image'} {header.get('BodyPartExamined') or ''}".strip().upper()
        crops = [_cut(film, spec, rng, whole_film=True)]
        crops += [_cut(film, spec, rng, whole_film=False) for _ in range(_PARTS_OF_A_FILM)]
        found.setdefault(f"real: {name}", []).extend(crops)
    if not found:
        raise DataError(f"no image that can be shown is below {', '.join(map(str, folders))}: name other folders.")
    return {name: np.stack(crops) for name, crops in sorted(found.items())}


def _cut(film: Image, spec: PreprocessSpec, rng: np.random.Generator, *, whole_film: bool) -> Crops:
    """A film that is as large as a crop is one already; of others all, or a square part."""
    rows, columns = film.shape
    if (rows, columns) == (spec.crop_size, spec.crop_size):
        crop = equalise_flat(film, spec)
    elif whole_film:
        crop = prepare(film, whole(rows, columns), spec, mirror=False)
    else:
        side = rng.uniform(0.3, 0.8) * min(rows, columns)
        left, top = rng.uniform(0, columns - side), rng.uniform(0, rows - side)
        box = Box(left, top, left + side, top + side)
        crop = prepare(film, box, spec, mirror=bool(rng.random() < 0.5))
    return np.asarray((crop * 255).round(), np.uint8)


def _makers() -> dict[str, Maker]:
    parts: dict[str, Maker] = {
        f"drawn {part.__name__.strip('_')}": lambda rng, knee, part=part: _film(  # type: ignore[misc]
            elsewhere(_shape(rng), rng, _texture(rng, knee), part), rng
        )
        for part in PARTS
    }
    return {
        **parts,
        "drawn knee from the side": lambda rng, knee: _film(lateral_knee(_shape(rng), rng, _texture(rng, knee)), rng),
        "drawn knee along its axis": lambda rng, knee: _film(axial_knee(_shape(rng), rng, _texture(rng, knee)), rng),
        "drawn tubes, balls and rings": lambda rng, _: _film(other_bones(_shape(rng), rng), rng),
        "drawn shaft": lambda rng, _: _film(_shaft(rng), rng),
        "drawn frontal knee (phantom)": lambda rng, _: _phantom(rng),
        "test pattern (phantom)": lambda rng, _: _pattern(rng),
        "noise": lambda rng, _: _noise(rng),
        "bone of a real knee in disorder": lambda rng, knee: scrambled(knee, rng),
        "real knee on its side": lambda rng, knee: np.rot90(knee, int(rng.choice([1, 3]))),
        "real knee head down": lambda _, knee: knee[::-1, ::-1],
    }


def _film(drawn: Image, rng: np.random.Generator) -> Image:
    return exposed(np.ascontiguousarray(drawn, np.float32), rng, _EXPOSURE)


def _shape(rng: np.random.Generator) -> tuple[int, int]:
    long, ratio = int(rng.uniform(400, 900)), rng.uniform(0.6, 1.0)
    return (long, int(long * ratio)) if rng.random() < 0.7 else (int(long * ratio), long)


def _texture(rng: np.random.Generator, knee: Image) -> Image | None:
    return knee if rng.random() < 0.5 else None


def _shaft(rng: np.random.Generator) -> Image:
    shape, size = _shape(rng), rng.uniform(250, 500)
    away = float(rng.choice([-1, 1])) * rng.uniform(0.8, 2.0) * size
    down = -away if away > 0 else shape[0] - away
    return drawn_leg(Placed(rng.uniform(0.4, 0.6) * shape[1], down, size, 0.0, 1), shape, rng).pixels


def _phantom(rng: np.random.Generator) -> Image:
    """The drawing, cut as the data's crops show their knees."""
    edge = round(0.5 * (1 - CROP) * 330)
    return schematic_knee(330, 330, rng, Schematic.draw(rng))[edge : 330 - edge, edge : 330 - edge]


def _pattern(rng: np.random.Generator) -> Image:
    """Step wedge, chequers, line pairs, discs or a plate with writing."""
    ramp = np.linspace(0, 1, _CANVAS, dtype=np.float32)
    rows, columns = np.indices((_CANVAS, _CANVAS))
    kind = int(rng.integers(5))
    if kind == 0:
        steps = int(rng.integers(4, 16))
        return np.tile(np.floor(ramp * steps) / steps, (_CANVAS, 1)).astype(np.float32)
    if kind == 1:
        size = int(rng.integers(8, 128))
        return ((rows // size + columns // size) % 2).astype(np.float32)
    if kind == 2:
        waves = 0.5 + 0.4 * np.sin(2 * np.pi * rng.uniform(3, 40) * ramp)
        return np.asarray(waves[:, None] * np.ones(_CANVAS), np.float32)
    plate = np.full((_CANVAS, _CANVAS), int(rng.uniform(10, 80)), np.uint8)
    if kind == 3:
        for _ in range(int(rng.integers(4, 16))):
            place = tuple(int(value) for value in rng.uniform(40, _CANVAS - 40, 2))
            cv2.circle(plate, place, int(rng.uniform(10, 80)), int(rng.uniform(90, 255)), -1)
    else:
        cv2.rectangle(plate, (60, 200), (450, 480), int(rng.uniform(90, 200)), -1)
        cv2.putText(plate, "PHANTOM", (60, 140), cv2.FONT_HERSHEY_SIMPLEX, 2.5, 255, 5)
    return plate.astype(np.float32) / np.float32(255)


def _noise(rng: np.random.Generator) -> Image:
    """White, or smooth."""
    noise = rng.standard_normal((_CANVAS, _CANVAS), dtype=np.float32)
    if rng.random() < 0.5:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), float(np.exp(rng.uniform(0, 4)))))
    return np.asarray(0.5 + rng.uniform(0.05, 0.3) * noise / max(float(noise.std()), 1e-6), np.float32)
