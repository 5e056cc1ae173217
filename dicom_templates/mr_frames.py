"""One multi-frame Secondary Capture for each result on an MR series: a picture of every slice that was read.

Multi-frame True Color Secondary Capture (PS3.3 A.8.5). Like a heatmap of a film it depends on its own sources, model,
software and settings only, and carries no time of its own. Not compressed: every viewer and archive takes it so, and
the pictures are small enough (`mr_drawing.MOST_BYTES`).
"""

from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import UID, MultiFrameTrueColorSecondaryCaptureImageStorage

from dicom_templates import codes
from dicom_templates.capture import CAPTION_SEPARATOR, add_compression, add_picture, source_item
from dicom_templates.context import ReportContext
from dicom_templates.identity import (
    FRAMES_SERIES,
    SIDE_WORDS,
    SYNTHETIC_MARK,
    ascii_text,
    code_item,
    content_digest,
    derived_uid,
    framed,
    series_uid,
)
from dicom_templates.mr_drawing import Frames, draw_frames
from dicom_templates.mr_words import probability_words, series_of, short_words
from inference.findings import SourceImage
from inference.mr_findings import VolumeFinding

SHARES: Final = "Attention of the slices: "  # begins the line of Image Comments that is burned in as bars and numbers


def build_frames(finding: VolumeFinding, header: Dataset, study_uid: str, context: ReportContext) -> Dataset:
    """The pictures of one result, ready to be written; `header` is that of the slice of highest saliency."""
    frames = draw_frames(finding)
    series, models = series_of(FRAMES_SERIES[finding.side], finding), (finding.model,)
    dataset = framed(
        header,
        study_uid=study_uid,
        sop_class_uid=MultiFrameTrueColorSecondaryCaptureImageStorage,
        sop_instance_uid=volume_uid("frames", finding, study_uid, context, content_digest(frames.pixels.tobytes())),
        series=series,
        series_instance_uid=series_uid(series, study_uid, models, context),
        instance_number=1,
        context=context,
        models=models,
    )
    dataset.Laterality = finding.side.value
    dataset.BodyPartExamined = "KNEE"
    dataset.PatientOrientation = None
    add_compression(dataset, header)
    _add_derivation(dataset, finding, frames)
    add_picture(dataset, frames.pixels[0], (*frames.caption, shares_line(frames)))
    dataset.add_new("PixelData", "OB", frames.pixels.tobytes())
    _add_frames(dataset, frames)
    return dataset


def shares_line(frames: Frames) -> str:
    """The slice and the attention of all pictures in their order, as Image Comments has them: "3:0.1250 4:0.8750"."""
    return SHARES + " ".join(f"{n}:{share:.4f}" for n, share in zip(frames.numbers, frames.shares, strict=True))


def volume_uid(kind: str, finding: VolumeFinding, study_uid: str, context: ReportContext, digest: str) -> UID:
    """Of an object of one result: derived from sources, model, software, settings and contents, never the clock."""
    return derived_uid(
        kind,
        study_uid,
        finding.series_instance_uid,
        finding.side.value,
        finding.outcome.target,
        finding.model.key,
        context.software_version,
        context.device_uid,
        context.configuration_digest,
        digest,
        *(f"{one.source.sop_instance_uid}/{one.source.frame}" for one in finding.slices),
    )


def source_items(sources: Sequence[SourceImage]) -> DicomSequence:
    """Source Image Sequence items, one for each image: the frames of a multi-frame one together."""
    items: dict[str, Dataset] = {}
    frames: dict[str, list[int]] = {}
    for source in sources:
        items.setdefault(source.sop_instance_uid, source_item(source))
        if source.frame is not None:
            frames.setdefault(source.sop_instance_uid, []).append(source.frame)
    for uid, numbers in frames.items():
        items[uid].ReferencedFrameNumber = numbers
    return DicomSequence(items.values())


def _add_frames(dataset: Dataset, frames: Frames) -> None:
    """Multi-frame and SC Multi-frame Image and Vector modules (PS3.3 C.7.6.6, C.8.6.3, C.8.6.4)."""
    dataset.NumberOfFrames = len(frames.pixels)
    if len(frames.numbers) > 1:
        dataset.FrameIncrementPointer = Tag("PageNumberVector")
        dataset.PageNumberVector = list(frames.numbers)  # of the slices: counted in the order of their places


def _add_derivation(dataset: Dataset, finding: VolumeFinding, frames: Frames) -> None:
    mark = f"{SYNTHETIC_MARK}. " if finding.synthetic else ""
    model, method = finding.model, finding.top.saliency.method
    dataset.DerivationDescription = ascii_text(
        f"{mark}{method} of {model.name} {model.version} for the {SIDE_WORDS[finding.side]} knee, "
        f"{short_words(finding.outcome)}, probability {probability_words(finding.outcome)}; {len(finding.slices)} of "
        f"{finding.total} slices of the {finding.sequence} series, panels of {frames.panel} pixels; not for measuring.",
        1024,
    )
    code = codes.SALIENCY_METHODS.get(method, codes.SALIENCY_METHODS["saliency"])
    dataset.DerivationCodeSequence = DicomSequence([code_item(code)])
    dataset.SourceImageSequence = source_items([one.source for one in finding.slices])


__all__ = ["CAPTION_SEPARATOR", "SHARES", "build_frames", "shares_line", "source_items", "volume_uid"]
