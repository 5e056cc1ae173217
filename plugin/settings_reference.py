"""docs/settings.md, made from the settings model: `python -m plugin.settings_reference --write` (or prints it)."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from plugin import settings

TARGET = Path(__file__).parent.parent / "docs" / "settings.md"

_HEAD = """# Settings

<!-- Made by `python -m plugin.settings_reference --write`; do not edit. -->

Every setting has a default, so none is needed to start. Where one is given more than once, the last of these wins:

1. the default below;
2. the file named by `--config`: TOML, or JSON with a section `"Genu"` (so that `orthanc.json` can carry it);
3. the environment: `GENU_` and the name in capitals, with `__` for the dot: `GENU_LISTENER__PORT=11113`. Lists and
   tables are JSON there: `GENU_DESTINATIONS='[{"kind": "folder", "path": "/srv/results"}]'`;
4. the options of the command line.

A setting that does not exist or does not fit stops the program with a message that names it; nothing is ignored.

```toml
data_dir = "/var/lib/genu"

[listener]
host = "0.0.0.0"
port = 11112

[[listener.peers]]
ae_title = "XRAY1"
hosts = ["10.0.0.7"]
quiet_seconds = 20.0

[[destinations]]
kind = "cstore"
name = "pacs"
host = "10.0.0.2"
port = 104
ae_title = "PACS"
```
"""

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("", settings.Settings),
    ("listener", settings.Listener),
    ("listener.peers[]", settings.Peer),
    ("completeness", settings.Completeness),
    ("workers", settings.Workers),
    ("queue", settings.QueueSettings),
    ("delivery", settings.Delivery),
    ('destinations[] with kind = "folder"', settings.FolderDestination),
    ('destinations[] with kind = "cstore"', settings.CStoreDestination),
    ('destinations[] with kind = "orthanc"', settings.OrthancDestination),
    ('destinations[] with kind = "stow"', settings.StowDestination),
    ("station", settings.Station),
    ("orthanc", settings.Orthanc),
    ("dicomweb", settings.DicomWeb),
    ("listener.tls and destinations[].tls", settings.Tls),
)


def render() -> str:
    """The whole page."""
    return _HEAD + "".join(f"\n{line}" for line in _lines()) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page to docs/, or to stdout."""
    if "--write" in arguments:
        TARGET.write_text(render(), encoding="utf-8")
    else:
        sys.stdout.write(render())
    return 0


def _lines() -> Iterator[str]:
    for name, model in _SECTIONS:
        summary = (model.__doc__ or "").strip().splitlines()[0]
        yield f"## {name}\n\n{summary}\n" if name else "## At the top\n"
        yield "| setting | default | meaning |"
        yield "| --- | --- | --- |"
        for field, info in model.model_fields.items():
            if info.description or field == "kind":
                meaning = info.description or "which sort of destination"
                yield f"| `{field}` | {_default(info.default)} | {meaning} |"
        yield ""


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ((), ""):
        return "unset" if value is None else "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
