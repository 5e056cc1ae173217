"""The conformal set as texts and captions name it beside the grade: "KL 2 (2-3, 90 %)"."""

import re

SET_WORDS = r"\((?P<low>[0-4])(?:-(?P<high>[0-4]))?, [0-9]{1,2}(?:\.[0-9]+)? %\)"
_SET = re.compile(rf"KL [0-4] {SET_WORDS}")


def told_set(text: str) -> tuple[int, ...]:
    """The grades of the set that a text names, in order; empty when it names none."""
    match = _SET.search(text)
    return () if match is None else tuple(range(int(match["low"]), int(match["high"] or match["low"]) + 1))
