"""`genu-train index`: a DICOM export to a Parquet index, with a progress bar and its rate."""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from training import export_names


def add_command(commands: Any) -> None:
    """Register the command."""
    index = commands.add_parser("index", help="index a DICOM export into a Parquet file; goes on where it stopped")
    index.add_argument("export", help="folder, DICOMDIR, zip, or URL that fsspec knows (s3://bucket/prefix)")
    index.add_argument(
        "--out", type=Path, default=None, help="Parquet file (default: index.parquet in the folder, or beside the file)"
    )
    index.add_argument(
        "--workers", type=int, default=None, help="processes (default: one a CPU); for a URL threads (default: 32)"
    )
    index.set_defaults(run_command=_index)


def _index(options: argparse.Namespace) -> None:
    from training.index import index_export

    export = export_names.named(options.export)
    out = options.out or export_names.default_index(export, "--out")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("files indexed", total=None)
        found = index_export(
            export,
            out,
            progress=lambda done, all_: bar.update(task, completed=done, total=all_),
            workers=options.workers,
        )
    print(f"{found.rows} files in {out}, {found.unreadable} of them unreadable; {found.read} read this time")


class _Rate(ProgressColumn):
    """Files a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")
