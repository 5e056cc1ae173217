"""The hyperparameters that `genu-train search` compares, read from TOML; `training/kl_search.toml` is the grader's.

A `[[member]]` is as in training/kl.toml and is the reference; its table `vary` lists other values, each of which makes
a candidate that differs from the reference in that one (with `grid = true`, every combination makes one). Keys of
tables within are written with a dot: `"augment.p_flip" = [0.5]`.
"""

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.backbones import BACKBONES
from inference.errors import DataError
from inference.manifest import DECODERS
from training.config import MemberConfig, member_of

_FIXED = ("name", "start", "teachers", "ships")


@dataclass(frozen=True)
class Candidate:
    """One set of hyperparameters.

    name: of the member, and what was changed; good as a folder's name.
    member: the `[[member]]` that it belongs to; the reference is the candidate of that name.
    changed: what differs from the reference, for people; empty for the reference.
    """

    name: str
    member: str
    config: MemberConfig
    changed: str = ""

    @property
    def is_reference(self) -> bool:
        """Whether the others of its member are compared with this one."""
        return self.name == self.member


@dataclass(frozen=True)
class Halving:
    """All candidates are fitted on the first `folds` folds; the references and the best `keep` others go on."""

    folds: int
    keep: int


@dataclass(frozen=True)
class Space:
    """What is compared, and how.

    candidates: references first of their members.
    folds: of the cross-validation.
    seed: of the folds.
    share: of the patients of `train` that take part, 0..1.
    decoder: how probabilities become a grade, one of `inference.manifest.DECODERS`.
    halving: None fits every candidate on every fold.
    """

    candidates: tuple[Candidate, ...]
    folds: int = 3
    seed: int = 0
    share: float = 1.0
    decoder: str = "median"
    halving: Halving | None = None

    def members(self) -> dict[str, tuple[Candidate, ...]]:
        """Candidates by member, the reference first."""
        groups: dict[str, tuple[Candidate, ...]] = {}
        for candidate in self.candidates:
            groups[candidate.member] = (*groups.get(candidate.member, ()), candidate)
        return groups

    def only(self, names: Sequence[str]) -> tuple[Candidate, ...]:
        """The candidates of these names, or of members of these names, and their references; all for no names.

        Raises:
            DataError: there is none of a name.
        """
        known = {candidate.name for candidate in self.candidates}
        if unknown := [name for name in names if name not in known]:
            raise DataError(f"there is no candidate {', '.join(unknown)}; there are {', '.join(sorted(known))}.")
        wanted = {candidate.member for candidate in self.candidates if candidate.name in names}
        return tuple(
            candidate
            for candidate in self.candidates
            if not names
            or candidate.name in names
            or candidate.member in names
            or (candidate.is_reference and candidate.member in wanted)
        )


def read_space(path: Path, folds: int | None = None) -> Space:
    """Read the candidates from a TOML file.

    Args:
        path: the file.
        folds: in place of the file's number of folds.

    Raises:
        DataError: the file is missing, is not TOML, has an unknown or missing key, or a value cannot be.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the hyperparameters {path}: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not valid TOML: {error}.") from error
    if folds is not None:
        values["folds"] = folds
    try:
        candidates = tuple(c for member in values.pop("member") for c in _candidates(member))
        halving = values.pop("halving", None)
        space = Space(candidates, halving=None if halving is None else Halving(**halving), **values)
        _check(space)
    except (KeyError, TypeError, ValueError) as error:
        said = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path}: {said}; compare with training/kl_search.toml.") from error
    return space


def _candidates(values: Mapping[str, Any]) -> Iterator[Candidate]:
    vary, grid = dict(values.get("vary", {})), values.get("grid", False)
    plain = {name: value for name, value in values.items() if name not in ("vary", "grid")}
    if building := [name for name in ("start", "teachers") if plain.get(name)]:
        raise ValueError(
            f"{plain['name']!r} has {' and '.join(building)}: networks that saw other folds are no start for a fold"
        )
    for key, others in vary.items():
        if not isinstance(others, list) or not others or key.partition(".")[0] in _FIXED:
            raise ValueError(f"vary.{key} is {others!r}: it must be a list of values of a hyperparameter")
    name = str(plain["name"])
    yield Candidate(name, name, member_of(plain))
    for changes in _changes(vary, grid=bool(grid)):
        said = ", ".join(f"{key} {_said(value, vary[key])}" for key, value in changes.items())
        changed = dict(plain)
        for key, value in changes.items():
            changed = _with(changed, key.split("."), value)
        yield Candidate(f"{name}-{re.sub(r'[^A-Za-z0-9_.]+', '-', said)}", name, member_of(changed), said)


def _changes(vary: Mapping[str, list[Any]], *, grid: bool) -> Iterator[dict[str, Any]]:
    """What each candidate but the reference has in place of the reference's values."""
    if not grid:
        yield from ({key: value} for key, values in vary.items() for value in values)
        return
    unchanged = object()
    for chosen in itertools.product(*([unchanged, *values] for values in vary.values())):
        changes = {key: value for key, value in zip(vary, chosen, strict=True) if value is not unchanged}
        if changes:
            yield changes


def _with(values: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of a table with one value set, in tables within where there is more than one key."""
    first, *rest = keys
    return {**values, first: _with(values.get(first, {}), rest, value) if rest else value}


def _said(value: Any, among: Sequence[Any]) -> str:
    """A value in a name: a table by its place in the list, a list with "x" between."""
    if isinstance(value, dict):
        return f"no. {among.index(value) + 1}"
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def _check(space: Space) -> None:
    names = [candidate.name for candidate in space.candidates]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{', '.join(sorted(twice))} stands there twice")
    if not names:
        raise ValueError("there is no [[member]]")
    for candidate in space.candidates:
        _check_config(candidate.name, candidate.config)
    if type(space.folds) is not int or space.folds < 2 or type(space.seed) is not int or space.seed < 0:
        raise ValueError(f"folds is {space.folds!r} and seed {space.seed!r}: whole numbers from 2 and from 0")
    if not 0 < space.share <= 1:
        raise ValueError(f"share is {space.share!r}: it must be above 0 and at most 1")
    if space.decoder not in DECODERS:
        raise ValueError(f"decoder is {space.decoder!r}; it must be one of {', '.join(DECODERS)}")
    halving = space.halving
    if halving is not None and not (0 < halving.folds < space.folds and halving.keep >= 1):
        raise ValueError(f"halving is {halving}: at least 1 fold, fewer than {space.folds}, and 1 or more are kept")


def _check_config(name: str, config: MemberConfig) -> None:
    if config.backbone not in BACKBONES:
        raise ValueError(f"{name!r} has the backbone {config.backbone!r}; known are {', '.join(sorted(BACKBONES))}")
    if not all(type(value) is int and value > 0 for value in (config.epochs, config.batch_size)):
        raise ValueError(f"{name!r} has epochs {config.epochs!r}, batch_size {config.batch_size!r}: whole, 1 or more")
    if not (config.learning_rate > 0 and config.weight_decay >= 0):
        raise ValueError(f"{name!r} has learning_rate {config.learning_rate!r}, weight_decay {config.weight_decay!r}")
