"""Real peers for tests: Storage SCPs that answer as told, and DCMTK's storescp."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Archive:
    """What an SCP was sent; `statuses` are answered in turn, then 0x0000; an answer of None aborts."""

    port: int
    statuses: list[int | None] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    associations: int = 0

    def on_store(self, event: Any) -> int:
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status is None:
            event.assoc.abort()
            return 0xC000
        if status == 0x0000 or status >> 12 == 0xB:
            self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return status

    def on_accept(self, _event: Any) -> None:
        self.associations += 1


@contextmanager
def archive(
    classes: list[str], port: int | None = None, statuses: list[int | None] | None = None, ae_title: str = "PACS"
) -> Iterator[Archive]:
    """A Storage SCP that accepts these SOP classes and C-ECHO, and calls under another title get rejected."""
    state = Archive(port or free_port(), list(statuses or []))
    ae = AE(ae_title=ae_title)
    ae.require_called_aet = True
    ae.add_supported_context(Verification)
    for sop_class in classes:
        ae.add_supported_context(sop_class)
    handlers = [(evt.EVT_C_STORE, state.on_store), (evt.EVT_ACCEPTED, state.on_accept)]
    server = ae.start_server(("127.0.0.1", state.port), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield state
    finally:
        server.shutdown()


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[int]:
    """DCMTK's storescp writing into `folder`; gives its port."""
    if shutil.which("storescp") is None:
        pytest.skip("needs storescp of DCMTK: apt-get install dcmtk")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(["storescp", "-aet", "PACS", "-od", str(folder), "+uf", *options, str(port)])
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "storescp did not start"
                time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()
