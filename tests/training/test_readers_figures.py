"""Figures of readers against numbers worked out by hand, scikit-learn, and readers of known skill."""

import csv
import json
from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score

from inference.errors import DataError
from tests.training import made_readers
from training import cli
from training.predictions import Predictions, write_predictions
from training.readers import Bench, Truth
from training.readers_answers import AnswerFile, order_of
from training.readers_change import read_test_retest, reliable_change
from training.readers_evaluate import evaluate
from training.readers_figures import auc, cohen, fleiss, mcnemar, mean_difference, mean_of_readers


def test_the_area_is_that_of_mann_and_whitney_with_an_exact_interval() -> None:
    assert auc(np.array([1, 1, 0.5, 0.0])).value == 0.625
    # Clopper and Pearson, 8 of 10: as in any table of theirs; 10 of 10: 0.025 ** (1 / 10).
    value, low, high = auc(np.array([1.0] * 8 + [0.0] * 2))
    assert (value, round(low or 0, 4), round(high or 0, 4)) == (0.8, 0.4439, 0.9748)
    assert auc(np.ones(10)) == (1.0, pytest.approx(0.025**0.1), 1.0)
    assert auc(np.zeros(10)) == (0.0, 0.0, pytest.approx(1 - 0.025**0.1))
    assert auc(np.array([])).value is None


@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_nineteen_of_twenty_intervals_hold_the_skill(ties: float) -> None:
    generator = np.random.default_rng(3)
    skill, held = 0.6, 0
    for _ in range(400):
        right = (generator.random(60) < skill).astype(float)
        found = auc(np.where(generator.random(60) < ties, 0.5, right))
        true = ties / 2 + (1 - ties) * skill
        held += (found.low or 0) <= true <= (found.high or 0)
    assert held >= 380


def test_kappa_of_two_is_cohens() -> None:
    # 20 and 15 alike, 5 and 10 not: observed 0.7, by chance 0.5, kappa 0.4.
    one = np.repeat([0, 0, 1, 1], [20, 5, 10, 15])
    other = np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    found = cohen(one, other, 2)
    assert found.pairs == 50 and found.share.value == pytest.approx(0.7) and found.kappa.value == pytest.approx(0.4)
    assert found.kappa.low is not None and found.kappa.low < 0.4 < (found.kappa.high or 0)
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 3, (2, 90))
    b = np.where(generator.random(90) < 0.5, a, b)
    assert cohen(a, b, 3).kappa.value == pytest.approx(cohen_kappa_score(a, b))
    assert cohen(np.zeros(5, np.int64), np.zeros(5, np.int64), 3).kappa.value is None


def test_kappa_of_many_is_fleiss() -> None:
    # Fleiss' own kind of table: 14 raters, 10 subjects, 5 categories; kappa 0.210.
    votes = np.array([
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ])  # fmt: skip
    answers = np.stack([np.repeat(np.arange(5), row) for row in votes])
    found = fleiss(answers, 5)
    assert found.kappa.value == pytest.approx(0.20993, abs=1e-5) and found.share.value == pytest.approx(0.378022)
    # Of two readers with equal shares both kappas are the same.
    one, other = np.repeat([0, 0, 1, 1], [20, 5, 5, 20]), np.repeat([0, 1, 0, 1], [20, 5, 5, 20])
    assert fleiss(np.stack([one, other], axis=1), 2).kappa.value == pytest.approx(cohen(one, other, 2).kappa.value)


def test_mcnemar_is_exact_and_passes_over_ties() -> None:
    one = np.array([1] * 9 + [0] + [1] * 5 + [0] * 4 + [0.5, 1.0])
    other = np.array([0] * 9 + [1] + [1] * 5 + [0] * 4 + [1.0, 0.5])
    found = mcnemar(one, other)
    assert found[:5] == (5, 9, 1, 4, 2)
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(np.ones(3), np.ones(3)).p is None


def test_differences_are_taken_pair_by_pair() -> None:
    one = np.array([1.0] * 30 + [0.0] * 10)
    assert mean_difference(one, one) == (0.0, 0.0, 0.0)
    value, low, high = mean_difference(one, 1 - one)
    assert value == 0.5 and low is not None and high is not None and 0.1 < low < 0.5 < high < 0.9
    table = np.stack([one, np.where(np.arange(40) < 20, 1 - one, np.nan)], axis=1)
    assert mean_of_readers(table).value == pytest.approx((0.75 + 0.0) / 2)


def answered(bench: Bench, truth: Truth, name: str, skill: float, ties: float, seed: int) -> list[float]:
    """Answers of a reader who knows of so many pairs; the outcomes in the order of the truth."""
    generator = np.random.default_rng(seed)
    progressors = {one.pair: one.progressor for one in truth.pairs}
    found = {}
    with AnswerFile(bench, name) as file:
        for shown in order_of(bench, name):
            right, tie = generator.random() < skill, generator.random() < ties
            choice = "tie" if tie else "first" if (shown.first == progressors[shown.pair]) == right else "second"
            file.add(shown, choice, confidence=None, seconds=12.0, seen=[12, 12])
            found[shown.pair] = 0.5 if tie else float(right)
    return [found[one.pair] for one in truth.pairs]


def write_run(folder: Path, truth: Truth, gaps: np.ndarray, **about: object) -> None:
    """A system whose probability of the progressor lies so far above that of the other knee."""
    keys = [key for one in truth.pairs for key in one.keys]
    p = np.array([value for gap in gaps for value in (0.4 + gap, 0.4)])
    folds = np.repeat(np.arange(len(truth.pairs)) % 5, 2)
    folds[1] += 1
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"kind": "classification", "target": "progression_abs"} | about))
    told = {"title": "Slices", "kind": "system"}
    found = Predictions("image", tuple(keys), folds, probabilities=np.stack([1 - p, p], axis=1), about=told)
    write_predictions(folder, found)


def test_readers_of_known_skill_are_found_with_it_and_the_system_beside_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, truth = made_readers.bare(tmp_path / "bench")
    outcomes = {
        name: np.array(answered(bench, truth, name, skill, ties, seed))
        for name, skill, ties, seed in (("Ann", 0.85, 0.0, 1), ("Ben", 0.6, 0.1, 2), ("Cleo <b>", 0.5, 0.0, 3))
    }
    gaps = np.where(np.arange(150) % 3 == 0, -0.1, 0.1)
    gaps[:6] = 0.0
    write_run(tmp_path / "run", truth, gaps)
    system = np.where(gaps == 0, 0.5, (gaps > 0).astype(float))
    assert cli.main(["readers", "evaluate", str(tmp_path / "bench"), "--run", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    figures = json.loads((tmp_path / "bench" / "evaluation" / "figures.json").read_text("utf-8"))
    rows = {row["name"]: row for row in figures["rows"]}
    for name, expected in {**outcomes, "image": system}.items():
        row = rows[name]
        assert row["auc"][0] == pytest.approx(expected.mean()) and row["pairs"] == 150
        assert f"{expected.mean():.3f} (" in said
        for stratum in ("almost certain", "likely", "doubtful"):
            chosen = [one.stratum == stratum for one in truth.pairs]
            assert row["strata"][stratum][:2] == [sum(chosen), pytest.approx(expected[chosen].mean())]
    assert rows["Ann"]["auc"][1] < 0.85 < rows["Ann"]["auc"][2]
    assert rows["Ben"]["auc"][1] < 0.59 < rows["Ben"]["auc"][2] and rows["Ben"]["ties"] > 5
    assert rows["Cleo <b>"]["auc"][1] < 0.5 < rows["Cleo <b>"]["auc"][2]
    left, chosen = rows["Cleo <b>"]["at_the_left"]
    assert chosen == 150 and 50 < left < 100
    assert figures["mean_of_readers"][0] == pytest.approx(np.mean([one.mean() for one in outcomes.values()]))
    assert figures["across_folds"] == {"image": 1}
    # Agreement, worked out again from the outcomes: both right or both wrong is the same knee where nobody is tied.
    alike = next(one for one in figures["agreement"] if (one["one"], one["other"]) == ("Ann", "Cleo <b>"))
    assert alike["share"][0] == pytest.approx((outcomes["Ann"] == outcomes["Cleo <b>"]).mean())
    assert figures["fleiss"]["pairs"] == 150 and len(figures["agreement"]) == 3
    # A test that does not share code: the pairs that one had right alone, and a sum of binomials.
    test = next(one for one in figures["against"] if one["reader"] == "Ann")
    only = int(((system == 1) & (outcomes["Ann"] == 0)).sum())
    others = int(((system == 0) & (outcomes["Ann"] == 1)).sum())
    assert (test["system_only"], test["reader_only"], test["with_ties"]) == (only, others, 6)
    tail = 2 * sum(comb(only + others, k) for k in range(min(only, others) + 1)) / 2 ** (only + others)
    assert test["p"] == pytest.approx(min(tail, 1.0))
    assert test["difference"][0] == pytest.approx(system.mean() - outcomes["Ann"].mean())
    page = (tmp_path / "bench" / "evaluation" / "report.html").read_text("utf-8")
    assert "Cleo &lt;b&gt;" in page and "<b>" not in page and "0.5782" in page and "published, on other data" in page
    assert "<script" not in page and (tmp_path / "bench" / "evaluation" / "readers.png").read_bytes()[1:4] == b"PNG"
    table = pl.read_csv(tmp_path / "bench" / "evaluation" / "pairs.csv")
    assert table["system: image"].to_list() == pytest.approx(system.tolist())


def test_readers_who_stopped_half_way_are_judged_on_what_they_saw(tmp_path: Path) -> None:
    bench, _ = made_readers.bare(tmp_path / "bench", (2, 4, 2))
    first = order_of(bench, "Ann")[0]
    with AnswerFile(bench, "Ann") as file:
        file.add(first, "tie", confidence=2, seconds=3.0, seen=[1, 1])
    with AnswerFile(bench, "Ben") as file:
        for shown in order_of(bench, "Ben")[:5]:
            file.add(shown, "first", confidence=None, seconds=3.0, seen=[1, 1])
    figures = evaluate(tmp_path / "bench")
    ann, ben = figures["rows"]
    assert (ann["pairs"], ann["ties"], ann["auc"][0], ann["confidence"]["2"][:2]) == (1, 1, 0.5, [1, 0.5])
    assert ben["pairs"] == 5 and ben["at_the_left"] == [5, 5]
    shared = first.pair in {shown.pair for shown in order_of(bench, "Ben")[:5]}
    assert figures["agreement"][0]["pairs"] == int(shared)
    assert cli.main(["readers", "evaluate", str(tmp_path / "bench")]) == 0


def test_what_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    _, truth = made_readers.bare(tmp_path / "bench", (1, 2, 1))
    with pytest.raises(DataError, match="nobody has answered"):
        evaluate(tmp_path / "bench")
    gaps = np.full(4, 0.1)
    write_run(tmp_path / "run", truth, gaps, target="womac_pain_binary")
    with pytest.raises(DataError, match="predicts womac_pain_binary"):
        evaluate(tmp_path / "bench", tmp_path / "run")
    other = made_readers.bare(tmp_path / "other", (2, 2, 2))[1]
    renamed = [replace(one, keys=(f"9{one.keys[0]}", one.keys[1])) for one in other.pairs]
    write_run(tmp_path / "run", Truth(tuple(renamed)), np.full(6, 0.1))
    with pytest.raises(DataError, match="both knees of none of the pairs"):
        evaluate(tmp_path / "bench", tmp_path / "run")
    path = tmp_path / "bench" / "truth.json"
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(content | {"bench": "0" * 64}))
    with pytest.raises(DataError, match="of other pairs"):
        evaluate(tmp_path / "bench")
    path.unlink()
    with pytest.raises(DataError, match="needed to judge"):
        evaluate(tmp_path / "bench")


def table(path: Path, rows: list[tuple[object, ...]], names: tuple[str, ...] = ("first", "second")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def test_reliable_change_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Sums of squares: total 10, knees 8, sessions 0, left 2. SD = sqrt(10/7); ICC = (8/3-2/3)/(8/3+2/3-1/3) = 2/3;
    # Pearson's r = 3/5. SEM = SD sqrt(1/3), cut = 1.96 sqrt(2) SEM.
    path = table(tmp_path / "data.csv", [(1, 2), (2, 1), (3, 4), (4, 3)])
    data = read_test_retest(path)
    found = reliable_change(data)
    assert (found.knees, found.patients) == (4, 4)
    assert (found.icc, found.pearson, found.sd) == pytest.approx((2 / 3, 0.6, (10 / 7) ** 0.5))
    assert found.sem == pytest.approx((10 / 21) ** 0.5)
    assert found.cut.value == pytest.approx(1.96 * 2**0.5 * (10 / 21) ** 0.5)
    assert reliable_change(data, reliability="pearson").cut.value == pytest.approx(1.96 * 2**0.5 * (4 / 7) ** 0.5)
    assert cli.main(["readers", "reliable-change", str(path)]) == 0
    assert "--almost-certain -1.913" in capsys.readouterr().out


def test_reliable_change_finds_the_error_that_was_put_in() -> None:
    from training.readers_change import TestRetest

    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(300), 2)
    true = generator.normal(4, 1.2, 300)[patients] + generator.normal(0, 0.3, 600)
    first, second = (true + generator.normal(0, 0.25, 600) for _ in range(2))
    names = tuple(f"P{number}" for number in patients)
    found = reliable_change(TestRetest(first, second, names))
    wanted = 1.96 * 2**0.5 * 0.25
    assert found.patients == 300
    assert found.cut.low is not None and found.cut.high is not None
    assert found.cut.low < wanted < found.cut.high and found.cut.high - found.cut.low < 0.15
    assert found.repeatability == pytest.approx(found.cut.value, rel=0.03)
    # A shift between the sessions is error to the one, and none to the other.
    shifted = TestRetest(first, second + 0.5, names)
    icc, pearson = (reliable_change(shifted, reliability=kind).cut.value or 0 for kind in ("icc", "pearson"))
    assert icc > 1.4 * wanted and icc > 1.2 * pearson


@pytest.mark.parametrize(
    ("rows", "names", "reason"),
    [
        ([(1, 2), (3, "x"), (1, 1)], ("first", "second"), "line 3: 'x' is no number"),
        ([(1, 2), (3, 4), (1, "nan")], ("first", "second"), "line 4: 'nan'"),
        ([(1, 2)] * 3, ("one", "two"), "lacks the column"),
        ([(1, 2)], ("first", "second"), "1 knees measured twice: at least 3"),
        ([(2, 2)] * 4, ("first", "second"), "all measurements are equal"),
    ],
)
def test_odd_test_retest_data_is_refused(
    tmp_path: Path, rows: list[tuple[object, ...]], names: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        reliable_change(read_test_retest(table(tmp_path / "data.csv", rows, names)))
