"""Findings in, DICOM out: report, heatmaps, maps and refusal cards of a study as data sets ready to be sent.

    composed = compose(findings, headers, ReportContext(created=..., software_version=..., ...))
    for dataset in composed.all:
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)

The same findings, headers and context always give the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicom_templates.card import build_card, refusals_by_card
from dicom_templates.context import PredecessorRef, ReportContext
from dicom_templates.heatmap import build_heatmap
from dicom_templates.library import listed
from dicom_templates.mr_frames import build_frames
from dicom_templates.mr_group import VolumeObjects
from dicom_templates.parametric_map import build_map, frame_of_reference
from dicom_templates.patient import raw_text
from dicom_templates.report import build_report
from inference.findings import StudyFindings, StudyStatus
from inference.mr_findings import VolumeFinding

__all__ = ["Composed", "PredecessorRef", "ReportContext", "compose"]


@dataclass(frozen=True, eq=False)
class Composed:
    """What is to be stored: at most one report, one heatmap for each scored knee, one card for each refused image.

    All stand in the order of the findings; what was refused and has no image shares one card of the study. `volumes`
    has for each result on an MR series its multi-frame Secondary Capture and then, where there is one, its map.
    """

    report: Dataset | None
    heatmaps: tuple[Dataset, ...]
    cards: tuple[Dataset, ...] = ()
    volumes: tuple[Dataset, ...] = ()

    @property
    def all(self) -> tuple[Dataset, ...]:
        """The heatmaps, what belongs to MR series, the cards, then the report that refers to them."""
        pictures = (*self.heatmaps, *self.volumes, *self.cards)
        return pictures if self.report is None else (*pictures, self.report)


def compose(findings: StudyFindings, headers: Sequence[Dataset], context: ReportContext) -> Composed:
    """Make all objects of one study.

    `headers` are the data sets of the study's instances, without pixels, in any order; the patient and study are those
    of the first scored instance, else of the first by SOP Instance UID. There is no report when there was nothing to
    score, and none when there is no header at all, for then nobody knows whose report it would be.
    Raises ValueError when a scored knee has no rendering: a fault of the caller.
    """
    if findings.status is StudyStatus.NOTHING_TO_SCORE or not headers:
        return Composed(None, ())
    by_uid = {_uid(header): header for header in sorted(headers, key=_uid, reverse=True)}
    first = by_uid[min(by_uid)]
    heatmaps = []
    for knee in findings.knees:
        uid = knee.source.sop_instance_uid
        if uid not in findings.renderings:
            raise ValueError(f"no rendering of the scored image {uid}; pass it in StudyFindings.renderings")
        header = by_uid.get(uid, first)
        heatmaps.append(build_heatmap(knee, findings.renderings[uid], header, findings.study_instance_uid, context))
    volumes = [_volume(found, by_uid, first, findings.study_instance_uid, context) for found in findings.volumes]
    scored = [knee.source for knee in findings.knees] + [found.top.source for found in findings.volumes]
    reference = by_uid.get(scored[0].sop_instance_uid, first) if scored else first
    looked_at = [(image, by_uid.get(uid, first)) for uid, image in listed(findings).items()]
    images = {image.sop_instance_uid: image for image, _ in looked_at}
    cards = {
        uid: build_card(images.get(uid), refusals, findings, by_uid.get(uid, reference), context)
        for uid, refusals in refusals_by_card(findings, images).items()
    }
    report = build_report(findings, reference, looked_at, heatmaps, cards, volumes, context)
    stored = tuple(dataset for made in volumes for dataset in made.all)
    return Composed(report, tuple(heatmaps), tuple(cards.values()), stored)


def _uid(header: Dataset) -> str:
    return raw_text(header, "SOPInstanceUID").decode("ascii", "replace")


def _volume(
    finding: VolumeFinding, by_uid: Mapping[str, Dataset], first: Dataset, study_uid: str, context: ReportContext
) -> VolumeObjects:
    """The pictures and, where the source has a place in the patient, the map of one result on an MR series."""
    headers = [by_uid[uid] for one in finding.slices if (uid := one.source.sop_instance_uid) in by_uid]
    header = by_uid.get(finding.top.source.sop_instance_uid, first)
    frames = build_frames(finding, header, study_uid, context)
    frame_uid, no_map = frame_of_reference(headers)
    made = None if no_map else build_map(finding, header, frame_uid, study_uid, context)
    return VolumeObjects(frames, made, no_map)
