"""Series of a made OAI as MR Image Storage objects, with the geometry of real ones.

Planes are a few degrees oblique; slices lie in any order of InstanceNumber: ascending, descending or shuffled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from training.acceptance_dicom import CR, Encoding, Header, Identity, to_dicom
from training.synth_oai_plan import VISITS, Participant, Scan
from training.synth_oai_scene import Look, draw
from training.synth_oai_tables import barcode
from training.synth_oai_truth import folder, series_uid, study_uid

MR = "1.2.840.10008.5.1.4.1.1.4"
FIELD = 140.0  # mm of a slice, rows and columns
_TILT = np.radians(7)  # at most, about each axis
_TIMES = {"COR_IW_TSE": (3700, 29, 7, "2D"), "SAG_IW_TSE": (3200, 30, 5, "2D"), "SAG_3D_DESS": (16.3, 4.7, 1, "3D")}
_THICKNESS = {"COR_IW_TSE": "3", "SAG_IW_TSE": "3", "SAG_3D_DESS": "0.7"}  # mm, as real ones; the gaps are larger
_OPTIONS = {"SAG_IW_TSE": "FS"}
_COVERED = {"COR_IW_TSE": 72.0, "SAG_IW_TSE": 84.0, "SAG_3D_DESS": 84.0}  # mm across the slices
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Geometry:
    """A stack of slices in the patient (LPS, mm): directions of rows and columns, centre, distances."""

    row: Vector
    column: Vector
    centre: Vector
    spacing: float
    between: float
    size: int
    slices: int

    @property
    def normal(self) -> Vector:
        """Of the slices."""
        return np.cross(self.row, self.column)

    def corner(self, number: int) -> Vector:
        """Image Position (Patient) of a slice, counted along the normal."""
        middle = (self.size - 1) / 2 * self.spacing
        return (
            self.centre
            + self.normal * self.between * (number - (self.slices - 1) / 2)
            - middle * (self.row + self.column)
        )

    def points(self) -> npt.NDArray[np.float32]:
        """Of every pixel (3, slices, rows, columns)."""
        steps = np.arange(self.size, dtype=np.float32) * np.float32(self.spacing)
        corners = np.stack([self.corner(number) for number in range(self.slices)]).astype(np.float32)
        row, column = self.row.astype(np.float32), self.column.astype(np.float32)
        plane = row[:, None, None] * steps[None, None, :] + column[:, None, None] * steps[None, :, None]
        return np.asarray(corners.T[:, :, None, None] + plane[:, None], np.float32)


def write_scan(person: Participant, scan: Scan, images: Path, size: int, seed: int) -> int:
    """Write a series into its folder of the release; returns how many files it has."""
    rng = np.random.default_rng((seed, person.number, scan.number))
    place = images / folder(person, scan)
    place.mkdir(parents=True, exist_ok=True)
    if scan.sequence == "film":
        _film(person, scan, rng).save_as(place / "001", enforce_file_format=True)
        return 1
    geometry = _geometry(scan, size, rng)
    stored = _pixels(person, scan, geometry, rng)
    shared = _shared(person, scan, geometry, stored, rng)
    order = _order(scan.slices, rng)
    for number, along in enumerate(order, start=1):
        path = place / f"{number:03d}"
        _slice(shared, geometry, stored[along], int(along), number).save_as(path, enforce_file_format=True)
    if scan.broken:
        (place / f"{scan.slices // 2:03d}").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL")
    return scan.slices


def _order(slices: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    along = np.arange(slices)
    luck = rng.random()
    return along if luck < 0.5 else along[::-1] if luck < 0.8 else rng.permutation(along)


def _geometry(scan: Scan, size: int, rng: np.random.Generator) -> Geometry:
    """Coronal or sagittal as the name says (not where the plan has it wrong), tilted, about the knee's centre."""
    coronal = scan.sequence.startswith("COR") != scan.wrong_plane
    row = np.array([1.0, 0, 0]) if coronal else np.array([0, 1.0, 0])
    turn = _turned(rng.uniform(-_TILT, _TILT, 3))
    across = _COVERED.get(scan.sequence, 60.0)
    jitter = rng.uniform(-3, 3, 3)
    return Geometry(
        _rounded(turn @ row), _rounded(turn @ np.array([0, 0, -1.0])), np.round(knee_centre(scan.side) + jitter, 3),
        round(FIELD / size, 6), round(across / scan.slices, 6), size, scan.slices,
    )  # fmt: skip


def knee_centre(side: str) -> Vector:
    """Where a knee's joint lies in the patient (LPS, mm): a left one at the left."""
    return np.array([85.0 if side == "L" else -85.0, 10.0, -12.0])


def _turned(angles: Vector) -> Vector:
    (a, b, c), (s, t, u) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, a, -s], [0, s, a]])
    about_y = np.array([[b, 0, t], [0, 1, 0], [-t, 0, b]])
    about_z = np.array([[c, -u, 0], [u, c, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _rounded(direction: Vector) -> Vector:
    """To what a DS of 16 characters holds."""
    return np.round(direction, 8)


def _pixels(person: Participant, scan: Scan, geometry: Geometry, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Stored values (slices, rows, columns) along the normal; a localiser is noise."""
    if not scan.sequence:
        noise = rng.standard_normal((geometry.slices, geometry.size, geometry.size), dtype=np.float32)
        return (60 * np.abs(noise)).astype(np.uint16)
    space = person.knees.get((scan.visit, scan.side))
    look = Look.draw(scan.lesion, 4.0 if space is None else space.drawn_space / 1000, rng)
    points = geometry.points() - knee_centre(scan.side).astype(np.float32)[:, None, None, None]
    if scan.side == "R":
        points[0] *= -1  # lateral is the patient's right
    brightness = draw(points, scan.sequence, look, rng)
    return np.asarray(np.clip(brightness * rng.uniform(900, 1600), 0, 4095), np.uint16)


def _shared(
    person: Participant, scan: Scan, geometry: Geometry, stored: npt.NDArray[np.uint16], rng: np.random.Generator
) -> Dataset:
    """What all slices of a series have in common (PS3.3 C.8.3)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, UID(MR)
    _patient(ds, person, scan, rng)
    day = f"{person.day(scan.visit):%Y%m%d}"
    ds.SpecificCharacterSet, ds.ImageType, ds.SOPClassUID = "ISO_IR 100", ["ORIGINAL", "PRIMARY", "OTHER"], MR
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101500"
    ds.AccessionNumber, ds.ReferringPhysicianName, ds.StudyID = barcode(scan), "", "1"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "MR", "Genu Synth", "Made Knee"
    ds.StudyDescription = "OAI^MR_KNEE"
    if scan.header is not None:
        ds.SeriesDescription = scan.header
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid(person, scan), series_uid(person, scan)
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=["genu oai frame", ds.SeriesInstanceUID])
    ds.PositionReferenceIndicator, ds.PatientPosition, ds.BodyPartExamined = "", "FFS", "KNEE"
    ds.SeriesNumber, ds.AcquisitionNumber = scan.number % 1000 + 1, 1
    ds.Laterality = scan.side if rng.random() < 0.8 else ""
    repetition, echo, train, kind = _TIMES.get(scan.sequence, (20, 5, 1, "2D"))
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = (
        ("GR" if train == 1 else "SE"),
        "SK",
        _OPTIONS.get(scan.sequence, ""),
    )
    ds.MRAcquisitionType, ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = kind, repetition, echo, train
    ds.MagneticFieldStrength, ds.FlipAngle = 3, 25 if train == 1 else 180
    ds.ImageOrientationPatient = [_ds(value) for value in (*geometry.row, *geometry.column)]
    ds.PixelSpacing = [_ds(geometry.spacing)] * 2
    ds.SliceThickness = _THICKNESS.get(scan.sequence, "5")
    ds.SpacingBetweenSlices = _ds(geometry.between)
    _describe_pixels(ds, geometry, stored)
    ds.ImageComments = "Made images, no patient"
    return ds


def _patient(ds: Dataset, person: Participant, scan: Scan, rng: np.random.Generator) -> None:
    """As MR scanners write it: size and weight are there only now and then."""
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "SYNTH^FICTITIOUS", person.identifier, ""
    ds.PatientSex, ds.PatientAge = person.sex, f"{person.age + VISITS[scan.visit] // 12:03d}Y"
    if rng.random() < 0.4:
        ds.PatientSize = f"{person.height / 1000:.2f}"
    weight = person.weight.get(scan.visit)
    if weight is not None and rng.random() < 0.6:
        ds.PatientWeight = f"{weight:.1f}"


def _describe_pixels(ds: Dataset, geometry: Geometry, stored: npt.NDArray[np.uint16]) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows = ds.Columns = geometry.size
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    top = max(int(np.percentile(stored, 99)), 2)
    ds.WindowCenter, ds.WindowWidth = str(top // 2), str(top)


def _slice(shared: Dataset, geometry: Geometry, stored: npt.NDArray[np.uint16], along: int, number: int) -> Dataset:
    """The shared data set with what is a slice's own; it is changed in place, one after another."""
    uid = generate_uid(entropy_srcs=["genu oai instance", shared.SeriesInstanceUID, str(number)])
    shared.SOPInstanceUID = shared.file_meta.MediaStorageSOPInstanceUID = uid
    shared.InstanceNumber = number
    shared.ImagePositionPatient = [_ds(value) for value in geometry.corner(along)]
    shared.SliceLocation = _ds(float(geometry.corner(along) @ geometry.normal))
    shared.PixelData = stored.tobytes()
    shared["PixelData"].VR = "OW"
    return shared


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2)."""
    text = f"{value:.8f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text[:16]


def _film(person: Participant, scan: Scan, rng: np.random.Generator) -> Dataset:
    """The radiograph of the visit, which no MR cohort wants."""
    day = f"{person.day(scan.visit):%Y%m%d}"
    attributes: dict[str, Any] = {
        "PatientID": person.identifier, "PatientName": "SYNTH^FICTITIOUS", "PatientBirthDate": "",
        "PatientSex": person.sex, "Manufacturer": "Genu Synth", "StudyInstanceUID": study_uid(person, scan),
        "SeriesInstanceUID": series_uid(person, scan), "StudyDate": day, "SeriesDate": day, "AcquisitionDate": day,
        "ContentDate": day, "AccessionNumber": barcode(scan),
    }  # fmt: skip
    header = Header(description=scan.header or "", sop_class=CR, attributes=attributes)
    encoding = Encoding(8, monochrome1=False, window=True, low=0.0, high=1.0, syntax=ExplicitVRLittleEndian)
    names = Identity(f"oai film {person.identifier} {scan.number}", f"oai film {person.identifier}", 0)
    return to_dicom(rng.random((32, 48), dtype=np.float32), header, encoding, names)
