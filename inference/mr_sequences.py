"""Which MR sequence is it? By what its description says, else by its timing (TR, TE, echo train, fat saturation).

The three of the Osteoarthritis Initiative (Peterfy et al. 2008, doi:10.1016/j.joca.2008.06.016): coronal and sagittal
intermediate-weighted turbo spin echo, and sagittal three-dimensional double-echo steady state.
"""

import itertools
import math
import re
from dataclasses import dataclass
from enum import StrEnum

from pydicom.dataset import Dataset

from inference.findings import Evidence, RefusalCode
from inference.headers import first, texts
from inference.mr_geometry import Plane
from inference.words import normalise

_DESCRIPTIONS = ("SeriesDescription", "ProtocolName")
_WORD = re.compile(r"[a-z]+|\d+")
_LONGEST = 128
_PLANES = {
    Plane.CORONAL: frozenset({"cor", "coronal", "coro", "koronar", "coronale", "frontal"}),
    Plane.SAGITTAL: frozenset({"sag", "sagittal", "sagital", "sagittale"}),
    Plane.AXIAL: frozenset({"ax", "axial", "axiale", "tra", "trans", "transversal", "transverse"}),
}
_REFORMATS = frozenset({"mpr", "mip", "reformat", "reformatted"})
# In a longer description "loc" may be a location, or what the slices were planned on.
_SCOUTS = frozenset({"loc", "localizer", "localiser", "scout", "survey"})
_SCOUT_WORDS = 4
_FAT_SATURATED = frozenset({"fs", "fatsat", "spair", "spir", "fsat", "we"})
# Defined terms of the timing attributes (PS3.3 C.8.3.1, C.8.13.4): only these are told, anything else may be a name.
_TERMS = frozenset(
    {"SE", "IR", "GR", "EP", "RM", "SPIN", "GRADIENT", "BOTH", "2D", "3D"}
    | {"SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"}
)
_OTHER_WEIGHTS = ("stir", "flash", "flair", "dwi", "map", "medic", "spgr", "swi", "bold")


class MRSequence(StrEnum):
    """The sequences that models are made for."""

    COR_IW_TSE = "cor_iw_tse"
    SAG_IW_TSE = "sag_iw_tse"
    SAG_3D_DESS = "sag_3d_dess"

    @property
    def plane(self) -> Plane:
        """The plane of its slices."""
        return Plane.CORONAL if self is MRSequence.COR_IW_TSE else Plane.SAGITTAL

    @property
    def wording(self) -> str:
        """As a person calls it."""
        names = {"cor_iw_tse": "coronal IW TSE", "sag_iw_tse": "sagittal IW TSE", "sag_3d_dess": "sagittal 3D DESS"}
        return names[self.value]


@dataclass(frozen=True)
class SequenceDecision:
    """`refusal` is None when it is the sequence wanted; `by` says how it was told: "description" or "timing"."""

    evidence: tuple[Evidence, ...]
    by: str = ""
    refusal: tuple[RefusalCode, str] | None = None


def not_an_original(header: Dataset) -> str | None:
    """A word of a description that names a scout or a reformat, where Image Type does not; None without one."""
    for keyword in _DESCRIPTIONS:
        words = _words(header, keyword)
        for word in words:
            if word in _REFORMATS or (word in _SCOUTS and len(words) <= _SCOUT_WORDS):
                return f'{keyword} says "{word}": a scout or a reformat, not an original series.'
    return None


def described_plane(header: Dataset) -> tuple[Plane, str] | None:
    """The one plane that a description names, and which attribute; None where none or several are named."""
    for keyword in _DESCRIPTIONS:
        words = set(_words(header, keyword))
        named = [plane for plane, known in _PLANES.items() if words & known]
        if len(named) == 1:
            return named[0], keyword
    return None


def decide_sequence(header: Dataset, wanted: MRSequence) -> SequenceDecision:
    """Whether a series is the sequence wanted; the plane is not asked here.

    A description that names the sequence, or another one, is believed; where it names none, the timing decides.
    """
    for keyword in _DESCRIPTIONS:
        words = _words(header, keyword)
        if (named := _named(words)) is not None:
            return _described(keyword, named, wanted)
    return _dess_by_timing(header) if wanted is MRSequence.SAG_3D_DESS else _tse_by_timing(header, wanted)


def _described(keyword: str, named: str, wanted: MRSequence) -> SequenceDecision:
    kind = "dess" if wanted is MRSequence.SAG_3D_DESS else "iw tse"
    evidence = (Evidence("sequence", keyword, f'"{named}"', named),)
    if named == kind:
        return SequenceDecision(evidence, "description")
    reason = f'{keyword} says "{named}", which is no {wanted.wording}.'
    return SequenceDecision(evidence, refusal=(RefusalCode.WRONG_SEQUENCE, reason))


def _named(words: list[str]) -> str | None:
    """ "dess", "iw tse", another sequence's word, or None where the words leave it open (such as PD)."""
    here = set(words)
    if any("dess" in word for word in words):
        return "dess"
    if "iwtse" in here or ({"iw", "intermediate"} & here and {"tse", "fse"} & here):
        return "iw tse"
    for word in _OTHER_WEIGHTS:
        if word in here:
            return word
    pairs = {a + b for a, b in itertools.pairwise(words)}
    return next((weight for weight in ("t1", "t2") if weight in pairs and not {"pd", "dp"} & here), None)


def _words(header: Dataset, keyword: str) -> list[str]:
    """Letters and digits apart, without accents: "SAG_3D_DESS" is sag, 3, d, dess."""
    return [word for text in texts(header, keyword) for word in _WORD.findall(normalise(text[:_LONGEST]))]


def fat_saturated(header: Dataset) -> bool | None:
    """Whether fat is suppressed, by Scan Options, the enhanced modifiers or a description; None where nobody says."""
    if selected := first(header, "SpectrallySelectedSuppression"):
        return selected in ("FAT", "FAT_AND_WATER")
    options = [value.upper() for value in texts(header, "ScanOptions")]
    if any(value in ("FS", "SFS") or "FAT" in value for value in options):
        return True
    if any(_FAT_SATURATED & set(_words(header, keyword)) for keyword in (*_DESCRIPTIONS, "SequenceName")):
        return True
    return False if options else None


@dataclass
class _Timing:
    """Asks one number or word after another; the first that does not fit is the reason."""

    header: Dataset
    wanted: MRSequence
    evidence: list[Evidence]
    wrong: str = ""

    def within(self, keyword: str, low: float, high: float, unit: str, *, needed: bool = True) -> None:
        value = _number(self.header, keyword)
        if value is None:
            self._note(keyword, "missing", not needed)
        else:
            self._note(keyword, f"{value:g}{unit}", low <= value <= high)

    def says(self, keyword: str, value: str, fits: bool) -> None:
        self._note(keyword, value, fits)

    def _note(self, keyword: str, value: str, fits: bool) -> None:
        if value != "missing":
            self.evidence.append(Evidence("sequence", keyword, value, self.wanted.value if fits else "another"))
        if not fits and not self.wrong:
            self.wrong = f"{keyword} is {value}"

    def decision(self) -> SequenceDecision:
        if not self.wrong:
            return SequenceDecision(tuple(self.evidence), "timing")
        reason = f"No description names the sequence, and {self.wrong}: no {self.wanted.wording}."
        return SequenceDecision(tuple(self.evidence), refusal=(RefusalCode.WRONG_SEQUENCE, reason))


def _tse_by_timing(header: Dataset, wanted: MRSequence) -> SequenceDecision:
    asked = _Timing(header, wanted, [])
    kind = _kind(header)
    asked.says("ScanningSequence", _told(kind) or "missing", "SE" in kind or kind == ["SPIN"])
    acquired = first(header, "MRAcquisitionType")
    asked.says("MRAcquisitionType", _told([acquired]) or "missing", acquired in ("", "2D"))
    asked.within("RepetitionTime", 1500, 6500, " ms")
    asked.within("EchoTime", 15, 60, " ms")
    asked.within("EchoTrainLength", 2, 64, "", needed=False)
    asked.within("SliceThickness", 1.5, 5, " mm", needed=False)
    saturated, expected = fat_saturated(header), wanted is MRSequence.SAG_IW_TSE
    value = {True: "fat-saturated", False: "not fat-saturated", None: "not said"}[saturated]
    asked.says("fat saturation", value, bool(saturated) is expected)
    return asked.decision()


def _dess_by_timing(header: Dataset) -> SequenceDecision:
    asked = _Timing(header, MRSequence.SAG_3D_DESS, [])
    acquired = first(header, "MRAcquisitionType")
    asked.says("MRAcquisitionType", _told([acquired]) or "missing", acquired == "3D")
    kind = _kind(header)
    asked.says("ScanningSequence", _told(kind) or "missing", bool({"GR", "RM"} & set(kind)) or kind == ["GRADIENT"])
    variant = [value.upper() for value in texts(header, "SequenceVariant")]
    asked.says("SequenceVariant", _told(variant) or "not said", "SP" not in variant)
    asked.within("RepetitionTime", 10, 40, " ms")
    asked.within("EchoTime", 3, 12, " ms")
    asked.within("FlipAngle", 15, 50, " degrees")
    asked.within("EchoTrainLength", 0, 2, "", needed=False)
    asked.within("SliceThickness", 0.3, 2, " mm")
    return asked.decision()


def _kind(header: Dataset) -> list[str]:
    pulse = first(header, "EchoPulseSequence")
    return [pulse] if pulse else [value.upper() for value in texts(header, "ScanningSequence")]


def _told(values: list[str]) -> str:
    return "\\".join(value if value in _TERMS else "another value" for value in values[:4] if value)


def _number(header: Dataset, keyword: str) -> float | None:
    found = texts(header, keyword)
    try:
        value = float(found[0]) if found else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
