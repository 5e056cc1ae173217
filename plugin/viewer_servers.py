"""The two servers of `make viewer`: an Orthanc with Genu in it, and nginx with the OHIF viewer in front of it.

Both answer this machine only. Between them there is a password that is made anew for each run.
"""

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from inference.errors import ConfigurationError, ResourceError
from plugin.children import HOST, connects, free_port, last_line, running, until
from plugin.settings import HttpEndpoint
from plugin.web import WebError, WebServer

ROOT = Path(__file__).resolve().parents[1]
OHIF = Path(__file__).resolve().parent / "ohif"
PORT = 3000  # of the viewer, where it is free and none was asked for
USER = "viewer"
START_SECONDS = 60.0


@dataclass(frozen=True)
class Archive:
    """A running Orthanc: its process, its HTTP port, and the password of its only user."""

    process: subprocess.Popen[bytes]
    port: int
    password: str = field(repr=False)
    log: Path

    def open(self) -> WebServer:
        """A session with it."""
        return WebServer(_endpoint(self.port, self.password))


@dataclass(frozen=True)
class Front:
    """A running nginx: its process, and where browsers go."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path


def ohif_folder() -> Path:
    """Where .ci/setup puts OHIF's built files, in the version that plugin/ohif/pinned.txt names."""
    version = (OHIF / "pinned.txt").read_text(encoding="ascii").split()[0]
    return Path(sys.prefix) / f"ohif-{version}"


@contextmanager
def orthanc(out: Path, bundle: Path | None) -> Iterator[Archive]:
    """Orthanc with Genu in it, which keeps everything in out/orthanc. Raises ConfigurationError and ResourceError."""
    program = _program("Orthanc", "orthanc orthanc-python orthanc-dicomweb")
    folder, log, port, password = out / "orthanc", out / "orthanc.log", free_port(), secrets.token_urlsafe(24)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # it holds images
    config = _secret_file(folder / "orthanc.json", json.dumps(orthanc_settings(folder, port, password, bundle)))
    # What this user set for a service of his own is not meant for this one.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GENU_") or name == "GENU_ORTHANC_PLUGINS"
    }
    with running([program, str(config)], log, environment, apart=True) as process:
        server = WebServer(_endpoint(port, password))
        try:
            until(lambda: process.poll() is not None or _ready(server), START_SECONDS, "Genu in Orthanc is not up", log)
        finally:
            server.close()
        _must_live(process, "Orthanc", log)
        yield Archive(process, port, password, log)


def orthanc_settings(folder: Path, port: int, password: str, bundle: Path | None) -> dict[str, Any]:
    """The repository's orthanc.json for one run: our folders, one user, no DICOM port.

    Orthanc binds all interfaces whatever is set, but answers only this machine, and there only who has the password.
    """
    settings: dict[str, Any] = json.loads((ROOT / "orthanc.json").read_text(encoding="utf-8"))
    genu = settings["Genu"] | {"data_dir": str(folder / "genu")}
    genu["orthanc"] = genu.get("orthanc", {}) | {"python": sys.executable}
    if bundle is not None:
        genu["bundles"] = [str(bundle.resolve())]
    return settings | {
        "Name": "Genu viewer",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "PythonScript": str(ROOT / "plugin" / "orthanc_plugin.py"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: password},
        "DicomServerEnabled": False,
        "StableAge": 1,
        "Genu": genu,
    }


@contextmanager
def nginx(out: Path, ohif: Path, asked: int | None, archive: Archive) -> Iterator[Front]:
    """nginx with OHIF's files in front of the archive. Raises ConfigurationError and ResourceError."""
    program = _program("nginx", "nginx-light")
    if not (ohif / "index.html").is_file():
        raise ConfigurationError(f"the OHIF viewer is not in {ohif}: run `.ci/setup tools viewer`, which fetches it")
    folder, log, port = out / "nginx", out / "nginx.log", _port(asked)
    folder.mkdir(parents=True, exist_ok=True)
    words = {
        "LISTEN": f"{HOST}:{port}",
        "ORTHANC": f"{HOST}:{archive.port}",
        "OHIF": _path(ohif),
        "CONFIG": _path(OHIF / "app-config.js"),
        "WORK": _path(folder),
        "USER": _user_line([ohif, OHIF]),
        "TOKEN": base64.b64encode(f"{USER}:{archive.password}".encode()).decode("ascii"),
    }
    config = _secret_file(folder / "nginx.conf", nginx_conf(words))
    with running([program, "-p", str(folder), "-c", str(config), "-e", "stderr"], log, apart=True) as process:
        until(lambda: process.poll() is not None or connects(port), START_SECONDS, "nginx does not answer", log)
        _must_live(process, "nginx", log)
        yield Front(process, f"http://{HOST}:{port}", log)


def nginx_conf(words: Mapping[str, str]) -> str:
    """The template with its words filled in, but for the comment at its beginning, which explains them."""
    comment, _, text = (OHIF / "nginx.conf").read_text(encoding="utf-8").partition("\n\n")
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return f"{comment}\n\n{text}"


def _endpoint(port: int, password: str) -> HttpEndpoint:
    return HttpEndpoint(url=f"http://{HOST}:{port}", username=USER, password=SecretStr(password))


def _ready(server: WebServer) -> bool:
    try:
        return server.exchange("GET", "/genu/status").status == 200
    except WebError:
        return False


def _must_live(process: subprocess.Popen[bytes], name: str, log: Path) -> None:
    if process.poll() is not None:
        raise ResourceError(f"{name} ended with status {process.returncode}: {last_line(log)}; its log is {log}")


def _program(name: str, packages: str) -> str:
    """Path of a program that Debian keeps in /usr/sbin. Raises ConfigurationError."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if found is None:
        raise ConfigurationError(f"{name} is not installed: as root, apt-get install {packages}")
    return found


def _secret_file(path: Path, text: str) -> Path:
    """A file that only we can read, for there is a password in it."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path


def _path(path: Path) -> str:
    """A path as nginx's configuration takes it between quotes. Raises ConfigurationError."""
    text = str(path.resolve())
    if set(text) & set('"\\$\n'):
        raise ConfigurationError(f"nginx cannot use the path {text!r}: it may have no quote, backslash or $ in it")
    return text


def _user_line(folders: Sequence[Path]) -> str:
    """Started by root, nginx gives its work to the user nobody, who then has to be able to read what it serves."""
    if os.geteuid() != 0:
        return ""
    places = {place for folder in folders for place in (folder.resolve(), *folder.resolve().parents)}
    return "" if all(place.stat().st_mode & 0o001 for place in places) else "user root;"


def _port(asked: int | None) -> int:
    """The port of the viewer. Raises ConfigurationError when the one that was asked for is taken."""
    if asked is None:
        return PORT if _is_free(PORT) else free_port()
    if asked and not _is_free(asked):
        raise ConfigurationError(f"port {asked} is taken: give another one with --port, or 0 for any")
    return asked or free_port()


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True
