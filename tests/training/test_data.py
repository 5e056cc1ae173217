"""From image files to an indexed DX export, and to crops of it."""

import csv
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from inference.errors import DataError
from inference.findings import Side
from inference.preprocess import PreprocessSpec
from inference.reading import read_study
from inference.studies import select
from training.crops import load_crops
from training.dicomize import dicomize, read_labels
from training.index import index_export, read_index
from training.labels import read_label_table
from training.splits import check_disjoint, held_back

ROWS = [
    ("train/100L.png", "train", 2, "100", "L"),
    ("train/100R.png", "train", 0, "100", "R"),
    ("val/200R.png", "val", 4, "200", "R"),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    generator = np.random.default_rng(0)
    for name, *_ in ROWS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (64, 62), np.uint8)).save(folder / name)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "split", "kl", "subject", "side"), *ROWS])
    return folder


@pytest.fixture
def export(source: Path, tmp_path: Path) -> Path:
    out = tmp_path / "export"
    assert dicomize(source, source / "labels.csv", out) == 3
    index_export(out, out / "index.parquet")
    return out


def test_wrapped_images_are_valid_dx_with_the_same_pixels(source: Path, export: Path) -> None:
    for row in read_labels(source / "labels.csv"):
        path = export / "images" / row.split / f"{row.sop_instance_uid}.dcm"
        ds = pydicom.dcmread(path)
        assert np.array_equal(ds.pixel_array, np.asarray(Image.open(source / row.file)))
        assert (ds.ImageLaterality, ds.PatientID) == (row.side, row.subject)
        (candidate,) = select(read_study([path])).candidates
        assert candidate.stating.side == row.side
        try:
            found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
        except FileNotFoundError:
            pytest.skip("dciodvfy is missing: apt-get install dicom3tools")
        assert [line for line in found.splitlines() if line.startswith("Error")] == []


def test_wrapping_twice_writes_the_same_files(source: Path, export: Path, tmp_path: Path) -> None:
    dicomize(source, source / "labels.csv", tmp_path / "again")
    for path in sorted((export / "images").rglob("*.dcm")):
        assert (tmp_path / "again" / path.relative_to(export)).read_bytes() == path.read_bytes()


def test_archives_are_read_as_folders_are(source: Path, export: Path, tmp_path: Path) -> None:
    archives = tmp_path / "archives"
    archives.mkdir()
    for split in ("train", "val"):
        with tarfile.open(archives / f"{split}.tar", "w") as tar:
            tar.add(source / split, split)
    dicomize(archives, source / "labels.csv", tmp_path / "again")
    assert len(list((tmp_path / "again" / "images").rglob("*.dcm"))) == 3


def test_a_lost_image_is_an_error_that_names_it(source: Path, tmp_path: Path) -> None:
    (source / "val/200R.png").unlink()
    with pytest.raises(DataError, match="200R"):
        dicomize(source, source / "labels.csv", tmp_path / "out")


IMAGES = "file,split,kl,subject,side\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,split,kl,subject\n", "lacks the column"),
        (IMAGES, "has no row"),
        (IMAGES + "a,train,5,SECRET,L\n", "row 2: kl is '5'"),
        (IMAGES + "a,train,1,SECRET,X\n", "row 2: side is 'X'"),
        (IMAGES + ",train,1,SECRET,L\n", "row 2: file is empty"),
        (IMAGES + "a,,1,SECRET,L\n", "row 2: split is ''"),
        (IMAGES + "a,../../etc,1,SECRET,L\n", "row 2: split is '../../etc'"),
        (IMAGES + "a,train,1,,L\n", "row 2: subject is empty"),
        (IMAGES + "a,train,1,SECRET,L\na,train,1,SECRET,R\n", "row 3: its file stands in a row before"),
    ],
)
def test_a_wrong_label_table_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_labels(tmp_path / "labels.csv")
    assert "SECRET" not in str(error.value)


def test_a_label_table_is_read_as_spreadsheets_write_it(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("\ufeff" + IMAGES + "a.png, train ,2.0, 7 ,L\n", "utf-8")
    (row,) = read_labels(tmp_path / "labels.csv")
    assert (row.file, row.split, row.kl, row.subject) == ("a.png", "train", 2, "7")
    with pytest.raises(DataError, match="is missing"):
        read_labels(tmp_path / "none.csv")


@pytest.mark.parametrize("damage", ["no archive", "cut off"])
def test_an_archive_that_cannot_be_read_is_an_error(source: Path, tmp_path: Path, damage: str) -> None:
    archive = tmp_path / "images.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(source / "train", "train")
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 3] if damage == "cut off" else b"nothing" * 1000)
    with pytest.raises(DataError, match=r"images\.tar is no \.tar archive that can be read"):
        dicomize(archive, source / "labels.csv", tmp_path / "out")


def test_right_knees_are_mirrored_and_the_cache_is_used(export: Path, source: Path, tmp_path: Path) -> None:
    index, labels = read_index(export / "index.parquet"), read_label_table(export / "labels.csv")
    spec = PreprocessSpec(crop_size=64, flat_below=0)
    parts = load_crops(export, index, labels, tmp_path, spec=spec)
    again = load_crops(Path("/nowhere"), index, labels, tmp_path, spec=spec)
    assert np.array_equal(parts["train"].crops, again["train"].crops)
    train = parts["train"]
    right = train.sides.index("R")
    picture = np.asarray(Image.open(source / "train/100R.png"))
    # 64 rows and 62 columns: padded to a square.
    assert np.array_equal(train.crops[right][:, 1:63], picture[:, ::-1])


def test_a_label_that_contradicts_the_header_is_an_error(export: Path, tmp_path: Path) -> None:
    labels = read_label_table(export / "labels.csv")
    labels[0] = replace(labels[0], side=Side.RIGHT)
    with pytest.raises(DataError, match="the label says R"):
        load_crops(export, read_index(export / "index.parquet"), labels, tmp_path)


def test_patients_are_held_back_whole_and_always_the_same() -> None:
    subjects = [str(number // 2) for number in range(2000)]
    chosen = held_back(subjects, 0.1)
    assert chosen == held_back(subjects, 0.1)
    assert chosen[::2] == chosen[1::2]
    assert 0.07 < sum(chosen) / len(chosen) < 0.13


def test_a_shared_patient_fails_loudly() -> None:
    check_disjoint(train=["1", "2"], val=["3"])
    with pytest.raises(DataError, match=r"1 patient\(s\) are both in 'train' and in 'val'"):
        check_disjoint(train=["1", "2"], val=["2", "3"])
