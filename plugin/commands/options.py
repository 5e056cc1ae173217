"""Options that several commands share, and how they become settings."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.errors import ConfigurationError
from plugin.settings import HttpEndpoint, Settings, StowDestination, load, loads

_AE_ADDRESS = re.compile(r"(?P<ae_title>[^@]{1,16})@(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:@\[\]\s]+):(?P<port>[0-9]{1,5})")


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """--config and --data-dir, which every command that meets the service takes."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file (.toml, or .json with a Genu section)"
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="received instances, queue and results")


def add_child_options(parser: argparse.ArgumentParser) -> None:
    """The settings options, and what `genu listen` hands to its children."""
    add_settings_options(parser)
    parser.add_argument(
        "--config-stdin", action="store_true", help="all settings as JSON on standard input, from a parent process"
    )
    parser.add_argument("--name", help="a name that no other worker or deliverer of this queue has")
    parser.add_argument("--parent", type=int, metavar="PID", help="stop when this process is gone")


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings that a command runs with: file, environment, then the options given. Raises ConfigurationError."""
    if getattr(arguments, "config_stdin", False):
        return loads(sys.stdin.read())
    given = vars(arguments)
    overrides: dict[str, Any] = {}
    for option, path in (
        ("data_dir", ("data_dir",)),
        ("host", ("listener", "host")),
        ("port", ("listener", "port")),
        ("ae_title", ("listener", "ae_title")),
        ("workers", ("workers", "count")),
        ("quiet", ("completeness", "quiet_seconds")),
        ("bundle", ("bundles",)),
        ("orthanc", ("orthanc", "url")),
        ("dicomweb", ("dicomweb", "url")),
    ):
        if given.get(option) is not None:
            _put(overrides, path, given[option])
    roots = given.get("to_dicomweb") or ()
    destinations = _destinations(given.get("to_folder") or (), given.get("to_ae") or (), roots)
    if destinations:
        overrides["destinations"] = destinations
    settings = load(given.get("config"), overrides)
    return _with_credentials(settings) if roots else settings


def parse_ae_address(text: str) -> dict[str, Any]:
    """ "AE@host:port" (an IPv6 host in brackets) as a dictionary. Raises ConfigurationError."""
    match = _AE_ADDRESS.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"--to-ae {text!r}: write it as AE@host:port, for example PACS@127.0.0.1:104")
    return {
        "ae_title": match["ae_title"],
        "host": match["host"].strip("[]"),
        "port": int(match["port"]),
    }


def _put(target: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        target = target.setdefault(key, {})
    target[path[-1]] = value


def _with_credentials(settings: Settings) -> Settings:
    """To the server of the section `dicomweb` results go by what stands there; another one is not told who we are."""
    known = settings.dicomweb
    if known is None:
        return settings
    shared = {name: getattr(known, name) for name in HttpEndpoint.model_fields}
    destinations = tuple(
        StowDestination(name=target.name, **shared)
        if isinstance(target, StowDestination) and target.url == known.url
        else target
        for target in settings.destinations
    )
    return settings.model_copy(update={"destinations": destinations})


def _destinations(folders: Sequence[Path], addresses: Sequence[str], roots: Sequence[str]) -> list[dict[str, Any]]:
    """Destinations from the command line; they take the place of those in the settings file."""
    found: list[dict[str, Any]] = [{"kind": "folder", "name": "folder", "path": folder} for folder in folders]
    found += [{"kind": "cstore", "name": "pacs", **parse_ae_address(text)} for text in addresses]
    found += [{"kind": "stow", "name": "dicomweb", "url": url} for url in roots]
    # Names are unique, and stay the same from start to start: the queue remembers what is still owed to each.
    for name in ("folder", "pacs", "dicomweb"):
        same = [destination for destination in found if destination["name"] == name]
        for number, destination in enumerate(same[1:], start=2):
            destination["name"] = f"{name}-{number}"
    return found
