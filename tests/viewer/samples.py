"""What `make viewer` shows: `python -m tests.viewer.samples OUT`.

The demo's studies (real crops where ../shared has them, else phantoms), and two phantoms: a lateral film, which is
refused, and an MR study, in which there is nothing to score.
"""

import argparse
from pathlib import Path

from tests import phantoms, samples

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def write_samples(folder: Path, data: Path = SHARED) -> list[Path]:
    """The files, in a folder for each study."""
    found = samples.write_samples(data, folder) if has_crops(data) else phantoms.write_samples(folder)
    described = {"PatientName": "PHANTOM^LATERAL", "StudyDescription": "PHANTOM Knee lateral, to be refused"}
    lateral = phantoms.dx_lateral("R", identity="viewer-lateral", attributes=described)
    found.append(phantoms.write(lateral, folder / "lateral.dcm"))
    for slice_ in phantoms.mr_knee("viewer-mr", slices=12):
        slice_.PatientName, slice_.StudyDescription = "PHANTOM^SAGITTAL", "PHANTOM Knee MR, nothing to score"
        slice_.SeriesDescription, slice_.PixelSpacing = "PHANTOM Knee sagittal", [2.0, 2.0]
        found.append(phantoms.write(slice_, folder / "mr" / f"{slice_.InstanceNumber:02d}.dcm"))
    return found


def has_crops(data: Path = SHARED) -> bool:
    """Whether the real crops are there."""
    return (data / "kl224" / "val.tar").exists()


def main() -> None:
    """Write the samples."""
    parser = argparse.ArgumentParser(description="Write the studies that `make viewer` shows.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    write_samples(folder)
    if has_crops():
        print("The samples are real knees (OAI crops of kl224, validation split, CC BY 4.0) and two phantoms.")
    else:
        print("The samples are PHANTOMS: drawn, no patient's knees. Grades on them mean nothing.")


if __name__ == "__main__":
    main()
