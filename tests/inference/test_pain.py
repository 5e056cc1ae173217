"""Bundles for pain: what is refused, the interval, and which bundles serve together."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from inference.bundle_files import SHIPPED
from inference.errors import BundleError
from inference.findings import Side
from inference.installed import installed, read_manifest
from inference.pain import PainBundle
from inference.pain_heads import ScoreHead
from inference.pain_manifest import PainManifest
from inference.predictor import Predictor
from inference.reading import read_study
from tests import phantoms
from tests.pain_runs import Made, pain_bundle
from tests.plugin.standin import standin_bundle


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(pain_bundle(), tmp_path / "bundle"))


def change(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(values | changes))


def rewrite(folder: Path, name: str, **tensors: Any) -> None:
    """A file with other tensors, its hash put right."""
    import hashlib

    save_file(load_file(folder / name) | tensors, folder / name)
    values = json.loads((folder / "bundle.json").read_text())
    values["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(values))


def test_changed_weights_are_refused(copy: Path) -> None:
    raw = bytearray((copy / "weights.safetensors").read_bytes())
    raw[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(raw)
    with pytest.raises(BundleError, match=r"weights\.safetensors has SHA-256"):
        PainBundle.load(copy, "cpu")


def test_another_answer_than_the_probes_is_refused(copy: Path) -> None:
    bias = load_file(copy / "weights.safetensors")["head.bias"]
    rewrite(copy, "weights.safetensors", **{"head.bias": bias + 0.2})
    with pytest.raises(BundleError, match=r"does not replay its probe: scores differ by 0\.2"):
        PainBundle.load(copy, "cpu")


def test_a_head_of_another_width_is_refused(copy: Path) -> None:
    tensors = load_file(copy / "weights.safetensors")
    short = {f"head.{name}": tensors[f"head.{name}"][:-1].clone() for name in ("weight", "centre", "scale")}
    rewrite(copy, "weights.safetensors", **short)
    with pytest.raises(BundleError, match="the head takes 31 columns, the backbone gives 32"):
        PainBundle.load(copy, "cpu")


def test_values_that_are_no_numbers_are_refused(copy: Path) -> None:
    rewrite(copy, "weights.safetensors", **{"head.bias": load_file(copy / "weights.safetensors")["head.bias"] * np.nan})
    with pytest.raises(BundleError, match="not finite"):
        PainBundle.load(copy, "cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "has format 2"),
        ({"task": "womac"}, "task 'womac' is not 'pain'"),
        ({"calibration": {"method": "", "coverage": 1.5, "low": -1, "high": 1}}, "make no interval"),
        ({"calibration": {"method": "", "coverage": 0.9, "low": 1, "high": 2}}, "make no interval"),
        ({"bounds": [10, 0]}, "are not within 0 to 10"),
        ({"head": {"kind": "forest", "features": "pooled", "grades": False}}, "head 'forest'"),
        ({"files": {"../weights.safetensors": "00"}}, "is a path"),
        ({"files": {"probe.safetensors": "00" * 32}}, "must list weights"),
        ({"terms": {}}, "licence"),
    ],
)
def test_a_wrong_manifest_is_named(copy: Path, changes: dict[str, Any], words: str) -> None:
    change(copy, **changes)
    with pytest.raises(BundleError, match=words):
        PainManifest.read(copy)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("crop_size", 10**9, "cannot be"),
        ("crop_size", "64", "cannot be"),
        ("canonical_side", "X", "'X' is not a valid Side"),
        ("size", 7, "cannot be read"),
        ("band", [0.9, 0.1], "cannot be"),
        ("sigma", float("nan"), "cannot be"),
    ],
)
def test_a_crop_that_cannot_be_is_refused_before_the_first_study(copy: Path, key: str, value: Any, words: str) -> None:
    backbone = json.loads((copy / "bundle.json").read_text())["backbone"]
    change(copy, backbone={**backbone, "crop": {**backbone["crop"], key: value}})
    with pytest.raises(BundleError, match=words):
        PainBundle.load(copy, "cpu")


@pytest.mark.parametrize("change_", ["empty", "two dimensions", "side", "grade", "size"])
def test_a_probe_that_is_none_is_refused(copy: Path, change_: str) -> None:
    probe = load_file(copy / "probe.safetensors")
    if change_ == "empty":
        probe = {name: values[:0].clone() for name, values in probe.items()}
    elif change_ == "two dimensions":
        probe["scores"] = probe["scores"][None].clone()
    elif change_ == "size":
        probe["crops"] = probe["crops"][:, ::2, ::2].clone()
    else:
        probe[f"{change_}s"] = probe[f"{change_}s"] + 7
    rewrite(copy, "probe.safetensors", **probe)
    with pytest.raises(BundleError, match=r"the probe of .* export the bundle again"):
        PainBundle.load(copy, "cpu")


@pytest.mark.parametrize(("name", "value"), [("weight", np.zeros(31)), ("bias", np.zeros(0)), ("scale", np.zeros(32))])
def test_a_head_that_does_not_fit_itself_is_refused(name: str, value: Any) -> None:
    tensors = {"weight": np.ones(32), "bias": np.ones(1), "centre": np.zeros(32), "scale": np.ones(32)}
    assert ScoreHead.of("ridge", tensors, (0, 10)).columns == 32
    with pytest.raises(BundleError, match="does not fit itself"):
        ScoreHead.of("ridge", {**tensors, name: value}, (0, 10))


def test_a_backbone_that_its_settings_do_not_describe_is_refused(copy: Path) -> None:
    backbone = json.loads((copy / "bundle.json").read_text())["backbone"]
    change(copy, backbone={**backbone, "settings": {"config.json": 3}})
    with pytest.raises(BundleError, match="holds no usable"):
        PainBundle.load(copy, "cpu")


def test_the_interval_lies_around_the_score_and_within_the_scale() -> None:
    bundle = PainBundle.load(pain_bundle(), "cpu")
    offsets = bundle.manifest.calibration
    crops = np.random.default_rng(0).integers(0, 256, (6, 64, 64)).astype(np.uint8)
    found = bundle.predict(crops, [Side.LEFT] * 6, [0] * 6)
    assert len({pain.score for pain in found}) == 6
    for pain in found:
        assert pain.low == max(0, pain.score + offsets.low)
        assert pain.high == min(10, pain.score + offsets.high)
        assert (pain.coverage, pain.model.task, pain.model.synthetic) == (0.9, "pain", True)
    alone = bundle.predict(crops[3:4], [Side.LEFT], [0])[0]
    assert alone == found[3], "no knee depends on the others of its study"


def test_the_grade_of_the_grader_goes_into_the_score(tmp_path: Path) -> None:
    grades: list[int] = []
    served = Predictor.load([pain_bundle(Made(grades=True)), standin_bundle()], threads=1)
    assert served.pain is not None
    path = phantoms.write(phantoms.dx_knee("R"), tmp_path / "a.dcm")
    knee = served.score(read_study([path])).knees[0]
    crop = np.full((1, 64, 64), 77, np.uint8)
    for grade in range(5):
        grades.append(served.pain.network.scores(crop, [Side.LEFT], [grade])[0])
    assert len(set(grades)) == 5
    assert knee.pain is not None
    assert knee.models == served.identities
    assert [model.task for model in knee.models] == ["kl", "pain"]


def test_the_grader_that_ships_serves_where_none_is_named() -> None:
    grader, pain = installed([pain_bundle()])
    assert (grader.folder, pain.folder) == (SHIPPED, pain_bundle())
    assert [manifest.task for manifest in installed([pain_bundle(), standin_bundle()])] == ["kl", "pain"]
    assert [manifest.folder for manifest in installed([])] == [SHIPPED]


def test_bundles_that_do_not_go_together(copy: Path) -> None:
    with pytest.raises(BundleError, match="name one bundle of the task 'pain'"):
        installed([pain_bundle(), copy])
    change(copy, task="gait")
    with pytest.raises(BundleError, match="task 'gait'; this version of Genu serves 'kl', 'pain', 'jsn_progression'"):
        read_manifest(copy)


def test_weights_whose_terms_exclude_a_service_need_the_setting() -> None:
    folder = pain_bundle(Made("biomedclip", features="fused"))
    manifest = read_manifest(folder)
    assert isinstance(manifest, PainManifest)
    assert not manifest.deployed_use
    with pytest.raises(BundleError, match=r"biomedclip \(MIT\).*allow_undeployed_bundles = true"):
        Predictor.load([folder, standin_bundle()])
    assert len(installed([folder], allow_undeployed=True)) == 2
