"""`make viewer`: Orthanc with Genu and the OHIF viewer behind one address of this machine, with knees to look at.

    python -m plugin.viewer --samples FOLDER --out FOLDER

Starts Orthanc by the repository's orthanc.json and nginx by plugin/ohif/nginx.conf, stores the samples, waits until
Genu is done with them, says where to look, and runs until Ctrl-C. docs/viewer.md has more.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from inference.errors import DataError, GenuError, ResourceError
from inference.manifest import SHIPPED, Manifest
from plugin.children import until
from plugin.viewer_servers import PORT, Archive, Front, nginx, ohif_folder, orthanc
from plugin.web import SUCCESS, WebServer

RESULT_SECONDS = 300.0

Study = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run until Ctrl-C; exit status 1 when something does not start or is not scored."""
    parser = argparse.ArgumentParser(prog="python -m plugin.viewer", description="Look at scored knees in OHIF.")
    parser.add_argument("--samples", type=Path, required=True, help="folder with the DICOM files to load")
    parser.add_argument("--add", type=Path, action="append", default=[], help="a further folder; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="where everything goes; made when missing")
    parser.add_argument("--port", type=int, help=f"of the viewer, 0 for any (default: {PORT} where it is free)")
    parser.add_argument("--ohif", type=Path, default=ohif_folder(), help="folder with OHIF's built files")
    parser.add_argument("--bundle", type=Path, help="model bundle (default: the shipped one)")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        run(arguments, console)
    except KeyboardInterrupt:
        console.print("stopped")
    except GenuError as error:
        console.print(f"viewer: {error}", style="bold red", markup=False)
        return 1
    return 0


def run(arguments: argparse.Namespace, console: Console) -> None:
    """All steps in their order, until KeyboardInterrupt. Raises GenuError when one does not come to its end."""
    Manifest.read(arguments.bundle or SHIPPED).verify_files()  # says at once what the worker would say after seconds
    out = arguments.out.resolve()
    files = [file for folder in (arguments.samples, *arguments.add) for file in dicom_files(folder)]
    started = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - started:5.1f} s  {text}", markup=False)

    with orthanc(out, arguments.bundle) as archive, nginx(out, arguments.ohif, arguments.port, archive) as front:
        say(f"Orthanc answers, and Genu in it; the viewer is at {front.url}")
        server = archive.open()
        try:
            studies = store(server, files)
            say(f"{len(files)} images of {len(studies)} studies stored; Genu begins when nothing comes for a second")
            told = wait(server, studies, archive, front)
        finally:
            server.close()
        say(f"all {len(studies)} studies are done")
        _show(front.url, told, console)
        while True:
            _must_live(archive, front)
            time.sleep(0.5)


def dicom_files(folder: Path) -> list[Path]:
    """Every DICOM file (PS3.10) below a folder. Raises DataError when there is none."""
    found = [file for file in sorted(folder.rglob("*")) if file.is_file() and _is_dicom(file)]
    if not found:
        raise DataError(f"no DICOM file below {folder}: give a folder that has some")
    return found


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def store(server: WebServer, files: Sequence[Path]) -> list[str]:
    """Store the files in Orthanc; its identifiers of their studies. Raises DataError and WebError."""
    studies: dict[str, None] = {}
    for file in files:
        # Without an empty Expect header Orthanc waits a second.
        answer = server.exchange("POST", "/instances", data=file.read_bytes(), headers={"Expect": ""})
        if answer.status not in SUCCESS:
            raise DataError(f"Orthanc does not take {file}: status {answer.status}")
        studies[json.loads(answer.content)["ParentStudy"]] = None
    return list(studies)


def wait(server: WebServer, studies: Sequence[str], archive: Archive, front: Front) -> list[Study]:
    """What Genu says of each study, once all are scored and their objects stored. Raises ResourceError and WebError."""
    told: list[Study] = []

    def done() -> bool:
        _must_live(archive, front)
        told[:] = [server.get_json(f"/genu/studies/{study}") for study in studies]
        for study in told:
            if study["state"] == "dead":
                raise ResourceError(f"study {study['study']}: {study['summary']} The log is {archive.log}")
        return all(map(_is_done, told))

    until(done, RESULT_SECONDS, "not all studies are scored", archive.log)
    return told


def _is_done(study: Study) -> bool:
    objects = [item for revision in study["revisions"] for item in revision["objects"]]
    deliveries = [delivery for item in objects for delivery in item["deliveries"]]
    return study["state"] == "done" and all(delivery["state"] == "delivered" for delivery in deliveries)


def _show(address: str, studies: Sequence[Study], console: Console) -> None:
    lines = ["", f"Study list        {address}/", ""]
    for study in studies:
        lines += [f"  {study['summary']}", f"  {address}/viewer?StudyInstanceUIDs={study['study']}", ""]
    lines += [f"Orthanc Explorer  {address}/orthanc/app/explorer.html", ""]
    lines += ["Whoever is logged in to this machine can open these pages while they are there. Ctrl-C ends them."]
    for line in lines:
        console.print(line, markup=False)


def _must_live(archive: Archive, front: Front) -> None:
    if archive.process.poll() is not None or front.process.poll() is not None:
        raise ResourceError(f"a server has ended; the logs are {archive.log} and {front.log}")


if __name__ == "__main__":
    sys.exit(main())
