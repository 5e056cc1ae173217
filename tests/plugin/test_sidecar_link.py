"""Orthanc's end of the link, with small programs as sidecars."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from plugin import sidecar_link
from plugin.sidecar_link import Sidecar, SidecarLink, pause_after
from tests.plugin.receiving import wait_until

START = """
import json, os, socket, sys, time
link = socket.socket(fileno=0)
lines = link.makefile("rb")
def log(level, action, **fields):
    print(json.dumps({"level": level, "action": action, **fields}), file=sys.stderr, flush=True)
def answer(request, status=200, **body):
    body = {"type": "answer", "id": request["id"], "status": status, "body": body}
    link.sendall(json.dumps(body).encode() + b"\\n")
hello = json.loads(lines.readline())
log("info", "ready", pid=os.getpid())
"""
ECHO = "for line in lines:\n    line = json.loads(line)\n"
ECHO += "    if line['type'] == 'request': answer(line, path=line['path'], method=line['method'], hello=hello)\n"


class Site:
    """Links that are stopped in the end, and what they logged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.links: list[SidecarLink] = []
        self.logged: list[tuple[str, str]] = []

    def link(
        self, program: str, *, hello: dict[str, Any] | None = None, start: str = START, **options: int
    ) -> SidecarLink:
        command = [sys.executable, "-c", start + program]
        return self.run(Sidecar(command, {"PATH": os.environ["PATH"]}, self.folder, hello or {"genu": {}}), **options)

    def run(self, sidecar: Sidecar, **options: int) -> SidecarLink:
        link = SidecarLink(sidecar, lambda level, line: self.logged.append((level, line)), **options)
        self.links.append(link)
        link.start()
        return link

    def text(self, level: str) -> str:
        return "\n".join(line for found, line in self.logged if found == level)

    def ready(self, link: SidecarLink) -> int:
        """Wait for its (next) greeting; its process id."""
        wait_until(lambda: not link.trouble, 20)
        assert link.pid is not None
        return link.pid


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    for link in made.links:
        link.stop(0.5)


def timed(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_it_is_told_the_settings_and_answers(site: Site) -> None:
    large = {"genu": {"filler": "x" * 300_000}, "orthanc": {"url": "http://127.0.0.1"}, "since": 1.5}
    link = site.link(ECHO, hello=large)
    site.ready(link)
    answer = link.request("GET", ["status"], 10)
    assert answer.status == 200
    assert answer.body == {"path": ["status"], "method": "GET", "hello": {"type": "hello", **large}}


def test_many_threads_get_their_own_answers(site: Site) -> None:
    link = site.link(ECHO)
    site.ready(link)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: link.request("GET", [str(number)], 20), range(300)))
    assert [answer.body["path"] for answer in answers] == [[str(number)] for number in range(300)]


def test_answers_in_another_order_and_large_ones_reach_who_asked(site: Site) -> None:
    program = "two = [json.loads(lines.readline()) for _ in range(2)]\n"
    program += "for request in reversed(two): answer(request, path=request['path'], filler='x' * 2_000_000)\n"
    link = site.link(program + ECHO)
    site.ready(link)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda name: link.request("GET", [name], 20), "ab"))
    assert [answer.body["path"] for answer in answers] == [["a"], ["b"]]


def test_a_late_answer_is_dropped_and_the_next_request_gets_its_own(site: Site) -> None:
    program = "request = json.loads(lines.readline())\ntime.sleep(0.6)\nanswer(request, path=['late'])\n" + ECHO
    link = site.link(program)
    site.ready(link)
    assert link.request("GET", ["late"], 0.2).status == 504
    assert link.request("GET", ["next"], 20).body["path"] == ["next"]
    assert not link._pending


def test_before_and_after_its_life_requests_are_refused_at_once(site: Site) -> None:
    link = SidecarLink(Sidecar(["/no/such/python"], {}, site.folder, {}), lambda *_: None)
    assert link.request("GET", ["status"], 10).status == 503
    link.nudge()
    link.stop()
    link.start()
    link._thread.join(5)
    assert link.request("GET", ["status"], 10).status == 503


def test_its_death_fails_who_waits_at_once_and_it_comes_back(site: Site) -> None:
    link = site.link("if not os.path.exists('second'):\n    lines.readline()\n    time.sleep(60)\n" + ECHO)
    pid = site.ready(link)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(link.request, "GET", ["status"], 60)
        wait_until(lambda: bool(link._pending))
        (site.folder / "second").touch()
        assert timed(lambda: (os.kill(pid, signal.SIGKILL), waiting.result())) < 2.0
    assert waiting.result().status == 503
    assert site.ready(link) != pid
    assert link.request("GET", ["status"], 20).status == 200
    assert "died of signal 9" in site.text("error")


def test_nudges_never_wait_and_requests_to_a_deaf_sidecar_end(site: Site) -> None:
    link = site.link("time.sleep(60)")
    site.ready(link)
    assert timed(lambda: [link.nudge() for _ in range(50_000)]) < 10.0
    assert link.request("GET", ["status"], 0.2).status == 503
    assert timed(lambda: link.stop(0.5)) < 5.0


def test_nudges_arrive(site: Site) -> None:
    link = site.link("log('warning', 'got', line=json.loads(lines.readline()))\n" + ECHO)
    site.ready(link)
    link.nudge()
    wait_until(lambda: "got" in site.text("warning"))
    assert json.loads(site.text("warning"))["line"] == {"type": "nudge"}


def test_only_so_many_requests_wait(site: Site) -> None:
    link = site.link("time.sleep(60)", most_pending=2)
    site.ready(link)
    threads = [threading.Thread(target=link.request, args=("GET", ["status"], 1)) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(link._pending) == 2)
    assert link.request("GET", ["status"], 3).status == 503
    for thread in threads:
        thread.join()
    assert not link._pending


def test_wrong_settings_are_final_and_their_reason_stays(site: Site) -> None:
    link = site.link("log('error', 'process.failed', error='data_dir: no such folder')\nsys.exit(2)")
    wait_until(lambda: "no such folder. Mend it" in site.text("error"), 20)
    assert "data_dir: no such folder" in link.trouble
    link._thread.join(2)
    answer = link.request("GET", ["status"], 1)
    assert (answer.status, answer.body["error"]) == (503, link.trouble)
    assert len([line for _, line in site.logged if "ready" in line]) == 1


def test_a_python_that_is_not_there_is_final(site: Site) -> None:
    link = site.run(Sidecar(["/no/such/python", "-c", ""], {}, site.folder, {}))
    wait_until(lambda: "/no/such/python cannot be started" in link.trouble)
    assert "/no/such/python cannot be started" in site.text("error")


def test_a_python_without_genu_says_so(site: Site) -> None:
    link = site.link("", start="import no_such_package")
    wait_until(lambda: "No module named 'no_such_package'" in link.trouble)
    assert sys.executable in link.trouble


def test_one_that_keeps_ending_is_started_with_growing_pauses(site: Site) -> None:
    link = site.link("open('starts', 'a').write('x')\nsys.exit(1)", start="import sys\n")
    time.sleep(2.5)
    starts = len((site.folder / "starts").read_text())
    assert 2 <= starts <= 5
    assert "ended with status 1" in link.trouble
    pauses = [pause_after(failures) for failures in range(1, 60)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == sidecar_link.MAX_PAUSE_SECONDS


def test_what_is_no_log_line_is_not_quoted(site: Site) -> None:
    link = site.link("print('DOE^JANE', 'x' * 1_000_000, file=sys.stderr)\nlog('warning', 'next')\n" + ECHO)
    site.ready(link)
    wait_until(lambda: "next" in site.text("warning"))
    assert "DOE" not in str(site.logged)
    assert "library.message" in site.text("warning")


def test_what_is_no_answer_harms_nobody(site: Site) -> None:
    link = site.link("link.sendall(b'no\\n[1]\\n{\"id\": \"x\"}\\n' + b'[' * 50_000 + b'\\n')\n" + ECHO)
    site.ready(link)
    assert link.request("GET", ["status"], 20).status == 200
    assert site.text("error").count("no answer") == 4


def test_stop_ends_the_link_and_with_it_the_sidecar(site: Site) -> None:
    link = site.link(ECHO + "open('ended', 'w').write('well')")
    process = psutil.Process(site.ready(link))
    link.stop()
    assert not process.is_running()
    assert (site.folder / "ended").read_text() == "well"
    assert link.request("GET", ["status"], 5).status == 503
    assert not link._thread.is_alive()


def test_a_sidecar_that_does_not_go_is_killed(site: Site) -> None:
    link = site.link("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)")
    process = psutil.Process(site.ready(link))
    assert timed(lambda: link.stop(0.5)) < 5.0
    assert not process.is_running()
    assert "is killed" in site.text("warning")


def test_it_gets_a_clean_start_and_no_files_of_ours(site: Site) -> None:
    ours = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(ours, True)
    program = "log('warning', 'seen', files=sorted(os.listdir('/proc/self/fd')), env=sorted(os.environ),"
    program += " session=os.getsid(0) == os.getpid(), folder=os.getcwd())\n"
    site.ready(site.link(program + ECHO))
    os.close(ours)
    wait_until(lambda: bool(site.text("warning")))
    seen = json.loads(site.text("warning"))
    assert seen["files"] == ["0", "1", "2", "3"]  # the last is the folder being listed
    assert set(seen["env"]) <= {"PATH", "LC_CTYPE"}
    assert seen["session"]
    assert seen["folder"] == str(site.folder)


def test_it_goes_when_orthanc_is_killed(site: Site, tmp_path: Path) -> None:
    program = tmp_path / "orthanc.py"
    program.write_text(
        "import sys, time, pathlib\nfrom plugin.sidecar_link import Sidecar, SidecarLink\n"
        f"link = SidecarLink(Sidecar([sys.executable, '-c', {START + ECHO!r}], {{}}, pathlib.Path('.'), {{}}), print)\n"
        "link.start()\nwhile link.trouble: time.sleep(0.05)\n"
        "print(link.pid, flush=True)\ntime.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    orthanc = psutil.Popen([sys.executable, str(program)], stdout=-1, env=environment, text=True)
    sidecar = psutil.Process(int(next(line for line in orthanc.stdout if line.strip().isdigit())))
    orthanc.kill()
    orthanc.communicate()
    sidecar.wait(10)
