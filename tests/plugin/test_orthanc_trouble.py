"""What goes wrong in a configuration: a clear line in Orthanc's log, the reason by REST, and Orthanc goes on."""

import json
import re
import shutil
import ssl
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from plugin import orthanc_start
from plugin.orthanc_api import OrthancApi
from plugin.settings import from_orthanc
from plugin.web import WebError
from tests.plugin.orthanc_genu import GenuOrthanc, ended, genu_orthanc
from tests.plugin.orthanc_rig import PASSWORD, ROOT, USER, each_orthanc
from tests.plugin.test_tls import openssl

NO_WORKERS = {"workers": {"count": 0}}


@contextmanager
def troubled(folder: Path, config: Mapping[str, Any], genu: Mapping[str, Any]) -> Iterator[GenuOrthanc]:
    with genu_orthanc(folder, config, genu=NO_WORKERS | dict(genu)) as server:
        yield server
        assert server.get("/system")["ApiVersion"]


def reason(server: GenuOrthanc) -> str:
    """Why Genu does not run, by REST, and that Orthanc's log says the same as an error."""

    def final() -> str:
        answer = server.ask("GET", "/status")
        text = str(answer.json()["error"])
        return text if answer.status_code == 503 and text.startswith("Genu does not run") else ""

    said = str(server.until(final, 20))
    lines = [line for line in server.log_text().splitlines() if line.startswith("E") and said in line]
    assert len(lines) == 1
    return said


@pytest.mark.parametrize(
    ("config", "genu", "said"),
    [
        ({}, {"listener": {"port": "many"}}, "listener.port"),
        ({}, {"no_such_setting": 1}, "no_such_setting: there is no such setting"),
        ({"Genu": ["a", "list"]}, {}, '"Genu" section'),
        ({}, {"orthanc": {"python": "/no/such/python"}}, "/no/such/python cannot be started"),
        ({}, {"orthanc": {"url": "ftp://orthanc"}}, "orthanc.url"),
        ({}, {"orthanc": {"authorities": "/no/such.pem"}}, "/no/such.pem"),
        ({}, {"data_dir": "/proc/genu"}, "/proc/genu"),
    ],
)
def test_wrong_settings(tmp_path: Path, config: dict[str, Any], genu: dict[str, Any], said: str) -> None:
    with troubled(tmp_path, config, genu) as server:
        assert said in reason(server)


def test_a_wrong_setting_in_the_environment(tmp_path: Path) -> None:
    with ended(GenuOrthanc(tmp_path, genu=NO_WORKERS)) as server:
        server.start({"GENU_LISTENER__PORT": "many"})
        assert "listener.port" in reason(server)


def test_a_python_without_genu(tmp_path: Path) -> None:
    with troubled(tmp_path, {}, {"orthanc": {"python": "/usr/bin/python3"}}) as server:
        server.until(lambda: "Genu is not installed for /usr/bin/python3" in server.log_text(), 20)
        answer = server.ask("GET", "/status")
        assert (answer.status_code, "No module named" in answer.text) == (503, True)


def test_without_the_rest_api_orthanc_says_why_and_receives_on(tmp_path: Path) -> None:
    with ended(GenuOrthanc(tmp_path, {"HttpServerEnabled": False}, genu=NO_WORKERS)) as server:
        server._answers = lambda: "Orthanc has started" in server.log_text()  # type: ignore[method-assign]
        server.start()
        server.until(lambda: "Genu does not run: Orthanc's REST API is off" in server.log_text(), 20)
        subprocess.run(
            ["echoscu", "-aec", "ORTHANC", "-aet", "STORESCU", "127.0.0.1", str(server.dicom_port)], check=True
        )
        assert server.stop() == 0


def test_the_script_alone_without_its_modules(tmp_path: Path) -> None:
    alone = tmp_path / "scripts" / "orthanc_plugin.py"
    alone.parent.mkdir()
    shutil.copy(ROOT / "plugin" / "orthanc_plugin.py", alone)
    with ended(GenuOrthanc(tmp_path / "orthanc", {"PythonScript": str(alone)})) as server:
        server.start()
        assert re.search(
            r"^E.*Genu does not run: No module named 'plugin'.*PythonScript", server.log_text(), re.MULTILINE
        )
        assert server.ask("GET", "/status").status_code == 404
        assert server.stop() == 0


def certified(folder: Path, names: str) -> Path:
    """A self-signed certificate with its key, as Orthanc's SslCertificate wants it."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=orthanc"]
    openssl(*new, "-addext", f"subjectAltName={names}", "-keyout", key, "-out", certificate)
    both = folder / "orthanc.pem"
    both.write_text(key.read_text() + certificate.read_text())
    return certificate


class Greeting(BaseHTTPRequestHandler):
    """Answers as Orthanc does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"ApiVersion": 16, "Version": "1.10.1"}')

    def log_message(self, *_: object) -> None:
        pass


# Not with Orthanc: Debian's, 1.10.1 and 1.12.7, die of a segmentation fault at their first HTTPS request, with plugins
# or without, because their CivetWeb 1.15 looks for SSL_get_peer_certificate, which OpenSSL 3 does not have.
@pytest.mark.parametrize(("names", "trusted"), [("IP:127.0.0.1,DNS:localhost", True), ("DNS:elsewhere.example", False)])
def test_https_with_orthancs_own_certificate(tmp_path: Path, names: str, trusted: bool) -> None:
    certified(tmp_path, names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "orthanc.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), Greeting) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # A relative path is relative to the configuration's folder, for Orthanc and for us.
        orthanc = {"SslEnabled": True, "SslCertificate": "orthanc.pem", "HttpPort": server.server_port}
        place = orthanc_start.Place(configuration=tmp_path, root=ROOT, working=tmp_path)
        hello = orthanc_start.sidecar(orthanc, place, {}, orthanc_start.Known("Bearer a", "", 0.0)).hello
        settings = from_orthanc(hello["genu"], hello["orthanc"])
        assert settings.orthanc is not None
        api = OrthancApi(settings.orthanc)
        try:
            if trusted:
                assert api.version() == "1.10.1"
            else:
                with pytest.raises(WebError, match="its certificate is not trusted"):
                    api.version()
        finally:
            api.close()
            server.shutdown()


def test_a_client_certificate_that_orthanc_wants_and_nobody_gave(tmp_path: Path) -> None:
    certificate = certified(tmp_path, "IP:127.0.0.1")
    config = {"SslEnabled": True, "SslCertificate": "orthanc.pem", "SslVerifyPeers": True}
    with ended(GenuOrthanc(tmp_path, config | {"SslTrustedClientCertificates": str(certificate)})) as server:
        server._answers = lambda: "Orthanc has started" in server.log_text()  # type: ignore[method-assign]
        server.start()
        server.until(lambda: "Genu does not run: Orthanc wants a certificate of its clients" in server.log_text(), 20)
        assert server.stop() == 0


@each_orthanc
def test_the_start_of_orthanc_is_hardly_delayed(tmp_path: Path, kind: str) -> None:
    def seconds(script: str | None) -> float:
        times = []
        for number in range(3):
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}-{number}"
            with ended(GenuOrthanc(folder, {"PythonScript": script}, genu=NO_WORKERS, program=kind)) as server:
                server._answers = lambda server=server: "Orthanc has started" in server.log_text()  # type: ignore
                if script is None:
                    del server.config["PythonScript"], server.config["Plugins"]
                began = time.monotonic()
                server.start({"PYTHONDONTWRITEBYTECODE": ""})  # as it is installed, with its modules compiled
                times.append(time.monotonic() - began)
        return statistics.median(times)

    bare, ours = seconds(None), seconds(str(ROOT / "plugin" / "orthanc_plugin.py"))
    print(f"{kind}: {bare:.2f} s without plugins, {ours:.2f} s with Genu's and DICOMweb's")
    assert ours - bare < 1.0


def test_the_configuration_that_ships_runs(tmp_path: Path) -> None:
    """`Orthanc orthanc.json`, but for ports and folders: those are taken on a machine where it is in use."""
    shipped = json.loads((ROOT / "orthanc.json").read_text(encoding="utf-8"))
    ours = ("HttpPort", "DicomPort", "StorageDirectory", "IndexDirectory")
    config = {name: value for name, value in shipped.items() if name not in ours}
    config["Genu"] = shipped["Genu"] | NO_WORKERS | {"data_dir": str(tmp_path / "genu")}
    with ended(GenuOrthanc(tmp_path, config)) as server:
        server.session.auth = ("genu", "changed")
        server.start({"GENU_ORTHANC_PASSWORD": "changed"})
        assert server.status()["orthanc"]["version"]
        assert {"dicom-web", "python"} <= set(server.get("/plugins"))
        assert server.get("/dicom-web/studies") == []
        for user in ((USER, PASSWORD), ("genu", "change-me"), ("orthanc", "orthanc")):
            assert requests.get(f"{server.url}/system", auth=user, timeout=10).status_code == 401
        subprocess.run(
            ["echoscu", "-aec", "ORTHANC", "-aet", "STORESCU", "127.0.0.1", str(server.dicom_port)], check=True
        )
        stranger = subprocess.run(
            ["echoscu", "-aec", "ORTHANC", "-aet", "STRANGER", "127.0.0.1", str(server.dicom_port)], check=False
        )
        assert stranger.returncode != 0
