"""Which instances of a study are frontal knee radiographs, and what their headers say of the side.

One pure function per question (`decide_anatomy`, `decide_view`, `decide_side`), all over the header only;
`inference.sides` weighs the side against the pixels. docs/selection.md tells the rules and what a user can do.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID

from inference.anatomy import decide_anatomy
from inference.findings import Evidence, Refusal, RefusalCode
from inference.headers import controlled, first, items, number, texts
from inference.laterality import decide_side
from inference.reading import Instance, StudyInput
from inference.sides import BOTH, Stating
from inference.views import decide_view

BILATERAL = BOTH
OWN_MANUFACTURER = "Genu"
OWN_CODING_SCHEME = "99GENU"

COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
DIGITAL_XRAY_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DIGITAL_XRAY_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_RADIOGRAPHS = frozenset({COMPUTED_RADIOGRAPHY, DIGITAL_XRAY_FOR_PRESENTATION, DIGITAL_XRAY_FOR_PROCESSING})

# Values of Image Type beyond the second that mark scouts, reformats and copies of a screen.
_DERIVED_FLAVOURS = frozenset(
    {"LOCALIZER", "SCOUT", "MPR", "MIP", "REFORMATTED", "RESAMPLED", "PROJECTION IMAGE", "SUBTRACTION"}
    | {"SCREEN SAVE", "SCREENSAVE", "SCREEN SAVER", "SCREEN_SAVE", "SCREENSHOT", "SCREEN CAPTURE", "CSA REPORT"}
)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One image for the pixel stage: what its header says of the side, and all evidence from the header."""

    instance: Instance
    stating: Stating
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, eq=False)
class Selection:
    """What is to be scored, what is refused and why, and how many instances Genu is meant for."""

    candidates: tuple[Candidate, ...]
    refusals: tuple[Refusal, ...]
    radiographs: int


def select(study: StudyInput, *, accept_secondary_capture: bool = False) -> Selection:
    """Judge every instance of a study; pure, and in the stable order of SOP Instance UIDs.

    Genu's own results are passed over in silence. Instances of other SOP classes are refused once per class and not
    counted in `radiographs`; unreadable files are counted. When the identity is contradictory nothing is scored.
    """
    accepted = _RADIOGRAPHS | {SECONDARY_CAPTURE} if accept_secondary_capture else _RADIOGRAPHS
    foreign = [instance for instance in study.instances if not is_own_result(instance.header)]
    radiographs = [instance for instance in foreign if instance.sop_class_uid in accepted]
    others = [instance for instance in foreign if instance.sop_class_uid not in accepted]
    counted = len(radiographs) + len(study.unreadable)
    refusals = [*study.unreadable, *_other_classes(others)]
    if any(r.code is RefusalCode.IDENTITY_CONTRADICTORY and r.source is None for r in study.unreadable):
        return Selection((), tuple(refusals), counted)
    judged = [_judge(instance) for instance in radiographs]
    candidates = tuple(found for found in judged if isinstance(found, Candidate))
    refusals += [found for found in judged if isinstance(found, Refusal)]
    return Selection(candidates, tuple(refusals), counted)


def is_own_result(header: Dataset) -> bool:
    """Whether Genu wrote this object: by Manufacturer or the declared private coding scheme, not by description."""
    if any(value.casefold() == OWN_MANUFACTURER.casefold() for value in texts(header, "Manufacturer")):
        return True
    schemes = items(header, "CodingSchemeIdentificationSequence")
    return any(first(item, "CodingSchemeDesignator") == OWN_CODING_SCHEME for item in schemes)


def derived_image(header: Dataset) -> str | None:
    """Why this is no original radiograph, from Image Type (PS3.3 C.7.6.1.1.2); None when it is.

    DERIVED\\PRIMARY is common for processed DX and is accepted; DERIVED\\SECONDARY is a copy or a reformat.
    """
    values = [value.upper() for value in texts(header, "ImageType")]
    if values[:2] == ["DERIVED", "SECONDARY"]:
        return "ImageType is DERIVED\\SECONDARY: a copy or a reformat, not an original radiograph."
    for value in values:
        if value in _DERIVED_FLAVOURS:
            return f"ImageType contains {controlled(value)}: not an original radiograph."
    return None


def _judge(instance: Instance) -> Candidate | Refusal:
    header, source = instance.header, instance.sop_instance_uid
    early = _not_an_image_for_us(instance)
    if early is not None:
        return Refusal(early[0], early[1], source)
    anatomy = decide_anatomy(header)
    if anatomy.refusal is not None:
        return Refusal(*anatomy.refusal, source)
    view = decide_view(header)
    if view.refusal is not None:
        return Refusal(*view.refusal, source)
    side = decide_side(header)
    if side.refusal is not None:
        return Refusal(*side.refusal, source)
    return Candidate(instance, side.stating, (*anatomy.evidence, *view.evidence, *side.evidence))


def _not_an_image_for_us(instance: Instance) -> tuple[RefusalCode, str] | None:
    header = instance.header
    intent = first(header, "PresentationIntentType")
    if instance.sop_class_uid == DIGITAL_XRAY_FOR_PROCESSING or intent == "FOR PROCESSING":
        reason = (
            "The image is For Processing (raw detector data). Send the For Presentation image of the same exposure."
        )
        return RefusalCode.FOR_PROCESSING, reason
    if (reason_derived := derived_image(header)) is not None:
        return RefusalCode.DERIVED_IMAGE, reason_derived
    frames = number(header, "NumberOfFrames")
    if frames > 1:
        reason = f"NumberOfFrames is {frames}: multi-frame radiographs are not supported. Send single images."
        return RefusalCode.UNSUPPORTED_SOP_CLASS, reason
    return None


def _other_classes(instances: Iterable[Instance]) -> list[Refusal]:
    """One refusal per SOP class: a hundred MR slices are one reason, not a hundred."""
    by_class: dict[str, list[Instance]] = {}
    for instance in instances:
        by_class.setdefault(instance.sop_class_uid, []).append(instance)
    return [_other_class(uid, found) for uid, found in sorted(by_class.items())]


def _other_class(uid: str, found: list[Instance]) -> Refusal:
    known = UID(uid).name
    name = uid if known == uid or not known.isascii() else f"{known} ({uid})"
    hint = " The site can opt in to Secondary Capture in the settings." if uid == SECONDARY_CAPTURE else ""
    reason = f"SOP class {name}: no radiograph that Genu scores.{hint}"
    return Refusal(RefusalCode.UNSUPPORTED_SOP_CLASS, reason, found[0].sop_instance_uid if len(found) == 1 else None)
