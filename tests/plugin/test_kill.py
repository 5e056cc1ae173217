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
def test_soak(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    asked_for = request.config.getoption("-m") == "soak"
    rounds = int(os.environ.get("GENU_SOAK_ROUNDS", "500" if asked_for else "0"))
    if not rounds:
        pytest.skip("hundreds of rounds: run `make soak`, or set GENU_SOAK_ROUNDS")
    print(run_rounds(tmp_path, rounds=rounds, seed=int(os.environ.get("GENU_SOAK_SEED", "1")), pause=(0.02, 0.5)))
