"""The heartbeat thread."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from plugin.heartbeat import Heartbeat
from plugin.jobs import Queue, StaleClaimError
from tests.plugin.queue_helpers import Clock, claimed, settings_for, whole

ROOT = Path(__file__).resolve().parents[2]


def held(folder: Path) -> tuple[Queue, Clock]:
    queue, clock = Queue.open(settings_for(folder)), Clock(time.time())
    whole(queue, "1.2.3", [1], clock)
    return queue, clock


def lease_end(queue: Queue) -> float:
    with queue.database.read() as run:
        return float(run.connection.execute("SELECT lease_until FROM job").fetchone()[0])


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30.0
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def beating(job_id: int) -> bool:
    """Other threads of this process, left by libraries or other tests, say nothing about this one."""
    return f"heartbeat-{job_id}" in {thread.name for thread in threading.enumerate()}


def test_the_lease_is_kept_as_long_as_the_block_lasts(tmp_path: Path) -> None:
    queue, _ = held(tmp_path)
    claim = queue.claim("w", time.time() + 5, 60.0)
    assert claim is not None
    first = lease_end(queue)
    with Heartbeat(queue, claim, interval=0.02, limit=60.0, clock=lambda: time.time() + 5):
        wait_for(lambda: lease_end(queue) > first)
        second = lease_end(queue)
        wait_for(lambda: lease_end(queue) > second)
        assert beating(claim.job_id)
    assert not beating(claim.job_id)
    assert lease_end(queue) <= time.time() + 65.0
    queue.close()


def test_a_lost_lease_ends_the_beating_quietly(tmp_path: Path) -> None:
    queue, clock = held(tmp_path)
    claim = claimed(queue, clock)
    clock.forward(61)
    with Heartbeat(queue, claim, interval=0.01, limit=60.0, clock=clock):
        wait_for(lambda: not beating(claim.job_id))
    with pytest.raises(StaleClaimError):
        queue.heartbeat(claim, clock.now)
    queue.close()


def test_a_study_that_takes_too_long_ends_the_process(tmp_path: Path) -> None:
    queue, clock = held(tmp_path)
    ended = threading.Event()
    with Heartbeat(queue, claimed(queue, clock), interval=9.0, limit=0.05, clock=clock, overdue=ended.set):
        assert ended.wait(5.0)
    queue.close()


HOLDS_THE_LOCK = """
import ctypes, sys, time
from pathlib import Path
from plugin import heartbeat
from plugin.jobs import Queue
from tests.plugin.test_heartbeat import held
from tests.plugin.queue_helpers import claimed

heartbeat.ALARM_SECONDS = 0.2
queue, clock = held(Path(sys.argv[1]))
with heartbeat.Heartbeat(queue, claimed(queue, clock), interval=9.0, limit=0.1):
    ctypes.PyDLL(None).sleep(60)  # as a decoder that never returns and lets no other thread run
"""


def test_code_that_lets_no_thread_run_is_ended_by_the_kernel(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HOLDS_THE_LOCK, tmp_path], cwd=ROOT, timeout=50, check=False)
    assert done.returncode == -signal.SIGALRM
