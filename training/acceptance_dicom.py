"""Made films as DICOM objects of many makes: Digital X-Ray and Computed Radiography, as hospitals send them.

Header and pixels are independent of each other here: a film of the acceptance set may say what it likes.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

DX = "1.2.840.10008.5.1.4.1.1.1.1"
DX_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG_LOSSLESS, RLELossless, JPEG2000Lossless)

_VIEWS = {
    "AP": ("399348003", "antero-posterior"),
    "PA": ("272479007", "postero-anterior"),
    "LL": ("399067008", "lateral"),
    "": ("399110001", "tangential"),
}
_REGIONS = {
    "KNEE": ("72696002", "Knee"),
    "CHEST": ("51185008", "Chest"),
    "HAND": ("85562004", "Hand"),
    "HIP": ("29836001", "Hip"),
    "ANKLE": ("344001", "Ankle"),
    "SHOULDER": ("16982005", "Shoulder"),
}


@dataclass(frozen=True)
class Header:
    """What a header says.

    `side` is L, R, B or None, `view` AP, PA, LL, or empty for an axial view, None where nothing is said; `orientation`
    is Patient Orientation. `attributes` are set last; None removes one. Where something is missing that Digital X-Ray
    requires, `sop_class` is to be CR.
    """

    side: str | None = None
    orientation: tuple[str, str] | None = ("L", "F")
    view: str | None = "AP"
    part: str | None = "KNEE"
    description: str = "KNEE AP"
    study: str = "KNEE"
    sop_class: str = DX
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY")
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoding:
    """How grey values are stored: bits, their order, the part of the range in use, transfer syntax.

    `window` says whether CR has one; DX For Presentation must, For Processing must not (PS3.3 C.8.11.1).
    """

    bits: int
    monochrome1: bool
    window: bool
    low: float
    high: float
    syntax: str

    @classmethod
    def draw(cls, rng: np.random.Generator, number: int) -> "Encoding":
        """As some maker does it; `number` sees to it that every one comes about."""
        part = rng.random() < 0.5
        return cls(
            bits=(12, 16, 8, 14, 10)[number % 5],
            monochrome1=bool(rng.random() < 0.35),
            window=bool(rng.random() < 0.6),
            low=float(rng.uniform(0.02, 0.15)) if part else 0.0,
            high=float(rng.uniform(0.6, 0.95)) if part else 1.0,
            syntax=str(SYNTAXES[number % len(SYNTAXES)] if rng.random() < 0.6 else ExplicitVRLittleEndian),
        )


@dataclass(frozen=True)
class Identity:
    """Whose film it is: names that give the UIDs, and a number for the fictitious patient."""

    instance: str
    study: str
    patient: int

    @property
    def study_uid(self) -> str:
        """Derived from its name."""
        return str(generate_uid(entropy_srcs=["genu acceptance study", self.study]))

    @property
    def sop_uid(self) -> str:
        """Derived from its name."""
        return str(generate_uid(entropy_srcs=["genu acceptance instance", self.instance]))


def to_dicom(
    pixels: Image, header: Header, encoding: Encoding, identity: Identity, padding: Mask | None = None, frames: int = 1
) -> Dataset:
    """A film (rows, columns), 0..1, bright bone, as an object with `file_meta`, ready to be written.

    `padding` is where nothing was exposed. The pixels are stored `frames` times.
    """
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = UID(header.sop_class)
    ds.file_meta.MediaStorageSOPInstanceUID = UID(identity.sop_uid)
    _identify(ds, header, identity)
    _describe(ds, header)
    _store(ds, pixels, encoding, padding, frames)
    if header.sop_class in (DX, DX_PROCESSING):
        _digital(ds, header, encoding)
    elif header.sop_class == CR:
        ds.PlateID = ""
    else:
        ds.ConversionType = "WSD"
    for keyword, value in header.attributes.items():
        if value is not None:
            setattr(ds, keyword, value)
        elif keyword in ds:
            delattr(ds, keyword)
    return _transferred(ds, encoding.syntax)


def _identify(ds: Dataset, header: Header, identity: Identity) -> None:
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = UID(header.sop_class), UID(identity.sop_uid)
    ds.StudyInstanceUID = identity.study_uid
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["genu acceptance series", identity.instance])
    ds.PatientName, ds.PatientID = "ACCEPTANCE^FICTITIOUS", f"ACCEPTANCE-{identity.patient:05d}"
    ds.PatientBirthDate, ds.PatientSex = "19500101", "O"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "1", "", ""
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.Modality = {CR: "CR", SECONDARY_CAPTURE: "OT"}.get(header.sop_class, "DX")
    ds.Manufacturer, ds.ManufacturerModelName = "Acceptance Works", "Made Film"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.ImageComments = "Made film, no patient"


def _describe(ds: Dataset, header: Header) -> None:
    ds.StudyDescription, ds.SeriesDescription = header.study, header.description
    ds.BodyPartExamined, ds.ViewPosition = header.part or "", header.view or ""
    ds.PatientOrientation = list(header.orientation or ())
    ds.ImageType = list(header.image_type)
    if header.sop_class in (DX, DX_PROCESSING):
        ds.ImageType = [*header.image_type, ""][:3]
        ds.ImageLaterality = header.side or "U"
        ds.AnatomicRegionSequence = [_code(*_REGIONS[header.part or "KNEE"])]
        ds.ViewCodeSequence = [_code(*_VIEWS[header.view or ""])]
        ds.ViewCodeSequence[0].ViewModifierCodeSequence = []
    else:
        ds.Laterality = header.side if header.side in ("L", "R") else ""


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _store(ds: Dataset, pixels: Image, encoding: Encoding, padding: Mask | None, frames: int) -> None:
    top = (1 << encoding.bits) - 1
    low, high = round(encoding.low * top), round(encoding.high * top)
    low = max(low, 1) if padding is not None else low
    stored = np.round(low + np.clip(pixels, 0, 1).astype(np.float64) * (high - low))
    if encoding.monochrome1:
        stored, low, high = top - stored, top - high, top - low
    if padding is not None:
        stored[padding] = 0
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if encoding.monochrome1 else "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = 8 if encoding.bits <= 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = encoding.bits, encoding.bits - 1, 0
    if padding is not None:
        ds.PixelPaddingValue = 0
    if frames > 1:
        ds.NumberOfFrames = frames
    if ds.SOPClassUID == DX or (
        encoding.window and ds.SOPClassUID != DX_PROCESSING
    ):  # LINEAR (PS3.3 C.11.2.1.2.1) from low to high
        ds.WindowCenter, ds.WindowWidth = (low + high + 1) / 2, high - low + 1
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    raw = stored.astype("<u1" if encoding.bits <= 8 else "<u2").tobytes() * frames
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    ds["PixelData"].VR = "OB" if encoding.bits <= 8 else "OW"


def _digital(ds: Dataset, header: Header, encoding: Encoding) -> None:
    ds.PresentationIntentType = "FOR PRESENTATION" if header.sop_class == DX else "FOR PROCESSING"
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if encoding.monochrome1 else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape = "INVERSE" if encoding.monochrome1 else "IDENTITY"
    ds.DetectorType, ds.DetectorConfiguration, ds.DetectorID = "DIRECT", "AREA", "ACCEPTANCE"
    ds.ImagerPixelSpacing = [0.15, 0.15]
    ds.PositionerType, ds.AcquisitionContextSequence = "NONE", []


def _transferred(ds: Dataset, syntax: str) -> Dataset:
    if syntax == JPEG_LOSSLESS and ds.Rows * ds.Columns * ds.BitsAllocated % 16:
        syntax = RLELossless  # GDCM's writer takes no odd number of bytes
    if syntax == JPEG_LOSSLESS:
        _jpeg_lossless(ds)
    elif syntax in (RLELossless, JPEG2000Lossless):
        ds.compress(syntax, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    else:
        ds.file_meta.TransferSyntaxUID = UID(syntax)
    return ds


def _jpeg_lossless(ds: Dataset) -> None:
    """Process 14, by GDCM; the rest of the object stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "plain.dcm", Path(folder) / "packed.dcm"
        ds.save_as(plain, enforce_file_format=True)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(plain))
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        writer.SetFileName(str(packed))
        if reader.Read():
            change.SetInput(reader.GetImage())
            if change.Change():
                writer.SetFile(reader.GetFile())
                writer.SetImage(change.GetOutput())
                writer.Write()
        if not packed.exists():
            raise OSError(f"GDCM cannot compress a film of {ds.Rows} x {ds.Columns} with {ds.BitsStored} bits")
        ds["PixelData"] = dcmread(packed)["PixelData"]
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = UID(JPEG_LOSSLESS)
