"""Debian 13's Orthanc 1.12 beside the system's own: fetched by apt, run by its own loader, without root or chroot.

    python -m tests.plugin.orthanc_trixie            fetches it (60 MB, once) and prints how it is started

apt works in a folder of its own, with an empty list of installed packages, so that it resolves and fetches every
library down to libc; nothing is installed. The packages are unpacked (300 MB) into .venv, where `make clean` removes
them.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv" / "orthanc-trixie"
MIRROR = "http://deb.debian.org/debian"
SUITE = "trixie"
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = ("orthanc", "orthanc-python", "orthanc-dicomweb")
FETCH_SECONDS = 300


class Missing(Exception):
    """It is not here and cannot be fetched; the text says what is missing."""


@dataclass(frozen=True)
class Program:
    """An Orthanc that can be started: what to run before the configuration's path, its plugins, its environment."""

    command: tuple[str, ...]
    plugins: Path
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@cache
def trixie() -> Program:
    """Orthanc 1.12; fetched at the first call on a machine. Raises Missing."""
    if not FOLDER.is_dir():
        _fetch()
    (loader,) = FOLDER.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*")
    return Program(
        command=(str(loader), "--library-path", str(loader.parent), str(FOLDER / "usr" / "sbin" / "Orthanc")),
        plugins=FOLDER / "usr" / "share" / "orthanc" / "plugins",
        # Its DCMTK looks for the dictionary below /usr. Its Python finds its own library by the loader's path.
        environment={"DCMDICTPATH": str(FOLDER / "usr" / "share" / "dcmtk" / "dicom.dic")},
    )


def _fetch() -> None:
    """Fetch, unpack, and move into place as a whole, so that a run that was cut off leaves nothing that looks done."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise Missing(f"fetching Debian 13's Orthanc needs {program}, which is not installed")
    if not KEYS.is_file():
        raise Missing(f"fetching Debian 13's Orthanc needs {KEYS}: apt-get install debian-archive-keyring")
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent, prefix="orthanc-trixie-") as scratch:
        archives, unpacked = _download(Path(scratch)), Path(scratch) / "root"
        for archive in archives:
            subprocess.run(["dpkg-deb", "--extract", archive, unpacked], check=True, capture_output=True)
        try:
            unpacked.rename(FOLDER)
        except OSError:  # another run was faster
            if not FOLDER.is_dir():
                raise


def _download(scratch: Path) -> list[Path]:
    """The packages and all that they depend on."""
    for folder in ("lists/partial", "archives/partial", "none"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "installed").touch()
    (scratch / "sources.list").write_text(f"deb [signed-by={KEYS}] {MIRROR} {SUITE} main\n")
    options = {
        "Dir::State": scratch,
        "Dir::State::status": scratch / "installed",
        "Dir::Cache": scratch,
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": scratch / "none",
        "Dir::Etc::preferences": scratch / "preferences",
        "Dir::Etc::preferencesparts": scratch / "none",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",  # root's apt would fetch as _apt, who may not write here
        "Acquire::Languages": "none",
        "APT::Update::Error-Mode": "any",  # otherwise only a warning when the mirror does not answer
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "20",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    for command in ([*apt, "update"], [*apt, "-y", "--download-only", "install", *PACKAGES]):
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=FETCH_SECONDS,
                env=os.environ | {"LC_ALL": "C.UTF-8"},
            )
        except subprocess.TimeoutExpired as error:
            raise Missing(f"fetching Debian 13's Orthanc from {MIRROR} took more than {FETCH_SECONDS} s") from error
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("E: ")] or ["no reason given"]
            raise Missing(f"apt-get could not fetch Debian 13's Orthanc from {MIRROR}: {errors[0]}")
    return sorted((scratch / "archives").glob("*.deb"))


def main() -> int:
    """Fetch it and say how it is started."""
    try:
        found = trixie()
    except Missing as reason:
        print(reason, file=sys.stderr)
        return 1
    words = [f"{name}={shlex.quote(value)}" for name, value in found.environment.items()]
    print(*words, *map(shlex.quote, found.command), "CONFIG.json")
    print(f"plugins: {found.plugins}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
