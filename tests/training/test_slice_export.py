"""Export of systems on knee MRI: intervals by Venn-Abers, the threshold, the bundle, the card, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from sklearn.isotonic import IsotonicRegression

from inference.errors import BundleError, DataError
from inference.slice_bundle import SliceBundle
from inference.slice_features import slice_features
from inference.slice_manifest import SliceManifest
from inference.venn_abers import P0, P1, SCORES, VennAbers
from tests.slice_runs import FOLDS, PATIENTS, MadeSlices, made_slice_run, slice_bundle
from training import slice_run
from training.cli import main
from training.embed_weights import load_weights
from training.slice_calibration import Scored, calibrate, choose_threshold, interval_figures, tables_of
from training.slice_final import final_nets
from training.slice_systems import systems


def scored(patients: int, seed: int, classes: int = 2, each: int = 2) -> Scored:
    """Scores that are too sure of themselves; what is true of a patient's knees is much alike."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), each)
    logits = rng.normal(0, 1, (patients, classes))[owner] + 0.3 * rng.normal(size=(len(owner), classes))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (rng.random((len(owner), 1)) > true.cumsum(axis=1)[:, :-1]).sum(axis=1)
    sure = np.exp(3 * logits) / np.exp(3 * logits).sum(axis=1, keepdims=True)
    return Scored(sure, truth.astype(np.int64), owner % 5, np.array([f"P{number}" for number in owner]))


def brute(found: Scored, k: int, score: float) -> tuple[float, float]:
    """p0 and p1 by two isotonic regressions of all rows and the new one, scores in thousandths."""
    scores = np.append(np.rint(1000 * found.probabilities[:, k]) / 1000, score)
    weights = [1 / np.sum(found.patients == patient) for patient in found.patients]
    both = []
    for label in (0, 1):
        labels = np.append(found.truth == k, label).astype(float)
        model = IsotonicRegression().fit(scores, labels, sample_weight=np.append(weights, 1.0))
        both.append(float(model.predict([score])[0]))
    return both[0], both[1]


@pytest.mark.parametrize("classes", [2, 3])
def test_tables_are_what_isotonic_regression_with_the_new_knee_says(classes: int) -> None:
    found = scored(30, 1, classes)
    found.patients[:6] = "P0"  # one patient with many rows
    tables = calibrate(found)
    for k in range(classes):
        for place in (0, 3, 250, 500, 731, 997, 1000):
            expected = brute(found, k, place / 1000)
            assert (tables.p0[k, place], tables.p1[k, place]) == pytest.approx(expected, abs=1e-6)
    again = VennAbers.of(tables_of(tables), classes)
    np.testing.assert_array_equal(again.p0, tables.p0)


def test_of_two_classes_the_first_is_the_complement() -> None:
    tables = calibrate(scored(40, 2))
    for p in (0.0, 0.0005, 0.1234, 0.5, 0.9995, 1.0):
        point, low, high = tables.interval(np.array([1 - p, p]))
        assert point.sum() == pytest.approx(1, abs=1e-12)
        assert (low[0], high[0]) == (1 - high[1], 1 - low[1])
        p0, p1 = low[1], high[1]
        assert point[1] == pytest.approx(p1 / (1 - p0 + p1))
        assert 0 <= low[1] <= point[1] <= high[1] <= 1
    np.testing.assert_allclose(tables.p0[0], 1 - tables.p1[1, ::-1], atol=1e-6)


def test_of_three_classes_points_sum_to_one_and_lie_in_their_intervals() -> None:
    found = scored(60, 3, classes=3)
    point, low, high = calibrate(found).intervals(found.probabilities)
    np.testing.assert_allclose(point.sum(axis=1), 1, atol=1e-12)
    assert np.all((low <= point) & (point <= high) & (low >= 0) & (high <= 1))
    assert np.mean(high - low) > 0.02


def test_calibrated_probabilities_hold_on_patients_that_it_has_not_seen() -> None:
    new = scored(3000, 99)
    raw = new.probabilities[:, 1]
    points, inside, raw_inside = [], [], []
    for seed in range(6):
        point, low, high = calibrate(scored(400, seed)).intervals(new.probabilities)
        points.append(point[:, 1])
        for part in np.array_split(np.argsort(point[:, 1], kind="stable"), 5):
            observed = new.truth[part].mean()
            inside.append(abs(observed - point[part, 1].mean()) < 0.05)
            raw_inside.append(abs(observed - raw[part].mean()) < 0.05)
        assert low[:, 1].mean() - 0.03 <= new.truth.mean() <= high[:, 1].mean() + 0.03
    assert np.mean(inside) > 0.8
    assert np.mean(raw_inside) < 0.5, "the scores themselves are not calibrated"
    surprise = [-np.mean(np.log(np.where(new.truth == 1, p, 1 - p))) for p in (np.mean(points, axis=0), raw)]
    assert surprise[0] < surprise[1]


def test_patients_weigh_the_same_however_many_rows_they_have() -> None:
    few = scored(30, 4)
    rows = np.flatnonzero(few.patients == "P7")
    many = np.concatenate([np.arange(len(few.truth)), np.repeat(rows, 50)])
    more = Scored(few.probabilities[many], few.truth[many], few.folds[many], few.patients[many])
    np.testing.assert_allclose(calibrate(few).p0, calibrate(more).p0, atol=1e-6)
    np.testing.assert_allclose(calibrate(few).p1, calibrate(more).p1, atol=1e-6)


def test_the_threshold_is_on_the_calibrated_scale_and_judged_by_other_folds() -> None:
    found = scored(150, 5)
    tables = calibrate(found)
    threshold = choose_threshold(found, tables)
    assert threshold is not None
    point = tables.intervals(found.probabilities)[0][:, 1]

    def f1(limit: float) -> float:
        called = point >= limit
        return float(2 * np.sum(called & (found.truth == 1)) / (called.sum() + (found.truth == 1).sum()))

    assert f1(threshold.value) == pytest.approx(max(f1(limit) for limit in np.unique(point)))
    assert threshold.f1 <= f1(threshold.value) + 0.02
    assert choose_threshold(scored(30, 1, 3), calibrate(scored(30, 1, 3))) is None
    # A fold whose labels are turned must not make its own threshold look good.
    turned = np.where(found.folds == 0, 1 - found.truth, found.truth)
    worse = Scored(found.probabilities, turned, found.folds, found.patients)
    other = choose_threshold(worse, calibrate(worse))
    assert other is not None
    assert other.precision < threshold.precision


def test_intervals_are_judged_by_tables_of_other_folds() -> None:
    found = scored(200, 6)
    knees = pl.DataFrame({"sex": ["F", "M"] * 200})
    figures = interval_figures(found, knees)
    (row,) = figures["classes"]
    assert (row["class"], row["rows"], figures["patients"]) == (1, 400, 200)
    assert row["agrees"]
    assert sum(one["rows"] for one in row["bins"]) == 400
    assert np.mean([one["agrees"] for one in row["bins"]]) > 0.8
    assert {(one["group"], one["rows"]) for one in row["subgroups"]} == {("women", 200), ("men", 200)}
    low, high = row["observed"][1:]
    assert low < row["observed"][0] < high
    # A fold unlike the others is not held by their tables.
    turned = Scored(found.probabilities, np.where(found.folds < 2, 1, found.truth), found.folds, found.patients)
    assert not interval_figures(turned, knees)["classes"][0]["bins"][0]["holds"]
    with pytest.raises(DataError, match="other folds"):
        interval_figures(Scored(found.probabilities, found.truth, 0 * found.folds, found.patients), knees)


def test_tables_that_cannot_be_are_refused() -> None:
    good = tables_of(calibrate(scored(20, 7)))
    wrong = {
        "shape": {P0: good[P0][:, :-1], P1: good[P1]},
        "rise": {P0: good[P0], P1: good[P1][:, ::-1].copy()},
        "above": {P0: np.ones((2, SCORES), np.float32), P1: np.zeros((2, SCORES), np.float32)},
    }
    wrong["rise "] = {P0: good[P0], P1: np.full((2, SCORES), np.nan, np.float32)}
    for message, tables in wrong.items():
        with pytest.raises(BundleError, match=message.strip()):
            VennAbers.of(tables, 2)
    with pytest.raises(BundleError, match="shape"):
        VennAbers.of({P0: good[P0]}, 2)
    for probabilities in ([0.5, 0.5, 0.0], [np.nan, 0.5], [1.5, -0.5]):
        with pytest.raises(ValueError, match="probabilities"):
            VennAbers.of(good, 2).interval(np.array(probabilities))


def test_what_is_exported_is_what_the_run_says() -> None:
    bundle = slice_bundle()
    loaded = SliceBundle.load(bundle, "cpu")
    manifest = loaded.manifest
    assert (manifest.task, manifest.target) == ("jsn_progression", "progression_abs")
    assert manifest.synthetic
    assert manifest.name == "genu-mri-progression-abs-cor-iw-tse-image-header"
    assert manifest.clinical == ("age", "sex", "bmi", "height", "weight")
    assert (manifest.calibration_patients, manifest.calibration_rows) == (PATIENTS, 2 * PATIENTS)
    tensors = load_file(bundle / "weights.safetensors")
    tables = VennAbers.of(tensors, 2)
    assert manifest.threshold in tables.intervals(np.stack([1 - np.arange(1001) / 1000, np.arange(1001) / 1000], 1))[0]
    assert tensors["backbone.conv_stem.weight"].dtype == np.float16
    assert all(values.dtype == np.float32 for name, values in tensors.items() if name.startswith("net"))
    probe = load_file(bundle / "probe.safetensors")
    assert probe["slices"].shape == (4, 64, 64)
    assert np.isnan(probe["clinical"][1]).all()
    assert np.isfinite(probe["clinical"][0]).all()
    np.testing.assert_allclose(probe["probabilities"].sum(axis=1), 1, atol=1e-6)
    assert manifest.training["rounding"] <= 0.002
    # The served network answers as the fitted one does, whoever the person is.
    backbone, _ = load_weights("efficientnet_b0", str(bundle.parent / "efficientnet_b0"))
    run = slice_run.read(bundle.parent / "run")
    (system,) = (each for each in systems(run.target) if each.name == "image_header")
    fitted = final_nets(run, system, lambda _: None).model
    people = np.random.default_rng(0).normal((60, 0.5, 28, 1.7, 80), (9, 0.5, 4, 0.1, 12), (20, 5))
    people[::3, 2] = np.nan
    seen = np.repeat(slice_features(backbone, probe["slices"])[None], len(people), axis=0)
    served = loaded.network.probabilities(probe["slices"], people)
    np.testing.assert_allclose(served, fitted.probabilities(seen, people), atol=2e-3)
    assert np.ptp(served[:, 1]) > 0.004
    assert set(manifest.metrics) == {"threshold", "interval", "system"}
    card = (bundle / "MODEL_CARD.md").read_text("utf-8")
    assert "SYNTHETIC: RANDOM WEIGHTS OR MADE KNEES" in card
    for said in ("KL grade alone", "(baseline)", "this bundle", "no external validation", "jsw_only", "sex: women"):
        assert said in card
    assert "Source of the data: Made series (cohort `table`). Licence of the data: by nobody's leave." in card
    assert manifest.files["weights.safetensors"] in card


def test_the_same_run_gives_the_same_bytes_and_is_not_fitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = MadeSlices("womac_pain_class", system="image")
    run, weights = made_slice_run(tmp_path, made)
    words = ["export", "--run", str(run), "--system", "image", "--weights", str(weights)]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    said = capsys.readouterr()
    assert "fitting on all 64 rows" in said.err
    assert "SYNTHETIC" in said.out

    def refused(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("training.slice_final.fit_slices", refused)
    assert main([*words, "--out", str(tmp_path / "two")]) == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    manifest = SliceManifest.read(tmp_path / "one")
    assert (manifest.classes, manifest.threshold, manifest.clinical) == (
        ("no pain", "some pain", "much pain"), None, (),
    )  # fmt: skip
    (tmp_path / "run" / "systems" / "image" / "final" / "nets.safetensors").write_bytes(b"broken")
    assert main([*words, "--out", str(tmp_path / "two")]) == 2
    assert "delete it, and export again" in capsys.readouterr().err
    assert (tmp_path / "two" / "bundle.json").is_file(), "what was there stays"


def test_what_cannot_be_exported_says_what_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = slice_bundle().parent
    shutil.copytree(made / "run", tmp_path / "run")
    run, weights = tmp_path / "run", made / "efficientnet_b0"

    def refusal(*words: str) -> str:
        assert main(["export", "--run", str(run), "--out", str(tmp_path / "out"), *words]) == 2
        return capsys.readouterr().err

    assert "name one with --system: image_header" in refusal()
    assert "sees no slices" in refusal("--system", "kl_only")
    assert "can be exported: image_header." in refusal("--system", "image_clinical")
    assert "--weights" in refusal("--system", "image_header")
    other = tmp_path / "other"
    other.mkdir()
    for path in weights.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / "config.json").read_text("utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "changed": True}), "utf-8")
    assert "is not what the embeddings were made with" in refusal("--system", "image_header", "--weights", str(other))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept", "utf-8")
    assert "not deleted" in refusal("--system", "image_header", "--weights", str(weights))
    shutil.rmtree(tmp_path / "out")
    about = json.loads((run / "run.json").read_text("utf-8"))
    named = ("--system", "image_header", "--weights", str(weights))
    (run / "run.json").write_text(json.dumps({**about, "classes": ["a", "b", "c"]}), "utf-8")
    assert "has no probabilities of 3 classes" in refusal(*named)
    (run / "run.json").write_text(json.dumps(about), "utf-8")
    path = run / "systems" / "image_header" / "predictions.parquet"
    kept = pl.read_parquet(path)
    kept.with_columns(p1=float("nan")).write_parquet(path)
    assert "has no probabilities of 2 classes" in refusal(*named)
    kept.write_parquet(path)
    knees = pl.read_parquet(run / "knees.parquet")
    knees.with_columns(truth=pl.lit(2)).write_parquet(run / "knees.parquet")
    assert "labels from 2 to 2 and 2 classes" in refusal(*named)
    knees.with_columns(followup=pl.lit(24)).write_parquet(run / "knees.parquet")
    assert "learnt progression over 24 months" in refusal(*named)
    knees.write_parquet(run / "knees.parquet")
    (run / "run.json").write_text(json.dumps({**about, "target": "kl"}), "utf-8")
    assert "Genu serves progression_abs" in refusal("--system", "image_header", "--weights", str(weights))


def test_few_folds_and_patients_are_enough_to_export() -> None:
    assert FOLDS > 1
    figures = interval_figures(scored(4, 8), pl.DataFrame({"kl": [0, 1] * 4}))
    assert len(figures["classes"][0]["bins"]) >= 1
