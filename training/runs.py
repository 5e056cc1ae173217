"""A run's folder: what it was made from, its data by split, and its networks."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.errors import DataError
from inference.heads import KLGrader
from training import checkpoints
from training.config import MemberConfig, RunConfig, read_config
from training.crops import CropSet, load_crops, read_label_table
from training.halves import rounded
from training.index import read_index
from training.splits import check_disjoint, held_back

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Run:
    """Paths that a run was made from; kept as run.json in its folder, beside a copy of the configuration."""

    folder: Path
    export: Path
    index: Path
    labels: Path
    initial_weights: tuple[Path, ...]

    @property
    def config(self) -> RunConfig:
        """The run's own copy of its configuration."""
        return read_config(self.folder / "config.toml")


def create(run: Run, config: Path) -> None:
    """Make the folder, or check that it belongs to the same inputs and configuration.

    Raises:
        DataError: the folder holds another run.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    kept, text = run.folder / "config.toml", config.read_text("utf-8")
    if kept.exists() and kept.read_text("utf-8") != text:
        raise DataError(f"{run.folder} holds a run with another configuration: name another folder with --run.")
    shutil.copyfile(config, kept)
    values: dict[str, Any] = {name: str(getattr(run, name)) for name in ("export", "index", "labels")}
    values["initial_weights"] = [str(path) for path in run.initial_weights]
    (run.folder / "run.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        DataError: there is none.
    """
    path = folder / "run.json"
    if not path.exists():
        raise DataError(f"{folder} holds no run: make one with `genu-train fit --run {folder}`.")
    values = json.loads(path.read_text("utf-8"))
    export, index, labels = (Path(values[name]) for name in ("export", "index", "labels"))
    initial = values["initial_weights"] or []
    # Older runs had one file at most.
    return Run(folder, export, index, labels, tuple(map(Path, [initial] if isinstance(initial, str) else initial)))


def data(run: Run, progress: Progress | None = None) -> dict[str, CropSet]:
    """Crops by split; `train` comes as "fit" and the held-back patients' "tune".

    Raises:
        DataError: there is no split "train", or a patient is in two parts.
    """
    index, labels = read_index(run.index), read_label_table(run.labels)
    parts = load_crops(run.export, index, labels, run.folder, progress=progress)
    if "train" not in parts:
        raise DataError(f"{run.labels} has the splits {', '.join(sorted(parts))}; one must be called train.")
    train = parts.pop("train")
    mask = held_back(train.subjects, run.config.tune_fraction)
    parts |= {"tune": train.where(mask), "fit": train.where([not held for held in mask])}
    check_disjoint(**{name: part.subjects for name, part in parts.items()})
    return parts


def networks(run: Run) -> list[tuple[MemberConfig, KLGrader]]:
    """The averaged weights of every member that ships, rounded as a bundle stores them.

    Raises:
        DataError: a member has not been fitted to its last epoch.
    """
    found = []
    for member in (member for member in run.config.members if member.ships):
        average = KLGrader(member.backbone)
        epoch = checkpoints.load_average(run.folder / member.name, average)
        if epoch < member.epochs:
            raise DataError(
                f"{member.name!r} of {run.folder} is at epoch {epoch} of {member.epochs}: run `genu-train fit` again, "
                "it goes on where it stopped."
            )
        found.append((member, rounded(average).to(memory_format=torch.channels_last)))  # type: ignore[call-overload]
    return found


def read_metrics(run: Run) -> dict[str, Any]:
    """What `genu-train evaluate` found.

    Raises:
        DataError: the run was not evaluated.
    """
    path = run.folder / "metrics.json"
    if not path.exists():
        raise DataError(f"{run.folder} was not evaluated: run `genu-train evaluate --run {run.folder}` first.")
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return values
