"""Which side? Every source is asked; two that disagree mean that nobody knows (PS3.3 C.7.3.1, C.8.11.7)."""

import re
from dataclasses import dataclass
from typing import Literal

from pydicom.dataset import Dataset

from inference.findings import Evidence, RefusalCode, Side
from inference.headers import codes, controlled, first, items, number, texts
from inference.words import BILATERAL, KNEE, LEFT, RIGHT, Text, said

BILATERAL_FILM: Literal["B"] = "B"

_VALUES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R", "B": "B", "BOTH": "B", "BILATERAL": "B"}
_CODES = {"7771000": "L", "G-A101": "L", "24028007": "R", "G-A100": "R", "51440002": "B", "G-A102": "B"}
_IMAGE_TEXTS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
_STUDY_TEXTS = ("StudyDescription", "RequestedProcedureDescription", "PerformedProcedureStepDescription")
_DIRECTIONS = re.compile(r"[APLRHF]{1,3}(\\[APLRHF]{1,3})?")
_NOT_UPRIGHT = re.compile(r"[FH][A-Z]{0,2}\\[APLR].*|[APLR][A-Z]{0,2}\\H.*")
_WIDE = 1.2  # columns per row above which a film without a stated side may hold two knees


@dataclass(frozen=True)
class SideDecision:
    """`sides` is one Side, "B" for a bilateral film, or None with `refusal` saying why.

    `columns_to_left` is True when image columns run towards the patient's left (as a film seen AP), False when towards
    the right, None when Patient Orientation does not say; never None with "B".
    """

    evidence: tuple[Evidence, ...]
    sides: Side | Literal["B"] | None
    columns_to_left: bool | None
    refusal: tuple[RefusalCode, str] | None


def decide_side(header: Dataset) -> SideDecision:
    """The side of the knee, from all that the header says about it."""
    coded = (*_attributes(header), *_regions(header), *_modifiers(header))
    described = _described(header, _IMAGE_TEXTS)
    study = _described(header, _STUDY_TEXTS)
    image = (*coded, *described)
    # A study of both knees holds films of one: "both" in the study's text contradicts no side, and proves none.
    study_sides = tuple(e for e in study if e.supports != "B")
    counted = (*image, *study_sides, *_letters(header, image or study_sides))
    towards_left = columns_to_left(header)
    found = {e.supports for e in counted}
    evidence = (*counted, *(e for e in study if e.supports == "B"))
    if len(found) > 1:
        one, other = counted[0], next(e for e in counted if e.supports != counted[0].supports)
        reason = f"{one.source} says {one.value}, but {other.source} says {other.value}: the side is contradictory."
        return SideDecision(evidence, None, towards_left, (RefusalCode.SIDE_CONTRADICTORY, reason))
    if not found:
        return _unknown(evidence, "Neither a laterality attribute nor a code nor a description says which knee it is.")
    (side,) = found
    if side == "B":
        return _bilateral(header, evidence, towards_left)
    if _NOT_UPRIGHT.fullmatch(turned := _orientation(header)):
        reason = f"PatientOrientation is {controlled(turned)}: the film lies on its side or head down. Send it upright."
        return SideDecision(evidence, None, None, (RefusalCode.NO_FRONTAL_VIEW, reason))
    if not coded and number(header, "Columns") > _WIDE * max(1, number(header, "Rows")):
        reason = "Only a description names a side, and the film is wide enough for two knees: set Image Laterality."
        return _unknown(evidence, reason)
    return SideDecision(evidence, Side(side), towards_left, None)


def columns_to_left(header: Dataset) -> bool | None:
    """Whether the columns of the image run to the patient's left, from Patient Orientation (PS3.3 C.7.6.1.1.1).

    None when it is absent, or not that of an upright frontal film (rows running to the feet).
    """
    found = texts(header, "PatientOrientation")
    if len(found) != 2:
        return None
    row, column = found[0].upper(), found[1].upper()
    if not column.startswith("F") or row[0] not in "LR":
        return None
    return row[0] == "L"


def _bilateral(header: Dataset, evidence: tuple[Evidence, ...], towards_left: bool | None) -> SideDecision:
    if towards_left is not None:
        return SideDecision(evidence, BILATERAL_FILM, towards_left, None)
    found = _orientation(header)
    value = found if _DIRECTIONS.fullmatch(found) else "unusable" if found else "empty"
    return _unknown(
        evidence, f"The film shows both knees, but Patient Orientation ({value}) does not say which is which."
    )


def _orientation(header: Dataset) -> str:
    return "\\".join(texts(header, "PatientOrientation")).upper()


def _unknown(evidence: tuple[Evidence, ...], reason: str) -> SideDecision:
    return SideDecision(evidence, None, None, (RefusalCode.SIDE_UNKNOWN, reason))


def _attributes(header: Dataset) -> list[Evidence]:
    frames = (
        (anatomy, "FrameLaterality")
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        for group in items(header, groups)
        for anatomy in items(group, "FrameAnatomySequence")
    )
    asked = (*((header, keyword) for keyword in ("ImageLaterality", "Laterality", "FrameLaterality")), *frames)
    found = ((keyword, _VALUES.get(first(item, keyword))) for item, keyword in asked)
    return [Evidence("side", keyword, side, side) for keyword, side in found if side]


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
    found = []
    for keyword in keywords:
        for value in texts(header, keyword):
            found += _judge(keyword, Text(value))
    return found


def _judge(source: str, text: Text) -> list[Evidence]:
    left, right, both = text.matches(LEFT), text.matches(RIGHT), text.matches(BILATERAL)
    contextual = set(text.sides_in_context())
    if both or ((left or "L" in contextual) and (right or "R" in contextual)):
        value = said(BILATERAL, both[0]) if both else "both sides"
        found = [Evidence("side", source, value, "B")]
        # "Both knees, left": the words disagree among themselves.
        if both and bool(left) != bool(right):
            side = "L" if left else "R"
            found.append(Evidence("side", source, said(LEFT if left else RIGHT, (left or right)[0]), side))
        return found
    found = [Evidence("side", source, said(LEFT, word), "L") for word in left[:1]]
    found += [Evidence("side", source, said(RIGHT, word), "R") for word in right[:1]]
    return found or [Evidence("side", source, f"a short word for {side}", side) for side in sorted(contextual)]


def _letters(header: Dataset, others: tuple[Evidence, ...] | list[Evidence]) -> list[Evidence]:
    """A lone "L" or "R" beside the knee's word: too ambiguous to prove a side, but enough to contradict one."""
    if not others:
        return []
    found = []
    for keyword in _IMAGE_TEXTS:
        for value in texts(header, keyword):
            text = Text(value)
            letters = [side for side in ("L", "R") if text.has_token(side)]
            if len(letters) == 1 and text.matches(KNEE):
                found.append(Evidence("side", keyword, f'the letter "{letters[0]}"', letters[0]))
    return found
