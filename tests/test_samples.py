"""The demo's real knees are wrapped the right way round."""

from pathlib import Path

import numpy as np
import pydicom

from inference.findings import Side
from inference.reading import read_study
from inference.sides import BOTH
from inference.studies import select
from tests import samples


def test_both_knees_lie_where_patient_orientation_says(shared_data: Path, tmp_path: Path) -> None:
    bilateral, single = samples.write_samples(shared_data, tmp_path)
    film = pydicom.dcmread(bilateral)
    assert list(film.PatientOrientation) == ["L", "F"]
    half = film.Columns // 2
    np.testing.assert_array_equal(film.pixel_array[:, :half], samples.read_crop(shared_data, film.PatientID, "R"))
    np.testing.assert_array_equal(film.pixel_array[:, half:], samples.read_crop(shared_data, film.PatientID, "L"))
    (both,) = select(read_study([bilateral])).candidates
    assert (both.stating.side, both.stating.columns_to_left) == (BOTH, True)
    (one,) = select(read_study([single])).candidates
    assert one.stating.side is Side.LEFT
