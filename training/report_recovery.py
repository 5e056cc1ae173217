"""The report's part on made knees: what was planted, and what the run found of it, from `genu-train recover`."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from inference.errors import DataError
from training.cv_evidence import Evidence, title_of
from training.effects import FOLDER, JSON
from training.report_numbers import number, with_interval
from training.report_page import Cell, Part, Row, Section, Table, Text

_HAS_TO: Final = {
    "covers": "cover what was planted",
    "above": "lie above 0, for one system at least",
    "not above": "not lie above 0",
    "above chance": "lie above 0.5, for one system at least",
    "chance": "hold 0.5",
    "told": "",
}


def planted(evidence: Evidence) -> list[Section]:
    """One section where RUN/recovery holds figures of these predictions; none where nothing was held against a truth.

    Raises:
        DataError: it cannot be read.
    """
    path = evidence.run / FOLDER / JSON
    try:
        content: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
        if content.get("inputs") != dict(evidence.inputs):
            return [Section("planted", "What was planted", [Text(_STALE)])]
        return [Section("planted", "What was planted, and what is found", list(_parts(evidence, content)))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}): run `genu-train recover` again.") from error


_STALE: Final = "RUN/recovery is of other predictions than these: run `genu-train recover` again."


def _parts(evidence: Evidence, content: Mapping[str, Any]) -> Iterable[Part]:
    titles = {system.system: title_of(system) for system in evidence.systems}
    done = "All of it holds." if content["recovered"] else f"It does not all hold: {'; '.join(content['failures'])}."
    effects = ", ".join(f"{name} {value:g}" for name, value in content["planted"].items())
    yield Text(
        f"These knees are made, so that what ought to be found is known. {done} Intervals are of 95 %: of twenty one "
        "misses by chance."
    )
    rows = []
    for row in content["rows"]:
        who = titles.get(row["system"], row["system"]) if row["system"] else "the cohort's table"
        told = {True: Cell("yes", kind="better"), False: Cell("NO", kind="worse"), None: Cell("")}[row["holds"]]
        if row["holds"] is False and row["claim"].startswith("above"):
            told = Cell("no")  # that no system does is said above the table
        value = with_interval((row["value"], row["low"], row["high"]), 3)
        aim = Cell("" if row["planted"] is None else number(row["planted"], 2))
        rows.append(Row(Cell(row["figure"], who), [aim, value, Cell(_HAS_TO[row["claim"]]), told]))
    heads = [Cell("figure"), Cell("planted"), Cell("found"), Cell("has to"), Cell("does it?")]
    yield Table(heads, rows, f"Planted, by the names of `genu-train synth`: {effects}.")
