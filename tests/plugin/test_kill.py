"""kill -9 at random moments: nothing accepted is lost, nothing arrives as two.

50 rounds here; `make soak` runs as many as GENU_SOAK_ROUNDS says (500).
"""

import os
import shutil
from pathlib import Path

import pytest

from tests.plugin.kill_rig import run_rounds

needs_dcmtk = pytest.mark.skipif(shutil.which("storescu") is None, reason="needs DCMTK: apt-get install dcmtk")


@needs_dcmtk
def test_fifty_kills(tmp_path: Path) -> None:
    print(run_rounds(tmp_path, rounds=50, seed=20261122, pause=(0.02, 0.5)))


@needs_dcmtk
@pytest.mark.soak
def test_soak(tmp_path: Path) -> None:
    rounds = os.environ.get("GENU_SOAK_ROUNDS")
    if rounds is None:
        pytest.skip("set GENU_SOAK_ROUNDS, as `make soak` does")
    print(run_rounds(tmp_path, rounds=int(rounds), seed=int(os.environ.get("GENU_SOAK_SEED", "1")), pause=(0.02, 0.5)))
