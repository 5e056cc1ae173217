"""Which instances of a study are frontal knee radiographs, and what their headers say of the side.

One pure function per question (`decide_anatomy`, `decide_view`, `decide_side`), all over the header only;
`inference.sides` weighs the side against the pixels. docs/selection.md tells the rules and what a user can do.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.uid import UID

from inference.anatomy import decide_anatomy
from inference.findings import Evidence, FilmLook, Refusal, RefusalCode, Side, SourceImage, Step
from inference.headers import controlled, first, items, number, texts
from inference.laterality import decide_side
from inference.reading import Instance, StudyInput
from inference.sides import BOTH, Stating
from inference.views import decide_view

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
READ = Step("Can it be read", "yes, as a DICOM object.")


@dataclass(frozen=True, eq=False)
class Candidate:
    """One image for the pixel stage: what its header says of the side, all evidence and all answers of the header."""

    instance: Instance
    stating: Stating
    evidence: tuple[Evidence, ...]
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, eq=False)
class Selection:
    """What is to be scored, what is refused and why, and how many instances Genu is meant for.

    `looks` tell how far each image came that is refused here; other SOP classes have one for each class.
    """

    candidates: tuple[Candidate, ...]
    refusals: tuple[Refusal, ...]
    radiographs: int
    looks: tuple[FilmLook, ...] = ()


def select(
    study: StudyInput, *, accept_secondary_capture: bool = False, left_to_others: Set[str] = frozenset()
) -> Selection:
    """Judge every instance of a study; pure, and in the stable order of SOP Instance UIDs.

    Genu's own results are passed over in silence, and so are the SOP classes `left_to_others`. Instances of other SOP
    classes are refused once per class and not counted in `radiographs`; unreadable files are counted. When the identity
    is contradictory nothing is scored.
    """
    accepted = _RADIOGRAPHS | {SECONDARY_CAPTURE} if accept_secondary_capture else _RADIOGRAPHS
    foreign = [instance for instance in study.instances if not is_own_result(instance.header)]
    radiographs = [instance for instance in foreign if instance.sop_class_uid in accepted]
    others = [instance for instance in foreign if instance.sop_class_uid not in accepted | left_to_others]
    counted = len(radiographs) + len(study.unreadable)
    classes = _by_class(others)
    of_classes = [_other_class(uid, found) for uid, found in classes]
    refusals = [*study.unreadable, *of_classes]
    looks = [_unreadable_look(refusal) for refusal in study.unreadable if not _is_of_the_study(refusal)]
    looks += [_class_look(refusal, found) for refusal, (_, found) in zip(of_classes, classes, strict=True)]
    if (contradiction := contradictory_identity(study)) is not None:
        steps = (READ, refused_step("Patient", contradiction))
        looks += [FilmLook(source_of(instance), (), steps) for instance in radiographs]
        return Selection((), tuple(refusals), counted, tuple(looks))
    judged = [_judge(instance) for instance in radiographs]
    candidates = tuple(found for found in judged if isinstance(found, Candidate))
    refused = [found for found in judged if not isinstance(found, Candidate)]
    refusals += [refusal for refusal, _ in refused]
    return Selection(candidates, tuple(refusals), counted, (*looks, *(look for _, look in refused)))


def contradictory_identity(study: StudyInput) -> Refusal | None:
    """Why nothing of the study may be scored: it names two patients; None where it does not."""
    return next((refusal for refusal in study.unreadable if _is_of_the_study(refusal)), None)


def source_of(instance: Instance) -> SourceImage:
    """How findings name an instance; its size is 0 where the header gives none."""
    rows, columns = (instance.header.get(name) for name in ("Rows", "Columns"))
    return SourceImage(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        rows=rows if isinstance(rows, int) else 0,
        columns=columns if isinstance(columns, int) else 0,
    )


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


@dataclass
class _Asked:
    """The questions that one header was asked so far, and what it answered."""

    instance: Instance
    steps: list[Step] = field(default_factory=lambda: [READ])
    evidence: list[Evidence] = field(default_factory=list)

    def passes(self, question: str, answer: str, evidence: Iterable[Evidence] = ()) -> None:
        self.steps.append(Step(question, answer))
        self.evidence += evidence

    def refuses(
        self, question: str, why: tuple[RefusalCode, str], evidence: Iterable[Evidence] = ()
    ) -> tuple[Refusal, FilmLook]:
        refusal = Refusal(*why, self.instance.sop_instance_uid)
        self.evidence += evidence
        steps = (*self.steps, refused_step(question, refusal))
        return refusal, FilmLook(source_of(self.instance), tuple(self.evidence), steps)


def _judge(instance: Instance) -> Candidate | tuple[Refusal, FilmLook]:
    """One question after the other; the first refusal ends it."""
    header, asked = instance.header, _Asked(instance)
    if (why := _not_for_presentation(instance)) is not None:
        return asked.refuses("SOP class", why)
    asked.passes("SOP class", f"{_class_name(instance.sop_class_uid)}.")
    if (why := _not_an_original(header)) is not None:
        return asked.refuses("Image Type", why)
    asked.passes("Image Type", "an original image of one frame.")
    anatomy = decide_anatomy(header)
    if anatomy.refusal is not None:
        return asked.refuses("Anatomy", anatomy.refusal, anatomy.evidence)
    asked.passes("Anatomy", f"a knee, by {_sources(anatomy.evidence, {'knee'})}.", anatomy.evidence)
    view = decide_view(header)
    if view.refusal is not None:
        return asked.refuses("View", view.refusal, view.evidence)
    asked.passes("View", f"frontal, by {_sources(view.evidence, {'frontal'})}.", view.evidence)
    side = decide_side(header)
    if side.refusal is not None:
        return asked.refuses("Side by header", side.refusal, side.evidence)
    asked.passes("Side by header", _stated(side.stating), side.evidence)
    return Candidate(instance, side.stating, tuple(asked.evidence), tuple(asked.steps))


def _not_for_presentation(instance: Instance) -> tuple[RefusalCode, str] | None:
    intent = first(instance.header, "PresentationIntentType")
    if instance.sop_class_uid == DIGITAL_XRAY_FOR_PROCESSING or intent == "FOR PROCESSING":
        reason = (
            "The image is For Processing (raw detector data). Send the For Presentation image of the same exposure."
        )
        return RefusalCode.FOR_PROCESSING, reason
    return None


def _not_an_original(header: Dataset) -> tuple[RefusalCode, str] | None:
    if (reason_derived := derived_image(header)) is not None:
        return RefusalCode.DERIVED_IMAGE, reason_derived
    frames = number(header, "NumberOfFrames")
    if frames > 1:
        reason = f"NumberOfFrames is {frames}: multi-frame radiographs are not supported. Send single images."
        return RefusalCode.UNSUPPORTED_SOP_CLASS, reason
    return None


def _stated(stating: Stating) -> str:
    if stating.side is None:
        return "not said; letters and anatomy must say it."
    names: dict[str, str] = {Side.LEFT: "left", Side.RIGHT: "right", BOTH: "both knees"}
    return f"{names[stating.side]}, by {stating.source}."


def _sources(evidence: Iterable[Evidence], supporting: Set[str]) -> str:
    return ", ".join(dict.fromkeys(e.source for e in evidence if e.supports in supporting))


def refused_step(question: str, refusal: Refusal) -> Step:
    """The question that ended it."""
    return Step(question, f"{refusal.code.value}: {refusal.reason}", passed=False)


def _is_of_the_study(refusal: Refusal) -> bool:
    return refusal.code is RefusalCode.IDENTITY_CONTRADICTORY and refusal.source is None


def _unreadable_look(refusal: Refusal) -> FilmLook:
    question = READ.question if refusal.code is not RefusalCode.IDENTITY_CONTRADICTORY else "Study"
    return FilmLook(SourceImage("", refusal.source or "", "", 0, 0), (), (refused_step(question, refusal),))


def _class_look(refusal: Refusal, found: Sequence[Instance]) -> FilmLook:
    source = source_of(found[0]) if len(found) == 1 else SourceImage(found[0].sop_class_uid, "", "", 0, 0)
    return FilmLook(source, (), (READ, refused_step("SOP class", refusal)))


def _by_class(instances: Iterable[Instance]) -> list[tuple[str, list[Instance]]]:
    """A hundred MR slices are one reason, not a hundred."""
    by_class: dict[str, list[Instance]] = {}
    for instance in instances:
        by_class.setdefault(instance.sop_class_uid, []).append(instance)
    return sorted(by_class.items())


def _other_class(uid: str, found: list[Instance]) -> Refusal:
    hint = " The site can opt in to Secondary Capture in the settings." if uid == SECONDARY_CAPTURE else ""
    reason = f"SOP class {_class_name(uid)}: no radiograph that Genu scores.{hint}"
    return Refusal(RefusalCode.UNSUPPORTED_SOP_CLASS, reason, found[0].sop_instance_uid if len(found) == 1 else None)


def _class_name(uid: str) -> str:
    known = UID(uid).name
    return uid if known == uid or not known.isascii() else f"{known} ({uid})"
