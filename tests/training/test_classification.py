"""Runs of classes: figures against scikit-learn and plain resampling, what is undefined, and the page."""

import json
import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn import metrics

from inference.errors import DataError
from tests.training.made_runs import about, knees_of
from training import classification_measures as measures
from training import cli
from training.classification_plots import mean_roc
from training.classification_verdict import sentences
from training.cv_evaluate import evaluate_run
from training.cv_evidence import read_evidence
from training.predictions import Predictions, write_predictions
from training.published import published_for
from training.report import write_report
from training.report_attention import attention
from training.resampling import PatientBootstrap

TITLES = {2: ("no progression", "progression"), 3: ("no pain", "some pain", "much pain")}


def write_run(
    run: Path, patients: int = 70, classes: int = 2, *, thresholds: bool = True, only: Sequence[str] = (), **more: Any
) -> Path:
    """A run of all baselines and two systems: one that sees the truth dimly, one that guesses."""
    run.mkdir(parents=True)
    knees = knees_of(patients)
    pain = knees["truth"].to_numpy()
    truth = np.digitize(pain, np.quantile(pain, np.arange(1, classes) / classes))
    knees = knees.with_columns(pl.Series("truth", truth))
    knees.write_parquet(run / "knees.parquet")
    folds, draw = knees["fold"].to_numpy(), np.random.default_rng(3)

    def soft(strength: float) -> np.ndarray:
        odds = strength * np.eye(classes)[truth] + draw.normal(size=(len(truth), classes))
        return np.asarray(np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True))

    shares = np.stack([np.bincount(truth[folds != fold], minlength=classes) / (folds != fold).sum() for fold in folds])
    systems = {
        "prevalence": shares, "jsw_only": soft(0.7), "kl_only": soft(0.2), "clinical_only": soft(0.8),
        "image": soft(2.5), "image_header": soft(0.0),
    }  # fmt: skip
    systems = {name: found for name, found in systems.items() if not only or name in only}
    for name, found in systems.items():
        told = about(f"Title of {name}", "system" if "image" in name else "baseline", image="image" in name)
        for fold in told["folds"]:
            fold["threshold"] = 0.45 + 0.02 * fold["fold"] if thresholds and classes == 2 else None
        write_predictions(run, Predictions(name, tuple(knees["knee"]), folds, probabilities=found, about=told))
    told = {
        "kind": "classification", "target": "progression_abs", "sequence": "COR_IW_TSE", "classes": TITLES[classes],
        "cohort": "a b", "slices": "s", "folds": 5, "seed": 0, "synthetic": True, "bidirectional": False,
        "fitting": {"seeds": 2}, "systems": list(systems), **more,
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(told))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("classes") / "made")
    table = pl.read_parquet(folder / "knees.parquet")["knee"]
    rows = [(knee, place, (1 + place) / 10) for knee in table for place in range(4)]
    pl.DataFrame(rows, schema=["knee", "slice", "weight"], orient="row").write_parquet(
        folder / "systems" / "image" / "attention.parquet"
    )
    (folder / "systems" / "image" / "curves.csv").write_text("fold,epoch,name,value\n0,1,loss,2\n0,2,loss,1\n")
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(
        tmp_path_factory.mktemp("classes") / "three", classes=3, target="womac_pain_class", only=("prevalence", "image")
    )


def of(figures: Any, name: str) -> Any:
    return next(row for row in figures["systems"] if row["system"] == name)


def words(path: Path) -> str:
    text = re.sub(r"<style>.*?</style>", "", path.read_text("utf-8"), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


def by_fold(truth: np.ndarray, scores: np.ndarray, folds: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """ROC and PR AUC of scikit-learn in each fold, put together by pairs and by knees of the class."""
    roc, pairs, pr, count = [], [], [], []
    for fold in np.unique(folds):
        rows = (folds == fold) & (weights > 0)
        ones, zeros = weights[rows][truth[rows]].sum(), weights[rows][~truth[rows]].sum()
        if ones and zeros:
            roc.append(metrics.roc_auc_score(truth[rows], scores[rows], sample_weight=weights[rows]))
            pr.append(metrics.average_precision_score(truth[rows], scores[rows], sample_weight=weights[rows]))
            pairs.append(ones * zeros)
            count.append(ones)
    return float(np.average(roc, weights=pairs)), float(np.average(pr, weights=count))


def test_areas_are_those_of_scikit_learn_with_ties_and_in_every_resample() -> None:
    draw = np.random.default_rng(0)
    truth, scores = draw.random(90) < 0.3, draw.integers(0, 8, 90) / 8
    folds, patients = draw.integers(0, 3, 90), [f"P{number}" for number in draw.integers(0, 40, 90)]
    bootstrap = PatientBootstrap(patients, rounds=60)
    rows = draw.random(90) < 0.9
    ranked = {"all": measures.Ranking.of(truth, scores, folds), "some": measures.Ranking.of(truth, scores, folds, rows)}
    found = measures.areas(ranked, bootstrap)
    for name, mask in (("all", np.ones(90)), ("some", rows.astype(float))):
        roc, pr = found[name]
        assert (roc.value, pr.value) == pytest.approx(by_fold(truth, scores, folds, mask))
        for number, weights in enumerate(bootstrap.weights()):
            expected = by_fold(truth, scores, folds, weights * mask)
            assert (roc.draws[number], pr.draws[number]) == pytest.approx(expected)


def test_what_cannot_be_ranked_has_no_area_and_a_constant_has_half() -> None:
    folds = np.zeros(4, np.int64)
    once = np.ones((1, 4))
    for positive in (np.zeros(4, bool), np.ones(4, bool)):
        assert np.isnan(measures.Ranking.of(positive, np.arange(4.0), folds).areas(once)).all()
    nobody = measures.Ranking.of(np.ones(4, bool), np.arange(4.0), folds, np.zeros(4, bool))
    assert np.isnan(nobody.areas(once)).all()
    half = np.array([True, False, False, False])
    roc, pr = measures.Ranking.of(half, np.full(4, 0.3), folds).areas(once)
    assert (roc[0], pr[0]) == (0.5, 0.25)
    # Its constants differ between folds, as those of training shares do: still nothing is ranked.
    two = np.array([0, 0, 1, 1])
    roc, _ = measures.Ranking.of(np.array([1, 0, 1, 0], bool), np.array([0.3, 0.3, 0.6, 0.6]), two).areas(once)
    assert roc[0] == 0.5


def test_intervals_hold_the_true_area_and_noise_is_seldom_called_better() -> None:
    held = wrong = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        owner = np.repeat(np.arange(60), 2)
        truth = (draw.random(60) < 0.4)[owner]
        noise = draw.normal(size=(2, 60))[:, owner]  # both knees of a patient alike
        scores = {"good": noise[0] + truth * np.sqrt(2) * 0.6745, "one": noise[0], "other": noise[1]}  # true AUC 0.75
        bootstrap = PatientBootstrap([str(name) for name in owner], rounds=200, seed=seed)
        ranked = {name: measures.Ranking.of(truth, score, owner % 3) for name, score in scores.items()}
        found = {name: roc for name, (roc, _) in measures.areas(ranked, bootstrap).items()}
        low, high = np.percentile(found["good"].draws, [2.5, 97.5])
        held += low <= 0.75 <= high
        low, high = np.percentile(found["one"].draws - found["other"].draws, [2.5, 97.5])
        wrong += not low <= 0 <= high
    assert held >= 51 and wrong <= 9  # of 60; 57 and 3 are expected


@pytest.mark.parametrize("classes", [2, 3])
def test_calls_and_losses_are_those_of_scikit_learn(classes: int) -> None:
    draw = np.random.default_rng(1)
    truth, found = draw.integers(0, classes, 80), draw.dirichlet(np.ones(classes), 80)
    folds = np.arange(80) % 2
    called = measures.called(found, folds, {0: 0.3, 1: 0.6} if classes == 2 else None)
    if classes == 2:
        assert called.tolist() == [int(p >= (0.3, 0.6)[fold]) for p, fold in zip(found[:, 1], folds, strict=True)]
    cells = measures.cells(truth, called, classes).sum(axis=0, keepdims=True)
    np.testing.assert_array_equal(cells.reshape(classes, classes), metrics.confusion_matrix(truth, called))
    by_class = measures.from_cells(cells, classes)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, called)
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_allclose(by_class[name][0], expected)
    whole = {name: value[0] for name, value in measures.overall(by_class).items()}
    average = "binary" if classes == 2 else "macro"
    assert whole["f1"] == pytest.approx(metrics.f1_score(truth, called, average=average))
    assert whole["precision"] == pytest.approx(metrics.precision_score(truth, called, average=average))
    assert whole["weighted_f1"] == pytest.approx(metrics.f1_score(truth, called, average="weighted"))
    if classes == 2:
        assert whole["specificity"] == pytest.approx(metrics.recall_score(truth, called, pos_label=0))
    logs, squares = measures.losses(truth, found)
    assert logs.mean() == pytest.approx(metrics.log_loss(truth, found))
    expected = metrics.brier_score_loss(truth, found[:, 1]) if classes == 2 else None
    assert squares.mean() == pytest.approx(expected or np.mean(((found - np.eye(3)[truth]) ** 2).sum(axis=1)))


def test_the_run_is_measured_against_every_baseline(run: Path) -> None:
    figures = evaluate_run(run)
    assert of(figures, "prevalence")["roc_auc"] == (0.5, 0.5, 0.5)
    assert not of(figures, "prevalence")["ordered"]
    image, guess = of(figures, "image"), of(figures, "image_header")
    knees = pl.read_parquet(run / "knees.parquet")
    truth, folds = knees["truth"].to_numpy(), knees["fold"].to_numpy()
    found = pl.read_parquet(run / "systems" / "image" / "predictions.parquet")["p1"].to_numpy()
    assert image["roc_auc"][:1] + image["pr_auc"][:1] == pytest.approx(
        by_fold(truth == 1, found, folds, np.ones(len(truth)))
    )
    called = found >= 0.45 + 0.02 * folds
    assert image["f1"][0] == pytest.approx(metrics.f1_score(truth, called))
    counts = [row["knees"] for row in figures["confusion"] if row["system"] == "image"]
    assert counts == metrics.confusion_matrix(truth, called).ravel().tolist()
    better = {(row["system"], row["against"]): row["better"] for row in figures["differences"]}
    assert better["image", "jsw_only"] and better["image", "kl_only"] and better["image", "prevalence"]
    assert better["image_header", "clinical_only"] is False and better["image_header", "prevalence"] is None
    assert guess["roc_auc"][1] < 0.5 < guess["roc_auc"][2]
    folds_csv = pl.read_csv(run / "evaluation" / "folds.csv").filter(pl.col("system") == "image").sort("fold")
    for fold, value in folds_csv.select("fold", "roc_auc").iter_rows():
        assert value == pytest.approx(metrics.roc_auc_score(truth[folds == fold], found[folds == fold]))
    assert folds_csv["threshold"].to_list() == pytest.approx([0.45, 0.47, 0.49, 0.51, 0.53])
    groups = [row for row in figures["subgroups"] if (row["system"], row["factor"]) == ("image", "sex")]
    women = (knees["sex"] == "F").fill_null(value=False).to_numpy()
    assert groups[0]["group"] == "women"
    assert groups[0]["roc_auc"][0] == pytest.approx(by_fold(truth == 1, found, folds, women.astype(float))[0])
    assert groups[0]["signed_error"][0] == pytest.approx(np.mean(found[women] - truth[women]))
    said = sentences(figures)
    assert "1 of 2 systems is better beyond the interval" in said[0] and "Title of image, +" in said[0]


def test_three_classes_have_means_and_the_last_against_the_first(three: Path) -> None:
    figures = evaluate_run(three)
    knees = pl.read_parquet(three / "knees.parquet")
    truth, folds = knees["truth"].to_numpy(), knees["fold"].to_numpy()
    table = pl.read_parquet(three / "systems" / "image" / "predictions.parquet").select("p0", "p1", "p2").to_numpy()
    each = [by_fold(truth == place, table[:, place], folds, np.ones(len(truth))) for place in range(3)]
    assert of(figures, "image")["roc_auc"][0] == pytest.approx(np.mean([area for area, _ in each]))
    called = table.argmax(axis=1)
    assert of(figures, "image")["recall"][0] == pytest.approx(metrics.recall_score(truth, called, average="macro"))
    rows = [row for row in figures["classes"] if row["system"] == "image"]
    assert [row["against"] for row in rows] == ["the rest"] * 3 + ["no pain"]
    assert [row["roc_auc"][0] for row in rows[:3]] == pytest.approx([area for area, _ in each])
    ends = truth != 1
    assert rows[3]["recall"][0] == pytest.approx(metrics.recall_score(truth[ends] == 2, called[ends] == 2))
    assert rows[3]["precision"][0] == pytest.approx(metrics.precision_score(truth[ends] == 2, called[ends] == 2))
    ratio = table[:, 2] / (table[:, 0] + table[:, 2])
    assert rows[3]["roc_auc"][0] == pytest.approx(by_fold(truth == 2, ratio, folds, ends.astype(float))[0])
    text = words(write_report(three))
    assert "Much pain against no pain" in text and "Schiratti et al.: highest class against lowest" in text
    assert "call the most probable class" in text


def test_the_page_says_who_beats_whom_and_marks_what_is_of_others(run: Path) -> None:
    page = write_report(run)
    text, html = words(page), page.read_text("utf-8")
    for told in (
        "RESEARCH ONLY", "SYNTHETIC", "Title of image has the greatest ROC AUC of 2", "Against the joint space width",
        "Schiratti et al.: COR IW TSE published on other data 0.650", "Schiratti et al.: two radiologists",
        "Progression, predicted from knee MRI (coronal IW TSE)", "attention by slice", "threshold 0.450",
    ):  # fmt: skip
        assert told in text
    assert "SAG 3D DESS" not in text and "<script" not in html and "PUBLISHED ON OTHER DATA" in html
    pictures = {path.stem for path in page.parent.glob("*.png")}
    assert pictures == {
        "figures", "roc", "confusion", "folds", "attention-image", "curves-image", "system-jsw_only", "system-kl_only",
        "system-clinical_only", "system-image", "system-image_header",
    }  # fmt: skip
    assert html.count("<img ") == len(pictures)
    before = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    write_report(run)
    assert {path.name: path.read_bytes() for path in page.parent.iterdir()} == before


def test_what_has_no_value_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "made", 24, thresholds=False, only=("prevalence", "image"))
    figures = evaluate_run(run)
    assert of(figures, "image")["f1"] == (None, None, None) and not figures["confusion"]
    text = words(write_report(run, published=False))
    assert "f1 has no value (-), as a fold tells no threshold in system.json" in text
    assert "nothing is called" in text and "Schiratti" not in text
    path = run / "knees.parquet"
    pl.read_parquet(path).with_columns(truth=pl.lit(0)).write_parquet(path)
    assert cli.main(["evaluate", "--run", str(run)]) == 0
    assert "image: ROC AUC none" in capsys.readouterr().out
    text = words(write_report(run))
    assert "roc auc has no value (-), as no knee is of progression" in text


def spoil(run: Path, name: str, found: Sequence[Sequence[float]] | np.ndarray) -> None:
    knees = pl.read_parquet(run / "knees.parquet")
    values = np.asarray(found, np.float64)
    write_predictions(
        run, Predictions(name, tuple(knees["knee"]), knees["fold"].to_numpy(), probabilities=values, about={})
    )


def test_what_is_no_run_of_classes_is_an_error(tmp_path: Path) -> None:
    run = write_run(tmp_path / "made", 20)
    count = len(pl.read_parquet(run / "knees.parquet"))
    weights = run / "systems" / "image" / "attention.parquet"
    pl.DataFrame({"knee": ["x"], "slice": [0], "weight": [1.0]}).write_parquet(weights)
    with pytest.raises(DataError, match="other knees than the run"):
        list(attention(read_evidence(run)))
    weights.unlink()
    spoil(run, "odd", np.full((count, 3), 1 / 3))
    with pytest.raises(DataError, match=r"odd .* no probabilities of 2 classes"):
        evaluate_run(run)
    spoil(run, "odd", np.full((count, 2), 0.5))
    path = run / "knees.parquet"
    pl.read_parquet(path).with_columns(truth=pl.lit(2)).write_parquet(path)
    with pytest.raises(DataError, match="truth lies in 2 to 2"):
        evaluate_run(run)


def test_the_mean_roc_is_that_of_folds_with_both_classes() -> None:
    positive, scores = np.array([1, 0, 1, 0, 1], bool), np.array([0.9, 0.1, 0.2, 0.8, 0.5])
    found = mean_roc(positive, scores, np.array([0, 0, 1, 1, 2]))
    assert found is not None and found[0] == 0 and found[-1] == 1
    assert np.allclose(found[1:-1], 0.5)
    assert mean_roc(positive, scores, np.arange(5)) is None


def test_published_figures_are_those_of_the_sequence() -> None:
    told = {"kind": "classification", "target": "progression_abs", "sequence": "SAG_3D_DESS"}
    found = published_for(told)
    assert [entry.name for entry in found] == ["Schiratti et al.: SAG 3D DESS", "Schiratti et al.: two radiologists"]
    assert found[0].figures == {"roc_auc": (0.63, 0.63)}
