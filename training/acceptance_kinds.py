"""The kinds of films of the acceptance set: what hospitals send, and what is to become of each.

Knees that can be scored, and sides that cannot be known, here; what is no frontal knee or not fit in
`training.acceptance_unfit`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inference.findings import RefusalCode, Side
from training import acceptance_films as films
from training.acceptance_dicom import CR, DX, Header
from training.acceptance_films import Image, Knees, Picture

Orientation = tuple[str, str] | None

UNKNOWN = frozenset({RefusalCode.SIDE_UNKNOWN})
CONTRADICTORY = frozenset({RefusalCode.SIDE_CONTRADICTORY})
NAMES = {"L": "left", "R": "right"}
UPRIGHT, MIRRORED = ("L", "F"), ("R", "F")


@dataclass(frozen=True, eq=False)
class Film:
    """One film of the set, and what is to become of it.

    `expected` are the sides that are to be scored, none where it is to be refused; `codes` are those of a refusal that
    is right. `shows` is a sentence. `study` names the study among those of its kind, None for one of its own.
    """

    picture: Picture
    header: Header
    expected: frozenset[Side]
    codes: frozenset[RefusalCode]
    shows: str
    encoding: Mapping[str, Any] = field(default_factory=dict)
    padding: npt.NDArray[np.bool_] | None = None
    frames: int = 1
    study: int | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of film: its name, who makes its film of a number (0, 1, ...), and whether it is frequent."""

    name: str
    make: Callable[[Knees, np.random.Generator, int], Film]
    common: bool = False


def side_of(number: int) -> Side:
    """Left and right in turn."""
    return Side.LEFT if number % 2 == 0 else Side.RIGHT


def header(side: str | None, rng: np.random.Generator, **changed: Any) -> Header:
    """Of a frontal film of a knee, DX or CR, AP or PA. CR says "both" by its description alone."""
    view = str(rng.choice(["AP", "AP", "PA"]))
    sop_class = CR if rng.random() < 0.4 else DX
    said = Header(side, view=view, description=f"KNEE {view}", sop_class=sop_class)
    if side == "B":
        said = replace(said, description=f"BOTH KNEES {view} STANDING")
    return replace(said, **changed)


def either_orientation(rng: np.random.Generator) -> Orientation:
    """As seen from the front, or not said."""
    return UPRIGHT if rng.random() < 0.5 else None


def scored(picture: Picture, said: Header, shows: str, **more: Any) -> Film:
    """To be scored: every knee that is on it."""
    return Film(picture, said, frozenset(knee.side for knee in picture.knees), frozenset(), shows, **more)


def refused(picture: Picture, said: Header, codes: frozenset[RefusalCode], shows: str, **more: Any) -> Film:
    """To be refused."""
    return Film(picture, said, frozenset(), codes, shows, **more)


# ---- one knee, scored


def _header_side(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    said = header(side, rng, orientation=either_orientation(rng))
    return scored(films.single(knees.one(rng), side, rng), said, f"one knee, header says {side}")


def _header_and_letter(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    picture = films.lettered(films.single(knees.one(rng), side, rng), side, rng)
    said = header(side, rng, orientation=either_orientation(rng))
    return scored(picture, said, f"one knee, header and letter say {side}")


def _letter_alone(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    picture = films.lettered(films.single(knees.one(rng), side, rng), side, rng)
    said = header(None, rng, orientation=either_orientation(rng))
    return scored(picture, said, f"one knee, only the letter says {side}")


def _described(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    word = NAMES[side] if number % 3 else NAMES[side].upper()
    said = header(None, rng, description=f"{word} knee AP", orientation=either_orientation(rng))
    return scored(films.single(knees.one(rng), side, rng), said, f"one knee, a description says {word}")


def _published(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    return scored(films.published(knees.one(rng), side, rng), header(side, rng), f"a real crop as such, header {side}")


def _tilted(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side, tilt = side_of(number), float(rng.choice([-1, 1]) * rng.uniform(5, 12))
    picture = films.single(knees.one(rng), side, rng, tilt=tilt)
    return scored(picture, header(side, rng), f"one knee, tilted by {tilt:.0f} degrees, header {side}")


def _thigh(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    picture = films.single(knees.one(rng), side, rng, thigh=True)
    return scored(picture, header(side, rng), f"one knee with half a thigh, header {side}")


def _off_centre(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side, across = side_of(number), (0.34, 0.66)[number // 2 % 2]
    picture = films.single(knees.one(rng), side, rng, across=across)
    where = "left" if across < 0.5 else "right"
    return scored(picture, header(side, rng), f"one knee in the film's {where} half, header {side}")


# ---- both knees


def _both_oriented(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = films.bilateral(knees.both(rng), rng)
    return scored(picture, header("B", rng), "both knees, Patient Orientation says L\\F")


def _both_lettered(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = films.bilateral(knees.both(rng), rng)
    letters = (Side.RIGHT, Side.LEFT)[: 1 + number % 2]
    for letter in letters:
        picture = films.lettered(picture, letter, rng)
    said = header("B" if rng.random() < 0.6 else None, rng, orientation=None)
    return scored(picture, said, f"both knees, the letters {' and '.join(letters)} say which is which")


def _both_mirror_written(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    over = number % 2 == 0
    picture = films.bilateral(knees.both(rng), rng, mirrored=over)
    picture = films.lettered(picture, Side.RIGHT, rng, backwards=True)
    how = "stored mirrored" if over else "PA, shown as from the front"
    return scored(picture, header("B", rng, orientation=None), f"both knees, {how}, an R that reads backwards")


def _both_mirrored_declared(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = films.bilateral(knees.both(rng), rng, mirrored=True)
    return scored(picture, header("B", rng, orientation=MIRRORED), "both knees, stored mirrored, said by R\\F")


def _both_unsaid(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = films.bilateral(knees.both(rng), rng)
    return refused(picture, header("B", rng, orientation=None), UNKNOWN, "both knees, nothing says which is which")


def _both_swapped(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = films.bilateral(knees.both(rng), rng)
    for letter in (Side.RIGHT, Side.LEFT):
        picture = films.lettered(picture, letter, rng)
    shows = "both knees, Patient Orientation says R\\F, the letters say otherwise"
    return refused(picture, header("B", rng, orientation=MIRRORED), CONTRADICTORY, shows)


def _both_but_one_said(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture, side = films.bilateral(knees.both(rng), rng), side_of(number)
    return refused(picture, header(side, rng), CONTRADICTORY, f"both knees, header names one ({side})")


def _one_but_both_said(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = films.single(knees.one(rng), side_of(number), rng)
    return refused(picture, header("B", rng, orientation=None), UNKNOWN, "one knee, header says both, no letter")


def _stacked(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    pair = knees.both(rng)
    upper, lower = (films.single(crop, side, rng) for crop, side in zip(pair, (Side.RIGHT, Side.LEFT), strict=True))
    picture = films.stacked(upper, lower)
    if (longest := max(picture.pixels.shape)) > 2500:
        picture = films.resized(picture, 2500 / longest, 2500 / longest)
    said = header((None, "B", "L")[number % 3], rng)
    return refused(picture, said, UNKNOWN | CONTRADICTORY, "two films of one knee each, one above the other")


# ---- mirrored films, and sides that contradict each other


def _mirrored(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    """From the pixels alone nobody can tell a mirrored left knee from a right one."""
    said, over = side_of(number), number % 4 < 2
    side = said if over else said.other
    picture = films.single(knees.one(rng), side, rng, mirrored=over)
    how = f"a mirrored {side} knee" if over else f"a {side} knee"
    shows = f"{how}, header says {said}, no letter"
    return refused(picture, header(said, rng, orientation=either_orientation(rng)), CONTRADICTORY, shows)


def _mirror_written(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    picture = films.mirrored(films.lettered(films.single(knees.one(rng), side, rng), side, rng))
    alone = side is Side.RIGHT and number % 4 == 1
    said = header(None if alone else side, rng, orientation=None)
    shows = f"a mirrored {side} knee, the letter reads backwards, header {'silent' if alone else side}"
    return scored(picture, said, shows)


def _mirrored_declared(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    picture = films.single(knees.one(rng), side, rng, mirrored=True)
    return scored(picture, header(side, rng, orientation=MIRRORED), f"a mirrored {side} knee, said by R\\F")


def _wrong_header(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    picture = films.lettered(films.single(knees.one(rng), side, rng), side, rng)
    said = header(side.other, rng, orientation=either_orientation(rng))
    return refused(picture, said, CONTRADICTORY, f"a {side} knee with its letter, header says {side.other}")


def _two_sides_said(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    picture = films.single(knees.one(rng), side, rng)
    said = header(side, rng, description=f"KNEE {NAMES[side.other].upper()} AP")
    return refused(picture, said, CONTRADICTORY, f"a {side} knee, header says {side} and {NAMES[side.other]}")


def _lone_letter(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number // 2)
    picture = films.single(knees.one(rng), side, rng)
    if number % 2:
        said = header(None, rng, description=f"KNEE AP {side.value}")
        return refused(picture, said, UNKNOWN, f"a {side} knee, only a lone letter in a description says so")
    said = header(side, rng, description=f"KNEE AP {side.other.value}")
    return refused(picture, said, CONTRADICTORY, f"a {side} knee, a lone {side.other} in a description contradicts")


def _no_side(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    picture = films.single(knees.one(rng), side_of(number), rng)
    said = header(None, rng, orientation=either_orientation(rng))
    return refused(picture, said, UNKNOWN, "one knee, nothing says which")


# ---- grey values and geometry


def _monochrome1(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    film = _header_side(knees, rng, number)
    return replace(film, shows=f"{film.shows}, MONOCHROME1", encoding={"monochrome1": True})


def _undeclared(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    """Bright and dark exchanged, and nothing says so; as scored, this is said in the evidence."""
    side = side_of(number)
    picture = films.single(knees.one(rng), side, rng)
    picture = films.lettered(picture, side, rng) if number % 3 == 2 else picture
    return scored(films.inverted(picture), header(side, rng), f"one knee, dark bones undeclared, header {side}")


def _padded(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    picture = films.single(knees.one(rng), side, rng)
    rows, columns = picture.pixels.shape
    outside = np.ones((rows, columns), np.bool_)
    top, bottom = (int(rng.uniform(0.02, 0.12) * rows) for _ in range(2))
    left, right = (int(rng.uniform(0.01, 0.06) * columns) for _ in range(2))
    outside[top : rows - bottom, left : columns - right] = False
    shows = f"one knee, collimated, the rest is Pixel Padding, header {side}"
    return scored(picture, header(side, rng), shows, padding=outside)


def _ratio(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side, (high, wide) = side_of(number), ((4, 3), (3, 4), (3, 2))[number % 3]
    picture = films.resized(films.single(knees.one(rng), side, rng), 1.0, wide / high)
    said = header(side, rng, sop_class=CR, attributes={"PixelAspectRatio": [high, wide]})
    return scored(picture, said, f"one knee on pixels of {high}:{wide}, said by Pixel Aspect Ratio, header {side}")


def _unequal(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side, factor = side_of(number), (1.25, 0.8, 1.5)[number % 3]
    picture = films.resized(films.single(knees.one(rng), side, rng), 1.0, 1 / factor)
    spacing = [round(0.16 * factor, 4), 0.16]
    keywords = {"ImagerPixelSpacing": spacing} | ({"PixelSpacing": spacing} if number % 2 else {})
    said = header(side, rng, attributes=keywords)
    return scored(picture, said, f"one knee, spacing {spacing[0]} by {spacing[1]} mm, header {side}")


def _smoothed(knees: Knees, rng: np.random.Generator, number: int) -> Film:
    side = side_of(number)
    picture = films.single(knees.one(rng), side, rng)
    pixels: Image = np.asarray(cv2.GaussianBlur(picture.pixels, (0, 0), rng.uniform(0.8, 1.4)), np.float32)
    table = header(side, rng, sop_class=CR)
    return scored(replace(picture, pixels=pixels), table, f"one knee, no window, header {side}",
                  encoding={"window": False})  # fmt: skip


KINDS = (
    Kind("one knee, side in the header", _header_side, common=True),
    Kind("one knee, header and letter", _header_and_letter, common=True),
    Kind("one knee, letter alone", _letter_alone, common=True),
    Kind("one knee, side in a description", _described, common=True),
    Kind("real crop as published", _published, common=True),
    Kind("one knee, tilted", _tilted),
    Kind("one knee, half a thigh", _thigh),
    Kind("one knee, off-centre", _off_centre),
    Kind("one knee, collimated and padded", _padded),
    Kind("one knee, no window", _smoothed),
    Kind("both knees, Patient Orientation", _both_oriented, common=True),
    Kind("both knees, letters", _both_lettered, common=True),
    Kind("both knees, mirror writing", _both_mirror_written, common=True),
    Kind("both knees, mirrored and declared", _both_mirrored_declared),
    Kind("both knees, nothing says which", _both_unsaid),
    Kind("both knees, Patient Orientation against letters", _both_swapped),
    Kind("both knees, header names one", _both_but_one_said),
    Kind("one knee, header says both", _one_but_both_said),
    Kind("two films one above the other", _stacked),
    Kind("mirrored, or wrong side in the header", _mirrored, common=True),
    Kind("mirrored, letter in mirror writing", _mirror_written),
    Kind("mirrored and declared", _mirrored_declared),
    Kind("letter against header", _wrong_header, common=True),
    Kind("two sides in the header", _two_sides_said),
    Kind("lone letter in a description", _lone_letter),
    Kind("no side anywhere", _no_side),
    Kind("MONOCHROME1", _monochrome1),
    Kind("inverted, undeclared", _undeclared),
    Kind("Pixel Aspect Ratio", _ratio),
    Kind("unequal spacing", _unequal),
)
