"""Real files with odd headers (an invalid StudyDate, an age without unit, no character set): a result all the same."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_templates.checker import check_study, compare_identity
from dicom_templates.compose import compose
from inference.findings import Box, Evidence, KLFinding, KneeFinding, Saliency, Side, SourceImage, StudyFindings
from inference.mr_findings import Grid, SeenSlice, VolumeFinding
from tests.dicom_templates.factory import MODEL, bump, context, rendering
from tests.dicom_templates.mr_findings import progression

FILES = [
    "knee_mri_enhanced_multiframe.dcm",
    "knee_mri_no_description.dcm",
    "knee_mri_single_slice.dcm",
    "not_a_knee_chest_cr_mono1_j2k.dcm",
    "not_a_knee_chest_dx.dcm",
    "not_a_knee_small_dx.dcm",
]
VALUE_COMPLAINTS = (  # about what stood in the source and was copied
    r"Error - Value invalid for this VR - \(0x0008,0x00(20|30)\) .*",
    r"Error - Value invalid for this VR - \(0x0010,0x1010\) AS .*",
    r"Error - Dicom dataset contains invalid data values for Value Representations",
)


@pytest.mark.parametrize("name", FILES)
def test_a_result_is_attached_to_a_real_study(name: str, shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "dicom" / name
    header, again = (pydicom.dcmread(path, stop_before_pixels=True) for _ in range(2))
    size = (int(again.Rows), int(again.Columns))
    source = SourceImage(again.SOPClassUID, again.SOPInstanceUID, again.SeriesInstanceUID, *size)
    box = Box(0.0, 0.0, float(size[1]), float(size[0]))
    chances = KLFinding(1, (0.1, 0.6, 0.1, 0.1, 0.1), 1.5)
    knee = KneeFinding(Side.LEFT, source, box, chances, MODEL, Saliency(bump(0.3, 0.4), box))
    findings = StudyFindings(
        again.StudyInstanceUID,
        (knee,),
        radiographs=1,
        models=(MODEL,),
        looked_at=(source,),
        renderings={source.sop_instance_uid: rendering(size)},
    )
    objects = compose(findings, [header], context()).all
    assert check_study(objects) == []
    for number, dataset in enumerate(objects):
        assert compare_identity(dataset, again) == []
        file = tmp_path / f"{number}.dcm"
        pydicom.dcmwrite(file, dataset, enforce_file_format=True)
        assert errors_of(file) == []


def errors_of(file: Path) -> list[str]:
    """What dciodvfy complains about besides copied values; nothing where it is not installed."""
    dciodvfy = shutil.which("dciodvfy")
    if dciodvfy is None:
        return []
    output = subprocess.run([dciodvfy, file], capture_output=True, check=False, timeout=60).stderr
    errors = [line for line in output.decode("utf-8", "replace").splitlines() if line.startswith("Error")]
    return [error for error in errors if not any(re.fullmatch(p, error) for p in VALUE_COMPLAINTS)]


def volume_on(header: pydicom.Dataset) -> VolumeFinding:
    """A finding made by hand on one real slice."""
    source = SourceImage(
        header.SOPClassUID, header.SOPInstanceUID, header.SeriesInstanceUID, int(header.Rows), int(header.Columns)
    )
    box = Box(0.0, 0.0, float(source.columns), float(source.rows))
    cosines = np.array(header.ImageOrientationPatient, float)
    across, down, step = cosines[:3], cosines[3:], np.cross(cosines[:3], cosines[3:])
    position = tuple(map(float, header.ImagePositionPatient))
    one = SeenSlice(source, 0, position, 1.0, Saliency(bump(0.3, 0.4), box), rendering((source.rows, source.columns)))
    return VolumeFinding(
        side=Side.LEFT,
        series_instance_uid=header.SeriesInstanceUID,
        sequence="sagittal IW TSE",
        chosen_by="timing",
        outcome=progression(),
        slices=(one,),
        total=1,
        grid=Grid(tuple(across), tuple(down), tuple(step), *map(float, header.PixelSpacing)),
        peak=0,
        region=box,
        evidence=(Evidence("plane", "ImageOrientationPatient", "sagittal", "sagittal"),),
    )


@pytest.mark.parametrize("name", ["knee_mri_no_description.dcm", "knee_mri_single_slice.dcm"])
def test_a_result_on_slices_is_attached_to_a_real_study(name: str, shared_data: Path, tmp_path: Path) -> None:
    header, again = (pydicom.dcmread(shared_data / "dicom" / name, stop_before_pixels=True) for _ in range(2))
    found = volume_on(again)
    findings = StudyFindings(
        again.StudyInstanceUID,
        volumes=(found,),
        mr_images=1,
        models=(found.model,),
        looked_at=tuple(one.source for one in found.slices),
    )
    composed = compose(findings, [header], context())
    assert check_study(composed.all) == []
    assert len(composed.volumes) == 2, "all of them have a frame of reference"
    for number, dataset in enumerate(composed.all):
        assert compare_identity(dataset, again) == []
        file = tmp_path / f"{number}.dcm"
        pydicom.dcmwrite(file, dataset, enforce_file_format=True)
        assert errors_of(file) == []
