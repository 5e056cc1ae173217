"""Kinds of films of the acceptance set that hold no frontal knee, or one that is not fit to be scored.

Knees from the side and along the axis, other joints, metal and casts are drawn: no data set at hand has them.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from inference.findings import RefusalCode, Side
from training import acceptance_films as films
from training.acceptance_dicom import CR, DX, DX_PROCESSING, SECONDARY_CAPTURE, Header
from training.acceptance_films import Image, Knees, Picture
from training.acceptance_kinds import Film, Kind, header, refused, scored, side_of
from training.drawings import axial_knee, elsewhere, lateral_knee, scrambled
from training.exposure import exposed, other_bones
from training.filmmaking import Placed, drawn_leg
from training.metalwork import with_cast, with_implant

Codes = frozenset[RefusalCode]

_NOT_FRONTAL: Codes = frozenset({RefusalCode.NO_FRONTAL_VIEW})
_NO_KNEE: Codes = frozenset({RefusalCode.NO_KNEE_FOUND, RefusalCode.NO_FRONTAL_VIEW, RefusalCode.FILM_TURNED})
_NOT_A_KNEE: Codes = frozenset({RefusalCode.NOT_A_KNEE})
_TURNED: Codes = frozenset({RefusalCode.FILM_TURNED})
_LOST: Codes = frozenset({RefusalCode.NO_KNEE_FOUND})


def drawn(pixels: Image, rng: np.random.Generator) -> Picture:
    """A film without a frontal knee, moderately exposed."""
    return Picture(exposed(np.ascontiguousarray(pixels, np.float32), rng, rng.uniform(0.3, 0.5)))


def lying(rng: np.random.Generator, number: int) -> Header:
    """A header that says "knee, AP", with a side, whatever is on the film."""
    return header(side_of(number), rng, view="AP", description="KNEE AP")


def _shape(rng: np.random.Generator) -> tuple[int, int]:
    long, ratio = int(rng.uniform(600, 1600)), rng.uniform(0.6, 1.0)
    return (long, int(long * ratio)) if rng.random() < 0.7 else (int(long * ratio), long)


# ---- other views and other parts


def _lateral(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = drawn(lateral_knee(_shape(rng), rng, knees.one(rng) if number % 2 else None), rng)
    said = header(side_of(number), rng, view="LL", description="KNEE LATERAL", orientation=("A", "F"))
    return refused(picture, said, _NOT_FRONTAL, "a drawn knee from the side, header says so")


def _lateral_lying(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = drawn(lateral_knee(_shape(rng), rng, knees.one(rng) if number % 2 else None), rng)
    picture = _marked(picture, side_of(number), rng) if number % 3 == 2 else picture
    return refused(picture, lying(rng, number), _NO_KNEE, "a drawn knee from the side, header says AP")


def _marked(picture: Picture, side: Side, rng: np.random.Generator) -> Picture:
    """A letter in a corner of a film without a knee."""
    rows, columns = picture.pixels.shape
    place = films.There(side, columns * 0.5, rows * 0.5, 0.5 * min(rows, columns), 0.5 * min(rows, columns))
    return Picture(films.lettered(Picture(picture.pixels, (place,)), side, rng).pixels)


def _axial(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = drawn(axial_knee(_shape(rng), rng, knees.one(rng) if number % 2 else None), rng)
    word = ("SUNRISE", "MERCHANT", "SKYLINE")[number % 3]
    said = header(side_of(number), rng, view="", description=f"KNEE {word}", orientation=None)
    return refused(picture, said, _NOT_FRONTAL, f"a drawn knee along its axis, header says {word}")


def _axial_lying(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = drawn(axial_knee(_shape(rng), rng, knees.one(rng) if number % 2 else None), rng)
    said = header(("L", "R", "B")[number % 3], rng)
    return refused(picture, said, _NO_KNEE, "a drawn knee along its axis, header says frontal")


def _elsewhere(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    part = ("HIP", "ANKLE", "HAND", "SHOULDER", "CHEST")[number % 5]
    picture = drawn(elsewhere(_shape(rng), rng, knees.one(rng)), rng)
    said = header(side_of(number), rng, part=part, description=f"{part} AP", study=part)
    return refused(picture, said, _NOT_A_KNEE, f"a drawn joint that is no knee, header says {part}")


def _elsewhere_lying(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = drawn(elsewhere(_shape(rng), rng, knees.one(rng) if number % 2 else None), rng)
    picture = _marked(picture, side_of(number), rng) if number % 3 == 2 else picture
    return refused(picture, lying(rng, number), _NO_KNEE, "a drawn joint that is no knee, header says KNEE AP")


def _bones_lying(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = drawn(other_bones(_shape(rng), rng), rng)
    return refused(picture, lying(rng, number), _NO_KNEE, "drawn tubes, balls and rings, header says KNEE AP")


def _scrambled_lying(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = films.resized(Picture(scrambled(knees.one(rng), rng)), *[rng.uniform(2.7, 4.5)] * 2)
    return refused(
        drawn(picture.pixels, rng), lying(rng, number), _NO_KNEE, "a knee's bone in disorder, header KNEE AP"
    )


def _shaft_lying(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    shape, size = _shape(rng), rng.uniform(300, 600)
    away = (1 if number % 2 else -1) * rng.uniform(0.8, 2.0) * size
    placed = Placed(rng.uniform(0.4, 0.6) * shape[1], -away if away > 0 else shape[0] - away, size, 0.0, 1)
    picture = drawn(drawn_leg(placed, shape, rng).pixels, rng)
    return refused(picture, lying(rng, number), _NO_KNEE, "a shaft without its joint, header says KNEE AP")


# ---- turned films


def _turned(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side, quarters = side_of(number), 1 + number % 3
    picture = films.turned(films.single(knees.one(rng), side, rng), quarters)
    shows = f"a {side} knee turned by {90 * quarters} degrees, undeclared"
    return refused(picture, header(side, rng), _TURNED | _LOST, shows)


def _turned_declared(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side, quarters = side_of(number), 1 + number % 3
    picture = films.turned(films.single(knees.one(rng), side, rng), quarters)
    said = header(side, rng, orientation=(("F", "R"), ("R", "H"), ("H", "L"))[number % 3])
    return refused(picture, said, _TURNED, f"a {side} knee turned by {90 * quarters} degrees, declared")


# ---- metal, casts


def _metal(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    picture = films.single(with_implant(knees.one(rng), rng), side, rng, clear=True)
    return refused(picture, header(side, rng), frozenset({RefusalCode.METAL}) | _LOST, f"a {side} knee, metal drawn in")


def _one_with_metal(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side, (right, left) = side_of(number), knees.both(rng)
    pair = (right, with_implant(left, rng)) if side is Side.RIGHT else (with_implant(right, rng), left)
    picture = films.bilateral(pair, rng, clear=True)
    film = scored(picture, header("B", rng), f"both knees, metal drawn into the {side.other} one")
    return replace(film, expected=frozenset({side}))


def _cast(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    picture = films.single(knees.one(rng), side, rng)
    picture = replace(picture, pixels=with_cast(picture.pixels, rng))
    codes = frozenset({RefusalCode.CAST, RefusalCode.METAL, RefusalCode.POOR_EXPOSURE}) | _LOST
    return refused(picture, header(side, rng), codes, f"a {side} knee, a cast or brace drawn around it")


# ---- cut off, too small, badly exposed


def _cut_off(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side, share, edge = side_of(number), rng.uniform(0.3, 0.5), number % 4
    picture = films.single(knees.one(rng), side, rng)
    (rows, columns), knee = picture.pixels.shape, picture.knees[0]
    low_x, low_y = (at - size / 2 + share * size for at, size in ((knee.x, knee.width), (knee.y, knee.height)))
    high_x, high_y = (at + size / 2 - share * size for at, size in ((knee.x, knee.width), (knee.y, knee.height)))
    sides = ((0, rows, int(low_x), columns), (0, rows, 0, int(high_x)), (int(low_y), rows, 0, columns),
             (0, int(high_y), 0, columns))  # fmt: skip
    picture = films.cut(picture, *sides[edge])
    codes = frozenset({RefusalCode.KNEE_CUT_OFF, RefusalCode.SIDE_UNKNOWN}) | _LOST
    where = ("left", "right", "top", "bottom")[edge]
    return refused(picture, header(side, rng), codes, f"{share:.0%} of a {side} knee beyond the film's {where} edge")


def _small(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    picture = films.single(knees.one(rng), side, rng)
    factor = rng.uniform(28, 48) / picture.knees[0].width
    picture = films.resized(picture, factor, factor)
    if number % 2:  # a small picture in a large dark one
        around = max(300 - min(picture.pixels.shape), 0) // 2
        pixels = np.pad(picture.pixels, around)
        picture = Picture(pixels, tuple(replace(k, x=k.x + around, y=k.y + around) for k in picture.knees))
    codes = frozenset({RefusalCode.KNEE_TOO_SMALL, RefusalCode.SIDE_UNKNOWN}) | _LOST
    width = round(picture.knees[0].width)
    return refused(picture, header(side, rng), codes, f"a {side} knee of {width} pixels")


def _spoilt(picture: Picture, pixels: Any, said: Header, shows: str) -> Film:
    spoilt = replace(picture, pixels=np.asarray(np.clip(pixels, 0, 1), np.float32))
    codes = frozenset({RefusalCode.POOR_EXPOSURE}) | _LOST
    encoding = {"window": True, "bits": 12, "low": 0.0, "high": 1.0}
    return refused(spoilt, said, codes, shows, encoding=encoding)


def _burnt(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = films.single(knees.one(rng), side_of(number), rng)
    level = float(np.quantile(films.joint(picture), rng.uniform(0.2, 0.45)))
    return _spoilt(picture, picture.pixels / level, header(side_of(number), rng), "most of the joint is white")


def _noisy(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = films.single(knees.one(rng), side_of(number), rng)
    noise = rng.standard_normal(picture.pixels.shape, dtype=np.float32) * 3 * float(films.joint(picture).std())
    pixels = 0.35 + 0.25 * (picture.pixels - 0.4 + noise)
    return _spoilt(picture, pixels, header(side_of(number), rng), "noise three times as strong as the knee")


def _flat(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = films.single(knees.one(rng), side_of(number), rng)
    level = float(rng.uniform(0.2, 0.7))
    shows = "the knee uses 4 % of the grey values"
    return _spoilt(picture, level + 0.04 * picture.pixels, header(side_of(number), rng), shows)


# ---- objects that are no radiograph to be scored, and headers that say too little


def _with(codes: Codes, shows: str, frames: int = 1, **said: Any) -> Any:
    def make(knees: Knees, rng: np.random.Generator, number: int) -> Film:
        side = side_of(number)
        changed = header(side, rng, sop_class=DX, **said) if "sop_class" not in said else header(side, rng, **said)
        picture = films.single(knees.one(rng), side, rng)
        return refused(picture, changed, codes, f"a {side} knee, {shows}", frames=frames)

    return make


def _one(code: RefusalCode) -> Codes:
    return frozenset({code})


def _whole_study(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    """Right and left frontal, and a lateral: three films of one study."""
    shown = number % 3
    if shown == 2:
        film = _lateral(knees, rng, number)
    else:
        side = Side.RIGHT if shown == 0 else Side.LEFT
        said = header(side, rng, study="KNEES BOTH")
        film = scored(films.single(knees.one(rng), side, rng), said, f"{side} knee of a study of three films")
    return replace(film, study=number // 3)


KINDS = (
    Kind("lateral", _lateral),
    Kind("lateral, header says AP", _lateral_lying, common=True),
    Kind("axial", _axial),
    Kind("axial, header says AP", _axial_lying, common=True),
    Kind("other joint", _elsewhere),
    Kind("other joint, header says KNEE AP", _elsewhere_lying, common=True),
    Kind("other bones, header says KNEE AP", _bones_lying),
    Kind("bone in disorder, header says KNEE AP", _scrambled_lying, common=True),
    Kind("shaft, header says KNEE AP", _shaft_lying),
    Kind("turned, undeclared", _turned, common=True),
    Kind("turned and declared", _turned_declared),
    Kind("implant, screws or plate", _metal, common=True),
    Kind("both knees, one with metal", _one_with_metal),
    Kind("cast or brace", _cast),
    Kind("cut off", _cut_off, common=True),
    Kind("too small", _small),
    Kind("over-exposed", _burnt),
    Kind("under-exposed", _noisy),
    Kind("flat", _flat),
    Kind(
        "secondary copy",
        _with(_one(RefusalCode.DERIVED_IMAGE), "DERIVED\\SECONDARY", image_type=("DERIVED", "SECONDARY")),
    ),
    Kind(
        "localizer",
        _with(
            _one(RefusalCode.DERIVED_IMAGE), "LOCALIZER", sop_class=CR, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")
        ),
    ),
    Kind("For Processing", _with(_one(RefusalCode.FOR_PROCESSING), "For Processing", sop_class=DX_PROCESSING)),
    Kind("multi-frame", _with(_one(RefusalCode.UNSUPPORTED_SOP_CLASS), "three frames", frames=3)),
    Kind(
        "Secondary Capture",
        _with(_one(RefusalCode.UNSUPPORTED_SOP_CLASS), "Secondary Capture", sop_class=SECONDARY_CAPTURE),
    ),
    Kind(
        "nothing says knee",
        _with(_NOT_A_KNEE, "nothing says that it is one", sop_class=CR, part=None, description="AP", study=""),
    ),
    Kind(
        "nothing says which view",
        _with(_one(RefusalCode.VIEW_UNKNOWN), "nothing says which view", sop_class=CR, view=None, description="KNEE"),
    ),
    Kind("study of three films", _whole_study),
)
