"""What a run was fitted with: the commands, and the versions of what decides numbers."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

PACKAGES: Final = ("genu", "numpy", "scipy", "scikit-learn", "polars", "torch", "timm", "matplotlib")
Fit = Mapping[str, Any]


def installed() -> dict[str, str]:
    """Python and those of PACKAGES that are here, by version."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def added(fits: Sequence[Fit], command: Sequence[str]) -> tuple[Fit, ...]:
    """One more fit by this command with what is installed; the same once more is no other."""
    one = {"command": list(command), "versions": installed()}
    return (*fits, *([] if fits and dict(fits[-1]) == one else [one]))


def commands(about: Mapping[str, Any]) -> list[list[str]]:
    """The words of each command that fitted a run, from its run.json; none where it says none."""
    found: list[list[str]] = []
    for fit in _fits(about):
        words = fit.get("command")
        if isinstance(words, list) and words and (command := list(map(str, words))) not in found:
            found.append(command)
    return found


def versions(about: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The different sets of versions that a run was fitted with, in their order."""
    found: list[Mapping[str, Any]] = []
    for fit in _fits(about):
        told = fit.get("versions")
        if isinstance(told, Mapping) and told and told not in found:
            found.append(told)
    return found


def _fits(about: Mapping[str, Any]) -> list[Fit]:
    """Of run.json: "fits", a list of {"command", "versions"}, or the two by themselves."""
    fits = about.get("fits", [about])
    return [fit for fit in fits if isinstance(fit, Mapping)] if isinstance(fits, list | tuple) else []
