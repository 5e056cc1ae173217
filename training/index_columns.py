"""The columns of an index: names, where in a data set each comes from, and what kind of value it holds.

A column has the name of its DICOM keyword and is text as it stands there (several values joined by a backslash), a
number, a list of numbers, or a list of codes. Units are those of the standard (mm, ms, degrees, metres, kg, tesla, kV,
mAs). Empty and missing values are null. Patient's Name is left out on purpose.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import pyarrow as pa
from pydicom.datadict import dictionary_VR, tag_for_keyword

VERSION = b"2"
VERSION_KEY = b"genu_index"


class Kind(Enum):
    """What a column holds."""

    TEXT = "text"
    WHOLE = "whole number; the first of several"
    NUMBER = "number; the first of several"
    NUMBERS = "list of numbers; an empty value among them is null"
    CODES = "list of codes"


CODE = pa.struct([("value", pa.string()), ("scheme", pa.string()), ("meaning", pa.string())])
_TYPES = {
    Kind.TEXT: pa.string(),
    Kind.WHOLE: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.NUMBERS: pa.list_(pa.float64()),
    Kind.CODES: pa.list_(CODE),
}
_KINDS = {"IS": Kind.WHOLE, "US": Kind.WHOLE, "DS": Kind.NUMBER, "FD": Kind.NUMBER, "SQ": Kind.CODES}


@dataclass(frozen=True)
class Column:
    """One column taken from the data set: `keywords` lead to the attribute through the first items of sequences."""

    name: str
    keywords: tuple[str, ...]
    kind: Kind

    @property
    def vr(self) -> str:
        """The value representation of the attribute (PS3.6)."""
        return str(dictionary_VR(self.keywords[-1]))

    @property
    def tags(self) -> tuple[int, ...]:
        """The tags that lead to the attribute."""
        return tuple(tag for keyword in self.keywords if (tag := tag_for_keyword(keyword)) is not None)


_LISTS = frozenset(
    {"PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "WindowCenter", "WindowWidth"}
    | {"ImagePositionPatient", "ImageOrientationPatient", "SharedPixelSpacing", "SharedImageOrientationPatient"}
)  # fmt: skip
_PLAIN = (
    # identity
    "PatientID IssuerOfPatientID StudyInstanceUID SeriesInstanceUID SOPInstanceUID SOPClassUID FrameOfReferenceUID "
    "AccessionNumber StudyID SeriesNumber AcquisitionNumber InstanceNumber PatientIdentityRemoved "
    # patient and dates
    "PatientBirthDate PatientSex PatientAge PatientSize PatientWeight StudyDate StudyTime SeriesDate SeriesTime "
    "AcquisitionDate AcquisitionTime AcquisitionDateTime ContentDate ContentTime "
    # what it shows
    "Modality ImageType PresentationIntentType ConversionType BodyPartExamined ViewPosition ImageLaterality Laterality "
    "PatientOrientation PatientPosition StudyDescription SeriesDescription ProtocolName RequestedProcedureDescription "
    "PerformedProcedureStepDescription AcquisitionDeviceProcessingDescription AnatomicRegionSequence "
    "PrimaryAnatomicStructureSequence ViewCodeSequence ProcedureCodeSequence BurnedInAnnotation "
    # equipment
    "Manufacturer ManufacturerModelName InstitutionName StationName DeviceSerialNumber SoftwareVersions DetectorType "
    "KVP Exposure DistanceSourceToDetector DistanceSourceToPatient EstimatedRadiographicMagnificationFactor "
    # pixels
    "Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit "
    "PixelRepresentation PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing PixelSpacingCalibrationType "
    "PresentationLUTShape WindowCenter WindowWidth LossyImageCompression "
    # MR
    "ImagePositionPatient ImageOrientationPatient SliceThickness SpacingBetweenSlices SliceLocation EchoTime "
    "RepetitionTime InversionTime FlipAngle EchoTrainLength EchoNumbers ScanningSequence SequenceVariant ScanOptions "
    "SequenceName PulseSequenceName MRAcquisitionType MagneticFieldStrength"
)
_SHARED = {
    "SharedPixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "SharedSliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "SharedImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "SharedFrameLaterality": ("FrameAnatomySequence", "FrameLaterality"),
}


def _columns() -> Iterator[Column]:
    for name in _PLAIN.split():
        yield Column(name, (name,), _kind(name, name))
    for name, keywords in _SHARED.items():
        yield Column(name, ("SharedFunctionalGroupsSequence", *keywords), _kind(name, keywords[-1]))


def _kind(name: str, keyword: str) -> Kind:
    return Kind.NUMBERS if name in _LISTS else _KINDS.get(str(dictionary_VR(keyword)), Kind.TEXT)


COLUMNS = tuple(_columns())
FILE_FIELDS = (("path", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("reason", pa.string()))
SCHEMA = pa.schema(
    [*FILE_FIELDS, ("TransferSyntaxUID", pa.string()), *((column.name, _TYPES[column.kind]) for column in COLUMNS)],
    metadata={VERSION_KEY: VERSION},
)
Values = tuple[object, ...]  # TransferSyntaxUID, then one value a column, in the order of COLUMNS
NO_VALUES: Values = (None,) * (len(COLUMNS) + 1)


def is_current(schema: pa.Schema) -> bool:
    """Whether a file was written with these very columns."""
    return bool(schema.equals(SCHEMA)) and (schema.metadata or {}).get(VERSION_KEY) == VERSION
