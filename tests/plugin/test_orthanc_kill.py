"""Orthanc is stopped, and killed at random moments, while studies arrive: none is missed, none is scored twice.

Eight kills here; `make soak` makes as many as GENU_SOAK_ROUNDS says, a tenth of them, with the seed GENU_SOAK_SEED.
"""

import os
import random
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests import phantoms
from tests.plugin.orthanc_genu import GenuOrthanc, ended, genu_orthanc
from tests.plugin.standin import standin_bundle

FILMS_A_ROUND = 3


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


def run_rounds(folder: Path, rounds: int, seed: int) -> None:
    print(f"{rounds} rounds, seed {seed}")
    chance = random.Random(seed)
    sent: dict[str, Path] = {}
    with genu_orthanc(folder, genu=genu(folder)) as server:
        for number in range(rounds):
            films = dict(film(folder / "films", f"kill-{seed}-{number}-{index}") for index in range(FILMS_A_ROUND))
            sent |= films
            sender = threading.Thread(target=arrive, args=(server, list(films.values()), chance))
            sender.start()
            # Now before anything has come, now when it is stable, now while it is scored or stored.
            time.sleep(chance.choice((chance.uniform(0.0, 1.0), chance.uniform(0.5, 4.0))))
            server.kill()
            sender.join()
            server.start()
        print(account(server, sent))


def test_killed_at_random_moments(tmp_path: Path) -> None:
    run_rounds(tmp_path, rounds=8, seed=int(os.environ.get("GENU_SOAK_SEED", "20261122")))


@pytest.mark.soak
def test_soak(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    asked_for = request.config.getoption("-m") == "soak"
    rounds = int(os.environ.get("GENU_SOAK_ROUNDS", "500" if asked_for else "0")) // 10
    if not rounds:
        pytest.skip("many rounds: run `make soak`, or set GENU_SOAK_ROUNDS")
    run_rounds(tmp_path, rounds=rounds, seed=int(os.environ.get("GENU_SOAK_SEED", "1")))


def test_a_restart_finds_what_was_pending_and_does_not_repeat_what_was_done(tmp_path: Path) -> None:
    done, pending = film(tmp_path / "films", "restart-done"), film(tmp_path / "films", "restart-pending")
    with genu_orthanc(tmp_path, genu=genu(tmp_path)) as server:
        server.send(done[1])
        server.wait_for(done[0])
        before = server.study(done[0])
        server.send(pending[1])  # its stability is lost with the process
        assert server.stop() == 0
        server.start()
        account(server, dict([done, pending]))
        assert server.study(done[0]) == before
        assert server.status()["orthanc"]["waiting_instances"] == 0


def test_what_was_there_before_genu_is_left_alone(tmp_path: Path) -> None:
    old, new = film(tmp_path / "films", "before-genu"), film(tmp_path / "films", "with-genu")
    with ended(GenuOrthanc(tmp_path, genu=genu(tmp_path))) as server:
        with_genu = server.config
        server.config = with_genu | {"Plugins": []}
        server.start()
        server.send(old[1])
        server.stop()
        server.config = with_genu
        server.start()
        server.send(new[1])
        server.wait_for(new[0])
        assert server.wait_until_idle()["jobs"]["done"] == 1
        assert server.study(old[0])["state"] == "unknown"
        # A person may ask for it.
        assert server.ask("POST", f"/studies/{old[0]}/score").status_code == 202
        assert server.wait_for(old[0])["status"] == "scored"
