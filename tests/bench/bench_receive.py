"""Images received a second: Genu's listener against DCMTK's storescp, side by side in one run.

    python -m tests.bench.bench_receive --count 200 --size 2.1

The sender is storescu with TCP_NODELAY=1 (without it DCMTK loses 44 ms an image). storescp does not fsync: the line
"disk alone" shows what the same durable writes cost without any network, which no durable receiver can undercut with
one association.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from plugin.storage import InstanceStore, file_meta

HOST = "127.0.0.1"
SERVICE = """
import sys, threading
from pathlib import Path
from plugin import logs
from plugin.settings import load
from plugin.supervisor import reception
logs.configure("warning")
settings = load(None, {"data_dir": Path(sys.argv[1]), "listener": {"port": 0}})
with reception(settings) as (listener, queue):
    print(listener.port, flush=True)
    threading.Event().wait()
"""


@dataclass(frozen=True)
class Rate:
    """One measurement."""

    images: int
    megabytes: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.images / self.seconds:8.0f} images/s {self.megabytes / self.seconds:8.0f} MB/s"


def make_images(folder: Path, count: int, size: float) -> list[Path]:
    """`count` DX phantoms of `size` MB with random pixels, of one study."""
    folder.mkdir(parents=True)
    study, series, files = generate_uid(), generate_uid(), []
    for number in range(count):
        ds = Dataset()
        ds.SOPClassUID = DigitalXRayImageStorageForPresentation
        ds.SOPInstanceUID = generate_uid()
        ds.PatientID = "PHANTOM"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
        ds.PixelData = os.urandom(int(size * 1e6) // 2 * 2)
        ds["PixelData"].VR = "OW"
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        files.append(folder / f"{number:05}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
    return files


def send(port: int, files: Sequence[Path], associations: int) -> float:
    """Seconds until all files are sent by so many storescu at once."""
    environment = os.environ | {"TCP_NODELAY": "1"}
    shares = [files[number::associations] for number in range(associations)]
    began = time.perf_counter()
    senders = [
        subprocess.Popen(["storescu", HOST, str(port), *map(str, share)], env=environment) for share in shares if share
    ]
    if max(sender.wait() for sender in senders):
        raise SystemExit("storescu failed: see above")
    return time.perf_counter() - began


@contextmanager
def genu(folder: Path) -> Iterator[int]:
    """Genu's listener without workers, in a process of its own; its port."""
    child = subprocess.Popen([sys.executable, "-c", SERVICE, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield int(child.stdout.readline())
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """DCMTK's storescp, one process for each association; its port."""
    folder.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    child = subprocess.Popen(
        ["storescp", "--fork", "-od", str(folder), str(port)],
        start_new_session=True,
        env=os.environ | {"TCP_NODELAY": "1"},
    )
    try:
        wait_for(port)
        yield port
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()


def wait_for(port: int) -> None:
    """Until something listens there."""
    for _ in range(200):
        if subprocess.run(["echoscu", HOST, str(port)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def disk_alone(folder: Path, files: Sequence[Path]) -> float:
    """Seconds for the same durable writes from memory, by one thread."""
    store = InstanceStore(folder)
    meta = file_meta("1.2", "1.2", "1.2", "")
    contents = [file.read_bytes() for file in files]
    began = time.perf_counter()
    for content in contents:
        with store.part(meta) as part:
            part.write(memoryview(content))
            part.keep()
            part.release()
    seconds = time.perf_counter() - began
    store.close()
    return seconds


def measure(
    receiver: Callable[[Path], AbstractContextManager[int]], folder: Path, files: Sequence[Path], associations: int
) -> Rate:
    """Receive all files but the first, which is the warm-up; what was received is removed."""
    warm_up, *files = files
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    with receiver(folder) as port:
        send(port, [warm_up], 1)
        seconds = send(port, files, associations)
    shutil.rmtree(folder)
    return Rate(len(files), megabytes, seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="images (default 200)")
    parser.add_argument("--size", type=float, default=2.1, help="size of each in MB (default 2.1)")
    parser.add_argument("--folder", type=Path, help="where to write; its file system is what is measured")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many is printed (default 3)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="genu-bench-") as name:
        root = Path(name)
        files = make_images(root / "images", options.count + 1, options.size)
        print(f"{options.count} images of {options.size} MB, storescu with TCP_NODELAY=1, best of {options.rounds}")
        for associations in (1, 4):
            for title, receiver in (("Genu (durable)", genu), ("storescp --fork", storescp)):
                rates = [measure(receiver, root / "received", files, associations) for _ in range(options.rounds)]
                best = min(rates, key=lambda rate: rate.seconds)
                print(f"{title:16} {associations} association{'s' if associations > 1 else ' '} {best}", flush=True)
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        print(f"{'disk alone':16} {'(1 thread)':14} {Rate(len(files), megabytes, disk_alone(root / 'disk', files))}")


if __name__ == "__main__":
    main()
