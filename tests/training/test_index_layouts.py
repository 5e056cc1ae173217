"""A file compared with the layout of another one gives the row that a walk gives, and the row that pydicom gives."""

import io
import random
from collections.abc import Callable
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from inference.limits import DEFAULT_LIMITS
from inference.sources import BytesSource
from tests import malformed, phantoms
from tests.bench.bench_index import rich, varied
from tests.training.test_index_values import NAMES, by_pydicom, enhanced, stored
from training import index_layouts
from training.index_columns import Values
from training.index_layouts import Layouts
from training.index_scan import scan

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
PIXELS = b"\xe0\x7f\x10\x00"
by_name = pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)


class Counting(Layouts):
    """Counts the files that were walked to their end."""

    walked = 0

    def learn(self, *arguments: Any) -> None:
        self.walked += 1
        super().learn(*arguments)


def read(data: bytes, layouts: Layouts | None = None) -> Values | None:
    return scan(BytesSource(data), DEFAULT_LIMITS, Layouts() if layouts is None else layouts)


def longer(ds: Dataset, chance: random.Random) -> None:
    element = chance.choice([e for e in ds if e.VR in ("LO", "SH") and e.tag.group % 2 == 0 and e.VM == 1])
    element.value = str(element.value)[:40] + "x" * chance.randint(1, 9)


def other_number(ds: Dataset, chance: random.Random) -> None:
    ds.PixelSpacing = [round(chance.random(), chance.randint(1, 6)), 0.5]
    ds.SeriesNumber = chance.choice([None, 1, 100_000])


def missing(ds: Dataset, chance: random.Random) -> None:
    kept = {"SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "PixelData"}
    tags = [e.tag for e in ds if e.keyword not in kept]
    first = chance.randrange(len(tags))
    for tag in tags[first : first + chance.randint(1, 3)]:
        del ds[tag]


def more(ds: Dataset, chance: random.Random) -> None:
    for keyword in chance.sample(["IssuerOfPatientID", "EchoNumbers", "ViewPosition", "DetectorID", "Allergies"], 2):
        ds.setdefault(keyword, "7")
    ds.private_block(0x0011, "OTHER MAKER", create=True).add_new(1, "LO", "more")


def other_sequence(ds: Dataset, chance: random.Random) -> None:
    ds.SourceImageSequence = list(ds.SourceImageSequence)[: chance.randint(0, 1)]
    ds.AnatomicRegionSequence = [phantoms.code("72696002", "SCT", "Knee" * chance.randint(1, 5))]
    ds.ViewCodeSequence = [phantoms.code("399348003", "SCT", "AP")] * chance.randint(0, 2)


def other_charset(ds: Dataset, chance: random.Random) -> None:
    ds.SpecificCharacterSet = chance.choice(["ISO_IR 100", "ISO_IR 192", "ISO_IR 144"])
    ds.StudyDescription = "Колено" if ds.SpecificCharacterSet != "ISO_IR 100" else "Fußgelenk"


def no_charset(ds: Dataset, _: random.Random) -> None:
    ds.pop("SpecificCharacterSet", None)


def other_identity(ds: Dataset, chance: random.Random) -> None:
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{10 ** chance.randint(1, 30)}"
    ds.PatientID = "P" * chance.randint(1, 20)
    ds.file_meta.ImplementationVersionName = "V" * chance.randint(1, 16)


CHANGES: tuple[Callable[[Dataset, random.Random], None], ...] = (
    *(longer, other_number, missing, more, other_sequence, other_charset, no_charset, other_identity),
)


@by_name
@pytest.mark.filterwarnings("ignore")  # pydicom's, about values that are too long
def test_every_column_of_files_that_differ_a_little(syntax: str) -> None:
    chance, layouts, count = random.Random(5), Counting(), 60
    for number in range(count):
        ds = rich(phantoms.MR)
        for change in chance.sample(CHANGES, chance.randint(0, 3)):
            change(ds, chance)
        data = stored(ds, syntax)
        found = read(data, layouts)
        assert found == read(data), number
        assert found is not None
        assert dict(zip(NAMES, found, strict=True)) == by_pydicom(data), number
    assert 1 <= layouts.walked < count / 2


@by_name
def test_a_series_is_walked_once(syntax: str) -> None:
    layouts = Counting()
    for number in range(30):
        data = stored(varied(rich(phantoms.MR), number), syntax)
        found = read(data, layouts)
        assert found is not None
        assert dict(zip(NAMES, found, strict=True)) == by_pydicom(data)
    assert layouts.walked == 1


@by_name
def test_a_file_that_ends_anywhere(syntax: str) -> None:
    data, layouts = stored(rich(side=8), syntax), Layouts()
    assert read(data, layouts) is not None
    end = data.index(PIXELS) if PIXELS in data else len(data)
    for cut in (*range(130, end - 60, 17), *range(end - 60, min(end + 40, len(data)))):
        assert read(data[:cut], layouts) == read(data[:cut]), cut


HEADS = {
    syntax: data[: data.index(PIXELS) + 40] for syntax in SYNTAXES[:2] for data in (stored(rich(phantoms.MR), syntax),)
}
SPLICES = (
    b"\xfe\xff\x0d\xe0",
    b"\xfe\xff\x00\xe0",
    b"\xff\xff\xff\xff",
    b"\x08\0\x05\0CS\0\0",
    b"UN",
    b"SQ",
    b"\0\0\0\0",
)


@settings(max_examples=300, deadline=None)
@given(syntax=st.sampled_from(sorted(HEADS)), draw=st.data())
def test_damage_is_met_as_by_a_walk(syntax: str, draw: st.DataObject) -> None:
    damaged, layouts = bytearray(HEADS[syntax]), Layouts()
    assert read(HEADS[syntax], layouts) is not None
    for _ in range(draw.draw(st.integers(1, 3))):
        where, what = draw.draw(st.integers(130, len(damaged) - 9)), draw.draw(st.sampled_from(SPLICES))
        if draw.draw(st.booleans()):
            damaged[where : where + len(what)] = what
        elif draw.draw(st.booleans()):
            damaged[where:where] = what
        else:
            del damaged[where : where + draw.draw(st.integers(1, 40))]
    assert read(bytes(damaged), layouts) == read(bytes(damaged))


def test_an_element_that_comes_twice_or_out_of_order_is_left_to_the_walk() -> None:
    data, layouts = stored(rich(), ExplicitVRLittleEndian), Counting()
    read(data, layouts)
    modality = data.index(b"\x08\x00\x60\x00CS")
    element = data[modality : modality + 10]
    before, behind = data.index(b"\x08\x00\x20\x00DA"), data.index(b"\x10\x00\x20\x00LO")
    assert read(data[:behind] + element + data[behind:], layouts) is None  # twice: the full reader's to judge
    moved = data[:before] + element + data[before:modality] + data[modality + 10 :]
    assert read(moved, layouts) == read(data)
    assert layouts.walked == 2


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts = Layouts()
    monkeypatch.setattr(index_layouts, "_MOST_CHANGES", 0)
    monkeypatch.setattr(index_layouts, "_MOST_KINDS", 3)
    for number in range(12):
        ds = malformed.small(PatientID="P" * (2 * number + 1))
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{number % 5}"
        for length in range(6):
            ds.StudyDescription = "D" * 2 * length
            assert read(malformed.encoded(ds), layouts) is not None
            assert len(layouts._met) <= 3
            assert all(len(met) <= 4 for met in layouts._met.values())
            assert len(layouts.metas) <= 8
    before = {kind: list(met) for kind, met in layouts._met.items()}
    assert read(stored(enhanced(), ExplicitVRLittleEndian), layouts) is not None  # nested values: always walked
    assert layouts._met == before


def test_a_layout_that_fits_ill_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_layouts, "_MOST_DEBT", 10)
    layouts = Counting()
    outlier = rich(phantoms.MR)
    for keyword in ("StudyDescription", "SeriesDescription", "ProtocolName", "InstitutionName"):
        setattr(outlier, keyword, "an unusual text, longer than those of all others")
    read(stored(outlier, ExplicitVRLittleEndian), layouts)
    data = stored(rich(phantoms.MR), ExplicitVRLittleEndian)
    for _ in range(20):
        assert str(read(data, layouts)) == str(read(data))
    assert layouts.walked == 2


def test_pydicom_reads_what_was_varied() -> None:
    ds = pydicom.dcmread(io.BytesIO(stored(varied(rich(phantoms.MR), 19), ExplicitVRLittleEndian)))
    assert (ds.InstanceNumber, ds.SliceLocation, "BodyPartExamined" in ds) == (19, 13.3, False)
