"""Made films of which everything is known: whatever is seen and said of them, no side comes out wrong."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from inference.findings import Side
from inference.sides import BOTH, Letter, Shown, Stating, Unproven, lateral_of, settle

L, R = Side.LEFT, Side.RIGHT
SILENT = Stating(None, "", None)


def says(side: Side, *, of_study: bool = False) -> Stating:
    return Stating(side, "StudyDescription" if of_study else "ImageLaterality", None, of_study=of_study)


SAYS_BOTH = Stating(BOTH, "ImageLaterality", None)
Whose = tuple[Side, float]  # a knee or a letter on a film that is not mirrored, and where


def films_of_one() -> Iterator[tuple[list[Whose], list[Whose], list[Stating]]]:
    """Knees seen, letters burned in and what headers may say, of films of one knee; nothing of it is false."""
    for side, across, letters in product((L, R), (0.32, 0.4, 0.44, 0.5, 0.56, 0.6, 0.68), ((), (0.1,), (0.9,))):
        yield [(side, across)], [(side, x) for x in letters], [says(side), says(side, of_study=True), SILENT, SAYS_BOTH]


def films_of_two() -> Iterator[tuple[list[Whose], list[Whose], list[Stating]]]:
    """The same of films of both, on which one may not be seen; headers may name one of them."""
    for gap, marker in ((0.08, 0.2), (0.08, 0.05), (0.16, 0.28), (0.16, 0.13), (0.25, 0.4), (0.25, 0.22)):
        pair = [(R, 0.5 - gap), (L, 0.5 + gap)]
        stated = [SILENT, SAYS_BOTH, *(says(side, of_study=True) for side in Side)]
        stated += [says(side) for side in Side if gap > 0.1]
        marks = [(R, 0.5 - marker), (L, 0.5 + marker)]
        for seen, letters in product((pair, pair[:1], pair[1:]), ([], marks[:1], marks[1:], marks)):
            yield seen, letters, stated


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("sure", [False, True])
def test_sources_that_tell_the_truth_never_lead_to_a_wrong_side(*, mirrored: bool, behind: bool, sure: bool) -> None:
    """Films seen AP or from behind (PA), stored as such or mirrored; with and without a true Patient Orientation.

    Left out is what nobody could tell: a header that names the knee that is not seen, on a mirrored film.
    """

    def place(across: float) -> float:
        return 1 - across if mirrored else across

    proven = 0
    for seen, marks, statings in (*films_of_one(), *films_of_two()):
        ordered = sorted(seen, key=lambda knee: place(knee[1]))
        fibulae = {side: lateral_of(side, columns_to_left=not mirrored) for side in Side}
        knees = [Shown(place(x), 0.5 + 0.48 * fibulae[side] * sure) for side, x in ordered]
        letters = [Letter(side, mirrored != behind, place(x)) for side, x in marks]
        for stating, to_left in product(statings, (None, not mirrored)):
            named = isinstance(stating.side, Side) and stating.side not in [side for side, _ in seen]
            if named and mirrored and to_left is None:
                continue
            found = settle(replace(stating, columns_to_left=to_left), knees, letters)
            if not isinstance(found, Unproven):
                assert [e.side for e in found] == [side for side, _ in ordered], (stating, knees, letters)
                assert not sure or all(e.lateral == fibulae[e.side] for e in found)
                proven += 1
    assert proven > 250
