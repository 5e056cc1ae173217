"""The measurement groups of a report: TID 1410 for a scored knee and for a refusal that belongs to an image.

Always TID 1410 with a region (SCOORD), never a bare TID 1501: viewers throw on numbers in a group without a region.
The word for the disease never stands here: a grade is a grade, and grades 0 and 1 are no finding at all.
"""

from collections.abc import Iterable
from typing import cast

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    ContentItem,
    FindingSite,
    GraphicTypeValues,
    ImageContentItem,
    ImageRegion,
    Measurement,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_templates import codes, mr_codes
from dicom_templates.identity import MANUFACTURER, SIDE_WORDS, SYNTHETIC_MARK, ascii_text, derived_uid, tracking_uid
from dicom_templates.mr_images import of_series
from dicom_templates.pain import ORIGIN, pain_words, rounded
from inference.findings import Box, Evidence, KneeFinding, ModelIdentity, PainFinding, Refusal, SourceImage, Spacing

_CONTAINS = RelationshipTypeValues.CONTAINS
_PARAMETER_LENGTH = 1024


def knee_group(knee: KneeFinding, header: Dataset, study_uid: str, heatmap: Dataset) -> ContentItem:
    """The group of one scored knee; `heatmap` is its Secondary Capture."""
    group = group_of(
        TrackingIdentifier(tracking_uid(header, knee.side, study_uid), f"{SIDE_WORDS[knee.side]} knee"),
        region_of(knee.source, knee.box),
        algorithm_id=algorithm_of(knee.model),
        finding_sites=[FindingSite(codes.KNEE_JOINT, codes.SIDES[knee.side])],
        measurements=_measurements(knee),
        evaluations=_evaluations(knee),
    )
    group.ContentSequence.append(TextContentItem(codes.RESULT_TEXT.code, result_sentence(knee), _CONTAINS))
    for item in evidence_items(knee.evidence):
        group.ContentSequence.append(item)
    if knee.spacing is not None:
        text = ascii_text(spacing_sentence(knee.spacing), 256)
        group.ContentSequence.append(TextContentItem(codes.PIXEL_SPACING.code, text, _CONTAINS))
    group.ContentSequence.append(picture_item(codes.VISUAL_EXPLANATION, heatmap))
    return group


def picture_item(name: Code, picture: Dataset) -> ContentItem:
    """The IMAGE item that refers to a Secondary Capture of ours."""
    return ImageContentItem(
        name=name,
        referenced_sop_class_uid=picture.SOPClassUID,
        referenced_sop_instance_uid=picture.SOPInstanceUID,
        relationship_type=_CONTAINS,
    )


def refusal_group(refusal: Refusal, image: SourceImage, study_uid: str, card: Dataset | None) -> ContentItem:
    """The group of one refusal, its region the outline of `image`; a refused study is drawn on its first image.

    `card` is the Secondary Capture that tells it, None where there is none (`card.card_key`).
    """
    extent, words = codes.EXTENT_IMAGE, "Image not scored"
    sites = None
    if refusal.source is None:
        extent, words = codes.EXTENT_STUDY, "Study not scored"
    elif of_series(refusal, image):
        knee = "" if refusal.side is None else f" of {SIDE_WORDS[refusal.side]} knee"
        extent, words = mr_codes.EXTENT, f"MR series{knee} not scored by a model"
    elif refusal.side is not None:
        extent, words = codes.EXTENT_KNEE, f"{SIDE_WORDS[refusal.side]} knee not scored"
    if refusal.side is not None:
        sites = [FindingSite(codes.KNEE_JOINT, codes.SIDES[refusal.side])]
    concept = codes.REFUSALS[refusal.code]
    group = group_of(
        TrackingIdentifier(
            derived_uid("refusal", study_uid, image.sop_instance_uid, str(refusal.side), refusal.code, extent.value),
            words,
        ),
        region_of(image, Box(0.0, 0.0, float(image.columns), float(image.rows))),
        algorithm_id=None,
        finding_sites=sites,
        measurements=None,
        evaluations=[
            QualitativeEvaluation(codes.REFUSAL.code, concept.code),
            QualitativeEvaluation(codes.REFUSAL_EXTENT.code, extent.code),
            QualitativeEvaluation(codes.INTENDED_USE.code, codes.RESEARCH_USE.code),
        ],
    )
    text = ascii_text(f"{words}. {concept.meaning}: {refusal.reason}", 1024)
    group.ContentSequence.append(TextContentItem(codes.REFUSAL_TEXT.code, text, _CONTAINS))
    if card is not None:
        group.ContentSequence.append(picture_item(codes.ILLUSTRATION, card))
    return group


def result_sentence(knee: KneeFinding) -> str:
    """The result in words, with the side, the grade and how sure the model is."""
    mark = f"{SYNTHETIC_MARK}. " if knee.synthetic else ""
    pain = "" if knee.pain is None else f"; predicted pain {pain_words(knee.pain)}, {ORIGIN}"
    kl, meaning = knee.kl, codes.KL_GRADES[knee.kl.grade].meaning
    said, sets = f"{kl.words} ({meaning})", ""
    if kl.set_words and kl.coverage is not None:
        said = f"{kl.words}, {meaning}"
        sets = f"; such a set holds the true grade of {100 * kl.coverage:g} % of knees like those it was calibrated on"
    return (
        f"{mark}{SIDE_WORDS[knee.side]} knee: {said}, "
        f"probability {kl.probabilities[kl.grade]:.2f}, expected grade {kl.expected:.2f}; "
        f"predicted from the image by a research model{sets}{pain}."
    )


def spacing_sentence(spacing: Spacing) -> str:
    """What the header says of the size of a pixel; millimetres only where they are lengths in the patient."""
    if spacing.kind == "none":
        return f"No pixel spacing{f' ({spacing.source})' if spacing.source else ''}: lengths are not known."
    if (lengths := spacing.lengths) is not None:
        return (
            f"{lengths[0]:.4g} mm (rows) x {lengths[1]:.4g} mm (columns), {spacing.source}: in the patient, at the "
            "calibrated depth."
        )
    meaning = {
        "detector": "at the detector, not corrected for magnification; lengths in the patient are smaller",
        "unknown origin": "nothing says whether it is corrected for magnification",
    }[spacing.kind]
    return f"{spacing.source}: {meaning}, so no lengths are given."


def group_of(
    tracking: TrackingIdentifier,
    region: ImageRegion,
    *,
    algorithm_id: AlgorithmIdentification | None,
    finding_sites: list[FindingSite] | None,
    measurements: list[Measurement] | None,
    evaluations: list[QualitativeEvaluation],
) -> ContentItem:
    """One TID 1410 group."""
    template = PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        referenced_region=region,
        algorithm_id=algorithm_id,
        finding_sites=finding_sites,
        measurements=measurements,
        qualitative_evaluations=evaluations,
        geometric_purpose=codes.BOUNDED_BY,
    )
    return cast(ContentItem, template[0])


def region_of(image: SourceImage, box: Box) -> ImageRegion:
    """The box, inside of the image, as a closed POLYLINE in (column, row) pairs (PS3.3 C.18.6)."""
    inside = box.clipped(image.rows, image.columns)
    corners = np.array(
        [
            (inside.left, inside.top),
            (inside.right, inside.top),
            (inside.right, inside.bottom),
            (inside.left, inside.bottom),
            (inside.left, inside.top),
        ],
        dtype=np.float32,
    )
    source = SourceImageForRegion(
        referenced_sop_class_uid=image.sop_class_uid,
        referenced_sop_instance_uid=image.sop_instance_uid,
        referenced_frame_numbers=[image.frame] if image.frame is not None else None,
    )
    return ImageRegion(GraphicTypeValues.POLYLINE, corners, source)


def algorithm_of(model: ModelIdentity) -> AlgorithmIdentification:
    """TID 4019; the parameters name the bundle, what the model card says, and whether the model is a stand-in."""
    parameters = [f"bundle sha256={model.digest}", f"device uid={model.device_uid}"]
    if model.parameters:
        parameters.append(model.parameters)
    if model.synthetic:
        parameters.append(SYNTHETIC_MARK)
    return AlgorithmIdentification(
        name=ascii_text(model.name, 64),
        version=ascii_text(model.version, 64),
        parameters=[ascii_text(parameter, _PARAMETER_LENGTH) for parameter in parameters],
        family=codes.ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
    )


def _measurements(knee: KneeFinding) -> list[Measurement]:
    """Expected grade, then pain, as some viewers draw the first five numbers only; then the probabilities."""
    rows = [(codes.KL_EXPECTED, knee.kl.expected), *zip(codes.KL_PROBABILITIES, knee.kl.probabilities, strict=True)]
    expected, *probabilities = [
        Measurement(name=concept.code, value=round(float(value), 4), unit=codes.NO_UNITS) for concept, value in rows
    ]
    pain = [] if knee.pain is None else _pain(knee.pain)
    return [expected, *pain, *probabilities]


def _pain(pain: PainFinding) -> list[Measurement]:
    """Score, low and high; the score with the algorithm that gave all three (TID 1419, TID 4019).

    The interval is two numbers beside the score: the rows of TID 310 for it make validators complain.
    """
    score, low, high = rounded(pain)
    return [
        Measurement(name=codes.PAIN.code, value=score, unit=codes.POINTS, algorithm_id=algorithm_of(pain.model)),
        Measurement(name=codes.PAIN_LOW.code, value=low, unit=codes.POINTS),
        Measurement(name=codes.PAIN_HIGH.code, value=high, unit=codes.POINTS),
    ]


def _evaluations(knee: KneeFinding) -> list[QualitativeEvaluation]:
    kind = codes.MODEL_SYNTHETIC if knee.synthetic else codes.MODEL_TRAINED
    pairs: list[tuple[Code, Code]] = [(codes.KL_GRADE.code, codes.KL_GRADES[knee.kl.grade].code)]
    pairs += [(codes.KL_SET.code, codes.KL_GRADES[grade].code) for grade in knee.kl.conformal_set or ()]
    pairs += [(codes.PAIN_ORIGIN.code, codes.PAIN_FROM_IMAGE.code)] if knee.pain is not None else []
    pairs += [(codes.MODEL_KIND.code, kind.code), (codes.INTENDED_USE.code, codes.RESEARCH_USE.code)]
    return [QualitativeEvaluation(name, value) for name, value in pairs]


def evidence_items(evidence: Iterable[Evidence]) -> list[ContentItem]:
    """Why this is such an image of this knee: one TEXT for each reason that selection noted."""
    items: list[ContentItem] = []
    for reason in evidence:
        concept = codes.EVIDENCE.get(reason.about)
        if concept is not None:
            text = ascii_text(f"{reason.source} = {reason.value} speaks for {reason.supports}", 256)
            items.append(TextContentItem(concept.code, text, _CONTAINS))
    return items
