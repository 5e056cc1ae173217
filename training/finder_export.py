"""Writes the knee finder's files: half-precision weights, a stored probe, finder.json. `genu-train finder`."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from inference.errors import DataError
from inference.finder import SIZE, Finder, FinderNet, Thresholds, prepared
from training.finder_fit import FinderConfig
from training.halves import rounded, stored
from training.schematic import Schematic, schematic_knee

LARGEST = 5_000_000  # bytes of all files
TOLERANCE = 0.15  # of logits and distances in the probe
FORMAT = 1


def write_finder(
    net: FinderNet, thresholds: Thresholds, metrics: Mapping[str, Any], config: FinderConfig, out: Path
) -> Finder:
    """Write the files into `out`, replacing what is there, and load them again as the service would.

    Raises:
        DataError: the files are larger than LARGEST.
        BundleError: what was written does not replay its own probe.
    """
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    net = rounded(net)
    save_file(stored(net), part / "weights.safetensors")
    squares = probe_squares().half()
    with torch.inference_mode():
        answers = net(squares.float())
    save_file({"squares": squares.contiguous(), "answers": answers.contiguous()}, part / "probe.safetensors")
    names = ("weights.safetensors", "probe.safetensors")
    values = {
        "format": FORMAT,
        "thresholds": {name: round(value, 4) for name, value in asdict(thresholds).items()},
        "files": {name: hashlib.sha256((part / name).read_bytes()).hexdigest() for name in names},
        "tolerance": TOLERANCE,
        "metrics": dict(metrics),
        "training": {
            **asdict(config),
            "data": "Chen, Knee Osteoarthritis Severity Grading Dataset, DOI 10.17632/56rmx5bjcr.1, CC BY 4.0",
            "licence": "Apache-2.0",
        },
    }
    (part / "finder.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    for path in part.iterdir():
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in part.iterdir())
    if size > LARGEST:
        raise DataError(f"the knee finder has {size} bytes, at most {LARGEST} are allowed.")
    finder = Finder.load(part)
    shutil.rmtree(out, ignore_errors=True)
    part.replace(out)
    return finder


def probe_squares() -> torch.Tensor:
    """Two drawn films, no patient's, as the network takes them: (2, 3, SIZE, SIZE)."""
    films = [schematic_knee(SIZE, SIZE, np.random.default_rng(seed), Schematic(noise=0.0)) for seed in (0, 1)]
    films[1] = np.ascontiguousarray(films[1][:, ::-1] * np.linspace(0.4, 1, SIZE, dtype=np.float32))
    return torch.from_numpy(np.stack([prepared(film) for film in films]))
