"""Which files of an export a series or a study has, by its index: what cannot be walked as a folder is opened by it."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference.errors import DataError
from training.export_names import Export, default_index, is_folder
from training.exports import Item

_COLUMNS = ("path", "size", "mtime_ns", "SOPClassUID")
Files = dict[str, list[Item]]


def indexed(export: Export, index: Path | None, by: str, classes: Collection[str]) -> Files | None:
    """The files of these SOP classes by the column `by`, in the order of their paths; None for a folder without index.

    Raises:
        DataError: there is no index though the export needs one, or it cannot be read; UsageError: it has to be named.
    """
    path = index or default_index(export)
    if not path.is_file():
        if index is None and is_folder(export):
            return None
        raise DataError(f"the index {path} is missing: make it with `genu-train index`.")
    try:
        table = pq.read_table(path, columns=[*_COLUMNS, by], filters=[("SOPClassUID", "in", list(classes))])
        rows: list[dict[str, Any]] = table.to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} is no index that can be read: make it again with `genu-train index`.") from error
    found: Files = {}
    for row in sorted(rows, key=lambda row: str(row["path"])):
        if row[by] and row["path"]:
            item = Item(export, row["path"], row["size"], row["mtime_ns"])
            found.setdefault(row[by], []).append(item)
    return found


def walked(export: Export, items: Collection[Item]) -> bool:
    """Whether all of them are plain files of a folder, which are read without the index."""
    return is_folder(export) and not any(".zip/" in item.path.lower() for item in items)
