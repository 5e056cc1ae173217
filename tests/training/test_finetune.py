"""Fine-tuning on the folds of a run: learns, stops early, goes on after an interruption as if there had been none."""

import csv
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from lightning_fabric import Fabric

from inference.backbones import network_input
from inference.errors import DataError, UsageError
from inference.findings import Side
from inference.frozen import load_frozen
from inference.pain import PainBundle
from inference.preprocess import PreprocessSpec
from tests.training.pain_cases import people, write_cohort
from training import finetune as tuning
from training.augment import augment
from training.cli import main
from training.embed_shards import Record, Shards
from training.embed_standins import write_standin
from training.fabric_checkpoints import SafetensorsIO
from training.finetune import FinetuneOptions, finetune
from training.finetune_data import Samples, inner_split, learning_batches
from training.finetune_final import read_final, trunk_of
from training.finetune_fit import FineTuning, Recipe, ScoreNet
from training.knee_crops import KneeCrops
from training.predictions import read_predictions

SIZE = 32
QUICK = Recipe(epochs=2, patience=2, batch=8, learning_rate=3e-3)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_standin("convnext_small", tmp_path_factory.mktemp("weights"))
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"]["input_size"] = [3, SIZE, SIZE]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def samples_of(count: int, seed: int = 0) -> Samples:
    """Two knees a patient, truth 0 to 10."""
    truth = np.random.default_rng(seed).uniform(0, 10, count)
    return Samples(tuple(f"k{n}" for n in range(count)), truth, tuple(f"p{n // 2}" for n in range(count)))


def crops_of(samples: Samples, folder: Path, missing: tuple[str, ...] = ()) -> KneeCrops:
    """A cache as `gather` leaves it: a bar across, the brighter the more it hurts."""
    generator = np.random.default_rng(1)
    images = generator.integers(0, 40, (len(samples), SIZE, SIZE)).astype(np.uint8)
    for image, truth in zip(images, samples.truth, strict=True):
        image[8:24] += np.uint8(21 * truth)
    shards = Shards.open(folder)
    keys = {
        knee: hashlib.sha256(image.tobytes()).hexdigest() for knee, image in zip(samples.knees, images, strict=True)
    }
    shards.write([Record(k, k, "", keys[k], n) for n, k in enumerate(samples.knees)], {"crops": images})
    spec = PreprocessSpec(crop_size=SIZE, size=(SIZE, SIZE))
    kept = {knee: key for knee, key in keys.items() if knee not in missing}
    return KneeCrops(folder, spec, dict.fromkeys(missing, ("no_knee_found", "no.")), shards.places, kept)


def fine_tuning(samples: Samples, tune: Samples | None, crops: KneeCrops, folder: Path, **changes: Any) -> FineTuning:
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true", plugins=[SafetensorsIO()])
    return FineTuning(fabric, replace(QUICK, **changes), crops, samples, tune, 0, folder)


def maker(weights: Path) -> Callable[[float, float], ScoreNet]:
    start = load_frozen("convnext_small", weights)
    return lambda centre, spread: ScoreNet(trunk_of(start), start.width, start.input, centre, spread, 0.0)


class Site:
    """A run of three folds, its knees' crops given."""

    def __init__(self, folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]) -> None:
        self.run = folder / "run"
        self.run.mkdir(parents=True)
        self.samples = samples_of(24)
        patients = [int(name[1:]) for name in self.samples.patients]
        columns: dict[str, Any] = {
            "knee": list(self.samples.knees),
            "SOPInstanceUID": list(self.samples.knees),
            "path": [f"{knee}.dcm" for knee in self.samples.knees],
            "PatientID": list(self.samples.patients),
            "side": ["L", "R"] * 12,
            **{name: [False] * 24 for name in ("bilateral", "flipped", "inverted")},
            "fold": [patient % 3 for patient in patients],
            "truth": self.samples.truth,
        }
        pl.DataFrame(columns).write_parquet(self.run / "knees.parquet")
        about = {"kind": "regression", "target": "pain", "unit": "points", "bounds": [0, 10], "synthetic": False}
        (self.run / "run.json").write_text(json.dumps(about))
        crops = crops_of(self.samples, folder / "crops", missing)
        monkeypatch.setattr(tuning, "gather", lambda *_, **__: crops)
        self.crops = crops
        self.options = FinetuneOptions(folder, "convnext_small", str(weights), QUICK, device="cpu")

    def curves(self) -> list[dict[str, str]]:
        with (self.run / "systems" / "convnext" / "curves.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def site(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path / "one", weights, monkeypatch, ())


def test_it_learns_what_can_be_seen_and_keeps_the_best_epoch(tmp_path: Path, weights: Path) -> None:
    samples = samples_of(48)
    train, tune = inner_split(samples, 0.25, 0)
    job = fine_tuning(train, tune, crops_of(samples, tmp_path / "crops"), tmp_path / "fit", epochs=8, patience=8)
    figures: list[Mapping[str, float]] = []
    fitted = job.run(maker(weights), figures.append)
    error = job.predict(fitted.net, tune.knees) - tune.truth
    best = min(row["validation_loss"] for row in figures)
    assert figures[fitted.epoch - 1]["validation_loss"] == best
    assert np.isclose(np.sqrt(np.mean(error**2)), figures[fitted.epoch - 1]["validation_rmse"], atol=1e-4)
    assert np.sqrt(np.mean(error**2)) < 0.6 * np.std(tune.truth)


def test_it_stops_when_the_validation_loss_no_longer_falls(tmp_path: Path, weights: Path) -> None:
    samples = samples_of(24)
    train, tune = inner_split(samples, 0.25, 0)
    noise = replace(train, truth=np.random.default_rng(5).permutation(train.truth))
    job = fine_tuning(
        noise, tune, crops_of(samples, tmp_path / "crops"), tmp_path / "fit", epochs=12, patience=1, learning_rate=0.02
    )
    fitted = job.run(maker(weights), lambda _: None)
    last = max(epoch for epoch, _, _ in fitted.curve)
    assert last == fitted.epoch + 1 < 12
    assert [path.name for path in (tmp_path / "fit").glob("weights-*")] == [f"weights-{fitted.epoch:03d}.safetensors"]


def test_a_run_leaves_predictions_curves_and_a_network_behind(site: Site) -> None:
    said: list[str] = []
    found = finetune(site.run, site.options, said.append)
    assert (found.system, found.knees) == ("convnext", site.samples.knees)
    again = read_predictions(site.run, "convnext")
    assert again.mean is not None and found.mean is not None and np.allclose(again.mean, found.mean)
    assert (again.mean >= 0).all() and (again.mean <= 10).all()
    about = again.about
    assert (about["synthetic"], about["backbone"], about["kind"]) == (True, "convnext_small", "system")
    assert [fold["knees"] for fold in about["folds"]] == [8, 8, 8]
    rows = site.curves()
    assert {row["fold"] for row in rows} == {"0", "1", "2"}
    assert {row["name"] for row in rows} == {"loss", "validation_loss", "validation_rmse", "validation_mae"}
    assert len(said) == 3 * 2 + about["final"]["epochs"]

    # What is exported answers as the network does: backbone built again, one linear head on its pooled vector.
    final = read_final(site.run / "systems" / "convnext" / "final")
    assert (final.head.synthetic, final.spec.synthetic, final.head.knees) == (True, True, 24)
    crops = torch.from_numpy(site.crops.take(site.samples.knees))[:, None].float() / 255
    pooled = final.backbone.features(network_input(crops, final.spec.input))["pooled"].numpy()
    scores, _ = final.head.predict(pooled)
    job = fine_tuning(site.samples, None, site.crops, site.run / "systems" / "convnext" / "checkpoints" / "final")
    job = replace(job, last=about["final"]["epochs"], recipe=replace(QUICK, dropout=0.2))
    start = load_frozen("convnext_small", Path(str(site.options.weights)))
    net = ScoreNet(trunk_of(start), start.width, start.input, 0.0, 1.0, 0.2)
    (kept,) = (site.run / "systems" / "convnext" / "checkpoints" / "final").glob("weights-*.safetensors")
    from safetensors.torch import load_file

    net.load_state_dict(load_file(kept))
    assert np.allclose(scores, np.clip(job.predict(net, site.samples.knees), 0, 10), atol=1e-3)

    del said[:]
    third = finetune(site.run, site.options, said.append)
    assert said == [] and third.mean is not None and np.array_equal(third.mean, found.mean)


@pytest.mark.parametrize("line", [1, 4, 7])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, line: int
) -> None:
    class Cut(Exception):
        pass

    said: list[str] = []

    def cut(text: str) -> None:
        said.append(text)
        if len(said) == line:
            raise Cut

    straight = Site(tmp_path / "straight", weights, monkeypatch, ())
    expected = finetune(straight.run, straight.options)
    other = Site(tmp_path / "cut", weights, monkeypatch, ())
    with pytest.raises(Cut):
        finetune(other.run, other.options, cut)
    before = len(said)
    found = finetune(other.run, other.options, said.append)
    assert len(set(said)) == len(said) > before  # no epoch twice
    assert expected.mean is not None and found.mean is not None
    assert np.allclose(expected.mean, found.mean, atol=1e-6)
    assert straight.curves() == other.curves()
    one, two = (read_final(run / "systems" / "convnext" / "final") for run in (straight.run, other.run))
    assert one.spec.weights_digest == two.spec.weights_digest


def test_a_kill_between_weights_and_checkpoint_costs_that_epoch_only(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    plain, saved = Fabric.save, []

    def dies(self: Fabric, path: Any, state: Any, filter: Any = None) -> None:
        saved.append(state["epoch"])
        if len(saved) == 2:
            raise Killed
        plain(self, path, state)

    straight = Site(tmp_path / "straight", weights, monkeypatch, ())
    expected = finetune(straight.run, straight.options)
    other = Site(tmp_path / "killed", weights, monkeypatch, ())
    with monkeypatch.context() as broken:
        broken.setattr(Fabric, "save", dies)
        with pytest.raises(Killed):
            finetune(other.run, other.options)
    found = finetune(other.run, other.options)
    assert expected.mean is not None and found.mean is not None
    assert np.allclose(expected.mean, found.mean, atol=1e-6)
    assert straight.curves() == other.curves()


def test_other_options_need_another_folder(site: Site) -> None:
    finetune(site.run, replace(site.options, recipe=replace(QUICK, epochs=1)))
    with pytest.raises(DataError, match="other options, weights or knees"):
        finetune(site.run, replace(site.options, recipe=replace(QUICK, epochs=1, dropout=0.5)))


def test_knees_without_a_crop_get_what_the_training_folds_say_and_are_counted(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, weights, monkeypatch, ("k3",))
    found = finetune(site.run, replace(site.options, recipe=replace(QUICK, epochs=1)))
    assert found.about["without_image"] == 1
    others = (found.folds != found.folds[3]) & (np.arange(24) != 3)
    assert found.mean is not None and found.median is not None
    assert np.isclose(found.mean[3], site.samples.truth[others].mean())
    assert np.isclose(found.median[3], np.median(site.samples.truth[others]))


def test_a_patient_in_two_folds_is_a_leak(site: Site) -> None:
    table = pl.read_parquet(site.run / "knees.parquet")
    table.with_columns(pl.Series("fold", [n % 3 for n in range(24)])).write_parquet(site.run / "knees.parquet")
    with pytest.raises(DataError, match="more than one fold"):
        finetune(site.run, site.options)


def test_mixed_precision_by_fabric(site: Site) -> None:
    options = replace(site.options, precision="bf16-mixed", recipe=replace(QUICK, epochs=1, loss="huber"))
    found = finetune(site.run, options)
    assert found.mean is not None and np.isfinite(found.mean).all()
    assert any(fold["chosen"]["to_mean"] != 0 for fold in found.about["folds"])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"precision": "fp16-mixed"}, "fp16-mixed needs a GPU"),
        ({"precision": "fp8"}, "one of fp32"),
        ({"recipe": Recipe(epochs=0)}, "at least 1"),
        ({"recipe": Recipe(loss="hinge")}, "mse, huber"),
    ],
)
def test_what_makes_no_sense_says_so(site: Site, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        finetune(site.run, replace(site.options, **changes))


def test_no_transformer_is_fine_tuned(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="convnext_small or another"):
        trunk_of(load_frozen("rad_dino", write_standin("rad_dino", tmp_path)))


def test_batches_are_the_same_for_the_same_generator_and_never_mirrored(tmp_path: Path) -> None:
    samples = samples_of(9)
    crops = crops_of(samples, tmp_path)
    one, two = (
        list(learning_batches(crops, samples, 4, QUICK.augment, torch.Generator().manual_seed(3))) for _ in range(2)
    )
    assert [len(truth) for _, truth in one] == [4, 4]  # a last batch of one image is left out
    assert all(torch.equal(a, b) and torch.equal(s, t) for (a, s), (b, t) in zip(one, two, strict=True))
    assert one[0][0].dtype == torch.uint8
    ramp = torch.linspace(1, 0, SIZE).expand(64, 1, SIZE, SIZE).clone()
    after = augment(ramp, QUICK.augment, torch.Generator().manual_seed(0))
    assert (after[..., : SIZE // 2].mean(dim=(1, 2, 3)) > after[..., SIZE // 2 :].mean(dim=(1, 2, 3))).all()


def test_checkpoints_are_whole_and_hold_plain_values_only(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "a": {0: torch.arange(3), "b": (1, 0.5, None, [True, "x"])},
        "c": {},
        "half": torch.ones(2).bfloat16(),
    }
    keep = SafetensorsIO()
    keep.save_checkpoint(state, tmp_path / "s")
    found = keep.load_checkpoint(tmp_path / "s")
    assert torch.equal(found["a"].pop(0), torch.arange(3)) and torch.equal(found.pop("half"), state["half"])
    assert found == {"a": {"b": (1, 0.5, None, [True, "x"])}, "c": {}}
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    with pytest.raises(TypeError, match="no PosixPath"):
        keep.save_checkpoint({"p": tmp_path}, tmp_path / "t")
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:-9])
    with pytest.raises(DataError, match="remove it to start afresh"):
        keep.load_checkpoint(tmp_path / "s")
    keep.remove_checkpoint(tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_the_commands_from_a_cohort_to_a_bundle(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    knees = people(9)
    cohort, run, out = write_cohort(tmp_path / "cohort", knees), tmp_path / "run", tmp_path / "bundle"
    samples = Samples(tuple(knees["knee"]), knees["pain"].to_numpy(), tuple(knees["PatientID"]))
    crops = crops_of(samples, tmp_path / "crops")
    monkeypatch.setattr(tuning, "gather", lambda *_, **__: crops)
    arguments = ["fit", "--cohort", cohort, "--run", run, "--folds", 3, "--systems", "convnext", "--threads", 1]
    assert main([str(each) for each in arguments]) == 2
    assert "convnext (with --export)" in capsys.readouterr().err
    arguments += ["--export", tmp_path, "--weights", weights, "--epochs", 2, "--batch", 6, "--device", "cpu"]
    assert main([str(each) for each in arguments]) == 0
    said = capsys.readouterr()
    assert "convnext" in said.out
    assert "convnext fold 2 epoch 2: loss" in said.err
    arguments = ["export", "--run", run, "--system", "convnext", "--out", out]
    assert main([str(each) for each in arguments]) == 0
    assert "SYNTHETIC" in capsys.readouterr().out
    card = (out / "MODEL_CARD.md").read_text()
    assert "convnext_small, fine-tuned: convnext_small (fine-tuned from" in card
    bundle = PainBundle.load(out, "cpu")
    images = crops.take(samples.knees)
    served = bundle.network.scores(images, [Side.LEFT] * len(samples), [-1] * len(samples))
    final = read_final(run / "systems" / "convnext" / "final")
    seen = network_input(torch.from_numpy(images)[:, None].float() / 255, final.spec.input)
    expected, _ = final.head.predict(final.backbone.features(seen)["pooled"].numpy())
    assert np.allclose(served, expected, atol=0.05)
    assert np.ptp(expected) > 0
