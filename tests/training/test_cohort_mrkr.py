"""MRKR's rules, each on either side of its edge, and what is done about dirty tables; all on a handful of rows."""

import csv
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import DataError
from training.cohorts import mrkr
from training.cohorts.rows import Cohort, Source, select
from training.cohorts.rules import read_rules, shipped
from training.synth_tables import FLAGS, HEADERS

DAY = date(2012, 3, 1)
IMAGE = {
    "empi_anon": "10000001", "StudyInstanceUID_anon": "1.1", "SeriesInstanceUID_anon": "1.2",
    "SOPInstanceUID_anon": "1.3",
    "img_height": "448.0", "img_width": "700.0", "laterality": "B", "view_position": "F", "horizontal_flip": "0",
    "weight_bearing": "1", "inverted": "0", "arthroplasty": "0", "L_KLG_inference": "2.0", "R_KLG_inference": "",
    "SeriesDescription": "KNEE", "StudyDescription": "KNEE", "StudyDate_anon": str(DAY), "age_at_exam": "60.0",
    "dicom_path": "a.dcm",
}  # fmt: skip
PAIN = {
    "empi_anon": "10000001", "pain_location": "knee", "knee_pain": "1", "pain_score": "6", "laterality": "B",
    "date_anon": str(DAY),
}  # fmt: skip
PERSON = {"empi_anon": "10000001", "sex": "Female", "race": "Asian", "ethnicity": "Unknown"}
CODE = {"empi_anon": "10000001", "ICD9": "--", "ICD10": "X", "date_anon": str(DAY), "age_at_dx": "60",
        "DX_LINE": "Primary", "DX_ICD_SCOPE": "Billing Diagnosis", **dict.fromkeys(FLAGS, "0")}  # fmt: skip


class Tables:
    """A folder of MRKR's tables and an index, made of dictionaries."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, list[dict[str, str]]] = {
            "image_metadata": [dict(IMAGE)], "pain": [dict(PAIN)], "demographics": [dict(PERSON)], "ICD": [dict(CODE)],
        }  # fmt: skip
        self.headers: dict[str, tuple[str, ...]] = dict(HEADERS)
        self.uids = ["1.3"]

    def image(self, **changes: str) -> None:
        self.rows["image_metadata"] = [IMAGE | changes]

    def pain(self, *rows: Mapping[str, str]) -> None:
        self.rows["pain"] = [{**PAIN, **row} for row in rows]

    def source(self, same_day: str = "mean") -> Source:
        for name, rows in self.rows.items():
            with (self.folder / f"MRKR_{name}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(self.headers[name])
                writer.writerows([row[column] for column in self.headers[name]] for row in rows)
        names = ("path", "reason", "SOPInstanceUID", "StudyInstanceUID", "PatientID")
        rows = [(f"{uid}.dcm", None, uid, "1.1", "10000001") for uid in self.uids]
        pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row").write_parquet(
            self.folder / "i.parquet"
        )
        return mrkr.read(self.folder, self.folder / "i.parquet", self.folder, same_day)

    def cohort(self, same_day: str = "mean", **overrides: Any) -> Cohort:
        return select(self.source(same_day), read_rules(shipped("mrkr"), "mrkr", overrides))

    def lost_at(self) -> str:
        with pytest.raises(DataError, match="keep no knee") as caught:
            self.cohort()
        return str(caught.value).split("'")[1]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


def days(number: int) -> str:
    return str(DAY + timedelta(days=number))


def test_a_plain_film_of_both_knees_gives_two_rows_of_the_contract(tables: Tables) -> None:
    knees = tables.cohort().knees.to_dicts()
    shared = {
        "SOPInstanceUID": "1.3", "path": "1.3.dcm", "PatientID": "10000001", "StudyInstanceUID": "1.1",
        "StudyDate": DAY,
        "age": 60.0, "sex": "F", "race": "Asian", "bilateral": True, "flipped": False, "inverted": False, "pain": 6.0,
        "days_between": 0,
    }  # fmt: skip
    assert knees == [
        {**shared, "knee": "1.3/L", "side": "L", "kl": 2},
        {**shared, "knee": "1.3/R", "side": "R", "kl": None},
    ]


@pytest.mark.parametrize("off", [-8, -7, 0, 7, 8])
def test_the_window_ends_after_seven_days(tables: Tables, off: int) -> None:
    tables.pain({"date_anon": days(off)})
    if abs(off) > 7:
        assert tables.lost_at() == "pain score in time"
        assert len(tables.cohort(window=8).knees) == 2
    else:
        assert tables.cohort().knees["days_between"].to_list() == [off, off]


@pytest.mark.parametrize("flag", mrkr.NEAR_CODES)
@pytest.mark.parametrize("off", [-91, -90, 0, 90, 91])
def test_codes_count_within_ninety_days(tables: Tables, flag: str, off: int) -> None:
    tables.rows["ICD"].append(CODE | {flag: "1", "date_anon": days(off)})
    names = dict(zip(mrkr.NEAR_CODES, ("no infection", "no osteomyelitis", "no trauma"), strict=True))
    if abs(off) <= 90:
        assert tables.lost_at() == names[flag]
    else:
        assert len(tables.cohort().knees) == 2


def test_a_code_without_a_date_counts_as_near(tables: Tables) -> None:
    tables.rows["ICD"].append(CODE | {"joint_infection": "1", "date_anon": ""})
    assert tables.lost_at() == "no infection"


def test_codes_of_another_patient_do_not_count(tables: Tables) -> None:
    tables.rows["ICD"].append(CODE | {"joint_infection": "1", "autoimmune": "1", "empi_anon": "10000002"})
    assert len(tables.cohort().knees) == 2


def test_autoimmune_disease_counts_whenever(tables: Tables) -> None:
    tables.rows["ICD"].append(CODE | {"autoimmune": "1", "date_anon": "1999-01-01"})
    assert tables.lost_at() == "no autoimmune disease"


@pytest.mark.parametrize(("age", "stays"), [("89", True), ("89.0", True), ("90", False), ("91", False), ("", False)])
def test_age(tables: Tables, age: str, stays: bool) -> None:
    tables.image(age_at_exam=age)
    assert len(tables.cohort().knees) == 2 if stays else tables.lost_at() == "age"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"view_position": "L"}, "frontal"),
        ({"view_position": "S"}, "frontal"),
        ({"view_position": ""}, "frontal"),
        ({"weight_bearing": "0"}, "weight-bearing"),
        ({"weight_bearing": ""}, "weight-bearing"),
        ({"laterality": "-1"}, "side known"),
        ({"laterality": ""}, "side known"),
        ({"arthroplasty": "B"}, "no arthroplasty"),
        ({"arthroplasty": "NL"}, "no arthroplasty"),
        ({"StudyDate_anon": ""}, "pain score of this side"),
    ],
)
def test_images_that_go(tables: Tables, changes: dict[str, str], rule: str) -> None:
    tables.image(**changes)
    assert tables.lost_at() == rule


def test_an_image_that_the_export_lacks_goes(tables: Tables) -> None:
    tables.rows["image_metadata"].append(IMAGE | {"SOPInstanceUID_anon": "1.4"})
    steps = tables.cohort().steps
    assert (steps[0].kept.images, steps[1].kept.images, steps[1].dropped.knees) == (2, 1, 2)


@pytest.mark.parametrize(("arthroplasty", "sides"), [("R", ["L"]), ("L", ["R"]), ("0", ["L", "R"]), ("", ["L", "R"])])
def test_only_the_replaced_knee_goes(tables: Tables, arthroplasty: str, sides: list[str]) -> None:
    tables.image(arthroplasty=arthroplasty)
    assert tables.cohort().knees["side"].to_list() == sides


@pytest.mark.parametrize(("laterality", "sides"), [("R", ["R"]), ("l", ["L"]), ("B", ["L", "R"])])
def test_a_score_is_of_its_side(tables: Tables, laterality: str, sides: list[str]) -> None:
    tables.pain({"laterality": laterality})
    assert tables.cohort().knees["side"].to_list() == sides


@pytest.mark.parametrize(
    "row",
    [
        {"laterality": ""}, {"laterality": "X"}, {"pain_score": "-1"}, {"pain_score": ""}, {"pain_score": "11"},
        {"pain_score": "some"}, {"date_anon": ""}, {"knee_pain": "0", "pain_location": "shoulder"},
        {"empi_anon": "10000002"},
    ],
)  # fmt: skip
def test_rows_that_are_no_score(tables: Tables, row: dict[str, str]) -> None:
    tables.pain(row)
    assert tables.lost_at() == "pain score of this side"


@pytest.mark.parametrize(
    ("rows", "pain"),
    [
        ([("B", 0, 2), ("B", 3, 9)], 2),  # the nearest
        ([("B", -3, 2), ("B", 3, 9)], 2),  # of two equally near ones the one before
        ([("B", 0, 2), ("L", 0, 9)], 9),  # of one day that of the side alone
        ([("B", 0, 2), ("L", 1, 9)], 2),  # but not of a later day
        ([("L", 0, 2), ("L", 0, 9)], 5.5),  # contradictions: their mean
        ([("L", 0, 2), ("L", 0, 2), ("L", 0, 8)], 5),  # exact duplicates count once
        ([("R", 0, 9), ("L", 5, 3)], 3),  # the other side is none
    ],
)
def test_which_score_is_taken(tables: Tables, rows: list[tuple[str, int, int]], pain: float) -> None:
    tables.pain(*({"laterality": side, "date_anon": days(off), "pain_score": str(n)} for side, off, n in rows))
    (left,) = tables.cohort().knees.filter(pl.col("side") == "L").to_dicts()
    assert left["pain"] == pain


rows_of_scores = st.lists(
    st.tuples(st.sampled_from("LRB"), st.integers(-9, 9), st.integers(0, 10)), min_size=1, max_size=8
)


@settings(max_examples=60, deadline=None)
@given(rows_of_scores)
def test_the_nearest_score_is_that_of_a_plain_loop(rows: list[tuple[str, int, int]]) -> None:
    knees = pl.DataFrame({"knee": ["x/L"], "PatientID": ["p"], "side": ["L"], "StudyDate": [DAY]})
    schema = {"PatientID": pl.String, "on": pl.Date, "side": pl.String, "own": pl.Boolean, "pain": pl.Float64}
    mine = [("p", DAY + timedelta(days=off), "L", side == "L", float(n)) for side, off, n in rows if side in "LB"]
    found = mrkr.with_nearest(knees, pl.DataFrame(mine, schema=schema, orient="row"), "mean").row(0, named=True)
    ranks = {(abs(off), off, side == "B") for side, off, _ in rows if side in "LB"}
    if not ranks:
        assert (found["pain"], found["days_between"]) == (None, None)
        return
    far, off, both = min(ranks)
    best = [n for side, day, n in rows if day == off and side == ("B" if both else "L")]
    assert found["pain"] == pytest.approx(sum(best) / len(best))
    assert (found["days_between"], found["pain_distance"]) == (off, far)


@pytest.mark.parametrize(("same_day", "pain"), [("mean", 5.5), ("max", 9), ("min", 2)])
def test_what_becomes_of_contradictory_scores_is_a_parameter(tables: Tables, same_day: str, pain: float) -> None:
    tables.pain({"pain_score": "2"}, {"pain_score": "9"})
    assert tables.cohort(same_day).knees["pain"].to_list() == [pain, pain]
    with pytest.raises(DataError, match="same_day is 'median'"):
        tables.cohort("median")


def test_duplicates_are_dropped_and_counted(tables: Tables) -> None:
    tables.rows["image_metadata"] *= 2
    tables.rows["pain"] *= 3
    tables.rows["ICD"] *= 2
    tables.rows["demographics"] *= 2
    source = tables.source()
    assert source.cleaned["duplicate image rows dropped"] == 1
    assert source.cleaned["duplicate pain rows dropped"] == 2
    assert source.cleaned["patients with contradictory demographics"] == 0
    assert len(tables.cohort().knees) == 2


def test_contradictory_demographics_are_unknown(tables: Tables) -> None:
    tables.rows["demographics"].append(PERSON | {"sex": "Male"})
    assert tables.cohort().knees.select("sex", "race").rows() == [(None, "Asian")] * 2
    assert tables.source().cleaned["patients with contradictory demographics"] == 1


def test_unknown_demographics_are_nothing(tables: Tables) -> None:
    tables.rows["demographics"] = [PERSON | {"race": "Unknown", "sex": "-1"}]
    assert tables.cohort().knees.select("sex", "race").rows() == [(None, None)] * 2


def test_two_different_rows_of_one_image_are_an_error(tables: Tables) -> None:
    tables.rows["image_metadata"].append(IMAGE | {"laterality": "L"})
    with pytest.raises(DataError, match="1 SOPInstanceUID_anon have rows that differ"):
        tables.cohort()


@pytest.mark.parametrize(("column", "value"), [("laterality", "X"), ("view_position", "Q"), ("arthroplasty", "maybe")])
def test_an_unknown_code_is_an_error_that_lists_it(tables: Tables, column: str, value: str) -> None:
    tables.image(**{column: value})
    with pytest.raises(DataError, match=rf"{column} holds '{value.upper()}' \(1 times\); known are"):
        tables.cohort()


@pytest.mark.parametrize("table", ["image_metadata", "pain", "demographics", "ICD"])
def test_a_missing_column_is_an_error_that_lists_what_is_there(tables: Tables, table: str) -> None:
    column = {"ICD": "autoimmune", "demographics": "race", "pain": "laterality", "image_metadata": "inverted"}[table]
    tables.headers[table] = tuple(name for name in tables.headers[table] if name != column)
    with pytest.raises(DataError, match=rf"MRKR_{table}\.csv lacks the column\(s\) {column}; it has empi_anon"):
        tables.cohort()


@pytest.mark.parametrize("table", ["image_metadata", "pain", "demographics", "ICD"])
def test_a_missing_table_is_an_error(tables: Tables, table: str) -> None:
    del tables.rows[table]
    with pytest.raises(DataError, match=rf"lacks MRKR_{table}\.csv"):
        tables.cohort()


def test_tables_of_another_export_are_an_error(tables: Tables) -> None:
    tables.uids = ["9.9"]
    with pytest.raises(DataError, match="none of the 1 images of the tables is in the index"):
        tables.cohort()


@pytest.mark.parametrize(
    ("table", "column"), [("image_metadata", "StudyDate_anon"), ("pain", "date_anon"), ("ICD", "date_anon")]
)
def test_most_dates_unreadable_is_an_error_and_one_is_counted(tables: Tables, table: str, column: str) -> None:
    (row,) = tables.rows[table]
    row |= {"joint_infection": "1", "date_anon": "1999-01-01"} if table == "ICD" else {}
    tables.rows[table] = [
        row,
        row | {"empi_anon": "7", "SOPInstanceUID_anon": "7.1"},
        row | {"empi_anon": "8", "SOPInstanceUID_anon": "8.1", column: "soon"},
    ]
    assert tables.source().unread == {f"MRKR_{table}.csv: the column {column}": 1}
    assert len(tables.cohort().knees) == 2
    tables.rows[table][0] = row | {column: "41275"}
    with pytest.raises(DataError, match=rf"MRKR_{table}\.csv: the column {column}: 2 of 3 values, such as '41275'"):
        tables.cohort()


@pytest.mark.parametrize("form", ["%Y-%m-%d 00:00:00.000", "%m/%d/%Y 0:00", "%Y-%m-%dT00:00:00.000000"])
def test_dates_with_times_are_dates_in_every_table(tables: Tables, form: str) -> None:
    tables.image(StudyDate_anon=f"{DAY:{form}}")
    tables.pain({"date_anon": f"{DAY:{form}}"})
    far = DAY + timedelta(days=400)
    tables.rows["ICD"].append(CODE | {"joint_infection": "1", "date_anon": f"{far:{form}}"})
    knees = tables.cohort().knees
    assert knees.select("StudyDate", "days_between").rows() == [(DAY, 0)] * 2


@pytest.mark.parametrize("table", ["image_metadata", "pain", "demographics", "ICD"])
def test_a_table_of_a_header_only_is_an_error(tables: Tables, table: str) -> None:
    tables.rows[table] = []
    with pytest.raises(DataError, match=rf"MRKR_{table}\.csv has no rows"):
        tables.cohort()


@pytest.mark.parametrize("table", ["pain", "demographics", "ICD"])
def test_patients_without_their_leading_zeros_are_an_error(tables: Tables, table: str) -> None:
    for rows in tables.rows.values():
        rows[0]["empi_anon"] = "0012"
    tables.rows["ICD"][0]["autoimmune"] = "1"
    tables.rows[table][0]["empi_anon"] = "12"
    with pytest.raises(DataError, match=rf"MRKR_{table}\.csv writes 1 patient\(s\) with other zeros") as error:
        tables.cohort()
    assert "0012" not in str(error.value) and "'12'" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "column"), [("image_metadata", "weight_bearing"), ("pain", "knee_pain"), ("ICD", "autoimmune")]
)
def test_a_flag_that_is_neither_0_nor_1_is_an_error(tables: Tables, table: str, column: str) -> None:
    tables.rows[table][0][column] = "perhaps"
    with pytest.raises(DataError, match=rf"MRKR_{table}\.csv: the column {column} holds 'perhaps' \(1 times\)"):
        tables.cohort()
    tables.rows[table][0][column] = "-1"
    assert tables.source().knees.height == 2


def test_sides_may_be_words_in_the_pain_table(tables: Tables) -> None:
    tables.pain({"laterality": "Left"})
    assert tables.cohort().knees["side"].to_list() == ["L"]


@pytest.mark.parametrize("table", ["image_metadata", "pain", "demographics", "ICD"])
def test_a_table_of_another_encoding_is_an_error_that_names_the_line(tables: Tables, table: str) -> None:
    tables.source()
    path = tables.folder / f"MRKR_{table}.csv"
    path.write_bytes(path.read_bytes().replace(b"10000001", "1000000é".encode("cp1252")))
    with pytest.raises(DataError, match=rf"MRKR_{table}\.csv, line 2: the byte 0xE9 is not UTF-8"):
        mrkr.read(tables.folder, tables.folder / "i.parquet", tables.folder)
