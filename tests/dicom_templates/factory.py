"""Small headers and findings for the tests of dicom_templates: made here, nothing real."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from dicom_templates.context import ReportContext
from inference.findings import (
    Box,
    Evidence,
    KLFinding,
    KneeFinding,
    ModelIdentity,
    PainFinding,
    Refusal,
    Saliency,
    Side,
    SourceImage,
    Spacing,
    StudyFindings,
)

STUDY = "1.2.826.0.1.3680043.8.498.1"
SERIES = "1.2.826.0.1.3680043.8.498.2"
CREATED = datetime(2026, 11, 22, 10, 30, 15, tzinfo=timezone(timedelta(hours=1)))
MODEL = ModelIdentity(
    name="genu-kl",
    version="1.0.0",
    task="kl",
    device_uid="2.25.311",
    digest="0f" * 32,
    parameters="temperature=1.13",
)
STAND_IN = ModelIdentity(
    name="genu-kl", version="0.0.0", task="kl", device_uid="2.25.312", digest="1e" * 32, synthetic=True
)

PAIN_MODEL = ModelIdentity(
    name="genu-pain",
    version="0.2.0",
    task="pain",
    device_uid="2.25.313",
    digest="2d" * 32,
    parameters="backbone=convnext_small; head=ridge on pooled; interval coverage=0.9",
)
PAIN = PainFinding(score=4.256, low=0.0, high=8.75, coverage=0.9, model=PAIN_MODEL)


def uid(number: int) -> str:
    """A SOP Instance UID of the test study."""
    return f"1.2.826.0.1.3680043.8.498.3.{number}"


def context(**changes: object) -> ReportContext:
    """A report context; keywords replace its fields."""
    values: dict[str, object] = {
        "created": CREATED,
        "software_version": "0.1.0",
        "device_uid": "2.25.310",
        "device_serial": "GENU-TEST",
        **changes,
    }
    return ReportContext(**values)  # type: ignore[arg-type]


def header(number: int = 1, size: tuple[int, int] = (224, 224), **changes: object) -> Dataset:
    """The header of a DX image as it comes from a file: raw elements, no pixels. A change to None deletes."""
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uid(number)
    dataset.StudyInstanceUID = STUDY
    dataset.SeriesInstanceUID = SERIES
    dataset.PatientName = "Phantom^Test"
    dataset.PatientID = "PHANTOM-1"
    dataset.PatientBirthDate = "19600102"
    dataset.PatientSex = "F"
    dataset.StudyDate = "20260102"
    dataset.StudyTime = "101112"
    dataset.StudyID = "7"
    dataset.AccessionNumber = "A1"
    dataset.ReferringPhysicianName = "Doctor^Some"
    dataset.StudyDescription = "PHANTOM knee"
    dataset.Modality = "DX"
    dataset.InstanceNumber = number
    dataset.Rows, dataset.Columns = size
    dataset.PatientOrientation = ["L", "F"]
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return reread(dataset)


def reread(dataset: Dataset) -> Dataset:
    """The data set after a way through a file, so that its elements are raw as in the service."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def with_raw(dataset: Dataset, values: Mapping[str, bytes]) -> Dataset:
    """The data set with the bytes of some text elements replaced, whatever they are."""
    from pydicom.datadict import dictionary_VR
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    for keyword, value in values.items():
        tag = Tag(keyword)
        padded = value + b" " * (len(value) % 2)
        dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(padded), padded, 0, False, True)
    return dataset


def raw_file(dataset: Dataset) -> bytes:
    """The file of a data set with raw elements, written without decoding them under its character set."""
    from pydicom.charset import convert_encodings

    value = dataset.get("SpecificCharacterSet")
    if value:
        dataset.set_original_encoding(False, True, convert_encodings(value if isinstance(value, str) else list(value)))
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def image(number: int = 1, size: tuple[int, int] = (224, 224)) -> SourceImage:
    """The source image that belongs to `header(number, size)`."""
    return SourceImage(DigitalXRayImageStorageForPresentation, uid(number), SERIES, size[0], size[1])


def knee(
    side: Side = Side.LEFT,
    grade: int = 2,
    number: int = 1,
    size: tuple[int, int] = (224, 224),
    box: Box | None = None,
    model: ModelIdentity = MODEL,
    saliency: npt.NDArray[np.float32] | None = None,
    conformal_set: tuple[int, ...] | None = None,
    spacing: Spacing | None = Spacing("detector", 0.143, 0.143, "ImagerPixelSpacing"),  # noqa: B008 - frozen
) -> KneeFinding:
    """One scored knee; the saliency peaks left of and above the middle of its box."""
    place = box or Box(0.0, 0.0, float(size[1]), float(size[0]))
    chances = [0.05] * 5
    chances[grade] = 0.8
    heat = bump(0.3, 0.45) if saliency is None else saliency
    return KneeFinding(
        side=side,
        source=image(number, size),
        box=place,
        kl=KLFinding(
            grade,
            (chances[0], chances[1], chances[2], chances[3], chances[4]),
            0.75 * grade + 0.5,
            conformal_set,
            None if conformal_set is None else 0.9,
        ),
        model=model,
        saliency=Saliency(heat, place),
        evidence=(
            Evidence("anatomy", "BodyPartExamined", "KNEE", "knee"),
            Evidence("view", "ViewPosition", "AP", "frontal"),
            Evidence("side", "ImageLaterality", side.value, side.value),
        ),
        spacing=spacing,
    )


def bump(across: float, down: float, size: int = 14) -> npt.NDArray[np.float32]:
    """A saliency map with one hot spot at the given shares of width and height."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) / (size - 1)
    spot: npt.NDArray[np.float32] = np.exp(-((columns - across) ** 2 + (rows - down) ** 2) / 0.02).astype(np.float32)
    return spot


def rendering(size: tuple[int, int] = (224, 224)) -> npt.NDArray[np.uint8]:
    """A grey picture with two bright bones and a dark joint line."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    down, across = rows / size[0], columns / size[1]
    bone = np.clip(1.5 - 4.0 * np.abs(across - 0.5), 0.0, 1.0) * (np.abs(down - 0.5) > 0.03)
    grey: npt.NDArray[np.uint8] = (40 + 180 * bone * (0.8 + 0.2 * np.sin(40 * down))).astype(np.uint8)
    return grey


def study(
    knees: Iterable[KneeFinding] = (), refusals: Iterable[Refusal] = (), images: Iterable[SourceImage] = ()
) -> StudyFindings:
    """Findings with what follows from the knees filled in."""
    scored = tuple(knees)
    sources = {source.sop_instance_uid: source for source in (*(k.source for k in scored), *images)}
    return StudyFindings(
        study_instance_uid=STUDY,
        knees=scored,
        refusals=tuple(refusals),
        radiographs=max(1, len(sources)),
        models=tuple(dict.fromkeys(model for k in scored for model in k.models)),
        looked_at=tuple(sources.values()),
        renderings={s.sop_instance_uid: rendering((s.rows, s.columns)) for s in (k.source for k in scored)},
    )
