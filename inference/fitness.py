"""Is what was found fit to be scored? Pure functions of one knee; each answer is a code and a sentence, or None.

The limits were chosen on knees of the training data and on made ones (docs/finder.md).
"""

import cv2
import numpy as np
import numpy.typing as npt

from inference.finder import Sighting, Thresholds
from inference.findings import Box, RefusalCode

Image = npt.NDArray[np.float32]
Unfit = tuple[RefusalCode, str]

SMALLEST = 64  # pixels of a knee's crop; the networks see 128 or more
MOST_CUT_OFF = 0.2  # of the crop, in one direction
MOST_SATURATED = 0.25  # of the joint's pixels without any shade left
LEAST_CONTRAST = 0.02  # of the range of grey values, between the 5th and the 95th percentile
MOST_NOISE = 1.0  # deviation of the noise over that of the structures
_MIDDLE = 0.2  # of the crop, left out on each side
_TOP, _BOTTOM = 0.998, 0.002
_SECOND_DIFFERENCE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


def unfit_place(box: Box, rows: int, columns: int) -> Unfit | None:
    """Whether a knee is too small, or cut off by the film's edge; `box` and the film's size in its pixels."""
    if min(box.width, box.height) < SMALLEST:
        found = f"the knee is {round(min(box.width, box.height))} pixels large, at least {SMALLEST} are needed"
        return RefusalCode.KNEE_TOO_SMALL, f"{found}: send the film in full size."
    inside = box.clipped(rows, columns)
    lost = 1 - min(inside.width / box.width, inside.height / box.height)
    if lost > MOST_CUT_OFF:
        found = f"{round(100 * lost)} % of the knee lie beyond the film's edge, {round(100 * MOST_CUT_OFF)} % may"
        return RefusalCode.KNEE_CUT_OFF, f"{found}: send a film that shows the whole joint."
    return None


def unfit_looks(knee: Sighting, thresholds: Thresholds) -> Unfit | None:
    """Whether there is metal in the joint, or a cast or brace around it."""
    if knee.metal >= thresholds.metal:
        reason = f"the knee holds metal or an implant (score {knee.metal:.2f}, limit {thresholds.metal:.2f})."
        return RefusalCode.METAL, reason
    if knee.cast >= thresholds.cast:
        reason = f"the knee is in a cast or brace (score {knee.cast:.2f}, limit {thresholds.cast:.2f})."
        return RefusalCode.CAST, reason
    return None


def unfit_exposure(crop: Image) -> Unfit | None:
    """Whether the joint's shades are lost; `crop` (S, S), display values 0..1, before any equalisation."""
    edge = round(_MIDDLE * len(crop))
    joint = crop[edge : len(crop) - edge, edge : len(crop) - edge]
    white, black = float((joint >= _TOP).mean()), float((joint <= _BOTTOM).mean())
    for share, word in ((white, "white"), (black, "black")):
        if share > MOST_SATURATED:
            found = f"{round(100 * share)} % of the joint are {word}, {round(100 * MOST_SATURATED)} % may"
            return RefusalCode.POOR_EXPOSURE, f"{found}: send it with another window, or expose again."
    low, high = (float(value) for value in np.percentile(joint, (5, 95)))
    if high - low < LEAST_CONTRAST:
        found = f"the joint uses {100 * (high - low):.1f} % of the range of grey values, {100 * LEAST_CONTRAST:.0f} %"
        return RefusalCode.POOR_EXPOSURE, f"{found} are needed: send it with another window, or expose again."
    if (noise := noise_share(joint)) > MOST_NOISE:
        found = f"the noise is {noise:.1f} times as strong as the joint's structures, {MOST_NOISE:.1f} is allowed"
        return RefusalCode.POOR_EXPOSURE, f"{found}: it is under-exposed."
    return None


def noise_share(joint: Image) -> float:
    """Deviation of the noise (Immerkaer, 1996, by its median) over that of structures of 2 to 10 pixels."""
    noise = float(np.median(np.abs(cv2.filter2D(joint, -1, _SECOND_DIFFERENCE)))) / 0.6745 / 6
    structure = cv2.GaussianBlur(joint, (0, 0), 2) - cv2.GaussianBlur(joint, (0, 0), 10)
    return noise / max(float(np.std(structure)), 1e-4)
