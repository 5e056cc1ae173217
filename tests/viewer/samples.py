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
    with_crops = (data / "kl224" / "val.tar").exists()
    found = samples.write_samples(data, folder) if with_crops else phantoms.write_samples(folder)
    described = {"PatientName": "PHANTOM^LATERAL", "StudyDescription": "PHANTOM Knee lateral, to be refused"}
    lateral = phantoms.dx_lateral("R", identity="viewer-lateral", attributes=described)
    found.append(phantoms.write(lateral, folder / "lateral.dcm"))
    for slice_ in phantoms.mr_knee("viewer-mr", slices=12):
        slice_.PatientName, slice_.StudyDescription = "PHANTOM^SAGITTAL", "PHANTOM Knee MR, nothing to score"
        slice_.SeriesDescription, slice_.PixelSpacing = "PHANTOM Knee sagittal", [2.0, 2.0]
        found.append(phantoms.write(slice_, folder / "mr" / f"{slice_.InstanceNumber:02d}.dcm"))
    return found


def main() -> None:
    """Write the samples."""
    parser = argparse.ArgumentParser(description="Write the studies that `make viewer` shows.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print(f"{len(write_samples(folder))} files in {folder}")


if __name__ == "__main__":
    main()
