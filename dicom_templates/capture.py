"""What our Secondary Captures share: pixels with a caption, the lossy past of the source, and where they came from."""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from dicom_templates import codes
from dicom_templates.identity import code_item
from dicom_templates.patient import raw_text
from inference.findings import SourceImage

CAPTION_SEPARATOR: Final = "\r\n"
_LOSSY_SYNTAXES: Final = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless}
_RATIO: Final = re.compile(r"[0-9.]{1,16}(\\[0-9.]{1,16})*")
_METHOD: Final = re.compile(r"[A-Z0-9_]{1,16}(\\[A-Z0-9_]{1,16})*")


def add_picture(dataset: Dataset, pixels: npt.NDArray[np.uint8], caption: Sequence[str]) -> None:
    """A derived RGB picture (rows, columns, 3) with its caption (PS3.3 C.8.6.1, C.7.6.1, C.7.6.3)."""
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "YES"
    dataset.RecognizableVisualFeatures = "NO"
    dataset.ImageComments = CAPTION_SEPARATOR.join(caption)
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = 8
    dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.add_new("PixelData", "OB", pixels.tobytes())


def add_compression(dataset: Dataset, header: Dataset) -> None:
    """The lossy past of the source, which a picture of it shares (PS3.3 C.7.6.1.1.5)."""
    file_meta = getattr(header, "file_meta", None)
    syntax = file_meta.get("TransferSyntaxUID") if file_meta is not None else None
    lossy = raw_text(header, "LossyImageCompression") == b"01" or syntax in _LOSSY_SYNTAXES
    dataset.LossyImageCompression = "01" if lossy else "00"
    if lossy:
        ratio = raw_text(header, "LossyImageCompressionRatio").decode("ascii", "replace")
        method = raw_text(header, "LossyImageCompressionMethod").decode("ascii", "replace")
        if _RATIO.fullmatch(ratio):
            dataset.LossyImageCompressionRatio = ratio
        if _METHOD.fullmatch(method):
            dataset.LossyImageCompressionMethod = method


def instance_number(header: Dataset) -> int:
    """The number of the source, so that it does not depend on what else was scored; 1 where that is no number."""
    text = raw_text(header, "InstanceNumber").decode("ascii", "replace")
    return int(text) if text.isdigit() and 0 < len(text) <= 9 and int(text) > 0 else 1


def source_item(image: SourceImage) -> Dataset:
    """The item of the Source Image Sequence (PS3.3 C.7.6.1.1.4): our pictures do not keep the geometry."""
    source = Dataset()
    source.ReferencedSOPClassUID = image.sop_class_uid
    source.ReferencedSOPInstanceUID = image.sop_instance_uid
    if image.frame is not None:
        source.ReferencedFrameNumber = image.frame
    source.PurposeOfReferenceCodeSequence = [code_item(codes.SOURCE_FOR_PROCESSING)]
    source.SpatialLocationsPreserved = "NO"
    return source
