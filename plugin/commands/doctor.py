"""`genu doctor`: the checks of plugin.doctor and plugin.orthanc_doctor, one line each, and what to do."""

import argparse
from itertools import chain

from rich.console import Console
from rich.text import Text

from plugin.commands.options import settings_of
from plugin.doctor import Verdict, examine
from plugin.orthanc_doctor import examine_orthanc

_STYLES = {Verdict.FINE: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red"}


def doctor(arguments: argparse.Namespace) -> int:
    """Exit status 1 when a check failed. Wrong settings are reported by the caller, as for every command."""
    console = Console(soft_wrap=True, highlight=False)
    settings = settings_of(arguments)
    console.print(
        Text.assemble(("fine    ", "green"), "settings: ", str(arguments.config or "defaults and environment"))
    )
    failed = 0
    asked = examine_orthanc(settings.orthanc) if settings.orthanc else ()
    for check in chain(examine(settings), asked):
        failed += check.verdict is Verdict.FAILED
        console.print(
            Text.assemble((f"{check.verdict.value:8}", _STYLES[check.verdict]), f"{check.about}: {check.seen}")
        )
        if check.remedy:
            console.print(f"          -> {check.remedy}", markup=False)
    return 1 if failed else 0
