"""When a child process ends: signals, and a parent that is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plugin.lifetime import Lifetime

CHILD = """
import os, sys, time
from plugin.lifetime import Lifetime
lifetime = Lifetime(int(sys.argv[1]) if len(sys.argv) > 1 else None).install()
print(os.getpid(), flush=True)
while not lifetime.wait(0.05):
    pass
print("ended well", flush=True)
"""


def test_it_goes_on_as_long_as_the_parent_lives() -> None:
    assert not Lifetime(os.getppid()).over()
    assert not Lifetime().wait(0.01)
    assert Lifetime(1 if os.getppid() != 1 else 2).over()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_in_order(number: signal.Signals) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(number)
    assert child.communicate(timeout=20)[0] == "ended well\n"
    assert child.returncode == 0


def test_a_dead_parent_ends_it() -> None:
    shell = subprocess.Popen(
        ["sh", "-c", '"$0" -c "$1" $$ & wait', sys.executable, CHILD], stdout=subprocess.PIPE, text=True
    )
    assert shell.stdout is not None
    pid = int(shell.stdout.readline())
    shell.kill()
    assert shell.stdout.readline() == "ended well\n"
    shell.communicate()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
