"""The phantoms themselves: accepted by dciodvfy, marked as phantoms, and true to the geometry of a knee film."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests import phantom_pixels, phantoms

MAKERS = {
    "dx_left": lambda: phantoms.dx_knee("L"),
    "dx_right_inverted": lambda: phantoms.dx_knee("R", photometric="MONOCHROME1"),
    "dx_bilateral": phantoms.dx_bilateral,
    "dx_lateral": phantoms.dx_lateral,
    "dx_chest": phantoms.dx_chest,
    "dx_hand": phantoms.dx_hand,
    "dx_for_processing": lambda: phantoms.dx_knee("L", sop_class=phantoms.DX_PROCESSING),
    "cr": phantoms.cr_knee,
    "wrapped": lambda: phantoms.wrap_dx(np.zeros((224, 224), np.uint8), "R"),
    "japanese": lambda: phantoms.with_name(phantoms.dx_knee("L"), ["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_dciodvfy_finds_nothing(tmp_path: Path, name: str) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("needs dciodvfy (package dicom3tools)")
    path = phantoms.write(MAKERS[name](), tmp_path / "x.dcm")
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in done.stderr.splitlines() if line.startswith(("Error", "Warning"))] == []


@pytest.mark.parametrize("name", MAKERS)
def test_every_phantom_says_that_it_is_one(name: str) -> None:
    ds = MAKERS[name]()
    assert ds.PatientID.startswith("PHANTOM")
    assert ds.StudyDescription.startswith("PHANTOM")
    assert "no patient" in ds.ImageComments


def test_the_fibula_lies_laterally() -> None:
    for side, lateral in (("L", slice(250, 320)), ("R", slice(16, 86))):
        image = phantom_pixels.knee(side)
        shank = image[400:, :]
        medial = slice(336 - lateral.stop, 336 - lateral.start)
        assert shank[:, lateral].mean() > shank[:, medial].mean() + 0.05
    assert np.allclose(phantom_pixels.knee("L", seed=1)[:, ::-1], phantom_pixels.knee("R", seed=1))


def test_bilateral_phantoms_hold_the_right_knee_at_the_left() -> None:
    film = phantom_pixels.bilateral()
    assert np.allclose(film[:, :350], phantom_pixels.knee("R", 448, 350, seed=0))


def test_the_same_phantom_is_the_same_instance() -> None:
    assert phantoms.dx_knee("L").SOPInstanceUID == phantoms.dx_knee("L").SOPInstanceUID
    assert phantoms.dx_knee("L").SOPInstanceUID != phantoms.dx_knee("R").SOPInstanceUID


def test_canaries_stand_in_every_text(tmp_path: Path) -> None:
    ds = phantoms.plant_canaries(phantoms.dx_knee("L"), "CANARY")
    read = pydicom.dcmread(phantoms.write(ds, tmp_path / "x.dcm"))
    assert sum("CANARY" in str(element.value) for element in read) > 25


def test_the_module_writes_the_sample_studies(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.phantoms", str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert [pydicom.dcmread(p).ImageLaterality for p in paths] == ["B", "L"]
