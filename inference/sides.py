"""Which knee is which: header, burned-in letters and anatomy weighed against each other. Pure.

The fibula lies laterally: towards the left border of a right knee on a film seen from the front, and the other way
round on a film that is stored mirrored. So anatomy alone says how a knee appears, never whose it is; with a side from
another source it says whether the film is mirrored. Two sources that disagree are a refusal, and so is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from inference.findings import Evidence, RefusalCode, Side

SURE = 0.9  # of where the fibula lies; between it and its complement the pixels say nothing
BOTH: Literal["B"] = "B"
Stated = Side | Literal["B"] | None


@dataclass(frozen=True)
class Letter:
    """A burned-in letter: the side it names, whether it reads backwards, and where it stands (column, 0..1).

    `down` is the row of its centre, `size` its height, both as fractions of the film's height: for drawings only.
    """

    side: Side
    mirrored: bool
    across: float
    down: float = 0.5
    size: float = 0.0


@dataclass(frozen=True)
class Shown:
    """A knee on the film: its centre (column, 0..1) and how surely its fibula lies towards larger columns (0..1)."""

    across: float
    fibula_right: float

    @property
    def lateral(self) -> int:
        """+1 towards larger columns, -1 towards smaller ones, 0 when the pixels do not say."""
        return 1 if self.fibula_right >= SURE else -1 if self.fibula_right <= 1 - SURE else 0


@dataclass(frozen=True)
class Stating:
    """What the header says.

    `side` is a side, BOTH or None, `source` the attribute that states it (empty for None). `columns_to_left` says
    whether columns run to the patient's left, by Patient Orientation (PS3.3 C.7.6.1.1.1), None when it does not say.
    `hinted` are lone letters of descriptions: they prove no side, and contradict every other one.
    """

    side: Stated
    source: str
    columns_to_left: bool | None
    hinted: frozenset[Side] = frozenset()


@dataclass(frozen=True)
class Proven:
    """The side of one knee; `lateral` is where its fibula lies on the film: -1 or +1 (see Shown), never 0."""

    side: Side
    lateral: int
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Unproven:
    """Why the side is not known, as a code and a sentence."""

    code: RefusalCode
    reason: str


def settle(stating: Stating, knees: Sequence[Shown], letters: Sequence[Letter]) -> tuple[Proven, ...] | Unproven:
    """The sides of one or two knees, in their order; or why they are not known.

    Args:
        stating: what the header says.
        knees: what is seen on the film, one or two, from left to right.
        letters: what is burned in.
    """
    found = _one(stating, knees[0], letters) if len(knees) == 1 else _two(stating, knees, letters)
    return found if isinstance(found, Unproven) else tuple(found)


def lateral_of(side: Side, *, columns_to_left: bool) -> int:
    """Where the fibula of a knee lies on a film whose columns run to the patient's left, or right: +1 or -1."""
    return 1 if (side is Side.LEFT) == columns_to_left else -1


def _one(stating: Stating, knee: Shown, letters: Sequence[Letter]) -> list[Proven] | Unproven:
    burned_in = {letter.side for letter in letters}
    if len(burned_in) > 1:
        return _contradiction("both letters, R and L, are burned into a film that shows one knee")
    stated = stating.side if isinstance(stating.side, Side) else _half(stating, knee)
    if stated is not None and burned_in and burned_in != {stated}:
        (letter,) = burned_in
        return _contradiction(f"{stating.source} says {stated.value}, but the letter {letter.value} is burned in")
    side = stated or next(iter(burned_in), None)
    if side is None:
        return Unproven(
            RefusalCode.SIDE_UNKNOWN,
            "Neither the header nor a burned-in letter says which knee it is, and the anatomy of a film that may be "
            "mirrored proves no side: set Image Laterality.",
        )
    expected = lateral_of(side, columns_to_left=stating.columns_to_left is not False)
    lateral = knee.lateral or expected
    if lateral != expected and not _is_mirrored(stating, stated, letters):
        source = stating.source if stated is not None else "The burned-in letter"
        reason = "the fibula lies as in the other knee: the film is mirrored or the side is wrong"
        return _contradiction(f"{source} says {side.value}, but {reason}")
    return [Proven(side, lateral, _evidence(knee, side, lateral, stating, letters))]


def _two(stating: Stating, knees: Sequence[Shown], letters: Sequence[Letter]) -> list[Proven] | Unproven:
    if isinstance(stating.side, Side):
        return _contradiction(f"{stating.source} names one knee ({stating.side.value}), the film shows two")
    if knees[0].lateral > 0 or knees[1].lateral < 0:
        return _contradiction("the fibulae of the two knees do not lie outwards: the film is put together from two")
    orders = _by_orientation(stating) | _by_letters(letters)
    if not orders:
        return Unproven(
            RefusalCode.SIDE_UNKNOWN,
            "The film shows two knees, and neither Patient Orientation nor a burned-in letter says which is which.",
        )
    if len(orders) > 1:
        return _contradiction("Patient Orientation and the burned-in letters say differently which knee is which")
    (first,) = orders
    sides = (first, first.other)
    return [
        Proven(side, lateral, _evidence(knee, side, lateral, stating, letters))
        for side, lateral, knee in zip(sides, (-1, 1), knees, strict=True)
    ]


def _is_mirrored(stating: Stating, stated: Side | None, letters: Sequence[Letter]) -> bool:
    """Whether a knee that appears as the other one is explained: by a letter that agrees, or reads backwards."""
    if stating.columns_to_left is not None:
        return False
    return any(letter.mirrored or stated is not None for letter in letters)


def _half(stating: Stating, knee: Shown) -> Side | None:
    """On a film of both knees that shows one: the half in which it lies."""
    if stating.side != BOTH or stating.columns_to_left is None:
        return None
    return Side.RIGHT if (knee.across < 0.5) == stating.columns_to_left else Side.LEFT


def _by_orientation(stating: Stating) -> set[Side]:
    """The side of the knee on the left of the film, from Patient Orientation."""
    if stating.columns_to_left is None:
        return set()
    return {Side.RIGHT if stating.columns_to_left else Side.LEFT}


def _by_letters(letters: Sequence[Letter]) -> set[Side]:
    """The same from the letters: each stands beside its leg, whether the film was turned over or not."""
    return {letter.side if letter.across < 0.5 else letter.side.other for letter in letters}


def _evidence(
    knee: Shown, side: Side, lateral: int, stating: Stating, letters: Sequence[Letter]
) -> tuple[Evidence, ...]:
    found = [
        Evidence("side", "pixels", f"the letter {letter.side.value}{' in mirror writing' if letter.mirrored else ''}",
                 letter.side.value)
        for letter in letters
    ]  # fmt: skip
    if knee.lateral:
        towards = "larger" if knee.lateral > 0 else "smaller"
        found.append(Evidence("side", "pixels", f"fibula towards {towards} columns", side.value))
    if lateral != lateral_of(side, columns_to_left=True):
        found.append(Evidence("side", "pixels" if stating.columns_to_left is None else "PatientOrientation",
                              "the film is mirrored", side.value))  # fmt: skip
    return tuple(found)


def _contradiction(text: str) -> Unproven:
    return Unproven(RefusalCode.SIDE_CONTRADICTORY, f"{text[:1].upper()}{text[1:]}.")
