"""How large is a pixel, and where: in the patient, at the detector, or nobody knows (PS3.3 10.7.1.1, 10.7.1.3).

On a projection radiograph the patient lies nearer to the tube than the detector, so that a millimetre in the patient
covers more than one at the detector. Only Pixel Spacing that was calibrated is a length in the patient, and that at the
calibrated depth alone. Nothing here is used to measure; it is told, so that nobody measures with the wrong one.
"""

import math

from pydicom.dataset import Dataset

from inference.findings import Spacing
from inference.headers import first, texts

_SMALLEST, _LARGEST = 0.01, 10.0  # millimetres; beyond these a spacing is a mistake
_SAME = 0.01  # relative: values that differ by less are one value, rounded
_CALIBRATIONS = frozenset({"GEOMETRY", "FIDUCIAL"})
_AT_DETECTOR = ("ImagerPixelSpacing", "NominalScannedPixelSpacing")
_FLATTEST, _TALLEST = 0.2, 5.0

_Pair = tuple[float, float]


def spacing_of(header: Dataset) -> Spacing:
    """What the header says of the size of a pixel, in millimetres, and what that size means.

    Pixel Spacing (0028,0030) is that in the patient when its Calibration Type (0028,0A02) says so, or when it is
    smaller than Imager Pixel Spacing (0018,1164): an image that was not calibrated has the same value in both. Equal
    values are those at the detector, whatever the type says. Unusable values count as none, and are named.
    """
    stored = {keyword: _millimetres(header, keyword) for keyword in ("PixelSpacing", *_AT_DETECTOR)}
    bad = [keyword for keyword, pair in stored.items() if pair is None and texts(header, keyword)]
    note = "".join(f"; {keyword} is not usable" for keyword in bad)
    patient = stored["PixelSpacing"]
    detector = next(((keyword, pair) for keyword in _AT_DETECTOR if (pair := stored[keyword])), None)
    if patient is not None and (detector is None or not _same(patient, detector[1])):
        kind = first(header, "PixelSpacingCalibrationType")
        if kind in _CALIBRATIONS:
            return Spacing("calibrated", *patient, f"PixelSpacing, {kind}{note}")
        if detector is None or max(patient[0] / detector[1][0], patient[1] / detector[1][1]) > 1:
            return Spacing("unknown origin", *patient, f"PixelSpacing{note}")
        return Spacing("calibrated", *patient, f"PixelSpacing, smaller than {detector[0]}{note}")
    if detector is not None:
        return Spacing("detector", *detector[1], f"{detector[0]}{note}")
    return Spacing("none", None, None, note.removeprefix("; "))


def pixel_shape(header: Dataset) -> float:
    """The vertical size of one pixel over its horizontal size; 1.0 where the header does not say, or says nonsense.

    From Pixel Aspect Ratio (0028,0034), else from the spacings (row spacing first, PS3.3 10.7.1.3).
    """
    ratio = _pair(header, "PixelAspectRatio")
    pairs = (ratio, *(_millimetres(header, keyword) for keyword in ("PixelSpacing", *_AT_DETECTOR)))
    shape = next((pair[0] / pair[1] for pair in pairs if pair is not None), 1.0)
    return shape if _FLATTEST <= shape <= _TALLEST else 1.0


def _millimetres(header: Dataset, keyword: str) -> _Pair | None:
    pair = _pair(header, keyword)
    return pair if pair is not None and all(_SMALLEST <= value <= _LARGEST for value in pair) else None


def _pair(header: Dataset, keyword: str) -> _Pair | None:
    """Two positive finite numbers, else None."""
    found = texts(header, keyword)
    try:
        values = [float(text) for text in found]
    except ValueError:
        return None
    if len(values) != 2 or not all(math.isfinite(value) and value > 0 for value in values):
        return None
    return values[0], values[1]


def _same(one: _Pair, other: _Pair) -> bool:
    return all(math.isclose(a, b, rel_tol=_SAME) for a, b in zip(one, other, strict=True))
