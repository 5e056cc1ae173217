"""Which side? Every source of the header is asked; two that disagree are a refusal (PS3.3 C.7.3.1, C.8.11.7).

A header that says nothing is none: what it says goes to the pixels as `inference.sides.Stating`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from inference.findings import Evidence, RefusalCode, Side
from inference.headers import codes, directions, items, texts
from inference.sides import BOTH, Stating
from inference.words import BILATERAL, KNEE, LEFT, PLURAL, RIGHT, Text, said

_VALUES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R", "B": "B", "BOTH": "B", "BILATERAL": "B"}
_CODES = {"7771000": "L", "G-A101": "L", "24028007": "R", "G-A100": "R", "51440002": "B", "G-A102": "B"}
_IMAGE_TEXTS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
_STUDY_TEXTS = ("StudyDescription", "RequestedProcedureDescription", "PerformedProcedureStepDescription")


@dataclass(frozen=True)
class SideDecision:
    """What the header says of the side, for the pixels to agree with; or `refusal`, a code and a sentence."""

    evidence: tuple[Evidence, ...]
    stating: Stating
    refusal: tuple[RefusalCode, str] | None


def decide_side(header: Dataset) -> SideDecision:
    """The side of the knee or knees, from all that the header says about it.

    Refused are two sources that contradict each other, and a Patient Orientation (0020,0020) according to which the
    film lies on its side or head down.
    """
    coded = (*_attributes(header), *_regions(header), *_modifiers(header))
    described = _described(header, _IMAGE_TEXTS)
    study = _described(header, _STUDY_TEXTS)
    # A study of both knees holds films of one: "both" in the study's text contradicts no side, and proves none. Nor
    # does a study of one contradict a film of both, as taken for comparison.
    of_both = {e.supports for e in (*coded, *described)} == {BOTH}
    certain = (*coded, *described, *(e for e in study if e.supports != BOTH and not of_both))
    letters = _letters(header)
    counted = (*certain, *letters) if certain else ()
    # Nor is "KNEES" more than the name of many a series that holds films of one.
    evidence = (*counted, *_plurals(header, _IMAGE_TEXTS), *(e for e in study if e.supports == BOTH))
    hinted = frozenset(Side(e.supports) for e in letters)
    stating = _stating(counted, hinted, columns_to_left(header))
    if stating is None:
        one, other = counted[0], next(e for e in counted if e.supports != counted[0].supports)
        reason = f"{one.source} says {one.value}, but {other.source} says {other.value}: the side is contradictory."
        nothing = Stating(None, "", columns_to_left(header), hinted)
        return SideDecision(evidence, nothing, (RefusalCode.SIDE_CONTRADICTORY, reason))
    if (seen := directions(header)) and (seen[0][0] in "FH" or seen[1][0] == "H"):
        reason = f"PatientOrientation is {seen[0]}\\{seen[1]}: the film lies on its side or head down. Send it upright."
        return SideDecision(evidence, stating, (RefusalCode.FILM_TURNED, reason))
    return SideDecision(evidence, stating, None)


def _stating(counted: Sequence[Evidence], hinted: frozenset[Side], to_left: bool | None) -> Stating | None:
    """What all of the evidence says; None when it says different things."""
    found = {e.supports for e in counted}
    if len(found) > 1:
        return None
    if not counted:
        return Stating(None, "", to_left, hinted)
    side = counted[0].supports
    of_study = all(e.source in _STUDY_TEXTS for e in counted)
    return Stating(BOTH if side == BOTH else Side(side), counted[0].source, to_left, hinted, of_study)


def columns_to_left(header: Dataset) -> bool | None:
    """Whether the columns of the image run to the patient's left, from Patient Orientation (PS3.3 C.7.6.1.1.1).

    None when it is absent, contradicts itself ("LR"), or is not that of an upright frontal film (rows running to the
    feet).
    """
    seen = directions(header)
    if seen is None or seen[0][0] not in "LR" or seen[1][0] != "F" or {"L", "R"} <= {*seen[0]} or "H" in seen[1]:
        return None
    return seen[0][0] == "L"


def _attributes(header: Dataset) -> list[Evidence]:
    frames = (
        (anatomy, "FrameLaterality")
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        for group in items(header, groups)
        for anatomy in items(group, "FrameAnatomySequence")
    )
    asked = (*((header, keyword) for keyword in ("ImageLaterality", "Laterality", "FrameLaterality")), *frames)
    return [e for item, keyword in asked for value in texts(item, keyword) for e in _valued(keyword, value)]


def _valued(keyword: str, value: str) -> list[Evidence]:
    """Every value counts, that of "R\\L" too; what is no defined term may be a word ("RT", "LEFT KNEE")."""
    side = _VALUES.get(value.upper())
    return [Evidence("side", keyword, side, side)] if side else _judge(keyword, Text(value))


def _regions(header: Dataset) -> list[Evidence]:
    found = []
    for region in items(header, "AnatomicRegionSequence"):
        found += _coded(region, "AnatomicRegionModifierSequence")
    for structure in items(header, "PrimaryAnatomicStructureSequence"):
        found += _coded(structure, "PrimaryAnatomicStructureModifierSequence")
    return found


def _modifiers(header: Dataset) -> list[Evidence]:
    found = _coded(header, "ViewModifierCodeSequence")
    for view in items(header, "ViewCodeSequence"):
        found += _coded(view, "ViewModifierCodeSequence")
    return found


def _coded(item: Dataset, keyword: str) -> list[Evidence]:
    found = ((code, _CODES.get(code.value.upper())) for code in codes(item, keyword) if code.is_snomed)
    return [Evidence("side", keyword, str(code), side) for code, side in found if side]


def _described(header: Dataset, keywords: tuple[str, ...]) -> list[Evidence]:
    return [e for keyword in keywords for value in texts(header, keyword) for e in _judge(keyword, Text(value))]


def _judge(source: str, text: Text) -> list[Evidence]:
    left, right, both = text.matches(LEFT), text.matches(RIGHT), text.matches(BILATERAL)
    contextual = set(text.sides_in_context())
    if both or ((left or "L" in contextual) and (right or "R" in contextual)):
        value = said(BILATERAL, both[0]) if both else "both sides"
        found = [Evidence("side", source, value, BOTH)]
        # "Both knees, left": the words disagree among themselves; in a study's text they may speak of other parts.
        if both and bool(left) != bool(right) and source not in _STUDY_TEXTS:
            side = "L" if left else "R"
            found.append(Evidence("side", source, said(LEFT if left else RIGHT, (left or right)[0]), side))
        return found
    found = [Evidence("side", source, said(LEFT, word), "L") for word in left[:1]]
    found += [Evidence("side", source, said(RIGHT, word), "R") for word in right[:1]]
    return found or [Evidence("side", source, f"a short word for {side}", side) for side in sorted(contextual)]


def _plurals(header: Dataset, keywords: tuple[str, ...]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence("side", keyword, said(PLURAL, word), BOTH)
        for keyword in keywords
        for value in texts(header, keyword)
        for word in Text(value).matches(PLURAL)[:1]
    )


def _letters(header: Dataset) -> list[Evidence]:
    """A lone "L" or "R" beside the knee's word: too ambiguous to prove a side, but enough to contradict one."""
    found = []
    for keyword in _IMAGE_TEXTS:
        for value in texts(header, keyword):
            text = Text(value)
            letters = [side for side in ("L", "R") if text.has_token(side)]
            if len(letters) == 1 and text.matches(KNEE):
                found.append(Evidence("side", keyword, f'the letter "{letters[0]}"', letters[0]))
    return found
