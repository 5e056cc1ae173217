"""Which part of a labelled film is learnt from: what the service would grade, or the film where it is a crop."""

import csv
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from inference.errors import DataError
from inference.findings import Side
from inference.predictor import Predictor
from inference.preprocess import PreprocessSpec
from inference.reading import read_study
from tests import phantoms
from training import cli, crops, film_knees, fit
from training.crops import CropSet, left_out_line, load_crops, read_left_out
from training.dicomize import dicomize
from training.index import index_export, read_index
from training.labels import Label, read_label_table
from training.standin import write_random_bundle

# SHA-256 of crops that the shipped grader learnt with: a left, a right, and one that is equalised since it is flat.
KL224 = {
    "9006140L": "3f841a2a3d85c5326c3298fc2867b346d78aa15b5b5778cc9416f43d760a9c98",
    "9006140R": "0542f36d1570bb4b3bc53b392b125618f2e777dc6ec72d35204978571e557be1",
    "9301426L": "2b49bbd189cf0bcd38b65102b93a31962531f3dc968fe597edd1a091a9495d39",
}


@pytest.fixture(scope="module")
def films() -> dict[str, Dataset]:
    return {
        "both": phantoms.dx_bilateral(seed=1),
        "left": phantoms.dx_knee("L", seed=2),
        "right": phantoms.dx_knee("R", seed=3),
        "lateral": phantoms.dx_lateral("L"),
    }


@pytest.fixture(scope="module")
def export(films: dict[str, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    for name, film in films.items():
        phantoms.write(film, folder / f"{name}.dcm")
    index_export(folder, folder / "index.parquet", workers=1)
    return folder


def label(film: Dataset, side: str, split: str = "train") -> Label:
    return Label(str(film.SOPInstanceUID), str(film.PatientID), Side(side), 2, split)


def test_both_knees_of_a_film_are_cut_as_the_service_cuts_them(
    films: dict[str, Dataset], export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [label(films["both"], "L"), label(films["right"], "R", "val"), label(films["both"], "R")]
    index = read_index(export / "index.parquet")
    parts = load_crops(export, index, labels, tmp_path)
    knees = {(uid, side): crop for part in parts.values() for uid, side, crop in _knees(part)}
    assert {name: len(part) for name, part in parts.items()} == {"train": 2, "val": 1}
    write_random_bundle(tmp_path / "standin")
    predictor = Predictor.load([tmp_path / "standin"], threads=1)
    served = 0
    for name in ("both", "right"):
        for look in predictor.score(read_study([export / f"{name}.dcm"])).looks:
            for seen in look.knees:
                if seen.crop is not None:
                    assert np.array_equal(knees[look.source.sop_instance_uid, str(seen.side)], seen.crop)
                    served += 1
    assert served == len(knees) == 3
    assert left_out_line(tmp_path) == ""

    # A second time nothing is looked at; with another finder everything is.
    def fail(*_: object) -> None:
        raise AssertionError("a film was read")

    monkeypatch.setattr(crops, "cut_film", fail)
    again = load_crops(export, index, labels, tmp_path)
    assert np.array_equal(again["train"].crops, parts["train"].crops)
    monkeypatch.setattr(crops, "identity", lambda: ["another"])
    with pytest.raises(AssertionError, match="a film was read"):
        load_crops(export, index, labels, tmp_path)


def test_what_the_service_would_refuse_is_left_out_with_its_reason(
    films: dict[str, Dataset], export: Path, tmp_path: Path
) -> None:
    labels = [
        label(films["left"], "L"),
        label(films["right"], "L"),
        label(films["lateral"], "L"),
        Label("1.2.3", "P", Side.LEFT, 0, "train"),
        label(films["lateral"], "R", "val"),
    ]
    index = read_index(export / "index.parquet")
    for _ in range(2):  # the second time from the cache
        parts = load_crops(export, index, labels, tmp_path)
        assert {name: part.uids for name, part in parts.items()} == {"train": (str(films["left"].SOPInstanceUID),)}
        found = {(knee.sop_instance_uid, knee.side): knee for knee in read_left_out(tmp_path)}
        codes = {key: knee.code for key, knee in found.items()}
        assert codes == {
            (str(films["right"].SOPInstanceUID), "L"): "side_contradictory",
            (str(films["lateral"].SOPInstanceUID), "L"): "no_frontal_view",
            (str(films["lateral"].SOPInstanceUID), "R"): "no_frontal_view",
            ("1.2.3", "L"): "not_indexed",
        }
        assert found[str(films["right"].SOPInstanceUID), "L"].reason.endswith("the label says L, the header R.")
    assert left_out_line(tmp_path).startswith("4 labelled knees left out (2 no_frontal_view, 1 ")
    with (tmp_path / "left_out.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["SOPInstanceUID", "side", "reason"]
    with pytest.raises(DataError, match="no labelled knee can be used, the first since no_frontal_view"):
        load_crops(export, index, labels[2:4], tmp_path)


def test_fit_says_what_it_leaves_out_and_what_it_was_not_told(
    films: dict[str, Dataset],
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fit, "fit_member", lambda *_: None)
    rows = [f"{film.SOPInstanceUID},{film.PatientID},L,1.0,train" for film in (films["left"], films["lateral"])]
    (tmp_path / "labels.csv").write_text("\n".join(["SOPInstanceUID,PatientID,side,kl,split", *rows]))
    run = tmp_path / "run"
    assert cli.main(["fit", "--export", str(export), "--labels", str(tmp_path / "labels.csv"), "--run", str(run)]) == 0
    said = capsys.readouterr().out
    assert f"1 labelled knees left out (1 no_frontal_view): see {run / 'left_out.csv'}" in said
    assert "SYNTHETIC: made knees" in said
    # The default configuration is that of the shipped grader, and speaks of other labels.
    assert "no [data] about these labels" in said


def test_a_film_as_large_as_a_crop_is_one_already() -> None:
    spec = PreprocessSpec()
    sizes = {(224, 224): True, (200, 224): True, (225, 224): False, (224, 300): False, (None, None): False}
    assert {size: crops.is_crop(dict(zip(("Rows", "Columns"), size, strict=True)), spec) for size in sizes} == sizes


def test_crops_need_no_finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grader is trained before there is a finder."""
    monkeypatch.setattr(film_knees, "reader", lambda: pytest.fail("the finder was loaded"))
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224), np.uint8)
    film = phantoms.wrap_dx(pixels, "L", identity="crop")
    phantoms.write(film, tmp_path / "export" / "crop.dcm")
    index_export(tmp_path / "export", tmp_path / "index.parquet", workers=1)
    spec = PreprocessSpec(flat_below=0)
    rows = read_index(tmp_path / "index.parquet")
    parts = load_crops(tmp_path / "export", rows, [label(film, "L")], tmp_path / "run", spec=spec)
    assert np.array_equal(parts["train"].crops[0], pixels)


def test_crops_of_kl224_stay_what_they_were(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "val").mkdir(parents=True)
    with tarfile.open(shared_data / "kl224" / "val.tar") as archive:
        for name in KL224:
            file = archive.extractfile(f"val/{name}.jpg")
            assert file is not None
            image = Image.open(io.BytesIO(file.read())).convert("L")
            image.save(tmp_path / "images" / "val" / f"{name}.png")
    with (tmp_path / "labels.csv").open("w", newline="") as table:
        rows = [(f"val/{name}.png", "val", 0, name[:-1], name[-1]) for name in KL224]
        csv.writer(table).writerows([("file", "split", "kl", "subject", "side"), *rows])
    out = tmp_path / "export"
    dicomize(tmp_path / "images", tmp_path / "labels.csv", out)
    index_export(out, out / "index.parquet", workers=1)
    labels = read_label_table(out / "labels.csv")
    part = load_crops(out, read_index(out / "index.parquet"), labels, tmp_path)["val"]
    found = {
        f"{subject}{side}": crop for subject, side, crop in zip(part.subjects, part.sides, part.crops, strict=True)
    }
    assert {name: hashlib.sha256(crop.tobytes()).hexdigest() for name, crop in found.items()} == KL224


def _knees(part: CropSet) -> list[tuple[str, str, npt.NDArray[np.uint8]]]:
    return list(zip(part.uids, part.sides, part.crops, strict=True))
