"""Knee MRI by slices: the network, what a run leaves behind, what it finds where something is planted and where not."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from inference.errors import DataError
from inference.slice_nets import SliceNet, SliceNetSpec
from tests.training.made_slices import SLICES, WIDTH, made
from training import cli, slice_run
from training.card_parts import systems_table
from training.cv_evaluate import evaluate_run, unfinished
from training.cv_evidence import read_evidence
from training.predictions import read_predictions
from training.report import write_report
from training.slice_fit import SliceFitConfig, best_threshold
from training.slice_systems import CLINICAL, SliceSamples, SliceSystem, fit_fold, systems

QUICK = SliceFitConfig(epochs=30, patience=8, seeds=1, batch=32)


def run_of(root: Path, name: str = "run", target: str = "progression_abs") -> slice_run.SliceRun:
    return slice_run.create(
        root / name, root / "cohort", root / "slices", target=target, sequence="COR_IW_TSE", folds=3, config=QUICK
    )


def quiet(_: str) -> None:
    """Say nothing."""


def auc(run: slice_run.SliceRun, system: str) -> float:
    found = read_predictions(run.folder, system).probabilities
    assert found is not None
    return float(roc_auc_score(run.knees()["truth"].to_numpy(), found[:, 1]))


def chosen(target: str, *names: str) -> list[SliceSystem]:
    return [system for system in systems(target) if system.name in names]


def test_a_missing_variable_is_the_median_and_says_that_it_is_missing() -> None:
    torch.manual_seed(0)
    net = SliceNet(SliceNetSpec(features=4, attention=3, hidden=(8, 4), clinical=("age", "kl"))).eval()
    rows = torch.tensor([[50.0, 1.0], [60.0, 2.0], [90.0, torch.nan]])
    net.learn_scale(torch.randn(3, 5, 4), rows)
    given = net.standardised(torch.tensor([[60.0, torch.nan], [torch.nan, 2.0]]))
    torch.testing.assert_close(given[0, 0], given[1, 0])
    assert given[:, 2:].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    seen = net.attention(torch.randn(2, 5, 4))
    torch.testing.assert_close(seen.sum(dim=1), torch.ones(2))
    assert bool(torch.isfinite(net(torch.randn(2, 5, 4), torch.full((2, 2), torch.nan))).all())


def test_a_planted_effect_is_found_and_nothing_where_nothing_is(tmp_path: Path) -> None:
    table = made(tmp_path)
    run = run_of(tmp_path)
    run = slice_run.fit_systems(run, chosen("progression_abs", "jsw_only", "kl_only", "prevalence", "image"), quiet)
    assert run.systems == ("prevalence", "jsw_only", "kl_only", "image")
    assert auc(run, "image") > 0.7 > auc(run, "kl_only")
    assert auc(run, "jsw_only") > 0.6
    assert auc(run, "prevalence") < 0.6
    assert len(run.knees()) == len(table)
    shuffled = table.with_columns(pl.col("progression_abs").shuffle(seed=5))
    shuffled.write_parquet(tmp_path / "cohort" / "cohort.parquet")
    nothing = slice_run.fit_systems(run_of(tmp_path, "none"), chosen("progression_abs", "image"), quiet)
    assert 0.38 < auc(nothing, "image") < 0.62


def test_who_the_patient_is_cannot_leak(tmp_path: Path) -> None:
    made(tmp_path, effect=0.0, marker=3.0)
    run = slice_run.fit_systems(run_of(tmp_path), chosen("progression_abs", "image"), quiet)
    # Chance over 120 patients has a deviation of 0.05; what leaks comes close to 1.
    assert 0.3 < auc(run, "image") < 0.7
    knees = run.knees()
    assert knees.group_by("PatientID").agg(pl.col("fold").n_unique())["fold"].max() == 1
    samples = slice_run.samples_of(run, knees)
    labels = knees["truth"].to_numpy().astype(np.int64)
    # It is there to be found: the nearest left knee of a right knee is the patient's own.
    first = np.array([side == "L" for side in knees["side"]])
    means = samples.slices.astype(np.float64).mean(axis=1)
    distance = np.linalg.norm(means[~first][:, None] - means[first][None], axis=2)
    nearest = samples.patients[first][distance.argmin(axis=1)]
    assert np.mean(nearest == samples.patients[~first]) > 0.9
    assert np.mean(labels[first][distance.argmin(axis=1)] == labels[~first]) > 0.9


def test_a_run_goes_on_where_it_stopped_and_tells_what_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, patients=30)
    run = slice_run.fit_systems(run_of(tmp_path), chosen("progression_abs", "clinical_only", "image"), quiet)
    before = (run.folder / "systems" / "image" / "predictions.parquet").read_bytes()
    about = read_predictions(run.folder, "image").about
    assert about["synthetic"] is True
    assert all(0 < fold["threshold"] < 1 and fold["chosen"]["best epochs"] for fold in about["folds"])
    assert (run.folder / "systems" / "image" / "curves.csv").read_text().startswith("fold,epoch,name,value\n")
    weights = pl.read_parquet(run.folder / "systems" / "image" / "attention.parquet")
    sums = weights.group_by("knee").agg(pl.col("weight").sum())
    assert len(sums) == 60
    np.testing.assert_allclose(sums["weight"].to_numpy(), 1, atol=1e-5)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(slice_run, "fit_fold", refused)
    again = slice_run.fit_systems(run_of(tmp_path), chosen("progression_abs", "clinical_only", "image"), quiet)
    assert (again.folder / "systems" / "image" / "predictions.parquet").read_bytes() == before
    with pytest.raises(AssertionError):
        slice_run.fit_systems(again, chosen("progression_abs", "image_clinical"), quiet)

    # What was asked for is not forgotten when less is asked for later.
    assert read_evidence(again.folder).unfinished == ("image_clinical",)
    later = slice_run.fit_systems(run_of(tmp_path), chosen("progression_abs", "image"), quiet)
    assert set(later.asked) == {"clinical_only", "image", "image_clinical"}
    figures = evaluate_run(again.folder)
    assert "missing here: image_clinical." in str(unfinished(figures))
    assert next(systems_table(figures, "image", {"roc_auc": "ROC AUC"})).startswith("NOT FINISHED")
    path = again.folder / "run.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "asked"}))
    assert read_evidence(again.folder).unfinished == (), "runs that others made say only what is finished"
    with pytest.raises(DataError, match="cannot be read"):
        run_of(tmp_path)


def test_pain_is_never_told_from_pain(tmp_path: Path) -> None:
    for system in systems("womac_pain_binary"):
        assert "womac_pain" not in system.clinical
    assert any("womac_pain" in system.clinical for system in systems("progression_abs"))
    table = made(tmp_path, patients=30)
    copied = table.with_columns(pl.col("womac_pain_binary").alias("mjsw"))
    copied.write_parquet(tmp_path / "cohort" / "cohort.parquet")
    with pytest.raises(DataError, match="another name"):
        slice_run.fit_systems(
            run_of(tmp_path, target="womac_pain_binary"), chosen("womac_pain_binary", "jsw_only"), quiet
        )


def test_the_held_out_rows_change_nothing_of_their_model(tmp_path: Path) -> None:
    table = made(tmp_path, patients=40)
    run = slice_run.fit_systems(run_of(tmp_path), chosen("progression_abs", "clinical_only"), quiet)
    knees = run.knees()
    samples, labels = slice_run.samples_of(run, knees), knees["truth"].to_numpy().astype(np.int64)
    held = knees["fold"].to_numpy() == 0
    system = chosen("progression_abs", "clinical_only")[0]
    model = fit_fold(system, samples.take(~held), labels[~held], 2, QUICK, 0)
    changed = samples.clinical.copy()
    changed[held] = 1e6
    other = SliceSamples(samples.slices, changed, samples.patients)
    same = fit_fold(system, other.take(~held), labels[~held], 2, QUICK, 0)
    np.testing.assert_array_equal(model.probabilities(samples), same.probabilities(samples))
    assert samples.clinical.shape == (len(table), len(CLINICAL))


def test_the_threshold_is_that_of_the_greatest_f1() -> None:
    labels = np.array([0, 0, 1, 0, 1, 1])
    found = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.9])
    assert best_threshold(labels, found) == 0.3
    assert best_threshold(np.zeros(3, np.int64), np.array([0.1, 0.2, 0.3])) == 0.5


def test_the_command_and_what_it_says_of_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, patients=20)
    words = ["fit", "--cohort", str(tmp_path / "cohort"), "--slices", str(tmp_path / "slices")]
    words += ["--run", str(tmp_path / "run"), "--systems", "image_header", "--networks", "1", "--folds", "2"]
    assert cli.main(words) == 0
    assert "image_header" in capsys.readouterr().out
    assert cli.main(words) == 0
    assert [fit["command"] for fit in slice_run.read(tmp_path / "run").fits] == [["genu-train", *words]]
    assert cli.main([*words, "--systems", "clinical_only"]) == 0
    assert [fit["command"][-1] for fit in slice_run.read(tmp_path / "run").fits] == ["2", "clinical_only"]
    evaluate_run(tmp_path / "run")
    assert write_report(tmp_path / "run").read_text("utf-8").count("genu-train fit --") == 2
    capsys.readouterr()
    assert cli.main([*words, "--sequence", "SAG_IW_TSE"]) == 2
    assert "COR_IW_TSE" in capsys.readouterr().err
    assert cli.main([*words, "--target", "progression_rel"]) == 2
    assert "lacks the column(s) progression_rel" in capsys.readouterr().err
    assert cli.main([*words, "--seed", "3"]) == 2
    assert "another folder" in capsys.readouterr().err
    assert cli.main(["fit", "--slices", str(tmp_path / "slices"), "--run", str(tmp_path / "x")]) == 2
    assert "needs --cohort" in capsys.readouterr().err


def test_slices_keep_their_order_and_sides(tmp_path: Path) -> None:
    table = made(tmp_path, patients=6)
    wrong = table.with_columns(pl.when(pl.col("PatientID") == "P0").then(pl.lit("L")).otherwise("side").alias("side"))
    wrong.write_parquet(tmp_path / "cohort" / "cohort.parquet")
    run = run_of(tmp_path)
    assert run.left_out["prepared as the other side"] == 1
    assert slice_run.samples_of(run, run.knees()).slices.shape == (11, SLICES, WIDTH)
