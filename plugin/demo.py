"""`make demo`: the whole way once, on this machine: send, receive, score, store back, show.

    python -m plugin.demo --samples FOLDER --out FOLDER

Starts `genu listen` and a PACS (DCMTK's storescp; a folder where DCMTK is not installed), sends every DICOM file of the
samples over a real association, and waits for the reports.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image
from pydicom import Dataset, dcmread
from rich.console import Console
from rich.status import Status

from dicom_templates.tree import render_tree
from inference.errors import DataError, GenuError, ResourceError
from inference.installed import installed
from plugin.children import HOST, connects, free_port, last_line, running, until
from plugin.destinations import opened
from plugin.jobs import Queue
from plugin.rows import JobState, Snapshot
from plugin.settings import CStoreDestination, load
from plugin.verdicts import Outcome, Outgoing

START_SECONDS = 30.0
RESULT_SECONDS = 180.0
MADE = "Made images"  # of `genu-train synth`
_ACROSS = 4  # frames in a row of a picture
_LINES = 10  # of errors that are shown
REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; exit status 1 when the reports do not come."""
    parser = argparse.ArgumentParser(prog="python -m plugin.demo", description="Send sample studies through Genu.")
    parser.add_argument("--samples", type=Path, required=True, help="folder with the DICOM files to send")
    parser.add_argument("--out", type=Path, required=True, help="where everything goes; made when missing")
    parser.add_argument(
        "--bundle", type=Path, action="append", default=[], help="model bundle (default: the shipped); may be repeated"
    )
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
    try:
        return run(arguments.samples, arguments.out, arguments.bundle, console)
    except GenuError as error:
        console.print(f"demo: {error}", style="bold red", markup=False)
        return 1


def run(samples: Path, out: Path, bundles: Sequence[Path], console: Console) -> int:
    """All steps in their order. Raises ResourceError when one of them does not come to its end."""
    for manifest in installed(bundles):
        manifest.verify_files()  # says at once what the worker would say after seconds
    files = sorted(samples.glob("**/*.dcm"))
    if not files:
        raise DataError(f"no DICOM file (*.dcm) below {samples}: run `make demo`, which writes samples first")
    headers = [dcmread(file, stop_before_pixels=True) for file in files]
    studies = {str(header.StudyInstanceUID) for header in headers}
    _introduce(headers, console)
    started = time.monotonic()
    with ExitStack() as stack, console.status("starting the PACS") as status:
        pacs, destination = stack.enter_context(_pacs(out))
        status.update("starting genu listen")
        port = stack.enter_context(_service(out, destination, bundles))
        _say(console, started, f"genu listen answers at GENU@{HOST}:{port}; results go to {pacs}")
        sender = send(files, port)
        _say(console, started, f"{len(files)} images sent by {sender}; a study is whole when nothing comes for 1 s")
        _wait(out / "data", len(studies), status, console, started)
        status.stop()
        received = [dcmread(file) for file in sorted((out / "pacs").iterdir()) if file.is_file()]
        _show(received, out, console)
        _say(console, started, "stopping the service")
    return 0


def _introduce(headers: Sequence[Dataset], console: Console) -> None:
    if any("PHANTOM" in str(header.get("PatientID", "")) for header in headers):
        text = (
            "The samples are PHANTOMS: drawn, no patient's knees. Grades on them mean nothing; the way is the real one."
        )
        console.print(text, style="bold yellow")
    elif any(str(header.get("ImageComments", "")).startswith(MADE) for header in headers):
        text = "The samples are MADE knees: drawn, no patient. What is said of them means nothing; the way is real."
        console.print(text, style="bold yellow")
    else:
        console.print("The samples are real knees (OAI crops of kl224, validation split, CC BY 4.0) wrapped as DX.")


def _say(console: Console, started: float, text: str) -> None:
    console.print(f"{time.monotonic() - started:5.1f} s  {text}", markup=False)


# ---- the parts


def dcmtk(name: str) -> str | None:
    """Path of a DCMTK program; pynetdicom's of the same name in the virtual environment do not count."""
    ours = Path(sys.prefix) / "bin"
    folders = [folder for folder in os.get_exec_path() if Path(folder) != ours]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return found if found and shutil.which("dcmdump", path=str(Path(found).parent)) else None


@contextmanager
def _pacs(out: Path) -> Iterator[tuple[str, list[str]]]:
    """Where results go: what to call it, and the options for `genu listen`."""
    folder = (out / "pacs").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    program = dcmtk("storescp")
    if program is None:
        yield f"the folder {folder} (DCMTK is not installed)", ["--to-folder", str(folder)]
        return
    port = free_port()
    command = [program, "--aetitle", "PACS", "--output-directory", str(folder), str(port)]
    with running(command, out / "pacs.log"):
        until(lambda: connects(port), START_SECONDS, "storescp does not answer", out / "pacs.log")
        yield f"DCMTK storescp PACS@{HOST}:{port}", ["--to-ae", f"PACS@{HOST}:{port}"]


@contextmanager
def _service(out: Path, destination: Sequence[str], bundles: Sequence[Path]) -> Iterator[int]:
    """`genu listen` on a free port; yields the port once it accepts."""
    log = out / "genu.log"
    command = [sys.executable, "-m", "plugin.cli", "listen", "--data-dir", str(out / "data"), "--port", "0"]
    command += ["--quiet", "1", *destination]
    command += [word for bundle in bundles for word in ("--bundle", str(bundle))]
    with running(command, log) as process:
        until(lambda: _port(log) or process.poll() is not None, START_SECONDS, "genu listen does not start", log)
        port = _port(log)
        if port is None:
            raise ResourceError(f"genu listen ended with status {process.returncode}: {last_line(log)}")
        yield port


def send(files: Sequence[Path], port: int) -> str:
    """C-STORE all files to the listener; returns by what. Raises ResourceError when one is not taken."""
    program = dcmtk("storescu")
    if program is not None:
        # Without TCP_NODELAY DCMTK loses 44 ms an image.
        command = [program, "--aetitle", "MODALITY", "--call", "GENU", HOST, str(port), *map(str, files)]
        finished = subprocess.run(
            command, env=os.environ | {"TCP_NODELAY": "1"}, capture_output=True, text=True, check=False
        )
        if finished.returncode:
            raise ResourceError(f"storescu failed: {finished.stderr.strip() or finished.returncode}")
        return "DCMTK storescu"
    headers = [dcmread(file, stop_before_pixels=True) for file in files]
    items = [
        Outgoing(file, str(header.SOPClassUID), str(header.SOPInstanceUID))
        for file, header in zip(files, headers, strict=True)
    ]
    with opened(CStoreDestination(host=HOST, port=port, ae_title="GENU"), items, "MODALITY") as session:
        for item in items:
            verdict = session.send(item)
            if verdict.outcome is not Outcome.STORED:
                raise ResourceError(f"the listener did not take {item.sop_uid}: {verdict.text}")
    return "pynetdicom"


def _wait(data_dir: Path, studies: int, status: Status, console: Console, started: float) -> None:
    """Until every study is scored and every object stored; raises ResourceError when that takes too long."""
    queue = Queue.open(load(None, {"data_dir": data_dir}))
    told = ""
    try:
        while time.monotonic() - started < RESULT_SECONDS:
            snapshot = queue.snapshot()
            if snapshot.dead_jobs or snapshot.dead_deliveries:
                reason = (snapshot.dead_jobs or snapshot.dead_deliveries)[0].error
                raise ResourceError(f"a study was given up: {reason}; see {data_dir.parent / 'genu.log'}")
            if (now := _progress(snapshot, studies)) != told:
                told = now
                status.update(told)
                if not console.is_terminal:
                    _say(console, started, told)
            if snapshot.jobs[JobState.DONE] >= studies and snapshot.is_empty:
                if console.is_terminal:
                    _say(console, started, told)
                return
            time.sleep(0.1)
    finally:
        queue.close()
    raise ResourceError(f"no results after {RESULT_SECONDS:.0f} s; see {data_dir.parent / 'genu.log'}")


def _progress(snapshot: Snapshot, studies: int) -> str:
    jobs = snapshot.jobs
    sent = sum(row.delivered for row in snapshot.destinations)
    owed = sum(row.pending for row in snapshot.destinations)
    return (
        f"{snapshot.instances} images received, {jobs[JobState.DONE]} of {studies} studies scored, "
        f"{sent} of {sent + owed} objects stored back"
    )


# ---- what came


def _show(received: Sequence[Dataset], out: Path, console: Console) -> None:
    for report in received:
        if report.SOPClassUID == REPORT_CLASS:
            console.print()
            console.print(render_tree(report), markup=False)
    console.print()
    console.print(f"DICOM objects in {(out / 'pacs').resolve()}: {len(received)}", markup=False)
    heatmaps = [dataset for dataset in received if "PixelData" in dataset]
    for number, heatmap in enumerate(heatmaps, start=1):
        side = {"L": "left", "R": "right"}.get(str(heatmap.get("Laterality") or heatmap.get("ImageLaterality")), "knee")
        picture = out / f"heatmap-{number}-{side}.png"
        _picture(heatmap).save(picture)
        console.print(f"heatmap as PNG: {picture.resolve()}", markup=False)
    _validate(out / "pacs", console)


def _picture(heatmap: Dataset) -> Image.Image:
    """Its one frame, or all of several beside each other, four in a row."""
    pixels = heatmap.pixel_array
    if pixels.ndim == 3:
        return Image.fromarray(pixels)
    rows, columns = pixels.shape[1:3]
    sheet = Image.new("RGB", (columns * min(_ACROSS, len(pixels)), rows * -(-len(pixels) // _ACROSS)))
    for place, frame in enumerate(pixels):
        sheet.paste(Image.fromarray(frame), (columns * (place % _ACROSS), rows * (place // _ACROSS)))
    return sheet


def _validate(folder: Path, console: Console) -> None:
    """What dciodvfy says of every object, where it is installed."""
    program = shutil.which("dciodvfy")
    if program is None:
        console.print("dciodvfy is not installed: the objects were not validated.")
        return
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = []
    for path in files:
        told = subprocess.run([program, str(path)], capture_output=True, check=False)
        text = (told.stdout + told.stderr).decode("utf-8", "replace")
        found += [f"{path.name}: {line}" for line in text.splitlines() if line.startswith("Error")]
    console.print(f"dciodvfy: {len(files)} objects, {len(found)} errors", markup=False)
    for line in found[:_LINES]:
        console.print(f"  {line}", markup=False)


def _port(log: Path) -> int | None:
    """The port that the listener announced in its log."""
    for line in log.read_text(encoding="utf-8").splitlines():
        if '"listener.ready"' in line:
            return int(json.loads(line)["port"])
    return None


if __name__ == "__main__":
    sys.exit(main())
