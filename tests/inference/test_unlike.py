"""What is unlike the training knees: the score, its place in a bundle, and the refusal of one knee of a film."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.bundle import Bundle
from inference.conformal import Conformal
from inference.errors import BundleError
from inference.findings import RefusalCode, Side, StudyStatus
from inference.heads import KLGrader
from inference.manifest import UNLIKE_FILE
from inference.predictor import Predictor
from inference.preprocess import PreprocessSpec
from inference.reading import read_study
from inference.unlike import Familiar, unlike_training
from plugin.results import result_line
from tests import phantoms
from training.answers import pooled_features
from training.config import MemberConfig
from training.export import Parts, write_bundle
from training.unlike import familiar_of

SPEC = PreprocessSpec(size=(64, 64))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random bundle that knows how striped crops look, and carries limits of sets."""
    torch.manual_seed(0)
    model = KLGrader("mobilenetv2_035").eval()
    crops = np.random.default_rng(0).integers(0, 60, (40, 224, 224)).astype(np.uint8)
    crops[:, ::32] += 120
    config = MemberConfig("only", "mobilenetv2_035", SPEC, 1)
    known = familiar_of(pooled_features(model, config, crops))
    parts = Parts(
        name="genu-random",
        version="0.0.0",
        synthetic=True,
        networks=[("only", "mobilenetv2_035", SPEC, model)],
        temperature=1.0,
        decoder="median",
        metrics={},
        training={},
        card="# random\n",
        conformal=Conformal(0.9, (0.8,) * 5),
        familiar={"only": known},
        unlike_limit=3.0,
    )
    folder = tmp_path_factory.mktemp("bundle") / "known"
    write_bundle(parts, folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def test_the_score_is_about_one_for_what_was_learnt_and_large_beside_it() -> None:
    rng = torch.Generator().manual_seed(0)
    plane = torch.randn(6, 96, generator=rng)
    seen = 10 + torch.randn(400, 6, generator=rng) @ plane + 0.3 * torch.randn(400, 96, generator=rng)
    known = familiar_of(seen[:300])
    others = known.score(seen[300:])
    assert 0.5 < float(others.median()) < 1.5
    away = known.score(seen[300:] + 6 * torch.randn(100, 96, generator=rng))
    assert float(away.min()) > 3 * float(others.max())
    assert torch.allclose(known.score(5 * seen), known.score(seen), rtol=1e-3)  # only the direction counts


def test_scores_and_sets_of_a_bundle(folder: Path) -> None:
    bundle = Bundle.load(folder, "cpu")
    crops = torch.rand(3, 1, 224, 224)
    prediction, answer = bundle.predict(crops), bundle.answer(crops)
    assert answer.unlike is not None
    assert prediction.unlike == pytest.approx(answer.unlike.tolist(), rel=1e-4)
    assert torch.allclose(
        answer.probabilities, torch.tensor([finding.probabilities for finding in prediction.findings]), atol=1e-5
    )
    for finding in prediction.findings:
        assert finding.conformal_set is not None and finding.coverage == 0.9
        assert finding.grade in finding.conformal_set
    assert "conformal coverage=0.9" in bundle.manifest.identity().parameters


def test_a_changed_or_missing_file_is_noticed(folder: Path) -> None:
    tensors = load_file(folder / UNLIKE_FILE)
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, folder / UNLIKE_FILE)
    with pytest.raises(BundleError, match=UNLIKE_FILE):
        Bundle.load(folder, "cpu")
    (folder / UNLIKE_FILE).unlink()
    with pytest.raises(BundleError, match=UNLIKE_FILE):
        Bundle.load(folder, "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("only.rest"), "does not describe the network 'only'"),
        (lambda tensors: tensors.update({"only.mean": torch.zeros(7)}), "does not fit the network 'only'"),
        (lambda tensors: tensors["only.rest"].fill_(float("nan")), "of the network 'only' is no measure"),
        (lambda tensors: tensors["only.spread"].neg_(), "of the network 'only' is no measure"),
    ],
)
def test_planes_of_other_networks_are_refused(folder: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    tensors = load_file(folder / UNLIKE_FILE)
    change(tensors)
    save_file(tensors, folder / UNLIKE_FILE)
    path = folder / "bundle.json"
    values = json.loads(path.read_text())
    values["files"][UNLIKE_FILE] = hashlib.sha256((folder / UNLIKE_FILE).read_bytes()).hexdigest()
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder, "cpu")


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ({"unlike": {"limit": 0}}, "limit 0"),
        ({"unlike": {"limit": float("inf")}}, "limit inf"),
        ({"unlike": {"limit": float("nan")}}, "limit nan"),
        ({"unlike": [3.0]}, "does not fit"),
        ({"unlike": {}}, "'limit'"),
        ({"conformal": {"coverage": 2, "limits": [0] * 5}}, "coverage 2"),
    ],
)
def test_a_calibration_that_cannot_be_is_named(folder: Path, calibration: dict[str, object], message: str) -> None:
    path = folder / "bundle.json"
    values = json.loads(path.read_text())
    values["calibration"].update(calibration)
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder, "cpu")


def only_right_is_strange(predictor: Predictor, limit: float) -> Predictor:
    """The same predictor with another limit."""
    bundle = predictor.bundle
    changed = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, unlike_limit=limit))
    return dataclasses.replace(predictor, bundle=changed)


def test_a_knee_unlike_the_training_ones_is_refused_and_the_other_is_graded(made: Path, tmp_path: Path) -> None:
    predictor = Predictor.load([made], threads=1)
    path = phantoms.write(phantoms.dx_bilateral(), tmp_path / "film.dcm")
    study = read_study([path])
    lenient = only_right_is_strange(predictor, 1e9).score(study)
    assert {knee.side for knee in lenient.knees} == {Side.LEFT, Side.RIGHT}
    crops = {knee.side: knee.crop for knee in lenient.looks[0].knees if knee.side is not None}
    scores = {
        side: float(predictor.bundle.answer(torch.from_numpy(crop)[None, None].float() / 255).unlike[0])  # type: ignore[index,arg-type]
        for side, crop in crops.items()
    }
    strange = max(scores, key=lambda side: scores[side])
    between = sum(scores.values()) / 2
    findings = only_right_is_strange(predictor, between).score(study)
    assert [knee.side for knee in findings.knees] == [strange.other]
    (refusal,) = findings.refusals
    assert (refusal.code, refusal.side) == (RefusalCode.UNLIKE_TRAINING, strange)
    assert refusal.source == lenient.knees[0].source.sop_instance_uid
    assert f"limit {between:.1f}" in refusal.reason
    (look,) = findings.looks
    assert {knee.side: knee.code for knee in look.knees if knee.side is not None} == {
        strange: RefusalCode.UNLIKE_TRAINING,
        strange.other: None,
    }
    last = {step.question: step for step in look.steps[-2:]}
    name = {Side.LEFT: "Left knee", Side.RIGHT: "Right knee"}
    assert not last[name[strange]].passed and last[name[strange.other]].passed
    assert result_line(findings)["refusals"][0]["code"] == "unlike_training_knees"
    nothing = only_right_is_strange(predictor, 1e-6).score(study)
    assert nothing.status is StudyStatus.REFUSED
    assert len(nothing.refusals) == 2


def test_the_limit_itself_is_allowed() -> None:
    assert unlike_training(3.0, 3.0) is None
    code, reason = unlike_training(3.01, 3.0) or (None, "")
    assert code is RefusalCode.UNLIKE_TRAINING
    assert "would mean nothing" in reason


def test_what_is_stored_is_small_and_read_again() -> None:
    known = familiar_of(torch.rand(400, 1280) + 0.1)
    stored = known.stored("m")
    assert sum(tensor.numel() * tensor.element_size() for tensor in stored.values()) < 200_000
    pooled = torch.rand(5, 1280)
    assert torch.equal(Familiar.from_stored("m", stored, 1280).score(pooled), known.score(pooled))
