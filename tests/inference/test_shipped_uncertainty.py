"""The shipped grader's conformal sets and its refusal of what is unlike the training knees, on real pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.bundle import Bundle, decode
from inference.findings import RefusalCode
from inference.manifest import SHIPPED, UNLIKE_FILE
from training.finder_data import bright_boned_images
from training.strangers import drawn_strangers, real_strangers
from training.uncertainty import answers

if not (SHIPPED / UNLIKE_FILE).exists():
    pytest.skip("the shipped bundle was exported before it could tell: export it again", allow_module_level=True)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.set_num_threads(1)
    return Bundle.load(SHIPPED, "cpu")


@pytest.fixture(scope="module")
def knees(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Every sixth `val` crop, bright bone, as a left knee, and its grade."""
    rows, crops = bright_boned_images(shared_data / "kl224", shared_data / "kl224" / "labels.csv", "val")
    return crops[::6], np.asarray([row.kl for row in rows])[::6]


def test_the_figures_on_all_of_val_are_what_was_asked_for(bundle: Bundle) -> None:
    metrics = bundle.manifest.metrics
    assert metrics["conformal"]["figures"]["coverage_95"][1] > 0.9  # 90 % lies within what 826 knees can tell
    assert metrics["unlike"]["val"]["refused"] <= 0.02
    assert metrics["unlike"]["limit"] == bundle.manifest.unlike_limit


def test_sets_and_refusals_of_real_knees(bundle: Bundle, knees: tuple[np.ndarray, np.ndarray]) -> None:
    crops, truth = knees
    probabilities, scores = answers(bundle, crops)
    prediction = bundle.predict(torch.from_numpy(crops[:8]).float()[:, None] / 255)
    assert prediction.unlike == pytest.approx(scores[:8].tolist(), rel=1e-3)
    manifest = bundle.manifest
    assert manifest.conformal is not None and manifest.unlike_limit is not None
    members = manifest.conformal.members(probabilities, decode(probabilities, manifest.decoder))
    assert members[np.arange(len(truth)), truth].mean() > 0.83  # 138 knees: 90 % less 2.5 standard errors
    assert np.mean(scores > manifest.unlike_limit) <= 0.03


def test_real_pictures_of_other_things_are_refused(
    bundle: Bundle, shared_data: Path, knees: tuple[np.ndarray, np.ndarray]
) -> None:
    limit = bundle.manifest.unlike_limit
    assert limit is not None
    real = real_strangers([shared_data / "dicom"], bundle.spec)
    assert any("CR CHEST" in name for name in real) and any("MR" in name for name in real)
    for name, crops in {**real, **drawn_strangers(knees[0], bundle.spec, 6)}.items():
        if "disorder" not in name:  # bone of a real knee, now and then as in a knee
            assert np.mean(answers(bundle, crops)[1] > limit) > 0.8, (name, RefusalCode.UNLIKE_TRAINING)
