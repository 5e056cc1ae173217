"""The Image Library of a report (TID 1600): the images that were looked at, with their sizes.

A study of MR series has hundreds of images. Where a model for them serves, the library has the slices that it read, the
images that a refusal names, and of every other series the first image alone; the evidence of the report has the same.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    RelationshipTypeValues,
)
from pydicom.dataset import Dataset

from dicom_templates import codes
from dicom_templates.mr_images import is_mr
from dicom_templates.patient import raw_text
from inference.findings import SourceImage, StudyFindings

_CONTAINS: Final = RelationshipTypeValues.CONTAINS


def listed(findings: StudyFindings) -> dict[str, SourceImage]:
    """The images that a report mentions, each once, by SOP Instance UID in the order of the findings."""
    slices = {one.source.sop_instance_uid: one.source for found in findings.volumes for one in found.slices}
    named = {refusal.source for refusal in findings.refusals}
    kept = {*slices, *named, *(knee.source.sop_instance_uid for knee in findings.knees)}
    series = {one.series_instance_uid for one in findings.looked_at if one.sop_instance_uid in kept}
    images: dict[str, SourceImage] = {}
    for image in findings.looked_at:
        if findings.mr_images and is_mr(image) and image.sop_instance_uid not in kept:
            if image.series_instance_uid in series:
                continue
            series.add(image.series_instance_uid)
        images[image.sop_instance_uid] = image
    for source in (*(knee.source for knee in findings.knees), *slices.values()):
        images.setdefault(source.sop_instance_uid, source)
    return images


def frames_read(findings: StudyFindings) -> dict[str, tuple[int, ...]]:
    """The frames of each multi-frame image that models read, in order; nothing for single-frame ones."""
    found: dict[str, set[int]] = {}
    for volume in findings.volumes:
        for one in volume.slices:
            if one.source.frame is not None:
                found.setdefault(one.source.sop_instance_uid, set()).add(one.source.frame)
    return {uid: tuple(sorted(frames)) for uid, frames in found.items()}


def image_library(
    looked_at: Sequence[tuple[SourceImage, Dataset]], frames: Mapping[str, tuple[int, ...]]
) -> list[ContentItem]:
    """The library's container, its images grouped by modality; nothing where there is no image."""
    groups: dict[str, list[ContentItem]] = {}
    for image, header in looked_at:
        if image.rows > 0 and image.columns > 0:
            modality = raw_text(header, "Modality").decode("ascii", "replace")
            entry = _entry(image, frames.get(image.sop_instance_uid))
            groups.setdefault(modality if modality in codes.MODALITIES else "OT", []).append(entry)
    if not groups:
        return []
    library = ContainerContentItem(name=codes.IMAGE_LIBRARY, relationship_type=_CONTAINS)
    library.ContentSequence = ContentSequence()
    for modality, entries in sorted(groups.items()):
        group = ContainerContentItem(name=codes.IMAGE_LIBRARY_GROUP, relationship_type=_CONTAINS)
        acquisition = CodeContentItem(
            codes.MODALITY, codes.MODALITIES[modality], RelationshipTypeValues.HAS_ACQ_CONTEXT
        )
        group.ContentSequence = ContentSequence([acquisition, *entries])
        library.ContentSequence.append(group)
    return [library]


def _entry(image: SourceImage, frames: tuple[int, ...] | None) -> ContentItem:
    """One image with its size in pixels (TID 1601, TID 1602)."""
    entry = ImageContentItem(
        name=codes.SOURCE_IMAGE,
        referenced_sop_class_uid=image.sop_class_uid,
        referenced_sop_instance_uid=image.sop_instance_uid,
        referenced_frame_numbers=None if frames is None else list(frames),
        relationship_type=_CONTAINS,
    )
    sizes = ((codes.PIXEL_ROWS, image.rows), (codes.PIXEL_COLUMNS, image.columns))
    entry.ContentSequence = ContentSequence()
    for name, size in sizes:
        number = NumContentItem(name, size, codes.PIXELS, None, RelationshipTypeValues.HAS_ACQ_CONTEXT)
        number.MeasuredValueSequence[0].NumericValue = str(size)
        entry.ContentSequence.append(number)
    return entry
