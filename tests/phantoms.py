"""Generated DICOM: knees that are no patient's, and things that are no knees. Every object says that it is a phantom.

python -m tests.phantoms OUT     writes the demo's sample studies: one bilateral film, one single knee
"""

import argparse
import hashlib
import subprocess
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from tests import phantom_pixels

DX_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MR = "1.2.840.10008.5.1.4.1.1.4"
CT = "1.2.840.10008.5.1.4.1.1.2"

_VIEWS = {"AP": ("399348003", "antero-posterior"), "PA": ("272479007", "postero-anterior")}
_VIEWS |= {"LL": ("399067008", "lateral"), "RL": ("399067008", "lateral")}
_SIDES = {"L": ("7771000", "Left"), "R": ("24028007", "Right"), "B": ("51440002", "Right and left")}


def uid(*parts: object) -> str:
    """The same UID for the same parts, so that a phantom written twice is one instance."""
    return str(generate_uid(entropy_srcs=["genu-phantom", *map(str, parts)]))


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence (PS3.3 section 8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def wrap_dx(
    image: npt.NDArray[Any],
    side: str | None = "L",
    *,
    view: str = "AP",
    identity: str = "0",
    sop_class: str = DX_PRESENTATION,
    bits: int = 8,
    photometric: str = "MONOCHROME2",
    attributes: Mapping[str, Any] | None = None,
) -> Dataset:
    """Any grey image as a DX For Presentation (or CR) of a knee, with `file_meta`, ready to be written.

    `image` is uint8 with bright bone, or float 0..1; `side` "L", "R", "B" or None (left empty). `identity` decides
    patient, study, series and instance UIDs. `attributes` are set last; None as a value removes the attribute.
    """
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    _set_identity(ds, identity, sop_class)
    _set_equipment(ds)
    _set_knee(ds, side, view, sop_class)
    _set_pixels(ds, _stored(image, bits, photometric), bits, photometric)
    if sop_class in (DX_PRESENTATION, DX_PROCESSING):
        _set_dx(ds, bits, photometric, sop_class)
    else:
        ds.PlateID = None
    for keyword, value in (attributes or {}).items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    _finish_meta(ds)
    return ds


def dx_knee(side: str | None = "L", *, seed: int = 0, bits: int = 12, **options: Any) -> Dataset:
    """A frontal film of one knee; options as for `wrap_dx`, and `narrowing` 0..1 of the joint space."""
    narrowing = options.pop("narrowing", 0.0)
    pixels = phantom_pixels.knee(side if side in ("L", "R") else "L", seed=seed, narrowing=narrowing)
    return wrap_dx(pixels, side, bits=bits, **{"identity": f"knee-{side}-{seed}"} | options)


def dx_bilateral(*, seed: int = 0, bits: int = 12, orientation: str | None = "L\\F", **options: Any) -> Dataset:
    """A frontal film of both knees; `orientation` is the Patient Orientation (row direction, column direction)."""
    attributes = dict(options.pop("attributes", None) or {})
    attributes.setdefault("PatientOrientation", orientation.split("\\") if orientation else "")
    pixels = phantom_pixels.bilateral(seed=seed)
    chosen = {"identity": f"bilateral-{seed}"} | options
    return wrap_dx(pixels, "B", bits=bits, attributes=attributes, **chosen)


def cr_knee(side: str | None = "R", **options: Any) -> Dataset:
    """A Computed Radiography film of one knee."""
    return dx_knee(side, **{"sop_class": CR, "identity": f"cr-{side}"} | options)


def dx_lateral(side: str = "L", **options: Any) -> Dataset:
    """A knee from the side: refused for its view."""
    attributes = {"PatientOrientation": ["A", "F"]} | dict(options.pop("attributes", None) or {})
    chosen = {"identity": f"lateral-{side}", "view": "LL", "bits": 12} | options
    return wrap_dx(phantom_pixels.lateral(), side, attributes=attributes, **chosen)


def dx_chest(**options: Any) -> Dataset:
    """A chest: refused for its anatomy."""
    return _elsewhere("CHEST", code("51185008", "SCT", "Chest"), phantom_pixels.chest(), options)


def dx_hand(**options: Any) -> Dataset:
    """A hand: refused for its anatomy."""
    return _elsewhere("HAND", code("85562004", "SCT", "Hand"), phantom_pixels.chest(seed=3), options)


def mr_knee(identity: str = "mr", slices: int = 1) -> list[Dataset]:
    """Sagittal MR slices of a knee: no radiograph."""
    found = []
    for number in range(slices):
        ds = wrap_dx(phantom_pixels.lateral(64, 64, seed=number), "L", identity=identity, bits=12, sop_class=MR)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid(identity, number)
        ds.Modality, ds.InstanceNumber = "MR", number + 1
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [float(number), 0, 0], [0, 1, 0, 0, 0, -1]
        for keyword in ("PlateID", "ViewPosition"):
            if keyword in ds:
                delattr(ds, keyword)
        found.append(ds)
    return found


def sc_knee(side: str = "L", **options: Any) -> Dataset:
    """A Secondary Capture of a knee film: scored only where the site opts in."""
    ds = dx_knee(side, **{"sop_class": SECONDARY_CAPTURE, "identity": f"sc-{side}", "bits": 8} | options)
    del ds.PlateID
    ds.ConversionType = "DF"
    return ds


def with_name(ds: Dataset, charset: str | list[str], name: str) -> Dataset:
    """The same object with a Specific Character Set and a patient's name in it."""
    ds.SpecificCharacterSet = charset
    ds.PatientName = name
    return ds


def plant_canaries(ds: Dataset, canary: str) -> Dataset:
    """`canary` in every attribute where free text or identity could stand; PN, dates and numbers get their form."""
    for keyword in _TEXT_KEYWORDS:
        setattr(ds, keyword, canary[:16] if dictionary_VR(keyword) == "SH" else f"{canary}-{keyword}"[:60])
    for keyword in _NAME_KEYWORDS:
        setattr(ds, keyword, f"{canary}^{keyword}"[:60])
    return ds


_NAME_KEYWORDS = (
    *("PatientName", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "OtherPatientNames"),
    *("NameOfPhysiciansReadingStudy", "PatientBirthName", "PatientMotherBirthName", "RequestingPhysician"),
)
_TEXT_KEYWORDS = (
    *("PatientID", "IssuerOfPatientID", "OtherPatientIDs", "PatientComments", "PatientAddress", "Occupation"),
    *("AdditionalPatientHistory", "EthnicGroup", "MedicalAlerts", "AccessionNumber", "StudyID", "StationName"),
    *(
        "InstitutionName",
        "InstitutionAddress",
        "InstitutionalDepartmentName",
        "ImageComments",
        "PatientTelephoneNumbers",
    ),
    *("RequestedProcedureDescription", "AdmittingDiagnosesDescription", "DeviceSerialNumber", "DerivationDescription"),
)


def compress(ds: Dataset, syntax: str) -> Dataset:
    """A copy in another transfer syntax; JPEG 2000 Lossless by OpenJPEG, RLE and JPEG-LS by pydicom's encoders."""
    copy = deepcopy(ds)
    if syntax == JPEG2000Lossless:
        from openjpeg.utils import encode_array

        packed = encode_array(ds.pixel_array, bits_stored=ds.BitsStored, photometric_interpretation=2)
        copy.PixelData = encapsulate([bytes(packed)])
        copy["PixelData"].VR, copy["PixelData"].is_undefined_length = "OB", True
        copy.file_meta.TransferSyntaxUID = JPEG2000Lossless
    else:
        copy.compress(syntax, generate_instance_uid=False)
    return copy


def dcmtk_compress(source: Path, target: Path, *options: str, tool: str = "dcmcjpeg") -> Path:
    """JPEG by DCMTK: `options` such as "+e1" lossless SV1, "+eb" baseline, "+ee" extended."""
    subprocess.run([tool, *options, str(source), str(target)], check=True, capture_output=True, timeout=60)
    return target


def write(ds: Dataset, path: Path) -> Path:
    """The object as a DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def write_samples(folder: Path) -> list[Path]:
    """The demo's sample studies: one bilateral film and one single left knee."""
    bilateral = dx_bilateral(identity="demo-bilateral")
    single = dx_knee("L", identity="demo-single", narrowing=0.5)
    return [write(bilateral, folder / "bilateral.dcm"), write(single, folder / "single_left.dcm")]


def _elsewhere(body_part: str, region: Dataset, pixels: phantom_pixels.Image, options: dict[str, Any]) -> Dataset:
    attributes = {
        "BodyPartExamined": body_part,
        "AnatomicRegionSequence": [region],
        "StudyDescription": f"PHANTOM {body_part}",
        "SeriesDescription": f"PHANTOM {body_part}",
    } | dict(options.pop("attributes", None) or {})
    chosen = {"identity": body_part, "view": "PA", "bits": 12} | options
    return wrap_dx(pixels, chosen.pop("side", "U"), attributes=attributes, **chosen)


def _set_identity(ds: Dataset, identity: str, sop_class: str) -> None:
    number = int(hashlib.sha256(identity.encode()).hexdigest()[:8], 16) % 10**8
    ds.PatientName, ds.PatientID = "PHANTOM^KNEE", f"PHANTOM-{number:08d}"
    ds.PatientBirthDate, ds.PatientSex = "19500101", "O"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(identity, "study"), uid(identity, "series")
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, uid(identity, "instance")
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "PHANTOM", "", ""
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.Modality = "CR" if sop_class == CR else "OT" if sop_class == SECONDARY_CAPTURE else "DX"
    ds.ImageComments = "PHANTOM: generated, no patient"


def _set_equipment(ds: Dataset) -> None:
    ds.Manufacturer, ds.ManufacturerModelName = "Phantom Works", "Drawn Knee"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"


def _set_knee(ds: Dataset, side: str | None, view: str, sop_class: str) -> None:
    ds.StudyDescription, ds.SeriesDescription = "PHANTOM Knee", f"PHANTOM Knee {view}"
    ds.BodyPartExamined, ds.ViewPosition = "KNEE", view
    # Hung as if facing the patient, AP or PA: the columns run towards the patient's left (PS3.3 C.7.6.1.1.1).
    ds.PatientOrientation = ["L", "F"]
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    if sop_class in (DX_PRESENTATION, DX_PROCESSING):
        ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
        ds.ImageLaterality = side or ""
        ds.AnatomicRegionSequence = [code("72696002", "SCT", "Knee")]
        value, meaning = _VIEWS[view]
        ds.ViewCodeSequence = [code(value, "SCT", meaning)]
        ds.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence()
    else:
        ds.Laterality = side if side in ("L", "R") else ""


def _stored(image: npt.NDArray[Any], bits: int, photometric: str) -> npt.NDArray[Any]:
    top = (1 << bits) - 1
    scaled = image.astype(np.float64) / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)
    if photometric == "MONOCHROME1":
        scaled = 1.0 - scaled
    return np.round(np.clip(scaled, 0, 1) * top).astype("<u1" if bits <= 8 else "<u2")


def _set_pixels(ds: Dataset, stored: npt.NDArray[Any], bits: int, photometric: str) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated = 8 if bits <= 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, 0
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    raw = stored.tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    ds["PixelData"].VR = "OB" if bits <= 8 else "OW"


def _set_dx(ds: Dataset, bits: int, photometric: str, sop_class: str) -> None:
    ds.PresentationIntentType = "FOR PRESENTATION" if sop_class == DX_PRESENTATION else "FOR PROCESSING"
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if photometric == "MONOCHROME1" else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    if sop_class == DX_PRESENTATION:
        ds.WindowCenter, ds.WindowWidth = 1 << (bits - 1), 1 << bits
    ds.DetectorType, ds.DetectorConfiguration, ds.DetectorID = "DIRECT", "AREA", "PHANTOM"
    ds.ImagerPixelSpacing = [0.4, 0.4]
    ds.PositionerType, ds.AcquisitionContextSequence = "NONE", Sequence()


def _finish_meta(ds: Dataset) -> None:
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    if "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def main() -> None:
    """Write the sample studies."""
    parser = argparse.ArgumentParser(description="Write generated sample studies (phantoms, no patients).")
    parser.add_argument("folder", type=Path)
    for path in write_samples(parser.parse_args().folder):
        print(path)


if __name__ == "__main__":
    main()
