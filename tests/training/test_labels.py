"""labels.csv of the grader: wrong values end before an image is opened, and patients are not named."""

from pathlib import Path

import pytest

from inference.errors import DataError
from inference.findings import Side
from training import cli, crops
from training.labels import Label, read_label_table

HEAD = "SOPInstanceUID,PatientID,side,kl,split\n"


def test_rows_are_read_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("\ufeff" + HEAD + "1.2.3,P 1,R,2.0,train\n1.2.3, P 1 ,L,0,train\n1.2.4,P2,L,4,val\n", "utf-8")
    assert read_label_table(path) == [
        Label("1.2.3", "P 1", Side.RIGHT, 2, "train"),
        Label("1.2.3", "P 1", Side.LEFT, 0, "train"),
        Label("1.2.4", "P2", Side.LEFT, 4, "val"),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1.2.4,SECRET,L,,train", "row 3: kl is ''; it must be a grade 0 to 4"),
        ("1.2.4,SECRET,L,-1,train", "row 3: kl is '-1'"),
        ("1.2.4,SECRET,L,9,train", "row 3: kl is '9'"),
        ("1.2.4,SECRET,L,2.5,train", "row 3: kl is '2.5'"),
        ("1.2.4,SECRET,L,nan,train", "row 3: kl is 'nan'"),
        ("1.2.4,SECRET,L", "row 3: kl is ''"),
        ("1.2.4,SECRET,B,1,train", "row 3: side is 'B'; it must be L or R"),
        ("1.2.4,SECRET,L,1,", "row 3: split is empty"),
        ("1.2.4, ,L,1,train", "row 3: PatientID is empty"),
        ("film.dcm,SECRET,L,1,train", "row 3: SOPInstanceUID is 'film.dcm'"),
        ("1.2.3,SECRET,L,1,train", "row 3: SOPInstanceUID 1.2.3, side L stands in row 2 too"),
        ("1.2.3,SECRET,R,1,train", "row 3: the film 1.2.3 has another PatientID than in row 2"),
        ('1.2.4,"SECRET\0,L,1,train', "must be|is no CSV"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_row(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(HEAD + "1.2.3,P1,L,0,train\n" + row + "\n", "utf-8")
    with pytest.raises(DataError, match=message) as error:
        read_label_table(path)
    assert "SECRET" not in str(error.value)


def test_what_is_no_table_of_labels_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    with pytest.raises(DataError, match="is missing"):
        read_label_table(path)
    for content, message in ((HEAD, "has no row"), ("SOPInstanceUID,kl\n1.2,3\n", "lacks the column"), ("", "lacks")):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_label_table(path)
    path.write_bytes(HEAD.encode() + b"1.2.3,Fran\xe7ois,L,0,train\n")
    with pytest.raises(DataError, match="no CSV in UTF-8"):
        read_label_table(path)


def test_nothing_is_cropped_before_the_labels_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crops, "load_crops", lambda *_, **__: pytest.fail("crops were made"))
    (tmp_path / "labels.csv").write_text(HEAD + "1.2.3,P1,L,seven,train\n")
    assert cli.main(["fit", "--export", str(tmp_path), "--run", str(tmp_path / "run")]) == 2
    assert "row 2: kl is 'seven'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
