"""Published figures that a report shows beside its own, from published.toml."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.errors import DataError

SHIPPED = Path(__file__).parent / "published.toml"


@dataclass(frozen=True)
class Published:
    """One row of figures from elsewhere. figures: lowest and highest by the figure's name (equal for one number)."""

    name: str
    figures: Mapping[str, tuple[float, float]]
    data: str
    citation: str
    knees: int | None = None
    patients: int | None = None
    note: str = ""


def published_for(about: Mapping[str, Any], path: Path = SHIPPED) -> list[Published]:
    """The entries for a run's kind and target, and its sequence where an entry names one, in the file's order.

    Args:
        about: run.json.
        path: the TOML file.

    Raises:
        DataError: an entry lacks something or has a figure that is neither a number nor [lowest, highest].
    """
    entries = tomllib.loads(path.read_text("utf-8"))["entry"]
    wanted = (about.get("kind"), about.get("target"))
    shown = [entry for entry in entries if (entry.get("kind"), entry.get("target")) == wanted]
    return [_entry(one, path) for one in shown if one.get("sequence") in (None, about.get("sequence"))]


def _entry(entry: Mapping[str, Any], path: Path) -> Published:
    try:
        figures = {name: _range(value) for name, value in entry["figures"].items()}
        return Published(
            entry["name"], figures, entry["data"], entry["citation"], entry.get("knees"), entry.get("patients"),
            entry.get("note", ""),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: the entry {entry.get('name')!r} is not complete or has odd figures ({error})."
        ) from error


def _range(value: Any) -> tuple[float, float]:
    low, high = value if isinstance(value, list) else (value, value)
    return float(low), float(high)
