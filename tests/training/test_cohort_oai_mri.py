"""OAI MR: labels on either side of their edges, dirty text and SAS tables, series chosen, clear errors."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from inference.errors import DataError
from tests import sas7bdat
from tests.training import oai_release
from tests.training.oai_release import CORONAL, SAGITTAL
from training import cli
from training.cohorts import oai_mri
from training.cohorts.rows import Cohort, Source, select
from training.cohorts.rules import read_rules, shipped

TABLES = {
    "AllClinical00": """ID|v00age|P01BMI|P01HEIGHT|P01WEIGHT|V00WOMKPR|V00WOMKPL|P01INJR|P01INJL|P01KSURGR|P01KSURGL
9000001|61|30.1|1700|87|1.5|2|1: Yes|0: No|.A: Not Expected|0
9000002|55|.: Missing Form/Incomplete Workbook|1600|64.0|0|.A|.|||0: No
""",
    "AllClinical01": """ID|V01AGE|V01BMI|V01WEIGHT|V01WOMKPR|V01WOMKPL
9000001|62|.A: Not Expected|86.7|0.5|5
""",
    "kxr_qjsw_duryea00": """ID|SIDE|READPRJ|V00MCMJSW|V00JSW150
9000001|1: Right|15|4.1|5
9000001|1: Right|15|4.1|5
9000001|2: Left|37|1|1
9000001|2: Left|15|2.0|1
9000002|1|15|.A: Not Expected|.
9000002|1|42|0|
9000002|2|15|5.5|6
""",
    "KXR_QJSW_DURYEA01": """id|side|readprj|v01mcmjsw
9000001|1|15|3.6
9000001|2|15|1.501
9000002|1|15|0
9000002|2|15|
""",
    "kxr_qjsw_duryea03": "ID|SIDE|V03MCMJSW\n9000001|1|3.0\n9000001|2|2.0\n",
    "kxr_sq_bu00": "ID|SIDE|READPRJ|V00XRKL\n9000001|1|15|2\n9000001|2|15|3: 3\n9000002|1|15|4\n",
    "kxr_sq_bu01": "ID|SIDE|READPRJ|V01XRKL\n9000001|1|15|2\n",
    "Enrollees": "ID|P02SEX|P02RACE\n9000001|1: Male|1: White or Caucasian\n9000002|2: Female|.D: Don't Know\n",
}


class Release:
    """Tables, and an index of the series that are added."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tables, self.rows = folder, folder / "tables", []  # type: ignore[var-annotated]
        self.export, self.number = folder / "export", 0
        self.export.mkdir()
        for name, text in TABLES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        self.tables.mkdir(exist_ok=True)
        (self.tables / f"{name}.txt").write_text(text, encoding="utf-8")

    def series(self, folder: str, name: str | None, slices: int = 11, broken: int = 0, **changes: Any) -> str:
        self.number += 1
        uid = f"1.{self.number}"
        row = {
            "StudyInstanceUID": f"2.{folder[:20]}", "SeriesInstanceUID": uid, "PatientID": "9000009", "Modality": "MR",
            "SeriesDescription": name, "StudyDate": "20050204",
            "ImageOrientationPatient": CORONAL if name and "COR" in name.upper() else SAGITTAL, **changes,
        }  # fmt: skip
        for slice_ in range(slices):
            values = {"path": f"{folder}/{slice_:03d}", "reason": None, "SOPInstanceUID": f"{uid}.{slice_}", **row}
            self.rows.append(tuple(values[name] for name in oai_release.INDEX))
        self.rows += [(f"{folder}/broken{count}", "unreadable", *[None] * 8) for count in range(broken)]
        return uid

    def source(self, **parameters: Any) -> Source:
        oai_release.write_index(self.rows, self.folder / "index.parquet")
        rules = read_rules(shipped("oai_mri"), "oai_mri", parameters)
        return oai_mri.read(self.tables, self.folder / "index.parquet", self.export, rules.parameters)

    def cohort(self, **parameters: Any) -> Cohort:
        return select(self.source(**parameters), read_rules(shipped("oai_mri"), "oai_mri", parameters))


@pytest.fixture
def release(tmp_path: Path) -> Release:
    result = Release(tmp_path)
    for person in ("9000001", "9000002"):
        for number, side in enumerate(("RIGHT", "LEFT")):
            result.series(f"00m/0.C.2/{person}/20050204/1000000{number}", f"COR_IW_TSE_{side} ")
    return result


def rows(frame: pl.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return frame.select(columns).rows()


def test_a_row_is_a_series_of_a_knee_in_a_window(release: Release) -> None:
    cohort = release.cohort()
    assert rows(cohort.knees, "knee", "PatientID", "path", "sequence", "side", "visit", "followup", "window") == [
        ("1.1/R/V00-V01", "9000001", "00m/0.C.2/9000001/20050204/10000000", "COR_IW_TSE", "R", 0, 12, "V00-V01"),
        ("1.2/L/V00-V01", "9000001", "00m/0.C.2/9000001/20050204/10000001", "COR_IW_TSE", "L", 0, 12, "V00-V01"),
        ("1.3/R/V00-V01", "9000002", "00m/0.C.2/9000002/20050204/10000000", "COR_IW_TSE", "R", 0, 12, "V00-V01"),
    ]
    assert rows(cohort.knees, "age", "sex", "race", "bmi", "height", "weight", "mjsw", "kl", "womac_pain", "injury",
                "surgery") == [
        (61.0, "M", "White or Caucasian", 30.1, 1.7, 87.0, 4.1, 2, 1.5, 1, None),
        (61.0, "M", "White or Caucasian", 30.1, 1.7, 87.0, 2.0, 3, 2.0, 0, 0),
        (55.0, "F", None, 25.0, 1.6, 64.0, 0.0, 4, 0.0, None, None),
    ]  # fmt: skip


def test_labels_on_their_edges(release: Release) -> None:
    knees = release.cohort().knees
    assert rows(knees, "delta_mjsw", "progression_abs", "delta_mjsw_rel", "progression_rel") == [
        (-0.5, 1, -0.121951, 0),  # 3.6 - 4.1 is a little more than -0.5 as a floating number
        (-0.499, 0, -0.2495, 0),
        (0.0, 0, None, None),  # no joint space that could narrow by a share
    ]
    assert rows(knees, "womac_pain", "womac_pain_binary", "womac_pain_class") == [
        (1.5, None, 1),
        (2.0, 1, 1),
        (0, 0, 0),
    ]
    release.write("kxr_qjsw_duryea01", TABLES["KXR_QJSW_DURYEA01"].replace("1.501", "1.5"))
    (release.tables / "KXR_QJSW_DURYEA01.txt").unlink()
    assert rows(release.cohort().knees, "progression_abs", "progression_rel")[1] == (1, 1)


def test_cuts_are_parameters(release: Release) -> None:
    changed = release.cohort(
        target="womac_pain_class", pain_cuts=[0.5, 2], pain_from=1.5, progression_mm=-0.4, progression_share=-0.1
    ).knees
    assert changed["womac_pain_class"].to_list() == [1, 2, 0]
    assert changed["womac_pain_binary"].to_list() == [1, 1, 0]
    assert changed["progression_abs"].to_list()[:2] == [1, 1]
    assert changed["progression_rel"].to_list()[:2] == [1, 1]


def test_each_target_drops_what_it_lacks(release: Release) -> None:
    left = {target: release.cohort(target=target).knees["knee"].to_list() for target in oai_mri.TARGETS}
    right, other, third = "1.1/R/V00-V01", "1.2/L/V00-V01", "1.3/R/V00-V01"
    assert left == {
        "progression_abs": [right, other, third],
        "progression_rel": [right, other],
        "womac_pain_binary": [other, third],
        "womac_pain_class": [right, other, third],
    }


def test_windows_of_a_year_and_of_two(release: Release) -> None:
    later = release.series("12m/0.C.2/9000001/20060204/10000009", "SAG_3D_DESS_RIGHT")
    last = release.series("24m/0.C.2/9000001/20070204/10000010", "SAG_3D_DESS_RIGHT")
    release.write("kxr_sq_bu03", "ID|SIDE|READPRJ|V03XRKL\n9000001|1|15|2\n")
    release.write("AllClinical03", "ID|V03WOMKPR|V03WOMKPL\n9000001|1|5\n")
    knees = release.cohort().knees
    assert f"{later}/R/V01-V03" in knees["knee"].to_list()
    of_visit = knees.filter(pl.col("visit") == 12)
    assert rows(of_visit, "mjsw", "mjsw_followup", "age", "bmi", "height", "weight", "injury") == [
        (3.6, 3.0, 62.0, 30.0, 1.7, 86.7, 1)
    ]
    two = release.cohort(followup=24).knees
    assert rows(two, "window", "delta_mjsw") == [("V00-V03", -1.1), ("V00-V03", 0.0)]
    steps = {step.name: step.kept for step in release.cohort(followup=24).steps}
    assert steps["window"].series == 5  # type: ignore[union-attr]  # that of 12 months ends at 36, which nobody measured
    assert last not in "".join(two["knee"])
    pain = release.cohort(target="womac_pain_binary").knees
    assert rows(pain.filter(pl.col("visit") == 24), "age", "weight", "womac_pain_binary") == []
    assert rows(release.source().knees.filter(pl.col("visit") == 24), "age", "weight", "womac_pain") == [
        (63.0, None, 1.0)
    ]


@pytest.mark.parametrize(
    ("name", "changes", "rule"),
    [
        ("SAG_T2_MAP_LEFT", {}, "sequence"),
        (None, {}, "sequence"),
        ("COR_IW_TSE", {}, "side known"),
        ("COR_IW_TSE_LEFT", {"ImageOrientationPatient": SAGITTAL}, "plane"),
        ("COR_IW_TSE_LEFT", {"slices": 10}, "enough slices"),
        ("COR_IW_TSE_LEFT", {"broken": 1}, "slices readable"),
        ("COR_IW_TSE_LEFT", {"Modality": "CR"}, "MR"),
        ("COR_IW_TSE_LEFT", {"place": "48m/0.C.2/9000001/20090204/10000077"}, "visit known"),
        ("COR_IW_TSE_LEFT", {"place": "elsewhere/9000001/77"}, "visit known"),
        ("COR_IW_TSE_LEFT", {"place": "00m/0.C.2/9000001/20050203/19999999"}, "last of rescans"),
        ("COR_IW_TSE_LEFT", {"place": "00m/0.C.2/9000009/20050204/10000077"}, "known at the image"),
    ],
)
def test_what_each_rule_drops(release: Release, name: str | None, changes: dict[str, Any], rule: str) -> None:
    place = changes.pop("place", "00m/0.C.2/9000001/20050204/10000099")
    release.series(place, name, **changes)
    cohort = release.cohort()
    dropped = {step.name: step.dropped.series for step in cohort.steps if step.dropped.series}  # type: ignore[union-attr]
    assert dropped == {rule: 1, "known at the follow-up": 1}
    assert cohort.knees["SeriesInstanceUID"].to_list() == ["1.1", "1.2", "1.3"]


def test_the_last_of_rescans_is_kept(release: Release) -> None:
    again = release.series("00m/0.C.2/9000001/20050204/10000005", "cor iw_tse right")
    knees = release.cohort().knees["knee"].to_list()
    assert f"{again}/R/V00-V01" in knees
    assert "1.1/R/V00-V01" not in knees


def test_contents_csv_and_header_must_not_contradict_one_another(release: Release) -> None:
    (release.export / "00m").mkdir()
    listing = release.export / "00m" / "contents.csv"
    folder, head = "0.C.2/9000001/20050204/1000000", "Folder,ParticipantID,StudyDate,Barcode,SeriesDescription\n"
    listing.write_text(
        f"{head}{folder}0,9000001,20050204,,COR_IW_TSE_LEFT\n{folder}1,9000001,20050204,,COR_IW_TSE_LEFT  \n"
    )
    source = release.source()
    assert source.cleaned["series whose header names another series than contents.csv"] == 1
    assert [knee for knee, _ in rows(release.cohort().knees, "knee", "side")] == ["1.2/L/V00-V01", "1.3/R/V00-V01"]


def test_contents_csv_names_what_headers_do_not(release: Release) -> None:
    uid = release.series("00m/0.C.2/9000002/20050204/10000050", None, PatientID=None)
    (release.export / "00m").mkdir()
    (release.export / "00m" / "contents.csv").write_text(
        "Folder,ParticipantID,StudyDate,AccessionNumber,SeriesDescription\n"
        "0.C.2/9000002/20050204/10000050,9000002,20050204,,SAG_IW_TSE_RIGHT\n"
    )
    assert rows(release.cohort().knees.filter(pl.col("sequence") == "SAG_IW_TSE"), "knee", "PatientID") == [
        (f"{uid}/R/V00-V01", "9000002")
    ]


def test_sas_tables_say_the_same_as_text(tmp_path: Path) -> None:
    oai_release.make(tmp_path, 15, 3)
    rules = read_rules(shipped("oai_mri"), "oai_mri")
    arguments = (tmp_path / "index.parquet", tmp_path / "images", rules.parameters)
    of_text = select(oai_mri.read(tmp_path / "tables", *arguments), rules)
    for path in sorted((tmp_path / "tables").rglob("*.txt")):
        head, *lines = (line.split("|") for line in path.read_text("utf-8").splitlines())
        table: list[list[Any]] = [
            [value if name.upper() == "ID" else number(value) for name, value in zip(head, line, strict=True)]
            for line in lines
        ]
        name = tmp_path / "sas" / f"{path.stem}.SAS7BDAT"
        name.parent.mkdir(exist_ok=True)
        sas7bdat.write(name, head, table)
    of_sas = select(oai_mri.read(tmp_path / "sas", *arguments), rules)
    assert len(of_sas.knees) > 20
    assert of_sas.knees.drop("race").equals(of_text.knees.drop("race"))
    assert of_sas.steps == of_text.steps
    assert set(of_sas.knees["race"].drop_nulls()) <= set(of_text.knees["race"].drop_nulls())


def number(value: str) -> float | None:
    try:
        return float(value.split(":", maxsplit=1)[0])
    except ValueError:
        return None


def test_text_is_preferred_to_sas_and_damaged_sas_is_an_error(release: Release) -> None:
    (release.tables / "AllClinical00.sas7bdat").write_bytes(b"no SAS")
    assert len(release.cohort().knees) == 3
    (release.tables / "AllClinical00.txt").unlink()
    with pytest.raises(DataError, match=r"AllClinical00\.sas7bdat is no SAS file"):
        release.cohort()
    sas7bdat.write(release.tables / "AllClinical00.sas7bdat", ["ID", "V00AGE"], [["9000001", 61.0]])
    with pytest.raises(DataError, match=r"lacks the column\(s\) P01BMI.*it has ID, V00AGE"):
        release.cohort()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("kxr_qjsw_duryea00", "ID|SIDE|READPRJ\n1|1|1\n", r"lacks the column\(s\) V00MCMJSW; it has ID, SIDE, READPRJ"),
        ("kxr_qjsw_duryea00", TABLES["kxr_qjsw_duryea00"] + "9000009|3|15|1|1\n", "neither 1 .right. nor 2"),
        ("kxr_sq_bu00", "ID|SIDE|V00XRKL\n1|1|1\n", r"lacks the column\(s\) READPRJ"),
        ("AllClinical00", "ID|V00AGE\n1|1\n", r"lacks the column\(s\) P01BMI"),
        ("AllClinical00", TABLES["AllClinical00"] + "9000001|70|30|1700|87|1|2|1|0|0|0\n", "rows that differ"),
        ("Enrollees", "ID|P02SEX\n1|1\n", r"lacks the column\(s\) P02RACE"),
        ("kxr_qjsw_duryea00", TABLES["kxr_qjsw_duryea00"].replace("4.1", "4,1"), "V00MCMJSW has decimal commas"),
    ],
)
def test_odd_tables_are_errors(release: Release, name: str, text: str, message: str) -> None:
    release.write(name, text)
    with pytest.raises(DataError, match=message):
        release.cohort()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["AllClinical00", "AllClinical01"], "AllClinical .clinical variables. of the visits none"),
        (["AllClinical00"], "AllClinical00 is missing"),
        (["KXR_QJSW_DURYEA01", "kxr_qjsw_duryea00"], "kxr_qjsw_duryea .joint space widths. of the visits 03"),
        (["Enrollees"], "lacks Enrollees"),
    ],
)
def test_missing_tables_are_errors(release: Release, missing: list[str], message: str) -> None:
    for name in missing:
        (release.tables / f"{name}.txt").unlink()
    with pytest.raises(DataError, match=message):
        release.cohort()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"target": "pain"}, "must be one of progression_abs"),
        ({"followup": 6}, "followup is 6 months; visits are 0, 12"),
        ({"followup": "year"}, "must be a number"),
        ({"pain_cuts": [5, 1]}, "must ascend"),
        ({"pain_cuts": 5}, "must be a list"),
    ],
)
def test_odd_parameters_are_errors(release: Release, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        release.cohort(**parameters)


def test_exports_without_names_or_visits_are_errors(release: Release) -> None:
    release.rows = []
    release.series("00m/0.C.2/9000001/20050204/10000001", None)
    with pytest.raises(DataError, match="nothing says what the series"):
        release.cohort()
    release.rows = []
    release.series("48m/0.C.2/9000001/20050204/10000001", "COR_IW_TSE_LEFT")
    with pytest.raises(DataError, match=r"with tables \(00m, 12m\).*the export has 48m"):
        release.cohort()


def test_a_series_is_seen_through_copies_frames_and_folders(release: Release) -> None:
    release.rows += release.rows[:11]  # copied within the export
    many = release.series("00m/0.C.2/9000001/20050204/10000070", "SAG_IW_TSE_LEFT", slices=4)
    release.series("00m/0.C.2/9000001/20050204/10000070/more", "SAG_IW_TSE_LEFT", slices=5, SeriesInstanceUID=many)
    mixed = release.series("00m/0.C.2/9000001/20050204/10000071", "SAG_IW_TSE_RIGHT", slices=9)
    place = list(oai_release.INDEX).index("ImageOrientationPatient")
    release.rows[-1] = (*release.rows[-1][:place], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], *release.rows[-1][place + 1 :])
    knees = {row["SeriesInstanceUID"]: row for row in release.source().knees.to_dicts()}
    assert knees["1.1"]["slices"] == 11
    assert (knees[many]["slices"], knees[many]["path"]) == (9, "00m/0.C.2/9000001/20050204/10000070")
    assert (knees[mixed]["plane"], knees[mixed]["plane_agrees"]) == ("mixed", False)


def test_an_export_of_one_visit_is_known_by_its_own_name(release: Release) -> None:
    release.export = release.folder / "00m"
    release.export.mkdir()
    release.rows = []
    release.series("0.C.2/9000001/20050204/10000001", "COR_IW_TSE_LEFT")
    assert release.cohort().knees["window"].to_list() == ["V00-V01"]


def test_the_command(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    release.source()
    base = ["--export", str(release.export), "--index", str(release.folder / "index.parquet")]
    base += ["--tables", str(release.tables), "--out", str(release.folder / "out")]
    assert cli.main(["cohort", "oai-mri", *base, "--targets", "womac_pain_binary"]) == 0
    assert "2 series of 2 knees of 2 patients" in capsys.readouterr().out
    written = pl.read_parquet(release.folder / "out" / "cohort.parquet")
    assert written["womac_pain_binary"].to_list() == [1, 0]
    assert (
        (release.folder / "out" / "flow.csv")
        .read_text("utf-8")
        .startswith("rule,sentence,kept_patients,kept_studies,kept_series,kept_knees,dropped_patients")
    )
    assert cli.main(["cohort", "oai-mri", *base, "--followup", "24"]) == 0
    assert pl.read_parquet(release.folder / "out" / "cohort.parquet")["window"].to_list() == ["V00-V03"] * 2
    assert cli.main(["cohort", "oai-mri", *base, "--window", "7"]) == 2
    assert cli.main(["cohort", "oai-xr", *base, "--followup", "24"]) == 2
    assert cli.main(["cohort", "oai-mri", *base, "--followup", "7"]) == 2
    assert "followup is 7 months" in capsys.readouterr().err


class TestTablesOfSeries:
    """`cohort table` where rows are series."""

    def cohort(self, release: Release, text: str, *more: str, status: int = 0) -> pl.DataFrame:
        table = release.folder / "labels.csv"
        table.write_text(text, encoding="utf-8")
        oai_release.write_index(release.rows, release.folder / "index.parquet")
        arguments = ["--export", str(release.export), "--index", str(release.folder / "index.parquet")]
        arguments += ["--tables", str(table), "--out", str(release.folder / "out"), *more]
        assert cli.main(["cohort", "table", *arguments]) == status
        return pl.read_parquet(release.folder / "out" / "cohort.parquet") if status == 0 else pl.DataFrame()

    def test_series_by_their_uid(self, release: Release) -> None:
        knees = self.cohort(
            release,
            "SeriesInstanceUID,side,progression_abs,age,mjsw,window,luck\n1.1,left,1,60,4.5,a,\n1.1,left,0,60,4.5,b,2\n"
            "1.2,R,,1,1,a,\n9.9,R,1,1,1,a,\n1.3,-1,1,1,1,a,\n",
        )
        columns = ("knee", "side", "progression_abs", "age", "mjsw", "slices", "sequence", "PatientID", "kl")
        assert rows(knees, *columns) == [
            ("1.1/L/a", "L", 1.0, 60.0, 4.5, 11, "COR_IW_TSE_RIGHT", "9000009", None),
            ("1.1/L/b", "L", 0.0, 60.0, 4.5, 11, "COR_IW_TSE_RIGHT", "9000009", None),
        ]

    def test_names_in_other_letters_and_a_study_of_the_table(self, release: Release) -> None:
        knees = self.cohort(release, "seriesinstanceuid;StudyInstanceUID;Side;PAIN\n 1.1 ;7.7; LEFT ;3\n")
        assert rows(knees, "knee", "StudyInstanceUID", "pain") == [("1.1/L", "2.00m/0.C.2/9000001/20", 3.0)]

    def test_series_by_their_folder(self, release: Release) -> None:
        place = "./00m/0.C.2/9000001/20050204/10000001/"
        knees = self.cohort(release, f"folder\tside\n{place},L\n".replace("\t", ",").replace("side\n", "side,grade\n")
                            .replace(",L\n", ",L,3\n"), "--targets", "grade")  # fmt: skip
        assert rows(knees, "knee", "grade") == [("1.2/L", 3.0)]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("SeriesInstanceUID,side,pain\n9.9,L,1\n", "none of the 1 series of the table is in the index"),
            ("SeriesInstanceUID,side\n1.1,L\n", "has no target"),
            ("SeriesInstanceUID,side,pain\n1.1,B,1\n", "the column side holds 'B'"),
            ("folder,pain\n1.1,1\n", r"lacks the column\(s\) side"),
            ("SeriesInstanceUID,side,pain\n", "labels.csv has no rows"),
            ("SeriesInstanceUID,side,pain\n1.1,L,1\n1.2,L,1,1\n", "labels.csv, line 3: 4 values, but the header has 3"),
            ("SeriesInstanceUID;side;pain\n1.1;L;1,5\n", "the column pain has decimal commas, as in '1,5'"),
            ("SeriesInstanceUID,side,pain,mjsw\n1.1,L,1,wide\n", "the column mjsw: 1 of 1 values, such as 'wide'"),
            ("SeriesInstanceUID,side,pain,StudyDate\n1.1,L,1,38387\n", "StudyDate: 1 of 1 values, such as '38387'"),
            ("SeriesInstanceUID,side,pain,PatientID\n1.1,L,1,7\n1.2,L,1,\n", "PatientID is empty in 1 row(s)"),
            (",side,pain,folder\n,L,1,\n,L,2,a\n", "folder is empty in 1 row(s)"),
        ],
    )
    def test_wrong_tables(self, release: Release, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
        self.cohort(release, text, status=2)
        assert message.replace("\\", "") in capsys.readouterr().err
