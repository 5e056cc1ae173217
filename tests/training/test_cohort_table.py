"""Cohorts from a table of one's own, in CSV, tab-separated text and Parquet."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from inference.errors import DataError
from training import cli
from training.cohorts import table
from training.cohorts.rows import Cohort, select
from training.cohorts.rules import Counts, read_rules, shipped

ROWS: list[dict[str, Any]] = [
    {"SOPInstanceUID": "1.1", "side": "L", "pain": "4", "kl": "2.0", "age": "61", "sex": "female", "split": "train"},
    {"SOPInstanceUID": "1.1", "side": "right", "pain": "7", "kl": "", "age": "61", "sex": "F", "split": "train"},
    {"SOPInstanceUID": "1.2", "side": "R", "pain": "", "kl": "4", "age": "x", "sex": "M", "split": "val"},
    {"SOPInstanceUID": "1.2", "side": "R", "pain": "", "kl": "4", "age": "x", "sex": "M", "split": "val"},
    {"SOPInstanceUID": "9.9", "side": "R", "pain": "2", "kl": "1", "age": "50", "sex": "", "split": "val"},
]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    names = ("path", "reason", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "StudyDate")
    rows = [("a/1", None, "1.1", "1", "p", "20120301"), ("a/2", None, "1.2", "2", "q", None)]
    pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row").write_parquet(tmp_path / "index.parquet")
    return tmp_path / "index.parquet"


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pl.DataFrame(rows, schema={name: pl.String for row in rows for name in row})
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


def cohort(index: Path, rows: list[dict[str, Any]], *targets: str, name: str = "t.csv") -> Cohort:
    source = table.read(written(index.parent / name, rows), index, index.parent, targets)
    return select(source, read_rules(shipped("table"), "table"))


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet"])
def test_rows_become_knees(index: Path, name: str) -> None:
    result = cohort(index, ROWS, name=name)
    assert [step.kept.knees for step in result.steps] == [4, 3, 3, 2]
    assert result.targets == ("pain", "kl")
    left, right = result.knees.to_dicts()
    assert (left["knee"], left["path"], left["PatientID"], left["sex"], left["age"]) == ("1.1/L", "a/1", "p", "F", 61.0)
    assert (left["pain"], left["kl"], left["bilateral"], left["split"]) == (4.0, 2, True, "train")
    assert (right["pain"], right["kl"], str(right["StudyDate"])) == (7.0, None, "2012-03-01")


def test_the_first_target_must_be_there_and_is_chosen(index: Path) -> None:
    result = cohort(index, ROWS, "kl")
    assert result.knees["knee"].to_list() == ["1.1/L", "1.2/R"]
    assert result.knees["kl"].to_list() == [2, 4]
    assert result.knees["bilateral"].to_list() == [True, False]


def test_files_stand_for_images_and_b_for_both_knees(index: Path) -> None:
    rows = [{"file": "./a/1", "side": "B", "womac": "3"}, {"file": "a/none", "side": "L", "womac": "1"}]
    result = cohort(index, rows, "womac")
    assert result.knees.select("knee", "womac", "bilateral").rows() == [("1.1/L", 3.0, True), ("1.1/R", 3.0, True)]


def test_flags_and_what_the_image_shows_may_be_said(index: Path) -> None:
    rows = [{"SOPInstanceUID": "1.2", "side": "L", "pain": "1", "laterality": "B", "flipped": "1", "inverted": "yes",
             "PatientID": "other", "days_between": "-3"}]  # fmt: skip
    (row,) = cohort(index, rows).knees.to_dicts()
    assert (row["bilateral"], row["flipped"], row["inverted"], row["PatientID"]) == (True, True, True, "other")
    assert row["days_between"] == -3


def test_rules_may_ask_for_further_columns(index: Path, tmp_path: Path) -> None:
    rows = [
        {"SOPInstanceUID": "1.1", "side": side, "pain": "1", "bmi": bmi} for side, bmi in (("L", "31"), ("R", "25"))
    ]
    own = tmp_path / "own.toml"
    rule = '\n[[rule]]\nname = "bmi"\nsentence = "BMI below 30."\ncolumn = "bmi"\nless_than = 30\n'
    own.write_text(shipped("table").read_text("utf-8") + rule, encoding="utf-8")
    arguments = ["--tables", str(written(tmp_path / "t.csv", rows)), "--rules", str(own), "--targets", "pain"]
    export = ["--export", str(tmp_path), "--index", str(index), "--out", str(tmp_path / "out")]
    assert cli.main(["cohort", "table", *export, *arguments]) == 0
    assert pl.read_parquet(tmp_path / "out" / "cohort.parquet")["knee"].to_list() == ["1.1/R"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"SOPInstanceUID": "1.1", "side": "up", "pain": "1"}], r"side holds 'UP' \(1 times\)"),
        ([{"SOPInstanceUID": "1.1", "side": "L", "laterality": "R", "pain": "1"}], "1 row.s. have a side"),
        ([{"SOPInstanceUID": "1.1", "pain": "1"}], r"lacks the column\(s\) side"),
        ([{"SOPInstanceUID": "1.1", "side": "L"}], "has no target"),
        ([{"side": "L", "pain": "1"}], r"lacks the column\(s\) file"),
        ([{"SOPInstanceUID": "8", "side": "L", "pain": "1"}], "none of the 1 images"),
        ([{"SOPInstanceUID": "1.1", "side": "L", "pain": p} for p in "12"], "1 knee.s. are in table more than once"),
        ([{"SOPInstanceUID": "1.1", "side": "L", "pain": ""}], "after 'label' none is left"),
    ],
)
def test_wrong_tables_are_errors(index: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        cohort(index, rows)


def test_missing_files_are_errors(index: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        table.read(tmp_path / "none.csv", index, tmp_path)
    with pytest.raises(DataError, match="genu-train index"):
        table.read(written(tmp_path / "t.csv", ROWS), tmp_path / "none.parquet", tmp_path)


def raw(index: Path, text: str, *targets: str) -> Cohort:
    (index.parent / "raw.csv").write_text(text, encoding="utf-8")
    return select(table.read(index.parent / "raw.csv", index, index.parent, targets), RULES)


RULES = read_rules(shipped("table"), "table")


def test_a_study_in_the_table_is_that_of_the_header(index: Path) -> None:
    rows = [{"SOPInstanceUID": "1.1", "StudyInstanceUID": "77", "side": "L", "pain": "1"}]
    result = cohort(index, rows)
    assert result.knees["StudyInstanceUID"].to_list() == ["1"]
    kept = result.steps[-1].kept
    assert isinstance(kept, Counts) and kept.studies == 1


@pytest.mark.parametrize(
    "text",
    [
        "sopinstanceuid,Side,Pain\n1.1,LEFT,4\n",
        " SOPInstanceUID ; side ; pain \n 1.1 ; left ; 4 \n;;\n",
        "SOPInstanceUID,side,pain,,note,note\n1.1,l,4.0,,a,b\n1.1,l,4.0,,a,b\n",
    ],
)
def test_names_separators_spaces_and_repeated_rows_do_not_matter(index: Path, text: str) -> None:
    result = raw(index, text)
    assert result.knees.select("knee", "pain").rows() == [("1.1/L", 4.0)]
    assert result.targets == ("pain",)


HEAD = "SOPInstanceUID,side,pain,PatientID,StudyDate,flipped,bmi"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "raw.csv has no rows"),
        (['1.1,L,"4,5",,,,', "1.1,R,4,,,,"], r"the column pain has decimal commas, as in '4,5'"),
        (['1.1,L,4,,,,"31,5"'], r"the column bmi has decimal commas, as in '31,5'"),
        (["1.1,L,much,,,,", "1.1,R,some,,,,", "1.2,R,4,,,,"], r"the column pain: 2 of 3 values, such as 'much'"),
        (["1.1,L,4,,41275,,", "1.1,R,4,,,,"], r"the column StudyDate: 1 of 1 values, such as '41275', are no dates"),
        (["1.1,L,4,,,mirrored,"], r"the column flipped holds 'mirrored' \(1 times\)"),
        ([",L,4,,,,", "1.1,R,4,,,,"], r"SOPInstanceUID is empty in 1 row\(s\)"),
        (["1.1,L,4,0p,,,", "1.2,R,4,,,,"], r"PatientID is empty in 1 row.*'0p' in the table, 'p' in the header"),
        (["1.1,L,4,7,,,", "1.1,R,4,07,,,"], r"rows of one SOPInstanceUID name different patients, such as '07', '7'"),
    ],
)  # fmt: skip
def test_what_would_drop_or_split_knees_in_silence_is_an_error(index: Path, rows: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        raw(index, "\n".join([HEAD, *rows, ""]))


@pytest.mark.parametrize("targets", [("side",), ("pain", "pain"), ("StudyInstanceUID",), ("PatientID", "pain")])
def test_targets_that_are_no_labels_are_errors(index: Path, targets: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="is no label, or asked for twice"):
        raw(index, f"{HEAD}\n1.1,L,4,,,,\n", *targets)


def test_what_is_not_read_is_told_in_the_flow(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "raw.csv"
    rows = ["1.1,L,4,,2012-03-01 00:00:00.000,,", "1.1,R,many,,3/1/2012 0:00,,", "1.2,R,3,,soon,,"]
    written.write_text("\n".join([HEAD, *rows, ""]), encoding="utf-8")
    out = tmp_path / "out"
    arguments = ["--export", tmp_path, "--index", index, "--tables", written, "--out", out]
    assert cli.main(["cohort", "table", *map(str, arguments)]) == 0
    said = [
        "raw.csv: the column pain: 1 value could not be read and counts as missing.",
        "raw.csv: the column StudyDate: 1 value could not be read and counts as missing.",
    ]
    shown = capsys.readouterr().out
    assert all(line in text for line in said for text in (shown, (out / "flow.md").read_text("utf-8")))
    assert all(line in (out / "flow.svg").read_text("utf-8") for line in said)
    unread = json.loads((out / "cohort.json").read_text("utf-8"))["unreadable"]
    assert unread == {"raw.csv: the column pain": 1, "raw.csv: the column StudyDate": 1}
    knees = pl.read_parquet(out / "cohort.parquet")
    assert [str(day) for day in knees["StudyDate"]] == ["2012-03-01", "None"]


@pytest.mark.parametrize("out", ["taken", "taken/below"])
def test_a_file_where_the_folder_is_to_be_is_named_before_anything_is_read(
    index: Path, tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    arguments = ["--export", tmp_path, "--index", index, "--tables", tmp_path / "none.csv", "--out", tmp_path / out]
    assert cli.main(["cohort", "table", *map(str, arguments)]) == 2
    assert "taken is a file; name a folder." in capsys.readouterr().err
