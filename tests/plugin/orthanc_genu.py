"""An Orthanc with Genu's plugin in it, and what its users see of it."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pydicom
import requests
from pydicom import Dataset

from tests import phantoms
from tests.plugin.orthanc_rig import ROOT, OrthancServer
from tests.plugin.standin import standin_bundle

PLUGINS = ("libOrthancPython.so", "libOrthancDicomWeb.so")
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SECONDS = 90.0


class GenuOrthanc(OrthancServer):
    """Orthanc with the plugin. `genu` is its section "Genu"; `config` are settings of Orthanc's own."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any] | None = None,
        *,
        genu: Mapping[str, Any] | None = None,
        program: str = "installed",
    ) -> None:
        script = {"PythonScript": str(ROOT / "plugin" / "orthanc_plugin.py")}
        # The shipped grader refuses drawn knees as unlike the training knees.
        usual = {"data_dir": str(folder / "genu"), "bundles": [str(standin_bundle())], "orthanc": {"poll_seconds": 0.5}}
        section = usual | dict(genu or {})
        super().__init__(folder, script | {"Genu": section} | dict(config or {}), plugins=PLUGINS, program=program)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        return self.session.request(method, f"{self.url}/genu{path}", timeout=40, **options)

    def status(self) -> dict[str, Any]:
        """GET /genu/status, once it is there."""
        self.until(lambda: self.ask("GET", "/status").ok, SECONDS, "the sidecar does not answer")
        found: dict[str, Any] = self.ask("GET", "/status").json()
        return found

    def study(self, uid: str) -> dict[str, Any]:
        """GET /genu/studies/{uid}; empty when it is not known."""
        answer = self.ask("GET", f"/studies/{uid}")
        return dict(answer.json()) if answer.ok else {}

    def send_datasets(self, *datasets: Dataset) -> None:
        """By storescu."""
        folder = self.folder / "sent"
        self.send(*[phantoms.write(ds, folder / f"{ds.SOPInstanceUID}.dcm") for ds in datasets])

    def wait_for(self, uid: str, revision: int = 1) -> dict[str, Any]:
        """Until this revision is done and all its objects are in Orthanc; the study's state."""

        def stored() -> bool:
            study = self.study(uid)
            revisions = study.get("revisions", [])
            if len(revisions) < revision or study["state"] not in ("done", "dead"):
                return False
            deliveries = [one for made in revisions[-1]["objects"] for one in made["deliveries"]]
            return all(one["state"] == "delivered" for one in deliveries)

        self.until(stored, SECONDS, f"{uid} is not done: {self.study(uid)}")
        return self.study(uid)

    def wait_until_idle(self) -> dict[str, Any]:
        """Until every change is known and nothing waits; the status."""

        def idle() -> bool:
            status = self.status()
            following = status["orthanc"]
            last = self.get("/changes?last")["Last"]
            busy = status["jobs"]["queued"] + status["jobs"]["running"]
            busy += sum(row["pending"] for row in status["destinations"])
            return bool(following["cursor"] >= last and not busy)

        self.until(idle, SECONDS, "Genu does not come to rest")
        return self.status()

    def objects(self, uid: str) -> list[Dataset]:
        """Everything that Orthanc has of a study, as data sets."""
        found = []
        for study in self.session.post(f"{self.url}/tools/lookup", data=uid, timeout=30).json():
            for instance in self.get(f"/studies/{study['ID']}/instances"):
                file = self.session.get(f"{self.url}/instances/{instance['ID']}/file", timeout=30)
                found.append(pydicom.dcmread(BytesIO(file.content)))
        return found

    def reports(self, uid: str) -> list[Dataset]:
        return [dataset for dataset in self.objects(uid) if dataset.SOPClassUID == REPORT]

    def identifier(self, uid: str) -> str:
        """Orthanc's own of a study."""
        (study,) = self.session.post(f"{self.url}/tools/lookup", data=uid, timeout=30).json()
        return str(study["ID"])

    def changes(self, kind: str, identifier: str) -> int:
        """How many changes of this kind the resource had."""
        entries = self.get("/changes?since=0&limit=100000")["Changes"]
        return sum(entry["ChangeType"] == kind and entry["ID"] == identifier for entry in entries)

    def events(self, action: str) -> list[dict[str, Any]]:
        """What Genu logged of this action at the level of a warning or louder, in Orthanc's log."""
        lines = [json.loads(line) for line in re.findall(r"Genu: (\{.*\})$", self.log_text(), re.MULTILINE)]
        return [line for line in lines if line["action"] == action]

    def sidecar(self) -> psutil.Process:
        """The running sidecar."""
        assert self.process is not None
        orthanc = psutil.Process(self.process.pid)
        found = self.until(lambda: [child for child in orthanc.children() if "--link" in child.cmdline()], 20)
        return found[0]  # type: ignore[no-any-return]

    def child(self, name: str) -> psutil.Process:
        """A running child of the sidecar, such as "worker-1"."""
        (pid,) = [child["pid"] for child in self.status()["children"] if child["name"] == name]
        return psutil.Process(pid)

    def processes(self) -> list[psutil.Process]:
        """All of ours that this Orthanc started."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def genu_orthanc(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *,
    genu: Mapping[str, Any] | None = None,
    program: str = "installed",
) -> Iterator[GenuOrthanc]:
    """A running Orthanc with Genu; both are gone at the end."""
    with ended(GenuOrthanc(folder, config, genu=genu, program=program)) as server:
        yield server.start()


@contextmanager
def ended(server: GenuOrthanc) -> Iterator[GenuOrthanc]:
    """Whatever runs of it is gone at the end."""
    try:
        yield server
    finally:
        family = server.processes() if server.process and server.process.poll() is None else []
        server.kill()
        server.session.close()
        _, left = psutil.wait_procs(family, 10)
        for process in left:
            process.kill()
