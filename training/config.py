"""What a training run is made of, read from TOML; `training/kl.toml` is the one of the bundle that ships."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inference.errors import DataError
from inference.findings import Side
from inference.manifest import DECODERS
from inference.preprocess import PreprocessSpec
from training.augment import AugmentConfig


@dataclass(frozen=True)
class MemberConfig:
    """One network of the ensemble.

    `start` names an earlier member of the same backbone whose weights it starts from, in place of ImageNet's.
    `teachers` are earlier members: half of the loss is towards their mean answer to the crop without augmentation.
    One that only others start or learn from has `ships = false` and is in no bundle.
    """

    name: str
    backbone: str
    spec: PreprocessSpec
    epochs: int
    batch_size: int = 16
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    averaging: float = 0.998
    seed: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    start: str = ""
    teachers: tuple[str, ...] = ()
    ships: bool = True


@dataclass(frozen=True)
class DataAbout:
    """What the model card is to say of the knees; what is empty, it says it was not told.

    title: name, author and place. licence: of the data. description: what the data are.
    population: whose knees they are, such as "OAI". notes: what else of the population has to be known.
    grades: whose the grades are, an adjective. contrast: what has to be known of the films' contrast.
    bundle_licence: of the bundle that is made. synthetic: no patient's knees.
    test_seen: what of the method was chosen with figures of these test knees in view.
    labels_sha256: of the labels.csv that this is about; the section says nothing of other ones. Empty for any.
    """

    title: str = ""
    licence: str = ""
    description: str = ""
    population: str = ""
    notes: str = ""
    grades: str = "labelled"
    contrast: str = ""
    bundle_licence: str = ""
    test_seen: str = ""
    synthetic: bool = False
    labels_sha256: str = ""


@dataclass(frozen=True)
class RunConfig:
    """A whole run: the members, and how much of `train` is held back (by subject) for calibration.

    `data` is None where the file has no such section. `decoder` makes a grade of five probabilities: "median" (least
    expected absolute error), "argmax", or "expected" (the rounded mean).
    """

    name: str
    version: str
    members: tuple[MemberConfig, ...]
    tune_fraction: float = 0.1
    decoder: str = "median"
    data: DataAbout | None = None


def read_config(path: Path) -> RunConfig:
    """Read a run's TOML file.

    Raises:
        DataError: the file is missing, is not TOML, or has an unknown or missing key.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the configuration {path}: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not valid TOML: {error}.") from error
    try:
        members = tuple(member_of(member) for member in values.pop("member"))
        about = values.pop("data", None)
        config = RunConfig(members=members, data=None if about is None else _about(about), **values)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}; compare with training/kl.toml.") from error
    for position, member in enumerate(members):
        before = [other.name for other in members[:position]]
        if missing := {member.start, *member.teachers} - {"", *before}:
            raise DataError(
                f"{path}: {member.name!r} builds on {', '.join(sorted(missing))}, which must stand before it."
            )
    if config.decoder not in DECODERS:
        raise DataError(f"{path}: decoder is {config.decoder!r}; it must be one of {', '.join(DECODERS)}.")
    return config


def first_difference(kept: RunConfig, new: RunConfig) -> str | None:
    """The first value that decides weights and is another one in `new`; None where there is none.

    Name, version, decoder, `ships` and [data] decide no weights, and members may be added behind the others.
    """
    if kept.tune_fraction != new.tune_fraction:
        return f"tune_fraction is {new.tune_fraction!r}, in the run it is {kept.tune_fraction!r}"
    for position, mine in enumerate(kept.members):
        if position == len(new.members):
            return f"the member {mine.name!r} is missing"
        other = new.members[position]
        given = dict(_deciding(other))
        for name, value in _deciding(mine):
            if given[name] != value:
                return f"{name} of the member {mine.name!r} is {given[name]!r}, in the run it is {value!r}"
    return None


def _deciding(member: MemberConfig) -> Iterator[tuple[str, Any]]:
    """All that decides a network's weights, by name."""
    for name, value in asdict(member).items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", part) for key, part in value.items())
        elif name != "ships":
            yield name, value


def _about(values: Mapping[str, Any]) -> DataAbout:
    """Raises TypeError: a key is unknown, or a value is of another type."""
    for name, value in values.items():
        wanted = bool if name == "synthetic" else str
        if not isinstance(value, wanted):
            raise TypeError(
                f"{name} of [data] is {value!r}; it must be {'true or false' if wanted is bool else 'text'}"
            )
    stripped: dict[str, Any] = {
        name: value.strip() if isinstance(value, str) else value for name, value in values.items()
    }
    return DataAbout(**stripped)


def member_of(values: Mapping[str, Any]) -> MemberConfig:
    """A network from its table of a TOML file.

    Raises:
        KeyError, TypeError, ValueError: a key is missing or unknown, or a value cannot be.
    """
    spec = dict(values["spec"])
    spec = {name: tuple(value) if isinstance(value, list) else value for name, value in spec.items()}
    if "canonical_side" in spec:
        spec["canonical_side"] = Side(spec["canonical_side"])
    rest = {name: value for name, value in values.items() if name not in ("spec", "augment")}
    rest["teachers"] = tuple(rest.get("teachers", ()))
    return MemberConfig(spec=PreprocessSpec(**spec), augment=AugmentConfig(**values.get("augment", {})), **rest)
