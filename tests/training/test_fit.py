"""The chain from an export to a bundle on small generated knees: learns, resumes, exports, and the bundle is served."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference.errors import DataError
from inference.findings import RefusalCode
from inference.manifest import Manifest
from inference.predictor import Predictor
from inference.preprocess import PreprocessSpec
from inference.reading import read_study
from tests import phantom_pixels
from training import cli
from training.augment import AugmentConfig
from training.config import MemberConfig, read_config
from training.crops import CropSet
from training.fit import fit_member, ordinal_loss, predict_logits, taught_loss

TOML = """
name = "small"
version = "0.0.1"
tune_fraction = 0.3

[data]
title = "Drawn knees"
licence = "none"
description = "phantoms."
synthetic = true

[[member]]
name = "first"
backbone = "mobilenetv2_035"
epochs = 1
batch_size = 8
spec = { size = [64, 64] }
ships = false

[[member]]
name = "only"
backbone = "mobilenetv2_035"
epochs = 1
batch_size = 8
spec = { size = [64, 96] }
start = "first"
teachers = ["first"]
"""


def small_set(count: int, seed: int = 0) -> CropSet:
    """Grade 0: stripes across; grade 4: stripes down. Learnable in a few steps."""
    generator = np.random.default_rng(seed)
    grades = generator.integers(0, 2, count) * 4
    crops = generator.integers(0, 60, (count, 224, 224)).astype(np.uint8)
    for crop, grade in zip(crops, grades, strict=True):
        striped = crop if grade == 0 else crop.T
        for line in range(8):
            striped[line::32] += 120
    names = tuple(str(n) for n in range(count))
    return CropSet(crops, grades.astype(np.int64), names, ("L",) * count, names)


def member(epochs: int) -> MemberConfig:
    still = AugmentConfig(p_equalise=0, p_unequalise=0, p_invert=0)
    return MemberConfig(
        "m", "mobilenetv2_035", PreprocessSpec(size=(64, 64)), epochs, 8, 1e-3, averaging=0.5, augment=still
    )


def test_learns_what_can_be_learnt(tmp_path: Path) -> None:
    train, tune = small_set(128), small_set(24, seed=1)
    figures: list[dict[str, float]] = []
    model = fit_member(member(20), train, tune, tmp_path, [], figures.append)
    assert figures[-1]["loss"] < figures[0]["loss"]
    grade = predict_logits(model, member(20), tune.crops).argmax(dim=1).numpy()
    assert np.mean((grade >= 2) == (tune.grades >= 2)) > 0.9


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    train, tune = small_set(16), small_set(8, seed=1)

    class Cut(Exception):
        pass

    def cut(figures: dict[str, float]) -> None:
        if figures["epoch"] == 1:
            raise Cut

    straight = fit_member(member(2), train, tune, tmp_path / "straight", [], lambda _: None)
    with pytest.raises(Cut):
        fit_member(member(2), train, tune, tmp_path / "cut", [], cut)
    seen: list[float] = []
    resumed = fit_member(member(2), train, tune, tmp_path / "cut", [], lambda f: seen.append(f["epoch"]))
    assert seen == [2]
    first, second = (predict_logits(model, member(2), tune.crops) for model in (straight, resumed))
    assert torch.allclose(first, second, atol=0.05)


def test_loss_prefers_a_near_miss() -> None:
    def logits(grade: int) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([grade]), 5).float() * 6

    losses = [float(ordinal_loss(logits(grade), torch.tensor([1]))) for grade in range(5)]
    assert losses[1] == min(losses)
    assert losses[2] < losses[3] < losses[4]


def test_a_taught_network_wants_its_teachers_answer() -> None:
    taught = torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1]])
    losses = [float(taught_loss((taught**power).log(), taught)) for power in (0.5, 1.0, 2.0)]
    assert losses[1] == min(losses)
    assert float(taught_loss(taught.roll(1, dims=1).log(), taught)) > losses[1]


def test_a_member_starts_from_an_earlier_one(tmp_path: Path) -> None:
    still = replace(member(1), learning_rate=0.0)
    earlier = fit_member(still, small_set(16), small_set(4), tmp_path / "earlier", [], lambda _: None)
    known = {"earlier": (still, earlier)}
    later = replace(still, seed=7, start="earlier", teachers=("earlier",))
    figures: list[dict[str, float]] = []
    model = fit_member(later, small_set(16), small_set(4), tmp_path / "later", [], figures.append, known)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), earlier.parameters(), strict=True))
    alone = replace(later, teachers=())
    fit_member(alone, small_set(16), small_set(4), tmp_path / "alone", [], figures.append, known)
    # The untrained teacher is unsure, and so is its pupil: that costs less than the pupil's own labels do.
    assert figures[0]["loss"] < figures[1]["loss"]


def test_a_wrong_configuration_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(TOML.replace("epochs = 1", "epoch = 1", 1))
    with pytest.raises(DataError, match="epoch"):
        read_config(path)
    path.write_text(TOML.replace('teachers = ["first"]', 'teachers = ["only"]'))
    with pytest.raises(DataError, match="'only' builds on only, which must stand before it"):
        read_config(path)
    with pytest.raises(DataError, match="cannot read"):
        read_config(tmp_path / "missing.toml")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    rows = []
    for number in range(40):
        split = "train" if number < 30 else "val"
        side = "LR"[number % 2]
        name = f"{number}.png"
        film = phantom_pixels.knee(side, 224, 224, seed=number, narrowing=(number % 5) / 5)
        Image.fromarray((np.clip(film, 0, 1) * 255).astype(np.uint8)).save(folder / name)
        rows.append((name, split, number % 5, f"p{number // 2}", side))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "split", "kl", "subject", "side"), *rows])
    (folder / "run.toml").write_text(TOML)
    return folder


def test_the_commands_from_images_to_a_bundle_that_is_served(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export, run, bundle = (str(tmp_path / name) for name in ("export", "run", "bundle"))
    labels = ["--labels", str(source / "labels.csv")]
    assert cli.main(["dicomize", "--images", str(source), *labels, "--out", export]) == 0
    assert cli.main(["index", export]) == 0
    assert cli.main(["evaluate", "--run", run]) == 2
    config = ["--config", str(source / "run.toml")]
    assert cli.main(["fit", "--export", export, *config, "--run", run, "--threads", "1"]) == 0
    assert cli.main(["export", "--run", run, "--out", bundle]) == 2
    assert cli.main(["evaluate", "--run", run]) == 0
    assert cli.main(["export", "--run", run, "--out", bundle]) == 0
    errors = capsys.readouterr().err
    assert "was not evaluated" in errors

    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["model"]["n"] == 10
    assert metrics["left_out"] == {}
    assert metrics["baselines"]["majority class"]["quadratic_kappa"] == 0
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert f"{metrics['model']['accuracy']:.3f}" in card
    # Drawn knees, and random weights at first: nothing of the shipped grader's is said of them.
    made = Manifest.read(tmp_path / "bundle")
    assert made.synthetic
    assert made.training["data"] == "Drawn knees, none"
    assert made.training["initial_weights"] == []
    assert "**SYNTHETIC" in card and "Drawn knees, none: phantoms." in card
    assert "Started from random weights." in card
    assert not [claim for claim in ("Chen", "OAI", "CC BY", "Apache", "ImageNet") if claim in card]
    assert [found.name for found in made.members] == ["only"]
    predictor = Predictor.load([tmp_path / "bundle"], threads=1)
    film = next((tmp_path / "export" / "images" / "val").glob("*.dcm"))
    findings = predictor.score(read_study([film]))
    # Twenty knees say little of what knees look like: the last word may be that this one is unlike them.
    codes = [refusal.code for refusal in findings.refusals]
    assert len(findings.knees) == 1 or codes == [RefusalCode.UNLIKE_TRAINING]
    manifest = predictor.bundle.manifest
    assert manifest.unlike_limit == metrics["unlike"]["limit"]
    assert manifest.conformal is not None
    assert list(manifest.conformal.limits) == metrics["conformal"]["limits"]
    assert "## Conformal sets" in card and "## Unlike the training knees" in card
