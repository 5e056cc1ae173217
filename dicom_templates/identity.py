"""Who and what an object of ours is: derived UIDs, fixed series, equipment, and the frame that all of them share."""

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_templates import codes
from dicom_templates.context import ReportContext
from dicom_templates.patient import copy_patient_and_study, raw_text
from inference.findings import ModelIdentity, Side

MANUFACTURER: Final = "Genu"
MODEL_NAME: Final = "Genu"
TEMPLATE_VERSION: Final = "3"  # part of every derived UID: raise it whenever the same findings give other bytes
IMPLEMENTATION_CLASS_UID: Final = UID("2.25.53610437644813027000889899365678356357")
RESEARCH: Final = "RESEARCH"  # Content Qualification (0018,9004)
RESEARCH_MARK: Final = codes.RESEARCH_USE.meaning
SYNTHETIC_MARK: Final = codes.MODEL_SYNTHETIC.meaning
SIDE_WORDS: Final = {Side.RIGHT: "RIGHT", Side.LEFT: "LEFT"}

_NAMESPACE: Final = uuid.UUID("1bc364d4-ff99-53f8-9548-f925cf202f61")


@dataclass(frozen=True)
class SeriesKind:
    """One of the fixed series that we write: its Series Number and Series Description never change."""

    key: str
    number: int
    description: str
    modality: str


REPORT_SERIES: Final = SeriesKind("report", 9901, "Genu AI knee report (RESEARCH)", "SR")
HEATMAP_SERIES: Final = {
    Side.RIGHT: SeriesKind("heatmap-right", 9902, "Genu AI heatmap RIGHT knee (RESEARCH)", "OT"),
    Side.LEFT: SeriesKind("heatmap-left", 9903, "Genu AI heatmap LEFT knee (RESEARCH)", "OT"),
}
CARD_SERIES: Final = SeriesKind("card", 9904, "Genu AI refusal card (RESEARCH)", "OT")
FRAMES_SERIES: Final = {  # of these two kinds `mr_words.series_of` completes the description
    Side.RIGHT: SeriesKind("mr-heatmap-right", 9905, "Genu AI MR heatmap RIGHT", "OT"),
    Side.LEFT: SeriesKind("mr-heatmap-left", 9906, "Genu AI MR heatmap LEFT", "OT"),
}
MAP_SERIES: Final = {
    Side.RIGHT: SeriesKind("mr-map-right", 9907, "Genu AI MR map RIGHT", "MR"),
    Side.LEFT: SeriesKind("mr-map-left", 9908, "Genu AI MR map LEFT", "MR"),
}


def derived_uid(*parts: str) -> UID:
    """A UID under 2.25 (PS3.5 B.2) that depends on the parts and the template: the integer of a UUID version 5."""
    return _hashed_uid(*parts, f"template {TEMPLATE_VERSION}")


def lasting_uid(*parts: str) -> UID:
    """Like `derived_uid`, for what outlives our templates: an installation, a patient's knee."""
    return _hashed_uid(*parts, "template 1")  # as first published


def _hashed_uid(*parts: str) -> UID:
    name = "\x1f".join(part.replace("\x1f", " ") for part in parts)
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")


def series_uid(kind: SeriesKind, study_uid: str, models: Iterable[ModelIdentity], context: ReportContext) -> UID:
    """The series of one kind in one study: the same for every result of the same models, software and settings."""
    return derived_uid(
        "series",
        kind.key,
        study_uid,
        context.software_version,
        context.device_uid,
        context.device_serial,
        context.configuration_digest,
        *sorted(model.key for model in models),
    )


def tracking_uid(header: Dataset, side: Side, study_uid: str, *what: str) -> UID:
    """The Tracking Unique Identifier of a knee: stable for one patient and side over studies, models and software.

    The patient is known by Patient ID with its issuer; without a Patient ID the study stands in. `what` tells several
    results of one knee apart.
    """
    patient_id = raw_text(header, "PatientID")
    if not patient_id:
        return lasting_uid("tracking", "study", study_uid, side.value, *what)
    issuer = raw_text(header, "IssuerOfPatientID")
    return lasting_uid("tracking", "patient", issuer.hex(), patient_id.hex(), side.value, *what)


def content_digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def ascii_text(text: str, limit: int) -> str:
    """`text` in the characters that mean the same in every character set of DICOM, cut to `limit` characters.

    Backslash separates values and, like the tilde, is another sign in ISO_IR 13; controls have no place in a sentence.
    """
    plain = "".join(char if " " <= char < "~" and char != "\\" else "?" for char in " ".join(text.split()))
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."


def code_item(code: Code) -> Dataset:
    """One item of a code sequence (PS3.3 Table 8.8-1)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def framed(
    header: Dataset,
    *,
    study_uid: str,
    sop_class_uid: UID,
    sop_instance_uid: UID,
    series: SeriesKind,
    series_instance_uid: UID,
    instance_number: int,
    context: ReportContext,
    models: Sequence[ModelIdentity],
) -> Dataset:
    """A data set with everything that our objects share: file meta, Patient, Study, Series, Equipment, SOP Common."""
    dataset = Dataset()
    dataset.file_meta = _file_meta(sop_class_uid, sop_instance_uid, context)
    dataset.preamble = b"\0" * 128
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = sop_instance_uid
    dataset.Modality = series.modality
    dataset.SeriesInstanceUID = series_instance_uid
    dataset.SeriesNumber = series.number
    dataset.SeriesDescription = series.description
    dataset.InstanceNumber = instance_number
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.DeviceSerialNumber = ascii_text(context.device_serial, 64)
    dataset.SoftwareVersions = ascii_text(context.software_version, 64)
    dataset.DeviceUID = context.device_uid
    dataset.ContentQualification = RESEARCH
    if models:
        dataset.ContributingEquipmentSequence = DicomSequence([_contribution(model) for model in models])
    copy_patient_and_study(header, dataset)
    if "StudyInstanceUID" not in dataset:
        dataset.StudyInstanceUID = study_uid
    return dataset


def coding_scheme_identification() -> Dataset:
    """The item that declares 99GENU in the Coding Scheme Identification Sequence (PS3.3 C.12.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = codes.SCHEME
    item.CodingSchemeUID = codes.SCHEME_UID
    item.CodingSchemeName = codes.SCHEME_NAME
    item.CodingSchemeVersion = codes.SCHEME_VERSION
    item.CodingSchemeResponsibleOrganization = codes.SCHEME_ORGANIZATION
    return item


def _file_meta(sop_class_uid: UID, sop_instance_uid: UID, context: ReportContext) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = ascii_text(f"GENU {context.software_version}", 64)[:16].strip()
    return meta


def _contribution(model: ModelIdentity) -> Dataset:
    """The item of the Contributing Equipment Sequence for one algorithm, as IHE AI Results asks."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = DicomSequence([code_item(codes.PROCESSING_EQUIPMENT)])
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = ascii_text(model.name, 64)
    item.SoftwareVersions = ascii_text(model.version, 64)
    item.DeviceUID = model.device_uid
    mark = f"{SYNTHETIC_MARK}. " if model.synthetic else ""
    item.ContributionDescription = ascii_text(f"{mark}AI model, task {model.task}, bundle SHA-256 {model.digest}", 1024)
    return item
