"""What an export may be named by, for the commands that take one; nothing heavy is loaded here."""

import re
from pathlib import Path

from inference.errors import DataError, UsageError

Export = Path | str


def named(text: str) -> Export:
    """An export as it is given on a command line: a local path, or the text of a URL."""
    return text if is_url(text) else Path(text)


def is_url(export: Export) -> bool:
    """Whether it is for fsspec."""
    return isinstance(export, str) and "://" in export


def is_folder(export: Export) -> bool:
    """Whether it is a local folder."""
    return not is_url(export) and Path(export).is_dir()


def folder_of(export: Export) -> Path:
    """The export, for what reads nothing but plain folders.

    Raises:
        DataError: it is none.
    """
    if not is_folder(export):
        raise DataError(f"{shown(str(export))} is not a folder: here a zip is unpacked first, a bucket copied.")
    return Path(export)


def default_index(export: Export, option: str = "--index") -> Path:
    """Where `genu-train index` puts the index of an export.

    Raises:
        UsageError: of a URL there is no such place; `option` has to name it.
    """
    if is_url(export):
        raise UsageError(f"{option} is needed for a URL: name the Parquet file.")
    path = Path(export)
    return path / "index.parquet" if path.is_dir() else path.with_name(f"{path.name}.index.parquet")


def is_dicomdir(path: Path) -> bool:
    """Whether a file is called as a DICOMDIR is."""
    return path.name.upper() == "DICOMDIR"


def shown(url: str) -> str:
    """A URL as it may stand in a message: without a user, a password and a query."""
    return re.sub(r"//[^/@]*@", "//", url).partition("?")[0]
