"""Figures of scores against scipy, scikit-learn and plain resampling; what a run must be like; groups; verdicts."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from inference.errors import DataError
from tests.training.made_runs import about, constants, knees_of, out_of_fold, write_run
from training import cli, cv_figures, report_cli
from training.cv_evaluate import evaluate_run, figures_of
from training.cv_evidence import read_evidence
from training.cv_figures import Scores, measure, point_figures
from training.cv_subgroups import UNKNOWN, factors_of, patients_in
from training.cv_verdict import leader, sentences
from training.predictions import Predictions, write_predictions
from training.resampling import PatientBootstrap, estimate


def made_scores(count: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Scores]:
    """Truth, patients and predictions with ties."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 11, count).astype(np.float64)
    mean = (0.5 * truth + draw.normal(2, 2, count)).round(1)
    return truth, np.array([f"p{number // 2}" for number in range(count)]), Scores(mean, mean.round(), True)


def expanded(bootstrap: PatientBootstrap, number: int) -> np.ndarray:
    """Rows of a resample, each as often as it was drawn."""
    weights = list(bootstrap.weights())[number]
    return np.repeat(np.arange(len(weights)), weights.astype(int))


def test_figures_are_those_of_scipy_and_scikit_learn() -> None:
    truth, _, scores = made_scores()
    found = point_figures(truth, scores)
    slope, intercept = np.polyfit(scores.mean, truth, 1)
    expected = {
        "rmse": root_mean_squared_error(truth, scores.mean),
        "mae": mean_absolute_error(truth, scores.median),
        "r2": r2_score(truth, scores.mean),
        "spearman": spearmanr(truth, scores.mean).statistic,
        "bias": np.mean(scores.mean - truth),
        "slope": slope,
        "intercept": intercept,
    }
    assert found == pytest.approx(expected, abs=1e-9)


def test_every_resample_gives_the_figures_of_its_rows() -> None:
    truth, patients, scores = made_scores()
    bootstrap = PatientBootstrap(patients.tolist(), rounds=7, seed=3)
    draws = measure(truth, {"one": scores}, bootstrap)["one"].draws
    for number in range(7):
        rows = expanded(bootstrap, number)
        expected = point_figures(truth[rows], Scores(scores.mean[rows], scores.median[rows], True))
        assert {name: values[number] for name, values in draws.items()} == pytest.approx(expected, abs=1e-9)
        assert draws["spearman"][number] == pytest.approx(spearmanr(truth[rows], scores.mean[rows]).statistic)


def test_patients_are_drawn_with_all_their_knees_and_as_many_as_there_are() -> None:
    patients = ["b", "a", "b", "c", "a", "b"]
    bootstrap = PatientBootstrap(patients, rounds=50, seed=1)
    by_patient = {name: [place for place, one in enumerate(patients) if one == name] for name in "abc"}
    drawn = []
    for weights in bootstrap.weights():
        assert all(len(set(weights[places])) == 1 for places in by_patient.values())
        drawn.append([weights[places[0]] for places in by_patient.values()])
    assert {sum(counts) for counts in drawn} == {3}
    assert len({tuple(counts) for counts in drawn}) > 5
    again = PatientBootstrap(patients, rounds=50, seed=1)
    assert np.array_equal(bootstrap.sums(np.eye(6)), again.sums(np.eye(6)))
    assert np.array_equal(bootstrap.sums(np.eye(6)), np.stack(list(bootstrap.weights())))


def test_intervals_hold_the_true_value_as_often_as_they_say() -> None:
    # Two knees of a patient share most of their error: intervals that took knees for patients would hold it too seldom.
    held = {"patients": 0, "knees": 0}
    for seed in range(150):
        draw = np.random.default_rng(seed)
        owner = np.repeat(np.arange(80), 2)
        error = 0.3 + draw.normal(0, 1, 80)[owner] + draw.normal(0, 0.3, 160)
        for name, units in (("patients", owner), ("knees", np.arange(160))):
            bootstrap = PatientBootstrap([str(unit) for unit in units], rounds=200, seed=seed)
            ((found,),) = cv_figures.group_means([error], np.zeros(160, np.int64), 1, bootstrap)
            assert found.low is not None and found.high is not None
            held[name] += found.low <= 0.3 <= found.high
    assert 0.9 <= held["patients"] / 150 <= 0.99
    assert held["knees"] / 150 < 0.9


def test_a_constant_has_no_rank_correlation_and_no_line() -> None:
    truth, patients, _ = made_scores()
    folds = np.arange(300) % 2
    constant = np.where(folds == 0, 4.9, 5.1)  # differs between folds only
    assert not cv_figures.is_ordered(constant, folds)
    assert cv_figures.is_ordered(constant, np.zeros(300, np.int64))
    found = measure(truth, {"c": Scores(constant, constant, False)}, PatientBootstrap(patients.tolist(), rounds=20))
    figures = found["c"].figures
    for name in ("spearman", "slope", "intercept"):
        assert figures[name] == (None, None, None)
    assert figures["rmse"].value == pytest.approx(root_mean_squared_error(truth, constant))


def test_a_difference_is_paired() -> None:
    truth, patients, scores = made_scores()
    worse = Scores(scores.mean + 0.5, scores.median + 0.5, True)
    bootstrap = PatientBootstrap(patients.tolist(), rounds=300)
    found = measure(truth, {"one": scores, "same": scores, "worse": worse}, bootstrap)
    same = cv_figures.difference(found["one"], found["same"], "rmse")
    assert same == (0, 0, 0) and cv_figures.is_better(same, "rmse") is None
    lead = cv_figures.difference(found["one"], found["worse"], "bias")
    assert lead == pytest.approx((-0.5, -0.5, -0.5))  # far narrower than the interval of either
    assert found["one"].figures["bias"].high - found["one"].figures["bias"].low > 0.3  # type: ignore[operator]
    assert cv_figures.is_better(estimate(-0.2, np.array([-0.3, -0.1])), "rmse") is True
    assert cv_figures.is_better(estimate(-0.2, np.array([-0.3, -0.1])), "r2") is False


def test_an_estimate_without_enough_resamples_has_no_interval() -> None:
    assert estimate(float("nan"), np.ones(4)) == (None, None, None)
    assert estimate(1.0, np.array([1.0, np.nan, np.nan, np.nan])) == (1.0, None, None)
    assert estimate(1.0, np.array([1.0, 2.0, 2.0, np.nan])).high is not None


@pytest.mark.parametrize(("values", "count"), [([0.0] * 40, 1), ([0.0] * 30 + [1.0] * 10, 2), (list(range(40)), 10)])
def test_bins_are_about_equal_and_never_part_equal_predictions(values: Sequence[float], count: int) -> None:
    places = cv_figures.bins_of(np.asarray(values, np.float64), 10)
    assert sorted(set(places.tolist())) == list(range(count))
    assert len(set(zip(values, places.tolist(), strict=True))) == len(set(values))
    if count == 10:
        assert np.bincount(places).tolist() == [4] * 10


def test_groups_are_those_of_the_paper_and_nobody_is_lost() -> None:
    knees = pl.DataFrame(
        {
            "age": [44.9, 45.0, 70.0, 70.1, None],
            "sex": ["M", "F", "F", None, "O"],
            "race": ["White", "White", "Black", None, "Black"],
            "kl": [4, 0, None, 2, 2],
            "PatientID": ["a", "a", "b", "c", "d"],
        }
    )
    age, sex, race, grade = factors_of(knees)
    assert age.groups == ("under 45", "45 to 70", "over 70", UNKNOWN) and age.places.tolist() == [0, 1, 1, 2, 3]
    assert sex.groups == ("women", "men", "O", UNKNOWN) and sex.places.tolist() == [1, 0, 0, 3, 2]
    assert race.groups == ("Black", "White", UNKNOWN) and patients_in(race, list("aabcd")) == [2, 1, 1]
    assert grade.groups == ("KL 0", "KL 2", "KL 4", UNKNOWN)
    (given,) = factors_of(pl.DataFrame({"kl": [0, 0], "grade": [3, None]}))
    assert given.groups == ("KL 3", UNKNOWN)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "made", 150)


def test_evaluate_finds_what_was_planted_and_nothing_else(run: Path) -> None:
    figures = evaluate_run(run)
    better = {(row["system"], row["against"], row["figure"]): row["better"] for row in figures["differences"]}
    assert better["rad_dino", "constant_mean", "rmse"] is True
    assert better["rad_dino", "kl_only", "rmse"] is True and better["rad_dino", "kl_only", "spearman"] is True
    assert better["biomedclip", "constant_mean", "rmse"] is not True
    assert better["biomedclip", "kl_only", "rmse"] is False
    said = sentences(figures)
    assert said[0].startswith("RMSE against the constant mean: 2 of 3 systems are better beyond the interval")
    assert "(RAD-DINO, ridge; ConvNeXt, fine-tuned)" in said[0]
    assert "1 is worse beyond it (BiomedCLIP, ridge)" in said[2]
    signs = [row for row in figures["subgroups"] if row["system"] == "constant_mean" and row["factor"] == "KL grade"]
    errors = {row["group"]: row["signed_error"] for row in signs}
    assert errors["KL 0"][1] > 0 and errors["KL 4"][2] < 0  # the constant misses what the grade tells
    assert sum(row["knees"] for row in signs) == figures["knees"]
    assert all(row["few"] == (row["patients"] < 10) for row in figures["subgroups"])


def test_noise_is_hardly_ever_called_better() -> None:
    found = []
    for seed in range(60):
        knees = knees_of(50, seed, planted=False)
        noise = np.random.default_rng(seed).normal(0, 1, (len(knees), 1))
        systems = {"noise": out_of_fold(knees, noise), "constant": constants(knees, np.mean)}
        bootstrap = PatientBootstrap(knees["PatientID"].to_list(), rounds=200, seed=seed)
        scores = {name: Scores(mean, mean, False) for name, mean in systems.items()}
        measured = measure(knees["truth"].to_numpy(), scores, bootstrap)
        lead = cv_figures.difference(measured["noise"], measured["constant"], "rmse")
        found.append(cv_figures.is_better(lead, "rmse"))
    assert found.count(True) <= 3  # one in forty at most is expected of a 95 % interval's lower side
    assert found.count(None) > 40


def test_sentences_follow_the_figures() -> None:
    def told(*better: bool | None) -> str:
        names = [f"s{number}" for number in range(len(better))]
        systems = [{"system": name, "title": name.upper(), "role": "system", "rmse": (2.0, 1.9, 2.1)} for name in names]
        systems.append({"system": "constant_mean", "title": "C", "role": "baseline", "rmse": (2.2, 2.1, 2.3)})
        rows = [
            {
                "system": name, "against": "constant_mean", "figure": "rmse", "difference": (-0.2, -0.3, -0.1),
                "better": one,
            }
            for name, one in zip(names, better, strict=True)
        ]  # fmt: skip
        figures = {"systems": systems, "differences": rows}
        return sentences(figures)[0] + " | " + " ".join(leader(figures, "points"))

    start = "RMSE against the constant mean: "
    beyond = "better beyond the interval of the paired difference"
    assert told(None).startswith(f"{start}the only system is not {beyond}. | S0 has an RMSE of 2.00 points (95")
    assert "it is NOT better beyond" in told(None) and "it is WORSE beyond" in told(False)
    assert told(True).startswith(f"{start}1 of 1 system is {beyond} (S0).")
    assert "Against the constant mean (2.20) it is better" in told(True) and "flatters" not in told(True)
    assert told(None, None).startswith(
        f"{start}none of the 2 systems is {beyond}. | S0 has the least RMSE of 2 systems:"
    )
    assert told(True, False).startswith(f"{start}1 of 2 systems is {beyond} (S0), and 1 is worse beyond it (S1).")
    assert "flatters" in told(True, True)


def test_what_is_written_is_what_was_measured(run: Path) -> None:
    figures = evaluate_run(run)
    folder = run / "evaluation"
    names = ["calibration.csv", "differences.csv", "figures.csv", "folds.csv", "subgroups.csv"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "figures.json"])
    table = pl.read_csv(folder / "figures.csv")
    rows = {row["system"]: row for row in figures["systems"]}
    assert table["system"].to_list() == list(rows)
    assert table["system"].to_list()[:3] == ["constant_mean", "constant_median", "kl_only"]
    row = table.filter(pl.col("system") == "rad_dino").to_dicts()[0]
    assert (row["rmse"], row["rmse_low"], row["rmse_high"]) == pytest.approx(rows["rad_dino"]["rmse"])
    assert row["knees"] == len(pl.read_parquet(run / "knees.parquet")) and row["patients"] == 150
    folds = pl.read_csv(folder / "folds.csv").filter(pl.col("system") == "rad_dino")
    pooled = np.sqrt(np.average(folds["rmse"].to_numpy() ** 2, weights=folds["knees"].to_numpy()))
    assert pooled == pytest.approx(rows["rad_dino"]["rmse"][0])
    first = (folder / "figures.json").read_bytes()
    evaluate_run(run)
    assert (folder / "figures.json").read_bytes() == first


def test_figures_are_measured_again_when_predictions_change(tmp_path: Path) -> None:
    run = write_run(tmp_path / "made", 30)
    evaluate_run(run)
    path = run / "evaluation" / "figures.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "kept": True}))
    assert figures_of(read_evidence(run))["kept"] is True
    knees = pl.read_parquet(run / "knees.parquet")
    exact = knees["truth"].to_numpy()
    write_predictions(
        run,
        Predictions(
            "rad_dino", tuple(knees["knee"]), knees["fold"].to_numpy(), exact, exact, about=about("A", "system")
        ),
    )
    again = figures_of(read_evidence(run))
    assert "kept" not in again
    assert next(row for row in again["systems"] if row["system"] == "rad_dino")["rmse"][0] == 0


def spoiled(run: Path, change: pl.Expr) -> None:
    path = run / "knees.parquet"
    pl.read_parquet(path).with_columns(change).write_parquet(path)


def test_a_leak_and_a_mix_up_are_errors(tmp_path: Path) -> None:
    knees = knees_of(20)
    twice = knees["PatientID"].value_counts().filter(pl.col("count") > 1)["PatientID"][0]
    leaks = (pl.col("PatientID") == twice) & (pl.col("PatientID").cum_count().over("PatientID") == 1)
    for name, change, words in (
        ("leak", pl.when(leaks).then((pl.col("fold") + 1) % 5).otherwise("fold").alias("fold"), "more than one fold"),
        ("folds", ((pl.col("fold") + 1) % 5).alias("fold"), "other folds"),
        ("knees", pl.concat_str(pl.lit("x"), "knee").alias("knee"), "other knees"),
        ("truth", pl.lit(float("nan")).alias("truth"), "not every truth"),
        ("patients", pl.lit(None, pl.String).alias("PatientID"), "have no PatientID"),
    ):
        run = write_run(tmp_path / name, 20)
        spoiled(run, change)
        with pytest.raises(DataError, match=words) as caught:
            evaluate_run(run)
        assert twice not in str(caught.value)
        assert name != "leak" or knees.filter(pl.col("PatientID") == twice)["knee"][0] in str(caught.value)


def test_what_is_no_run_of_scores_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        evaluate_run(tmp_path)
    run = write_run(tmp_path / "made", 20)
    told = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**told, "kind": "ranking"}))
    with pytest.raises(DataError, match="kind 'ranking'"):
        evaluate_run(run)
    (run / "run.json").write_text(json.dumps(told))
    knees = pl.read_parquet(run / "knees.parquet")
    half = np.full((len(knees), 2), 0.5)
    classes = Predictions("odd", tuple(knees["knee"]), knees["fold"].to_numpy(), probabilities=half, about={})
    write_predictions(run, classes)
    with pytest.raises(DataError, match=r"odd .* predicts no scores"):
        evaluate_run(run)


def test_a_run_without_systems_or_grades_says_so(tmp_path: Path) -> None:
    run = tmp_path / "made"
    run.mkdir()
    knees = knees_of(30).drop("kl", "race")
    knees.write_parquet(run / "knees.parquet")
    mean = constants(knees, np.mean)
    only = Predictions(
        "constant_mean", tuple(knees["knee"]), knees["fold"].to_numpy(), mean, mean, about=about("C", "baseline")
    )
    write_predictions(run, only)
    (run / "run.json").write_text(json.dumps({"kind": "regression", "systems": ["constant_mean", "rad_dino"]}))
    assert read_evidence(run).unfinished == ("rad_dino",)
    assert "Only baselines" in sentences(evaluate_run(run))[0]
    write_predictions(run, Predictions("s", only.knees, only.folds, mean, mean, about=about("S", "system")))
    said = sentences(evaluate_run(run))
    assert "the only system is not better" in said[0] and "not in this run" in said[2]


def test_the_command_prints_the_figures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--run", str(run)]) == 0
    said = capsys.readouterr().out
    assert "rad_dino: RMSE " in said and "constant_mean: " in said and "Spearman none" in said
    assert "of 150 patients" in said


def test_runs_of_the_grader_are_left_to_it(tmp_path: Path) -> None:
    assert not report_cli.is_cross_validated(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"export": "x", "index": "x", "labels": "x"}))
    assert not report_cli.is_cross_validated(tmp_path)


def test_an_age_that_is_no_number_is_not_known() -> None:
    knees = knees_of(6).with_columns(age=pl.Series([float("nan"), *[50.0] * (len(knees_of(6)) - 1)]))
    (ages, *_) = factors_of(knees)
    assert ages.groups == ("45 to 70", "not known")
    assert ages.places.tolist() == [1, *[0] * (len(knees) - 1)]
