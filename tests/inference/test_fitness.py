"""Is a knee fit to be scored: each limit from both sides, twenty made cases each, and real knees that all are."""

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from inference.finder import Sighting, Thresholds
from inference.findings import Box, RefusalCode
from inference.fitness import SMALLEST, noise_share, unfit_exposure, unfit_looks, unfit_place

LIMITS = Thresholds(knee=0.4, turned=0.5, other_view=0.5, metal=0.6, cast=0.7)


@pytest.fixture(scope="module")
def crops(shared_data: Path) -> list[np.ndarray]:
    """Every sixth real `val` crop."""
    with tarfile.open(shared_data / "kl224" / "val.tar") as tar:
        names = sorted(name for name in tar.getnames() if name.endswith(".jpg"))[::6]
        streams = [tar.extractfile(name) for name in names]
        data = [np.frombuffer(stream.read(), np.uint8) for stream in streams if stream is not None]
    return [cv2.imdecode(part, cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255 for part in data]


def code_of(crop: np.ndarray) -> RefusalCode | None:
    unfit = unfit_exposure(np.asarray(np.clip(crop, 0, 1), np.float32))
    return None if unfit is None else unfit[0]


def test_real_knees_are_exposed_well(crops: list[np.ndarray]) -> None:
    assert len(crops) > 130
    assert [code_of(crop) for crop in crops] == [None] * len(crops)


@pytest.mark.parametrize("gamma", [0.6, 1.6])
def test_ordinary_windows_are_well_exposed(crops: list[np.ndarray], gamma: float) -> None:
    assert np.mean([code_of(0.1 + 0.8 * crop**gamma) is None for crop in crops]) > 0.98


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("white", lambda crop: crop * 2.5 + 0.35),
        ("black", lambda crop: crop - 0.85),
        ("flat", lambda crop: 0.5 + 0.02 * (crop - 0.5)),
        ("noise", lambda crop: crop + 0.25 * np.random.default_rng(1).standard_normal(crop.shape)),
    ],
)
def test_lost_shades_are_told(crops: list[np.ndarray], name: str, change) -> None:  # type: ignore[no-untyped-def]
    found = [unfit_exposure(np.asarray(np.clip(change(crop), 0, 1), np.float32)) for crop in crops[:60]]
    assert sum(unfit is not None and unfit[0] is RefusalCode.POOR_EXPOSURE for unfit in found) >= 0.98 * len(found)
    word = {"white": "white", "black": "black", "flat": "range of grey", "noise": "noise"}[name]
    assert sum(unfit is not None and word in unfit[1] for unfit in found) >= 0.8 * len(found)


def test_noise_share_grows_with_noise(crops: list[np.ndarray]) -> None:
    noise = np.random.default_rng(0).standard_normal(crops[0].shape).astype(np.float32)
    shares = [noise_share(crops[0] + deviation * noise) for deviation in (0, 0.05, 0.1, 0.2)]
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < shares[-1]


@pytest.mark.parametrize("number", range(20))
def test_small_knees(number: int) -> None:
    rng = np.random.default_rng(number)
    size, x, y = rng.uniform(5, 2 * SMALLEST), rng.uniform(200, 300), rng.uniform(200, 300)
    unfit = unfit_place(Box(x, y, x + size, y + size), 800, 800)
    assert (unfit is not None and unfit[0] is RefusalCode.KNEE_TOO_SMALL) is (size < SMALLEST)


@pytest.mark.parametrize("edge", ["left", "top", "right", "bottom"])
@pytest.mark.parametrize("lost", [0.05, 0.15, 0.25, 0.45, 0.8])
def test_knees_beyond_the_edge(edge: str, lost: float) -> None:
    box = {
        "left": Box(-100 * lost, 100, 100 - 100 * lost, 200),
        "top": Box(100, -100 * lost, 200, 100 - 100 * lost),
        "right": Box(500 + 100 * lost - 100, 100, 500 + 100 * lost, 200),
        "bottom": Box(100, 400 + 100 * lost - 100, 200, 400 + 100 * lost),
    }[edge]
    unfit = unfit_place(box, 400, 500)
    if lost <= 0.2:
        assert unfit is None
    else:
        assert unfit is not None
        assert unfit[0] is RefusalCode.KNEE_CUT_OFF
        assert f"{round(100 * lost)} %" in unfit[1]


@pytest.mark.parametrize(
    ("metal", "cast", "expected"),
    [
        (0.1, 0.1, None),
        (0.59, 0.69, None),
        (0.6, 0.1, RefusalCode.METAL),
        (0.9, 0.9, RefusalCode.METAL),
        (0.1, 0.7, RefusalCode.CAST),
    ],
)
def test_metal_and_cast(metal: float, cast: float, expected: RefusalCode | None) -> None:
    knee = Sighting(100, 100, 100, 0.9, 0.0, 0.9, 0.0, metal, cast)
    unfit = unfit_looks(knee, LIMITS)
    assert (None if unfit is None else unfit[0]) is expected
