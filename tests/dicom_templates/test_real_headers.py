"""Real files with odd headers (an invalid StudyDate, an age without unit, no character set): a result all the same."""

import re
import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest

from dicom_templates.checker import check_study, compare_identity
from dicom_templates.compose import compose
from inference.findings import Box, KLFinding, KneeFinding, Saliency, Side, SourceImage, StudyFindings
from tests.dicom_templates.factory import MODEL, bump, context, rendering

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
        dciodvfy = shutil.which("dciodvfy")
        if dciodvfy is not None:
            output = subprocess.run([dciodvfy, file], capture_output=True, check=False, timeout=60).stderr
            errors = [line for line in output.decode("utf-8", "replace").splitlines() if line.startswith("Error")]
            assert [e for e in errors if not any(re.fullmatch(p, e) for p in VALUE_COMPLAINTS)] == []
