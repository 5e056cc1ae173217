"""What the Orthancs that Genu is tested with offer: Debian 12's 1.10 and Debian 13's 1.12."""

import json
from pathlib import Path

import pytest

from tests.plugin import orthanc_trixie
from tests.plugin.orthanc_rig import each_orthanc, orthanc
from tests.plugin.orthanc_trixie import Missing

SCRIPT = """
import json, pathlib, sys, orthanc
import ctypes, sqlite3, ssl, subprocess  # from its own libraries, wherever it was unpacked
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(
    {"python": sys.version_info[:2], "names": [name for name in dir(orthanc) if not name.startswith("_")]}))
"""

# Plugin 4.0 (Debian 12) has all of these; what only newer ones have is used only when it is there.
ALWAYS = {"RegisterOnChangeCallback", "RegisterRestCallback", "RegisterIncomingHttpRequestFilter", "GetConfiguration"}
ALWAYS |= {"GenerateRestApiAuthorizationToken", "ExtendOrthancExplorer", "GetGlobalProperty", "SetGlobalProperty"}
NEWER = {"RegisterStorageCommitmentScpCallback", "RegisterMoveCallback2", "ExtendOrthancExplorer2", "GetTagName"}


@each_orthanc
def test_it_starts_with_its_plugins_and_offers_what_the_plugin_needs(kind: str, tmp_path: Path) -> None:
    script = tmp_path / "names.py"
    script.write_text(SCRIPT)
    plugins = ("libOrthancPython.so", "libOrthancDicomWeb.so")
    with orthanc(tmp_path / "orthanc", {"PythonScript": str(script)}, plugins=plugins, program=kind) as server:
        version = tuple(map(int, server.get("/system")["Version"].split(".")))
        assert {"python", "dicom-web"} <= set(server.get("/plugins"))
        assert server.get("/dicom-web/studies") == []
        assert server.stop() == 0
    found = json.loads(script.with_suffix(".json").read_text())
    names = set(found["names"])
    assert names >= ALWAYS
    if kind == "trixie":
        assert version[:2] == (1, 12) and found["python"] == [3, 13] and names >= NEWER
    else:
        assert version >= (1, 10)


def test_without_a_mirror_it_is_said_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orthanc_trixie, "FOLDER", tmp_path / "cache" / "orthanc")
    monkeypatch.setattr(orthanc_trixie, "MIRROR", "http://127.0.0.1:9/debian")
    with pytest.raises(Missing, match=r"could not fetch|needs"):
        orthanc_trixie._fetch()
    assert not list(tmp_path.glob("cache/*")), "a failed attempt leaves nothing that looks done"
