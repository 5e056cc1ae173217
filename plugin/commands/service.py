"""`genu listen`, `genu orthanc`, `genu worker`, `genu deliver`: the processes of the service.

They log JSON lines to standard error.
"""

import argparse
import logging
from collections.abc import Callable

from inference.errors import GenuError, UsageError
from plugin import logs
from plugin.commands.options import settings_of
from plugin.settings import Settings

_log = logging.getLogger(__name__)


def listen(arguments: argparse.Namespace) -> int:
    """Receive, and supervise the scoring and delivering children."""
    from plugin.supervisor import run_listen

    return _run(arguments, run_listen)


def serve_orthanc(arguments: argparse.Namespace) -> int:
    """Follow an Orthanc, and supervise the scoring and delivering children."""
    from plugin import sidecar

    if arguments.link:
        logs.configure()
        return _ended(arguments, sidecar.run_linked)
    return _run(arguments, sidecar.run_alone)


def work(arguments: argparse.Namespace) -> int:
    """Score; with --check only load the bundles, which replays their probes."""
    from plugin.worker import load_predictor, run

    if arguments.check:
        load_predictor(settings_of(arguments))
        return 0
    return _run(arguments, lambda settings: run(settings, worker_id=arguments.name, parent=arguments.parent))


def deliver(arguments: argparse.Namespace) -> int:
    """Send results."""
    from plugin.deliverer import OWNER, run

    return _run(arguments, lambda settings: run(settings, owner=arguments.name or OWNER, parent=arguments.parent))


def _run(arguments: argparse.Namespace, process: Callable[[Settings], int]) -> int:
    settings = settings_of(arguments)
    logs.configure(settings.log_level)
    return _ended(arguments, lambda: process(settings))


def _ended(arguments: argparse.Namespace, process: Callable[[], int]) -> int:
    """Run one process of the service; what stops it goes to the log, where its supervisor's lines are too."""
    try:
        return process()
    except GenuError as error:
        logs.event(_log, "process.failed", level=logging.CRITICAL, command=arguments.command, error=str(error))
        return 2 if isinstance(error, UsageError) else 1
