"""Results on an MR series as a person sees them: the region on its slice, the pictures, the map over the slices."""

import numpy as np
import numpy.typing as npt
import pytest

from tests.viewer.conftest import Viewer
from tests.viewer.mr_results import GRID, HOT, READ, SIDE, STUDY, composed, source
from tests.viewer.ohif import Ohif, alike, until

LINES = [
    "LEFT knee, narrowing of 0.5 mm, coronal IW TSE: 0.62 (0.41 to 0.80)",
    "Probability of joint space narrowing by 0.5 mm in 12 months: Predicted from image, not measured",
    "Threshold 0.40: At or above the threshold",
    "Model: SYNTHETIC MODEL - NOT A RESULT",
    "AI - RESEARCH: NOT FOR DIAGNOSIS",
]


def shown_slice(ohif: Ohif) -> str:
    """The SOP Instance UID of the image in the viewport."""
    script = "() => window.cornerstone.getEnabledElements()[0].viewport.getCurrentImageId()"
    return str(ohif.page.evaluate(script)).split("/instances/")[1].split("/")[0]


def test_the_region_is_drawn_on_its_slice_with_the_numbers(ohif: Ohif, viewer: Viewer) -> None:
    ohif.open_study(STUDY)
    ohif.open_series("Genu AI knee report")
    assert ohif.overlay("LEFT knee").splitlines() == LINES
    assert shown_slice(ohif) == source()[READ[0]].SOPInstanceUID
    polyline = ohif.page.locator("svg.svg-layer polyline").first.bounding_box()
    left, top, right, bottom = ohif.canvas()
    scale, (row, column) = (bottom - top) / GRID.rows, HOT[READ[0]]
    middle = (left + right) / 2
    assert polyline is not None
    wanted = (middle + (column - GRID.columns / 2) * scale, top + row * scale, SIDE * scale, SIDE * scale)
    found = (polyline["x"], polyline["y"], polyline["width"], polyline["height"])
    assert found == pytest.approx(wanted, abs=scale)


def test_the_pictures_of_the_slices_are_on_the_canvas(ohif: Ohif, viewer: Viewer) -> None:
    pictures = composed(source()).volumes[0].pixel_array
    ohif.open_study(STUDY)
    ohif.open_series("MR heatmap LEFT, JSN 0.5 mm, cor IW TSE")
    seen = ohif.wait_for(pictures[0])
    assert alike(seen, pictures[0]) > alike(seen, pictures[0][:, ::-1]) + 0.05
    ohif.page.mouse.move(800, 500)
    for picture in pictures[1:]:
        ohif.page.mouse.wheel(0, 100)
        until(ohif.shown, lambda now, picture=picture: nearest(now, pictures) == nearest(picture, pictures))


def nearest(seen: npt.NDArray[np.uint8], pictures: npt.NDArray[np.uint8]) -> int:
    """The number of the picture that is most like what is seen."""
    return int(np.argmax([alike(seen, picture) for picture in pictures]))


def colours(seen: npt.NDArray[np.uint8]) -> tuple[float, float] | None:
    """Row and column, as shares of the height around the middle, of what is in colour; None where nothing is."""
    colourful = np.ptp(seen.astype(int), axis=2) > 60
    if colourful.mean() < 0.008:  # less than half of a square: a message of the viewer
        return None
    row, column = np.median(np.argwhere(colourful), axis=0)
    return float(row / len(seen)), float((column - seen.shape[1] / 2) / len(seen))


def test_the_map_lies_on_the_slices_that_it_names(ohif: Ohif, viewer: Viewer) -> None:
    ohif.open_study(STUDY)
    ohif.open_series("MR map LEFT, JSN 0.5 mm, cor IW TSE")
    until(ohif.shown, lambda now: colours(now) is not None)
    assert ohif.page.get_by_text("Loading Parametric Map").count() == 0
    ohif.page.mouse.move(800, 500)
    hot = {source()[index].SOPInstanceUID: place for index, place in HOT.items()}
    seen = []
    for _ in range(5):  # from the middle of the series across one end of what was read
        uid = shown_slice(ohif)
        seen.append(uid)
        if uid in hot:
            (row, column), found = hot[uid], until(lambda: colours(ohif.shown()), lambda now: now is not None)
            middle = (row + SIDE / 2) / GRID.rows, (column + SIDE / 2 - GRID.columns / 2) / GRID.rows
            assert found == pytest.approx(middle, abs=0.06)
        else:
            until(lambda: colours(ohif.shown()), lambda now: now is None)
        ohif.page.mouse.wheel(0, 100)
        until(lambda: shown_slice(ohif), lambda now, uid=uid: now != uid)
    assert len(set(seen) & set(hot)) >= 2 and set(seen) - set(hot)
