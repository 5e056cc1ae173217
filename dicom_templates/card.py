"""The refusal cards of a study: one Secondary Capture for each image with a refusal, one for what has no image.

A report may never be opened; a card is seen between the images. Like a heatmap it depends on its own source, refusals,
software and settings only, and carries no time of its own.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from dicom_templates import codes
from dicom_templates.capture import add_compression, add_picture, instance_number, source_item
from dicom_templates.card_drawing import (
    EVIDENCE,
    FOOTER,
    FOUND,
    MORE,
    NOT_SCORED,
    REASON,
    REMEDY,
    SERIES_HEADING,
    draw_card,
)
from dicom_templates.context import ReportContext
from dicom_templates.drawing import model_line
from dicom_templates.identity import (
    CARD_SERIES,
    RESEARCH_MARK,
    SIDE_WORDS,
    SYNTHETIC_MARK,
    ascii_text,
    content_digest,
    derived_uid,
    framed,
    series_uid,
)
from dicom_templates.mr_images import is_mr, of_series, only_mr
from dicom_templates.patient import raw_text
from inference.findings import FilmLook, ModelIdentity, Refusal, RefusalCode, Side, SourceImage, StudyFindings

MOST_REASONS: Final = 4  # kinds of reasons on one card; the report has them all
MOST_SENTENCES: Final = 2  # of one kind; all of them fit into Image Comments (LT, 10240 characters)
SENTENCE_LENGTH: Final = 1024
# Not the UID itself: a de-identified copy of the study keeps what is burned in.
EXPLAINED: Final = f"{EVIDENCE}genu explain (the page is named by the SOP Instance UID of the film)"
SERIES_EXPLAINED: Final = (
    f"{EVIDENCE}genu explain (the page is named by the SOP Instance UID of an image of the series)"
)
_STUDY_NUMBER: Final = 1
_RADIOGRAPHS: Final = {
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
}


def image_of(refusal: Refusal, images: Mapping[str, SourceImage]) -> SourceImage | None:
    """The image that a refusal is about; None when it has none that anybody could look at."""
    image = images.get(refusal.source) if refusal.source else None
    return image if image is not None and image.rows > 0 and image.columns > 0 else None


def card_key(refusal: Refusal, images: Mapping[str, SourceImage]) -> str | None:
    """The SOP Instance UID of the image whose card tells this refusal, empty for the card of the study, None for none.

    Objects that are no radiographs have none: a dose report or a presentation state lies beside many a scored film.
    """
    image = image_of(refusal, images)
    if refusal.code is RefusalCode.UNSUPPORTED_SOP_CLASS and (image is None or image.sop_class_uid not in _RADIOGRAPHS):
        return None
    return "" if image is None else image.sop_instance_uid


def refusals_by_card(findings: StudyFindings, images: Mapping[str, SourceImage]) -> dict[str, list[Refusal]]:
    """The refusals of each card, both in the order of the findings."""
    cards: dict[str, list[Refusal]] = {}
    for refusal in findings.refusals:
        if (key := card_key(refusal, images)) is not None:
            cards.setdefault(key, []).append(refusal)
    return cards


def build_card(
    image: SourceImage | None,
    refusals: Sequence[Refusal],
    findings: StudyFindings,
    header: Dataset,
    context: ReportContext,
) -> Dataset:
    """The Secondary Capture of what was refused on one image (PS3.3 A.8.1), or of the study where `image` is None.

    `header` is that of the image, else of the instance that gives patient and study; ready to be written.
    """
    side = common_side(refusals)
    series = image is not None and all(of_series(refusal, image) for refusal in refusals)
    scope = series_scope(side) if series else scope_sentence(image, side, _scored(image, side, findings))
    about_mr = series or (image is None and only_mr(findings))
    explained = "" if image is None else SERIES_EXPLAINED if series else EXPLAINED
    lines = card_lines(refusals, scope, findings.models, context, explained=explained, of_mr=about_mr, series=series)
    pixels = draw_card(lines, _film(image, findings, header), _look(image, findings))
    dataset = framed(
        header,
        study_uid=findings.study_instance_uid,
        sop_class_uid=SecondaryCaptureImageStorage,
        sop_instance_uid=_card_uid(image, refusals, findings, context, content_digest(pixels.tobytes())),
        series=CARD_SERIES,
        series_instance_uid=series_uid(CARD_SERIES, findings.study_instance_uid, findings.models, context),
        instance_number=_STUDY_NUMBER if image is None else instance_number(header),
        context=context,
        models=findings.models,
    )
    # Laterality and Body Part Examined belong to the series, which cards of either knee and of none share.
    dataset.ImageLaterality = image_laterality({refusal.side for refusal in refusals})
    dataset.PatientOrientation = None
    add_compression(dataset, header if image is not None else Dataset())
    dataset.DerivationDescription = _derivation(image, refusals, side, findings.models, series=series)
    if image is not None:
        dataset.SourceImageSequence = DicomSequence([source_item(image)])
    add_picture(dataset, pixels, lines)
    return dataset


def common_side(refusals: Sequence[Refusal]) -> Side | None:
    """The one knee that all refusals are about, None when they are about more or about no knee in particular."""
    sides = {refusal.side for refusal in refusals}
    return sides.pop() if len(sides) == 1 else None


def image_laterality(sides: Set[Side | None]) -> str:
    """Image Laterality (0020,0062), type 3 in PS3.3 C.7.6.1: R, L, B for both, empty where no knee is meant."""
    if sides == set(Side):
        return "B"
    return next((side.value for side in sides if side is not None), "") if len(sides) == 1 else ""


def heading(laterality: str) -> str:
    """The words that are legible on a thumbnail, for a value of Image Laterality."""
    knees = {Side.RIGHT: "RIGHT KNEE ", Side.LEFT: "LEFT KNEE ", "B": "BOTH KNEES "}
    return knees.get(laterality, "") + NOT_SCORED


def card_lines(
    refusals: Sequence[Refusal],
    scope: str,
    models: Sequence[ModelIdentity],
    context: ReportContext,
    *,
    explained: str = "",
    of_mr: bool = False,
    series: bool = False,
) -> tuple[str, ...]:
    """What is burned in, line by line before wrapping, in ASCII; holds nothing of the patient but the side.

    `explained` names the page of `genu explain`, which is about an image; `of_mr` gives the advice for MR images;
    `series` says that it is a series that was not scored.
    """
    remedies = codes.SERIES_REMEDIES if of_mr else codes.REMEDIES
    groups: dict[tuple[Side | None, RefusalCode], list[str]] = {}
    for refusal in refusals:
        sentences = groups.setdefault((refusal.side, refusal.code), [])
        sentence = found_sentence(refusal)
        if sentence not in sentences:
            sentences.append(sentence)
    laterality = image_laterality({refusal.side for refusal in refusals})
    lines = [SERIES_HEADING if series else heading(laterality), scope]
    told = 0
    for (knee, code), sentences in list(groups.items())[:MOST_REASONS]:
        which = f", {SIDE_WORDS[knee]} knee" if knee is not None else ""
        lines.append(f"{REASON}{which}: {codes.REFUSALS[code].meaning}")
        lines += [FOUND + sentence for sentence in sentences[:MOST_SENTENCES]]
        lines.append(REMEDY + remedies[code])
        told += len(sentences[:MOST_SENTENCES])
    if left := sum(map(len, groups.values())) - told:
        lines.append(f"{MORE}{left}")
    if explained:
        lines.append(explained)
    lines += [FOOTER + ascii_text(f"Genu {context.software_version}", 64), *map(model_line, models), RESEARCH_MARK]
    if any(model.synthetic for model in models):
        lines.append(SYNTHETIC_MARK)
    return tuple(lines)


def found_sentence(refusal: Refusal) -> str:
    """The reason as a sentence, as it stands on the card."""
    text = ascii_text(refusal.reason, SENTENCE_LENGTH)
    return text[:1].upper() + text[1:]


def series_scope(side: Side | None) -> str:
    """The same for a card of an MR series, which another model may have scored."""
    knee = f" for the {SIDE_WORDS[side]} knee" if side is not None else ""
    return f"A model for knee MRI has no result{knee}: it cannot score this series. The report says what was scored."


def scope_sentence(image: SourceImage | None, side: Side | None, scored: bool) -> str:
    """To what the card applies; `scored` says whether there are other results on the same image, or in the study."""
    if image is None:
        return (
            "There is no AI result for a part of this study; the report says what was scored."
            if scored
            else "There is no AI result for this study."
        )
    knee = f"the {SIDE_WORDS[side]} knee on this image" if side is not None else "this image"
    if not scored:
        return f"There is no AI result for {knee}."
    if side is None:
        return "There is no AI result for a part of this image; the report says what was scored."
    return f"There is no AI result for {knee}. The other knee was scored: see its heatmap."


def _scored(image: SourceImage | None, side: Side | None, findings: StudyFindings) -> bool:
    """Whether something was scored where the card says that something was not."""
    knees = [k for k in findings.knees if image is None or k.source.sop_instance_uid == image.sop_instance_uid]
    if image is None and findings.volumes:
        return True
    return any(side is None or knee.side is not side for knee in knees)


def is_written_on(header: Dataset) -> bool:
    """Whether the header says that somebody may be named in the pixels: such a film is not drawn again."""
    return raw_text(header, "BurnedInAnnotation").strip().upper() == b"YES"


def _film(image: SourceImage | None, findings: StudyFindings, header: Dataset) -> npt.NDArray[np.uint8] | None:
    """The film as a reader sees it, where it was rendered and nothing is known to be written onto it."""
    if image is None or is_mr(image) or is_written_on(header):
        return None
    return findings.renderings.get(image.sop_instance_uid)


def _look(image: SourceImage | None, findings: StudyFindings) -> FilmLook | None:
    uid = image.sop_instance_uid if image is not None else ""
    return next((look for look in findings.looks if uid and look.source.sop_instance_uid == uid), None)


def _card_uid(
    image: SourceImage | None,
    refusals: Sequence[Refusal],
    findings: StudyFindings,
    context: ReportContext,
    digest: str,
) -> UID:
    """Derived from source, refusals, models, software, settings and pixels, never from the clock."""
    return derived_uid(
        "card",
        findings.study_instance_uid,
        "study" if image is None else f"{image.sop_instance_uid}/{image.frame}",
        context.software_version,
        context.device_uid,
        context.configuration_digest,
        digest,
        *(f"model {model.key}" for model in findings.models),
        *(f"refusal {refusal.source}/{refusal.side}/{refusal.code.value}" for refusal in refusals),
    )


def _derivation(
    image: SourceImage | None,
    refusals: Sequence[Refusal],
    side: Side | None,
    models: Sequence[ModelIdentity],
    *,
    series: bool,
) -> str:
    mark = f"{SYNTHETIC_MARK}. " if any(model.synthetic for model in models) else ""
    what = "the image" if side is None else f"the {SIDE_WORDS[side]} knee"
    if image is None:
        what = "the study" if side is None else f"{what} of the study"
    if series:
        what = "the MR series" if side is None else f"the MR series of the {SIDE_WORDS[side]} knee"
    reasons = ", ".join(dict.fromkeys(codes.REFUSALS[refusal.code].meaning for refusal in refusals))
    return ascii_text(f"{mark}Card that says why {what} was not scored: {reasons}; not for measuring.", 1024)
