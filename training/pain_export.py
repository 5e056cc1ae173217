"""Writes a system of a cross-validated run as a bundle of the task "pain": `genu-train export --system`.

The bundle holds the backbone, the head fitted on all knees (RUN/systems/NAME/final), the offsets of its interval from
the out-of-fold predictions, a stored probe and a model card (docs/pain-bundle.md).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from inference.backbones import entry
from inference.errors import DataError, UsageError
from inference.findings import Side
from inference.frozen import FrozenBackbone, rebuild, weights_of
from inference.pain import PainBundle, PainNetwork
from inference.pain_heads import ScoreHead
from inference.pain_manifest import FORMAT, TASK, HeadFacts
from training.cohort_origin import origin_of
from training.cv_evaluate import figures_of
from training.cv_evidence import Evidence, read_evidence
from training.cv_run import CVRun, read
from training.embed_weights import weights_again
from training.embeddings import UNMARKED, EmbeddingSpec, EmbeddingStore, sentences_digest
from training.export import check_out, probe_crops, replacing
from training.final_head import FINAL, JSON, FinalHead, read_head
from training.finetune_final import is_fine_tuned, read_final
from training.pain_card import CardFacts, pain_card
from training.pain_interval import OutOfFold, calibrate, coverage_figures
from training.predictions import Predictions

TARGETS = ("pain", "nrs_pain")
SCALE = (0.0, 10.0)
PROBE_TOLERANCE = 0.05  # points
ROUNDED = 0.02  # points that half precision may change a probe's score by; else weights stay in single
_PROBE_SIDES = (Side.LEFT, Side.RIGHT, Side.LEFT, Side.RIGHT)
_PROBE_GRADES = (0, 2, 3, 4)


@dataclass(frozen=True, eq=False)
class _Source:
    """All that a bundle is made from."""

    run: CVRun
    evidence: Evidence
    system: Predictions
    head: FinalHead
    spec: EmbeddingSpec
    backbone: FrozenBackbone
    texts: torch.Tensor | None

    @property
    def synthetic(self) -> bool:
        """Whether knees or weights are made."""
        told = (self.run.synthetic, self.head.synthetic, self.spec.synthetic, self.system.about.get("synthetic"))
        return any(bool(each) for each in told)


def export_run(
    run: Path, system: str, out: Path, *, weights: str | None = None, name: str | None = None, version: str = "0.1.0"
) -> PainBundle:
    """Write the bundle into `out`, replacing what is there, and load it again as the service would.

    Args:
        run: folder of a cross-validated run of the kind "regression" whose target is pain from 0 to 10.
        system: one of its systems that has a final head.
        out: the bundle's folder.
        weights: where the backbone's weights are, as for `genu-train embed`; None for the usual ones.
        name, version: of the model, as reports name it; the name is made from the system's where none is given.

    Raises:
        UsageError: the system cannot be exported (says which can), the weights have to be named, or `out` holds
            something else than a bundle.
        DataError: the run is unfinished, its target is another, or the weights are not those of the embeddings.
        BundleError: weights that do not fit, or a bundle that does not replay its own probe.
    """
    check_out(out)
    source = _source(run, system, weights)
    called = name or f"genu-pain-{system.replace('_', '-')}"
    with replacing(out) as part:
        _write(source, part, called, version)
        bundle = PainBundle.load(part, "cpu")
    return replace(bundle, manifest=replace(bundle.manifest, folder=out))


def exportable(run: Path) -> tuple[str, ...]:
    """The systems of a run that have a final head, sorted."""
    return tuple(sorted(path.parent.parent.name for path in (run / "systems").glob(f"*/{FINAL}/{JSON}")))


def _source(folder: Path, system: str, weights: str | None) -> _Source:
    run = read(folder)
    if run.target not in TARGETS or run.bounds != SCALE:
        raise DataError(
            f"{folder} predicts {run.target!r} from {run.bounds[0]:g} to {run.bounds[1]:g}; Genu serves pain from 0 to "
            f"10 (target {' or '.join(TARGETS)})."
        )
    evidence = read_evidence(folder)
    found = {each.system: each for each in evidence.systems}
    able = [name for name in exportable(folder) if name in found]
    if system not in able:
        why = "is no system of the run"
        if system in found:
            why = "has no final head (baselines without an image and gradient boosting have none; or it is unfinished)"
        raise UsageError(f"--system {system}: it {why}; these can be exported: {', '.join(able) or 'none'}.")
    final = folder / "systems" / system / FINAL
    if is_fine_tuned(final):
        tuned = read_final(final)
        return _Source(run, evidence, found[system], tuned.head, tuned.spec, tuned.backbone, None)
    head = read_head(final)
    store = run.stores().get(head.embedding)
    if store is None:
        raise DataError(f"{folder} has no embeddings {head.embedding!r}, which the head of {system} was fitted on.")
    told = found[system].about.get("specification", store.spec.digest)
    if told != store.spec.digest:
        raise DataError(f"{store.folder} was embedded anew, in another way, since {system} was fitted: fit it again.")
    if head.features == "fused" and found[system].about.get("sentences", UNMARKED) != sentences_digest():
        raise DataError(f"{system} was fitted with other descriptions of knees than this version's: fit it again.")
    backbone = weights_again(store.spec, weights)
    return _Source(run, evidence, found[system], head, store.spec, backbone, _texts(store, head))


def _texts(store: EmbeddingStore, head: FinalHead) -> torch.Tensor | None:
    """The ten embedded descriptions, float32 (2 sides, 5 grades, D), where the head needs them."""
    if head.features != "fused":
        return None
    rows = [(side, grade) for side in Side for grade in range(5)]
    table = store.texts([side for side, _ in rows], [grade for _, grade in rows])
    return torch.from_numpy(table).reshape(len(Side), 5, -1).contiguous()


def _write(source: _Source, folder: Path, name: str, version: str) -> None:
    state, rounding = _weights(source, folder)
    network = _network(source, rebuild(source.spec.backbone, source.backbone.settings, state, folder))
    tensors = {f"backbone.{key}": value for key, value in state.items()}
    tensors |= {f"head.{key}": torch.from_numpy(np.asarray(v, np.float32)) for key, v in source.head.tensors.items()}
    if source.texts is not None:
        tensors["texts"] = source.texts
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "weights.safetensors")
    crops = _crops(source.spec.crop.crop_size)
    probe = {
        "crops": torch.from_numpy(crops),
        "sides": torch.tensor([list(Side).index(side) for side in _PROBE_SIDES]),
        "grades": torch.tensor(_PROBE_GRADES),
        "scores": torch.from_numpy(network.scores(crops, _PROBE_SIDES, _PROBE_GRADES)),
    }
    save_file(probe, folder / "probe.safetensors")
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "weights.safetensors", folder / "probe.safetensors")
    }
    values = _values(source, name, version, files)
    values["training"]["rounding_points"] = rounding
    (folder / "bundle.json").write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    card = pain_card(CardFacts(values, source.run, source.evidence, source.system, figures_of(source.evidence)))
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)


def _values(source: _Source, name: str, version: str, files: Mapping[str, str]) -> dict[str, Any]:
    """The contents of bundle.json."""
    spec, head, run = source.spec, source.head, source.run
    found = out_of_fold(source.evidence, source.system, run.bounds)
    interval = calibrate(found)
    return {
        "format": FORMAT,
        "name": name,
        "version": version,
        "task": TASK,
        "synthetic": source.synthetic,
        "backbone": {
            "name": spec.backbone,
            "weights": spec.weights,
            "weights_sha256": spec.weights_digest,
            "settings": dict(source.backbone.settings),
            "crop": spec.crop.to_json(),
            "input": spec.input.to_json(),
            "precision": spec.precision,
        },
        "head": {"kind": head.kind, "features": head.features, "grades": head.grades},
        "bounds": list(run.bounds),
        "calibration": {
            "method": interval.method,
            "coverage": interval.coverage,
            "low": interval.low,
            "high": interval.high,
        },
        "files": dict(files),
        "probe": {"tolerance": PROBE_TOLERANCE},
        "terms": {
            "licence": spec.licence,
            "deployed_use": spec.deployed_use,
            "note": entry(spec.backbone).terms.note,
        },
        "metrics": {"interval": coverage_figures(found, source.evidence.knees), "system": _figures(source)},
        "training": {
            "system": source.system.system,
            "target": run.target,
            "knees": head.knees,
            "patients": head.patients,
            "folds": run.folds,
            "seed": run.seed,
            "chosen": dict(head.chosen),
            "data": origin_of(run.cohort, run.cohort_sha256).to_json(),
            "cohort_sha256": run.cohort_sha256,
            "left_out": dict(run.left_out),
            "grades": "the cohort's" if run.grades is None else "genu-train grade",
        },
    }


def out_of_fold(evidence: Evidence, system: Predictions, bounds: tuple[float, float]) -> OutOfFold:
    """The predictions of a system with their truth.

    Raises:
        DataError: the system predicts no scores.
    """
    if system.mean is None:
        raise DataError(f"{system.system} predicts no scores.")
    return OutOfFold(system.mean, evidence.truth, evidence.folds, evidence.patients, bounds)


def _figures(source: _Source) -> Mapping[str, Any]:
    rows = figures_of(source.evidence)["systems"]
    return next(dict(row) for row in rows if row["system"] == source.system.system)


def _network(source: _Source, backbone: FrozenBackbone) -> PainNetwork:
    facts = HeadFacts(source.head.kind, source.head.features, source.head.grades)
    head = ScoreHead.of(source.head.kind, source.head.tensors, source.run.bounds)
    texts = None if source.texts is None else source.texts.numpy()
    return PainNetwork(backbone, source.spec.input, facts, head, texts)


def _weights(source: _Source, folder: Path) -> tuple[dict[str, torch.Tensor], float]:
    """The backbone's weights in half precision, and by how many points at most that changes a probe's score.

    In single precision, and 0, where it would change one by more than `ROUNDED`.
    """
    whole = weights_of(source.backbone)
    half = {name: value.half() if value.is_floating_point() else value for name, value in whole.items()}
    crops = _crops(source.spec.crop.crop_size)
    rounded = rebuild(source.spec.backbone, source.backbone.settings, half, folder)
    before, after = (
        _network(source, backbone).scores(crops, _PROBE_SIDES, _PROBE_GRADES) for backbone in (source.backbone, rounded)
    )
    change = float(np.abs(after - before).max())
    return (half, change) if change <= ROUNDED else (whole, 0.0)


def _crops(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Drawn crops, uint8 (4, size, size), always the same."""
    crops = probe_crops()
    if crops.shape[-1] == size:
        return np.asarray(crops.numpy())
    resized = functional.interpolate(crops.float()[:, None], size=(size, size), mode="bilinear", antialias=True)
    return np.asarray(resized[:, 0].round().clamp(0, 255).to(torch.uint8).numpy())
