"""The demonstration runs where DCMTK is not installed, and says what it shows."""

import os
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from PIL import Image

from plugin.demo import dcmtk
from tests import phantoms
from tests.plugin.standin import ROOT, standin_bundle


def test_the_demonstration_without_dcmtk(tmp_path: Path) -> None:
    phantoms.write_samples(tmp_path / "samples")
    folders = ["--samples", tmp_path / "samples", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "plugin.demo", *folders, "--bundle", standin_bundle()],
        cwd=ROOT,
        env=os.environ | {"PATH": os.defpath.replace("/usr/bin", "/nowhere").replace("/bin", "/nowhere")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PHANTOMS" in done.stdout
    assert "sent by pynetdicom" in done.stdout and "DCMTK is not installed" in done.stdout
    assert done.stdout.count("Imaging Measurement Report") == 2
    stored = [pydicom.dcmread(path) for path in (tmp_path / "out" / "pacs").iterdir()]
    assert sorted(str(dataset.Modality) for dataset in stored) == ["OT", "OT", "OT", "SR", "SR"]
    for name in ("heatmap-1", "heatmap-2", "heatmap-3"):
        (picture,) = (tmp_path / "out").glob(f"{name}-*.png")
        assert str(picture) in done.stdout
        with Image.open(picture) as image:
            assert image.mode == "RGB"


def test_pynetdicoms_programs_are_not_taken_for_dcmtk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `pip install pynetdicom` puts a storescu of its own into the virtual environment.
    program = tmp_path / "storescu"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dcmtk("storescu") is None
    (tmp_path / "dcmdump").write_text("#!/bin/sh\n")
    (tmp_path / "dcmdump").chmod(0o755)
    assert dcmtk("storescu") == str(program)
