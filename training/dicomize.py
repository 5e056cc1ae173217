"""Wraps labelled knee images into a DX export, so that training really starts from DICOM: `genu-train dicomize`.

Input: a folder that holds image files or .tar archives of them, and a CSV with the columns file, split, kl, subject,
side. Output: OUT/images/<split>/<SOP Instance UID>.dcm and OUT/labels.csv (SOPInstanceUID, PatientID, side, kl, split).
UIDs are derived from the names in the CSV, so a second run writes the same export.
"""

import csv
import io
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from inference.errors import DataError
from inference.findings import Side
from training.label_csv import grade_of, read_rows, side_of

COLUMNS = ("file", "split", "kl", "subject", "side")
LABEL_COLUMNS = ("SOPInstanceUID", "PatientID", "side", "kl", "split")
_SPLIT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DX = UID("1.2.840.10008.5.1.4.1.1.1.1")


@dataclass(frozen=True)
class LabelledImage:
    """One row of the CSV: an image file, the patient it is of, the knee's side and its grade 0..4."""

    file: str
    split: str
    kl: int
    subject: str
    side: Side

    @property
    def sop_instance_uid(self) -> str:
        """Derived from the file's name in the CSV."""
        return str(generate_uid(entropy_srcs=["genu dicomize", self.file]))


def read_labels(path: Path) -> list[LabelledImage]:
    """Read the CSV.

    Raises:
        DataError: the file or a column is missing, a value cannot be, or an image has two rows; names row and value,
            but never a subject.
    """
    found: dict[str, LabelledImage] = {}
    for where, row in read_rows(path, COLUMNS):
        image = _image(where, row)
        if found.setdefault(image.file, image) is not image:
            raise DataError(f"{where}: its file stands in a row before; an image is of one knee.")
    return list(found.values())


def _image(where: str, row: Mapping[str, str]) -> LabelledImage:
    if not row["file"]:
        raise DataError(f"{where}: file is empty; name the image's file.")
    # It becomes a folder of the export.
    if _SPLIT.fullmatch(row["split"]) is None:
        raise DataError(f"{where}: split is {row['split']!r}; it must be a name of letters, digits, - and _.")
    if not row["subject"]:
        raise DataError(f"{where}: subject is empty; splits are by patient, so each row needs one.")
    side, grade = side_of(where, row["side"]), grade_of(where, row["kl"])
    return LabelledImage(row["file"], row["split"], grade, row["subject"], side)


def dicomize(
    images: Path,
    labels: Path,
    out: Path,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the export and return the number of images in it.

    Args:
        images: folder with the files named in the CSV, or with .tar archives that hold them.
        labels: the CSV.
        out: the export's folder; made when it is not there.
        limit: only the first so many rows of each split.
        progress: called with (done, all).

    Raises:
        DataError: a file named in the CSV is in no archive and not in the folder, or is no image.
    """
    rows = _limited(read_labels(labels), limit)
    by_file = {row.file: row for row in rows}
    found: dict[str, LabelledImage] = {}
    for name, pixels in read_images(images, by_file):
        row = by_file[name]
        folder = out / "images" / row.split
        folder.mkdir(parents=True, exist_ok=True)
        to_dx(pixels, row).save_as(folder / f"{row.sop_instance_uid}.dcm", enforce_file_format=True)
        found[name] = row
        if progress is not None:
            progress(len(found), len(rows))
    lost = [row.file for row in rows if row.file not in found]
    if lost:
        raise DataError(f"{len(lost)} file(s) of {labels} are not in {images}, the first is {lost[0]!r}.")
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(LABEL_COLUMNS)
        writer.writerows((row.sop_instance_uid, row.subject, row.side.value, row.kl, row.split) for row in rows)
    return len(rows)


def to_dx(pixels: npt.NDArray[np.uint8], row: LabelledImage) -> Dataset:
    """A Digital X-Ray Image For Presentation (PS3.3 A.26) of an 8-bit grey image of one knee."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = _DX
    ds.file_meta.MediaStorageSOPInstanceUID = UID(row.sop_instance_uid)
    ds.SOPClassUID = _DX
    ds.SOPInstanceUID = UID(row.sop_instance_uid)
    ds.PatientID = row.subject
    ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ""
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["genu dicomize study", row.subject])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["genu dicomize series", row.file])
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ds.StudyID = ""
    ds.Modality, ds.PresentationIntentType = "DX", "FOR PRESENTATION"
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.StudyDescription = "KNEE"
    ds.Manufacturer = ""
    ds.BodyPartExamined, ds.ViewPosition = "KNEE", "PA"
    ds.ImageLaterality, ds.PatientOrientation = row.side.value, ["L", "F"]
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.DerivationDescription = "8-bit crop of one knee, as published; wrapped as DX for training"
    _add_codes(ds, row.side)
    _add_pixels(ds, pixels)
    return ds


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _add_codes(ds: Dataset, side: Side) -> None:
    region = _code("49076000", "Knee joint")
    modifier = ("7771000", "Left") if side is Side.LEFT else ("24028007", "Right")
    region.AnatomicRegionModifierSequence = [_code(*modifier)]
    ds.AnatomicRegionSequence = [region]
    ds.ViewCodeSequence = [_code("272479007", "Postero-anterior")]
    ds.AcquisitionContextSequence = []


def _add_pixels(ds: Dataset, pixels: npt.NDArray[np.uint8]) -> None:
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PresentationLUTShape, ds.BurnedInAnnotation = "IDENTITY", "NO"
    # LINEAR over 0..255 maps each value v to v / 255 (PS3.3 C.11.2.1.2.1).
    ds.WindowCenter, ds.WindowWidth = 128, 256
    ds.LossyImageCompression = "01"
    ds.LossyImageCompressionRatio, ds.LossyImageCompressionMethod = 10, "ISO_10918_1"
    ds.DetectorType, ds.PositionerType, ds.ImagerPixelSpacing = "", "", [1, 1]
    ds.PixelData = np.ascontiguousarray(pixels).tobytes()
    if len(ds.PixelData) % 2:
        ds.PixelData += b"\0"


def _limited(rows: list[LabelledImage], limit: int | None) -> list[LabelledImage]:
    if limit is None:
        return rows
    taken: dict[str, int] = {}
    chosen = []
    for row in rows:
        taken[row.split] = taken.get(row.split, 0) + 1
        if taken[row.split] <= limit:
            chosen.append(row)
    return chosen


def read_images(images: Path, wanted: Mapping[str, LabelledImage]) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Name and 8-bit grey values of the wanted files, from a .tar archive, those in a folder, or the folder.

    Raises:
        DataError: one is no image, or an archive cannot be read.
    """
    archives = [images] if images.is_file() else sorted(images.glob("*.tar"))
    for archive in archives:
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    stream = tar.extractfile(member) if member.isfile() and name in wanted else None
                    if stream is not None:
                        yield name, _decode(stream.read(), name)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise DataError(f"{archive} is no .tar archive that can be read ({error}): fetch it again.") from error
    for name in () if archives else wanted:
        path = images / name
        if path.is_file():
            yield name, _decode(path.read_bytes(), name)


def _decode(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("L"))
    except (OSError, ValueError) as error:
        raise DataError(f"{name} is not an image that can be read ({error}).") from error
