"""The shipped grader on real knees, through DICOM: the figures of its card hold for whoever loads it."""

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.findings import StudyStatus
from inference.manifest import SHIPPED
from inference.predictor import Predictor
from inference.reading import read_study
from tests import phantoms
from training.contrast import unequalised
from training.metrics import quadratic_kappa

COUNT = 160


@pytest.fixture(scope="module")
def knees(shared_data: Path) -> list[tuple[np.ndarray, str, int]]:
    """Every fifth `val` crop, with side and grade."""
    folder = shared_data / "kl224"
    with (folder / "labels.csv").open(newline="") as file:
        labels = {row["file"]: row for row in csv.DictReader(file)}
    found = []
    with tarfile.open(folder / "val.tar") as tar:
        for member in sorted(tar.getmembers(), key=lambda entry: entry.name)[::5]:
            stream = tar.extractfile(member)
            if stream is not None and len(found) < COUNT:
                row = labels[member.name.removeprefix("./")]
                found.append(
                    (np.asarray(Image.open(io.BytesIO(stream.read())).convert("L")), row["side"], int(row["kl"]))
                )
    return found


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load([SHIPPED], threads=1)


def grades(predictor: Predictor, folder: Path, films: list[tuple[np.ndarray, str]]) -> np.ndarray:
    """The grades, -1 for a knee that was refused: at most three in a hundred or two, and none by its side."""
    found = []
    for number, (pixels, side) in enumerate(films):
        path = phantoms.write(phantoms.wrap_dx(pixels, side, identity=str(number)), folder / f"{number}.dcm")
        findings = predictor.score(read_study([path]))
        assert [knee.side for knee in findings.knees] in ([side], [])
        assert not {refusal.code for refusal in findings.refusals} & {"side_unknown", "side_contradictory"}
        found.append(findings.knees[0].kl.grade if findings.status is StudyStatus.SCORED else -1)
    assert found.count(-1) <= max(2, 3 * len(found) // 100)
    return np.asarray(found)


def test_real_knees_by_way_of_dicom(predictor: Predictor, knees, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = grades(predictor, tmp_path, [(pixels, side) for pixels, side, _ in knees])
    truth = np.asarray([grade for *_, grade in knees])[found >= 0]
    found = found[found >= 0]
    # The interval of a kappa on 160 knees is about +-0.06.
    assert quadratic_kappa(truth, found) > 0.7
    assert np.mean(truth == found) > 0.52


def test_a_film_before_equalisation_gets_about_the_same_answer(predictor: Predictor, knees, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    some = knees[::3]
    for name in ("published", "film"):
        (tmp_path / name).mkdir()
    published = grades(predictor, tmp_path / "published", [(pixels, side) for pixels, side, _ in some])
    films = [((unequalised(pixels.astype(np.float32) / 255) * 255).astype(np.uint8), side) for pixels, side, _ in some]
    found = grades(predictor, tmp_path / "film", films)
    both = (found >= 0) & (published >= 0)
    found, published = found[both], published[both]
    # Faint crops are now and then cut a little differently, so a rare larger step is allowed for.
    assert np.mean(np.abs(found - published) <= 1) > 0.95
    assert np.mean(np.abs(found - published)) < 0.35
    assert abs(np.mean(found - published)) < 0.25
