"""Where a pixel's size holds: in the patient, at the detector, or nobody knows."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from inference.findings import Spacing
from inference.spacing import pixel_shape, spacing_of

BAD = [[0, 0.1], [0.1, 0], [-0.1, 0.1], 0.1, [0.1, 0.1, 0.1], [1e9, 1e9], [1e-9, 1e-9], [20.0, 20.0], []]


def header(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def given_as(**attributes: Any) -> tuple[str, float | None, float | None, str]:
    found = spacing_of(header(**attributes))
    return found.kind, found.rows_mm, found.columns_mm, found.source


CALIBRATED = "PixelSpacingCalibrationType"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, ("none", None, None, "")),
        ({"ImagerPixelSpacing": [0.14, 0.15]}, ("detector", 0.14, 0.15, "ImagerPixelSpacing")),
        ({"NominalScannedPixelSpacing": [0.1, 0.1]}, ("detector", 0.1, 0.1, "NominalScannedPixelSpacing")),
        ({"PixelSpacing": [0.1, 0.2]}, ("unknown origin", 0.1, 0.2, "PixelSpacing")),
        ({"PixelSpacing": [0.1, 0.1], CALIBRATED: "GEOMETRY"}, ("calibrated", 0.1, 0.1, "PixelSpacing, GEOMETRY")),
        ({"PixelSpacing": [0.1, 0.1], CALIBRATED: "FIDUCIAL"}, ("calibrated", 0.1, 0.1, "PixelSpacing, FIDUCIAL")),
        ({"PixelSpacing": [0.1, 0.1], CALIBRATED: "GUESS"}, ("unknown origin", 0.1, 0.1, "PixelSpacing")),
        (
            {"PixelSpacing": [0.143, 0.143], "ImagerPixelSpacing": [0.143, 0.143]},
            ("detector", 0.143, 0.143, "ImagerPixelSpacing"),
        ),
        (
            {"PixelSpacing": [0.1430, 0.1430], "ImagerPixelSpacing": [0.14305, 0.14305]},
            ("detector", 0.14305, 0.14305, "ImagerPixelSpacing"),
        ),
        (  # PS3.3 10.7.1.1: equal values were not calibrated, whatever else is said
            {"PixelSpacing": [0.143, 0.143], "ImagerPixelSpacing": [0.143, 0.143], CALIBRATED: "GEOMETRY"},
            ("detector", 0.143, 0.143, "ImagerPixelSpacing"),
        ),
        (
            {"PixelSpacing": [0.13, 0.13], "ImagerPixelSpacing": [0.143, 0.143]},
            ("calibrated", 0.13, 0.13, "PixelSpacing, smaller than ImagerPixelSpacing"),
        ),
        (
            {"PixelSpacing": [0.13, 0.13], "ImagerPixelSpacing": [0.143, 0.143], CALIBRATED: "FIDUCIAL"},
            ("calibrated", 0.13, 0.13, "PixelSpacing, FIDUCIAL"),
        ),
        (  # larger in the patient than at the detector: no magnification does that
            {"PixelSpacing": [0.286, 0.286], "ImagerPixelSpacing": [0.143, 0.143]},
            ("unknown origin", 0.286, 0.286, "PixelSpacing"),
        ),
        (
            {"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.143, 0.143]},
            ("detector", 0.143, 0.143, "ImagerPixelSpacing; PixelSpacing is not usable"),
        ),
        (
            {"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0, 0]},
            ("unknown origin", 0.1, 0.1, "PixelSpacing; ImagerPixelSpacing is not usable"),
        ),
    ],
)
def test_kinds(attributes: dict[str, Any], expected: tuple[str, float | None, float | None, str]) -> None:
    assert given_as(**attributes) == expected


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing"])
def test_bad_values_are_none_and_said(keyword: str, value: object) -> None:
    said = f"{keyword} is not usable" if value != [] else ""
    assert given_as(**{keyword: value}) == ("none", None, None, said)


def test_not_a_number_is_none() -> None:
    for text in ("NaN", "inf", "wide"):
        ds = Dataset()
        ds.add_new("PixelSpacing", "LO", [text, text])  # as after a wrong VR in an explicit file
        assert spacing_of(ds) == Spacing("none", None, None, "PixelSpacing is not usable")
        assert pixel_shape(ds) == 1.0


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, 1.0),
        ({"PixelAspectRatio": [2, 1]}, 2.0),
        ({"PixelAspectRatio": [1, 2]}, 0.5),
        ({"PixelAspectRatio": [0, 1]}, 1.0),
        ({"PixelAspectRatio": [100, 1]}, 1.0),
        ({"PixelAspectRatio": [1, 100]}, 1.0),
        ({"PixelAspectRatio": 2}, 1.0),
        ({"PixelSpacing": [0.3, 0.2]}, 1.5),
        ({"ImagerPixelSpacing": [0.2, 0.4]}, 0.5),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.4]}, 0.5),
        ({"PixelAspectRatio": [2, 1], "PixelSpacing": [0.2, 0.2]}, 2.0),
        ({"ImagerPixelSpacing": [0.2, 0.2]}, 1.0),
    ],
)
def test_the_shape_of_a_pixel(attributes: dict[str, Any], expected: float) -> None:
    assert pixel_shape(header(**attributes)) == pytest.approx(expected)


values = st.lists(st.floats(allow_nan=True) | st.text(max_size=5), max_size=3)


@given(values, values, values)
def test_nothing_makes_it_fall(patient: list[object], detector: list[object], ratio: list[object]) -> None:
    ds = Dataset()
    for keyword, value in (("PixelSpacing", patient), ("ImagerPixelSpacing", detector), ("PixelAspectRatio", ratio)):
        ds.add_new(keyword, "LO", [str(part) for part in value])
    found = spacing_of(ds)
    assert (found.rows_mm is None) == (found.columns_mm is None) == (found.kind == "none")
    assert found.source.isascii()
    assert 0.2 <= pixel_shape(ds) <= 5.0
