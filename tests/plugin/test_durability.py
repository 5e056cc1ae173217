"""Success is answered only when the bytes are fsynced and the row is committed; whatever fails leaves nothing."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from inference.errors import ConfigurationError, ResourceError
from plugin import dimse, storage
from plugin.association import Association
from plugin.jobs import Queue
from plugin.storage import InstanceStore
from tests.plugin.receiving import (
    RawPeer,
    data_set_bytes,
    instance,
    listening,
    p_data,
    raw_data_set,
    store_rq,
    wait_until,
)

SERVICE = """
import sys, threading
from pathlib import Path
from plugin.settings import load
from plugin.supervisor import reception
settings = load(None, {"data_dir": Path(sys.argv[1]), "listener": {"port": 0, "min_free_bytes": 0}})
with reception(settings) as (listener, queue):
    print(listener.port, flush=True)
    threading.Event().wait()
"""


@contextmanager
def process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A listener in a process of its own, to be killed."""
    child = subprocess.Popen([sys.executable, "-c", SERVICE, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield child, int(child.stdout.readline())
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_data_folder_that_we_make_is_closed_to_other_users(tmp_path: Path) -> None:
    with closing(InstanceStore(tmp_path / "a" / "data")):
        assert (tmp_path / "a" / "data").stat().st_mode & 0o777 == 0o750


def test_kill_9_right_after_success_finds_bytes_and_row(tmp_path: Path) -> None:
    for _ in range(5):
        ds = instance(pixels=50_000)
        with process(tmp_path) as (child, port), RawPeer(port) as peer:
            peer.associate()
            assert peer.store(ds) == dimse.SUCCESS
            child.send_signal(signal.SIGKILL)
            child.wait()
        with sqlite3.connect(tmp_path / "queue.sqlite") as database:
            ((path,),) = database.execute(
                "SELECT relative_path FROM instance WHERE sop_uid = ?", [ds.SOPInstanceUID]
            ).fetchall()
        database.close()
        assert raw_data_set((tmp_path / path).read_bytes()) == data_set_bytes(ds)


def test_kill_9_in_the_middle_leaves_no_orphan_after_the_next_start(tmp_path: Path) -> None:
    with process(tmp_path) as (child, port), RawPeer(port) as peer:
        peer.associate()
        assert peer.store(instance()) == dimse.SUCCESS
        data = data_set_bytes(instance())
        peer.send(p_data(1, 3, store_rq("1.2.3")) + p_data(1, 0, data))
        wait_until(lambda: any((tmp_path / "incoming").iterdir()))
        child.kill()
        child.wait()
    (tmp_path / "instances" / "renamed-but-not-committed.dcm").write_bytes(b"")
    with process(tmp_path) as (_, port), RawPeer(port) as peer:
        assert list((tmp_path / "incoming").iterdir()) == []
        assert len(list((tmp_path / "instances").iterdir())) == 1
        peer.associate()
        assert peer.store(instance()) == dimse.SUCCESS


def test_files_of_a_queue_that_was_lost_are_not_removed(tmp_path: Path) -> None:
    with closing(InstanceStore(tmp_path)) as store:
        files = [store.instances / f"{number}.dcm" for number in range(3)]
        for file in (*files, store.incoming / "1.part"):
            file.write_bytes(b"")
        with pytest.raises(ConfigurationError, match=r"does not know 3 of the files.*send them again"):
            store.clean([], most=2)
        assert all(file.exists() for file in files)
        assert store.clean(["instances/0.dcm"], most=2) == 3
        assert list(store.instances.iterdir()) == files[:1]


class Trace:
    """Records the order of fsync, rename, commit and answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self._wrap(monkeypatch, storage.os, "fsync", "fsync")
        self._wrap(monkeypatch, Path, "rename", "rename")
        self._wrap(monkeypatch, Queue, "admit", "committed", after=True)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, step: str, *, after: bool = False) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def traced(*args: Any, **options: Any) -> Any:
            if not after:
                self.steps.append(step)
            result = original(*args, **options)
            if after:
                self.steps.append(step)
            return result

        monkeypatch.setattr(owner, name, traced)


def test_order_is_rename_then_both_fsyncs_then_commit_then_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Trace(monkeypatch)
    respond = Association.respond

    def answered(self: Association, *args: Any) -> None:
        trace.steps.append("answer")
        respond(self, *args)

    monkeypatch.setattr(Association, "respond", answered)
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        assert peer.store(instance()) == dimse.SUCCESS
    assert trace.steps == ["rename", "fsync", "fsync", "committed", "answer"]


def failing(error: BaseException, *, from_call: int = 1) -> Callable[..., Any]:
    """A function that raises from its nth call on."""
    calls = 0

    def fail(*_: Any, **__: Any) -> None:
        nonlocal calls
        calls += 1
        if calls >= from_call:
            raise error

    return fail


DISK_FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (storage.os, "fsync", failing(OSError(errno.EIO, "Input/output error"))),
        (storage.os, "fsync", failing(OSError(errno.EIO, "Input/output error"), from_call=2)),
        (storage.os, "write", failing(DISK_FULL)),
        (Path, "rename", failing(DISK_FULL)),
        (Queue, "admit", failing(ResourceError("the queue cannot be used"))),
    ],
    ids=["fsync of the file", "fsync of the folder", "write", "rename", "commit"],
)
def test_a_fault_is_a700_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, fault: Callable[..., Any]
) -> None:
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, fault)
            assert peer.store(instance()) == 0xA700
        assert running.rows() == running.files() == []
        assert peer.store(instance()) == dimse.SUCCESS, "the association and the service go on"
        assert len(running.rows()) == len(running.files()) == 1


def test_disk_that_fills_up_in_the_middle_is_answered_after_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    written = 0

    def fills_up(descriptor: int, data: bytes) -> int:
        nonlocal written
        written += len(data)
        if written > 100_000:
            raise DISK_FULL
        return write(descriptor, data)

    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        with monkeypatch.context() as patched:
            patched.setattr(storage.os, "write", fills_up)
            assert peer.store(instance(pixels=1_000_000)) == 0xA700
            assert running.files() == []
        assert peer.store(instance()) == dimse.SUCCESS


def test_too_little_free_space_is_a700(tmp_path: Path) -> None:
    with listening(tmp_path, min_free_bytes=2**60) as running, RawPeer(running.port) as peer:
        peer.associate()
        assert peer.store(instance(pixels=300_000)) == 0xA700
        assert running.rows() == running.files() == []
        assert peer.echo() == dimse.SUCCESS


def test_queue_that_another_process_holds_is_a700(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENU_QUEUE__BUSY_SECONDS", "0.2")
    with listening(tmp_path) as running, RawPeer(running.port) as peer:
        peer.associate()
        holder = sqlite3.connect(tmp_path / "queue.sqlite")
        holder.execute("BEGIN IMMEDIATE")
        assert peer.store(instance()) == 0xA700
        assert running.files() == []
        holder.rollback()
        holder.close()
        assert peer.store(instance()) == dimse.SUCCESS


def test_folder_syncs_are_shared_but_never_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = InstanceStore(tmp_path)
    syncs = 0
    fsync = os.fsync
    release = threading.Event()

    def slow(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        release.wait(5.0)
        fsync(descriptor)

    monkeypatch.setattr(storage.os, "fsync", slow)
    threads = [threading.Thread(target=store.sync_instances) for _ in range(8)]
    threads[0].start()
    while not syncs:
        pass
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.2)
    release.set()
    for thread in threads:
        thread.join()
    store.close()
    assert syncs == 2, "one was under way, one more covers all that came during it"
