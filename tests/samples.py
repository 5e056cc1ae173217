"""Sample studies of real knees for the demo: `python -m tests.samples ../shared/data OUT`.

Crops of the `val` split of kl224 (OAI, CC BY 4.0, DOI 10.17632/56rmx5bjcr.1) wrapped as DX: both knees of one subject
side by side as a bilateral film, and one knee of another as a film of its own. The data are not in the repository.
"""

import argparse
import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.phantoms import wrap_dx, write

BILATERAL_SUBJECT = "9107980"  # right knee grade 3, left knee grade 0, as labelled
SINGLE_FILE = ("9023348", "L")  # grade 3, as labelled: the first such knee of the split
NOTE = "kl224 val, CC BY 4.0, 10.17632/56rmx5bjcr.1"


def read_crop(data: Path, subject: str, side: str) -> npt.NDArray[np.uint8]:
    """One 224 x 224 crop of the validation split, bright bone, as published."""
    with tarfile.open(data / "kl224" / "val.tar") as archive:
        member = archive.extractfile(f"val/{subject}{side}.jpg")
        if member is None:
            raise FileNotFoundError(f"val/{subject}{side}.jpg is not in {data}/kl224/val.tar")
        return np.asarray(Image.open(io.BytesIO(member.read())).convert("L"))


def label_of(data: Path, subject: str, side: str) -> int:
    """The Kellgren-Lawrence grade that readers gave."""
    with (data / "kl224" / "labels.csv").open(newline="") as table:
        return next(int(row["kl"]) for row in csv.DictReader(table) if row["file"] == f"val/{subject}{side}.jpg")


def write_samples(data: Path, folder: Path) -> list[Path]:
    """The two studies as DICOM files; returns their paths."""
    # Seen AP the patient's right knee lies on the left of the film, and columns run towards the patient's left.
    both = np.hstack([read_crop(data, BILATERAL_SUBJECT, side) for side in "RL"])
    subject, side = SINGLE_FILE
    described = {"StudyDescription": "Knee AP, real crop", "SeriesDescription": "Knee AP", "ImageComments": NOTE}
    films = {
        "bilateral.dcm": wrap_dx(
            both,
            "B",
            identity=f"kl224-{BILATERAL_SUBJECT}",
            attributes=described
            | {"PatientOrientation": ["L", "F"], "PatientName": "OAI^KNEES", "PatientID": BILATERAL_SUBJECT},
        ),
        "single_left.dcm": wrap_dx(
            read_crop(data, subject, side),
            side,
            identity=f"kl224-{subject}{side}",
            attributes=described | {"PatientName": "OAI^KNEE", "PatientID": subject},
        ),
    }
    return [write(ds, folder / name) for name, ds in films.items()]


def main() -> None:
    """Write the sample studies and say what readers had graded."""
    parser = argparse.ArgumentParser(description="Write sample studies of real knees (val split of kl224).")
    parser.add_argument("data", type=Path, help="the folder that holds kl224/")
    parser.add_argument("folder", type=Path, help="where the DICOM files go")
    arguments = parser.parse_args()
    for path in write_samples(arguments.data, arguments.folder):
        print(path)
    told = ", ".join(f"{side} grade {label_of(arguments.data, BILATERAL_SUBJECT, side)}" for side in "RL")
    print(f"as graded by readers: bilateral {told}; single L grade {label_of(arguments.data, *SINGLE_FILE)}")


if __name__ == "__main__":
    main()
