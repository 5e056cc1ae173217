"""Is it a knee? Evidence from codes, Body Part Examined and descriptions; it must be positive and unopposed."""

from dataclasses import dataclass

from pydicom.dataset import Dataset

from inference.findings import Evidence, RefusalCode
from inference.headers import Code, codes, controlled, items, texts
from inference.words import BODY_PARTS_ELSEWHERE, ELSEWHERE, KNEE, Text, said

# SNOMED CT, and the SNOMED RT identifiers that older equipment writes (PS3.16 CID 4031, Annex L).
_KNEE_CODES = frozenset({"72696002", "49076000", "T-D9200", "T-15720"})
# Neighbours that a knee film is often filed under: neither for nor against.
_HINT_CODES = frozenset(
    {"64234005", "T-12730", "61685007", "T-D9000", "30021000", "T-D9400", "66019005", "T-D0300"}
    | {
        "71341001",
        "T-12710",
        "12611008",
        "T-12740",
        "87342007",
        "T-12750",
        "72001000",
        "T-12700",
        "68367000",
        "T-D9100",
    }
)
_ELSEWHERE_CODES = frozenset(
    {"51185008", "T-D3000", "816094009", "818981001", "818983003", "T-D4000", "818982008", "12738006", "T-A0100"}
    | {"70258002", "T-15750", "344001", "T-D9500", "56459004", "T-D9700", "29707007", "T-D9800", "80144004", "T-12770"}
    | {"29836001", "T-D2500", "24136001", "T-15710", "816092008", "12921003", "T-D6000", "39723000", "T-15680"}
    | {"85562004", "T-D8700", "7569003", "T-D8800", "76505004", "T-D8810", "74670003", "T-15460", "8205005", "T-D8600"}
    | {
        "16953009",
        "T-15430",
        "127949000",
        "T-D8300",
        "14975008",
        "T-D8500",
        "85050009",
        "T-12410",
        "40983000",
        "T-D8200",
    }
    | {
        "16982005",
        "T-D2220",
        "51299004",
        "T-12310",
        "79601000",
        "T-12280",
        "85856004",
        "T-15420",
        "53120007",
        "T-D8000",
    }
    | {"89546000", "T-11100", "69536005", "T-D1100", "774007", "T-D1000", "45048000", "T-D1600", "91609006", "T-11180"}
    | {"122494005", "T-11501", "122495006", "T-11502", "122496007", "T-11503", "421060004", "T-D04FF", "54735007"}
    | {"T-11AD0", "64688005", "T-11BF0", "76752008", "T-04000", "113197003", "T-11300", "56873002", "T-11210"}
    | {"80891009", "T-32000", "2095001", "T-22000", "91397008", "T-11196", "53620006", "T-15770", "27949001"}
)
# CPT: radiologic examination of the knee.
_KNEE_PROCEDURES = frozenset({"73560", "73562", "73564", "73565"})
_PROCEDURE_SCHEMES = frozenset({"C4", "CPT", "CPT4", "CPT-4"})
_IMAGE_TEXTS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
_STUDY_TEXTS = ("StudyDescription", "RequestedProcedureDescription", "PerformedProcedureStepDescription")
_REQUEST_TEXTS = ("RequestedProcedureDescription", "ScheduledProcedureStepDescription")
_IMAGE_CODES = ("PerformedProtocolCodeSequence",)
_STUDY_CODES = ("ProcedureCodeSequence", "RequestedProcedureCodeSequence")


@dataclass(frozen=True)
class AnatomyDecision:
    """`refusal` is None when it is a knee, else a code and a sentence."""

    evidence: tuple[Evidence, ...]
    refusal: tuple[RefusalCode, str] | None


def decide_anatomy(header: Dataset) -> AnatomyDecision:
    """Whether the header says that the image shows a knee.

    What stands on the image or series outweighs the study, whose description may list several parts; a study that
    names only other parts still contradicts.
    """
    image = (*_region(header), *_body_part(header), *_described(header, _IMAGE_TEXTS), *_coded(header, _IMAGE_CODES))
    study = (*_described(header, _STUDY_TEXTS), *_coded(header, _STUDY_CODES), *_requested(header))
    evidence = (*image, *study)
    image_says, study_says = _said(image), _said(study)
    against = [e for e in evidence if e.supports == "elsewhere"]
    for_knee = [e for e in evidence if e.supports == "knee"]
    if not for_knee and not against:
        reason = "Nothing in the header says that the image shows a knee (Anatomic Region, Body Part, descriptions)."
        return AnatomyDecision(evidence, (RefusalCode.NOT_A_KNEE, reason))
    if not for_knee:
        return AnatomyDecision(evidence, (RefusalCode.NOT_A_KNEE, f"{_sentence(against[0])}, which is not a knee."))
    # "Knee and ankle" as a study is normal when the image itself says knee, and only that.
    if "elsewhere" in image_says or (against and not ("knee" in image_says and "knee" in study_says)):
        reason = f"{_sentence(for_knee[0])}, but {_sentence(against[0])}: contradictory anatomy."
        return AnatomyDecision(evidence, (RefusalCode.NOT_A_KNEE, reason))
    return AnatomyDecision(evidence, None)


def _said(evidence: tuple[Evidence, ...]) -> set[str]:
    return {e.supports for e in evidence}


def _sentence(evidence: Evidence) -> str:
    return f"{evidence.source} says {evidence.value}"


def _region(header: Dataset) -> list[Evidence]:
    found = []
    for keyword in ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence"):
        for code in codes(header, keyword):
            found += _judge_code(keyword, code, _KNEE_CODES)
    return found


def _judge_code(keyword: str, code: Code, knee_codes: frozenset[str]) -> list[Evidence]:
    value = code.value.upper()
    if value in knee_codes and (code.is_snomed or code.scheme.upper() in _PROCEDURE_SCHEMES):
        return [Evidence("anatomy", keyword, str(code), "knee")]
    if code.is_snomed and value in _ELSEWHERE_CODES:
        return [Evidence("anatomy", keyword, str(code), "elsewhere")]
    if code.is_snomed and value in _HINT_CODES:
        return []
    return _judge_text(f"{keyword} Code Meaning", Text(code.meaning))


def _body_part(header: Dataset) -> list[Evidence]:
    found = []
    for value in texts(header, "BodyPartExamined"):
        part = "".join(c for c in value.upper() if c.isalnum())
        if part in BODY_PARTS_ELSEWHERE:
            found.append(Evidence("anatomy", "BodyPartExamined", controlled(value), "elsewhere"))
        else:
            found += _judge_text("BodyPartExamined", Text(value))
    return found


def _described(header: Dataset, keywords: tuple[str, ...]) -> list[Evidence]:
    return [e for keyword in keywords for value in texts(header, keyword) for e in _judge_text(keyword, Text(value))]


def _requested(header: Dataset) -> list[Evidence]:
    return [e for item in items(header, "RequestAttributesSequence") for e in _described(item, _REQUEST_TEXTS)]


def _coded(header: Dataset, keywords: tuple[str, ...]) -> list[Evidence]:
    known = _KNEE_PROCEDURES | _KNEE_CODES
    return [e for keyword in keywords for code in codes(header, keyword) for e in _judge_code(keyword, code, known)]


def _judge_text(source: str, text: Text) -> list[Evidence]:
    tables = ((KNEE, "knee"), (ELSEWHERE, "elsewhere"))
    return [Evidence("anatomy", source, said(t, word), what) for t, what in tables for word in text.matches(t)]
