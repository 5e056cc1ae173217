"""Which knee is which, for every way in which header, letters and anatomy may agree, disagree or be silent."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.findings import Evidence, RefusalCode, Side
from inference.sides import BOTH, Letter, Proven, Shown, Stating, Unproven, lateral_of, settle

L, R = Side.LEFT, Side.RIGHT
UNKNOWN, CONTRADICTORY = RefusalCode.SIDE_UNKNOWN, RefusalCode.SIDE_CONTRADICTORY
LEFTWARDS, RIGHTWARDS, UNSURE = 0.02, 0.98, 0.5
SILENT = Stating(None, "", None)
PAIR = (Shown(0.27, LEFTWARDS), Shown(0.74, RIGHTWARDS))


def says(side: Side | str | None, to_left: bool | None = None, *hinted: Side) -> Stating:
    """A header; any other text than BOTH is no side."""
    stated = BOTH if side == BOTH else side if isinstance(side, Side) else None
    return Stating(stated, "ImageLaterality" if stated else "", to_left, frozenset(hinted))


def plain(side: Side, across: float = 0.1) -> Letter:
    return Letter(side, mirrored=False, across=across)


def backwards(side: Side, across: float = 0.1) -> Letter:
    return Letter(side, mirrored=True, across=across)


def outcome(stating: Stating, knees: tuple[Shown, ...], *letters: Letter) -> tuple[Side, ...] | RefusalCode:
    """The sides, or the code of the refusal; whatever it is, its words are fit to be shown."""
    found = settle(stating, knees, letters)
    if isinstance(found, Unproven):
        assert found.reason.isascii()
        assert found.reason.endswith(".")
        return found.code
    assert all(proven.lateral in (-1, 1) for proven in found)
    assert all(e.about == "side" and e.value.isascii() for proven in found for e in proven.evidence)
    return tuple(proven.side for proven in found)


def sides(found: tuple[Proven, ...] | Unproven) -> tuple[Side, ...] | None:
    return None if isinstance(found, Unproven) else tuple(proven.side for proven in found)


def one(fibula: float, across: float = 0.5) -> tuple[Shown]:
    return (Shown(across, fibula),)


# One knee in the middle of the film. A right knee has its fibula leftwards on a film that is not mirrored.


@pytest.mark.parametrize(
    ("stated", "fibula", "expected"),
    [
        (R, LEFTWARDS, (R,)),
        (R, UNSURE, (R,)),
        (R, RIGHTWARDS, CONTRADICTORY),  # mirrored, or the side is wrong: nobody knows
        (L, RIGHTWARDS, (L,)),
        (L, UNSURE, (L,)),
        (L, LEFTWARDS, CONTRADICTORY),
        (None, LEFTWARDS, UNKNOWN),  # a mirrored left knee looks like a right one
        (None, RIGHTWARDS, UNKNOWN),
        (None, UNSURE, UNKNOWN),
        (BOTH, LEFTWARDS, UNKNOWN),
        (BOTH, UNSURE, UNKNOWN),
    ],
)
def test_header_and_anatomy(stated: Side | str | None, fibula: float, expected: object) -> None:
    assert outcome(says(stated), one(fibula)) == expected


@pytest.mark.parametrize(
    ("letter", "fibula", "expected"),
    [
        (plain(R), LEFTWARDS, (R,)),
        (plain(R), UNSURE, (R,)),
        (plain(R), 0.3, (R,)),
        (plain(R), 0.7, UNKNOWN),  # not sure, but rather against
        (plain(R), RIGHTWARDS, CONTRADICTORY),
        (backwards(R), LEFTWARDS, (R,)),  # PA with a lead marker, shown as if from the front
        (backwards(R), RIGHTWARDS, (R,)),  # a mirrored film, letter and all
        (plain(L), RIGHTWARDS, (L,)),
        (plain(L), LEFTWARDS, CONTRADICTORY),
        (backwards(L), RIGHTWARDS, (L,)),
        (backwards(L), LEFTWARDS, CONTRADICTORY),  # an L on its side looks backwards: it explains nothing alone
    ],
)
def test_a_letter_alone(letter: Letter, fibula: float, expected: object) -> None:
    assert outcome(SILENT, one(fibula), letter) == expected


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("fibula", [LEFTWARDS, UNSURE, RIGHTWARDS])
@pytest.mark.parametrize("side", [L, R])
def test_header_and_letter_agree_so_that_the_anatomy_says_whether_the_film_is_mirrored(
    side: Side, fibula: float, mirrored: bool
) -> None:
    found = settle(says(side), one(fibula), [Letter(side, mirrored, 0.9)])
    assert not isinstance(found, Unproven)
    (proven,) = found
    normal = lateral_of(side, columns_to_left=True)
    assert (proven.side, proven.lateral) == (side, {LEFTWARDS: -1, UNSURE: normal, RIGHTWARDS: 1}[fibula])
    said = [e.value for e in proven.evidence]
    assert ("the film is mirrored" in said) == (proven.lateral != normal)
    assert (f"the letter {side} in mirror writing" in said) == mirrored


def test_header_and_letter_contradict_each_other_whatever_the_anatomy_says() -> None:
    for side, fibula, mirrored, to_left, across in product(
        (L, R), (LEFTWARDS, UNSURE, RIGHTWARDS), (False, True), (None, False, True), (0.1, 0.9)
    ):
        letter = Letter(side.other, mirrored, across)
        assert outcome(says(side, to_left), one(fibula), letter) is CONTRADICTORY


def test_patient_orientation_and_anatomy_must_agree_and_no_letter_helps() -> None:
    for side, to_left, letters in product((L, R), (False, True), ((), (False,), (True,))):
        stating = says(side, to_left)
        burned_in = [Letter(side, mirrored, 0.1) for mirrored in letters]
        lateral = lateral_of(side, columns_to_left=to_left)
        fitting, other = (RIGHTWARDS, LEFTWARDS) if lateral > 0 else (LEFTWARDS, RIGHTWARDS)
        assert outcome(stating, one(fitting), *burned_in) == (side,)
        assert outcome(stating, one(UNSURE), *burned_in) == (side,)
        assert outcome(stating, one(other), *burned_in) is CONTRADICTORY
        if burned_in:
            assert outcome(says(None, to_left), one(fitting), *burned_in) == (side,)
            assert outcome(says(None, to_left), one(other), *burned_in) is CONTRADICTORY


def test_patient_orientation_and_anatomy_alone_prove_no_side() -> None:
    assert outcome(says(None, True), one(LEFTWARDS)) is UNKNOWN
    assert outcome(says(BOTH, True), one(LEFTWARDS)) is UNKNOWN


def test_a_mirrored_film_by_patient_orientation_is_said() -> None:
    found = settle(says(R, False), one(RIGHTWARDS), [])
    assert not isinstance(found, Unproven)
    assert ("PatientOrientation", "the film is mirrored") in [(e.source, e.value) for e in found[0].evidence]


@pytest.mark.parametrize(("to_left", "towards", "sides"), [(True, "left", (R, L)), (False, "right", (L, R))])
def test_what_decides_on_a_film_of_both_knees_is_among_its_evidence(
    to_left: bool, towards: str, sides: tuple[Side, Side]
) -> None:
    found = settle(says(BOTH, to_left), PAIR, [])
    assert not isinstance(found, Unproven)
    for proven, side in zip(found, sides, strict=True):
        expected = Evidence("side", "PatientOrientation", f"columns run to the patient's {towards}", side.value)
        assert proven.evidence.count(expected) == 1


@pytest.mark.parametrize("stated", [None, BOTH, L, R])
def test_both_letters_on_a_film_of_one_knee_in_its_middle(stated: Side | str | None) -> None:
    assert outcome(says(stated), one(UNSURE), plain(R), plain(L, 0.9)) is CONTRADICTORY
    assert outcome(says(stated), one(LEFTWARDS), plain(R, 0.4), plain(L, 0.6)) is CONTRADICTORY


def test_several_letters_of_one_side_are_one() -> None:
    assert outcome(SILENT, one(LEFTWARDS), plain(R), plain(R, 0.9)) == (R,)


# One knee in a half of the film: the other one may be there unseen.


@pytest.mark.parametrize(
    ("stated", "knee", "letters", "expected"),
    [
        # The left knee of a film of both, on which the right one was not seen; one letter, of the right leg.
        (None, Shown(0.75, RIGHTWARDS), (plain(R),), UNKNOWN),
        (None, Shown(0.75, RIGHTWARDS), (backwards(R),), UNKNOWN),
        (None, Shown(0.75, UNSURE), (backwards(R),), UNKNOWN),
        (BOTH, Shown(0.75, RIGHTWARDS), (plain(R),), UNKNOWN),
        (BOTH, Shown(0.75, RIGHTWARDS), (backwards(R),), UNKNOWN),
        (R, Shown(0.75, RIGHTWARDS), (plain(R),), CONTRADICTORY),
        (R, Shown(0.75, RIGHTWARDS), (backwards(R),), CONTRADICTORY),
        (R, Shown(0.75, UNSURE), (plain(R),), UNKNOWN),
        (R, Shown(0.75, UNSURE), (), UNKNOWN),
        # A fibula towards the middle of the film is that of no pair.
        (None, Shown(0.75, LEFTWARDS), (plain(R),), (R,)),
        (R, Shown(0.75, LEFTWARDS), (), (R,)),
        (BOTH, Shown(0.75, LEFTWARDS), (plain(R),), (R,)),
        (BOTH, Shown(0.75, LEFTWARDS), (plain(L),), CONTRADICTORY),
        # A right knee where it belongs.
        (R, Shown(0.25, UNSURE), (), (R,)),
        (BOTH, Shown(0.25, LEFTWARDS), (plain(R),), (R,)),
        (BOTH, Shown(0.25, UNSURE), (plain(R),), (R,)),
        (BOTH, Shown(0.25, UNSURE), (backwards(R),), (R,)),
        (BOTH, Shown(0.25, LEFTWARDS), (), UNKNOWN),
        # A little beside the middle, as on many films.
        (R, Shown(0.58, UNSURE), (), (R,)),
        (None, Shown(0.54, RIGHTWARDS), (backwards(R),), (R,)),
        # Both letters are there: then both legs are.
        (None, Shown(0.75, RIGHTWARDS), (plain(R), plain(L, 0.9)), (L,)),
        (BOTH, Shown(0.75, UNSURE), (plain(R), plain(L, 0.9)), (L,)),
        (L, Shown(0.75, RIGHTWARDS), (plain(R), plain(L, 0.9)), (L,)),
        (R, Shown(0.75, RIGHTWARDS), (plain(R), plain(L, 0.9)), CONTRADICTORY),
        (None, Shown(0.75, LEFTWARDS), (plain(R), plain(L, 0.9)), CONTRADICTORY),
        (None, Shown(0.75, RIGHTWARDS), (plain(R, 0.7), plain(L, 0.9)), CONTRADICTORY),
    ],
)
def test_one_of_two(
    stated: Side | str | None, knee: Shown, letters: tuple[Letter, ...], expected: tuple[Side, ...] | RefusalCode
) -> None:
    assert outcome(says(stated), (knee,), *letters) == expected


@pytest.mark.parametrize(
    ("to_left", "knee", "letters", "expected"),
    [
        (True, Shown(0.25, LEFTWARDS), (), (R,)),
        (True, Shown(0.75, RIGHTWARDS), (), (L,)),
        (False, Shown(0.25, LEFTWARDS), (), (L,)),
        (False, Shown(0.75, RIGHTWARDS), (), (R,)),
        (True, Shown(0.75, RIGHTWARDS), (plain(R),), (L,)),
        (True, Shown(0.75, UNSURE), (plain(L, 0.9),), (L,)),
        (True, Shown(0.75, RIGHTWARDS), (plain(L),), CONTRADICTORY),
        (True, Shown(0.75, UNSURE), (), UNKNOWN),
        (True, Shown(0.75, UNSURE), (plain(R),), UNKNOWN),
        (True, Shown(0.53, RIGHTWARDS), (), UNKNOWN),
        (True, Shown(0.53, RIGHTWARDS), (plain(L, 0.9),), (L,)),
        (True, Shown(0.53, LEFTWARDS), (plain(L, 0.9),), CONTRADICTORY),
        (True, Shown(0.25, RIGHTWARDS), (), UNKNOWN),
    ],
)
def test_one_of_two_by_patient_orientation(
    to_left: bool, knee: Shown, letters: tuple[Letter, ...], expected: tuple[Side, ...] | RefusalCode
) -> None:
    assert outcome(says(BOTH, to_left), (knee,), *letters) == expected


# Two knees.


@pytest.mark.parametrize("stated", [None, BOTH])
@pytest.mark.parametrize(
    ("to_left", "letters", "expected"),
    [
        (True, (), (R, L)),
        (False, (), (L, R)),
        (None, (), UNKNOWN),
        (None, (plain(R),), (R, L)),
        (None, (plain(L, 0.9),), (R, L)),
        (None, (plain(R), plain(L, 0.9)), (R, L)),
        (None, (backwards(R),), (R, L)),  # PA, turned over to be shown: a letter stands beside its leg all the same
        (None, (backwards(R), backwards(L, 0.9)), (R, L)),
        (None, (backwards(R, 0.9),), (L, R)),
        (None, (plain(L), plain(R, 0.9)), (L, R)),  # PA, as it was taken
        (None, (plain(R, 0.9),), UNKNOWN),  # the same by one letter alone, which may be misread
        (None, (plain(L),), UNKNOWN),
        (None, (backwards(L),), UNKNOWN),
        (False, (plain(R, 0.9),), (L, R)),
        (False, (plain(L),), (L, R)),
        (True, (plain(R), plain(L, 0.9)), (R, L)),
        (True, (backwards(R),), (R, L)),
        (True, (plain(R, 0.9),), CONTRADICTORY),
        (False, (plain(R),), CONTRADICTORY),
        (True, (plain(L), plain(R, 0.9)), CONTRADICTORY),
        (None, (plain(R), plain(R, 0.9)), CONTRADICTORY),
        (None, (plain(R), plain(L, 0.2)), CONTRADICTORY),
        (None, (plain(R, 0.5),), UNKNOWN),  # between the legs
        (None, (plain(R, 0.5), plain(L, 0.9)), (R, L)),
        (None, (plain(R, 0.4),), (R, L)),  # inside of its leg
    ],
)
def test_two_knees(stated: str | None, to_left: bool | None, letters: tuple[Letter, ...], expected: object) -> None:
    assert outcome(says(stated, to_left), PAIR, *letters) == expected
    assert outcome(says(stated, to_left), (Shown(0.27, UNSURE), Shown(0.74, 0.4)), *letters) == expected


def test_halves_are_told_by_the_knees_and_not_by_the_film() -> None:
    knees = (Shown(0.1, LEFTWARDS), Shown(0.45, RIGHTWARDS))
    assert outcome(SILENT, knees, plain(L, 0.48)) == (R, L)


@pytest.mark.parametrize("knees", [(RIGHTWARDS, RIGHTWARDS), (LEFTWARDS, LEFTWARDS), (UNSURE, LEFTWARDS)])
def test_knees_with_fibulae_that_do_not_lie_outwards_are_no_pair(knees: tuple[float, float]) -> None:
    pair = (Shown(0.27, knees[0]), Shown(0.74, knees[1]))
    assert outcome(says(BOTH, True), pair, plain(R), plain(L, 0.9)) is CONTRADICTORY


@pytest.mark.parametrize("side", [L, R])
def test_a_header_that_names_one_of_two_knees(side: Side) -> None:
    assert outcome(says(side, True), PAIR, plain(R), plain(L, 0.9)) is CONTRADICTORY


def test_a_study_of_one_knee_may_hold_a_film_of_both() -> None:
    ordered = Stating(L, "StudyDescription", None, of_study=True)
    assert outcome(ordered, PAIR, plain(R)) == (R, L)
    assert outcome(ordered, PAIR) is UNKNOWN
    assert outcome(ordered, one(RIGHTWARDS)) == (L,)
    assert outcome(ordered, one(LEFTWARDS)) is CONTRADICTORY
    assert outcome(ordered, one(LEFTWARDS), plain(R)) is CONTRADICTORY
    assert outcome(ordered, (Shown(0.25, UNSURE),)) is UNKNOWN


def test_the_fibulae_of_two_knees_lie_outwards() -> None:
    for to_left in (False, True):
        found = settle(says(BOTH, to_left), PAIR, [])
        assert not isinstance(found, Unproven)
        assert [proven.lateral for proven in found] == [-1, 1]


# A lone letter in a description.


def test_a_lone_letter_of_a_description_proves_nothing_but_contradicts() -> None:
    assert outcome(says(None, None, L), one(RIGHTWARDS)) is UNKNOWN
    assert outcome(says(None, None, L), one(RIGHTWARDS), plain(L)) == (L,)
    assert outcome(says(None, None, L), one(LEFTWARDS), plain(R)) is CONTRADICTORY
    assert outcome(says(R, None, R), one(LEFTWARDS)) == (R,)
    assert outcome(says(R, None, L), one(LEFTWARDS)) is CONTRADICTORY
    assert outcome(says(None, None, L, R), one(LEFTWARDS), plain(R)) is CONTRADICTORY
    assert outcome(says(None, True, L), PAIR) is CONTRADICTORY
    assert outcome(says(None, True, L, R), PAIR) == (R, L)


# What holds for all films.

shares = st.floats(0.0, 1.0)
letters = st.lists(st.builds(Letter, st.sampled_from(Side), st.booleans(), shares), max_size=3)
knees = st.lists(st.builds(Shown, shares, shares), min_size=1, max_size=2).map(
    lambda found: tuple(sorted(found, key=lambda knee: knee.across))
)
statings = st.builds(
    Stating,
    st.sampled_from([None, BOTH, L, R]),
    st.just("ImageLaterality"),
    st.sampled_from([None, False, True]),
    st.frozensets(st.sampled_from(Side)),
    st.booleans(),
)


@given(statings, knees, letters)
def test_no_source_is_ever_overruled(stating: Stating, knees: tuple[Shown, ...], letters: list[Letter]) -> None:
    found = settle(stating, knees, letters)
    if isinstance(found, Unproven):
        return
    assert [proven.lateral for proven in found] in ([-1], [1], [-1, 1])
    assert len({proven.side for proven in found}) == len(knees) == len(found)
    if isinstance(stating.side, Side):
        assert [proven.side for proven in found] == [stating.side] or (stating.of_study and len(found) == 2)
    assert all(knee.lateral in (0, proven.lateral) for knee, proven in zip(knees, found, strict=True))
    for proven in found:
        assert not stating.hinted or proven.side in stating.hinted
        if stating.columns_to_left is not None:
            assert proven.lateral == lateral_of(proven.side, columns_to_left=stating.columns_to_left)
    assert stating.side or letters or stating.columns_to_left is not None


def flipped(stating: Stating, knees: tuple[Shown, ...], letters: list[Letter]) -> tuple[Stating, tuple[Shown, ...]]:
    """The same film, mirrored; its header too where it speaks of columns."""
    to_left = None if stating.columns_to_left is None else not stating.columns_to_left
    turned = replace(stating, columns_to_left=to_left)
    return turned, tuple(Shown(1 - knee.across, 1 - knee.fibula_right) for knee in reversed(knees))


@given(statings, knees, letters)
@example(SILENT, (Shown(0.5, RIGHTWARDS),), [plain(R)])
@example(SILENT, PAIR, [plain(R, 0.9)])
def test_a_mirrored_film_never_has_other_knees(
    stating: Stating, knees: tuple[Shown, ...], letters: list[Letter]
) -> None:
    """Never other sides; where Patient Orientation tells of the mirroring, or two letters do, also as often."""
    there = sides(settle(stating, knees, letters))
    other, seen = flipped(stating, knees, letters)
    back = sides(settle(other, seen, [Letter(e.side, not e.mirrored, 1 - e.across) for e in letters]))
    if there is not None and back is not None:
        assert back == there[::-1]
    certain = all(abs(x.across - 0.5) > 0.01 and 0.1 < abs(x.fibula_right - 0.5) < 0.39 for x in knees)
    if certain and stating.columns_to_left is not None and not letters:
        assert (there is None) == (back is None)
