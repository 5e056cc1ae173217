"""Whole studies through the predictor with a random stand-in bundle: sides, geometry, refusals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from inference.errors import BundleError
from inference.findings import KneeFinding, RefusalCode, Side, StudyFindings, StudyStatus
from inference.predictor import Predictor
from inference.reading import read_study
from tests import phantom_pixels, phantoms
from training.standin import write_random_bundle


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load([write_random_bundle(tmp_path_factory.mktemp("bundle") / "random")], threads=1)


def score(predictor: Predictor, folder: Path, objects: Sequence[Dataset]) -> StudyFindings:
    paths = [phantoms.write(ds, folder / f"{number}.dcm") for number, ds in enumerate(objects)]
    return predictor.score(read_study(paths))


def test_one_knee(predictor: Predictor, tmp_path: Path) -> None:
    ds = phantoms.dx_knee("R")
    findings = score(predictor, tmp_path, [ds])
    (knee,) = findings.knees
    assert findings.status is StudyStatus.SCORED
    assert (knee.side, knee.source.sop_instance_uid) == (Side.RIGHT, ds.SOPInstanceUID)
    assert (knee.source.rows, knee.source.columns) == (ds.Rows, ds.Columns)
    assert findings.renderings[ds.SOPInstanceUID].shape == (ds.Rows, ds.Columns)
    assert {e.about for e in knee.evidence} >= {"anatomy", "view", "side"}
    assert knee.model.synthetic


@pytest.mark.parametrize(("orientation", "left_half"), [("L\\F", Side.RIGHT), ("R\\F", Side.LEFT)])
def test_bilateral_film_follows_patient_orientation(
    predictor: Predictor, tmp_path: Path, orientation: str, left_half: Side
) -> None:
    ds = phantoms.dx_bilateral(orientation=orientation)
    knees = {knee.side: knee for knee in score(predictor, tmp_path, [ds]).knees}
    assert set(knees) == {Side.LEFT, Side.RIGHT}
    middle = ds.Columns / 2
    assert (knees[left_half].box.left + knees[left_half].box.right) / 2 < middle
    assert (knees[left_half.other].box.left + knees[left_half.other].box.right) / 2 > middle


def test_both_knees_in_one_half_are_still_beside_each_other(predictor: Predictor, tmp_path: Path) -> None:
    knees = phantom_pixels.bilateral()
    film = np.hstack([knees, np.zeros_like(knees)])
    ds = phantoms.wrap_dx(film, "B", attributes={"PatientOrientation": ["L", "F"]})
    found = score(predictor, tmp_path, [ds]).knees
    assert [knee.side for knee in sorted(found, key=lambda knee: knee.box.left)] == [Side.RIGHT, Side.LEFT]


def test_one_knee_above_the_other_has_no_side(predictor: Predictor, tmp_path: Path) -> None:
    film = np.vstack([phantom_pixels.knee("L"), phantom_pixels.knee("R")])
    ds = phantoms.wrap_dx(film, "B", attributes={"PatientOrientation": ["L", "F"]})
    findings = score(predictor, tmp_path, [ds])
    assert findings.knees == ()
    assert [refusal.code for refusal in findings.refusals] == [RefusalCode.SIDE_UNKNOWN]
    assert findings.renderings[ds.SOPInstanceUID].shape == film.shape  # for the refusal card


@pytest.mark.parametrize("rows", [3, 40])
def test_a_strip_of_a_knee_is_no_knee(predictor: Predictor, tmp_path: Path, rows: int) -> None:
    film = phantom_pixels.knee("R")
    middle = film.shape[0] // 2
    findings = score(predictor, tmp_path, [phantoms.wrap_dx(film[middle : middle + rows], "R")])
    assert findings.knees == ()
    assert [refusal.code for refusal in findings.refusals] == [RefusalCode.NO_KNEE_FOUND]


def both_ways(predictor: Predictor, folder: Path, pixels: np.ndarray, sides: str) -> list[KneeFinding]:
    """The same film as it is under the first side, and mirrored under the second."""
    found = []
    for number, (side, film) in enumerate(zip(sides, (pixels, pixels[:, ::-1]), strict=True)):
        (folder / str(number)).mkdir()
        found.append(score(predictor, folder / str(number), [phantoms.wrap_dx(film, side)]).knees[0])
    return found


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def test_a_mirrored_right_knee_is_answered_like_the_left_one(predictor: Predictor, tmp_path: Path) -> None:
    """A crop of an asymmetric phantom: canonicalisation makes both inputs equal, each map lies on its own film."""
    left, right = both_ways(predictor, tmp_path, phantom_pixels.knee("L", 336, 336, seed=3)[50:274, 56:280], "LR")
    # The two boxes differ by a pixel or so.
    assert right.kl.probabilities == pytest.approx(left.kl.probabilities, abs=0.05)
    first, second = left.saliency.values, right.saliency.values
    assert likeness(first, second[:, ::-1]) > 0.9
    assert likeness(first, second) < 0.9


def test_a_film_stored_mirrored_is_answered_like_the_plain_one(predictor: Predictor, tmp_path: Path) -> None:
    pixels = phantom_pixels.knee("L", 336, 336, seed=3)[50:274, 56:280]
    found = []
    for film, orientation in ((pixels, ["L", "F"]), (pixels[:, ::-1], ["R", "F"])):
        (tmp_path / orientation[0]).mkdir()
        ds = phantoms.wrap_dx(film, "L", attributes={"PatientOrientation": orientation})
        found.append(score(predictor, tmp_path / orientation[0], [ds]).knees[0])
    assert found[0].kl.probabilities == pytest.approx(found[1].kl.probabilities, abs=0.05)
    assert likeness(found[0].saliency.values, found[1].saliency.values[:, ::-1]) > 0.9


def test_a_mirrored_film_is_cropped_at_the_mirrored_place(predictor: Predictor, tmp_path: Path) -> None:
    pixels = phantom_pixels.knee("L", 448, 336, seed=3)
    left, right = (knee.box for knee in both_ways(predictor, tmp_path, pixels, "LR"))
    assert (right.left, right.right) == pytest.approx((336 - left.right, 336 - left.left), abs=0.08 * left.width)
    assert (right.top, right.bottom) == pytest.approx((left.top, left.bottom), abs=0.08 * left.width)


def test_a_wrong_side_is_no_answer(predictor: Predictor, tmp_path: Path) -> None:
    findings = score(predictor, tmp_path, [phantoms.wrap_dx(phantom_pixels.knee("L", seed=3), "R")])
    assert not findings.knees
    assert [refusal.code for refusal in findings.refusals] == [RefusalCode.SIDE_CONTRADICTORY]


def test_monochrome1_is_answered_like_monochrome2(predictor: Predictor, tmp_path: Path) -> None:
    pixels = phantom_pixels.knee("L", seed=4)
    found = []
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        (tmp_path / photometric).mkdir()
        ds = phantoms.wrap_dx(pixels, "L", photometric=photometric)
        found.append(score(predictor, tmp_path / photometric, [ds]).knees[0].kl.probabilities)
    assert found[0] == pytest.approx(found[1], abs=0.01)


def test_two_knees_under_the_name_of_one_are_refused(predictor: Predictor, tmp_path: Path) -> None:
    pixels = phantom_pixels.knee("L", seed=5)
    film = np.concatenate([pixels[:, ::-1], pixels], axis=1)
    findings = score(predictor, tmp_path, [phantoms.wrap_dx(film, "L")])
    assert not findings.knees
    assert [refusal.code for refusal in findings.refusals] == [RefusalCode.SIDE_CONTRADICTORY]


def test_an_empty_film_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((400, 300))
    findings = score(predictor, tmp_path, [phantoms.wrap_dx(noise, "L")])
    assert findings.status is StudyStatus.REFUSED
    assert [(r.code, r.side) for r in findings.refusals] == [(RefusalCode.NO_KNEE_FOUND, Side.LEFT)]


def test_broken_pixels_do_not_keep_the_other_knee_from_its_grade(predictor: Predictor, tmp_path: Path) -> None:
    good = phantoms.dx_knee("L", seed=1, identity="both")
    bad = phantoms.dx_knee("R", seed=2, identity="both", attributes={"SOPInstanceUID": phantoms.uid("second")})
    bad.PixelData = bad.PixelData[:100]
    findings = score(predictor, tmp_path, [good, bad])
    assert [knee.side for knee in findings.knees] == [Side.LEFT]
    assert [(r.code, r.source) for r in findings.refusals] == [
        (RefusalCode.UNDECODABLE_PIXELS, bad.SOPInstanceUID),
    ]


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda: [phantoms.dx_chest()], StudyStatus.REFUSED),
        (lambda: [phantoms.dx_lateral()], StudyStatus.REFUSED),
        (lambda: phantoms.mr_knee(slices=2), StudyStatus.NOTHING_TO_SCORE),
    ],
)
def test_what_is_no_frontal_knee_is_not_scored(predictor, tmp_path, make, status) -> None:  # type: ignore[no-untyped-def]
    findings = score(predictor, tmp_path, make())
    assert findings.status is status
    assert not findings.knees
    assert findings.refusals


def test_one_grader_serves(predictor: Predictor) -> None:
    folder = predictor.bundle.manifest.folder
    with pytest.raises(BundleError, match="name one bundle of the task 'kl'"):
        Predictor.load([folder, folder])


def test_without_a_bundle_for_it_no_pain_is_told(predictor: Predictor, tmp_path: Path) -> None:
    (knee,) = score(predictor, tmp_path, [phantoms.dx_knee("R")]).knees
    assert knee.pain is None
    assert knee.models == (predictor.bundle.manifest.identity(),) == predictor.identities
