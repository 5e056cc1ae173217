"""A DICOM export to a Parquet index, one row an instance: `genu-train index`.

Only headers are read. A file that cannot be read is a row with its reason, never a silent gap. Files that have not
changed since (path, size, time) keep their rows.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference.errors import DataError, RefusalError
from inference.reading import read_instance

HEADER = (
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality",
    "BodyPartExamined", "ViewPosition", "ImageLaterality", "Laterality", "PhotometricInterpretation", "Manufacturer",
)  # fmt: skip
SCHEMA = pa.schema(
    [("path", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("reason", pa.string())]
    + [(name, pa.string()) for name in HEADER]
    + [("TransferSyntaxUID", pa.string()), ("Rows", pa.int32()), ("Columns", pa.int32())]
)


def index_export(export: Path, out: Path, progress: Callable[[int], None] | None = None) -> tuple[int, int]:
    """Index every file below `export` into the Parquet file `out`; returns (rows, of them unreadable).

    Raises:
        DataError: the export is not a folder, or holds no file.
    """
    if not export.is_dir():
        raise DataError(f"{export} is not a folder: name the folder that holds the DICOM export.")
    known = {row["path"]: row for row in pq.read_table(out).to_pylist()} if out.exists() else {}
    rows: list[dict[str, Any]] = []
    for entry in _files(export):
        status = entry.stat()
        path = str(Path(entry.path).relative_to(export))
        row = known.get(path)
        if row is None or (row["size"], row["mtime_ns"]) != (status.st_size, status.st_mtime_ns):
            row = _row(Path(entry.path)) | {"path": path, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        rows.append(row)
        if progress is not None:
            progress(len(rows))
    if not rows:
        raise DataError(f"{export} holds no DICOM file: name the folder that holds the export.")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), part)
    part.replace(out)
    return len(rows), sum(row["reason"] is not None for row in rows)


def read_index(path: Path) -> list[dict[str, Any]]:
    """The rows of an index.

    Raises:
        DataError: the file is missing or not an index of this version.
    """
    if not path.exists():
        raise DataError(f"the index {path} is missing: make it with `genu-train index`.")
    table = pq.read_table(path)
    missing = [name for name in SCHEMA.names if name not in table.schema.names]
    if missing:
        raise DataError(f"{path} lacks the column(s) {', '.join(missing)}: make it again with `genu-train index`.")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _row(path: Path) -> dict[str, Any]:
    try:
        instance = read_instance(path)
    except RefusalError as error:
        return dict.fromkeys(SCHEMA.names) | {"reason": error.refusal.reason}
    header = instance.header
    row: dict[str, Any] = {name: _text(header.get(name)) for name in HEADER}
    row |= {"TransferSyntaxUID": instance.transfer_syntax_uid, "reason": None}
    return row | {name: header.get(name) for name in ("Rows", "Columns")}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _files(folder: Path) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif entry.is_file() and entry.name != "DICOMDIR" and not entry.name.endswith((".csv", ".json", ".parquet")):
            yield entry
