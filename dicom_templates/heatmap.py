"""One Secondary Capture for each scored knee: the picture of `drawing` with everything DICOM wants to know of it.

The object depends on its own source, model, software and settings only, and carries no time of its own: a later report
on the same image refers to the same heatmap instead of storing a second one.
"""

import re
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    SecondaryCaptureImageStorage,
)

from dicom_templates import codes
from dicom_templates.context import ReportContext
from dicom_templates.drawing import Drawing, draw_knee
from dicom_templates.identity import (
    HEATMAP_SERIES,
    SIDE_WORDS,
    SYNTHETIC_MARK,
    ascii_text,
    code_item,
    content_digest,
    derived_uid,
    framed,
    series_uid,
)
from dicom_templates.patient import raw_text
from inference.findings import KneeFinding, Side

CAPTION_SEPARATOR: Final = "\r\n"
_LOSSY_SYNTAXES: Final = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless}
_ORIENTATION: Final = re.compile(r"[AFHLPR]{1,3}\\[AFHLPR]{1,3}")
_RATIO: Final = re.compile(r"[0-9.]{1,16}(\\[0-9.]{1,16})*")
_METHOD: Final = re.compile(r"[A-Z0-9_]{1,16}(\\[A-Z0-9_]{1,16})*")


def build_heatmap(
    knee: KneeFinding, rendering: npt.NDArray[np.uint8], header: Dataset, study_uid: str, context: ReportContext
) -> Dataset:
    """The Secondary Capture of one knee (PS3.3 A.8.1), ready to be written; `rendering` is uint8 (rows, columns)."""
    drawing = draw_knee(knee, rendering)
    pixels = drawing.pixels.tobytes()
    series = HEATMAP_SERIES[knee.side]
    dataset = framed(
        header,
        study_uid=study_uid,
        sop_class_uid=SecondaryCaptureImageStorage,
        sop_instance_uid=derived_uid(
            "heatmap",
            study_uid,
            knee.source.sop_instance_uid,
            str(knee.source.frame),
            knee.side.value,
            knee.model.digest,
            context.software_version,
            context.device_uid,
            context.configuration_digest,
            content_digest(pixels),
        ),
        series=series,
        series_instance_uid=series_uid(series, study_uid, [knee.model], context),
        instance_number=_instance_number(header),
        context=context,
        models=[knee.model],
    )
    dataset.Laterality = knee.side.value
    dataset.BodyPartExamined = "KNEE"
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "YES"
    dataset.RecognizableVisualFeatures = "NO"
    _add_orientation_and_compression(dataset, header)
    _add_derivation(dataset, knee, drawing)
    dataset.ImageComments = CAPTION_SEPARATOR.join(drawing.caption)
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = drawing.pixels.shape[:2]
    dataset.BitsAllocated = 8
    dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.add_new("PixelData", "OB", pixels)
    return dataset


def side_in_words(side: Side) -> str:
    """How a description of ours names the side, for example "LEFT knee"."""
    return f"{SIDE_WORDS[side]} knee"


def _instance_number(header: Dataset) -> int:
    """The number of the source, so that it does not depend on what else was scored; 1 where that is no number."""
    text = raw_text(header, "InstanceNumber").decode("ascii", "replace")
    return int(text) if text.isdigit() and 0 < len(text) <= 9 and int(text) > 0 else 1


def _add_orientation_and_compression(dataset: Dataset, header: Dataset) -> None:
    """Patient Orientation, which holds as nothing is turned or mirrored, and the lossy past of the source."""
    orientation = raw_text(header, "PatientOrientation").decode("ascii", "replace")
    dataset.PatientOrientation = orientation if _ORIENTATION.fullmatch(orientation) else None
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


def _add_derivation(dataset: Dataset, knee: KneeFinding, drawing: Drawing) -> None:
    """From what, by what and how the picture was made (PS3.3 C.7.6.1, General Image and General Reference)."""
    view = drawing.view
    mark = f"{SYNTHETIC_MARK}. " if knee.model.synthetic else ""
    dataset.DerivationDescription = ascii_text(
        f"{mark}{knee.saliency.method} of {knee.model.name} {knee.model.version} for the {side_in_words(knee.side)}, "
        f"KL {knee.kl.grade}; source columns {view.left:.0f}-{view.right:.0f}, rows {view.top:.0f}-{view.bottom:.0f}, "
        f"scaled by {drawing.scale:.3f}; plain panel at {drawing.panels[0]}, overlay at {drawing.panels[1]}; "
        "not for measuring.",
        1024,
    )
    method = codes.SALIENCY_METHODS.get(knee.saliency.method, codes.SALIENCY_METHODS["saliency"])
    dataset.DerivationCodeSequence = DicomSequence([code_item(method)])
    source = Dataset()
    source.ReferencedSOPClassUID = knee.source.sop_class_uid
    source.ReferencedSOPInstanceUID = knee.source.sop_instance_uid
    if knee.source.frame is not None:
        source.ReferencedFrameNumber = knee.source.frame
    source.PurposeOfReferenceCodeSequence = DicomSequence([code_item(codes.SOURCE_FOR_PROCESSING)])
    source.SpatialLocationsPreserved = "NO"
    dataset.SourceImageSequence = DicomSequence([source])
