# SPDX-License-Identifier: AGPL-3.0-or-later
#
# This file imports `orthanc`, the module of Orthanc's Python plugin (AGPL-3.0-or-later), and runs in no other program.
# The Orthanc project counts such a script as a plugin of Orthanc, which no permissive licence may cover; who passes it
# on together with Orthanc, or offers both over a network, has to offer its source as well:
# https://orthanc.uclouvain.be/book/faq/licensing.html, https://orthanc.uclouvain.be/book/plugins/python.html#licensing
# What it imports of Genu stays under the Apache-2.0, which goes together with the AGPL, and does not import `orthanc`.
# The rest of Genu runs in processes of its own, which speak with Orthanc by a socket and by HTTP. See docs/orthanc.md.
"""Genu inside Orthanc: set "PythonScript" to this file. It starts the sidecar, nudges it, and passes requests on.

Nothing here works on images or waits for anybody but a REST client, and nothing raises: an exception while this file
is read would end Orthanc. It needs Orthanc 1.10 or newer, and of its module nothing that came later; what has changed
in the meantime is said where it is used.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

try:
    import orthanc  # type: ignore[import-not-found]
except ImportError:  # read outside Orthanc, by a test
    orthanc = None

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).resolve().parents[1]
if orthanc is not None:
    # Orthanc put our own folder there; our packages are one above.
    sys.path[:] = [str(ROOT), *(entry for entry in sys.path if entry != str(ROOT / "plugin"))]

try:
    from plugin import orthanc_start
    from plugin.boundary import Boundary
    from plugin.sidecar_link import Answer, SidecarLink, describe
except ImportError as error:
    if orthanc is None:
        raise
    orthanc.LogError(
        f"Genu does not run: {error}. PythonScript has to be plugin/orthanc_plugin.py among Genu's files, and "
        f"Orthanc's Python 3.11 or newer; it is {sys.version.split()[0]}"
    )
    orthanc = None  # so nothing is registered

PROPERTY: Final = 30901  # of Orthanc's database, where plugins may keep a text from 1024 on
ANSWER_SECONDS = 30.0
_PART = re.compile(r"[0-9A-Za-z.-]{1,64}")


class Plugin:
    """What is registered with Orthanc. Callbacks come from threads of Orthanc, REST ones several at once."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        self._configuration = configuration
        self._loaded = float(int(time.time()))  # Orthanc's log of changes knows whole seconds
        self._link: SidecarLink | None = None
        self._trouble = "Genu is starting"
        # Orthanc 1.12 aborts at its end when these two die with its own references, so they are kept here.
        self._callbacks = (self.on_change, self.on_request)

    def register(self) -> None:
        """Tell Orthanc what to call. To be kept until Orthanc ends."""
        on_change, on_request = self._callbacks
        orthanc.RegisterOnChangeCallback(on_change)
        orthanc.RegisterRestCallback("/genu/(.*)", on_request)
        orthanc.ExtendOrthancExplorer((ROOT / "plugin" / "orthanc_explorer.js").read_text(encoding="utf-8"))

    def on_change(self, kind: int, _level: int, _resource: str) -> None:
        """Orthanc calls it for every change, one after the other."""
        with Boundary(_report):
            if kind == orthanc.ChangeType.STABLE_STUDY and self._link is not None:
                self._link.nudge()
            elif kind == orthanc.ChangeType.ORTHANC_STARTED:
                self._start()
            elif kind == orthanc.ChangeType.ORTHANC_STOPPED and self._link is not None:
                self._link.stop()

    def on_request(self, output: Any, uri: str, **request: Any) -> None:
        """Orthanc calls it for everything below /genu/."""
        with Boundary(lambda error: _fail(output, error)):
            method, headers = str(request["method"]), request.get("headers", {})
            path = uri.split("/")[2:]
            allowed = _method_for(path)
            if allowed is None:
                _send(output, Answer(404, {"error": "there is no such route; docs/orthanc.md lists them"}))
            elif method != allowed:
                output.SendMethodNotAllowed(allowed)
            elif method != "GET" and orthanc_start.is_of_another_site(headers):
                _send(output, Answer(403, {"error": "refused: sent by a page of another site"}))
            elif self._link is None:
                _send(output, Answer(503, {"error": self._trouble}))
            else:
                _send(output, self._link.request(method, path, ANSWER_SECONDS))

    def _start(self) -> None:
        try:
            database, since = self._remember()
            token = orthanc.GenerateRestApiAuthorizationToken()
            known = orthanc_start.Known(token, database, since)
            place = orthanc_start.Place(Path(_configuration_folder()), ROOT, Path.cwd())
            sidecar = orthanc_start.sidecar(self._configuration, place, os.environ, known)
        except ValueError as error:
            self._trouble = f"Genu does not run: {error}"
            orthanc.LogError(self._trouble)
            return
        self._link = SidecarLink(sidecar, _log, most_pending=orthanc_start.most_requests(self._configuration))
        self._link.start()

    def _remember(self) -> tuple[str, float]:
        """Which database this is, and since when Genu runs in it: kept there, so that it goes and comes with it."""
        kept = orthanc.GetGlobalProperty(PROPERTY, "")
        database, since = orthanc_start.remembered(kept, self._loaded)
        if not kept:
            orthanc.SetGlobalProperty(PROPERTY, orthanc_start.to_remember(database, since))
        return database, since


def _method_for(path: list[str]) -> str | None:
    if path == ["status"]:
        return "GET"
    if len(path) in (2, 3) and path[0] == "studies" and _PART.fullmatch(path[1]):
        return "GET" if len(path) == 2 else "POST" if path[2] == "score" else None
    return None


def _send(output: Any, answer: Answer) -> None:
    text = json.dumps(answer.body)  # ASCII, so that letters are bytes
    output.SetHttpHeader("Cache-Control", "no-store")
    if answer.status == 200:
        output.AnswerBuffer(text, "application/json")
    else:
        output.SetHttpHeader("Content-Type", "application/json")
        try:
            output.SendHttpStatus(answer.status, text)
        except TypeError:  # orthanc-python before 4.1 wants the length as well
            output.SendHttpStatus(answer.status, text, len(text))


def _fail(output: Any, error: Exception) -> None:
    _report(error)
    output.SendHttpStatusCode(500)


def _report(error: Exception) -> None:
    orthanc.LogError(f"Genu: {describe(error)}")


def _log(level: str, line: str) -> None:
    writers: dict[str, Callable[[str], None]] = {"debug": orthanc.LogInfo, "info": orthanc.LogInfo}
    writers |= {"warning": orthanc.LogWarning}
    writers.get(level, orthanc.LogError)(f"Genu: {line}")


def _configuration_folder() -> str:
    """What relative paths of the configuration are relative to."""
    path = orthanc.GetConfigurationPath()
    return path if Path(path).is_dir() else str(Path(path).parent)


if orthanc is not None:
    with Boundary(_report):
        PLUGIN = Plugin(json.loads(orthanc.GetConfiguration()))
        PLUGIN.register()
