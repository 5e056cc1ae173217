"""The Patient and Study modules of a source, copied byte for byte into what we write.

Real headers are odd: empty names, dates that are none, over-long values, character sets with escape sequences. A result
must still land in the patient's study, so nothing is decoded, judged or mended on the way (PS3.3 C.7.1.1, C.7.2.1,
C.7.2.2, C.7.1.3, C.7.2.3).
"""

import struct
from typing import Final, cast

from pydicom import config
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

SPECIFIC_CHARACTER_SET: Final = "SpecificCharacterSet"
_TYPE_2: Final = (
    "PatientName PatientID PatientBirthDate PatientSex "
    "StudyDate StudyTime ReferringPhysicianName StudyID AccessionNumber"
)
_PATIENT: Final = (
    "IssuerOfPatientID TypeOfPatientID IssuerOfPatientIDQualifiersSequence ReferencedPatientSequence "
    "ReferencedPatientPhotoSequence PatientBirthTime PatientBirthDateInAlternativeCalendar "
    "PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar QualityControlSubject OtherPatientIDs "
    "OtherPatientIDsSequence OtherPatientNames EthnicGroup PatientComments PatientSpeciesDescription "
    "PatientSpeciesCodeSequence PatientBreedDescription PatientBreedCodeSequence BreedRegistrationSequence "
    "StrainDescription StrainNomenclature StrainCodeSequence ResponsiblePerson ResponsiblePersonRole "
    "ResponsibleOrganization PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence"
)
_STUDY: Final = (
    "StudyInstanceUID StudyDescription ReferringPhysicianIdentificationSequence ConsultingPhysicianName "
    "ConsultingPhysicianIdentificationSequence IssuerOfAccessionNumberSequence PhysiciansOfRecord "
    "PhysiciansOfRecordIdentificationSequence NameOfPhysiciansReadingStudy "
    "PhysiciansReadingStudyIdentificationSequence RequestingService RequestingServiceCodeSequence "
    "ReferencedStudySequence ProcedureCodeSequence ReasonForPerformedProcedureCodeSequence "
    "LongitudinalTemporalInformationModified TimezoneOffsetFromUTC"
)
_PATIENT_STUDY: Final = (
    "AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence PatientAge PatientSize PatientWeight "
    "PatientBodyMassIndex MeasuredAPDimension MeasuredLateralDimension PatientSizeCodeSequence MedicalAlerts Allergies "
    "SmokingStatus PregnancyStatus LastMenstrualDate PatientState Occupation AdditionalPatientHistory AdmissionID "
    "IssuerOfAdmissionIDSequence ServiceEpisodeID IssuerOfServiceEpisodeIDSequence ServiceEpisodeDescription "
    "PatientSexNeutered ReasonForVisit ReasonForVisitCodeSequence"
)
_CLINICAL_TRIAL: Final = (
    "ClinicalTrialSponsorName ClinicalTrialProtocolID IssuerOfClinicalTrialProtocolID ClinicalTrialProtocolName "
    "ClinicalTrialSiteID IssuerOfClinicalTrialSiteID ClinicalTrialSiteName ClinicalTrialSubjectID "
    "IssuerOfClinicalTrialSubjectID ClinicalTrialSubjectReadingID IssuerOfClinicalTrialSubjectReadingID "
    "ClinicalTrialProtocolEthicsCommitteeName ClinicalTrialProtocolEthicsCommitteeApprovalNumber "
    "ClinicalTrialTimePointID IssuerOfClinicalTrialTimePointID ClinicalTrialTimePointDescription "
    "LongitudinalTemporalOffsetFromEvent LongitudinalTemporalEventType ConsentForClinicalTrialUseSequence"
)
TYPE_2: Final = tuple(_TYPE_2.split())
COPIED: Final = (*TYPE_2, *" ".join((_PATIENT, _STUDY, _PATIENT_STUDY, _CLINICAL_TRIAL)).split())

_MAX_SHORT_LENGTH: Final = 0xFFFE  # the 16-bit length of explicit VR, PS3.5 7.1.2; longer ones would turn into UN
_MAX_DEPTH: Final = 4
_BINARY_VRS: Final = frozenset(["US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "SQ"])
_NOT_DECODABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    struct.error,
    BytesLengthException,
)


def copy_patient_and_study(source: Dataset, target: Dataset) -> None:
    """Copy the modules of the Patient and Study entities, and the Specific Character Set, from `source` to `target`.

    Top-level values are taken as the bytes they were read as; sequences are decoded and copied item by item, and one
    that cannot be decoded is left out. Type 2 elements that the source lacks are written empty. `target` must be meant
    for Explicit VR Little Endian and must hold ASCII text only, which is valid in every character set of DICOM.
    """
    for keyword in (SPECIFIC_CHARACTER_SET, *COPIED):
        element = _copied_element(source, keyword, depth=0)
        if element is not None:
            target[element.tag] = element
        elif keyword in TYPE_2:
            target.add_new(keyword, dictionary_VR(keyword), None)
    encodings = _encodings(target)
    if not all(_keeps_ascii(encoding) for encoding in encodings):
        del target[SPECIFIC_CHARACTER_SET]  # none of DICOM's, such as "utf-16": our own text could not be written
        encodings = [default_encoding]
    # Raw bytes are written as they are only where pydicom knows that encoding and character set did not change.
    character_set = encodings if SPECIFIC_CHARACTER_SET in target else default_encoding
    target.set_original_encoding(False, True, character_set)


def _encodings(dataset: Dataset) -> list[str]:
    """Python's names of the character sets of a data set, as pydicom will look them up again on writing."""
    value = dataset.get(SPECIFIC_CHARACTER_SET)
    if not value:
        return [default_encoding]
    return convert_encodings(list(value) if isinstance(value, MultiValue) else str(value))


def _keeps_ascii(encoding: str) -> bool:
    try:
        return "Az09 -".encode(encoding) == b"Az09 -"
    except (LookupError, UnicodeError):
        return False


def raw_text(source: Dataset, keyword: str) -> bytes:
    """The bytes of a text element as read, without padding; empty where it is missing or is no text."""
    element = _copied_element(source, keyword, depth=0)
    if element is None or element.value is None:
        return b""
    if isinstance(element, RawDataElement):
        return (element.value or b"").strip(b" \0")
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    return "\\".join(str(value) for value in values).encode("utf-8").strip(b" \0")


def _copied_element(source: Dataset, keyword: str, depth: int) -> DataElement | RawDataElement | None:
    """One element fit to be written as Explicit VR Little Endian, None when missing or not fit."""
    tag = Tag(cast(int, tag_for_keyword(keyword)))
    if tag not in source:
        return None
    vr = dictionary_VR(tag)
    element = cast(DataElement | RawDataElement, source.get_item(tag))
    if vr == "SQ":
        return _copied_sequence(source, tag, depth)
    if isinstance(element, RawDataElement) and element.VR not in _BINARY_VRS:
        return _raw_element(tag, vr, element.value or b"")
    try:
        value = source[tag].value
    except _NOT_DECODABLE:
        return None
    if element.VR == "SQ":
        return None
    if isinstance(value, bytes):
        return _raw_element(tag, vr, value)
    if vr != element.VR:
        return _raw_element(tag, vr, str(value).encode("ascii", "replace"))
    # A decoded value keeps what was decoded; validating it again would only warn about values that are not ours.
    return DataElement(tag, vr, value, validation_mode=config.IGNORE)


def _raw_element(tag: BaseTag, vr: str, value: bytes) -> RawDataElement | None:
    """The bytes under the VR of the dictionary, padded to even length; None when too long for its length field."""
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    if len(value) > _MAX_SHORT_LENGTH and vr not in {"UT", "UC", "UR"}:
        return None
    return RawDataElement(tag, vr, len(value), value, 0, False, True)


def _copied_sequence(source: Dataset, tag: BaseTag, depth: int) -> DataElement | None:
    """A decoded deep copy of a sequence; None when it is nested too deeply or cannot be decoded."""
    if depth >= _MAX_DEPTH:
        return None
    try:
        value = source[tag].value
        if not isinstance(value, Sequence):
            return None
        return DataElement(tag, "SQ", Sequence([_copied_item(item, depth + 1) for item in value]))
    except _NOT_DECODABLE:
        return None


def _copied_item(source: Dataset, depth: int) -> Dataset:
    """A copy of a sequence item with standard elements only; raises what decoding a damaged value raises."""
    item = Dataset()
    for element in source:
        tag = element.tag
        if tag.is_private or tag.element == 0:
            continue
        if element.VR == "SQ":
            copied = _copied_sequence(source, tag, depth)
            if copied is not None:
                item[tag] = copied
        else:
            item[tag] = DataElement(tag, element.VR, element.value, validation_mode=config.IGNORE)
    return item
