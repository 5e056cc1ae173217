"""Bundles for knee MRI: they answer as the training code does, say where they looked, and load only whole."""

import hashlib
import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.errors import BundleError
from inference.findings import Box, Side, SourceImage
from inference.frozen import FrozenBackbone
from inference.installed import installed, read_manifest, reads_mr
from inference.members import MemberTrunk
from inference.mr_findings import ClinicalValue
from inference.mr_geometry import Turn, VolumeGeometry
from inference.mr_sequences import MRSequence
from inference.slice_bundle import SliceBundle
from inference.slice_features import slice_features
from inference.slice_manifest import SliceManifest
from inference.slice_maps import read_slices, slice_maps
from inference.volume_map import SliceMap
from inference.volumes import PreparedVolume
from tests.inference.mr_bundle import HEADER, random_backbone, random_net, small_volume, write_bundle
from training.slice_fit import SliceModel

AGE = ClinicalValue("age", 71.0, "PatientAge")


@cache
def _root() -> Path:
    return Path(mkdtemp(prefix="genu-mr-"))


def backbone(name: str = "convnext_small", seed: int = 0) -> FrozenBackbone:
    return _backbone(name, seed)


@cache
def _backbone(name: str, seed: int) -> FrozenBackbone:
    return random_backbone(_root() / f"{name}-{seed}", name, seed)


def bundle_folder(name: str = "convnext_small", target: str = "progression_abs") -> Path:
    return _bundle_folder(name, target)


@cache
def _bundle_folder(name: str, target: str) -> Path:
    return write_bundle(_root() / f"bundle-{name}-{target}", backbone(name), target=target)


@cache
def bundle(name: str = "convnext_small", target: str = "progression_abs") -> SliceBundle:
    return SliceBundle.load(bundle_folder(name, target), "cpu")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder(), tmp_path / "bundle"))


def prepared(seed: int = 1, slices: int = 8, size: int = 64) -> PreparedVolume:
    values = np.random.default_rng(seed).random((slices, size, size)).astype(np.float32)
    geometry = VolumeGeometry((0, 0, 0), (0, 3, 0), (1, 0, 0), (0, 0, -1), slices, size, size, 1.0, 1.0)
    sources = tuple(SourceImage("1.2", f"1.2.{n}", "1.3", size, size) for n in range(slices))
    turn = Turn(transpose=False, reverse_slices=False, reverse_rows=False, reverse_columns=False)
    laid = SliceMap(sources, tuple(range(slices)), geometry, turn, Box(0, 0, size, size), size)
    return PreparedVolume(values, laid, Side.LEFT, MRSequence.COR_IW_TSE, "0" * 64)


@pytest.mark.parametrize("target", ["progression_abs", "womac_pain_class"])
def test_what_is_served_is_what_the_training_code_says(target: str) -> None:
    loaded, volume = bundle(target=target), prepared()
    network = loaded.network
    model = SliceModel(network.nets, network.offsets, network.temperature, None, ())
    features = slice_features(backbone(), volume.slices)
    people = np.array([[71.0, np.nan, 31.0, np.nan, np.nan], [np.nan] * 5, [55.0, 1.0, 24.0, 1.71, 70.2]])
    expected = model.probabilities(np.stack([features] * 3), people)
    np.testing.assert_allclose(network.probabilities(volume.slices, people), expected, atol=1e-5)
    for row, wanted in zip(people, expected, strict=True):
        known = [ClinicalValue(n, v, "x") for n, v in zip(HEADER, row, strict=True) if np.isfinite(v)]
        found = loaded.predict(volume, known)
        point, low, high = loaded.calibration.interval(wanted)
        np.testing.assert_allclose(found.outcome.probabilities, point, atol=1e-9)
        np.testing.assert_allclose((found.outcome.low, found.outcome.high), (low, high), atol=1e-9)
        np.testing.assert_allclose(found.attention, model.attention(features[None])[0], atol=1e-6)
    assert not np.allclose(expected[0], expected[1], atol=1e-4), "the people must matter, or this shows nothing"


def test_missing_variables_are_imputed_by_the_network_and_named() -> None:
    loaded = bundle()
    outcome = loaded.predict(prepared(), [AGE, ClinicalValue("kl", 3.0, "x")]).outcome
    assert [value.name for value in outcome.clinical] == list(HEADER)
    assert outcome.clinical[0] == AGE
    assert all(value.imputed for value in outcome.clinical[1:])
    medians = loaded.network.nets[0].median.numpy()
    np.testing.assert_allclose([value.value for value in outcome.clinical[1:]], medians[1:], rtol=1e-6)
    imputed = [ClinicalValue(name, 99.0, None) for name in HEADER[1:]]
    assert loaded.predict(prepared(), [AGE, *imputed]).outcome == outcome, "an imputed value is no known one"


def test_the_threshold_speaks_of_the_calibrated_probability() -> None:
    two, three = bundle(), bundle(target="womac_pain_class")
    outcome = two.predict(prepared()).outcome
    assert outcome.threshold == 0.4
    assert outcome.above is (outcome.probabilities[-1] >= 0.4)
    assert (outcome.model.task, outcome.model.synthetic) == ("jsn_progression", True)
    assert three.predict(prepared()).outcome.above is None
    for found in (outcome, three.predict(prepared()).outcome):
        assert sum(found.probabilities) == pytest.approx(1)
        assert all(a <= p <= b for a, p, b in zip(found.low, found.probabilities, found.high, strict=True))


@pytest.mark.parametrize("name", ["convnext_small", "efficientnet_b0"])
def test_maps_are_those_of_one_gradient_from_the_answer_to_the_last_map(name: str) -> None:
    """Grad-CAM by the book, the whole network in one graph; ConvNeXt has a norm behind its mean."""
    loaded = bundle(name)
    seen = read_slices(loaded.network.backbone, prepared(slices=3).slices)
    last = seen.maps.clone().requires_grad_(True)
    person = torch.full((1, 5), torch.nan)
    # Rounded as the networks see it, with the gradient of the number that was rounded.
    vector = cast(Any, loaded.network.backbone.trunk).forward_head(last, pre_logits=True)
    rounded = vector + (torch.from_numpy(seen.features).float() - vector).detach()
    logits = torch.stack([net(rounded[None], person)[0] for net in loaded.network.nets]) - loaded.network.offsets
    (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).mean(), last)
    expected = torch.relu((gradient.mean(dim=(2, 3), keepdim=True) * last).sum(dim=1)).detach()
    found = loaded.network.maps(seen, np.full(5, np.nan))
    assert found.max() == 1
    np.testing.assert_allclose(found, (expected / expected.max()).numpy(), atol=1e-5)


def test_maps_of_a_network_of_a_kl_bundle_are_laid_from_its_band_onto_the_slice() -> None:
    whole = backbone("genu_kl")
    trunk = cast(MemberTrunk, whole.trunk)
    spec = replace(trunk.spec, band=(0.25, 0.75))
    member = replace(whole, trunk=MemberTrunk(trunk.backbone, spec))
    top, bottom = (round(edge * spec.crop_size) for edge in spec.band)
    maps = slice_maps(member, read_slices(member, prepared(slices=2).slices), lambda features: features.sum())
    assert maps.shape == (2, spec.crop_size, spec.crop_size)
    assert maps[:, top:bottom].max() == 1
    assert not maps[:, :top].any()
    assert not maps[:, bottom:].any()


def test_maps_of_nothing_are_empty() -> None:
    seen = read_slices(backbone(), prepared(slices=2).slices)
    maps = slice_maps(backbone(), seen, lambda features: (features * 0).sum())
    assert maps.shape == (2, 2, 2)
    assert not maps.any()


def test_bundles_of_one_backbone_share_it_and_what_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = bundle(), bundle(target="womac_pain_class")
    shared = other.sharing([one])
    assert shared.network.backbone is one.network.backbone
    seen = one.read(prepared())
    alone = other.predict(prepared()).outcome
    monkeypatch.setattr(SliceBundle, "read", lambda *_: pytest.fail("read again"))
    assert shared.predict(prepared(), seen=seen).outcome == alone
    folder = write_bundle(_root() / "another", backbone(seed=5))
    foreign = SliceBundle.load(folder, "cpu")
    assert foreign.sharing([one]).network.backbone is not one.network.backbone
    with pytest.raises(pytest.fail.Exception):
        foreign.predict(prepared(), seen=seen)


def test_bundles_serve_beside_the_grader_one_for_each_question(tmp_path: Path) -> None:
    again = write_bundle(tmp_path / "again", backbone(), name="other")
    sagittal = write_bundle(tmp_path / "sagittal", backbone(), small_volume(MRSequence.SAG_IW_TSE))
    pain = bundle_folder(target="womac_pain_class")
    found = installed([pain, sagittal, bundle_folder()])
    assert [manifest.task for manifest in found] == ["kl", "jsn_progression", "jsn_progression", "womac_pain"]
    assert isinstance(read_manifest(pain), SliceManifest)
    assert reads_mr([pain])
    assert not reads_mr([found[0].folder])
    with pytest.raises(BundleError, match="name one bundle for progression_abs of the coronal IW TSE series"):
        installed([again, bundle_folder()])
    terms = {"licence": "X", "deployed_use": False, "note": ""}
    closed = write_bundle(tmp_path / "closed", backbone(), target="womac_pain_binary", terms=terms)
    with pytest.raises(BundleError, match="allow_undeployed_bundles"):
        installed([closed])
    assert len(installed([closed], allow_undeployed=True)) == 2


def test_a_changed_file_is_refused(copy: Path) -> None:
    with (copy / "weights.safetensors").open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(BundleError, match=r"weights.safetensors has SHA-256"):
        SliceBundle.load(copy, "cpu")


def _resave(folder: Path, name: str, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / name)
    values = json.loads((folder / "bundle.json").read_text("utf-8"))
    values["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(values), "utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("offsets"), "lacks the offsets"),
        (lambda t: t.update(offsets=torch.zeros(3)), "export it again"),
        (lambda t: t.update(extra=torch.zeros(3)), "extra, which nobody reads"),
        (lambda t: t.pop("net0.sharpness"), "does not fit its description"),
        (lambda t: t.update({"net1.answer.6.bias": torch.tensor([3.0, -3.0])}), "does not replay its probe"),
        (lambda t: t.update({"net1.answer.6.bias": torch.tensor([float("nan"), 0.0])}), "does not replay its probe"),
        (lambda t: t.pop("backbone.head.norm.weight"), "no usable convnext_small"),
        (lambda t: t.update({"calibration.p0": torch.ones(2, 1001)}), "calibration.p0"),
        (lambda t: t.pop("calibration.p1"), "calibration.p1"),
    ],
)
def test_weights_that_do_not_fit_are_refused(copy: Path, change: Any, said: str) -> None:
    tensors = load_file(copy / "weights.safetensors")
    change(tensors)
    _resave(copy, "weights.safetensors", tensors)
    with pytest.raises(BundleError, match=said):
        SliceBundle.load(copy, "cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.pop("slices"),
        lambda p: p.update(slices=p["slices"][0].clone()),
        lambda p: p.update(clinical=p["clinical"][:, :2].contiguous()),
        lambda p: p.update(clinical=p["clinical"][:0].contiguous(), probabilities=p["probabilities"][:0].contiguous()),
        lambda p: p.update(probabilities=p["probabilities"][:, :1].contiguous()),
        lambda p: p.update(slices=torch.zeros(8, 64, 64, dtype=torch.uint8)),
    ],
)
def test_a_probe_that_is_none_is_refused(copy: Path, change: Any) -> None:
    probe = load_file(copy / "probe.safetensors")
    change(probe)
    _resave(copy, "probe.safetensors", probe)
    with pytest.raises(BundleError, match="no whole probe"):
        SliceBundle.load(copy, "cpu")


def test_a_transformer_is_refused_because_it_has_no_maps(tmp_path: Path) -> None:
    vit = random_backbone(tmp_path / "vit", "rad_dino")
    folder = write_bundle(tmp_path / "bundle", vit)
    with pytest.raises(BundleError, match="rad_dino is a transformer"):
        SliceBundle.load(folder, "cpu")


@pytest.mark.parametrize(
    "change", [{"kernel": 2}, {"kernel": "3"}, {"hidden": [16]}, {"hidden": None}, {"attention": -1}, {"dropout": "x"}]
)
def test_networks_that_cannot_be_are_refused(copy: Path, change: dict[str, Any]) -> None:
    values = json.loads((copy / "bundle.json").read_text("utf-8"))
    values["network"]["spec"] |= change
    (copy / "bundle.json").write_text(json.dumps(values), "utf-8")
    with pytest.raises(BundleError):
        SliceBundle.load(copy, "cpu")


def test_networks_for_another_backbone_are_refused(tmp_path: Path) -> None:
    spec = replace(random_net(bundle().network.nets[0].spec).spec, features=33)
    with pytest.raises((BundleError, RuntimeError)):
        write_bundle(tmp_path / "bundle", backbone(), nets=[random_net(spec)])
    values = json.loads((bundle_folder() / "bundle.json").read_text("utf-8"))
    values["network"]["spec"]["features"] = 33
    folder = Path(shutil.copytree(bundle_folder(), tmp_path / "copy"))
    (folder / "bundle.json").write_text(json.dumps(values), "utf-8")
    with pytest.raises(BundleError, match="take 33 features"):
        SliceBundle.load(folder, "cpu")


@pytest.mark.parametrize(
    ("where", "values"),
    [
        (("network", "threshold"), (True, "0.4", [0.4], float("nan"))),
        (("network", "temperature"), (True, "1.3")),
        (("network", "count"), (True, 2.0)),
        (("network", "spec", "hidden"), (["16", "8"], [16.0, 8])),
        (("network", "spec", "bidirectional"), ("false",)),
        (("classes",), ("ab", ["a", "a"], ["", "b"], ["a\nb", "c"], ["a" * 65, "b"])),
        (("name",), ("a\nb", "a" * 201)),
        (("calibration", "patients"), (True, "40", -1, 1.7)),
        (("calibration", "method"), ("other", None)),
        (("terms", "licence"), (None, 5)),
        (("metrics",), (5, "x")),
        (("probe", "tolerance"), ("0.005", True)),
    ],
)
def test_values_of_another_kind_are_refused_by_name(
    copy: Path, where: tuple[str, ...], values: tuple[Any, ...]
) -> None:
    """In quotes, true, or nonsense: none may become a number that is served."""
    good = (copy / "bundle.json").read_text("utf-8")
    for value in values:
        made = json.loads(good)
        inner = made
        for key in where[:-1]:
            inner = inner[key]
        inner[where[-1]] = value
        (copy / "bundle.json").write_text(json.dumps(made), "utf-8")
        with pytest.raises(BundleError):
            SliceBundle.load(copy, "cpu")


def test_tensors_of_another_precision_are_read_and_a_probe_must_have_somebody_unknown(copy: Path) -> None:
    tensors, probe = load_file(copy / "weights.safetensors"), load_file(copy / "probe.safetensors")
    _resave(copy, "weights.safetensors", tensors | {"calibration.p0": torch.zeros(2, 1001, dtype=torch.bfloat16)})
    SliceBundle.load(copy, "cpu")
    one = {"clinical": probe["clinical"][:1].clone(), "probabilities": probe["probabilities"][:1].clone()}
    _resave(copy, "probe.safetensors", probe | one)
    with pytest.raises(BundleError, match="nothing is known"):
        SliceBundle.load(copy, "cpu")
