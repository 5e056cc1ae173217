"""OAI radiographs: text tables as they come, visits from folders and barcodes, the film that was read."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from inference.errors import DataError
from tests import sas7bdat
from training import cli
from training.cohorts import oai_xr
from training.cohorts.rows import Cohort, select
from training.cohorts.rules import read_rules, shipped

PA = "Bilateral PA Fixed Flexion Knee"
GRADES = """ID|SIDE|READPRJ|VERSION|V00BARCDBU|v00xrkl
9000001|1: Right|37|0.9|016600000001|3
9000001|1: Right|15|0.9|016600000001|2
9000001|2: Left|15|0.9|016600000001|.A: Not Expected
9000001|2: Left|42|0.9|016600000001|1: 1
9000002|1|15|0.9||0
9000002|2|15|0.9||
9000003|1|15|0.9||4
"""
CLINICAL = """ID|V00AGE|V00WOMKPR|V00WOMKPL|V00KOOSKPR|V00KOOSKPL|V00P7RKRCV|V00P7LKRCV
9000001|61|3|0.0|80.6|100|4|0
9000002|55|.: Missing Form/Incomplete Workbook|2|50|60|.A|11
"""
PEOPLE = """ID|P02SEX|P02RACE|P02HISP
9000001|1: Male|1: White or Caucasian|0: No
9000002|2: Female|.D: Don't Know/Unknown/Uncertain|0: No
"""


class Release:
    """A folder of tables and an index of films."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tables = folder, folder / "tables"
        self.films: list[tuple[str, str | None, str | None]] = []
        self.write("X-Ray Image Assessments_ASCII/KXR_SQ_BU00.txt", GRADES)
        self.write("AllClinical_ASCII/AllClinical00.txt", CLINICAL)
        self.write("Enrollees.txt", PEOPLE)

    def write(self, name: str, text: str) -> None:
        path = self.tables / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")

    def film(self, path: str, series: str | None = PA, barcode: str | None = None) -> None:
        self.films.append((path, series, barcode))

    def index(self) -> Path:
        names = ("path", "reason", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "StudyDate", "SeriesDescription",
                 "AccessionNumber")  # fmt: skip
        rows = [(p, None, f"1.{n}", "1", "x", "20050101", s, b) for n, (p, s, b) in enumerate(self.films)]
        frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
        frame.write_parquet(self.folder / "index.parquet")
        return self.folder / "index.parquet"

    def cohort(self) -> Cohort:
        source = oai_xr.read(self.tables, self.index(), self.folder)
        return select(source, read_rules(shipped("oai_xr"), "oai_xr"))


@pytest.fixture
def release(tmp_path: Path) -> Release:
    result = Release(tmp_path)
    result.film("00m/0.C.2/9000001/20050204/00344001/001", barcode="16600000001")
    result.film("00m/0.C.2/9000002/20050205/00344002/001")
    return result


def rows(cohort: Cohort, *columns: str) -> list[tuple[Any, ...]]:
    return cohort.knees.select(columns).rows()


def test_knees_have_grade_and_pain_of_their_side(release: Release) -> None:
    cohort = release.cohort()
    assert rows(cohort, "knee", "PatientID", "kl", "womac_pain", "koos_pain", "nrs_pain", "age", "sex", "race") == [
        ("1.0/L", "9000001", 1, 0.0, 100.0, 0.0, 61.0, "M", "White or Caucasian"),
        ("1.0/R", "9000001", 2, 3.0, 80.6, 4.0, 61.0, "M", "White or Caucasian"),
    ]
    assert [step.kept.knees for step in cohort.steps] == [4, 4, 4, 4, 3, 2]
    assert rows(cohort, "bilateral", "flipped", "days_between") == [(True, False, None)] * 2


def test_other_series_rescans_and_unknown_visits_go(release: Release) -> None:
    release.film("00m/0.C.2/9000001/20050204/00344009/001", barcode="16600000009")  # not the film that was read
    release.film("00m/0.C.2/9000002/20050205/00344008/001")  # the last of its visit
    release.film("00m/0.C.2/9000001/20050204/00344003/001", series="PA Right Hand")
    release.film("00m/0.C.2/9000001/20050204/00344004/001", series=None)
    release.film("48m/0.C.2/9000001/20090204/00344005/001")  # no tables of that visit
    release.film("elsewhere/9000002/001")
    steps = {step.name: step.kept.images for step in release.cohort().steps}
    assert steps == {
        "source": 8, "fixed flexion": 6, "visit known": 4, "the film of the visit": 2, "KL grade": 2, "pain score": 1
    }  # fmt: skip


def test_a_visit_follows_from_the_barcode_where_no_folder_says_it(release: Release) -> None:
    release.films = [("films/9000001/a", PA, "016600000001")]
    assert [knee for (knee,) in rows(release.cohort(), "knee")] == ["1.0/L", "1.0/R"]


def test_contents_csv_says_what_a_folder_holds(release: Release) -> None:
    release.films = [("00m/0.C.2/9000001/20050204/00344001/001", None, None)]
    contents = release.folder / "00m" / "contents.csv"
    contents.parent.mkdir()
    contents.write_text(
        "Folder,ParticipantID,StudyDate,Barcode,SeriesDescription\n"
        f"0.C.2/9000001/20050204/00344001,9000001,20050204,016600000001,{PA}  \n",
        encoding="utf-8",
    )
    assert [str(day) for (day,) in rows(release.cohort(), "StudyDate")] == ["2005-02-04"] * 2


def test_dates_of_contents_csv_are_counted_or_stop_it(release: Release) -> None:
    place = "00m/0.C.2/9000001/20050204/0034400"
    release.films = [(f"{place}{number}/001", PA, None) for number in range(3)]
    contents = release.folder / "00m" / "contents.csv"
    contents.parent.mkdir()
    head = "Folder,ParticipantID,StudyDate,Barcode,SeriesDescription\n"
    days = ["2005-02-04 00:00:00.000", "2/4/2005 0:00", "soon"]
    listed = [f"{place[4:]}{number},9000001,{day},,{PA}\n" for number, day in enumerate(days)]
    contents.write_text(head + "".join(listed), encoding="utf-8")
    source = oai_xr.read(release.tables, release.index(), release.folder)
    assert source.unread == {"contents.csv: the column listed_date": 1}
    assert source.knees["StudyDate"].n_unique() == 2
    contents.write_text(head + "".join(listed[1:]).replace("2/4/2005 0:00", "38387"), encoding="utf-8")
    with pytest.raises(DataError, match=r"contents\.csv: the column listed_date: 2 of 2 values, such as '38387'"):
        oai_xr.read(release.tables, release.index(), release.folder)


def test_the_projects_are_preferred_in_their_order(release: Release) -> None:
    source = oai_xr.read(release.tables, release.index(), release.folder, [37])
    knees = select(source, read_rules(shipped("oai_xr"), "oai_xr")).knees
    assert knees["kl"].to_list() == [1, 3]


def test_a_project_that_contradicts_itself_gives_no_grade(release: Release) -> None:
    release.write("X-Ray Image Assessments_ASCII/KXR_SQ_BU00.txt", GRADES + "9000001|1|15|0.9||4\n")
    source = oai_xr.read(release.tables, release.index(), release.folder)
    assert source.cleaned["knees that one project graded twice and differently"] == 1
    kl = source.knees.filter(pl.col("PatientID") == "9000001", pl.col("side") == "R")["kl"].to_list()
    assert kl == [3]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("X-Ray Image Assessments_ASCII/KXR_SQ_BU00.txt", "ID|SIDE|READPRJ\n1|1|1\n", r"lacks the column\(s\) V00XRKL"),
        ("X-Ray Image Assessments_ASCII/KXR_SQ_BU00.txt", GRADES + "9000009|3|15|||1\n", "neither 1"),
        ("AllClinical_ASCII/AllClinical00.txt", "ID|V00AGE\n1|1\n", r"lacks the column\(s\) V00WOMKPR"),
        ("AllClinical_ASCII/AllClinical00.txt", CLINICAL + "9000001|61|9|0|80|100|4|0\n", "rows that differ"),
        ("Enrollees.txt", "ID|P02SEX\n1|1\n", r"lacks the column\(s\) P02RACE"),
        ("Enrollees.txt", "ID|P02SEX|P02RACE\n", r"Enrollees\.txt has no rows"),
        (
            "Enrollees.txt",
            "ID|P02SEX|P02RACE\n1|1|1\n2|1|1|7\n",
            r"Enrollees\.txt, line 3: 4 values, but the header has 3",
        ),
        ("Enrollees.txt", "ID|P02SEX|P02RACE\n1|1|\udce9\n", r"Enrollees\.txt, line 2: the byte 0xE9 is not UTF-8"),
    ],
)
def test_wrong_tables_are_errors(release: Release, name: str, text: str, message: str) -> None:
    release.write(name, text)
    with pytest.raises(DataError, match=message):
        release.cohort()


def test_missing_tables_are_errors(release: Release, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="AllClinical of none"):
        (release.tables / "AllClinical_ASCII/AllClinical00.txt").unlink()
        release.cohort()


def test_sas_tables_are_read(release: Release) -> None:
    expected = rows(release.cohort(), "knee", "kl")
    (release.tables / "X-Ray Image Assessments_ASCII/KXR_SQ_BU00.txt").unlink()
    readings = [["9000001", 1.0, 15.0, "016600000001", 2.0], ["9000001", 2.0, 15.0, "016600000001", None],
                ["9000001", 2.0, 42.0, "016600000001", 1.0]]  # fmt: skip
    columns = ["ID", "side", "READPRJ", "V00BARCDBU", "v00xrkl"]
    sas7bdat.write(release.tables / "kxr_sq_bu00.sas7bdat", columns, readings)
    assert rows(release.cohort(), "knee", "kl") == expected


def test_films_of_no_known_series_or_visit_are_errors(release: Release) -> None:
    release.films = [("00m/0.C.2/9000001/20050204/00344001/001", None, None)]  # type: ignore[list-item]
    with pytest.raises(DataError, match="of which series"):
        release.cohort()
    release.films = [("48m/0.C.2/9000001/20050204/00344001/001", PA, None)]  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"no film of .* is of a visit with readings"):
        release.cohort()


def test_the_command_writes_the_cohort(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    release.index()
    out = release.folder / "out"
    arguments = ["--export", str(release.folder), "--tables", str(release.tables), "--out", str(out)]
    assert cli.main(["cohort", "oai-xr", *arguments]) == 0
    assert "2 knees of 1 patients" in capsys.readouterr().out
    assert pl.read_parquet(out / "cohort.parquet")["womac_pain"].to_list() == [0.0, 3.0]
    assert cli.main(["cohort", "oai-xr", *arguments, "--window", "3"]) == 2
