"""Every column of the index is what pydicom reads, by the quick scanner and by the full reader; damage never raises."""

import io
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from inference.errors import UnreadableError
from inference.limits import DEFAULT_LIMITS
from inference.reading import read_instance
from inference.sources import BytesSource
from tests import malformed, phantoms
from tests.bench.bench_index import rich
from training.index_columns import COLUMNS, NO_VALUES, SCHEMA, Kind
from training.index_rows import read_row
from training.index_scan import scan
from training.index_tree import AGAIN, Entry
from training.index_worker import row_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"
NAMES = ("TransferSyntaxUID", *(column.name for column in COLUMNS))
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def by_pydicom(data: bytes) -> dict[str, Any]:
    """The columns as anybody would take them from pydicom's data set."""
    ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    found: dict[str, Any] = {"TransferSyntaxUID": str(ds.file_meta.TransferSyntaxUID)}
    for column in COLUMNS:
        level: Dataset | None = ds
        for keyword in column.keywords[:-1]:
            level = next(iter(level.get(keyword) or []), None) if level is not None else None
        value = level.get(column.keywords[-1]) if level is not None else None
        if column.kind is Kind.CODES:
            names = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
            texts = [[str(item.get(name, "")) for name in names] for item in value or ()]
            value = [dict(zip(("value", "scheme", "meaning"), text, strict=True)) for text in texts] or None
        elif value is None or value == "" or (isinstance(value, MultiValue) and len(value) == 0):
            value = None
        elif column.kind is Kind.TEXT:
            value = "\\".join(value) if isinstance(value, MultiValue) else str(value)
        elif column.kind is Kind.NUMBERS:
            value = [float(one) for one in (value if isinstance(value, MultiValue) else [value])]
        else:
            first = value[0] if isinstance(value, MultiValue) else value
            value = int(first) if column.kind is Kind.WHOLE else float(first)
        found[column.name] = value
    return found


def quick(data: bytes) -> dict[str, Any] | None:
    values = scan(BytesSource(data), DEFAULT_LIMITS)
    return None if values is None else dict(zip(NAMES, values, strict=True))


def full(data: bytes, folder: Path) -> tuple[str | None, dict[str, Any]]:
    path = folder / "one.dcm"
    path.write_bytes(data)
    reason, values = read_row(path, DEFAULT_LIMITS)
    return reason, dict(zip(NAMES, values, strict=True))


def stored(ds: Dataset, syntax: str) -> bytes:
    ds.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    if not little:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    pydicom.dcmwrite(buffer, ds, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return buffer.getvalue()


def enhanced() -> Dataset:
    """Shared functional groups, and a long list of frames."""
    ds = rich(phantoms.MR)
    measures, plane, anatomy, shared = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.25, 0.5], 3
    plane.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    anatomy.FrameLaterality = "R"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([plane])
    shared.FrameAnatomySequence = Sequence([anatomy])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence([shared] * 200)
    ds.NumberOfFrames = 200
    return ds


PHANTOMS = {
    "dx": phantoms.dx_knee,
    "bilateral": phantoms.dx_bilateral,
    "cr": phantoms.cr_knee,
    "lateral": phantoms.dx_lateral,
    "chest": phantoms.dx_chest,
    "hand": phantoms.dx_hand,
    "mr": lambda: phantoms.mr_knee()[0],
    "sc": phantoms.sc_knee,
    "rich_dx": rich,
    "rich_mr": lambda: rich(phantoms.MR),
    "enhanced": enhanced,
    "canaries": lambda: phantoms.plant_canaries(phantoms.dx_knee(), "canary"),
}


@pytest.mark.parametrize("name", PHANTOMS)
@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
def test_every_column_is_pydicoms(name: str, syntax: str, tmp_path: Path) -> None:
    data = stored(PHANTOMS[name](), syntax)
    expected = by_pydicom(data)
    assert full(data, tmp_path) == (None, expected)
    found = quick(data)
    if syntax == ExplicitVRBigEndian:
        assert found is None  # left to the full reader
    else:
        assert found == expected


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless, JPEGLSLossless], ids=lambda syntax: syntax.name)
def test_every_column_of_compressed_images(syntax: str, tmp_path: Path) -> None:
    ds = phantoms.compress(phantoms.dx_knee(), syntax)
    data = malformed.encoded(ds)
    assert quick(data) == by_pydicom(data) == full(data, tmp_path)[1]


@pytest.mark.parametrize(
    ("charset", "text", "by_scanner"),
    [
        (None, "Knie links", True),
        ("ISO_IR 100", "Kniegelenk äöüß", True),
        ("ISO_IR 144", "Коленный сустав", True),
        ("ISO_IR 126", "γόνατο", True),
        ("ISO_IR 13", "ﾋｻﾞ ~\u00a5"[:3], True),
        ("ISO_IR 192", "膝關節 knæ", True),
        ("GB18030", "膝关节", True),
        ("GBK", "膝关节", True),
        (["", "ISO 2022 IR 87"], "膝 X線", False),
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], "무릎", False),
    ],
)
def test_text_in_every_character_set(charset: Any, text: str, by_scanner: bool, tmp_path: Path) -> None:
    ds = malformed.small(StudyDescription=text, SeriesDescription="plain")
    ds.SpecificCharacterSet = charset or "ISO_IR 6"
    ds.AnatomicRegionSequence[0].CodeMeaning = text
    if charset is None:
        del ds.SpecificCharacterSet
    data = malformed.encoded(ds)
    expected = by_pydicom(data)
    assert expected["StudyDescription"] == text
    assert full(data, tmp_path) == (None, expected)
    assert quick(data) == (expected if by_scanner else None)


def real_files() -> Iterator[Any]:
    """The single files, and of each archive some."""
    found = False
    for path in sorted(DATA.glob("*.dcm")) + sorted(DATA.glob("*.tar.xz")):
        found = True
        yield pytest.param(path, id=path.name)
    if not found:
        yield pytest.param(None, id="none", marks=pytest.mark.skip(reason="needs ../shared/data/dicom"))


def contents(path: Path) -> Iterator[bytes]:
    if path.suffix == ".dcm":
        yield path.read_bytes()
        return
    with tarfile.open(path, "r|xz") as archive:
        for number, member in enumerate(archive):
            if member.isfile() and (number < 20 or number % 20 == 0):
                file = archive.extractfile(member)
                assert file is not None
                yield file.read()


@pytest.mark.parametrize("path", list(real_files()))
@pytest.mark.filterwarnings("ignore")  # pydicom's, about the values of real files
def test_every_column_of_real_files(path: Path, tmp_path: Path) -> None:
    for data in contents(path):
        expected = by_pydicom(data)
        assert full(data, tmp_path) == (None, expected)
        assert quick(data) == (None if expected["TransferSyntaxUID"] == ExplicitVRBigEndian else expected)


@pytest.mark.parametrize("name", malformed.MAKERS)
def test_damaged_files_are_rows_with_the_readers_reason(name: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.dcm"
    path.write_bytes(malformed.MAKERS[name]())
    try:
        read_instance(path)
        reason = None
    except UnreadableError as error:
        reason = error.refusal.reason
    row = dict(
        zip(SCHEMA.names, row_of(Entry("x", path.stat().st_size, 7, str(path)), None, DEFAULT_LIMITS), strict=True)
    )
    assert (row["reason"], row["mtime_ns"]) == (reason, 7)
    assert (reason is not None) == (name in malformed.UNREADABLE_NAMES)
    assert (row["SOPInstanceUID"] is None) == (reason is not None)


def test_a_file_that_is_gone_is_a_row_that_is_read_again_next_time(tmp_path: Path) -> None:
    row = row_of(Entry("x", 5, 7, str(tmp_path / "gone")), None, DEFAULT_LIMITS)
    assert row[:3] == ("x", 5, AGAIN)
    assert "ENOENT" in str(row[3])
    assert row[4:] == NO_VALUES


SEEDS = (
    *(stored(make(), syntax) for make in (rich, enhanced) for syntax in NATIVE[:2]),
    malformed.encoded(malformed.small()),
    malformed.deflated(b""),
)
SPLICES = (b"\xfe\xff\x0d\xe0", b"\xfe\xff\x00\xe0", b"\xff\xff\xff\xff", b"UN", b"SQ", b"\0\0\0\0")
HEADS = tuple(data[: data.find(b"\xe0\x7f\x10\x00") + 64 if b"\xe0\x7f\x10\x00" in data else 4000] for data in SEEDS)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.sampled_from(HEADS), draw=st.data())
def test_what_the_scanner_accepts_the_full_reader_reads_alike(tmp_path: Path, seed: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(seed)
    for _ in range(draw.draw(st.integers(1, 4))):
        where = draw.draw(st.integers(130, len(damaged) - 9))
        what = draw.draw(
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from(
                    [b"\xfe\xff\x0d\xe0", b"\xfe\xff\x00\xe0", b"\xff\xff\xff\xff", b"UN", b"SQ", b"\0\0\0\0"]
                ),
            )
        )
        if draw.draw(st.booleans()):
            damaged[where : where + len(what)] = what
        else:
            damaged[where:where] = what
    data = bytes(damaged[: draw.draw(st.integers(140, len(damaged)))] if draw.draw(st.booleans()) else damaged)
    found = quick(data)
    reason, values = full(data, tmp_path)
    assert found is None or (reason, values) == (None, found)


@given(st.binary(max_size=600))
def test_noise_never_raises(noise: bytes) -> None:
    for head in (b"", b"\0" * 128 + b"DICM", HEADS[-2][:200]):
        scan(BytesSource(head + noise), DEFAULT_LIMITS)


def test_the_limits_hold_in_the_scanner() -> None:
    data = stored(rich(), ExplicitVRLittleEndian)
    assert quick(data) is not None
    for tight in ({"max_elements": 100}, {"max_values": 500}, {"max_header_bytes": 500}, {"max_depth": 0}):
        assert scan(BytesSource(data), replace(DEFAULT_LIMITS, **tight)) is None


def test_only_the_head_of_a_file_is_read(tmp_path: Path) -> None:
    data = stored(rich(side=1024), ExplicitVRLittleEndian)
    path = tmp_path / "long.dcm"
    path.write_bytes(data[: data.index(b"\xe0\x7f\x10\x00OW") + 12])
    os.truncate(path, len(data))
    row = row_of(Entry("x", len(data), 7, str(path)), None, DEFAULT_LIMITS)
    assert row[4:] == tuple(by_pydicom(data)[name] for name in NAMES)


def test_the_page_names_every_column_in_order() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "index-of-exports.md").read_text(encoding="utf-8")
    listed = page.partition("All columns in their order:")[2].partition("##")[0]
    assert re.findall(r"`(\w+)`", listed) == SCHEMA.names
