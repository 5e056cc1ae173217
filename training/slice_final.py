"""Networks on slices fitted on all rows of a run: RUN/systems/NAME/final, made by the first export and kept.

`final.json` says what they were fitted on and what was chosen, `nets.safetensors` holds net0.*, net1.* ... and offsets.
The same inputs are not fitted again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from inference.errors import BundleError, DataError
from inference.slice_nets import SliceNet, SliceNetSpec
from training.slice_fit import SliceFitConfig, SliceModel, fit_slices
from training.slice_run import Say, SliceRun, samples_of
from training.slice_systems import SliceSystem

FINAL, JSON, TENSORS = "final", "final.json", "nets.safetensors"
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class FinalNets:
    """Fitted networks of one shape, the rows and patients that they learnt from, and what was chosen, for people."""

    spec: SliceNetSpec
    model: SliceModel
    rows: int
    patients: int
    chosen: Mapping[str, Any]

    def tensors(self) -> dict[str, torch.Tensor]:
        """net0.*, net1.*, ... and offsets: single precision, contiguous."""
        found = {"offsets": self.model.offsets.detach().float().contiguous()}
        for number, net in enumerate(self.model.nets):
            found |= {f"net{number}.{name}": value.detach().contiguous() for name, value in net.state_dict().items()}
        return found


def final_nets(run: SliceRun, system: SliceSystem, say: Say) -> FinalNets:
    """The networks of a system on all rows, with the run's configuration: those that are kept, or fitted and kept now.

    Args:
        run: finished for `system`, which sees slices.
        say: told when it has to be fitted.

    Raises:
        DataError: the features are not those that the run was made with.
    """
    knees = run.knees()
    samples, labels = samples_of(run, knees), knees["truth"].to_numpy().astype(np.int64)
    columns = samples.columns(system.clinical)
    said = [_FORMAT, asdict(system), run.slices_digest, run.fitting, run.bidirectional, run.seed, len(run.classes)]
    inputs = hashlib.sha256(json.dumps([*said, samples.patients.tolist()], sort_keys=True).encode())
    for values in (labels, columns):
        inputs.update(np.ascontiguousarray(values).tobytes())
    folder = run.folder / "systems" / system.name / FINAL
    there = _read(folder, inputs.hexdigest())
    if there is not None:
        return there
    say(f"{system.name}: fitting on all {len(labels)} rows")
    spec = SliceNetSpec(
        features=samples.slices.shape[2], bidirectional=run.bidirectional, clinical=system.clinical,
        classes=len(run.classes),
    )  # fmt: skip
    config = SliceFitConfig(**run.fitting)
    model = fit_slices(samples.slices, columns, labels, samples.patients.tolist(), spec, config, run.seed)
    chosen = {"best epochs": list(model.epochs), "temperature": model.temperature}
    found = FinalNets(spec, model, len(labels), len(np.unique(samples.patients)), chosen)
    _write(folder, found, inputs.hexdigest())
    return found


def _write(folder: Path, found: FinalNets, inputs: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON).unlink(missing_ok=True)  # with it the folder is finished
    save_file(found.tensors(), folder / TENSORS)
    values = {
        "format": _FORMAT, "inputs": inputs, "spec": found.spec.to_json(), "count": len(found.model.nets),
        "temperature": found.model.temperature, "epochs": list(found.model.epochs), "rows": found.rows,
        "patients": found.patients, "chosen": dict(found.chosen),
    }  # fmt: skip
    (folder / JSON).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _read(folder: Path, inputs: str) -> FinalNets | None:
    """None where there are none of the same inputs."""
    if not (folder / JSON).is_file():
        return None
    try:
        values = json.loads((folder / JSON).read_text("utf-8"))
        if values["inputs"] != inputs:
            return None
        spec, state = SliceNetSpec.from_json(values["spec"]), load_file(folder / TENSORS)
        nets = []
        for number in range(values["count"]):
            net, prefix = SliceNet(spec), f"net{number}."
            net.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
            nets.append(net.eval().requires_grad_(False))
        model = SliceModel(tuple(nets), state["offsets"], values["temperature"], None, tuple(values["epochs"]))
        return FinalNets(spec, model, values["rows"], values["patients"], values["chosen"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, BundleError) as error:
        raise DataError(f"{folder} cannot be read ({error}): delete it, and export again.") from error
