"""Hostile and odd files: only our own errors come out, in bounded time and memory; good files are read in full."""

import errno
import logging
import os
import time
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from inference.errors import RefusalError, UnreadableError
from inference.findings import RefusalCode
from inference.pixels import load_display
from inference.reading import Grouping, Limits, group_studies, read_dataset, read_instance, read_study
from inference.studies import select
from tests import malformed, phantoms


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return malformed.write_malformed(tmp_path_factory.mktemp("malformed"))


@pytest.mark.parametrize("name", sorted(malformed.UNREADABLE_NAMES))
def test_unreadable_files_are_refused_quickly_with_an_ascii_reason(broken: dict[str, Path], name: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(UnreadableError) as error:
        read_instance(broken[name])
    assert time.perf_counter() - begun < 5
    refusal = error.value.refusal
    assert refusal.code is RefusalCode.UNREADABLE
    assert refusal.reason.isascii()
    assert refusal.reason.endswith(".")
    assert "PHANTOM" not in refusal.reason


@pytest.mark.parametrize("name", sorted(set(malformed.MAKERS) - malformed.UNREADABLE_NAMES))
def test_other_malformed_files_end_in_a_refusal_or_in_an_image(broken: dict[str, Path], name: str) -> None:
    instance = read_instance(broken[name])
    select(read_study([broken[name]]))
    try:
        image = load_display(instance)
    except RefusalError as error:
        assert error.refusal.reason.isascii()
        assert name not in {"window_as_words", "body_part_as_sequence"}
    else:
        assert image.values.shape == (64, 48)


def test_a_deflate_bomb_costs_no_more_than_the_limit(broken: dict[str, Path]) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableError, match="grows beyond the limit"):
        read_instance(broken["deflate_bomb"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB; the bomb holds 400 MiB


def test_special_files_and_links(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    target = phantoms.write(malformed.small(), tmp_path / "real.dcm")
    link, dangling, loop = tmp_path / "link", tmp_path / "dangling", tmp_path / "loop"
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "nowhere")
    loop.symlink_to(loop)
    for path in (fifo, tmp_path, dangling, loop, tmp_path / "missing", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(UnreadableError):
            read_instance(path)
    assert read_instance(link).sop_instance_uid == read_instance(target).sop_instance_uid


def test_reasons_never_name_the_path(tmp_path: Path) -> None:
    path = tmp_path / "MUSTERMANN_ERIKA.dcm"
    for content in (b"", b"junk" * 100):
        path.write_bytes(content)
        with pytest.raises(UnreadableError) as error:
            read_instance(path)
        assert "MUSTERMANN" not in str(error.value)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_encoding_gives_the_same_header(tmp_path: Path, syntax: str) -> None:
    ds = malformed.small()
    plain = read_instance(phantoms.write(ds, tmp_path / "plain.dcm"))
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = b"".join(ds.PixelData[i : i + 2][::-1] for i in range(0, len(ds.PixelData), 2))
    ds.file_meta.TransferSyntaxUID = syntax
    other = read_instance(phantoms.write(ds, tmp_path / "other.dcm"))
    assert other.transfer_syntax_uid == syntax
    assert list(other.header) == list(plain.header)
    assert (load_display(other).values == load_display(plain).values).all()


def test_the_header_equals_pydicoms(tmp_path: Path) -> None:
    ds = phantoms.plant_canaries(phantoms.dx_bilateral(), "CANARY")
    path = phantoms.write(ds, tmp_path / "x.dcm")
    ours, theirs = read_instance(path), pydicom.dcmread(path, stop_before_pixels=True)
    assert list(ours.header) == list(theirs)
    assert list(ours.header.file_meta) == [e for e in theirs.file_meta if e.tag.element]
    assert ours.damaged == ()
    assert read_dataset(ours).PixelData == pydicom.dcmread(path).PixelData


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 192", "Müller^Jörg"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
def test_names_survive_in_other_character_sets(tmp_path: Path, charset: str | list[str], name: str) -> None:
    path = phantoms.write(phantoms.with_name(malformed.small(), charset, name), tmp_path / "x.dcm")
    header = read_instance(path).header
    assert str(header.PatientName) == name
    assert header.PatientName.original_string == pydicom.dcmread(path).PatientName.original_string


def test_files_without_preamble_or_meta_are_read(tmp_path: Path) -> None:
    data = malformed.encoded(malformed.small())
    whole = read_instance(_written(tmp_path / "whole", data))
    no_preamble = read_instance(_written(tmp_path / "no_preamble", data[132:]))
    bare = read_instance(_written(tmp_path / "bare", data[data.index(b"\x08\x00\x08\x00CS") :]))
    assert list(whole.header) == list(no_preamble.header) == list(bare.header)
    assert whole.transfer_syntax_uid == bare.transfer_syntax_uid


def test_private_elements_and_overlays_are_left_out(tmp_path: Path) -> None:
    ds = malformed.small()
    ds.private_block(0x0099, "PHANTOM", create=True).add_new(1, "LO", "private")
    ds.add_new(0x60003000, "OW", b"\0" * 64)
    header = read_instance(phantoms.write(ds, tmp_path / "x.dcm")).header
    assert all(not e.tag.is_private and e.tag.group != 0x6000 for e in header)


def test_limits_are_kept(tmp_path: Path) -> None:
    path = phantoms.write(malformed.small(), tmp_path / "x.dcm")
    for limits in (
        Limits(max_file_bytes=100),
        Limits(max_header_bytes=100),
        Limits(max_elements=10),
        Limits(max_values=10),
        Limits(max_depth=0),
    ):
        with pytest.raises(UnreadableError):
            read_instance(path, limits)
    with pytest.raises(RefusalError, match="more than 10"):
        load_display(read_instance(path), Limits(max_pixels=10))


def test_many_short_values_do_not_eat_the_memory(tmp_path: Path) -> None:
    ds = malformed.small()
    ds.add_new(0x00081190, "UT", "\\" * 100)
    data = malformed.encoded(ds)
    path = _written(tmp_path / "x.dcm", data)
    with pytest.raises(UnreadableError, match="values"):
        read_instance(path, Limits(max_values=90))


def test_damaged_values_are_named_and_left_out(broken: dict[str, Path]) -> None:
    instance = read_instance(broken["rows_three_bytes"])
    assert instance.damaged == ("Rows",)
    assert "Rows" not in instance.header


def test_one_study(tmp_path: Path) -> None:
    first = phantoms.write(phantoms.dx_knee("L", identity="a"), tmp_path / "1.dcm")
    again = phantoms.write(phantoms.dx_knee("L", identity="a"), tmp_path / "2.dcm")
    right = phantoms.dx_knee("R", identity="a")
    right.SOPInstanceUID = right.file_meta.MediaStorageSOPInstanceUID = phantoms.uid("a", "second")
    other = phantoms.write(right, tmp_path / "3.dcm")
    study = read_study([other, again, first])
    assert [i.sop_instance_uid for i in study.instances] == sorted(i.sop_instance_uid for i in study.instances)
    assert len(study.instances) == 2
    assert study.unreadable == ()


def test_two_patients_in_one_study_are_refused(tmp_path: Path) -> None:
    one = phantoms.dx_knee("L", identity="a")
    two = phantoms.dx_knee("R", identity="a", attributes={"PatientID": "PHANTOM-OTHER"})
    two.SOPInstanceUID = two.file_meta.MediaStorageSOPInstanceUID = phantoms.uid("a", "second")
    study = read_study([phantoms.write(one, tmp_path / "1.dcm"), phantoms.write(two, tmp_path / "2.dcm")])
    assert [r.code for r in study.unreadable] == [RefusalCode.IDENTITY_CONTRADICTORY]
    assert "PHANTOM" not in study.unreadable[0].reason
    selection = select(study)
    assert selection.candidates == ()
    assert selection.radiographs > 0


def test_a_copy_under_another_patient_is_refused(tmp_path: Path) -> None:
    one = phantoms.dx_knee("L", identity="a")
    two = phantoms.dx_knee("L", identity="a", attributes={"PatientID": "PHANTOM-OTHER"})
    files = [phantoms.write(one, tmp_path / "1.dcm"), phantoms.write(two, tmp_path / "2.dcm")]
    for study in (read_study(files), group_studies([tmp_path])[0]):
        assert len(study.instances) == 1
        assert [r.code for r in study.unreadable] == [RefusalCode.IDENTITY_CONTRADICTORY]


def test_a_file_of_another_study_is_refused(tmp_path: Path) -> None:
    own = phantoms.write(phantoms.dx_knee("L", identity="a"), tmp_path / "1.dcm")
    foreign = phantoms.write(phantoms.dx_knee("L", identity="b"), tmp_path / "2.dcm")
    study = read_study([own, foreign], study_instance_uid=phantoms.uid("a", "study"))
    assert len(study.instances) == 1
    assert [r.code for r in study.unreadable] == [RefusalCode.IDENTITY_CONTRADICTORY]


def test_folders_are_walked_and_grouped(tmp_path: Path, broken: dict[str, Path]) -> None:
    phantoms.write(phantoms.dx_knee("L", identity="a"), tmp_path / "deep" / "er" / "1.dcm")
    phantoms.write(phantoms.dx_knee("R", identity="b"), tmp_path / "2")
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "DICOMDIR").write_bytes((tmp_path / "2").read_bytes())
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "round").symlink_to(tmp_path)
    seen: list[int] = []
    studies = group_studies([tmp_path, tmp_path / "2"], on_progress=seen.append)
    assert [s.study_instance_uid for s in studies] == sorted(phantoms.uid(i, "study") for i in "ab")
    assert seen == list(range(1, len(seen) + 1))
    given = group_studies([broken["text"], broken["truncated_header"]])
    assert [s.study_instance_uid for s in given] == [""]
    assert len(given[0].unreadable) == 2
    assert given[0].unreadable_paths == (broken["text"], broken["truncated_header"])


def test_in_folders_a_name_that_claims_dicom_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "noise.DCM").write_bytes(b"noise" * 99)
    (tmp_path / "empty").touch()
    grouping = Grouping()
    (study,) = group_studies([tmp_path], grouping=grouping)
    assert [refusal.code for refusal in study.unreadable] == [RefusalCode.UNREADABLE] * 2
    assert grouping.skipped == 1


def test_folders_that_may_not_be_read_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    (study,) = group_studies([tmp_path])
    assert study.unreadable_paths == (tmp_path / "closed",)
    assert [refusal.code for refusal in study.unreadable] == [RefusalCode.UNREADABLE]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_in_folders_a_data_set_without_preamble_is_known(tmp_path: Path, syntax: UID) -> None:
    ds = malformed.small()
    ds.file_meta.TransferSyntaxUID = syntax
    data = malformed.encoded(ds)
    start = b"\x00\x08\x00\x08" if syntax == ExplicitVRBigEndian else b"\x08\x00\x08\x00"
    (tmp_path / "bare").write_bytes(data[data.index(start, 132) :])
    (study,) = group_studies([tmp_path])
    assert study.study_instance_uid == malformed.small().StudyInstanceUID


def test_real_files_are_read(shared_data: Path) -> None:
    studies = group_studies([shared_data / "dicom"])
    assert sum(len(s.instances) for s in studies) == 6
    assert not any(s.unreadable for s in studies)


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _seeds() -> list[bytes]:
    plain = malformed.small()
    packed = [phantoms.compress(plain, s) for s in ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90")]
    packed.append(phantoms.compress(plain, "1.2.840.10008.1.2.5"))
    return [malformed.encoded(ds) for ds in (plain, *packed)] + [malformed.deflated(b"")]


_SEEDS = _seeds()
_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "copy", "stop", "ones"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def _edited(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    found = bytearray(data)
    for kind, where, content in edits:
        at = int(where * len(found))
        if kind == "flip":
            found[at : at + len(content)] = content
        elif kind == "cut":
            del found[at : at + 5 * len(content)]
        elif kind == "copy":
            found[at:at] = found[at // 2 : at // 2 + 5 * len(content)]
        elif kind == "stop":
            del found[at:]
        else:
            found[at : at + 4] = b"\xff\xff\xff\xff"
        if not found:
            return b""
    return bytes(found)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.sampled_from(range(len(_SEEDS))), edits=_EDITS)
def test_no_mutated_file_raises_anything_else(tmp_path: Path, seed: int, edits: list[tuple[str, float, bytes]]) -> None:
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    study = read_study([_written(tmp_path / "x.dcm", _edited(_SEEDS[seed], edits))])
    selection = select(study, accept_secondary_capture=True)
    reasons = [r.reason for r in (*study.unreadable, *selection.refusals)]
    for instance in study.instances:
        try:
            values = load_display(instance).values
            assert 0 <= values.min() <= values.max() <= 1
        except RefusalError as error:
            reasons.append(error.refusal.reason)
    assert all(reason.isascii() and "PHANTOM" not in reason for reason in reasons)
