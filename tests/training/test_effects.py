"""Planted effects are found within their interval, and none where none was planted."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from threadpoolctl import threadpool_limits

from inference.errors import DataError
from tests.training.pain_cases import people, vectors, write_cohort, write_store
from training import cv_fit, cv_run, effects, report_regression
from training.cli import main
from training.cv_evaluate import figures_of
from training.cv_evidence import read_evidence
from training.predictions import read_predictions, write_predictions
from training.regression_ridge import RidgeHead
from training.report_page import Cell, Table, Text
from training.report_recovery import planted
from training.resampling import PatientBootstrap
from training.systems import BASELINES, System


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for one another on a busy machine cost minutes."""
    with threadpool_limits(1):
        yield


def made(folder: Path, *, blind: bool = False, ungraded: bool = True, **planted: float) -> tuple[cv_run.CVRun, Path]:
    """A fitted run of a made cohort whose embedding reads grade and effusion, or nothing; and its truth."""
    told = {"kl": 1.0, "image": 2.0, "noise": 1.0} | planted
    knees = people(180, seed=4, **told)
    truth = {
        row["knee"]: {"kl": row["kl"], "effusion": row["effusion"], "pain": row["pain"]} for row in knees.to_dicts()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "truth.json").write_text(json.dumps({"effects": told, "knees": truth}), encoding="utf-8")
    seen = vectors(knees)
    if blind:
        seen = np.random.default_rng(0).normal(size=seen.shape).astype(np.float32)
    store = write_store(folder / "store", knees["knee"].to_list(), seen)
    hidden = pl.int_range(pl.len()) % 6 == 0 if ungraded else pl.lit(False)
    cohort = write_cohort(folder / "cohort", knees.with_columns(kl=pl.when(hidden).then(None).otherwise("kl")))
    run = cv_run.create(folder / "run", cohort, {"net": store})
    systems = [
        BASELINES[2],
        System("net", "image", "system", RidgeHead(), "net"),
        System("image_kl_net", "image and KL", "baseline", RidgeHead(("image", "grades")), "net"),
    ]
    return cv_fit.fit_systems(run, systems, lambda _: None), folder / "truth.json"


def test_the_report_shows_what_was_planted_until_there_are_other_predictions(tmp_path: Path) -> None:
    run, truth = made(tmp_path)
    assert planted(read_evidence(run.folder)) == [], "nothing was held against a truth yet"
    effects.recover(run, truth)
    evidence = read_evidence(run.folder)
    sections = {one.name: one for one in report_regression.sections(evidence, figures_of(evidence), [])}
    (table,) = (part for part in sections["planted"].parts if isinstance(part, Table))
    row = next(row for row in table.rows if row.title.text == "points a grade, by the cohort's KL")
    assert [cell.text for cell in (row.cells[0], *row.cells[2:])] == ["1.00", "cover what was planted", "yes"]
    assert {row.title.small for row in table.rows} >= {"the cohort's table", "image", "image and KL"}
    told = read_predictions(run.folder, "net")
    assert told.mean is not None
    blind = replace(told, system="blind", mean=told.mean[::-1].copy(), about={**told.about, "title": "blind"})
    write_predictions(run.folder, blind)
    assert effects.recover(run, truth).recovered, "one that sees it is enough"
    (section,) = planted(read_evidence(run.folder))
    (table,) = (part for part in section.parts if isinstance(part, Table))
    row = next(row for row in table.rows if row.title.small == "blind" and row.cells[2].text.startswith("lie above 0"))
    assert row.cells[3] == Cell("no"), "no failure, so not in red"
    write_predictions(run.folder, replace(told, mean=told.mean[::-1].copy()))
    ((stale,),) = (section.parts for section in planted(read_evidence(run.folder)))
    assert isinstance(stale, Text) and "run `genu-train recover` again" in stale.text


def test_what_was_planted_is_recovered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, truth = made(tmp_path)
    assert main(["recover", "--run", str(run.folder), "--truth", str(truth)]) == 0
    assert "recovered from 360 knees of 180 patients" in capsys.readouterr().out
    kept = json.loads((run.folder / "recovery" / "recovery.json").read_text("utf-8"))
    rows = {(row["system"], row["figure"].split(",")[0]): row for row in kept["rows"]}
    assert kept["recovered"] is True
    assert all(row["holds"] for row in kept["rows"] if row["claim"] != "told")
    slope = rows["", "points a grade"]
    assert slope["low"] < 1 < slope["high"]
    assert slope["high"] - slope["low"] < 0.5
    assert rows["image_kl_net", "gain in R² over KL alone"]["low"] > 0.02
    assert rows["net", "correlation of the score with the effusion"]["low"] > 0.5
    through = rows["net", "points from no effusion to a full one"]
    assert through["low"] < 2 < through["high"]
    assert through["low"] > 1
    table = pl.read_csv(run.folder / "recovery" / "recovery.csv")
    assert len(table) == len(kept["rows"])


@pytest.mark.parametrize("kl", [0.0, 1.0])
def test_nothing_is_found_where_nothing_was_planted(tmp_path: Path, kl: float) -> None:
    """Not even by an embedding that reads the grade from the pixels of knees without one."""
    run, truth = made(tmp_path, kl=kl, image=0.0)
    found = effects.recover(run, truth)
    assert found.recovered, found.failures
    claims = {row.claim for row in found.rows}
    assert claims == {"covers", "not above", "told"}
    slope = found.rows[0]
    assert slope.low is not None
    assert slope.high is not None
    assert slope.low <= kl <= slope.high


def test_beating_a_grade_that_says_nothing_is_no_finding(tmp_path: Path) -> None:
    """Means by grade that follow chance are worse than one mean, to which a penalty shrinks image and grade."""
    run, truth = made(tmp_path, kl=0.0, image=0.0)
    grade = run.knees()["kl"].fill_null(0).to_numpy()
    for name, off in (("kl_only", 0.5 * (-1.0) ** grade), ("image_kl_net", 0.0)):
        told = read_predictions(run.folder, name)
        assert told.mean is not None
        write_predictions(run.folder, replace(told, mean=np.full(len(grade), 2.0) + off))
    constant = replace(read_predictions(run.folder, "image_kl_net"), system="constant_mean")
    assert any("gain in R²" in failure for failure in effects.recover(run, truth).failures), "there is no constant"
    write_predictions(run.folder, constant)
    found = effects.recover(run, truth)
    assert found.recovered, found.failures
    (gain,) = (row for row in found.rows if row.figure.startswith("gain in R²"))
    assert gain.value == 0


def test_systems_that_are_blind_to_the_effect_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, truth = made(tmp_path, blind=True)
    assert main(["recover", "--run", str(run.folder), "--truth", str(truth)]) == 2
    printed = capsys.readouterr()
    assert "no system finds the planted image effect" in printed.err
    assert "DOES NOT HOLD" in printed.out


def test_a_wrong_truth_does_not_pass(tmp_path: Path) -> None:
    run, path = made(tmp_path)
    truth = json.loads(path.read_text("utf-8"))

    def told(content: object, match: str) -> None:
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(DataError, match=match):
            effects.recover(run, path)

    told({**truth, "effects": {"kl": 1.0}}, "no effects of kl and image")
    told({"knees": {}}, "no truth of")
    told({**truth, "knees": dict(list(truth["knees"].items())[10:])}, "10 of the run's 360 knees are not in")
    swapped = {f"{knee[:-1]}{'R' if knee[-1] == 'L' else 'L'}": row for knee, row in truth["knees"].items()}
    told({**truth, "knees": swapped}, "have another pain than")
    told({**truth, "effects": {"kl": 1.0, "image": float("nan")}}, "no finite number")
    first = sorted(truth["knees"])[0]
    for knee, words in (
        ({"pain": 3.0, "kl": 2}, f"effusion of knee {first} is None"),
        ({"pain": "much", "kl": 2, "effusion": 0.5}, f"pain of knee {first} is 'much'"),
        ({"pain": 3.0, "kl": None, "effusion": 0.5}, f"kl of knee {first} is None"),
        (["pain", 3.0], f"pain of knee {first} is None"),
        ({"pain": float("nan"), "kl": 2, "effusion": 0.5}, f"pain of knee {first} is nan"),
    ):
        told({**truth, "knees": {**truth["knees"], first: knee}}, words)
    path.write_text(json.dumps({**truth, "effects": {"kl": 1.6, "image": 0.5}}), encoding="utf-8")
    found = effects.recover(run, path)
    assert len(found.failures) >= 3


def test_slopes_are_those_of_least_squares_and_an_instrument_undoes_dilution() -> None:
    rng = np.random.default_rng(0)
    patients = [str(number // 2) for number in range(2000)]
    shared = np.repeat(rng.normal(size=1000), 2)
    hidden = rng.normal(size=2000)
    reading = hidden + rng.normal(size=2000)
    target = 1 + 2 * hidden + shared + rng.normal(size=2000)
    one = np.ones(2000)
    bootstrap = PatientBootstrap(patients, rounds=300)
    columns = np.stack([one, hidden], axis=1)
    found = effects.slopes(bootstrap, columns, target)
    expected = np.linalg.lstsq(columns, target, rcond=None)[0]
    assert np.allclose([row.value for row in found], expected)
    assert found[1].low is not None
    assert found[1].high is not None
    assert 0.08 < found[1].high - found[1].low < 0.2  # 4 standard errors of 0.03
    read = np.stack([one, reading], axis=1)
    diluted = effects.slopes(bootstrap, read, target)[1].value
    undiluted = effects.slopes(bootstrap, columns, target, instruments=read)[1]
    assert diluted == pytest.approx(1.0, abs=0.15)
    assert undiluted.value == pytest.approx(2.0, abs=0.2)
    half = (np.arange(2000) < 1000).astype(float)
    part = effects.slopes(bootstrap, columns, target, weight=half)[1].value
    assert part == pytest.approx(np.linalg.lstsq(columns[:1000], target[:1000], rcond=None)[0][1])
