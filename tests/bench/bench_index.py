"""`genu-train index` against a loop over `pydicom.dcmread`, on the same generated files, in turn in one run.

    python -m tests.bench.bench_index --count 20000

Where the real files are there, the slices of a knee series are measured as well.

The files have headers as equipment writes them: about 150 attributes, sequences, private blocks of which some are
long, and 128 x 128 pixels of 16 bits. Half are DX and half MR, in turn; a quarter is in implicit VR. Within a folder
they differ as the images of a series do: numbers, positions, times and UIDs of other lengths, here and there an
element more or less. They lie in memory where that can be had: what is measured is the work, not the disk, which would
be the same for all.
"""

import argparse
import os
import random
import resource
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.datadict import DicomDictionary, keyword_for_tag  # type: ignore[attr-defined]
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.phantoms import DX_PRESENTATION, MR, code, wrap_dx
from training.index import index_export
from training.index_columns import COLUMNS

COUNT, ROUNDS = 20_000, 3
_FOLDER, _KINDS = 100, 4
MEMORY = Path("/dev/shm")
_SERIES = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom" / "knee_mri_sag_dess.tar.xz"
_NUMBER, _PATIENT = "99999999", "PATIENT9999999"
_VALUES = {
    **{"CS": "PLAIN_VALUE", "LO": "Some text of an ordinary length", "SH": "Short text", "DS": "12.3456", "IS": "17"},
    **{"DA": "20240131", "TM": "101112.131415", "UI": "1.2.840.113619.2.30.1.17622955", "US": 3, "AS": "061Y"},
    **{"PN": "Phantom^Not^A^Person", "FD": 1.5, "UL": 70000, "DT": "20240131101112"},
}


def rich(sop_class: str = DX_PRESENTATION, attributes: int = 150, side: int = 128) -> Dataset:
    """A film or an MR slice with so many attributes, sequences, private blocks and `side` x `side` pixels."""
    picture = np.linspace(0, 1, side * side).reshape(side, side)
    ds = wrap_dx(picture, "L", bits=12, sop_class=sop_class, identity="bench-index")
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.10.511.9.{_NUMBER}"
    ds.PatientID = _PATIENT
    if sop_class == MR:
        ds.Modality = "MR"
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-81.5, -105.25, 77.125], [0, 1, 0, 0, 0, -1]
        ds.PixelSpacing, ds.EchoTime, ds.ScanningSequence = [0.364583, 0.364583], "4.71", ["SE", "IR"]
    for name in ("ProcedureCodeSequence", "AnatomicRegionSequence", "RequestedProcedureCodeSequence"):
        setattr(ds, name, Items([code("72696002", "SCT", "Knee region")]))
    for name in ("ReferencedStudySequence", "SourceImageSequence", "ReferencedPerformedProcedureStepSequence"):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, "1.2.840.113619.2.30.1.17622955.1"
        setattr(ds, name, Items([item, item]))
    for group in (0x0009, 0x0019, 0x0029, 0x0045):
        block = ds.private_block(group, f"MAKER {group:04X}", create=True)
        for element in range(8):
            block.add_new(element, "LO", f"private value {element}")
        block.add_new(0x10, "OB", bytes(6000 if group == 0x0029 else 64))
    _fill(ds, attributes)
    return ds


def _fill(ds: Dataset, attributes: int) -> None:
    """More attributes of the groups that images use, until there are so many."""
    ordinary = [tag for tag in sorted(DicomDictionary) if tag >> 16 in (0x08, 0x10, 0x18, 0x20, 0x28, 0x40)]
    for tag in ordinary[:: len(ordinary) // (3 * attributes) + 1]:
        vr, retired = DicomDictionary[tag][0], DicomDictionary[tag][3]
        if len(ds) >= attributes:
            return
        if vr in _VALUES and not retired and tag not in ds and "Issuer" not in keyword_for_tag(tag):
            ds.add_new(tag, vr, _VALUES[vr])


def varied(ds: Dataset, number: int) -> Dataset:
    """The data set as number so and so of its series would have it: other lengths, in every tenth other elements."""
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID}.{number}"
    ds.InstanceNumber = number
    ds.ContentTime = f"1011{number % 60:02}" + (f".{number}" if number % 3 else "")
    ds.SourceImageSequence[0].ReferencedSOPInstanceUID += f".{number}"
    if ds.Modality == "MR":
        ds.ImagePositionPatient = [-81.5, round(-105.25 + number / 8, 3), round(77.125 - number / 3, 5)]
        ds.SliceLocation = round(number * 0.7, 1)
    if number % 10 == 9:
        ds.PatientComments = "Moved"
        del ds.BodyPartExamined
    return ds


def write_files(folder: Path, count: int) -> list[str]:
    """So many files, 100 to a folder of a patient; the folders differ in identifiers only."""
    kinds = []
    for number in range(min(count, _FOLDER)):
        explicit = number % _KINDS != _KINDS - 1
        ds = varied(rich((DX_PRESENTATION, DX_PRESENTATION, MR, MR)[number % _KINDS]), number)
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian
        path = folder / "kind.dcm"
        ds.save_as(path, enforce_file_format=True)
        kinds.append(path.read_bytes())
        path.unlink()
    paths = []
    for number in range(count):
        patient = folder / f"{number // _FOLDER:05}"
        if number % _FOLDER == 0:
            patient.mkdir()
        path = patient / f"{number:08}.dcm"
        data = kinds[number % _FOLDER].replace(_NUMBER.encode(), f"{10_000_000 + number}".encode())
        path.write_bytes(data.replace(_PATIENT.encode(), f"PATIENT{number // _FOLDER:07}".encode()))
        paths.append(str(path))
    return paths


def plain_loop(paths: Sequence[str]) -> None:
    """What a script without an index does."""
    for path in paths:
        pydicom.dcmread(path)


def lean_loop(paths: Sequence[str]) -> None:
    """The same as lean as pydicom offers it: only the index's attributes, and no pixels."""
    tags = [column.keywords[0] for column in COLUMNS]
    for path in paths:
        pydicom.dcmread(path, specific_tags=list(tags), stop_before_pixels=True)


def measure(_bundle: Path, scratch: Path, count: int = COUNT, rounds: int = ROUNDS) -> list[tuple[str, str, str]]:
    """Rows: what, files a second, how many times the plain loop."""
    room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * 1024**3
    with tempfile.TemporaryDirectory(prefix="genu-bench-", dir=MEMORY if room else scratch) as name:
        return _measure(Path(name), count, rounds)


def _measure(scratch: Path, count: int, rounds: int) -> list[tuple[str, str, str]]:
    folder = scratch / "export"
    folder.mkdir()
    rows = _compared(write_files(folder, count), folder, rounds, "generated files")
    shutil.rmtree(folder)
    if _SERIES.exists():
        folder.mkdir()
        rows += _compared(copied_series(folder), folder, rounds, "slices of a real knee series, 10 times the same 80")
        shutil.rmtree(folder)
    folder.mkdir()
    return rows + _compared(write_unlike(folder), folder, rounds, "files of which no two have the same elements")


def copied_series(folder: Path, copies: int = 10) -> list[str]:
    """The slices of a real series, several times: too few files would measure the ends of a run only."""
    paths = []
    with tarfile.open(_SERIES) as archive:
        slices = [file.read() for member in archive if (file := archive.extractfile(member)) is not None]
    for number, data in enumerate(slices * copies):
        path = folder / f"{number // len(slices):05}" / f"{number % len(slices):08}.dcm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        paths.append(str(path))
    return paths


def write_unlike(folder: Path, count: int = 1000) -> list[str]:
    """The generated files, each without a quarter of its elements by chance: the worst for a reader that compares."""
    chance, paths = random.Random(0), []
    needed = {"SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "PixelData"}
    for number in range(count):
        ds = varied(rich((DX_PRESENTATION, MR)[number % 2]), number)
        for element in list(ds):
            if element.keyword not in needed and chance.random() < 0.25:
                del ds[element.tag]
        path = folder / f"{number:08}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(str(path))
    return paths


def _compared(paths: list[str], folder: Path, rounds: int, what: str) -> list[tuple[str, str, str]]:
    count, out = len(paths), folder.with_name("index.parquet")
    _fresh(out)
    attributes = sum(1 for _ in pydicom.dcmread(paths[0]).iterall())
    contenders: dict[str, Callable[[], object]] = {
        "a loop over dcmread": lambda: plain_loop(paths),
        "dcmread, specific_tags, stop_before_pixels": lambda: lean_loop(paths),
        "genu-train index, 1 process": lambda: index_export(folder, _fresh(out), workers=1),
        f"genu-train index, at most {_cpus()} processes": lambda: index_export(folder, _fresh(out), workers=_cpus()),
        "genu-train index again, nothing changed": lambda: index_export(folder, out),
        "find with size and time, as many files": lambda: _find(folder),
    }
    best: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):  # in turn, so that a passing load falls on all
        for title, run in contenders.items():
            began, worked = time.perf_counter(), _worked()
            run()
            took, worked = time.perf_counter() - began, _worked() - worked
            before = best.get(title, (took, worked))
            best[title] = min(before[0], took), min(before[1], worked)
    plain = best["a loop over dcmread"]
    rows = [
        (
            title,
            f"{count / took:,.0f} files/s, {1e6 * worked / count:,.0f} µs CPU a file",
            f"{plain[0] / took:.1f} (CPU {plain[1] / max(worked, 1e-3):.1f})",
        )
        for title, (took, worked) in best.items()
    ]
    size = sum(Path(path).stat().st_size for path in paths[:4]) / 4 / 1024
    return [(f"{count:,} {what}: {attributes} attributes and {size:.0f} KiB", "", ""), *rows]


def _worked() -> float:
    """Seconds of CPU of this process and of those that it has waited for: what load from elsewhere disturbs least."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _fresh(out: Path) -> Path:
    out.unlink(missing_ok=True)
    return out


def _cpus() -> int:
    return max(2, len(os.sched_getaffinity(0)))


def _find(folder: Path) -> None:
    command = ["find", str(folder), "-type", "f", "-printf", "%s %T@ %p\n"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=COUNT, help=f"files (default {COUNT})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"the best of so many (default {ROUNDS})")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="genu-bench-") as name:
        for row in measure(Path(), Path(name), options.count, options.rounds):
            print(f"{row[0]:46} {row[1]:>38} {row[2]:>18}")


if __name__ == "__main__":
    main()
