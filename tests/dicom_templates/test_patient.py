"""Patient and Study are copied byte for byte, whatever stands there, and nothing that stands there stops a result."""

import struct
from io import BytesIO

import pydicom
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from dicom_templates.compose import Composed, compose
from dicom_templates.patient import COPIED, TYPE_2, raw_text
from tests.dicom_templates.factory import context, header, knee, study, with_raw

CHARACTER_SETS = {
    "none": (None, "Doe^Jane".encode("ascii")),
    "empty": (b"", b"Doe^Jane"),
    "latin-1": (b"ISO_IR 100", "Böcken^Jürgen".encode("latin-1")),
    "utf-8": (b"ISO_IR 192", "Wang^XiaoDong=王^小东=".encode()),
    "gb18030": (b"GB18030", "Wang^XiaoDong=王^小东=".encode("gb18030")),
    "gbk": (b"GBK", "Wang^XiaoDong=王^小东=".encode("gbk")),
    "japanese-87": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    "japanese-13-87": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
    ),
    "korean-149": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    "bytes outside of the set": (b"ISO_IR 192", b"B\xf6cken^\xff\xfe"),
}

ODD_VALUES = {
    "StudyDate": b"20.13.99",
    "StudyTime": b"half past",
    "PatientBirthDate": b"00000000",
    "PatientSex": b"FEMALE?",
    "PatientID": b"X" * 90,
    "StudyID": b"a study id that is far too long for SH",
    "AccessionNumber": b"A" * 40,
    "PatientAge": b"forty",
    "PatientSize": b"1,7",
    "PatientWeight": b"heavy",
    "StudyDescription": b"IRM DU GENOU " + b"x" * 100,
    "OtherPatientIDs": b"one\\two\\three",
    "TimezoneOffsetFromUTC": b"CET",
}


def written(dataset: Dataset) -> Dataset:
    """The object after a way through a file."""
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def one_knee(source: Dataset) -> Composed:
    """The objects of a study of one scored knee."""
    return compose(study([knee()]), [source], context())


def test_the_list_of_copied_attributes_names_real_ones_once() -> None:
    assert len(set(COPIED)) == len(COPIED)
    assert [keyword for keyword in COPIED if tag_for_keyword(keyword) is None] == []


@pytest.mark.parametrize("name", CHARACTER_SETS)
def test_names_keep_their_bytes_in_every_character_set(name: str) -> None:
    character_set, patient = CHARACTER_SETS[name]
    values = {"PatientName": patient, "ReferringPhysicianName": patient, "StudyDescription": patient}
    if character_set is not None:
        values["SpecificCharacterSet"] = character_set
    source = with_raw(header(), values)
    for dataset in one_knee(source).all:
        back = written(dataset)
        for keyword, value in values.items():
            assert raw_text(back, keyword) == value.strip(), keyword
        assert ("SpecificCharacterSet" in back) == (character_set is not None)
        assert back.SeriesDescription.isascii()


def test_names_can_be_read_again() -> None:
    character_set, patient = CHARACTER_SETS["japanese-87"]
    source = with_raw(header(), {"SpecificCharacterSet": character_set or b"", "PatientName": patient})
    report = written(one_knee(source).all[-1])
    assert report.PatientName.ideographic == "山田^太郎"


def test_odd_values_are_copied_as_they_are() -> None:
    source = with_raw(header(), ODD_VALUES)
    for dataset in one_knee(source).all:
        back = written(dataset)
        for keyword, value in ODD_VALUES.items():
            assert raw_text(back, keyword) == value, keyword


def test_missing_type_2_elements_are_written_empty() -> None:
    source = header(**dict.fromkeys(TYPE_2))  # type: ignore[arg-type]
    for dataset in one_knee(source).all:
        back = written(dataset)
        assert [keyword for keyword in TYPE_2 if keyword not in back] == []
        assert [keyword for keyword in TYPE_2 if raw_text(back, keyword)] == []


def test_a_decoded_header_gives_the_same_as_a_raw_one() -> None:
    raw, decoded = header(), header()
    decoded.decode()
    assert str(decoded) and isinstance(raw.get_item("PatientName"), RawDataElement)
    first, second = one_knee(raw).all[-1], one_knee(decoded).all[-1]
    buffers = [BytesIO(), BytesIO()]
    for dataset, buffer in zip((first, second), buffers, strict=True):
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    assert buffers[0].getvalue() == buffers[1].getvalue()


def test_sequences_and_clinical_trial_are_copied() -> None:
    source = header(ClinicalTrialProtocolID="TRIAL-1", ClinicalTrialSubjectID="S1")
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "XRKNEE", "L", "Knee film"
    source.ProcedureCodeSequence = Sequence([item])
    report = written(one_knee(source).all[-1])
    assert report.ProcedureCodeSequence[0].CodeMeaning == "Knee film"
    assert report.ClinicalTrialProtocolID == "TRIAL-1"


def test_what_is_not_of_patient_or_study_is_not_copied() -> None:
    source = header(InstitutionName="Some Hospital", OperatorsName="Op^Era", StationName="STATION")
    for dataset in one_knee(source).all:
        assert [k for k in ("InstitutionName", "OperatorsName", "StationName") if k in dataset] == []


def test_damaged_or_misdeclared_elements_do_not_stop_a_result() -> None:
    source = header()
    procedure, patient = Tag("ProcedureCodeSequence"), Tag("PatientName")
    broken = b"\xfe\xff\x00\xe0" + struct.pack("<L", 16) + b"\x08\x00\x00\x01ZZ\xff\xffcut off!"
    source[procedure] = RawDataElement(procedure, "SQ", len(broken), broken, 0, False, True)
    source[patient] = pydicom.DataElement(patient, "SQ", Sequence([Dataset()]))
    source[Tag("PatientID")] = pydicom.DataElement(Tag("PatientID"), "US", 17)
    source[Tag("AccessionNumber")] = RawDataElement(Tag("AccessionNumber"), "US", 2, b"\x05\x00", 0, False, True)
    source[Tag("StudyID")] = pydicom.DataElement(Tag("StudyID"), "UN", b"7 ")
    source[Tag("PatientComments")] = RawDataElement(Tag("PatientComments"), "LT", 70000, b"x" * 70000, 0, False, True)
    report = written(one_knee(source).all[-1])
    assert raw_text(report, "PatientID") == b"17"
    assert raw_text(report, "AccessionNumber") == b"5"
    assert raw_text(report, "StudyID") == b"7"
    assert report.PatientName == ""
    assert "ProcedureCodeSequence" not in report
    assert "PatientComments" not in report


def test_deeply_nested_sequences_are_left_out() -> None:
    source = header()
    inner = Dataset()
    for _ in range(12):
        outer = Dataset()
        outer.ProcedureCodeSequence = Sequence([inner])
        inner = outer
    source.ProcedureCodeSequence = inner.ProcedureCodeSequence
    report = written(one_knee(source).all[-1])
    depth, item = 0, report
    while "ProcedureCodeSequence" in item:
        depth, item = depth + 1, item.ProcedureCodeSequence[0]
    assert depth == 4


def test_a_character_set_that_is_none_of_dicoms_does_not_stop_a_result() -> None:
    source = with_raw(header(), {"SpecificCharacterSet": b"ISO_IR 999"})
    with pytest.warns(UserWarning, match="ISO_IR 999"):
        back = written(one_knee(source).all[-1])
        assert back.SeriesDescription == "Genu AI knee report (RESEARCH)"
    other = with_raw(header(), {"SpecificCharacterSet": b"utf-16"})
    back = written(one_knee(other).all[-1])
    assert back.SeriesDescription == "Genu AI knee report (RESEARCH)"
    assert "SpecificCharacterSet" not in back
