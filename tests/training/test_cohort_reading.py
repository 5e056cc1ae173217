"""Tables as people hand them in: encodings, separators, torn rows, odd dates and numbers, empty files."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from inference.errors import DataError
from training.cohorts import columns, reading


def written(folder: Path, content: bytes | str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("a,b\n1,x\n", "t.csv"),
        ("\ufeffa,b\r\n1,x\r\n", "t.csv"),
        ('\ufeff"a","b"\n1,x\n', "t.csv"),
        ("a;b\n1;x\n", "t.csv"),
        ("a\tb\n1\tx\n", "t.csv"),
        ("a\tb\n1\tx\n", "t.tsv"),
        ("a|b\n1|x\n", "t.txt"),
        ("a,b\n1,x\n", "t.txt"),
        ("\n A , b \n 1 ,\u00a0x \n,\n\n", "t.csv"),
        (gzip.compress(b"a,b\n1,x\n", mtime=0), "t.csv"),
        ('a,b,"c;d;e"\n1,x,\n', "t.csv"),
        ("a\tb\tc, d, e and f\n1\tx\t\n", "t.tsv"),
        ("a,b,c,c,,\n1,x,2,3,,\n", "t.csv"),
    ],
)
def test_a_table_is_read_as_it_comes(tmp_path: Path, content: bytes | str, name: str) -> None:
    assert reading.rows(written(tmp_path, content, name), ("a", "b")).rows() == [("1", "x")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,Français\n".encode("cp1252"), r"t\.csv, line 2: the byte 0xE7 is not UTF-8.*iconv -f WINDOWS-1252"),
        ("a,Größe\n1,x\n".encode("cp1252"), r"t\.csv, line 1: the byte 0xF6 is not UTF-8"),
        ("a,b\n1,x\n".encode("utf-16"), r"t\.csv is UTF-16, not UTF-8.*iconv -f UTF-16"),
        (b"a,b\n1,2\n1,2,3\n", r"t\.csv, line 3: 3 values, but the header has 2"),
        (b'a,b\n1,2\n1,"2\n3,4\n', r"t\.csv, the row that begins in line 3: .*quotation mark"),
        (b"", r"t\.csv is empty"),
        (b"a,b\n", r"t\.csv has no rows with a value of a"),
        (b"a,b\n,\n,2\n", r"t\.csv has no rows with a value of a"),
        (b"a,A,b\n1,2,3\n", r"t\.csv has the column\(s\) a more than once"),
        (b"a,a,b\n1,2,3\n", r"t\.csv has the column\(s\) a more than once"),
        (b"a,c\n1,2\n", r"t\.csv lacks the column\(s\) b; it has a, c"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        reading.rows(written(tmp_path, content), ("a", "b"))


def test_a_torn_or_odd_parquet_file_is_an_error(tmp_path: Path) -> None:
    pl.DataFrame({"a": [[1], [2]], "b": ["x", "y"]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet is not a table that can be read \(.*cannot cast List"):
        reading.rows(tmp_path / "t.parquet", ("a", "b"))
    with pytest.raises(DataError, match="is missing, or no file"):
        reading.names(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "2012-01-31 00:00:00.000", "2012-01-31T00:00:00.000000", "2012-01-31 10:00:00.000000+00:00", "2012-01-31T1:02Z",
        "1/31/2012 0:00", "1/31/2012 12:00:00 AM", "31.1.2012", "2012.01.31", "2012-1-31",
    ],
)  # fmt: skip
def test_dates_with_times_are_dates(text: str) -> None:
    assert str(pl.DataFrame({"x": [text]}).select(columns.date(pl.col("x"))).item()) == "2012-01-31"


@pytest.mark.parametrize(
    "text", ["1/5/13", "13-01-05", "41275", "2012-02-31 0:00", "2012-01-31 soon", "20120131000000"]
)
def test_what_may_be_another_day_is_no_date(text: str) -> None:
    assert pl.DataFrame({"x": [text]}).select(columns.date(pl.col("x"))).item() is None


def test_unreadable_dates_are_counted_and_most_of_them_are_an_error() -> None:
    unread: dict[str, int] = {}
    frame = pl.DataFrame({"day": ["2012-01-31", "2012-02-01", "soon", None]})
    result = columns.with_dates(frame, ["day"], "t.csv", unread)
    assert [str(day) for day in result["day"]] == ["2012-01-31", "2012-02-01", "None", "None"]
    assert unread == {"t.csv: the column day": 1}
    serial = pl.DataFrame({"day": ["41275", "41276", "2012-01-31", None]})
    with pytest.raises(DataError, match=r"t\.csv: the column day: 2 of 3 values, such as '41275', are no dates"):
        columns.with_dates(serial, ["day"], "t.csv", unread)
    assert columns.with_dates(serial, ["day"], "the index", unread, strict=False)["day"].null_count() == 3
    assert unread["the index: the column day"] == 2


def test_days_before_months_are_an_error_and_not_another_day() -> None:
    frame = pl.DataFrame({"day": ["05/02/2012", "06/02/2012", "13/02/2012"]})
    with pytest.raises(DataError, match="the column day has the day before the month, as in '13/02/2012'"):
        columns.with_dates(frame, ["day"], "t.csv", {})


def test_identifiers_that_lost_their_zeros_are_an_error() -> None:
    ours = pl.Series(["0012", "34"])
    columns.check_ids(ours, pl.Series(["0012", "99", "12"]), "t.csv")
    for theirs, how in (("12", "with other zeros in front.* of 4 characters with 2"), ("12.0", 'with "\\.0"')):
        with pytest.raises(DataError, match=rf"t\.csv writes 1 patient\(s\) {how}"):
            columns.check_ids(ours, pl.Series([theirs, "34", "99"]), "t.csv")
