"""Findings in, DICOM out: report, heatmaps and refusal cards of a study as data sets ready to be sent.

    composed = compose(findings, headers, ReportContext(created=..., software_version=..., ...))
    for dataset in composed.all:
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)

The same findings, headers and context always give the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicom_templates.card import build_card, refusals_by_card
from dicom_templates.context import PredecessorRef, ReportContext
from dicom_templates.heatmap import build_heatmap
from dicom_templates.patient import raw_text
from dicom_templates.report import build_report
from inference.findings import SourceImage, StudyFindings, StudyStatus

__all__ = ["Composed", "PredecessorRef", "ReportContext", "compose"]


@dataclass(frozen=True, eq=False)
class Composed:
    """What is to be stored: at most one report, one heatmap for each scored knee, one card for each refused image.

    All stand in the order of the findings; what was refused and has no image shares one card of the study.
    """

    report: Dataset | None
    heatmaps: tuple[Dataset, ...]
    cards: tuple[Dataset, ...] = ()

    @property
    def all(self) -> tuple[Dataset, ...]:
        """The heatmaps, the cards, then the report that refers to them."""
        pictures = (*self.heatmaps, *self.cards)
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
    reference = by_uid.get(findings.knees[0].source.sop_instance_uid, first) if findings.knees else first
    looked_at = _looked_at(findings, by_uid, first)
    images = {image.sop_instance_uid: image for image, _ in looked_at}
    cards = {
        uid: build_card(images.get(uid), refusals, findings, by_uid.get(uid, reference), context)
        for uid, refusals in refusals_by_card(findings, images).items()
    }
    report = build_report(findings, reference, looked_at, heatmaps, cards, context)
    return Composed(report, tuple(heatmaps), tuple(cards.values()))


def _uid(header: Dataset) -> str:
    return raw_text(header, "SOPInstanceUID").decode("ascii", "replace")


def _looked_at(
    findings: StudyFindings, by_uid: dict[str, Dataset], first: Dataset
) -> list[tuple[SourceImage, Dataset]]:
    """Every source image that the report mentions, each once, with its header."""
    images = {image.sop_instance_uid: image for image in findings.looked_at}
    for knee in findings.knees:
        images.setdefault(knee.source.sop_instance_uid, knee.source)
    return [(image, by_uid.get(uid, first)) for uid, image in images.items()]
