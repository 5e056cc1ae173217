"""A network of a KL bundle as a frozen backbone: the vectors that its head sees, built again from settings."""

from pathlib import Path

import pytest
import torch

from inference.backbones import entry, network_input
from inference.bundle import Bundle
from inference.errors import BundleError
from inference.frozen import load_frozen, rebuild, weights_of
from inference.manifest import SHIPPED, Manifest
from inference.members import MARK, load_member
from inference.preprocess import apply
from training.embed_weights import load_weights
from training.standin import write_random_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return torch.rand((2, 1, 224, 224), generator=torch.Generator().manual_seed(0))


def test_the_head_of_the_member_makes_its_logits_of_the_pooled_vector(folder: Path, crops: torch.Tensor) -> None:
    frozen, called = load_member("genu_kl", str(folder))
    (network,) = Bundle.load(folder, "cpu").networks
    pooled = frozen.features(network_input(crops, frozen.input))["pooled"]
    with torch.inference_mode():
        expected = network.model(apply(crops, network.spec))
        assert torch.allclose(network.model.classifier(pooled), expected, atol=1e-5)
    assert pooled.shape == (2, frozen.width)
    assert (frozen.synthetic, frozen.crop, called) == (True, network.spec, "genu-random 0.0.0 #random")


def test_it_is_built_again_from_settings_and_weights(folder: Path, crops: torch.Tensor, tmp_path: Path) -> None:
    frozen = load_frozen("genu_kl", folder)
    again = rebuild("genu_kl", frozen.settings, weights_of(frozen), tmp_path)
    seen = network_input(crops, frozen.input)
    assert torch.equal(frozen.features(seen)["pooled"], again.features(seen)["pooled"])
    assert (again.input, again.crop, again.width) == (frozen.input, frozen.crop, frozen.width)


def test_the_shipped_bundle_needs_no_folder_and_may_serve(crops: torch.Tensor) -> None:
    frozen, called = load_weights("genu_kl", None)
    manifest = Manifest.read(SHIPPED)
    first, last = manifest.members[0].name, manifest.members[-1].name
    assert (frozen.synthetic, called) == (manifest.synthetic, f"{manifest.name} {manifest.version} #{first}")
    named, _ = load_weights("genu_kl", f"{MARK}{last}")
    assert (named.digest == frozen.digest) == (first == last)
    assert entry("genu_kl").terms.deployed
    assert torch.isfinite(frozen.features(network_input(crops, frozen.input))["pooled"]).all()


def test_a_member_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"no member 'other'; it has random"):
        load_member("genu_kl", f"{folder}{MARK}other")
    with pytest.raises(BundleError, match="no bundle at"):
        load_weights("genu_kl", str(folder / "nowhere"))
