"""The report: opened in a real browser, without a script and without a request; what it says, and what it must not."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from PIL import Image

from inference.errors import DataError
from tests.browser import Browse, browsing
from tests.training.made_runs import about, constants, knees_of, write_run
from training import cli, cv_families, report_plots
from training.cv_evidence import read_evidence
from training.cv_families import Evaluation
from training.predictions import Predictions, write_predictions
from training.published import published_for
from training.report import write_report
from training.report_numbers import number, signed, with_interval
from training.report_page import Cell, Picture, Row, Section, Table, Text, render
from training.report_parts import learning

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"& $\\frac{1}{"


@pytest.fixture(scope="module")
def browse() -> Iterator[Browse]:
    with browsing() as browse:
        yield browse


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made run with a cohort whose flow is drawn."""
    folder = tmp_path_factory.mktemp("runs")
    cohort = folder / "cohort"
    cohort.mkdir()
    Image.new("RGB", (400, 200), (10, 120, 200)).save(cohort / "flow.png")
    (cohort / "flow.csv").write_text("rule,kept_knees\nall,300\nfrontal,150\n")
    return write_run(folder / "made", 120, extra={"cohort": str(cohort)})


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    return write_report(run)


def words(path: Path) -> str:
    return unescape(
        re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", path.read_text("utf-8"), flags=re.DOTALL))
    )


@pytest.mark.parametrize(("width", "media"), [(1180, "screen"), (390, "screen"), (794, "print")])
def test_a_browser_shows_the_page_and_asks_nobody_else(browse: Browse, page: Path, width: int, media: str) -> None:
    text, troubles, shot = browse(page, width, media)
    assert troubles == []
    for told in (
        "RESEARCH ONLY - NOT FOR DIAGNOSIS",
        "SYNTHETIC",
        "of 120 patients",
        "RAD-DINO, ridge",
        "published on other data",
        "2.47 to 2.60",
        "better beyond the interval of the paired difference",
        "not in a running service",
        "genu-train report --run made",
    ):
        assert told in text
    assert len(set(shot)) > 50


def test_the_page_holds_no_script_and_its_policy_allows_none(page: Path) -> None:
    html = page.read_text("utf-8")
    assert "<script" not in html and "javascript:" not in html and " style=" not in html and "http://" not in html
    assert "https://" not in html
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy[1]


def test_the_folder_holds_the_same_as_tables_and_pictures(run: Path, page: Path) -> None:
    folder = page.parent
    assert page == run / "report" / "report.html"
    tables = {path.name for path in folder.glob("*.csv")}
    assert tables == {
        "figures.csv", "differences.csv", "subgroups.csv", "calibration.csv", "folds.csv", "published.csv",
    }  # fmt: skip
    for name in tables - {"published.csv"}:
        assert (folder / name).read_bytes() == (run / "evaluation" / name).read_bytes()
    pictures = {path.stem for path in folder.glob("*.png")}
    assert {
        "figures", "folds", "target", "cohort-flow", "curves-convnext", "system-rad_dino", "system-kl_only",
        "signed-error-age", "signed-error-sex", "signed-error-race", "signed-error-kl-grade",
    } <= pictures  # fmt: skip
    assert "system-constant_mean" not in pictures  # it has nothing to calibrate
    assert page.read_text("utf-8").count("<img ") == len(pictures)


def test_the_same_run_gives_the_same_bytes_and_nothing_old_stays(run: Path, page: Path) -> None:
    before = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    (page.parent / "system-gone.png").write_bytes(b"old")
    write_report(run)
    assert {path.name: path.read_bytes() for path in page.parent.iterdir()} == before


def test_the_numbers_of_the_page_are_those_that_were_measured(run: Path, page: Path) -> None:
    figures = json.loads((run / "evaluation" / "figures.json").read_text())
    text = words(page)
    for row in figures["systems"]:
        value, low, high = row["rmse"]
        assert f"{value:.2f} {low:.2f} to {high:.2f}" in " ".join(text.split())
    few = [row for row in figures["subgroups"] if row["few"]]
    assert few and "Fewer than 10 patients, so that the figures say little" in text
    constant = next(row for row in figures["systems"] if row["system"] == "constant_mean")
    assert constant["spearman"] == (None, None, None) or constant["spearman"] == [None, None, None]
    cells = re.search(r"constant_mean</small></th>(.*?)</tr>", page.read_text("utf-8"))
    assert cells is not None and re.findall(r"<td>(.*?)<", cells[1])[3] == "-"  # never 0


def test_published_figures_are_marked_or_left_out(run: Path, page: Path) -> None:
    html = page.read_text("utf-8")
    rows = re.findall(r'<tr class="elsewhere">.*?</tr>', html)
    assert len(rows) == 3 and all("published on other data" in row for row in rows)
    assert "2.47 to 2.60" in rows[0] and "2.02 to 2.16" in rows[0] and "17,157" in rows[0]
    assert "PUBLISHED ON OTHER DATA" in html
    table = pl.read_csv(page.parent / "published.csv")
    assert table.filter(pl.col("figure") == "rmse")["low"].to_list() == [2.47, 2.58]
    other = json.loads((run / "run.json").read_text()) | {"target": "womac_pain"}
    assert published_for(other) == []


def test_without_published_figures_and_without_synthetic_marks(tmp_path: Path) -> None:
    run = write_run(tmp_path / "made", 24, extra={"synthetic": False}, only=("constant_mean",))
    assert cli.main(["report", "--run", str(run), "--no-published"]) == 0
    text = words(run / "report" / "report.html")
    assert "Chavoshi" not in text and "PUBLISHED" not in text and "SYNTHETIC" not in text
    assert "RESEARCH ONLY" in text and not (run / "report" / "published.csv").exists()


def test_random_weights_are_named_in_capitals(tmp_path: Path) -> None:
    run = tmp_path / "made"
    run.mkdir()
    knees = knees_of(20)
    knees.write_parquet(run / "knees.parquet")
    mean = constants(knees, np.mean)
    told = about("Random", "system", synthetic=True, backbone="rad_dino")
    write_predictions(
        run, Predictions("random", tuple(knees["knee"]), knees["fold"].to_numpy(), mean, mean, about=told)
    )
    (run / "run.json").write_text(json.dumps({"kind": "regression", "target": "pain", "systems": ["random", "other"]}))
    text = words(write_report(run))
    assert "SYNTHETIC: RANDOM STAND-INS, NOT TRAINED NETWORKS, ARE BEHIND random." in text
    assert "random - SYNTHETIC" in text and "NOT FINISHED, and missing below: other" in text
    assert "no constant and no KL-only baseline" in text


def test_a_hostile_value_stays_text(browse: Browse, tmp_path: Path) -> None:
    run = tmp_path / "made"
    run.mkdir()
    knees = knees_of(24).with_columns(race=pl.lit(HOSTILE))
    knees.write_parquet(run / "knees.parquet")
    draw = np.random.default_rng(0)
    for name in ("constant_mean", "evil"):
        mean = constants(knees, np.mean) + (draw.normal(0, 1, len(knees)) if name == "evil" else 0)
        told = about(HOSTILE, "system", backbone=HOSTILE, licence=HOSTILE, head=HOSTILE)
        told["folds"][0]["chosen"] = {HOSTILE: HOSTILE}
        found = Predictions(name, tuple(knees["knee"]), knees["fold"].to_numpy(), mean, mean, about=told)
        write_predictions(run, found)
    (run / "systems" / "evil" / "curves.csv").write_text('fold,epoch,name,value\n0,0,"<b>$x",1\n')
    told = {
        "kind": "regression",
        "target": HOSTILE,
        "unit": HOSTILE,
        "cohort": HOSTILE,
        "embeddings": {HOSTILE: HOSTILE},
    }
    (run / "run.json").write_text(json.dumps({**told, HOSTILE: HOSTILE}))
    path = write_report(run)
    text, troubles, _ = browse(path)
    assert troubles == []
    assert text.count("<script>alert('x')</script>") > 5
    assert "<script" not in path.read_text("utf-8")
    assert all(re.fullmatch(r"[\w-]+\.(png|csv|html)", file.name) for file in path.parent.iterdir())


def test_a_broken_curve_or_entry_is_an_error(tmp_path: Path) -> None:
    run = write_run(tmp_path / "made", 20, only=("convnext",))
    (run / "systems" / "convnext" / "curves.csv").write_text("fold,epoch\n0,1\n")
    with pytest.raises(DataError, match="not a table of fold, epoch, name, value"):
        list(learning(read_evidence(run)))
    path = tmp_path / "published.toml"
    path.write_text('[[entry]]\nkind = "regression"\ntarget = "pain"\nname = "A"\nfigures = { rmse = "low" }\n')
    with pytest.raises(DataError, match="'A' is not complete"):
        published_for({"kind": "regression", "target": "pain"}, path)


def test_a_damaged_flow_of_the_cohort_is_an_error(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    run = write_run(tmp_path / "made", 20, extra={"cohort": str(cohort)}, only=("constant_mean",))
    Image.effect_noise((400, 200), 80).save(cohort / "flow.png")
    whole = (cohort / "flow.png").read_bytes()
    at = whole.index(b"IDAT")
    for damaged in (b"", b"GIF89a", whole[: at + 40], whole[: at + 4] + b"\xff" * 9 + whole[at + 13 :], whole[:20]):
        (cohort / "flow.png").write_bytes(damaged)
        with pytest.raises(DataError, match=r"flow\.png is no PNG, or a damaged one"):
            write_report(run)
    (cohort / "flow.png").write_bytes(whole)
    (cohort / "flow.csv").write_text("step,kept\nall,300\n")
    with pytest.raises(DataError, match=r"flow\.csv has no rule and kept_knees"):
        write_report(run)


def test_every_fit_of_a_run_and_its_versions_are_told(tmp_path: Path) -> None:
    fits = [{"command": ["genu-train", "fit", "a b"], "versions": {"torch": "9.9"}}]
    fits += [{"command": ["genu-train", "fit", "--more"], "versions": {"torch": "9.10"}}]
    text = words(write_report(write_run(tmp_path / "made", 20, extra={"fits": fits}, only=("constant_mean",))))
    assert "Fitted with torch 9.9; then with torch 9.10. Evaluated with python" in text
    assert "genu-train fit 'a b' genu-train fit --more genu-train evaluate --run made" in " ".join(text.split())


def test_another_kind_needs_no_change_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tests.made_kind")
    module.evaluate = lambda evidence: Evaluation(  # type: ignore[attr-defined]
        {"areas.csv": pl.DataFrame({"system": ["one"], "roc_auc": [0.7]})}, {"areas": {"one": [0.7, 0.6, 0.8]}}
    )
    module.lines = lambda figures: [f"one: ROC AUC {figures['areas']['one'][0]}"]  # type: ignore[attr-defined]
    module.headline = lambda evidence: "Progression"  # type: ignore[attr-defined]
    module.summary = lambda evidence, figures: ["Found."]  # type: ignore[attr-defined]
    module.sections = lambda evidence, figures, published: [  # type: ignore[attr-defined]
        Section("areas", "Areas", [Text(f"ROC AUC {figures['areas']['one'][0]}")])
    ]
    monkeypatch.setitem(sys.modules, "tests.made_kind", module)
    monkeypatch.setitem(cv_families.FAMILIES, "made", "tests.made_kind")
    run = write_run(tmp_path / "made", 20, extra={"kind": "made"}, only=("constant_mean",))
    text = words(write_report(run))
    assert "Progression" in text and "ROC AUC 0.7" in text and "How it was made" in text
    assert (run / "report" / "areas.csv").read_text() == "system,roc_auc\none,0.7\n"


@pytest.mark.parametrize(
    ("values", "limits", "bins"),
    [
        (np.arange(11), (0, 10), 11),  # pain
        (np.arange(21), (0, 20), 21),  # WOMAC pain
        (np.arange(37) * 100 / 36, (0, 100), 20),  # KOOS pain
        (np.arange(5), (0, 4), 5),  # KL
        (np.array([-2.5, 0.0, 12.0]), (0, 10), 20),
        (np.array([0.25, 0.25]), (0.25, 0.25), 20),
    ],
)
def test_no_value_is_missing_from_the_picture_of_the_target(
    values: np.ndarray, limits: tuple[float, float], bins: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[float] = []
    plain = Axes.hist

    def hist(axes: Axes, *args: Any, **more: Any) -> Any:
        found = plain(axes, *args, **more)
        counted.extend(np.ravel(found[0]).tolist())
        return found

    monkeypatch.setattr(Axes, "hist", hist)
    report_plots.histogram(values.astype(np.float64), limits, "points")
    assert sum(counted) == len(values) and len(counted) == bins
    if len(values) == bins:
        assert counted == [1] * bins, "a bin a value, none fuller than another"
    edges = report_plots.edges_of(values.astype(np.float64), *limits)
    assert np.allclose(np.diff(edges), edges[1] - edges[0])


def test_no_error_is_missing_from_the_picture_of_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the constant neither, whose errors are larger than those of a good system; and no observed top score."""
    counted: list[float] = []
    plain, plain_2d = Axes.hist, np.histogram2d

    def hist(axes: Axes, *args: Any, **more: Any) -> Any:
        found = plain(axes, *args, **more)
        counted.append(float(np.sum(found[0])))
        return found

    def histogram2d(*args: Any, **more: Any) -> Any:
        found = plain_2d(*args, **more)
        counted.append(float(found[0].sum()))
        return found

    monkeypatch.setattr(Axes, "hist", hist)
    monkeypatch.setattr(np, "histogram2d", histogram2d)
    truth = np.arange(21.0)
    scale = report_plots.Scale((0, 20), "points", (0, 20))
    report_plots.system_panels("one", truth, truth + 0.1, np.full(21, 10.0), [], scale)
    assert counted == [21, 21, 21]


@pytest.mark.parametrize(
    ("value", "plain", "with_sign"),
    [(1.234, "1.23", "+1.23"), (-0.001, "0.00", "0.00"), (-1.5, "−1.50", "−1.50"), (None, "-", "-")],
)
def test_numbers_are_written_the_same_everywhere(value: float | None, plain: str, with_sign: str) -> None:
    assert number(value, 2) == plain and signed(value) == with_sign
    assert with_interval((value, None, None), 2) == Cell(plain)


def test_everything_that_a_page_shows_is_escaped() -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 8 + (300).to_bytes(4, "big") + b"\0" * 9
    cell = Cell(HOSTILE, HOSTILE)
    picture = Picture("a", png, HOSTILE, HOSTILE)
    table = Table([cell], [Row(cell, [cell, replace(cell, kind='"x')], '"y')], HOSTILE)
    html = render(HOSTILE, [Text(HOSTILE, '"z')], [Section('"s', HOSTILE, [table, picture])], [])
    assert "<script" not in html and "onerror=alert(1)>" not in html and 'class=""' not in html
    assert html.count("&lt;script&gt;") == 16 and 'width="192"' in html
