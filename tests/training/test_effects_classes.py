"""Planted effects of a made OAI are found by a run of classes, and chance where nothing was planted."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from inference.errors import DataError
from tests.training.made_slices import SLICES, WIDTH, write_store
from training import effects_classes, slice_run
from training.cli import main
from training.cv_evidence import read_evidence
from training.effects_models import logistic, rounded_normal
from training.predictions import read_predictions, write_predictions
from training.report_page import Table
from training.report_recovery import planted
from training.slice_fit import SliceFitConfig
from training.slice_systems import chosen_systems
from training.synth_oai_plan import effects, plan
from training.synth_oai_truth import truth as truth_of

PATIENTS = 120
QUICK = SliceFitConfig(epochs=20, patience=5, seeds=1, batch=32)


def made(folder: Path, target: str = "progression_abs", **planted: float) -> tuple[Path, Path]:
    """A fitted run on features that read the lesion, and the truth. No picture is drawn."""
    torch.set_num_threads(1)
    told = effects(planted)
    known = truth_of(plan(PATIENTS, 5, told, 12))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "truth.json").write_text(json.dumps({"effects": told, **known}), "utf-8")
    rows = [
        {"knee": key, "SeriesInstanceUID": key.split("/")[0], **row}
        for key, row in known["rows"]["12"].items()
        if row["sequence"] == "COR_IW_TSE" and row[target] is not None
    ]
    table = pl.DataFrame(rows, infer_schema_length=None)
    rng = np.random.default_rng(0)
    features = 0.4 * rng.normal(size=(len(table), SLICES, WIDTH))
    features[:, :, :6] += 4 * table["lesion"].to_numpy()[:, None, None]
    (folder / "cohort").mkdir()
    # What a cohort has no column for stays the truth's own.
    table.drop("lesion", "risk").write_parquet(folder / "cohort" / "cohort.parquet")
    write_store(folder / "slices", features, table["SeriesInstanceUID"].to_list(), table["side"].to_list())
    run = slice_run.create(
        folder / "run", folder / "cohort", folder / "slices", target=target, sequence="COR_IW_TSE", folds=3,
        config=QUICK,
    )  # fmt: skip
    slice_run.fit_systems(run, chosen_systems(target, ["image"]), lambda _: None)
    return run.folder, folder / "truth.json"


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and the truth of knees whose lesions, joint spaces and ages do something."""
    return made(tmp_path_factory.mktemp("lesions"), age=0.6, base=-0.5)


@pytest.fixture
def copied(lesions: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same to be changed."""
    shutil.copytree(lesions[0], tmp_path / "run")
    shutil.copy(lesions[1], tmp_path / "truth.json")
    return tmp_path / "run", tmp_path / "truth.json"


def test_what_was_planted_is_recovered(lesions: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, truth = lesions
    assert main(["recover", "--run", str(run), "--truth", str(truth)]) == 0
    assert "recovered from" in capsys.readouterr().out
    kept = json.loads((run / "recovery" / "recovery.json").read_text("utf-8"))
    rows = {(row["effect"], row["system"], row["claim"]): row for row in kept["rows"]}
    for effect, aim in (("image", 4.0), ("jsw", 0.5), ("age", 0.6), ("bmi", 0.0)):
        row = rows[effect, "", "covers"]
        assert row["planted"] == aim
        assert row["low"] <= aim <= row["high"]
        assert abs(row["value"] - aim) < 1.5
    assert rows["image", "", "covers"]["low"] > 1, "an interval that holds anything would say nothing"
    assert rows["image", "image", "above chance"]["low"] > 0.55
    assert rows["image", "image", "above"]["low"] > 0
    assert rows["image", "image", "told"]["value"] > 0.7
    assert 0.7 < rows["", "", "told"]["value"] < 0.95, "the planted risk itself"


def test_the_report_shows_what_was_planted(copied: tuple[Path, Path]) -> None:
    run, truth = copied
    shutil.rmtree(run / "recovery", ignore_errors=True)
    assert planted(read_evidence(run)) == []
    effects_classes.recover_classes(run, truth)
    (section,) = planted(read_evidence(run))
    table = next(part for part in section.parts if isinstance(part, Table))
    (row,) = (row for row in table.rows if "by the true lesion" in row.title.text)
    assert [cell.text for cell in (row.cells[0], row.cells[2], row.cells[3])] == [
        "4.00",
        "cover what was planted",
        "yes",
    ]
    about = json.loads((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(json.dumps({**about, "note": "changed"}), "utf-8")
    (section,) = planted(read_evidence(run))
    assert "run `genu-train recover` again" in str(section.parts)
    (run / "recovery" / "recovery.json").write_text("[]", "utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        planted(read_evidence(run))


def test_chance_where_nothing_was_planted(tmp_path: Path) -> None:
    run, truth = made(tmp_path, image=0.0, jsw=0.0, base=-0.3)
    found = effects_classes.recover_classes(run, truth)
    assert found.recovered, found.failures
    chance = [row for row in found.rows if row.claim == "chance"]
    assert {row.system for row in chance} == {"image", "jsw_only", "kl_only", "clinical_only", "prevalence", ""}
    assert all(row.low is not None and row.low <= 0.5 <= (row.high or 0) for row in chance)
    image = next(row for row in chance if row.system == "image")
    assert (image.high or 1) - (image.low or 0) < 0.25


def test_what_is_found_though_nothing_was_planted_is_told(copied: tuple[Path, Path]) -> None:
    run, truth = copied
    content = json.loads(truth.read_text("utf-8"))
    nothing = content["effects"] | {"image": 0.0, "jsw": 0.0, "age": 0.0}
    truth.write_text(json.dumps({**content, "effects": nothing}), "utf-8")
    failures = effects_classes.recover_classes(run, truth).failures
    assert "image: area under the curve" in failures
    assert any(failure.startswith("image: log odds a deviation of the score") for failure in failures)
    assert any("by the true lesion" in failure for failure in failures)


def test_a_blind_network_is_told(copied: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, truth = copied
    seen = read_predictions(run, "image")
    assert seen.probabilities is not None
    shuffled = np.random.default_rng(2).permutation(seen.probabilities)
    write_predictions(run, replace(seen, probabilities=shuffled))
    assert main(["recover", "--run", str(run), "--truth", str(truth)]) == 2
    said = capsys.readouterr()
    assert "no system finds the planted image effect" in said.err
    assert "by the true lesion" not in said.err, "the tables are right"


@pytest.mark.parametrize("target", ["womac_pain_binary", "womac_pain_class"])
def test_pain_is_recovered_in_points(target: str, tmp_path: Path) -> None:
    run, truth = made(tmp_path, target)
    found = effects_classes.recover_classes(run, truth)
    assert found.recovered, found.failures
    rows = {row.effect: row for row in found.rows if row.claim == "covers"}
    assert (rows["pain_image"].planted, rows["pain_kl"].planted) == (6.0, 0.5)
    assert (rows["pain_image"].low or 0) > 4.5


def test_what_does_not_belong_together_is_refused(copied: tuple[Path, Path]) -> None:
    run, truth = copied
    content = json.loads(truth.read_text("utf-8"))
    key = next(key for key, row in content["rows"]["12"].items() if row["sequence"] == "COR_IW_TSE")
    turned = 1 - content["rows"]["12"][key]["progression_abs"]
    rows = {**content["rows"]["12"], key: content["rows"]["12"][key] | {"progression_abs": turned}}
    big = content["rows"]["12"][key] | {"lesion": "big"}
    cases = {
        "another progression_abs": {**content, "rows": {"12": rows}},
        "truth of another export": {**content, "rows": {"12": {}}},
        "is no truth": {"effects": {}, "rows": {}},
        "progression_abs of knee .* is None": {**content, "rows": {"12": {**rows, key: {"lesion": 1, "risk": 0.5}}}},
        "lesion of knee .* is 'big'": {**content, "rows": {"12": {**content["rows"]["12"], key: big}}},
    }
    for message, values in cases.items():
        truth.write_text(json.dumps(values), "utf-8")
        with pytest.raises(DataError, match=message):
            effects_classes.recover_classes(run, truth)
    truth.write_text(json.dumps(content), "utf-8")
    about = json.loads((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(json.dumps({**about, "target": "progression_rel"}), "utf-8")
    with pytest.raises(DataError, match="nothing was planted on progression_rel"):
        effects_classes.recover_classes(run, truth)


def test_likelihoods_find_what_was_put_in_and_their_intervals_hold_it() -> None:
    held = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        owner = np.repeat(np.arange(150), 3)
        x = rng.normal(size=150)[owner] + 0.3 * rng.normal(size=450)
        columns = np.stack([np.ones(450), x], axis=1)
        patients = [f"P{one}" for one in owner]
        labels = (rng.random(450) < 1 / (1 + np.exp(0.5 - 1.2 * x))).astype(float)
        scores = np.clip(np.rint(1 + 2 * x + rng.normal(0, 1.5, 450)), 0, 19)
        found = [*logistic(columns, labels, patients), *rounded_normal(columns, scores, 19, patients)]
        planted = (-0.5, 1.2, 1.0, 2.0, 1.5)
        held.append([(one.low or 0) <= true <= (one.high or 0) for one, true in zip(found, planted, strict=True)])
        line = float(np.linalg.lstsq(columns, scores, rcond=None)[0][1])
        assert line < 1.9 < (found[3].high or 0), "least squares is held down by the zeros"
    assert np.mean(held) > 0.88
