"""DCMTK's programs, in an activated environment too: pynetdicom installs its own storescu and storescp there."""

import os
import sys
from pathlib import Path

OURS = Path(sys.executable).parent

os.environ["PATH"] = os.pathsep.join(
    folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(folder) != OURS
)
