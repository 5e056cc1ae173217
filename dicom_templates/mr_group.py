"""The measurement group (TID 1410) of what one model found on one knee of an MR series."""

from dataclasses import dataclass

from highdicom.sr import (
    ContentItem,
    FindingSite,
    Measurement,
    QualitativeEvaluation,
    RelationshipTypeValues,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_templates import codes, mr_codes
from dicom_templates.groups import algorithm_of, evidence_items, group_of, picture_item, region_of
from dicom_templates.identity import ascii_text, tracking_uid
from dicom_templates.mr_words import (
    attention_sentence,
    clinical_sentence,
    numbers,
    origin_code,
    result_sentence,
    series_sentence,
    tracking_words,
)
from inference.mr_findings import OutcomeFinding, VolumeFinding

_CONTAINS = RelationshipTypeValues.CONTAINS


@dataclass(frozen=True, eq=False)
class VolumeObjects:
    """What is stored for one result besides the report: `map` is None where `no_map` says why there is none."""

    frames: Dataset
    map: Dataset | None
    no_map: str

    @property
    def all(self) -> tuple[Dataset, ...]:
        """The pictures, then the map."""
        return (self.frames,) if self.map is None else (self.frames, self.map)


def volume_group(finding: VolumeFinding, header: Dataset, study_uid: str, objects: VolumeObjects) -> ContentItem:
    """The group of one result; its region lies on the slice of highest saliency."""
    outcome = finding.outcome
    group = group_of(
        TrackingIdentifier(
            tracking_uid(header, finding.side, study_uid, outcome.target, finding.sequence), tracking_words(finding)
        ),
        region_of(finding.top.source, finding.region),
        algorithm_id=algorithm_of(finding.model),
        finding_sites=[FindingSite(codes.KNEE_JOINT, codes.SIDES[finding.side])],
        measurements=_measurements(finding),
        evaluations=_evaluations(finding),
    )
    for item in (*_texts(finding), *evidence_items(finding.evidence)):
        group.ContentSequence.append(item)
    if objects.no_map:
        group.ContentSequence.append(_text(mr_codes.NO_MAP.code, objects.no_map))
    for picture in objects.all:
        group.ContentSequence.append(picture_item(codes.VISUAL_EXPLANATION, picture))
    return group


def first_concept(outcome: OutcomeFinding) -> Code:
    """The name of the probability of the last class."""
    concept = mr_codes.OUTCOMES.get(outcome.target)
    return (concept or mr_codes.CLASSES[len(outcome.classes) - 1]).code


def _measurements(finding: VolumeFinding) -> list[Measurement]:
    """What matters first, as some viewers draw the first five numbers only."""
    outcome = finding.outcome
    value, low, high = numbers(outcome)
    rows = [(first_concept(outcome), value), (mr_codes.LOW.code, low), (mr_codes.HIGH.code, high)]
    if outcome.threshold is not None:
        rows.append((mr_codes.THRESHOLD.code, round(outcome.threshold, 4)))
    if len(outcome.classes) > 2:
        others = zip(mr_codes.CLASSES, outcome.probabilities[:-1], strict=False)
        rows += [(concept.code, round(probability, 4)) for concept, probability in others]
    found = [Measurement(name=name, value=number, unit=codes.NO_UNITS) for name, number in rows]
    counts = ((mr_codes.READ, len(finding.slices)), (mr_codes.TOTAL, finding.total))
    return [*found, *(_count(row.code, count) for row, count in counts)]


def _count(name: Code, count: int) -> Measurement:
    number = Measurement(name=name, value=count, unit=codes.SLICES)
    number[0].MeasuredValueSequence[0].NumericValue = str(count)  # else "8.0"
    return number


def _evaluations(finding: VolumeFinding) -> list[QualitativeEvaluation]:
    outcome = finding.outcome
    kind = codes.MODEL_SYNTHETIC if finding.synthetic else codes.MODEL_TRAINED
    pairs = [(mr_codes.ORIGIN.code, origin_code(outcome).code)]
    if outcome.threshold is not None:
        pairs.append((mr_codes.DECISION.code, (mr_codes.ABOVE if outcome.above else mr_codes.BELOW).code))
    pairs += [(codes.MODEL_KIND.code, kind.code), (codes.INTENDED_USE.code, codes.RESEARCH_USE.code)]
    return [QualitativeEvaluation(name, value) for name, value in pairs]


def _texts(finding: VolumeFinding) -> list[ContentItem]:
    rows = [
        (codes.RESULT_TEXT, result_sentence(finding)),
        (mr_codes.SERIES, series_sentence(finding)),
        (mr_codes.ATTENTION, attention_sentence(finding)),
    ]
    rows += [
        (mr_codes.IMPUTED if value.imputed else mr_codes.KNOWN, clinical_sentence(value))
        for value in finding.outcome.clinical
    ]
    return [_text(row.code, sentence) for row, sentence in rows]


def _text(name: Code, sentence: str) -> ContentItem:
    return TextContentItem(name, ascii_text(sentence, 1024), _CONTAINS)
