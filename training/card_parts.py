"""What the model cards of bundles made from cross-validated runs share."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.cv_evaluate import unfinished


def opening(bundle: Mapping[str, Any], what: str) -> Iterator[str]:
    """Name, version and what is predicted; whether it means anything; what it is not for."""
    yield f"# {bundle['name']} {bundle['version']}: {what}"
    yield ""
    if bundle["synthetic"]:
        yield "**SYNTHETIC: RANDOM WEIGHTS OR MADE KNEES. WHAT IT SAYS MEANS NOTHING.**"
        yield ""
    yield "**Research software, not a medical device. Not for diagnosis or treatment.**"
    yield ""


def excluded_use(terms: Mapping[str, Any]) -> Iterator[str]:
    """Where the terms of the backbone exclude use in a running service: that they do; else nothing."""
    if not terms["deployed_use"]:
        note = f": {terms['note']}" if terms["note"] else ""
        yield ""
        yield (
            f"**Use in a running service is excluded by the terms of its backbone{note}.** Genu loads it only where "
            "`allow_undeployed_bundles` is set."
        )


def systems_table(figures: Mapping[str, Any], system: str, names: Mapping[str, str]) -> Iterator[str]:
    """All systems and baselines of a run; `names` are the columns, `system` the one that the bundle holds.

    Before them what the run was asked for and has not.
    """
    if (missing := unfinished(figures)) is not None:
        yield plain(missing)
        yield ""
    yield f"| system | {' | '.join(names.values())} |"
    yield "|---" * (len(names) + 1) + "|"
    for row in figures["systems"]:
        name = plain(row["title"]) + (" (baseline)" if row["role"] == "baseline" else "")
        name = f"**{name}, this bundle**" if row["system"] == system else name
        mark = " SYNTHETIC" if row["synthetic"] else ""
        yield f"| {name}{mark} | {' | '.join(estimated(row[key]) for key in names)} |"


def data_source(data: Mapping[str, Any]) -> Iterator[str]:
    """Whose data were learnt from, and under which licence; `data` as `Origin.to_json` writes it."""
    name, licence = plain(data["name"]), plain(data["licence"])
    if data["made"]:
        yield f"Source of the data: **made knees** (`genu-train synth`), no patient's, in the form of: {name}."
        return
    yield f"Source of the data: {name} (cohort `{data['source']}`). Licence of the data: {licence}."


def hashes(bundle: Mapping[str, Any]) -> Iterator[str]:
    """The files and the weights that the backbone was read from."""
    yield "## Files"
    for name, digest in bundle["files"].items():
        yield f"- `{name}`: SHA-256 `{digest}`"
    yield f"- weights of the backbone as they were read: SHA-256 `{bundle['backbone']['weights_sha256']}`"
    yield ""


def estimated(values: Sequence[float | None] | None) -> str:
    """A figure with its interval, to two digits."""
    if values is None or values[0] is None:
        return "none"
    value, low, high = (*values, None, None)[:3]
    return f"{value:.2f}" + ("" if low is None or high is None else f" ({low:.2f} to {high:.2f})")


def plain(text: str) -> str:
    """A value from data as text in a cell of a table, whatever stands in it."""
    shown = "".join(f"\\{char}" if char in "\\`*[]|#" else char for char in " ".join(text.split()))
    return shown.replace("&", "&amp;").replace("<", "&lt;")


def chosen(values: Mapping[str, Any]) -> str:
    """Names and values in a row."""
    told = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()]
    return ", ".join(told) or "without a choice"


def flow_of(cohort: Path) -> str | None:
    """The flow table that the cohort was written with; None where it lies there no more."""
    path = cohort / "flow.md"
    return path.read_text("utf-8") if path.is_file() else None
