"""Writes a system of a run on knee MRI as a bundle: `genu-train export --run RUN --system image_header --out BUNDLE`.

The bundle (docs/mri-bundle.md) holds the backbone, the networks fitted on all rows (RUN/systems/NAME/final), Venn-Abers
tables from the run's out-of-fold probabilities, a stored probe and a model card.
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

from inference.backbones import entry
from inference.errors import DataError, UsageError
from inference.frozen import FrozenBackbone, rebuild, weights_of
from inference.slice_bundle import SliceBundle, SliceNetwork
from inference.slice_manifest import FORMAT, METHOD, TASKS
from training.cohort_origin import origin_of
from training.cv_evaluate import figures_of
from training.cv_evidence import Evidence, read_evidence
from training.embed_weights import weights_again
from training.export import check_out, replacing
from training.predictions import Predictions
from training.slice_calibration import Scored, calibrate, choose_threshold, interval_figures, tables_of
from training.slice_card import SliceCardFacts, slice_card
from training.slice_final import FinalNets, final_nets
from training.slice_probe import probe_clinical, probe_slices
from training.slice_run import Say, SliceRun, read
from training.slice_store import SliceSpec, SliceStore
from training.slice_systems import SliceSystem, systems

PROBE_TOLERANCE = 0.005
MONTHS = 12  # of progression: codes and sentences of reports say "within 12 months"
ROUNDED = 0.002  # of a probability that half precision may change a probe by; else weights stay in single


@dataclass(frozen=True, eq=False)
class _Source:
    """All that a bundle is made from. `scored` are the out-of-fold rows of the system `found`."""

    run: SliceRun
    evidence: Evidence
    found: Predictions
    scored: Scored
    nets: FinalNets
    spec: SliceSpec
    backbone: FrozenBackbone

    @property
    def synthetic(self) -> bool:
        """Whether knees or weights are made."""
        told = (self.run.synthetic, self.spec.synthetic, self.backbone.synthetic, self.found.about.get("synthetic"))
        return any(bool(each) for each in told)


def export_slices(
    run: Path, system: str, out: Path, say: Say, *, weights: str | None = None, name: str | None = None,
    version: str = "0.1.0",
) -> SliceBundle:  # fmt: skip
    """Write the bundle into `out`, replacing what is there, and load it again as the service would.

    Args:
        run: folder of a run of the kind "classification" on slices.
        system: one of its systems that sees slices.
        out: the bundle's folder.
        say: told what takes time.
        weights: where the backbone's weights are, as for `genu-train embed`; None for the usual ones.
        name, version: of the model, as reports name it; the name is made from target, sequence and system otherwise.

    Raises:
        UsageError: the system cannot be exported (says which can), the weights have to be named, or `out` holds
            something else than a bundle.
        DataError: the run is unfinished, its target is served by no task, or features or weights are others.
        BundleError: weights that do not fit, or a bundle that does not replay its own probe.
    """
    check_out(out)
    source = _source(run, system, weights, say)
    sequence, target = (text.lower().replace("_", "-") for text in (source.run.sequence, source.run.target))
    called = name or f"genu-mri-{target}-{sequence}-{system.replace('_', '-')}"
    with replacing(out) as part:
        _write(source, part, called, version)
        bundle = SliceBundle.load(part, "cpu")
    return replace(bundle, manifest=replace(bundle.manifest, folder=out))


def exportable(run: Path) -> tuple[str, ...]:
    """The finished systems of a run that see slices, sorted."""
    known = read(run)
    return tuple(
        sorted(system.name for system in systems(known.target) if system.image and system.name in known.systems)
    )


def _source(folder: Path, name: str, weights: str | None, say: Say) -> _Source:
    run = read(folder)
    if str(run.target) not in TASKS:
        raise DataError(f"{folder} predicts {run.target!r}; Genu serves {', '.join(TASKS)} from knee MRI.")
    able = exportable(folder)
    if name not in able:
        why = "it is no finished system of the run"
        if name in run.systems:
            why = "it sees no slices; baselines are yardsticks and are not served"
        raise UsageError(f"--system {name}: {why}; these can be exported: {', '.join(able) or 'none'}.")
    evidence = read_evidence(folder)
    found = next((each for each in evidence.systems if each.system == name), None)
    if found is None:
        raise DataError(f"{folder} has no predictions of {name}: run `genu-train fit` again.")
    _check_follow_up(run, evidence)
    spec = SliceStore(Path(run.slices)).spec
    if spec.volume.sequence.name != run.sequence:
        raise DataError(f"{run.slices} holds {spec.volume.sequence.name}, the run is of {run.sequence}: fit it again.")
    # Weights that are not to be had end the export before anything is fitted.
    backbone = weights_again(spec, weights)
    scored = _scored(run, evidence, found)
    system: SliceSystem = next(each for each in systems(run.target) if each.name == name)
    return _Source(run, evidence, found, scored, final_nets(run, system, say), spec, backbone)


def _check_follow_up(run: SliceRun, evidence: Evidence) -> None:
    """That progression was learnt over the time that reports tell.

    Raises:
        DataError: the cohort says another one.
    """
    if TASKS[run.target] != "jsn_progression" or "followup" not in evidence.knees.columns:
        return
    found = evidence.knees["followup"].drop_nulls().unique().sort().to_list()
    if any(months != MONTHS for months in found):
        raise DataError(
            f"{run.folder} learnt progression over {', '.join(map(str, found))} months; Genu's reports say within "
            f"{MONTHS}: make the cohort with --followup {MONTHS}."
        )


def _scored(run: SliceRun, evidence: Evidence, found: Predictions) -> Scored:
    """The out-of-fold rows.

    Raises:
        DataError: they are no probabilities of the run's classes, or a label is none of them.
    """
    probabilities, truth, count = found.probabilities, evidence.truth, len(run.classes)
    if (
        probabilities is None
        or probabilities.shape[1] != count
        or not np.all((probabilities >= 0) & (probabilities <= 1))
    ):
        raise DataError(f"{found.system} of {run.folder} has no probabilities of {count} classes: fit it again.")
    if not np.isin(truth, np.arange(count)).all():
        raise DataError(
            f"{run.folder} has labels from {truth.min():g} to {truth.max():g} and {count} classes: fit it again."
        )
    return Scored(probabilities, truth.astype(np.int64), evidence.folds, np.asarray(evidence.patients, np.str_))


def _write(source: _Source, folder: Path, name: str, version: str) -> None:
    slices, clinical = probe_slices(source.spec.volume), probe_clinical(source.nets.spec.clinical).astype(np.float64)
    state, rounding = _weights(source, folder, slices, clinical)
    backbone = rebuild(source.spec.backbone, source.backbone.settings, state, folder)
    scored = source.scored
    tables = calibrate(scored)
    tensors = {f"backbone.{key}": value for key, value in state.items()} | source.nets.tensors()
    tensors |= {key: torch.from_numpy(value) for key, value in tables_of(tables).items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "weights.safetensors")
    probe = {
        "slices": torch.from_numpy(slices),
        "clinical": torch.from_numpy(clinical).float(),
        "probabilities": torch.from_numpy(_network(source, backbone).probabilities(slices, clinical)),
    }
    save_file(probe, folder / "probe.safetensors")
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "weights.safetensors", folder / "probe.safetensors")
    }
    threshold = choose_threshold(scored, tables)
    values = _values(source, name, version, files)
    values["network"]["threshold"] = None if threshold is None else threshold.value
    values["training"]["rounding"] = rounding
    values["metrics"] = {
        "threshold": None if threshold is None else threshold.to_json(),
        "interval": interval_figures(scored, source.evidence.knees),
        "system": _figures(source),
    }
    (folder / "bundle.json").write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    facts = SliceCardFacts(values, source.run, source.found, figures_of(source.evidence))
    (folder / "MODEL_CARD.md").write_text(slice_card(facts), encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)


def _values(source: _Source, name: str, version: str, files: Mapping[str, str]) -> dict[str, Any]:
    """The contents of bundle.json but for the threshold and the figures."""
    spec, nets, run = source.spec, source.nets, source.run
    return {
        "format": FORMAT,
        "name": name,
        "version": version,
        "task": TASKS[run.target],
        "target": run.target,
        "classes": list(run.classes),
        "synthetic": source.synthetic,
        "backbone": {
            "name": spec.backbone,
            "weights": spec.weights,
            "weights_sha256": spec.weights_digest,
            "settings": dict(source.backbone.settings),
            "input": spec.input.to_json(),
            "precision": "float32",
        },
        "volume": spec.volume.to_json(),
        "network": {
            "spec": nets.spec.to_json(),
            "count": len(nets.model.nets),
            "temperature": nets.model.temperature,
        },
        "calibration": {
            "method": METHOD,
            "patients": len(np.unique(source.scored.patients)),
            "rows": len(source.found),
        },
        "files": dict(files),
        "probe": {"tolerance": PROBE_TOLERANCE},
        "terms": {
            "licence": spec.licence,
            "deployed_use": spec.deployed_use,
            "note": entry(spec.backbone).terms.note,
        },
        "training": {
            "system": source.found.system,
            "target": run.target,
            "sequence": run.sequence,
            "rows": nets.rows,
            "patients": nets.patients,
            "folds": run.folds,
            "seed": run.seed,
            "chosen": dict(nets.chosen),
            "fitting": dict(run.fitting),
            "data": origin_of(run.cohort, run.cohort_sha256).to_json(),
            "cohort_sha256": run.cohort_sha256,
            "slices_sha256": run.slices_digest,
            "left_out": dict(run.left_out),
        },
    }


def _figures(source: _Source) -> Mapping[str, Any]:
    rows = figures_of(source.evidence)["systems"]
    return next(dict(row) for row in rows if row["system"] == source.found.system)


def _network(source: _Source, backbone: FrozenBackbone) -> SliceNetwork:
    model = source.nets.model
    return SliceNetwork(backbone, model.nets, model.offsets, model.temperature)


def _weights(
    source: _Source, folder: Path, slices: np.ndarray[Any, Any], clinical: np.ndarray[Any, Any]
) -> tuple[dict[str, torch.Tensor], float]:
    """The backbone's weights in half precision, and by how much at most that changes a probability of the probe.

    In single precision, and 0, where it would change one by more than `ROUNDED`.
    """
    whole = weights_of(source.backbone)
    half = {name: value.half() if value.is_floating_point() else value for name, value in whole.items()}
    settings = source.backbone.settings
    before, after = (
        _network(source, rebuild(source.spec.backbone, settings, state, folder)).probabilities(slices, clinical)
        for state in (whole, half)
    )
    change = float(np.abs(after - before).max())
    return (half, change) if change <= ROUNDED else (whole, 0.0)
