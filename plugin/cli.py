"""`genu`: listen | orthanc | worker | deliver | score | explain | status | retry | doctor.

Parses, calls, and turns errors into exit codes.

Exit status: 0 done; 1 something failed; 2 wrong use (arguments, settings); 130 interrupted. docs/commands.md is made
from this parser: `make docs`.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from inference.errors import GenuError, UsageError
from plugin.commands.options import add_child_options, add_settings_options

DESCRIPTION = (
    "DICOM-native scoring of knee radiographs: C-STORE in, Structured Report and heatmap out. "
    "Research software, not a medical device."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except UsageError as error:
        print(f"genu {arguments.command}: {error}", file=sys.stderr)
        return 2
    except GenuError as error:
        print(f"genu {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"genu {arguments.command}: interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; docs/commands.md is made from it."""
    parser = argparse.ArgumentParser(prog="genu", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"genu {version('genu')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_listen(commands)
    _add_orthanc(commands)
    _add_worker(commands)
    _add_deliver(commands)
    _add_score(commands)
    _add_explain(commands)
    _add_status(commands)
    _add_retry(commands)
    _add_doctor(commands)
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add(commands: _Commands, name: str, text: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")


def _add_listen(commands: _Commands) -> None:
    parser = _add(commands, "listen", "run the service: receive studies, score them, send the results")
    add_settings_options(parser)
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="TCP port (default 11112; 0 takes a free one)")
    parser.add_argument("--ae-title", metavar="AE", help="our AE title (default GENU)")
    parser.add_argument("--workers", type=int, metavar="N", help="scoring processes to supervise (default 1)")
    parser.add_argument("--quiet", type=float, metavar="SECONDS", help="a study is whole after so long (default 5)")
    parser.add_argument(
        "--to-folder", type=Path, metavar="DIR", action="append", help="write results to this folder; may be repeated"
    )
    parser.add_argument(
        "--to-ae", metavar="AE@HOST:PORT", action="append", help="send results to this node by C-STORE; may be repeated"
    )
    parser.add_argument(
        "--to-dicomweb",
        metavar="URL",
        action="append",
        help="send results to this DICOMweb server by STOW-RS; may be repeated",
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", action="append", help="model bundle to score with (default: the shipped)"
    )
    parser.set_defaults(run=_listen)


def _add_orthanc(commands: _Commands) -> None:
    parser = _add(commands, "orthanc", "run the service for an Orthanc; its plugin starts this itself")
    add_settings_options(parser)
    parser.add_argument("--link", action="store_true", help="settings and requests come from Orthanc's plugin")
    parser.set_defaults(run=_orthanc)


def _add_worker(commands: _Commands) -> None:
    parser = _add(commands, "worker", "score studies from the queue; `genu listen` starts these itself")
    add_child_options(parser)
    parser.add_argument("--check", action="store_true", help="load the bundles, replay their probes and exit")
    parser.set_defaults(run=_worker)


def _add_deliver(commands: _Commands) -> None:
    parser = _add(commands, "deliver", "send results from the queue; `genu listen` starts this itself")
    add_child_options(parser)
    parser.set_defaults(run=_deliver)


def _add_score(commands: _Commands) -> None:
    parser = _add(commands, "score", "score files, folders, or studies of a DICOMweb server without a service")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="DICOM files, or folders of them")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="reports, heatmaps and results.jsonl")
    parser.add_argument(
        "--study", metavar="UID", action="append", help="fetch this study from --dicomweb; may be repeated"
    )
    parser.add_argument(
        "--dicomweb", metavar="URL", help="where to fetch it, the address before /studies (default: dicomweb.url)"
    )
    parser.add_argument(
        "--to-dicomweb",
        metavar="URL",
        action="append",
        help="send reports and heatmaps to this DICOMweb server, too; may be repeated",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file (bundles, station and dicomweb are used)"
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", action="append", help="model bundle to score with (default: the shipped)"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="scoring processes (default: one for 16 studies, at most one a CPU)"
    )
    parser.add_argument(
        "--accept-secondary-capture", action="store_true", help="score Secondary Capture images as well (PS3.3 A.8)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="print every report as a tree")
    parser.set_defaults(run=_score)


def _add_explain(commands: _Commands) -> None:
    parser = _add(
        commands, "explain", "write for each image a page and a picture: what was seen, and why it was decided so"
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="DICOM files, or folders of them")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("explained"), help="where to write them (default: explained)"
    )
    parser.add_argument("--html", action="store_true", help="pages only (default: both)")
    parser.add_argument("--png", action="store_true", help="pictures only (default: both)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (bundles are used)")
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", action="append", help="model bundle to score with (default: the shipped)"
    )
    parser.add_argument(
        "--accept-secondary-capture", action="store_true", help="look at Secondary Capture images as well (PS3.3 A.8)"
    )
    parser.set_defaults(run=_explain)


def _add_status(commands: _Commands) -> None:
    parser = _add(commands, "status", "show studies, outcomes, refusals and what is still to be sent")
    add_settings_options(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object, for programs")
    parser.add_argument("--watch", action="store_true", help="show it again every second until interrupted")
    parser.set_defaults(run=_status)


def _add_retry(commands: _Commands) -> None:
    parser = _add(commands, "retry", "put dead letters back into the queue")
    add_settings_options(parser)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help="Study Instance UIDs")
    parser.add_argument("--all", action="store_true", help="every dead letter")
    parser.set_defaults(run=_retry)


def _add_doctor(commands: _Commands) -> None:
    parser = _add(commands, "doctor", "check settings, bundle, disk, port and destinations, and say what to do")
    add_settings_options(parser)
    parser.add_argument("--orthanc", metavar="URL", help="check this Orthanc, too, as the user of the settings")
    parser.set_defaults(run=_doctor)


# Each command imports what it needs when it runs: `genu --help` is quick, and torch stays out of all but three of them.


def _listen(arguments: argparse.Namespace) -> int:
    from plugin.commands.service import listen

    return listen(arguments)


def _orthanc(arguments: argparse.Namespace) -> int:
    from plugin.commands.service import serve_orthanc

    return serve_orthanc(arguments)


def _worker(arguments: argparse.Namespace) -> int:
    from plugin.commands.service import work

    return work(arguments)


def _deliver(arguments: argparse.Namespace) -> int:
    from plugin.commands.service import deliver

    return deliver(arguments)


def _score(arguments: argparse.Namespace) -> int:
    from plugin.commands.score import score

    return score(arguments)


def _explain(arguments: argparse.Namespace) -> int:
    from plugin.commands.explain import explain

    return explain(arguments)


def _status(arguments: argparse.Namespace) -> int:
    from plugin.commands.queue import status

    return status(arguments)


def _retry(arguments: argparse.Namespace) -> int:
    from plugin.commands.queue import retry

    return retry(arguments)


def _doctor(arguments: argparse.Namespace) -> int:
    from plugin.commands.doctor import doctor

    return doctor(arguments)


if __name__ == "__main__":
    sys.exit(main())
