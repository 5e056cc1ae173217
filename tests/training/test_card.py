"""The figures that people read are those that stand in the shipped bundle."""

import json
from pathlib import Path

from inference.manifest import SHIPPED, Manifest
from training.card import contrast_table, model_card
from training.config import read_config

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_model_card_is_that_of_the_bundle(tmp_path: Path) -> None:
    manifest = Manifest.read(SHIPPED)
    (tmp_path / "run.toml").write_text(manifest.training["configuration"], "utf-8")
    card = model_card(read_config(tmp_path / "run.toml"), manifest.metrics, manifest.metrics["knees"])
    assert (SHIPPED / "MODEL_CARD.md").read_text("utf-8") == card


def test_the_bundle_was_made_with_the_configuration_in_the_repository() -> None:
    manifest = Manifest.read(SHIPPED)
    assert manifest.training["configuration"] == (REPOSITORY / "training" / "kl.toml").read_text("utf-8")


def test_the_page_on_contrast_shows_the_bundles_table() -> None:
    metrics = json.loads((SHIPPED / "bundle.json").read_text("utf-8"))["metrics"]
    assert contrast_table(metrics) in (REPOSITORY / "docs" / "contrast.md").read_text("utf-8")


def test_the_bundle_reaches_what_was_asked_of_it() -> None:
    """What was asked first, quadratic kappa 0.78 and accuracy 0.60 on `val`, and no less than the bundle before it."""
    metrics = Manifest.read(SHIPPED).metrics
    assert metrics["split"] == "val"
    assert metrics["model"]["n"] == 826
    assert metrics["model"]["quadratic_kappa"] >= 0.797
    assert metrics["model"]["accuracy"] >= 0.646
    for baseline in metrics["baselines"].values():
        assert baseline["quadratic_kappa"] < metrics["model"]["quadratic_kappa"]
