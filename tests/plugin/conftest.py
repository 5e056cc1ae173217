"""DCMTK's programs, also in an activated environment: pynetdicom installs a storescu and a storescp of its own there."""

import os
import sys
from pathlib import Path

OURS = Path(sys.executable).parent

os.environ["PATH"] = os.pathsep.join(
    folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(folder) != OURS
)
