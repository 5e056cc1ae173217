"""The saliency of one result on an MR series as numbers that lie on the source: a Parametric Map (PS3.3 A.75).

One frame for each slice that was read, with the rows, columns, position and orientation of its source image, so that a
viewer can lay it over the series. highdicom makes the macros of the functional groups; the frame around them is ours,
because its document class judges the patient's data and takes the clock's time.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
from highdicom.pm import RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import RE_VALID_UID, ParametricMapStorage

from dicom_templates import codes, mr_codes
from dicom_templates.capture import add_compression
from dicom_templates.context import ReportContext
from dicom_templates.identity import (
    MAP_SERIES,
    SIDE_WORDS,
    SYNTHETIC_MARK,
    ascii_text,
    code_item,
    coding_scheme_identification,
    content_digest,
    derived_uid,
    framed,
    series_uid,
)
from dicom_templates.mr_frames import source_items, volume_uid
from dicom_templates.mr_words import series_of, short_words
from dicom_templates.patient import raw_text
from inference.findings import Saliency
from inference.mr_findings import SeenSlice, VolumeFinding

_DATE: Final = re.compile(r"[0-9]{4}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9](\.[0-9]{1,6})?)?)?")
_MOMENTS: Final = ("Acquisition", "Content", "Series", "Study")


def frame_of_reference(headers: Iterable[Dataset]) -> tuple[str, str]:
    """(Frame of Reference UID that all images share, ""), else ("", why there is none) as a sentence in ASCII."""
    found = {raw_text(header, "FrameOfReferenceUID").decode("ascii", "replace") for header in headers}
    if not found - {""}:
        return "", "The source images have no Frame of Reference UID, so nothing says where a map would lie."
    if len(found) > 1:
        return "", "The source images do not share one Frame of Reference UID, so a map would have no place."
    value = found.pop()
    if not is_uid(value):
        return "", "The Frame of Reference UID of the source images is not a valid UID, so a map would have no place."
    return value, ""


def is_uid(text: str) -> bool:
    """Whether it is a UID as PS3.5 9.1 has them."""
    return len(text) <= 64 and re.fullmatch(RE_VALID_UID, text) is not None


def build_map(
    finding: VolumeFinding, header: Dataset, frame_uid: str, study_uid: str, context: ReportContext
) -> Dataset:
    """The Parametric Map of one result, ready to be written.

    `header` is that of the slice of highest saliency, `frame_uid` the valid Frame of Reference UID of all slices.
    """
    values = np.stack([on_pixels(one.saliency, one.source.rows, one.source.columns) for one in finding.slices])
    series, models = series_of(MAP_SERIES[finding.side], finding), (finding.model,)
    date, time = _moment(header, context)
    uid = volume_uid("map", finding, study_uid, context, content_digest(values.tobytes() + _place(finding, frame_uid)))
    dataset = framed(
        header,
        study_uid=study_uid,
        sop_class_uid=ParametricMapStorage,
        sop_instance_uid=derived_uid(uid, date, time),
        series=series,
        series_instance_uid=series_uid(series, study_uid, models, context),
        instance_number=1,
        context=context,
        models=models,
    )
    dataset.ContentDate, dataset.ContentTime = date, time
    dataset.Laterality = finding.side.value
    dataset.BodyPartExamined = "KNEE"
    dataset.FrameOfReferenceUID = frame_uid
    dataset.PositionReferenceIndicator = None
    dataset.CodingSchemeIdentificationSequence = DicomSequence([coding_scheme_identification()])
    add_compression(dataset, header)
    _add_image(dataset, finding, values)
    _add_references(dataset, finding)
    _add_groups(dataset, finding, header)
    return dataset


def on_pixels(saliency: Saliency, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """A saliency at the centre of every pixel of its source image (rows, columns): bilinear; 0 outside of its box."""
    down = _weights(rows, saliency.box.top, saliency.box.bottom, saliency.values.shape[0])
    across = _weights(columns, saliency.box.left, saliency.box.right, saliency.values.shape[1])
    found: npt.NDArray[np.float32] = np.clip(down @ saliency.values @ across.T, 0.0, 1.0).astype(np.float32)
    return found


def _weights(pixels: int, start: float, end: float, cells: int) -> npt.NDArray[np.float64]:
    """(pixels, cells): linear interpolation of cells that stretch from start to end, at the centres of pixels."""
    place = (np.arange(pixels) + 0.5 - start) / (end - start) * cells - 0.5
    inside = (place >= -0.5) & (place <= cells - 0.5)
    distance = np.abs(np.clip(place, 0, cells - 1)[:, None] - np.arange(cells))
    found: npt.NDArray[np.float64] = np.clip(1.0 - distance, 0.0, None) * inside[:, None]
    return found


def _moment(header: Dataset, context: ReportContext) -> tuple[str, str]:
    """Content Date and Time, which this IOD demands, are the source's: the object carries no time of its own.

    Only where the source has none are they those of the composition.
    """
    for what in _MOMENTS:
        date, time = (raw_text(header, f"{what}{kind}").decode("ascii", "replace") for kind in ("Date", "Time"))
        if _DATE.fullmatch(date):
            return date, time if _TIME.fullmatch(time) else "000000"
    return context.created.strftime("%Y%m%d"), context.created.strftime("%H%M%S")


def _place(finding: VolumeFinding, frame_uid: str) -> bytes:
    return repr((frame_uid, finding.grid, [one.position for one in finding.slices])).encode()


def _add_image(dataset: Dataset, finding: VolumeFinding, values: npt.NDArray[np.float32]) -> None:
    """Parametric Map Image, Floating Point Image Pixel and Acquisition Context modules (PS3.3 C.8.32.2, C.7.6.24)."""
    words = short_words(finding.outcome)
    mark = f"{SYNTHETIC_MARK}. " if finding.synthetic else ""
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    dataset.ContentLabel = "ATTENTION"
    dataset.ContentDescription = ascii_text(f"AI attention, {SIDE_WORDS[finding.side]} knee, {words}", 64)
    dataset.ContentCreatorName = None
    dataset.BurnedInAnnotation = "NO"
    dataset.RecognizableVisualFeatures = "NO"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.ImageComments = ascii_text(
        f"{mark}{codes.RESEARCH_USE.meaning}. Where the model looked, {SIDE_WORDS[finding.side]} knee, {words}; 1 is "
        f"the highest of the {len(finding.slices)} slices read of {finding.total}.",
        1024,
    )
    dataset.AcquisitionContextSequence = DicomSequence([])
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = np.ascontiguousarray(values, "<f4").tobytes()


def _add_references(dataset: Dataset, finding: VolumeFinding) -> None:
    """Common Instance Reference module (PS3.3 C.12.2): every source image once."""
    series = Dataset()
    series.SeriesInstanceUID = finding.series_instance_uid
    instances = {one.source.sop_instance_uid: one.source.sop_class_uid for one in finding.slices}
    series.ReferencedInstanceSequence = DicomSequence([_reference(uid, kind) for uid, kind in instances.items()])
    dataset.ReferencedSeriesSequence = DicomSequence([series])


def _reference(uid: str, sop_class_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = uid
    return item


def _add_groups(dataset: Dataset, finding: VolumeFinding, header: Dataset) -> None:
    """Multi-frame Functional Groups and Dimension modules (PS3.3 C.7.6.16, C.7.6.17)."""
    organisation = Dataset()
    organisation.DimensionOrganizationUID = derived_uid("dimension", str(dataset.SOPInstanceUID))
    dataset.DimensionOrganizationSequence = DicomSequence([organisation])
    index = Dataset()
    index.DimensionOrganizationUID = organisation.DimensionOrganizationUID
    index.DimensionIndexPointer = Tag("ImagePositionPatient")
    index.FunctionalGroupPointer = Tag("PlanePositionSequence")
    index.DimensionDescriptionLabel = "Image Position Patient"
    dataset.DimensionIndexSequence = DicomSequence([index])
    steps = {later.index - one.index for one, later in zip(finding.slices, finding.slices[1:], strict=False)}
    if len(steps) == 1:
        dataset.DimensionOrganizationType = "3D"
    dataset.SharedFunctionalGroupsSequence = DicomSequence([_shared(dataset, finding, header)])
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(
        [_frame(one, number) for number, one in enumerate(finding.slices, 1)]
    )


def _shared(dataset: Dataset, finding: VolumeFinding, header: Dataset) -> Dataset:
    grid, item = finding.grid, Dataset()
    item.PlaneOrientationSequence = PlaneOrientationSequence("PATIENT", (*grid.across, *grid.down))
    apart = float(np.linalg.norm(grid.step))
    item.PixelMeasuresSequence = PixelMeasuresSequence(
        pixel_spacing=(grid.row_mm, grid.column_mm),
        slice_thickness=_thickness(header) or apart,
        spacing_between_slices=apart,
    )
    kind = Dataset()
    kind.FrameType = dataset.ImageType
    item.ParametricMapFrameTypeSequence = DicomSequence([kind])
    identity = Dataset()
    identity.RescaleIntercept, identity.RescaleSlope, identity.RescaleType = 0, 1, "US"
    item.PixelValueTransformationSequence = DicomSequence([identity])
    window = Dataset()
    window.WindowCenter, window.WindowWidth = 0.5, 1
    item.FrameVOILUTSequence = DicomSequence([window])
    item.RealWorldValueMappingSequence = DicomSequence(
        [
            RealWorldValueMapping(
                lut_label="ATTENTION",
                lut_explanation=mr_codes.ATTENTION_MAP.meaning,
                unit=codes.NO_UNITS,
                value_range=(0.0, 1.0),
                slope=1.0,
                intercept=0.0,
                quantity_definition=mr_codes.ATTENTION_MAP.code,
            )
        ]
    )
    return item


def _thickness(header: Dataset) -> float | None:
    """Slice Thickness of a single-frame source where it is a number; else None."""
    try:
        value = float(raw_text(header, "SliceThickness"))
    except ValueError:
        return None
    return value if 0.0 < value < 1000.0 else None


def _frame(one: SeenSlice, number: int) -> Dataset:
    item = Dataset()
    content = Dataset()
    content.DimensionIndexValues = [number]
    item.FrameContentSequence = DicomSequence([content])
    item.PlanePositionSequence = PlanePositionSequence("PATIENT", one.position)
    derivation = Dataset()
    method = codes.SALIENCY_METHODS.get(one.saliency.method, codes.SALIENCY_METHODS["saliency"])
    derivation.DerivationCodeSequence = DicomSequence([code_item(method)])
    derivation.SourceImageSequence = _kept_in_place(source_items([one.source]))
    item.DerivationImageSequence = DicomSequence([derivation])
    return item


def _kept_in_place(sources: Sequence[Dataset]) -> DicomSequence:
    for source in sources:
        source.SpatialLocationsPreserved = "YES"
    return DicomSequence(sources)
