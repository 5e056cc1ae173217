"""A run's folder: what it was made from, its data by split, and its networks."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.errors import DataError
from inference.heads import KLGrader
from training import checkpoints
from training.config import MemberConfig, RunConfig, first_difference, read_config
from training.crops import CropSet, load_crops
from training.halves import rounded
from training.index import read_index
from training.labels import read_label_table
from training.provenance import Provenance, applies, file_digest, index_digest, is_made
from training.splits import check_disjoint, held_back

Progress = Callable[[int, int], None]
_PARTS = ("fit", "tune")  # of "train"
_INDEX = ("SOPInstanceUID", "path", "size", "mtime_ns", "Rows", "Columns", "Manufacturer")
_NAMES = {"labels": "labels", "index": "an index", "initial_weights": "initial weights"}


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
    """Make the folder, or check that it belongs to the same inputs and to a configuration of the same weights.

    run.json keeps the SHA-256 of labels, index and initial weights. A run of before these were kept is taken to be the
    same where its paths are.

    Raises:
        DataError: the folder holds another run: says what differs.
    """
    new, digests = read_config(config), _digests(run)
    if (run.folder / "run.json").exists():
        _check_inputs(run, digests)
    kept = run.folder / "config.toml"
    if kept.exists():
        _check_config(run.folder, read_config(kept), new)
    run.folder.mkdir(parents=True, exist_ok=True)
    _write(kept, config.read_text("utf-8"))
    values: dict[str, Any] = {name: str(getattr(run, name)) for name in ("export", "index", "labels")}
    values["initial_weights"] = [str(path) for path in run.initial_weights]
    values["sha256"] = digests
    _write(run.folder / "run.json", json.dumps(values, indent=2) + "\n")


def read(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        DataError: there is none.
    """
    values = _kept(folder)
    export, index, labels = (Path(values[name]) for name in ("export", "index", "labels"))
    return Run(folder, export, index, labels, _weights(values))


def data(run: Run, progress: Progress | None = None) -> dict[str, CropSet]:
    """Crops by split; `train` comes as "fit" and the held-back patients' "tune".

    Raises:
        DataError: labels or index are others than those that the run was made from, there is no split "train", a split
            has the name of a part, or a patient is in two parts.
    """
    labels, index = read_label_table(run.labels), read_index(run.index, _INDEX)
    kept = _kept(run.folder).get("sha256")
    if kept is not None:
        now = {"labels": file_digest(run.labels), "index": index_digest(index, labels)}
        _compare(run, {name: kept[name] for name in now}, now)
    splits = {label.split for label in labels}
    if "train" not in splits or splits & set(_PARTS):
        raise DataError(
            f"{run.labels} has the splits {', '.join(sorted(splits))}; one must be called train, and none "
            f"{' or '.join(_PARTS)}: these are the parts of train."
        )
    parts = load_crops(run.export, index, labels, run.folder, progress=progress)
    if "train" not in parts:
        raise DataError(f"no knee of the split train of {run.labels} can be used: see left_out.csv in {run.folder}.")
    train = parts.pop("train")
    mask = held_back(train.subjects, run.config.tune_fraction)
    parts |= {"tune": train.where(mask), "fit": train.where([not held for held in mask])}
    check_disjoint(**{name: part.subjects for name, part in parts.items()})
    return parts


def provenance(run: Run) -> Provenance:
    """Where the run comes from.

    Raises:
        DataError: labels, index or initial weights cannot be read.
    """
    labels, index = read_label_table(run.labels), read_index(run.index, _INDEX)
    # The files of weights need not be there any more.
    digests = _kept(run.folder).get("sha256") or _digests(run)
    about = applies(run.config.data, digests["labels"])
    return Provenance(
        about=about,
        synthetic=(about is not None and about.synthetic) or is_made(run.index, run.labels, index, labels),
        initial=[
            (path.name, digest) for path, digest in zip(run.initial_weights, digests["initial_weights"], strict=True)
        ],
    )


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


def _digests(run: Run) -> dict[str, Any]:
    """SHA-256 of what decides the weights besides the configuration."""
    labels = read_label_table(run.labels)
    return {
        "labels": file_digest(run.labels),
        "index": index_digest(read_index(run.index, _INDEX), labels),
        "initial_weights": [file_digest(path) for path in run.initial_weights],
    }


def _check_inputs(run: Run, digests: dict[str, Any]) -> None:
    values = _kept(run.folder)
    if "kind" in values:
        raise DataError(f"{run.folder} holds a cross-validated run: name another folder with --run.")
    if (known := values.get("sha256")) is not None:
        _compare(run, known, digests)
        return
    before = read(run.folder)
    for name in ("export", "index", "labels", "initial_weights"):
        old, new = getattr(before, name), getattr(run, name)
        if _resolved(old) != _resolved(new):
            raise DataError(
                f"{run.folder} holds a run with another {name} ({_shown(old)}, now {_shown(new)}) and no hashes to "
                "compare them by: name another folder with --run, or the same path."
            )


def _compare(run: Run, kept: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if kept[name] != value:
            raise DataError(
                f"{run.folder} holds a run made with {_NAMES[name]} other than {_shown(getattr(run, name))} (SHA-256 "
                f"{_short(kept[name])}, now {_short(value)}): name another folder with --run, or put back what it was "
                "made from."
            )


def _check_config(folder: Path, kept: RunConfig, new: RunConfig) -> None:
    if (difference := first_difference(kept, new)) is not None:
        raise DataError(
            f"{folder} holds a run with another configuration: {difference}. Name another folder with --run."
        )
    for member in new.members[len(kept.members) :]:
        if (folder / member.name).exists():
            raise DataError(
                f"{folder} holds a network {member.name!r} that its configuration did not have: name another folder "
                "with --run."
            )


def _kept(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.exists():
        raise DataError(f"{folder} holds no run: make one with `genu-train fit --run {folder}`.")
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return values


def _weights(values: dict[str, Any]) -> tuple[Path, ...]:
    initial = values["initial_weights"] or []
    # Older runs had one file at most.
    return tuple(map(Path, [initial] if isinstance(initial, str) else initial))


def _resolved(paths: Path | tuple[Path, ...]) -> list[Path]:
    return [path.resolve() for path in ((paths,) if isinstance(paths, Path) else paths)]


def _shown(paths: Path | tuple[Path, ...]) -> str:
    return str(paths) if isinstance(paths, Path) else ", ".join(map(str, paths)) or "none"


def _short(digest: str | list[str]) -> str:
    return digest[:12] if isinstance(digest, str) else ", ".join(value[:12] for value in digest) or "none"


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
