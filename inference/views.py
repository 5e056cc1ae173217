"""Which view? The Kellgren-Lawrence grade is read on frontal films only (AP or PA, Rosenberg included)."""

from dataclasses import dataclass

from pydicom.dataset import Dataset

from inference.findings import Evidence, RefusalCode
from inference.headers import Code, codes, controlled, directions, items, texts
from inference.words import FRONTAL, OTHER_VIEWS, Text, said

_FRONTAL_POSITIONS = frozenset({"AP", "PA"})
_OTHER_POSITIONS = {
    **dict.fromkeys(("LL", "RL", "LAT", "LATERAL", "LM", "ML"), "lateral"),
    **dict.fromkeys(("LLD", "RLD"), "lateral decubitus"),
    **dict.fromkeys(("RLO", "LLO", "RAO", "LAO", "RPO", "LPO", "OBL", "OBLIQUE"), "oblique"),
    **dict.fromkeys(("AX", "AXIAL", "TAN", "TANGENTIAL"), "tangential"),
}
# SNOMED CT and RT (PS3.16 CID 4010); Rosenberg is a PA view in flexion, Merchant a tangential one.
_FRONTAL_CODES = frozenset(
    {"399348003", "R-10206", "272479007", "R-40888", "R-10214", "399033003", "R-10202", "425042007", "R-40A97"}
)
_OTHER_CODES = {
    **dict.fromkeys(("399067008", "R-102CD", "399260004", "R-10224", "399352003", "R-10228"), "lateral"),
    **dict.fromkeys(("399173006", "R-10236", "399198007", "R-10232", "30730003", "G-A145"), "lateral"),
    **dict.fromkeys(("399110001", "R-102C2", "399284007", "R-10297", "399061009", "R-10241"), "tangential"),
    **dict.fromkeys(("399182000", "R-102C1", "399312000", "R-10208", "399059000", "R-10216"), "oblique"),
    **dict.fromkeys(("399160007", "R-10204", "260427002", "R-40783", "260426006", "R-40782"), "oblique"),
    **dict.fromkeys(("399135007", "R-10220", "399184004", "R-10238", "399006002", "R-10212"), "oblique"),
    **dict.fromkeys(("399356000", "R-40985", "399236003", "R-10234", "399038007", "R-10210"), "oblique"),
    **dict.fromkeys(("399099002", "R-10230", "399368009", "R-10226"), "oblique"),
}
# Kinds of AP or PA film: "PA tunnel" names one view that is not scored, where "AP/LAT" names two.
_OF_FRONTAL = frozenset({"oblique", "tunnel", "long leg"})
_IMAGE_TEXTS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription", "ViewName")
_STUDY_TEXTS = ("StudyDescription", "RequestedProcedureDescription", "PerformedProcedureStepDescription")


@dataclass(frozen=True)
class ViewDecision:
    """`refusal` is None when the view is frontal, else a code and a sentence."""

    evidence: tuple[Evidence, ...]
    refusal: tuple[RefusalCode, str] | None


def decide_view(header: Dataset) -> ViewDecision:
    """Whether the header says that the view is frontal.

    Codes speak of the image; a description may speak of a series with several views ("AP and lateral"), so that one
    that names both is no contradiction to a code, and no answer without one; "AP oblique" is one view, and contradicts.
    The study's text counts last. Patient Orientation proves no view, but rows or columns that run forwards or
    backwards contradict a frontal one.
    """
    coded = (*_position(header), *_view_codes(header))
    described = _described(header, _IMAGE_TEXTS)
    if not coded and not described:
        described = _described(header, _STUDY_TEXTS)
    evidence = (*coded, *described)
    coded_other, other = _others(coded), _others(described)
    coded_frontal, frontal = len(coded) > len(coded_other), len(described) > len(other)
    if coded_other:
        but = ", which contradicts the frontal view that stands elsewhere" if coded_frontal else ""
        return _refuse(evidence, RefusalCode.NO_FRONTAL_VIEW, f"{_sentence(coded_other[0])}{but}.")
    if (coded_frontal or frontal) and (seen := directions(header)) and {seen[0][0], seen[1][0]} & {"A", "P"}:
        reason = f"PatientOrientation is {seen[0]}\\{seen[1]}, which contradicts the frontal view that is said."
        return _refuse(evidence, RefusalCode.NO_FRONTAL_VIEW, reason)
    if other and (not frontal or (coded_frontal and {e.supports for e in other} <= _OF_FRONTAL)):
        but = ", which contradicts the coded frontal view" if coded_frontal else ""
        return _refuse(evidence, RefusalCode.NO_FRONTAL_VIEW, f"{_sentence(other[0])}{but}.")
    if coded_frontal or (frontal and not other):
        return ViewDecision(evidence, None)
    if frontal:
        reason = "The descriptions name a frontal view and another one; View Position does not say which it is."
        return _refuse(evidence, RefusalCode.VIEW_UNKNOWN, reason)
    reason = "Neither View Position nor View Code Sequence nor a description says which view it is."
    return _refuse(evidence, RefusalCode.VIEW_UNKNOWN, reason)


def _refuse(evidence: tuple[Evidence, ...], code: RefusalCode, reason: str) -> ViewDecision:
    return ViewDecision(evidence, (code, reason))


def _others(evidence: tuple[Evidence, ...]) -> list[Evidence]:
    return [e for e in evidence if e.supports != "frontal"]


def _sentence(evidence: Evidence) -> str:
    return f"{evidence.source} says {evidence.value} ({evidence.supports}); only frontal views (AP, PA) are scored"


def _position(header: Dataset) -> tuple[Evidence, ...]:
    found: list[Evidence] = []
    for value in texts(header, "ViewPosition"):
        position = value.upper().replace(".", "").replace("-", "")
        if position in _FRONTAL_POSITIONS:
            found.append(Evidence("view", "ViewPosition", position, "frontal"))
        elif position in _OTHER_POSITIONS:
            found.append(Evidence("view", "ViewPosition", controlled(position), _OTHER_POSITIONS[position]))
        else:
            found += _judge_text("ViewPosition", Text(value))
    return tuple(found)


def _view_codes(header: Dataset) -> tuple[Evidence, ...]:
    found: list[Evidence] = []
    for code in codes(header, "ViewCodeSequence"):
        found += _judge_code("ViewCodeSequence", code)
    for item in items(header, "ViewCodeSequence"):
        for code in codes(item, "ViewModifierCodeSequence"):
            found += _judge_code("ViewModifierCodeSequence", code)
    for code in codes(header, "ViewModifierCodeSequence"):
        found += _judge_code("ViewModifierCodeSequence", code)
    return tuple(found)


def _judge_code(keyword: str, code: Code) -> list[Evidence]:
    value = code.value.upper()
    if code.is_snomed and value in _FRONTAL_CODES:
        return [Evidence("view", keyword, str(code), "frontal")]
    if code.is_snomed and value in _OTHER_CODES:
        return [Evidence("view", keyword, str(code), _OTHER_CODES[value])]
    if code.scheme.upper() == "DCM" and value == "111069":
        return [Evidence("view", keyword, str(code), "lateral")]  # crosstable
    return _judge_text(f"{keyword} Code Meaning", Text(code.meaning))


def _described(header: Dataset, keywords: tuple[str, ...]) -> tuple[Evidence, ...]:
    return tuple(
        e for keyword in keywords for value in texts(header, keyword) for e in _judge_text(keyword, Text(value))
    )


def _judge_text(source: str, text: Text) -> list[Evidence]:
    found = [Evidence("view", source, said(FRONTAL, word), "frontal") for word in text.matches(FRONTAL)]
    for table in OTHER_VIEWS:
        found += [Evidence("view", source, said(table, word), table.name) for word in text.matches(table)]
    return found
