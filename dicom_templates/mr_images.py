"""Which images are slices of an MR series: refusals of them are about the series, and reports list few of them."""

from typing import Final

from inference.findings import Refusal, RefusalCode, SourceImage, StudyFindings

MR_CLASSES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
    }
)


def is_mr(image: SourceImage) -> bool:
    """Whether it is an MR image, of one frame or more."""
    return image.sop_class_uid in MR_CLASSES


def of_series(refusal: Refusal, image: SourceImage | None) -> bool:
    """Whether a refusal with this image is about the MR series that the image stands for."""
    return image is not None and is_mr(image) and refusal.code is not RefusalCode.UNSUPPORTED_SOP_CLASS


def only_mr(findings: StudyFindings) -> bool:
    """Whether there was nothing but MR series to look at."""
    return findings.mr_images > 0 and not findings.radiographs
