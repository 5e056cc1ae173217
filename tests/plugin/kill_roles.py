"""The processes of the service for the kill test, ready to be forked again and again in milliseconds.

`python -m tests.plugin.kill_roles SETTINGS` reads names of roles from stdin and answers each with the process id of a
fresh child that plays it: the real reception with its sweep, the real worker loop around a light scorer (so that torch
need not be loaded 500 times), the real deliverer. All state of a child is made after its fork.
"""

import os
import signal
import sys
import tempfile
import time

from plugin import deliverer, logs
from plugin.jobs import Queue
from plugin.lifetime import Lifetime
from plugin.settings import Settings, load, loads
from plugin.supervisor import reception
from plugin.worker import Worker
from tests.plugin.fakes import FakeScorer, deposit, film

ROLES = ("listener", "worker-1", "worker-2", "deliverer")
# The listener less often than the others: each of its starts gives all studies a full quiet period anew.
WEIGHTS = (2, 3, 3, 3)
SCORING_SECONDS = 0.05


def listen(settings: Settings) -> None:
    lifetime = Lifetime(os.getppid()).install()
    with reception(settings) as (_listener, queue):
        while not lifetime.wait(0.05):
            queue.sweep(time.time())


def work(settings: Settings, name: str) -> None:
    lifetime = Lifetime(os.getppid()).install()
    scorer = FakeScorer(lambda _study: time.sleep(SCORING_SECONDS))
    Worker(Queue.open(settings), settings, scorer, worker_id=name, lifetime=lifetime).run()


def play(role: str, settings: Settings) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(0)
    logs.configure("info")
    if role == "listener":
        listen(settings)
    elif role == "deliverer":
        deliverer.run(settings, parent=os.getppid())
    else:
        work(settings, role)


def warm_up() -> None:
    """Score one study here, so that no child spends its short life on what libraries load at their first use."""
    with tempfile.TemporaryDirectory() as folder:
        settings = load(None, {"data_dir": folder})
        queue = Queue.open(settings)
        deposit(queue, film(0, size=16), 0.0)
        queue.sweep(1000.0)
        assert Worker(queue, settings, FakeScorer()).step()
        assert queue.snapshot().dead == 0
        queue.close()


def main() -> None:
    settings = loads(sys.argv[1])
    warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            play(line.strip(), settings)
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
