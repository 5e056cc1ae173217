"""Export of a cross-validated system: the interval, the card, what is refused, and training and serving being alike."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from inference.backbones import BACKBONES
from inference.errors import DataError, UsageError
from inference.findings import Side
from inference.frozen import load_frozen, rebuild, weights_of
from inference.pain import PainBundle, PainNetwork
from inference.pain_heads import ScoreHead
from inference.pain_manifest import HeadFacts
from inference.predictor import Predictor
from inference.reading import read_study
from tests import phantoms
from tests.pain_runs import FOLDS, PATIENTS, Made, made_head, made_run, pain_bundle
from tests.plugin.standin import standin_bundle
from training.cli import main
from training.embed import EmbedPlan, embed
from training.embed_standins import write_standin
from training.embeddings import EmbeddingStore
from training.pain_export import export_run
from training.pain_interval import OutOfFold, calibrate, coverage_figures, patient_quantile


def out_of_fold(patients: int, seed: int, each: int = 2) -> OutOfFold:
    """Skewed residuals that the knees of a patient share for the most part."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), each)
    mean = rng.uniform(2, 8, len(owner))
    residuals = rng.exponential(1.5, patients)[owner] - 1.5 + rng.normal(0, 0.5, len(owner))
    names = [f"P{number}" for number in owner]
    return OutOfFold(mean, np.clip(mean + residuals, 0, 10), owner % FOLDS, names, (0, 10))


def test_the_interval_holds_what_it_says_on_patients_that_it_has_not_seen() -> None:
    inside = []
    for seed in range(40):
        calibration = calibrate(out_of_fold(80, seed))
        new = out_of_fold(200, 1000 + seed)
        low, high = new.interval(calibration)
        inside.append(np.mean((new.truth >= low) & (new.truth <= high)))
    assert 0.90 <= np.mean(inside) <= 0.94
    assert calibration.low < 0 < calibration.high
    assert calibration.high > 1.3 * -calibration.low, "each tail by itself: scores are skewed"


def test_patients_count_the_same_however_many_knees_they_have() -> None:
    values = np.array([0.0] * 50 + [10.0] * 9)
    patients = ["many"] * 50 + [f"P{number}" for number in range(9)]
    assert patient_quantile(values, patients, 0.5) == 10.0
    assert patient_quantile(values, patients, 0.05) == 0.0


def test_the_correction_for_few_patients() -> None:
    values, patients = np.arange(10.0), [str(number) for number in range(10)]
    assert patient_quantile(values, patients, 0.9) == 9.0  # the ceil(11 * 0.9) = 10th of 10
    assert patient_quantile(values, patients, 0.95) == float("inf")
    few = calibrate(OutOfFold(np.full(10, 5.0), values, np.arange(10) % 2, patients, (0, 10)))
    assert (few.low, few.high) == (-10, 10), "too few patients: the whole scale"


def test_coverage_is_judged_by_folds_that_did_not_make_the_interval() -> None:
    found = out_of_fold(100, 7)
    knees = pl.DataFrame({"sex": ["F", "M"] * 100, "kl": [0] * 150 + [4] * 50})
    # One fold is unlike the others: its own residuals must not make it look covered.
    shifted = np.where(found.folds == 0, np.clip(found.truth + 4, 0, 10), found.truth)
    figures = coverage_figures(OutOfFold(found.mean, shifted, found.folds, found.patients, (0, 10)), knees)
    assert figures["coverage"] < 0.9
    groups = {(row["factor"], row["group"]): row["knees"] for row in figures["subgroups"]}
    assert groups == {("sex", "women"): 100, ("sex", "men"): 100, ("KL grade", "KL 0"): 150, ("KL grade", "KL 4"): 50}
    low, high = figures["coverage_95"]
    assert low < figures["coverage"] < high


@pytest.mark.parametrize("kind", ["ridge", "corn", "attentive"])
def test_serving_computes_what_the_fit_computes(kind: str) -> None:
    rng = np.random.default_rng(1)
    head = made_head(Made(kind=kind), 12, rng)
    shape = (20, 7, 12) if kind == "attentive" else (20, 12)
    features = rng.normal(0, 3, shape).astype(np.float32)
    served = ScoreHead.of(kind, head.tensors, head.bounds).scores(features)
    assert np.ptp(served) > 1
    np.testing.assert_allclose(served, head.predict(features)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "convnext_small", "rad_dino", "biomedclip"])
def test_a_backbone_is_the_same_once_it_was_in_a_bundle(name: str, tmp_path: Path) -> None:
    assert name in BACKBONES
    backbone = load_frozen(name, write_standin(name, tmp_path / name))
    again = rebuild(name, json.loads(json.dumps(backbone.settings)), weights_of(backbone), tmp_path)
    size = backbone.input.size
    images = torch.rand((1, 3, size, size), generator=torch.Generator().manual_seed(0))
    before, after = backbone.features(images, "layers"), again.features(images, "layers")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (again.input, again.width, again.text) == (backbone.input, backbone.width, None)


def test_a_knee_is_cut_and_embedded_in_serving_as_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = {"R": phantoms.dx_knee("R"), "L": phantoms.dx_knee("L"), "LR": phantoms.dx_bilateral()}
    rows = []
    for sides, ds in films.items():
        phantoms.write(ds, tmp_path / "export" / f"{sides}.dcm")
        flags = {"bilateral": len(sides) == 2, "flipped": False, "inverted": False}
        uid = str(ds.SOPInstanceUID)
        rows += [
            {"knee": f"{uid}/{s}", "SOPInstanceUID": uid, "path": f"{sides}.dcm", "side": s, **flags} for s in sides
        ]
    (tmp_path / "cohort").mkdir()
    pl.DataFrame(rows).write_parquet(tmp_path / "cohort" / "cohort.parquet")
    made = Made("convnext_small")
    (tmp_path / "made").mkdir()
    run, weights = made_run(tmp_path / "made", made)
    plan = EmbedPlan(
        tmp_path / "cohort", tmp_path / "export", tmp_path / "store", made.backbone, str(weights), 1, 0, "cpu"
    )
    embed(plan)
    store = EmbeddingStore(tmp_path / "store")
    export_run(run, "system", tmp_path / "bundle", weights=str(weights))
    served = Predictor.load([standin_bundle(), tmp_path / "bundle"], threads=1)
    assert served.pain is not None
    backbone = load_frozen(made.backbone, weights)
    facts = HeadFacts("ridge", "pooled", False)
    whole = PainNetwork(backbone, store.spec.input, facts, served.pain.network.head)
    crops: list[np.ndarray] = []
    plain = PainBundle.predict
    monkeypatch.setattr(PainBundle, "predict", lambda self, c, s, g: crops.append(c[0]) or plain(self, c, s, g))
    seen = 0
    for sides, ds in films.items():
        crops.clear()
        findings = served.score(read_study([tmp_path / "export" / f"{sides}.dcm"]))
        for knee, crop in zip(findings.knees, crops, strict=True):
            vector = store.matrix([f"{ds.SOPInstanceUID}/{knee.side}"])[0]
            np.testing.assert_array_equal(whole.features(crop, knee.side, 0), vector)
            assert knee.pain is not None
            rounded = abs(knee.pain.score - whole.head.scores(vector[None])[0])
            assert rounded < 0.05, "half precision changes hundredths of a point at most"
            seen += 1
    assert seen == 4


def test_the_card_tells_the_essentials() -> None:
    card = (pain_bundle() / "MODEL_CARD.md").read_text()
    for said in (
        "SYNTHETIC: RANDOM WEIGHTS OR MADE KNEES",
        "predicted from the image, not patient-reported",
        "Out of scope",
        "of 10 points wide",
        f"120 knees of {PATIENTS} patients",
        "3 knees did not take part: without a crop",
        "| constant_mean (baseline) SYNTHETIC |",
        "age: under 45",
        "race: Black",
        "KL grade: KL 4",
        "no external validation",
        "Apache-2.0",
    ):
        assert said in card, said
    values = json.loads((pain_bundle() / "bundle.json").read_text())
    assert all(digest in card for digest in values["files"].values())
    assert values["metrics"]["interval"]["wanted"] == 0.9


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run, weights = made_run(tmp_path)
    for name in ("one", "two"):
        export_run(run, "system", tmp_path / name, weights=str(weights))
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["MODEL_CARD.md", "bundle.json", "probe.safetensors", "weights.safetensors"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


def test_what_cannot_be_exported_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, weights = made_run(tmp_path)
    with pytest.raises(UsageError, match=r"constant_mean: it has no final head.*these can be exported: system"):
        export_run(run, "constant_mean", tmp_path / "out")
    with pytest.raises(UsageError, match=r"nothing: it is no system of the run"):
        export_run(run, "nothing", tmp_path / "out")
    with pytest.raises(UsageError, match="on a disk: name it with --weights"):
        export_run(run, "system", tmp_path / "out")
    other = write_standin("convnext_small", tmp_path / "other", seed=9)
    with pytest.raises(DataError, match="is not what the embeddings were made with"):
        export_run(run, "system", tmp_path / "out", weights=str(other))
    about = run / "systems" / "system" / "system.json"
    told_before = about.read_text()
    about.write_text(json.dumps(json.loads(told_before) | {"specification": "0" * 64}))
    with pytest.raises(DataError, match="was embedded anew, in another way, since system was fitted"):
        export_run(run, "system", tmp_path / "out", weights=str(weights))
    about.write_text(told_before)
    for place in (run, run / "run.json", Path(), Path("..")):
        with pytest.raises(UsageError, match="holds something else than a bundle, which is not deleted"):
            export_run(run, "system", place, weights=str(weights))
    assert (run / "run.json").is_file()
    assert not (tmp_path / "out").exists()
    assert main(["export", "--run", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "name one with --system: system" in capsys.readouterr().err
    assert main(["export", "--run", str(run), "--out", str(tmp_path / "out"), "--system", "system"]) == 2
    told = [
        "export",
        "--run",
        str(run),
        "--out",
        str(tmp_path / "out"),
        "--system",
        "system",
        "--weights",
        str(weights),
    ]
    assert main([*told, "--name", "genu-pain", "--model-version", "1.2.3"]) == 0
    assert "genu-pain 1.2.3 in" in (said := capsys.readouterr().out)
    assert "SYNTHETIC" in said and "NOT FINISHED" not in said
    values = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(values | {"asked": ["rad_dino"]}))
    assert main(told) == 0
    assert "NOT FINISHED, and missing here: rad_dino." in capsys.readouterr().out
    assert "NOT FINISHED, and missing here: rad_dino." in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    values = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(values | {"bounds": [0.0, 20.0], "target": "womac_pain"}))
    with pytest.raises(DataError, match="'womac_pain' from 0 to 20; Genu serves pain from 0 to 10"):
        export_run(run, "system", tmp_path / "out")


def test_sides_are_the_first_axis_of_the_descriptions() -> None:
    bundle = PainBundle.load(pain_bundle(Made("biomedclip", features="fused")), "cpu")
    texts = bundle.network.texts
    assert texts is not None
    assert texts.shape[:2] == (2, 5)
    crop = np.full((bundle.spec.crop_size,) * 2, 90, np.uint8)
    scores = {(side, grade): bundle.network.scores(crop[None], [side], [grade])[0] for side in Side for grade in (0, 4)}
    assert len(set(scores.values())) == 4, "the description decides, too"
