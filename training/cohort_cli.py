"""`genu-train cohort`: labels and inclusion rules of a source, to one row per knee and the flow that led there."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import export_names

if TYPE_CHECKING:
    from training.cohorts.rows import Source
    from training.cohorts.rules import Rules

_SOURCES = {"mrkr": "mrkr", "oai-xr": "oai_xr", "oai-mri": "oai_mri", "table": "table"}


def add_command(commands: Any) -> None:
    """Register the command."""
    cohort = commands.add_parser("cohort", help="from tables and an indexed export to labelled knees, by written rules")
    cohort.add_argument("source", choices=tuple(_SOURCES), help="whose tables: MRKR, OAI radiographs or MR, or yours")
    cohort.add_argument("--export", type=export_names.named, required=True, help="the DICOM export")
    cohort.add_argument("--index", type=Path, default=None, help="default: where index puts it; needed for a URL")
    cohort.add_argument(
        "--tables", type=Path, required=True, help="folder of the source's tables; for `table` the file itself"
    )
    cohort.add_argument("--rules", type=Path, default=None, help="TOML file of rules (default: those shipped)")
    cohort.add_argument("--window", type=int, default=None, help="mrkr: days between image and score (default: 7)")
    cohort.add_argument(
        "--followup", type=int, default=None, help="oai-mri: months from the image to its follow-up (default: 12)"
    )
    cohort.add_argument(
        "--targets",
        nargs="+",
        default=None,
        help="table, oai-mri: the labels, the chief one, which must be there, first",
    )
    cohort.add_argument("--out", type=Path, required=True, help="folder of cohort.parquet, the flow and its picture")
    cohort.set_defaults(run_command=_cohort)


def _cohort(options: argparse.Namespace) -> None:
    from training.cohorts import rows
    from training.cohorts.flow import markdown

    rows.check_out(options.out)
    rules = _rules(options)
    source = _read(options, rules)
    cohort = rows.select(source, rules)
    rows.write(cohort, source, rules, options.out)
    print(markdown(cohort.steps, source.unread))
    kept = cohort.steps[-1].kept
    rows_are = "" if "SOPInstanceUID" in cohort.knees.columns else f"{len(cohort.knees)} series of "
    print(f"{rows_are}{kept.knees} knees of {kept.patients} patients in {options.out / 'cohort.parquet'}")


def _rules(options: argparse.Namespace) -> "Rules":
    from inference.errors import UsageError
    from training.cohorts.rules import read_rules, shipped

    name = source = _SOURCES[options.source]
    if options.window is not None and options.source != "mrkr":
        raise UsageError(f"--window is for mrkr; the labels of {options.source} are of the image's own visit.")
    if options.window is not None and options.window < 0:
        raise UsageError(f"--window {options.window}: it must be 0 days or more.")
    if options.targets is not None and options.source not in ("table", "oai-mri"):
        raise UsageError(f"--targets is for table and oai-mri; {options.source} has targets of its own.")
    if options.followup is not None and options.source != "oai-mri":
        raise UsageError(f"--followup is for oai-mri; the labels of {options.source} are not of a later visit.")
    overrides: dict[str, Any] = {} if options.window is None else {"window": options.window}
    if options.followup is not None:
        overrides["followup"] = options.followup
    if options.source == "oai-mri" and options.targets is not None:
        overrides["target"] = options.targets[0]
    if source == "table" and _of_series(options):
        name = "table_series"
    return read_rules(options.rules or shipped(name), source, overrides)


def _of_series(options: argparse.Namespace) -> bool:
    from training.cohorts import table_series

    return table_series.is_one(options.tables)


def _read(options: argparse.Namespace, rules: "Rules") -> "Source":
    from training.cohorts import mrkr, oai_mri, oai_tables, oai_xr, table, table_series

    index = options.index or export_names.default_index(options.export)
    export = Path(options.export)
    if options.source == "mrkr":
        return mrkr.read(options.tables, index, export, str(rules.parameters.get("same_day", "mean")))
    if options.source == "oai-xr":
        return oai_xr.read(options.tables, index, export, rules.parameters.get("projects", oai_tables.PROJECTS))
    if options.source == "oai-mri":
        return oai_mri.read(options.tables, index, export, rules.parameters)
    if _of_series(options):
        return table_series.read(options.tables, index, export, options.targets or ())
    return table.read(options.tables, index, export, options.targets or ())
