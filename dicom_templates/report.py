"""The Comprehensive 3D SR of one study: TID 1500 with a TID 1410 group for each knee and for each refusal on an image.

Only the content tree is built by highdicom. Its document class judges the patient's data (a StudyDate that is none is
an error there), takes the clock's time and adds equipment, so the frame around the tree is ours (`identity.framed`).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone

from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    LanguageOfContentItemAndDescendants,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, Comprehensive3DSRStorage

from dicom_templates import codes
from dicom_templates.card import card_key, image_of
from dicom_templates.context import PredecessorRef, ReportContext
from dicom_templates.groups import knee_group, picture_item, refusal_group
from dicom_templates.identity import (
    MANUFACTURER,
    MODEL_NAME,
    REPORT_SERIES,
    ascii_text,
    coding_scheme_identification,
    derived_uid,
    framed,
    series_uid,
)
from dicom_templates.library import frames_read, image_library
from dicom_templates.mr_group import VolumeObjects, volume_group
from dicom_templates.pain import rounded
from dicom_templates.patient import raw_text
from inference.findings import KneeFinding, Refusal, SourceImage, StudyFindings
from inference.mr_findings import VolumeFinding

_CONTAINS = RelationshipTypeValues.CONTAINS


def build_report(
    findings: StudyFindings,
    header: Dataset,
    looked_at: Sequence[tuple[SourceImage, Dataset]],
    heatmaps: Sequence[Dataset],
    cards: Mapping[str, Dataset],
    volumes: Sequence[VolumeObjects],
    context: ReportContext,
) -> Dataset:
    """The report of one study (PS3.3 A.35.13, PS3.16 TID 1500), ready to be written.

    `header` gives patient and study; `looked_at` the source images with their headers in a stable order; `heatmaps` one
    Secondary Capture per item of `findings.knees`, in the same order; `cards` the refusal cards by `card.card_key`;
    `volumes` what is stored for each item of `findings.volumes`, in the same order.
    """
    dataset = framed(
        header,
        study_uid=findings.study_instance_uid,
        sop_class_uid=Comprehensive3DSRStorage,
        sop_instance_uid=_report_uid(findings, context),
        series=REPORT_SERIES,
        series_instance_uid=series_uid(REPORT_SERIES, findings.study_instance_uid, findings.models, context),
        instance_number=1 + len(context.predecessors),
        context=context,
        models=findings.models,
    )
    _add_document(dataset, header, context)
    sources = {image.sop_instance_uid: image for image, _ in looked_at}
    root = ContainerContentItem(name=codes.IMAGING_REPORT, template_id="1500")
    root.ContentSequence = ContentSequence(
        [
            *_observation_context(context),
            *_procedures(findings),
            *image_library(looked_at, frames_read(findings)),
            *_results(findings, header, sources, heatmaps, cards, volumes),
        ]
    )
    for element in root:
        dataset[element.tag] = element
    pictures = [picture for made in volumes for picture in made.all]
    _add_evidence(dataset, findings.study_instance_uid, looked_at, [*heatmaps, *pictures, *cards.values()])
    return dataset


def content_time(header: Dataset, created: datetime) -> datetime:
    """`created` in the zone of the source's Timezone Offset From UTC, which covers all times of an object.

    Without a usable offset in the source the time keeps the zone it came with (PS3.3 C.12.1.1.8).
    """
    text = raw_text(header, "TimezoneOffsetFromUTC").decode("ascii", "replace")
    if len(text) != 5 or text[0] not in "+-" or not text[1:].isdigit():
        return created
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    if offset >= timedelta(hours=24):
        return created
    return created.astimezone(timezone(offset if text[0] == "+" else -offset))


def _report_uid(findings: StudyFindings, context: ReportContext) -> UID:
    """Derived from inputs, models, settings, software and what came out, never from the clock."""
    knees = map(_outcome, findings.knees)
    volumes = map(_volume_outcome, findings.volumes)
    refusals = (f"{r.source}/{r.side}/{r.code.value}" for r in findings.refusals)
    return derived_uid(
        "report",
        findings.study_instance_uid,
        context.software_version,
        context.device_uid,
        context.configuration_digest,
        context.input_digest,
        *(f"model {model.key}" for model in findings.models),
        *(f"input {image.sop_instance_uid}/{image.frame}" for image in findings.looked_at),
        *(f"knee {knee}" for knee in knees),
        *(f"volume {volume}" for volume in volumes),
        *(f"refusal {refusal}" for refusal in refusals),
        *(f"predecessor {reference.sop_instance_uid}" for reference in context.predecessors),
    )


def _outcome(knee: KneeFinding) -> str:
    """What was found on one knee, as the report's UID depends on it."""
    told = f"{knee.source.sop_instance_uid}/{knee.source.frame}/{knee.side.value}/{knee.kl.grade}"
    return told if knee.pain is None else f"{told}/pain {rounded(knee.pain)}"


def _volume_outcome(finding: VolumeFinding) -> str:
    """The same of a result on an MR series: all that the report says which the model does not decide alone."""
    outcome = finding.outcome
    slices = [(one.source.sop_instance_uid, one.source.frame, round(one.attention, 4)) for one in finding.slices]
    told = (outcome.probabilities, outcome.low, outcome.high, outcome.threshold, outcome.clinical, finding.region)
    return repr((finding.side.value, outcome.target, finding.sequence, finding.peak, slices, told))


def _add_document(dataset: Dataset, header: Dataset, context: ReportContext) -> None:
    """SR Document Series and SR Document General (PS3.3 C.17.1, C.17.2)."""
    moment = content_time(header, context.created)
    dataset.ContentDate = moment.strftime("%Y%m%d")
    dataset.ContentTime = moment.strftime("%H%M%S")
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.PerformedProcedureCodeSequence = DicomSequence([])
    dataset.ReferencedPerformedProcedureStepSequence = DicomSequence([])
    dataset.CodingSchemeIdentificationSequence = DicomSequence([coding_scheme_identification()])
    if context.predecessors:
        dataset.PredecessorDocumentsSequence = _hierarchy(
            (ref.study_uid, ref.series_uid, ref.sop_class_uid, ref.sop_instance_uid) for ref in _unique(context)
        )


def _unique(context: ReportContext) -> tuple[PredecessorRef, ...]:
    return tuple(dict.fromkeys(context.predecessors))


def _observation_context(context: ReportContext) -> list[ContentItem]:
    """Language (TID 1204) and the device observer (TID 1002, TID 1004)."""
    device = DeviceObserverIdentifyingAttributes(
        uid=context.device_uid,
        name=MODEL_NAME,
        manufacturer_name=MANUFACTURER,
        model_name=ascii_text(f"{MODEL_NAME} {context.software_version}", 64),
        serial_number=ascii_text(context.device_serial, 64),
    )
    language = LanguageOfContentItemAndDescendants(CodedConcept("en-US", "RFC5646", "English (United States)"))
    return [*language, *ObserverContext(CodedConcept.from_code(codes.DEVICE), device)]


def _procedures(findings: StudyFindings) -> list[ContentItem]:
    """What was reported on: what was scored, else what was looked at (TID 1500, row 7)."""
    films, slices = bool(findings.knees), bool(findings.volumes)
    if not (films or slices):
        films, slices = findings.radiographs > 0 or not findings.mr_images, findings.mr_images > 0
    kinds = [code for code, there in ((codes.RADIOGRAPHY, films), (codes.MRI, slices)) if there]
    return [CodeContentItem(codes.PROCEDURE_REPORTED, code, RelationshipTypeValues.HAS_CONCEPT_MOD) for code in kinds]


def _results(
    findings: StudyFindings,
    header: Dataset,
    sources: Mapping[str, SourceImage],
    heatmaps: Sequence[Dataset],
    cards: Mapping[str, Dataset],
    volumes: Sequence[VolumeObjects],
) -> list[ContentItem]:
    """Imaging Measurements with its groups, then as Qualitative Evaluations what has no image to be drawn on."""
    study_uid = findings.study_instance_uid
    groups = [
        knee_group(knee, header, study_uid, heatmap) for knee, heatmap in zip(findings.knees, heatmaps, strict=True)
    ]
    groups += [
        volume_group(found, header, study_uid, made) for found, made in zip(findings.volumes, volumes, strict=True)
    ]
    homeless: list[Refusal] = []
    canvas = next((image for image in sources.values() if image.rows > 0 and image.columns > 0), None)
    for refusal in findings.refusals:
        image = image_of(refusal, sources) if refusal.source else canvas
        if image is None:
            homeless.append(refusal)
        else:
            key = card_key(refusal, sources)
            groups.append(refusal_group(refusal, image, study_uid, None if key is None else cards[key]))
    items: list[ContentItem] = []
    if groups:
        measurements = ContainerContentItem(name=codes.IMAGING_MEASUREMENTS, relationship_type=_CONTAINS)
        measurements.ContentSequence = ContentSequence(groups)
        items.append(measurements)
    if homeless or not groups:
        told = any(card_key(refusal, sources) == "" for refusal in homeless)
        items.append(_qualitative_evaluations(homeless, cards[""] if told else None))
    return items


def _qualitative_evaluations(refusals: Sequence[Refusal], card: Dataset | None) -> ContentItem:
    """TID 1500 rows 12 to 14: coded reasons and sentences for refusals without an image, and the card of the study."""
    container = ContainerContentItem(
        codes.QUALITATIVE_EVALUATIONS, is_content_continuous=False, relationship_type=_CONTAINS
    )
    items: list[ContentItem] = [
        CodeContentItem(codes.INTENDED_USE.code, codes.RESEARCH_USE.code, _CONTAINS),
    ]
    for refusal in refusals:
        concept = codes.REFUSALS[refusal.code]
        text = ascii_text(f"{concept.meaning}: {refusal.reason}", 1024)
        items.append(CodeContentItem(codes.REFUSAL.code, concept.code, _CONTAINS))
        items.append(TextContentItem(codes.REFUSAL_TEXT.code, text, _CONTAINS))
    if card is not None:
        items.append(picture_item(codes.REFUSAL_CARD.code, card))
    container.ContentSequence = ContentSequence(items)
    return container


def _add_evidence(
    dataset: Dataset, study_uid: str, looked_at: Sequence[tuple[SourceImage, Dataset]], pictures: Sequence[Dataset]
) -> None:
    """Current Requested Procedure Evidence Sequence: every source and every picture, each once (PS3.3 C.17.2)."""
    references = [
        (study_uid, image.series_instance_uid, image.sop_class_uid, image.sop_instance_uid) for image, _ in looked_at
    ]
    references += [
        (study_uid, str(item.SeriesInstanceUID), str(item.SOPClassUID), str(item.SOPInstanceUID)) for item in pictures
    ]
    if references:
        dataset.CurrentRequestedProcedureEvidenceSequence = _hierarchy(dict.fromkeys(references))


def _hierarchy(references: Iterable[tuple[str, str, str, str]]) -> DicomSequence:
    """Hierarchical SOP Instance Reference Macro (PS3.3 Table C.17-3): study, then series, then instances."""
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for study_uid, series_instance_uid, sop_class_uid, sop_instance_uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class_uid
        item.ReferencedSOPInstanceUID = sop_instance_uid
        studies.setdefault(study_uid, {}).setdefault(series_instance_uid, []).append(item)
    result = []
    for study_uid, series in studies.items():
        study = Dataset()
        study.StudyInstanceUID = study_uid
        study.ReferencedSeriesSequence = DicomSequence([])
        for series_instance_uid, items in series.items():
            entry = Dataset()
            entry.SeriesInstanceUID = series_instance_uid
            entry.ReferencedSOPSequence = DicomSequence(items)
            study.ReferencedSeriesSequence.append(entry)
        result.append(study)
    return DicomSequence(result)
