"""The picture of docs/explain.md: a phantom film of two knees, one with metal in it, as `genu explain` tells of it.

python -m tests.explain_figure docs/explain.jpg
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset

from plugin import cli
from tests import phantom_pixels, phantoms
from training.metalwork import with_implant

WIDTH = 1000  # pixels of the picture in the documentation


def film() -> Dataset:
    """Both knees; the one at the right of the film with an implant; the letter R beside the other one."""
    pixels = phantom_pixels.bilateral(900, 1400, seed=4)
    knee = pixels[200:700, 800:1300]
    metal = with_implant(knee, np.random.default_rng(3))
    knee[:] = np.where(metal > 0.8, metal, knee)
    attributes = {"PatientOrientation": ["L", "F"]}
    return phantoms.wrap_dx(lettered(pixels), "B", identity="explain-figure", attributes=attributes)


def lettered(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The film as uint8, with the letter."""
    grey = np.clip(pixels * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.putText(grey, "R", (60, 160), cv2.FONT_HERSHEY_DUPLEX, 2.6, 235, 6, cv2.LINE_AA))


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="Make the picture of docs/explain.md.")
    parser.add_argument("path", type=Path)
    path = parser.parse_args().path
    with tempfile.TemporaryDirectory() as folder:
        given = phantoms.write(film(), Path(folder) / "film.dcm")
        cli.main(["explain", str(given), "--out", folder, "--png"])
        (made,) = Path(folder).glob("*.png")
        with Image.open(made) as picture:
            rows = round(picture.height * WIDTH / picture.width)
            picture.resize((WIDTH, rows), Image.Resampling.LANCZOS).save(path, quality=80, optimize=True)


if __name__ == "__main__":
    main()
