"""`genu-train cohort`: labels and inclusion rules of a source, to one row per knee and the flow that led there."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.cohorts.rows import Source
    from training.cohorts.rules import Rules

_SOURCES = {"mrkr": "mrkr", "oai-xr": "oai_xr", "table": "table"}


def add_command(commands: Any) -> None:
    """Register the command."""
    cohort = commands.add_parser("cohort", help="from tables and an indexed export to labelled knees, by written rules")
    cohort.add_argument("source", choices=tuple(_SOURCES), help="whose tables: MRKR, OAI radiographs, or one of yours")
    cohort.add_argument("--export", type=Path, required=True, help="the DICOM export")
    cohort.add_argument("--index", type=Path, default=None, help="default: EXPORT/index.parquet")
    cohort.add_argument(
        "--tables", type=Path, required=True, help="folder of the source's tables; for `table` the file itself"
    )
    cohort.add_argument("--rules", type=Path, default=None, help="TOML file of rules (default: those shipped)")
    cohort.add_argument("--window", type=int, default=None, help="mrkr: days between image and score (default: 7)")
    cohort.add_argument("--targets", nargs="+", default=None, help="table: columns of the labels, the chief one first")
    cohort.add_argument("--out", type=Path, required=True, help="folder of cohort.parquet, the flow and its picture")
    cohort.set_defaults(run_command=_cohort)


def _cohort(options: argparse.Namespace) -> None:
    from training.cohorts import rows
    from training.cohorts.flow import markdown

    rules = _rules(options)
    source = _read(options, rules)
    cohort = rows.select(source, rules)
    rows.write(cohort, source, rules, options.out)
    print(markdown(cohort.steps))
    kept = cohort.steps[-1].kept
    print(f"{kept.knees} knees of {kept.patients} patients in {options.out / 'cohort.parquet'}")


def _rules(options: argparse.Namespace) -> "Rules":
    from inference.errors import UsageError
    from training.cohorts.rules import read_rules, shipped

    name = _SOURCES[options.source]
    if options.window is not None and options.source != "mrkr":
        raise UsageError(f"--window is for mrkr; the labels of {options.source} are of the image's own visit.")
    if options.window is not None and options.window < 0:
        raise UsageError(f"--window {options.window}: it must be 0 days or more.")
    if options.targets is not None and options.source != "table":
        raise UsageError(f"--targets is for table; {options.source} has targets of its own.")
    overrides = {} if options.window is None else {"window": options.window}
    return read_rules(options.rules or shipped(name), name, overrides)


def _read(options: argparse.Namespace, rules: "Rules") -> "Source":
    from training.cohorts import mrkr, oai_xr, table

    index = options.index or options.export / "index.parquet"
    if options.source == "mrkr":
        return mrkr.read(options.tables, index, options.export, str(rules.parameters.get("same_day", "mean")))
    if options.source == "oai-xr":
        return oai_xr.read(options.tables, index, options.export, rules.parameters.get("projects", oai_xr.PROJECTS))
    return table.read(options.tables, index, options.export, options.targets or ())
