"""Films to measure with: real crops of kl224's `val` split where ../shared is, generated phantoms elsewhere."""

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests import phantom_pixels
from tests.phantoms import wrap_dx, write

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
ROWS, COLUMNS = 2500, 2000  # of a film as a detector gives it


def kind() -> str:
    """What `write_knees` writes, in words."""
    return "real crops of 224 px (kl224 val)" if (SHARED / "kl224").is_dir() else "phantoms of one knee"


def write_knees(folder: Path, count: int) -> list[Path]:
    """`count` studies of one knee each."""
    if not (SHARED / "kl224").is_dir():
        return [_phantom(folder, number) for number in range(count)]
    with (SHARED / "kl224" / "labels.csv").open(newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["split"] == "val"][:count]
    with tarfile.open(SHARED / "kl224" / "val.tar") as archive:
        return [_crop(archive, row, folder) for row in rows]


def write_film(folder: Path) -> Path:
    """One knee on a whole film: 2500 x 2000, 12 of 16 bits, uncompressed."""
    small = Image.fromarray(phantom_pixels.knee("L", seed=0, narrowing=0.3).astype(np.float32))
    pixels = np.asarray(small.resize((COLUMNS, ROWS), Image.Resampling.BICUBIC)).clip(0, 1)
    return write(wrap_dx(pixels, "L", identity="bench-film", bits=12), folder / "film.dcm")


def _phantom(folder: Path, number: int) -> Path:
    pixels = phantom_pixels.knee("LR"[number % 2], seed=number, narrowing=(number % 5) / 5)
    return write(wrap_dx(pixels, "LR"[number % 2], identity=f"bench-{number}", bits=12), folder / f"{number:04}.dcm")


def _crop(archive: tarfile.TarFile, row: dict[str, str], folder: Path) -> Path:
    member = archive.extractfile(row["file"])
    assert member is not None
    pixels = np.asarray(Image.open(io.BytesIO(member.read())).convert("L"))
    name = Path(row["file"]).stem
    return write(wrap_dx(pixels, row["side"], identity=f"bench-{name}"), folder / f"{name}.dcm")
