"""What a bundle promises when it loads, and everything that must keep it from loading."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.bundle import Bundle, decode
from inference.errors import BundleError
from inference.manifest import LARGEST, SHIPPED, Manifest
from training.standin import write_random_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("bundle") / "random")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_loads_and_predicts(folder: Path) -> None:
    bundle = Bundle.load(folder, "cpu")
    prediction = bundle.predict(torch.rand(3, 1, 224, 224))
    assert prediction.maps.shape == (3, 224, 224)
    assert float(prediction.maps.min()) >= 0
    for finding in prediction.findings:
        assert sum(finding.probabilities) == pytest.approx(1, abs=1e-9)
        assert finding.grade == int(np.argmax(finding.probabilities))
        assert finding.expected == pytest.approx(sum(k * p for k, p in enumerate(finding.probabilities)), abs=1e-6)


def test_prediction_does_not_depend_on_the_batch(folder: Path) -> None:
    bundle = Bundle.load(folder, "cpu")
    crops = torch.rand(3, 1, 224, 224)
    together, alone = bundle.predict(crops), bundle.predict(crops[1:2])
    assert together.findings[1].probabilities == pytest.approx(alone.findings[0].probabilities, abs=1e-5)


def test_stand_in_says_that_it_is_one(folder: Path) -> None:
    identity = Manifest.read(folder).identity()
    assert identity.synthetic
    assert identity.device_uid.startswith("2.25.")


def test_device_uid_follows_the_weights(folder: Path, tmp_path: Path) -> None:
    other = write_random_bundle(tmp_path / "other", seed=5)
    first, second = (Manifest.read(path).identity() for path in (folder, other))
    assert first.device_uid != second.device_uid
    assert first.digest != second.digest


def test_changed_weights_are_noticed(folder: Path) -> None:
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"weights\.safetensors has SHA-256"):
        Bundle.load(folder, "cpu")


def test_an_answer_other_than_the_probe_is_refused(folder: Path) -> None:
    probe = load_file(folder / "probe.safetensors")
    probe["probabilities"] = probe["probabilities"].roll(1, dims=1)
    save_file({name: tensor.contiguous() for name, tensor in probe.items()}, folder / "probe.safetensors")
    import hashlib

    files = json.loads((folder / "bundle.json").read_text())["files"]
    files["probe.safetensors"] = hashlib.sha256((folder / "probe.safetensors").read_bytes()).hexdigest()
    rewrite(folder, files=files)
    with pytest.raises(BundleError, match="does not replay its probe"):
        Bundle.load(folder, "cpu")


@pytest.mark.parametrize("missing", ["bundle.json", "weights.safetensors", "probe.safetensors"])
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(BundleError, match=missing):
        Bundle.load(folder, "cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"decoder": "dice"}, "decoder"),
        ({"members": [{"name": "random", "backbone": "no_such_net", "spec": {}}]}, "no_such_net"),
        ({"files": {"../evil": "00"}}, "is a path"),
        ({"files": None}, "files must map names"),
        ({"files": {"weights.safetensors": 5}}, "5 of weights.safetensors is no SHA-256"),
        ({"files": {}}, "must list weights"),
        ({"calibration": None}, "does not fit"),
        ({"calibration": {"temperature": 0}}, "temperature 0.0 must be a number above 0"),
        ({"probe": {"tolerance": float("inf")}}, "tolerance inf must be"),
        ({"synthetic": "no"}, "synthetic 'no' must be true or false"),
        ({"calibration": {}}, "temperature"),
    ],
)
def test_a_wrong_manifest_is_named(folder: Path, changes: dict[str, object], message: str) -> None:
    rewrite(folder, **changes)
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder, "cpu")


def test_a_manifest_that_is_not_json(folder: Path) -> None:
    (folder / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        Manifest.read(folder)


def test_decoders() -> None:
    row = np.array([[0.4, 0.05, 0.05, 0.2, 0.3]])
    assert decode(row, "argmax").tolist() == [0]
    assert decode(row, "median").tolist() == [2]
    assert decode(row, "expected").tolist() == [2]
    assert decode(np.array([[0.0, 0.0, 0.0, 0.0, 1.0]]), "median").tolist() == [4]


def test_the_shipped_bundle_loads_replays_and_is_small() -> None:
    bundle = Bundle.load(SHIPPED, "cpu")
    assert not bundle.manifest.synthetic
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= LARGEST
    card = (SHIPPED / "MODEL_CARD.md").read_text()
    assert "10.17632/56rmx5bjcr.1" in card
    kappa = bundle.manifest.metrics["model"]["quadratic_kappa"]
    assert f"{kappa:.3f}" in card
