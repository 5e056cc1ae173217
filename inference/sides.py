"""Which knee is which: header, burned-in letters and anatomy weighed against each other. Pure.

The fibula lies laterally: towards the left border of a right knee on a film seen from the front, and the other way
round on a film that is stored mirrored. So anatomy alone says how a knee appears, never whose it is; with a side from
another source it says whether the film is mirrored. Two sources that disagree are a refusal, and so is none.

A letter stands beside its leg whatever the film was turned over: whether it reads backwards says how the exposure was
made and stored (a lead marker on a PA film, shown as if seen from the front, reads backwards), never whose leg it is.
Where one knee is seen, the other one may be there unseen (a prosthesis, say): a letter in the other half of the film
may then be that of the other leg.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from inference.findings import Evidence, RefusalCode, Side

SURE = 0.9  # of where the fibula lies; between it and its complement the pixels say nothing
_CENTRAL = 0.05  # of the film's width: nearer to its middle a knee or a letter lies in neither half
_APART = 0.15  # of the film's width: farther from its middle a knee lies where one of two would
_BETWEEN = 0.15  # of the distance of two knees: nearer to the middle between them a letter belongs to neither
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
    def half(self) -> int:
        """-1 in the left half of the film, +1 in the right one, 0 in the middle."""
        return 0 if abs(self.across - 0.5) <= _CENTRAL else 1 if self.across > 0.5 else -1

    @property
    def lateral(self) -> int:
        """+1 towards larger columns, -1 towards smaller ones, 0 when the pixels do not say."""
        return 1 if self.fibula_right >= SURE else -1 if self.fibula_right <= 1 - SURE else 0


@dataclass(frozen=True)
class Stating:
    """What the header says.

    `side` is a side, BOTH or None, `source` the attribute that states it (empty for None). `columns_to_left` says
    whether columns run to the patient's left, by Patient Orientation (PS3.3 C.7.6.1.1.1), None when it does not say.
    `hinted` are lone letters of descriptions: they prove no side, and contradict every other one. `of_study`: only the
    study is said to be of that side, which may hold a film of both knees all the same.
    """

    side: Stated
    source: str
    columns_to_left: bool | None
    hinted: frozenset[Side] = frozenset()
    of_study: bool = False


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
    if isinstance(found, Unproven):
        return found
    if stating.hinted and ({proven.side for proven in found} - stating.hinted or len(stating.hinted) > len(found)):
        hints, sides = (" and ".join(sorted(said)) for said in (stating.hinted, {proven.side for proven in found}))
        return _contradiction(f"descriptions hold the letter {hints}, all else says {sides}")
    return tuple(found)


def lateral_of(side: Side, *, columns_to_left: bool) -> int:
    """Where the fibula of a knee lies on a film whose columns run to the patient's left, or right: +1 or -1."""
    return 1 if (side is Side.LEFT) == columns_to_left else -1


def _one(stating: Stating, knee: Shown, letters: Sequence[Letter]) -> list[Proven] | Unproven:
    of_both = stating.side == BOTH
    both_letters = len({letter.side for letter in letters}) > 1
    if (of_both or both_letters) and knee.half and knee.lateral != -knee.half:
        return _one_of_two(stating, knee, letters)
    if both_letters:
        return _contradiction("both letters, R and L, are burned into a film that shows one knee")
    return _alone(stating, knee, letters)


def _one_of_two(stating: Stating, knee: Shown, letters: Sequence[Letter]) -> list[Proven] | Unproven:
    """A film of both knees on which one is seen, in one half and with its fibula not towards the middle."""
    beside = [letter for letter in letters if _is_beside(letter, knee)]
    order = _order(stating, letters, 0.5, _CENTRAL)
    if isinstance(order, Unproven):
        return order
    # A letter of the other leg needs that other leg to be there; where nobody saw it, it takes more than the letter.
    if not beside and (stating.columns_to_left is None or not knee.lateral):
        return _unknown("The header speaks of both knees, the film shows one, and too little says which of them it is")
    side = order if knee.half < 0 else order.other
    if isinstance(stating.side, Side) and stating.side is not side:
        return _contradiction(f"{stating.source} says {stating.side}, but by the letters the knee is the other one")
    return [Proven(side, knee.half, _ordering(stating, side) + _evidence(knee, side, knee.half, stating, letters))]


def _alone(stating: Stating, knee: Shown, letters: Sequence[Letter]) -> list[Proven] | Unproven:
    """A film of one knee, with letters of one side at most. Where the header says "both", more is asked for."""
    stated = stating.side if isinstance(stating.side, Side) else None
    burned_in = next((letter.side for letter in letters), None)
    beside = [letter for letter in letters if _is_beside(letter, knee)]
    if stated is not None and burned_in not in (None, stated):
        return _contradiction(f"{stating.source} says {stated}, but the letter {burned_in} is burned in")
    side = stated or burned_in
    if side is None:
        return _unknown(
            "Neither the header nor a burned-in letter says which knee it is, and the anatomy of a film that may be "
            "mirrored proves no side"
        )
    if stated is None and not beside:
        return _unknown(f"The only letter, {side}, may be that of the other leg: it is burned in far from the knee")
    expected = lateral_of(side, columns_to_left=stating.columns_to_left is not False)
    if not knee.lateral and (stating.side == BOTH or (not beside and _may_be_the_other(stating, knee, expected))):
        return _unknown("The knee lies as one of two would, and the pixels do not show on which side its fibula is")
    if stated is None and not knee.lateral and (knee.fibula_right - 0.5) * expected < 0:
        return _unknown(f"Only a burned-in letter, {side}, names a side, and the anatomy rather speaks against it")
    lateral = knee.lateral or expected
    if lateral != expected and not _is_mirrored(stating, beside):
        source = stating.source if stated is not None else "The burned-in letter"
        mirrored = "mirrored" if stating.columns_to_left is None else "not as Patient Orientation says"
        reason = f"the fibula lies as in the other knee: the film is {mirrored} or the side is wrong"
        return _contradiction(f"{source} says {side}, but {reason}")
    return [Proven(side, lateral, _evidence(knee, side, lateral, stating, letters))]


def _two(stating: Stating, knees: Sequence[Shown], letters: Sequence[Letter]) -> list[Proven] | Unproven:
    if isinstance(stating.side, Side) and not stating.of_study:
        return _contradiction(f"{stating.source} names one knee ({stating.side}), the film shows two")
    if knees[0].lateral > 0 or knees[1].lateral < 0:
        return _contradiction("the fibulae of the two knees do not lie outwards: the film is put together from two")
    left, right = (knee.across for knee in knees)
    order = _order(stating, letters, (left + right) / 2, _BETWEEN * (right - left))
    if isinstance(order, Unproven):
        return order
    return [
        Proven(side, lateral, _ordering(stating, side) + _evidence(knee, side, lateral, stating, letters))
        for side, lateral, knee in zip((order, order.other), (-1, 1), knees, strict=True)
    ]


def _order(stating: Stating, letters: Sequence[Letter], middle: float, between: float) -> Side | Unproven:
    """The side of the left one of two knees: by Patient Orientation, and by the letters beside their legs."""
    clear = [letter for letter in letters if abs(letter.across - middle) > between]
    orders = {letter.side if letter.across < middle else letter.side.other for letter in clear}
    if stating.columns_to_left is not None:
        orders.add(Side.RIGHT if stating.columns_to_left else Side.LEFT)
    elif (
        orders == {Side.LEFT} and len({letter.side for letter in clear}) == 1 and not any(map(_reads_backwards, clear))
    ):
        # Misreading one letter is about as likely as such a film, so one letter is not enough for it.
        return _unknown("One letter alone says that the film is stored with the left knee on the left")
    if len(orders) > 1:
        return _contradiction("Patient Orientation and the burned-in letters say differently which knee is which")
    if not orders:
        return _unknown("Neither Patient Orientation nor a burned-in letter says which of two knees is which")
    return orders.pop()


def _is_beside(letter: Letter, knee: Shown) -> bool:
    """Whether a letter cannot be that of another leg, unseen: one of two knees has its fibula outwards."""
    return not knee.half or (letter.across > 0.5) == (knee.half > 0) or knee.lateral == -knee.half


def _may_be_the_other(stating: Stating, knee: Shown, expected: int) -> bool:
    """Whether a knee lies in the half in which, of two, the one of the other side would."""
    return abs(knee.across - 0.5) > (_CENTRAL if stating.of_study else _APART) and knee.half != expected


def _is_mirrored(stating: Stating, beside: Sequence[Letter]) -> bool:
    """Whether a letter explains a knee that appears as the other one: it agrees with the header, or reads backwards."""
    if stating.columns_to_left is not None or stating.side == BOTH:
        return False
    return any(stating.side is not None or _reads_backwards(letter) for letter in beside)


def _reads_backwards(letter: Letter) -> bool:
    """Whether it surely does: an L that lies on its side looks like one in mirror writing."""
    return letter.mirrored and letter.side is Side.RIGHT


def _ordering(stating: Stating, side: Side) -> tuple[Evidence, ...]:
    """What Patient Orientation says of a film of both knees, where it says something."""
    if stating.columns_to_left is None:
        return ()
    towards = "left" if stating.columns_to_left else "right"
    return (Evidence("side", "PatientOrientation", f"columns run to the patient's {towards}", side.value),)


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


def _unknown(text: str) -> Unproven:
    return Unproven(RefusalCode.SIDE_UNKNOWN, f"{text}: set Image Laterality, and Patient Orientation for both knees.")


def _contradiction(text: str) -> Unproven:
    return Unproven(RefusalCode.SIDE_CONTRADICTORY, f"{text[:1].upper()}{text[1:]}.")
