"""Rules as data: what a file may say, what each condition keeps, and how losses are counted and drawn."""

from dataclasses import astuple
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import DataError
from training.cohorts import columns, flow, reading
from training.cohorts.rules import CONDITIONS, apply, count, read_rules, shipped

HEAD = 'source = "mrkr"\ntitle = "All"\n[parameters]\nwindow = 7\n'


def rules_of(tmp_path: Path, *rules: str, head: str = HEAD):  # type: ignore[no-untyped-def]
    path = tmp_path / "rules.toml"
    path.write_text(head + "".join(f"[[rule]]\n{rule}\n" for rule in rules), encoding="utf-8")
    return read_rules(path, "mrkr")


def knees(values: list[object], column: str = "value") -> pl.DataFrame:
    number = [str(place) for place in range(len(values))]
    return pl.DataFrame({
        "knee": [f"{place}/L" for place in number], "SOPInstanceUID": number, "StudyInstanceUID": number,
        "PatientID": number, column: values,
    })  # fmt: skip


RULE = 'name = "one"\nsentence = "Within {window} days."\ncolumn = "value"\n'


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("one_of = [7]", [7.0]),
        ("none_of = [7]", [6.0, 8.0]),
        ("at_least = 7", [7.0, 8.0]),
        ("at_most = 7", [6.0, 7.0]),
        ("more_than = 7", [8.0]),
        ("less_than = 7", [6.0]),
        ('at_most = "window"', [6.0, 7.0]),
        ("at_least = 7\nat_most = 7", [7.0]),
        ('more_than = 7\nmissing = "keep"', [8.0, None]),
    ],
)
def test_every_condition_keeps_what_it_says(tmp_path: Path, condition: str, kept: list[float | None]) -> None:
    result, steps = apply(knees([6.0, 7.0, 8.0, None]), rules_of(tmp_path, RULE + condition))
    assert result["value"].to_list() == kept
    assert astuple(steps[1].dropped) == (4 - len(kept),) * 4


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=20), st.sampled_from(CONDITIONS), st.integers(-5, 5))
def test_what_stays_and_what_goes_is_everything(values: list[int | None], condition: str, limit: int) -> None:
    text = f"{condition} = [{limit}]" if condition in ("one_of", "none_of") else f"{condition} = {limit}"
    from training.cohorts.rules import Rule, Rules

    value = [limit] if condition in ("one_of", "none_of") else limit
    rule = Rule("r", text, "", "value", {condition: value})
    frame = knees(list(values)).with_columns(pl.col("value").cast(pl.Float64))
    kept, (first, last) = apply(frame, Rules("mrkr", "All", {}, (rule,), ""))
    assert astuple(first.kept) == tuple(a + b for a, b in zip(astuple(last.kept), astuple(last.dropped), strict=True))
    assert kept["value"].null_count() == 0
    assert kept["knee"].to_list() == [knee for knee in frame["knee"] if knee in set(kept["knee"])]


def test_losses_are_counted_in_every_unit() -> None:
    frame = pl.DataFrame({
        "PatientID": ["a", "a", "b", "b"], "StudyInstanceUID": ["1", "1", "2", "3"],
        "SOPInstanceUID": ["x", "x", "y", "z"], "knee": ["x/L", "x/R", "y/L", None],
    })  # fmt: skip
    assert astuple(count(frame)) == (2, 3, 3, 3)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (RULE, "has no condition"),
        (RULE + "at_most = 7\nage = 3", "age is no key"),
        ('name = "one"\ncolumn = "value"\nat_most = 7', "lacks sentence"),
        (RULE + 'at_most = "days"', "no parameter"),
        (RULE + "one_of = 3", "list of values"),
        (RULE + 'one_of = ["F", 1]', r"one_of is \['F', 1\]; all must be of one kind"),
        (RULE + "none_of = [true, 1]", "all must be of one kind"),
        (RULE + "one_of = [[1]]", "all must be of one kind"),
        (RULE + "at_most = true", "number or a parameter"),
        (RULE + 'at_most = 7\nmissing = "perhaps"', "drop or keep"),
    ],
)
def test_a_wrong_rule_is_an_error_that_names_it(tmp_path: Path, rule: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rules_of(tmp_path, rule)


def test_wrong_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        read_rules(tmp_path / "none.toml", "mrkr")
    (tmp_path / "bad.toml").write_text("[[rule", encoding="utf-8")
    with pytest.raises(DataError, match="no TOML"):
        read_rules(tmp_path / "bad.toml", "mrkr")
    (tmp_path / "bad.toml").write_bytes('source = "Größe"'.encode("cp1252"))
    with pytest.raises(DataError, match="no TOML"):
        read_rules(tmp_path / "bad.toml", "mrkr")
    for content, message in {"rule = [1]": r"\[\[rule\]\] tables", "parameters = 3": r"\[parameters\] table"}.items():
        (tmp_path / "bad.toml").write_text(f'source = "mrkr"\n{content}\n', encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_rules(tmp_path / "bad.toml", "mrkr")
    with pytest.raises(DataError, match="rules for 'mrkr'"):
        read_rules(shipped("mrkr"), "table")
    with pytest.raises(DataError, match="no parameter days"):
        read_rules(shipped("mrkr"), "mrkr", {"days": 3})
    with pytest.raises(DataError, match="more than one rule of the name one"):
        rules_of(tmp_path, RULE + "at_most = 1", RULE + "at_most = 2")


def test_a_rule_that_does_not_fit_the_source_is_an_error(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, RULE + "at_most = 7")
    with pytest.raises(DataError, match="asks for the column 'value'; there are PatientID"):
        apply(knees([1.0], "other"), rules)
    with pytest.raises(DataError, match=r"of String, which .*at_most.* is not"):
        apply(knees(["a"]), rules)
    with pytest.raises(DataError, match=r"of Date, which .*at_most.* is not"):
        apply(knees([date(2012, 3, 1)]), rules)
    for value, listed in (("a", "[1]"), (True, '["F"]'), (1.0, '["F"]'), ("a", "[true]")):
        with pytest.raises(DataError, match=r"which .*one_of.* is not"):
            apply(knees([value]), rules_of(tmp_path, RULE + f"one_of = {listed}"))


@pytest.mark.parametrize("source", ["mrkr", "oai_xr", "table"])
def test_the_shipped_rules_are_rules_with_sentences(source: str) -> None:
    rules = read_rules(shipped(source), source)
    assert rules.rules
    assert all(rule.sentence.endswith(".") and "{" not in rule.sentence + rule.loss for rule in rules.rules)


def test_the_flow_is_drawn_and_written_the_same_every_time(tmp_path: Path) -> None:
    _, steps = apply(knees([6.0, 7.0, 8.0]), rules_of(tmp_path, RULE + "at_most = 7"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        flow.write(steps, tmp_path / name)
    for file in ("flow.csv", "flow.md", "flow.png", "flow.svg"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    drawn = (tmp_path / "one" / "flow.svg").read_text("utf-8")
    assert "2 patients · 2 studies · 2 images · 2 knees" in drawn
    assert "1 patient · 1 study · 1 image · 1 knee" in drawn
    assert "**one**: Within 7 days. | 2 (−1) | 2 (−1)" in (tmp_path / "one" / "flow.md").read_text("utf-8")


def one(expression: pl.Expr, text: str | None) -> object:
    return pl.DataFrame({"x": [text]}, schema={"x": pl.String}).select(expression).item()


@pytest.mark.parametrize(
    "text", ["2012-01-31", "20120131", "01/31/2012", "31.01.2012", "2012-01-31 10:20:30", "2012-01-31T10:20:30"]
)
def test_dates_of_several_forms(text: str) -> None:
    assert str(one(columns.date(pl.col("x")), text)) == "2012-01-31"


@pytest.mark.parametrize("text", ["2012-02-31", "soon", "-1", None])
def test_what_is_no_date_is_nothing(text: str | None) -> None:
    assert one(columns.date(pl.col("x")), text) is None


@pytest.mark.parametrize(("text", "value"), [("2", 2), ("2.0", 2), ("4", 4), ("5", None), ("-1", None), ("1.5", None)])
def test_grades(text: str, value: int | None) -> None:
    assert one(columns.grade(pl.col("x")), text) == value


@pytest.mark.parametrize("text", ["nan", "inf", "x", "", "11", "-1"])
def test_what_is_no_number_in_range_is_nothing(text: str) -> None:
    assert one(columns.number(pl.col("x"), 0, 10), text) is None


def test_a_table_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="not a table that can be read"):
        reading.scan(tmp_path / "a.parquet", ["x"])
    with pytest.raises(DataError, match=r"lacks b\.csv; it holds a\.parquet"):
        columns.find_table(tmp_path, "b.csv")
