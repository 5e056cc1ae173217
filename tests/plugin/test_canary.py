"""No patient identity outside of DICOM: canaries in all text attributes, then a grep over all that is written."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from pydicom import dcmread

from plugin.jobs import Queue
from plugin.settings import load
from tests.phantoms import dx_chest, dx_knee, plant_canaries, write
from tests.plugin.standin import genu, service, standin_bundle

pytestmark = pytest.mark.skipif(shutil.which("storescu") is None, reason="needs DCMTK: apt-get install dcmtk")

CANARY = "ZEBRACANARY"
STEM = CANARY[:8]  # what fits into a date


def test_canaries_stay_inside_dicom(tmp_path: Path) -> None:
    good, chest, broken = (
        plant_canaries(dx_knee("L", seed=5), CANARY),
        plant_canaries(dx_chest(), CANARY),
        plant_canaries(dx_knee("R", seed=6), CANARY),
    )
    paths = [write(ds, tmp_path / "in" / f"{index}.dcm") for index, ds in enumerate((good, chest, broken))]
    _damage(paths[2])
    log, out, data = tmp_path / "log", tmp_path / "out", tmp_path / "data"
    with service(data, "--quiet", "1", "--to-folder", out, "--bundle", standin_bundle(), log=log) as port:
        for path in paths:
            subprocess.run(["storescu", "-aec", "GENU", "127.0.0.1", str(port), str(path)], check=True, timeout=60)
        queue = Queue.open(load(None, {"data_dir": data}))
        deadline = time.monotonic() + 90
        while len([job for job in queue.recent_jobs(9) if job.status]) < 3 or not queue.snapshot().is_empty:
            assert time.monotonic() < deadline, queue.snapshot()
            time.sleep(0.05)
        status = genu("status", "--data-dir", data), genu("status", "--json", "--data-dir", data)
        queue.close()
    assert all(CANARY in str(dcmread(path).PatientName) for path in out.iterdir())  # the plants are real
    said = "".join(part.stdout + part.stderr for part in status) + log.read_text()
    assert str(good.StudyInstanceUID) in said
    assert STEM.casefold() not in said.casefold()
    for database in data.glob("queue.sqlite*"):
        assert STEM.encode() not in database.read_bytes()
    assert [path for path in tmp_path.rglob("*") if STEM.casefold() in str(path).casefold()] == []


def _damage(path: Path) -> None:
    """Canaries where a date, an age and a decimal number belong: libraries like to quote such values."""
    content = path.read_bytes()
    for genuine in (b"19500101", b"20260101"):
        assert genuine in content
        content = content.replace(genuine, STEM.encode())
    path.write_bytes(content)
