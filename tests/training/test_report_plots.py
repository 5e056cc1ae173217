"""Pictures of many systems stay readable: no name and no dot lies upon another, none leaves the picture."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from training import cv_verdict
from training import report_plots as plots
from training.report_page import Cell, Row, Section, Table, render

TITLES = {f"s{number}": f"biomedclip image and description of the KL grade, head {number}" for number in range(24)}
GROUPS = ("White", "African American or Black", "Asian", "not known")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved from now on."""
    found: list[Figure] = []
    plain = Figure.savefig

    def savefig(figure: Figure, *args: Any, **more: Any) -> None:
        figure.set_dpi(more["dpi"])  # so that places are those of the picture
        plain(figure, *args, **more)
        found.append(figure)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


def labels(figure: Figure, of: Callable[[Any], Sequence[Text]]) -> list[Bbox]:
    """Where such texts of all axes stand, those that say something."""
    return [text.get_window_extent() for axes in figure.axes for text in of(axes) if text.get_text()]


def readable(figure: Figure, of: Callable[[Any], Sequence[Text]]) -> int:
    """How many texts there are; none may touch another or leave the picture."""
    boxes, page = labels(figure, of), figure.bbox
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    return len(boxes)


def intervals(seed: int) -> list[list[float]]:
    draw = np.random.default_rng(seed).normal(0, 1, len(TITLES))
    return [[value, value - 0.5, value + 0.5] for value in draw.tolist()]


def test_errors_by_group_name_each_of_many_systems_in_its_row(drawn: list[Figure]) -> None:
    groups = [(name, dict(zip(TITLES, intervals(number), strict=True))) for number, name in enumerate(GROUPS)]
    plots.signed_errors(groups, TITLES, "points")
    (figure,) = drawn
    assert figure.legends == [], "two dozen entries, far from what they name"
    assert [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes] == list(GROUPS)
    assert readable(figure, lambda axes: axes.get_yticklabels()) == 2 * len(TITLES)
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    few = dict(list(TITLES.items())[:5])
    plots.signed_errors(groups, few, "points")
    assert len(drawn[1].legends) == 1 and len(drawn[1].axes) == 1


def test_figures_of_many_systems_are_named_without_touching(drawn: list[Figure]) -> None:
    rows = [
        {"system": name, "title": title, "role": "system", "rmse": interval}
        for (name, title), interval in zip(TITLES.items(), intervals(3), strict=True)
    ]
    plots.forest(rows, [("rmse", "RMSE", "s0")], {"rmse": (0.1, 0.2)})
    assert readable(drawn[0], lambda axes: axes.get_yticklabels()) == len(TITLES)


def test_folds_with_the_same_figure_lie_beside_each_other(drawn: list[Figure]) -> None:
    values = {name: [1 + number / 24, 1.5, 1.501, 1.499, 2.0] for number, name in enumerate(TITLES)}
    plots.fold_dots(TITLES, values, "RMSE")
    assert readable(drawn[0], lambda axes: axes.get_yticklabels()) == len(TITLES)
    numbers = [text for text in drawn[0].axes[0].texts if text.get_text() != "0"]  # 0 walks past the others
    boxes = [text.get_window_extent() for text in numbers]
    assert len(boxes) == 4 * len(TITLES)
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert plots.apart([1.0, 3.0, 1.01, 0.99, 1.0], 0.1) == [0.0, 0.0, -0.32, 0.32, 0.0]


def test_many_systems_are_counted_and_few_are_named() -> None:
    def said(count: int) -> str:
        names = list(TITLES)[:count]
        rows = [{"system": "constant_mean", "title": "Constant", "role": "baseline"}]
        rows += [{"system": name, "title": TITLES[name], "role": "system"} for name in names]
        against = {"figure": "rmse", "against": "constant_mean", "better": True}
        return cv_verdict.sentences({"systems": rows, "differences": [{"system": name, **against} for name in names]})[
            0
        ]

    assert TITLES["s5"] in said(6)
    assert (
        said(7)
        == "RMSE against the constant mean: 7 of 7 systems are better beyond the interval of the paired difference."
    )


def test_long_names_in_titles_break_at_their_parts() -> None:
    row = Row(Cell("systems/image_kl/predictions.parquet"), [Cell("a/b_c")])
    html = render("t", [], [Section("s", "S", [Table([Cell("file"), Cell("hash")], [row])])], [])
    assert ">systems/<wbr>image_<wbr>kl/<wbr>predictions.parquet</th><td>a/b_c</td>" in html
