"""Orthanc is stopped, and killed at random moments, while studies arrive: none is missed, none is scored twice.

Eight kills here; `make soak` makes as many as GENU_SOAK_ROUNDS says, a tenth of them, with the seed GENU_SOAK_SEED.
"""

import os
import random
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests import phantoms
from tests.plugin.orthanc_genu import GenuOrthanc, ended, genu_orthanc
from tests.plugin.standin import standin_bundle

FILMS_A_ROUND = 3
PATIENCE_SECONDS = 30.0


def genu(folder: Path) -> dict[str, object]:
    """No attempt that a kill eats makes a dead letter, and none waits for long."""
    queue = {"max_attempts": 1000, "backoff_seconds": 0.5, "backoff_max_seconds": 1.0}
    delivery = {"backoff_seconds": 0.5, "backoff_max_seconds": 1.0}
    # A film that came before a kill is asked about so long after the next start.
    completeness = {"quiet_seconds": 1.0}
    settings = {"queue": queue, "delivery": delivery, "completeness": completeness, "orthanc": {"poll_seconds": 0.5}}
    return settings | {"data_dir": str(folder / "genu"), "bundles": [str(standin_bundle())]}


def film(folder: Path, name: str) -> tuple[str, Path]:
    """A knee of its own study: Study Instance UID, file."""
    ds = phantoms.dx_knee("L", identity=name)
    return ds.StudyInstanceUID, phantoms.write(ds, folder / f"{name}.dcm")


def arrive(server: GenuOrthanc, films: list[Path], chance: random.Random) -> None:
    """Send one after the other, to an Orthanc that may go at any moment."""
    for path in films:
        time.sleep(chance.uniform(0.0, 0.6))
        try:
            server.send(path)
        except subprocess.CalledProcessError:
            return


def account(server: GenuOrthanc, sent: dict[str, Path]) -> str:
    """Every study that Orthanc has is scored exactly once, and Genu is at rest; the sentence to print."""
    studies = [server.get(f"/studies/{one}")["MainDicomTags"]["StudyInstanceUID"] for one in server.get("/studies")]
    assert set(studies) <= set(sent)
    for uid in studies:
        server.wait_for(uid)
    jobs = server.wait_until_idle()["jobs"]
    time.sleep(2.0)  # the results make their studies stable once more
    assert server.wait_until_idle()["jobs"] == jobs
    for uid in studies:
        (revision,) = server.study(uid)["revisions"]
        assert (revision["state"], revision["status"]) == ("done", "scored")
        assert len(server.reports(uid)) == 1
        assert len(server.objects(uid)) == 3
    return f"{len(studies)} of {len(sent)} films sent are in Orthanc, each scored once"


def wait_for_the_moment(server: GenuOrthanc, number: int, chance: random.Random) -> str:
    """Every other kill comes at any time, the others while a study is scored or while its results are stored."""

    def jobs() -> dict[str, int]:
        answer = server.ask("GET", "/status")
        return dict(answer.json()["jobs"]) if answer.ok else {"running": 0, "done": -1}

    if number % 2 == 0:
        time.sleep(chance.choice((chance.uniform(0.0, 1.0), chance.uniform(0.5, 4.0))))
        return "any time"
    before = jobs()["done"] if number % 4 == 3 else 0
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        now = jobs()
        before = now["done"] if before < 0 else before
        if now["running"] if number % 4 == 1 else now["done"] > before:
            break
        time.sleep(0.01)
    time.sleep(chance.uniform(0.0, 0.3 if number % 4 == 1 else 0.1))
    return "while scoring" if number % 4 == 1 else "while storing"


def run_rounds(folder: Path, rounds: int, seed: int) -> None:
    print(f"{rounds} rounds, seed {seed}")
    chance = random.Random(seed)
    sent: dict[str, Path] = {}
    moments: Counter[str] = Counter()
    with genu_orthanc(folder, genu=genu(folder)) as server:
        for number in range(rounds):
            films = dict(film(folder / "films", f"kill-{seed}-{number}-{index}") for index in range(FILMS_A_ROUND))
            sent |= films
            sender = threading.Thread(target=arrive, args=(server, list(films.values()), random.Random(seed + number)))
            sender.start()
            moments[wait_for_the_moment(server, number, chance)] += 1
            server.kill()
            sender.join()
            server.start()
        print(account(server, sent), dict(moments))


def test_killed_at_random_moments(tmp_path: Path) -> None:
    run_rounds(tmp_path, rounds=8, seed=int(os.environ.get("GENU_SOAK_SEED", "20261122")))


@pytest.mark.soak
def test_soak(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    asked_for = request.config.getoption("-m") == "soak"
    rounds = int(os.environ.get("GENU_SOAK_ROUNDS", "500" if asked_for else "0")) // 10
    if not rounds:
        pytest.skip("many rounds: run `make soak`, or set GENU_SOAK_ROUNDS")
    run_rounds(tmp_path, rounds=rounds, seed=int(os.environ.get("GENU_SOAK_SEED", "1")))


def test_a_restart_finds_what_was_pending_and_repeats_nothing(tmp_path: Path) -> None:
    old, done, pending = (film(tmp_path / "films", f"restart-{name}") for name in ("old", "done", "pending"))
    with ended(GenuOrthanc(tmp_path, genu=genu(tmp_path))) as server:
        with_genu = server.config
        server.config = with_genu | {"Plugins": []}
        server.start()
        server.send(old[1])
        server.stop()

        server.config = with_genu
        server.start()
        server.send(done[1])
        server.wait_for(done[0])
        before = server.study(done[0])
        assert server.study(old[0])["state"] == "unknown"  # from before Genu's first start
        server.send(pending[1])  # its stability is lost with the process
        assert server.stop() == 0

        server.start()
        server.wait_for(pending[0])
        assert server.study(done[0]) == before
        assert server.wait_until_idle()["jobs"]["done"] == 2
        assert server.ask("POST", f"/studies/{old[0]}/score").status_code == 202  # a person may ask for it
        account(server, dict([old, done, pending]))
        assert server.status()["orthanc"]["waiting_instances"] == 0


def test_what_genu_forgot_orthanc_knows(tmp_path: Path) -> None:
    """Its data folder is lost: what came since Genu's first start in this Orthanc is in the queue again, once."""
    known = film(tmp_path / "films", "forgotten")
    with ended(GenuOrthanc(tmp_path, genu=genu(tmp_path) | {"workers": {"count": 0}})) as server:
        server.start()
        server.send(known[1])
        server.until(lambda: server.study(known[0]).get("state") == "queued", 20)
        server.kill()
        server.config["Genu"]["data_dir"] = str(tmp_path / "another")
        server.start()
        server.until(lambda: server.study(known[0]).get("state") == "queued", 20)
        assert server.status()["jobs"]["queued"] == 1
