"""The readers' page in a real Chromium and by hand-made requests: reading, resuming, blindness.

Screenshots: out/readers-test.
"""

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Response, expect

from inference.errors import DataError, UsageError
from tests.browser import chromium
from tests.training import made_readers
from training import cli
from training.readers import STRATA, Bench, read_bench, read_truth
from training.readers_answers import AnswerFile, all_readings, order_of, read_answers
from training.readers_serve import ReaderServer

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "out" / "readers-test"
PAIRS = 4
expect.set_options(timeout=60_000)  # of a busy machine


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    made_readers.write_cohort(root)
    inputs = ["--cohort", str(root / "cohort"), "--export", str(root / "images"), "--out", str(root / "bench")]
    assert cli.main(["readers", "draw", *inputs, "--strata", "1,2,1"]) == 0
    return root


@pytest.fixture
def bench(drawn: Path, tmp_path: Path) -> Bench:
    """A copy without answers."""
    return read_bench(Path(shutil.copytree(drawn / "bench", tmp_path / "bench")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("--disable-gpu") as running:
        yield running


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A fresh page; afterwards a screenshot, no error in a script and no request to elsewhere."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(viewport={"width": 1400, "height": 860})
    opened, troubles, asked = context.new_page(), [], []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.on("console", lambda said: troubles.append(said.text) if "Content Security Policy" in said.text else None)
    context.on("request", lambda made: asked.append(made.url))
    try:
        yield opened
    finally:
        name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_")).strip("-")
        opened.screenshot(path=SCREENSHOTS / f"{name}.png")
        context.close()
    assert not troubles
    assert asked and all(url.startswith(("http://127.0.0.1:", "data:")) for url in asked)


@contextmanager
def process(folder: Path, reader: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`genu-train readers serve` as a process, and the address it printed."""
    command = [
        sys.executable,
        "-m",
        "training.cli",
        "readers",
        "serve",
        str(folder),
        "--reader",
        reader,
        "--no-browser",
    ]
    started = subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        yield started, started.stdout.readline().strip()
    finally:
        started.kill()
        started.communicate()


@contextmanager
def serving(bench: Bench, reader: str, *, ties: bool = True) -> Iterator[ReaderServer]:
    with AnswerFile(bench, reader, ties=ties) as answers, ReaderServer(bench, answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


Ask = Callable[..., tuple[int, bytes, dict[str, str]]]


def asker(server: ReaderServer) -> Ask:
    def ask(
        path: str, body: bytes | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
        sent = {"X-Genu-Token": server.token, "Content-Type": "application/json"} if method or body else {}
        sent |= {"X-Genu-Token": server.token} | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method or ("POST" if body is not None else "GET"), path, body, sent)
        answer = connection.getresponse()
        found = answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return found

    return ask


def pixels(page: Page, knee: int) -> bytes:
    """What the canvas of a knee shows now."""
    found: list[int] = page.evaluate(
        """place => {
            const canvas = document.querySelectorAll('canvas')[place], context = canvas.getContext('2d');
            const seen = context.getImageData(0, 0, canvas.width, canvas.height).data;
            return [...seen.filter((_, n) => n % 64 == 0)]; }""",
        knee,
    )
    return bytes(found)


def at(page: Page, knee: int, slice_: int) -> None:
    expect(page.locator("canvas").nth(knee)).to_have_attribute("data-slice", str(slice_))


def loaded(page: Page) -> None:
    for knee in (0, 1):
        expect(page.locator(".loading").nth(knee)).to_be_empty()


def test_reading_by_keyboard_going_on_after_a_kill_and_what_is_made_of_it(page: Page, bench: Bench) -> None:
    truth = {one.pair: one for one in read_truth(bench).pairs}
    (bench.folder / "truth.json").rename(bench.folder.parent / "truth.json")  # serving needs none
    order = order_of(bench, "Ann")
    with process(bench.folder, "Ann") as (server, address):
        page.goto(address)
        expect(page.locator("#help")).to_be_visible()
        page.screenshot(path=SCREENSHOTS / "help.png")
        page.keyboard.press("Enter")
        expect(page.locator("#help")).to_be_hidden()
        expect(page.locator("#count")).to_have_text(f"Pair 1 of {PAIRS}")
        expect(page.locator("#question")).to_contain_text("0.5 mm or more of medial joint space within 12 months")
        loaded(page)
        scrolling_shows_other_slices(page, bench, order[0])
        grey_values_follow_the_window(page)
        page.keyboard.press("Enter")
        expect(page.locator("#count")).to_have_text(f"Pair 1 of {PAIRS}")  # nothing was chosen
        right = truth[order[0].pair].progressor == order[0].first
        page.keyboard.press("ArrowLeft" if right else "2")
        page.keyboard.press("c")
        page.keyboard.press("c")
        page.keyboard.press("Enter")
        expect(page.locator("#count")).to_have_text(f"Pair 2 of {PAIRS}")
        page.keyboard.press("0")
        page.keyboard.press("Enter")
        expect(page.locator("#count")).to_have_text(f"Pair 3 of {PAIRS}")
        server.send_signal(signal.SIGKILL)
        server.wait()
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        expect(page.locator("#trouble")).to_contain_text("goes on where you stopped")
    with (path := next((bench.folder / "answers").iterdir())).open("ab") as file:
        file.write(b'{"pair": "torn')  # as a kill in the middle of a line leaves it
    with process(bench.folder, "Ann") as (_, address):
        page.goto(address)
        expect(page.locator("#count")).to_have_text(f"Pair 3 of {PAIRS}")  # the third had not been taken
        expect(page.locator("#help")).to_be_hidden()
        loaded(page)
        page.keyboard.press("Backspace")
        expect(page.locator("#count")).to_have_text(f"Pair 2 of {PAIRS}")
        expect(page.locator('[data-choice="tie"]')).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("2" if truth[order[1].pair].progressor == order[1].first else "1")  # changed, and wrong
        page.keyboard.press("Enter")
        for number in (3, 4):
            expect(page.locator("#count")).to_have_text(f"Pair {number} of {PAIRS}")
            page.locator('[data-choice="first"]').click()
            page.keyboard.press("Enter")
        expect(page.locator("#end")).to_be_visible()
        page.keyboard.press("Backspace")
        expect(page.locator("#count")).to_have_text(f"Pair {PAIRS} of {PAIRS}")
        expect(page.locator('[data-choice="first"]')).to_have_attribute("aria-pressed", "true")
    reading = read_answers(bench, path)
    assert reading.reader == "Ann" and len(reading.answers) == PAIRS
    assert len(path.read_bytes().splitlines()) == 1 + PAIRS + 1, "the answer that was changed is kept, too"
    first = reading.answers[order[0].pair]
    assert first.confidence == 2 and 0 < first.seconds < 120 and first.seen[0] >= 3
    (bench.folder.parent / "truth.json").rename(bench.folder / "truth.json")
    outcomes = [order[0].pair, *(one.pair for one in order[2:] if truth[one.pair].progressor == one.first)]
    assert cli.main(["readers", "evaluate", str(bench.folder)]) == 0
    figures = json.loads((bench.folder / "evaluation" / "figures.json").read_text("utf-8"))
    assert figures["rows"][0]["auc"][0] == len(outcomes) / PAIRS


def scrolling_shows_other_slices(page: Page, bench: Bench, shown: Any) -> None:
    sizes = [bench.knees[name].slices for name in (shown.first, shown.second)]
    middles = [(size + 1) // 2 for size in sizes]
    for knee in (0, 1):
        at(page, knee, middles[knee])
    before = [pixels(page, knee) for knee in (0, 1)]
    assert len(set(before[0])) > 10, "a picture, not a blank"
    page.keyboard.press("ArrowDown")
    for knee in (0, 1):
        at(page, knee, middles[knee] + 1)
        assert pixels(page, knee) != before[knee]
    page.mouse.move(1000, 300)
    page.mouse.wheel(0, -120)
    for knee in (0, 1):
        at(page, knee, middles[knee])
        assert pixels(page, knee) == before[knee]
    page.keyboard.press("l")  # one alone: that under the pointer
    page.mouse.wheel(0, 120)
    at(page, 1, middles[1] + 1)
    at(page, 0, middles[0])
    page.keyboard.press("End")
    at(page, 1, sizes[1])
    page.keyboard.press("l")
    page.keyboard.press("PageUp")
    at(page, 0, max(1, middles[0] - 5))


def grey_values_follow_the_window(page: Page) -> None:
    before = pixels(page, 0)
    page.keyboard.press("i")
    inverted = pixels(page, 0)
    inside = [(a, b) for a, b in zip(before[::4], inverted[::4], strict=True) if 40 < a < 200]
    assert inside and np.mean([abs(a + b - 255) for a, b in inside]) < 6
    page.keyboard.press("i")
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(300, 240)
    page.screenshot(path=SCREENSHOTS / "brighter.png")
    page.mouse.up()
    assert sum(pixels(page, 0)) > sum(before)
    page.keyboard.press("r")
    assert pixels(page, 0) == before
    page.keyboard.press("s")
    assert sum(pixels(page, 0)) < sum(before)
    page.keyboard.press("w")
    page.keyboard.press("d")
    assert np.std(list(pixels(page, 0)[::4])) > np.std(list(before[::4]))
    page.keyboard.press("a")
    assert pixels(page, 0) == before


def test_the_page_decodes_all_sixteen_bits(page: Page, bench: Bench, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (23, 17)).astype(np.uint16)
    values[:8] = np.arange(8 * 17).reshape(8, 17) * 9  # smooth rows, for the filters that differences are made with
    shown = order_of(bench, "Ann")[0]
    path = bench.picture(shown.first, 1)
    Image.fromarray(values).save(path)
    with serving(bench, "Ann") as server:
        page.goto(server.address)
        expect(page.locator("#count")).to_have_text(f"Pair 1 of {PAIRS}")
        script = """async ([token, path]) => { const { decode } = await import('/png.js');
            const answer = await fetch(path, { headers: { 'X-Genu-Token': token } });
            const found = await decode(await answer.arrayBuffer());
            return [found.width, found.height, ...found.values] }"""
        for name, wanted in (("1", values), ("2", None)):
            found = page.evaluate(script, [server.token, f"/api/pair/1/first/{name}.png"])
            with Image.open(bench.picture(shown.first, int(name))) as image:
                expected = np.asarray(image) if wanted is None else wanted
            assert found[:2] == [expected.shape[1], expected.shape[0]]
            assert np.array_equal(found[2:], expected.ravel())


def test_nothing_that_is_served_tells_truth_patient_side_or_stratum(page: Page, drawn: Path, bench: Bench) -> None:
    served: dict[str, bytes] = {}

    def keep(answer: Response) -> None:
        served[f"{answer.request.method} {answer.url}"] = answer.body() + json.dumps(answer.all_headers()).encode()

    page.on("response", keep)
    with serving(bench, "Ben") as server:
        page.goto(server.address)
        expect(page.locator("#help")).to_be_visible()
        page.keyboard.press("Enter")
        for number in range(1, PAIRS + 1):
            expect(page.locator("#count")).to_have_text(f"Pair {number} of {PAIRS}")
            loaded(page)
            page.keyboard.press("1")
            page.keyboard.press("Enter")
        expect(page.locator("#end")).to_be_visible()
        page.wait_for_load_state("networkidle")
        ask = asker(server)
        for number in range(1, PAIRS + 1):
            status, body, _ = ask(f"/api/pair/{number}")
            served[f"pair {number}"] = body
            assert status == 200 and set(json.loads(body)) == {"first", "second"}
        for path in ("/truth.json", "/bench.json", "/../truth.json", "/%2e%2e/truth.json", "/answers/", "/knees/",
                     "/api/pair/0", "/api/pair/99", "/api/pair/1/first/0.png", "/api/pair/1/first/99.png",
                     "/api/pair/1/third/1.png", "/api/pair/1/first/../../../../truth.json", "/page.py"):  # fmt: skip
            status, body, _ = ask(path)
            served[path] = body
            assert status == 404, path
    slices = sum(one.slices for one in bench.knees.values())
    assert sum(".png" in url and "/99." not in url for url in served) >= slices, "all of it was looked at"
    cohort = pl.read_parquet(drawn / "cohort" / "cohort.parquet")
    truth = read_truth(bench)
    secrets = [
        *cohort["PatientID"].to_list(), *cohort["SeriesInstanceUID"].to_list(), made_readers.NAME, "SECRET", *STRATA,
        *bench.knees, *(one.pair for one in truth.pairs), bench.digest, "delta_mjsw", "progressor", "stratum",
        str(bench.folder),
        *(str(change) for one in truth.pairs for change in one.changes if len(str(change)) > 4),
    ]  # fmt: skip
    for url, body in served.items():
        text = body.decode("latin-1") + url
        assert not [one for one in secrets if one in text], url
        if "/api/" in url and not url.endswith(".png"):
            assert not re.search(r'"(side|left|right|L|R)"|laterality', text), url


def test_two_readers_see_other_orders_and_the_same_one_always_the_same(drawn: Path, tmp_path: Path) -> None:
    bench, _ = made_readers.bare(tmp_path / "bench")
    ann, ben = order_of(bench, "Ann"), order_of(bench, "Ben")
    assert ann == order_of(bench, " Ann ") and ann != ben
    assert sorted(one.pair for one in ann) == sorted(one.pair for one in ben) == sorted(one for one, *_ in bench.pairs)
    assert [one.pair for one in ann] != [one.pair for one in ben]
    sides = {one.pair: one.first for one in ann}
    turned = sum(sides[one.pair] != one.first for one in ben)
    low = sum(one.first < one.second for one in ann)
    assert 50 < turned < 100 and 50 < low < 100
    progressors = {one.progressor for one in read_truth(bench).pairs}
    assert 50 < sum(one.first in progressors for one in ann) < 100
    small = read_bench(drawn / "bench")
    seen = set()
    for reader in ("Ann", "Ben", "Cleo"):
        with serving(read_bench(Path(shutil.copytree(small.folder, tmp_path / reader))), reader) as server:
            ask = asker(server)
            seen.add(ask("/api/pair/1/first/6.png")[1] + ask("/api/pair/2/first/6.png")[1])
    assert len(seen) == 3


def test_only_its_own_page_may_ask_and_only_what_makes_sense_is_kept(bench: Bench) -> None:
    with serving(bench, "Ann", ties=False) as server:
        ask = asker(server)
        plain = {"number": 1, "choice": "first", "confidence": None, "seconds": 3.5, "seen": [1, 1]}

        def send(**changes: Any) -> int:
            return ask("/api/answer", json.dumps(plain | changes).encode())[0]

        assert ask("/api/session", X_Genu_Token="")[0] == 403
        assert ask("/api/session", X_Genu_Token=server.token[:-1] + "~")[0] == 403
        assert ask("/", Host="evil.example")[0] == 403
        assert ask("/api/session", Host=f"localhost:{server.server_address[1]}")[0] == 403
        assert ask("/api/answer", json.dumps(plain).encode(), Origin="http://evil.example")[0] == 403
        assert ask("/api/answer", json.dumps(plain).encode(), Content_Type="text/plain")[0] == 404
        assert ask("/api/answer", b"x" * 2049)[0] == 413
        assert ask("/api/answer", b"[" * 2000)[0] == 400
        assert ask("/api/answer", b"{")[0] == 400
        assert ask("/api/answer", b"[]")[0] == 400
        assert ask("/api/answer", None, "POST", Content_Length="none")[0] == 411
        assert ask("/api/session", method="DELETE")[0] == 501
        wrong: list[dict[str, Any]] = [
            {"number": 2}, {"number": 0}, {"number": True}, {"number": "1"}, {"choice": "tie"}, {"choice": "left"},
            {"confidence": 4}, {"confidence": 2.0}, {"seconds": -1}, {"seconds": float("nan")}, {"seconds": 10**300},
            {"seconds": None}, {"seen": [1]}, {"seen": [1, 99]}, {"seen": "12"}, {"seen": [0.5, 1]}, {"number": 10**40},
        ]  # fmt: skip
        for changes in wrong:
            assert send(**changes) == 400, changes
        assert ask("/api/pair/3")[0] == 404, "one pair ahead, no more"
        assert not server.answers.answers
        status, body, headers = ask("/api/answer", json.dumps(plain).encode())
        assert status == 200 and json.loads(body)["answers"][0] == {"choice": "first", "confidence": None}
        assert "default-src 'none'" in headers["content-security-policy"] and headers["cache-control"] == "no-store"
        assert ask("/api/pair/3")[0] == 200
        with pytest.raises(UsageError, match="cannot be had"):
            ReaderServer(bench, server.answers, server.server_address[1])
        with pytest.raises(DataError, match="reading already"):
            AnswerFile(bench, "Ann")
    with pytest.raises(UsageError, match="could not answer"):
        AnswerFile(bench, "Ann", ties=True)
    assert len(all_readings(bench)[0].answers) == 1


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "Ann\\..\\x", "CON", "é" * 60, "a b'\"<i>"])
def test_a_name_never_becomes_a_path(bench: Bench, name: str) -> None:
    before = {path for path in bench.folder.parent.rglob("*") if path.is_file()}
    with AnswerFile(bench, name) as file:
        shown = order_of(bench, name)[0]
        file.add(shown, "second", confidence=1, seconds=1.0, seen=[1, 1])
    new = {path for path in bench.folder.parent.rglob("*") if path.is_file()} - before
    assert [(path.parent.name, re.fullmatch(r"[0-9a-f]{16}\.jsonl", path.name) is not None) for path in new] == [
        ("answers", True)
    ]
    assert all_readings(bench)[0].reader == name


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 61, "a\x00"])
def test_odd_names_are_refused(bench: Bench, name: str) -> None:
    with pytest.raises(UsageError, match="printable"):
        AnswerFile(bench, name)


def test_a_damaged_or_foreign_file_of_answers_is_told(bench: Bench) -> None:
    with AnswerFile(bench, "Ann") as file:
        file.add(order_of(bench, "Ann")[0], "tie", confidence=None, seconds=1, seen=[1, 1])
    path = next((bench.folder / "answers").iterdir())
    whole = path.read_text("utf-8")
    path.write_text(whole.replace('"choice": "tie"', '"choice": "first"'), encoding="utf-8")
    with pytest.raises(DataError, match="is damaged"):
        all_readings(bench)
    path.write_text("x\n" + whole, encoding="utf-8")
    with pytest.raises(DataError, match="is damaged"):
        AnswerFile(bench, "Ann")
    path.write_text(whole.replace(bench.digest, "0" * 64), encoding="utf-8")
    with pytest.raises(DataError, match="about other pairs"):
        all_readings(bench)
    (bench.folder / "bench.json").write_text('{"version": 1, "pairs": [["../x", "a", "b"]], "knees": {}}')
    with pytest.raises(DataError, match="no identifier"):
        read_bench(bench.folder)
