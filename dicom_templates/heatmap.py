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
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_templates import codes
from dicom_templates.capture import add_compression, add_picture, instance_number, source_item
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

_ORIENTATION: Final = re.compile(r"[AFHLPR]{1,3}\\[AFHLPR]{1,3}")


def build_heatmap(
    knee: KneeFinding, rendering: npt.NDArray[np.uint8], header: Dataset, study_uid: str, context: ReportContext
) -> Dataset:
    """The Secondary Capture of one knee (PS3.3 A.8.1), ready to be written; `rendering` is uint8 (rows, columns)."""
    drawing = draw_knee(knee, rendering)
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
            *(model.key for model in knee.models),
            context.software_version,
            context.device_uid,
            context.configuration_digest,
            content_digest(drawing.pixels.tobytes()),
        ),
        series=series,
        series_instance_uid=series_uid(series, study_uid, knee.models, context),
        instance_number=instance_number(header),
        context=context,
        models=knee.models,
    )
    dataset.Laterality = knee.side.value
    dataset.BodyPartExamined = "KNEE"
    orientation = raw_text(header, "PatientOrientation").decode("ascii", "replace")
    # It holds for the picture too, as nothing is turned or mirrored.
    dataset.PatientOrientation = orientation if _ORIENTATION.fullmatch(orientation) else None
    add_compression(dataset, header)
    _add_derivation(dataset, knee, drawing)
    add_picture(dataset, drawing.pixels, drawing.caption)
    return dataset


def side_in_words(side: Side) -> str:
    """How a description of ours names the side, for example "LEFT knee"."""
    return f"{SIDE_WORDS[side]} knee"


def _add_derivation(dataset: Dataset, knee: KneeFinding, drawing: Drawing) -> None:
    """From what, by what and how the picture was made (PS3.3 C.7.6.1, General Image and General Reference)."""
    view = drawing.view
    mark = f"{SYNTHETIC_MARK}. " if knee.synthetic else ""
    dataset.DerivationDescription = ascii_text(
        f"{mark}{knee.saliency.method} of {knee.model.name} {knee.model.version} for the {side_in_words(knee.side)}, "
        f"{knee.kl.words}; source columns {view.left:.0f}-{view.right:.0f}, rows {view.top:.0f}-{view.bottom:.0f}, "
        f"scaled by {drawing.scale:.3f}; plain panel at {drawing.panels[0]}, overlay at {drawing.panels[1]}; "
        "not for measuring.",
        1024,
    )
    method = codes.SALIENCY_METHODS.get(knee.saliency.method, codes.SALIENCY_METHODS["saliency"])
    dataset.DerivationCodeSequence = DicomSequence([code_item(method)])
    dataset.SourceImageSequence = DicomSequence([source_item(knee.source)])
