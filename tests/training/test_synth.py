"""A made MRKR: the cohort finds the very knees and counts that were planned, and pain is what was planted."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import UsageError
from training import cli
from training.cohorts import mrkr
from training.cohorts.made import is_made
from training.cohorts.rows import select
from training.cohorts.rules import read_rules, shipped
from training.synth import make_mrkr
from training.synth_films import draw_film
from training.synth_plan import EFFECTS, Film, KneeTruth, effects, plan
from training.synth_tables import write_tables
from training.synth_truth import RULES, truth

UNITS = ("patients", "studies", "images", "knees")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth")
    assert cli.main(["synth", "mrkr", "--out", str(out), "--patients", "24", "--seed", "5"]) == 0
    assert cli.main(["index", str(out / "images")]) == 0
    return out


def plan_to_tables(folder: Path, patients: int, seed: int) -> list[Any]:
    """Tables and an index of a plan, without drawing films."""
    people = plan(patients, seed, effects())
    write_tables(people, folder, seed)
    names = ("path", "reason", "SOPInstanceUID", "StudyInstanceUID", "PatientID")
    films = [film for person in people for film in person.films if film.fate != "lost"]
    from training.synth_truth import identity

    rows = [
        (f"{n}.dcm", *((None, identity(film).sop_uid) if film.fate == "kept" else ("unreadable", None)), None, None)
        for n, film in enumerate(films)
    ]
    schema = dict.fromkeys(names, pl.String)
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(folder / "index.parquet")
    return people


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("window", [3, 7])
def test_every_count_of_every_rule_and_every_knee_is_what_was_planned(tmp_path: Path, seed: int, window: int) -> None:
    people = plan_to_tables(tmp_path, 150, seed)
    source = mrkr.read(tmp_path, tmp_path / "index.parquet", tmp_path)
    cohort = select(source, read_rules(shipped("mrkr"), "mrkr", {"window": window}))
    known = truth(people, window)
    found = [(step.name, *(getattr(step.kept, unit) for unit in UNITS)) for step in cohort.steps]
    assert found == [(step["rule"], *(step[unit] for unit in UNITS)) for step in known["flow"]]
    rows = {row["knee"]: row for row in cohort.knees.to_dicts()}
    assert rows.keys() == known["knees"].keys()
    for knee, planned in known["knees"].items():
        row = rows[knee]
        for name in ("PatientID", "side", "age", "sex", "flipped", "inverted", "pain", "days_between"):
            assert row[name] == planned[name], (knee, name)
        assert row["kl"] == (planned["kl"] if planned["kl_in_table"] else None)
        assert row["race"] == (None if planned["race"] == "Unknown" else planned["race"])


def test_every_rule_has_something_to_drop() -> None:
    flow = truth(plan(300, 0, effects()))["flow"]
    knees, images = ([step[unit] for step in flow] for unit in ("knees", "images"))
    lost = [a > b or c > d for a, b, c, d in zip(knees, knees[1:], images, images[1:], strict=False)]
    assert [step["rule"] for step in flow[1:]] == list(RULES)
    assert all(lost), dict(zip(RULES, lost, strict=True))


def test_the_commands_lead_to_the_planned_cohort(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = made / "cohort"
    arguments = [
        "cohort",
        "mrkr",
        "--export",
        str(made / "images"),
        "--tables",
        str(made / "tables"),
        "--out",
        str(out),
    ]
    assert cli.main(arguments) == 0
    known = json.loads((made / "truth.json").read_text("utf-8"))
    assert set(pl.read_parquet(out / "cohort.parquet")["knee"]) == set(known["knees"])
    written = {path.name for path in out.iterdir()}
    assert written == {
        "cohort.parquet", "cohort.json", "flow.csv", "flow.md", "flow.png", "flow.svg", "rules.toml"
    }  # fmt: skip
    content = json.loads((out / "cohort.json").read_text("utf-8"))
    assert content["made"] is True
    assert is_made(out)
    assert content["counts"]["knees"] == len(known["knees"])
    table = made / "tables" / "MRKR_pain.csv"
    assert content["inputs"]["MRKR_pain.csv"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert (out / "rules.toml").read_bytes() == shipped("mrkr").read_bytes()
    assert f"{len(known['knees'])} knees" in capsys.readouterr().out
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert cli.main(arguments) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_the_window_and_rules_of_ones_own_are_options(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["cohort", "mrkr", "--export", str(made / "images"), "--tables", str(made / "tables"), "--out"]
    sizes = []
    for window in (0, 7, 40):
        assert cli.main([*base, str(made / f"w{window}"), "--window", str(window)]) == 0
        sizes.append(len(pl.read_parquet(made / f"w{window}" / "cohort.parquet")))
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]
    own = made / "own.toml"
    own.write_text(shipped("mrkr").read_text("utf-8").replace("window = 7", "window = 40"), encoding="utf-8")
    assert cli.main([*base, str(made / "own"), "--rules", str(own)]) == 0
    assert len(pl.read_parquet(made / "own" / "cohort.parquet")) == sizes[2]
    capsys.readouterr()
    assert cli.main([*base, str(made / "x"), "--window", "-1"]) == 2
    assert cli.main([*base, str(made / "x"), "--targets", "kl"]) == 2
    assert cli.main([*base, str(made / "x"), "--rules", str(shipped("table"))]) == 2
    assert "holds rules for 'table'" in capsys.readouterr().err


def test_the_files_that_are_written_are_the_same_every_time(made: Path, tmp_path: Path) -> None:
    make_mrkr(tmp_path, 24, 5)
    again = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name, content in again.items():
        assert (made / name).read_bytes() == content, name


def test_the_films_are_valid_dx(made: Path) -> None:
    films = []
    for path in sorted((made / "images").rglob("*.dcm")):
        if path.stat().st_size < 1000:
            continue
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        assert ds.ImageLaterality in ("L", "R", "B")
        assert (ds.Rows, ds.Columns) == (448, 700 if ds.ImageLaterality == "B" else 350)
        assert ds.PatientID in path.parts
        films.append(path)
    assert {pydicom.dcmread(path, stop_before_pixels=True).BitsStored for path in films} == {8, 12}
    for path in films:
        try:
            found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
        except FileNotFoundError:
            pytest.skip("dciodvfy is missing: apt-get install dicom3tools")
        assert [line for line in found.splitlines() if line.startswith(("Error", "Warning"))] == [], path


def test_the_planted_effects_come_back() -> None:
    changes = {"kl": 1.0, "image": 3.0, "age": 0.5, "sex": 0.7, "race": 1.0, "base": 2.0, "noise": 0.3}
    people = plan(1500, 3, effects(changes))
    rows, pain = [], []
    for person in people:
        for film in person.films[:1]:
            for side in "LR":
                knee = person.knees[film.study, side]
                black = person.race == "African American or Black"
                row = (1, knee.kl, knee.effusion, (film.age - 60) / 10, person.sex == "F", black)
                assert np.isclose(np.dot(row, [changes[n] for n in ("base", "kl", "image", "age", "sex", "race")]),
                                  knee.expected, atol=1e-3)  # fmt: skip
                rows.append(row)
                pain.append(knee.expected if knee.score in (0, 10) else knee.score)
    fitted = np.linalg.lstsq(np.array(rows, float), np.array(pain, float), rcond=None)[0]
    assert np.allclose(fitted, [changes[n] for n in ("base", "kl", "image", "age", "sex", "race")], atol=0.1)


def test_an_effect_of_zero_is_none() -> None:
    people = plan(40, 1, effects({"kl": 0, "image": 0, "noise": 0, "base": 4}))
    assert {knee.score for person in people for knee in person.knees.values()} == {4}


def film(**changes: Any) -> Film:
    from datetime import date

    said: dict[str, Any] = {
        "name": "a", "study": "a", "day": date(2012, 1, 1), "age": 60, "shows": "B", "laterality": "B", "view": "F",
        "standing": True, "flipped": False, "inverted": False, "arthroplasty": "0", "graded": True, "fate": "kept",
    }  # fmt: skip
    return Film(**{**said, **changes})


def knees(kl: int, effusion: float) -> dict[str, KneeTruth]:
    return {side: KneeTruth(kl, effusion, 0.0, 0) for side in "LR"}


def drawn(kl: int, effusion: float = 0.0, **changes: Any) -> np.ndarray:
    return draw_film(film(**changes), knees(kl, effusion), np.random.default_rng(7))


def test_the_grade_and_the_effusion_are_seen_in_the_pixels() -> None:
    healthy, narrow, swollen = drawn(0), drawn(4), drawn(0, 1.0)
    joint = (slice(205, 245), slice(205, 270))  # of the knee at the left, medial half
    assert narrow[joint].mean() > healthy[joint].mean() + 0.05
    recess = (slice(120, 155), slice(125, 225))
    shaft = (slice(320, 430), slice(140, 210))
    assert swollen[recess].mean() / swollen[shaft].mean() > 1.1 * healthy[recess].mean() / healthy[shaft].mean()


def test_flipped_and_inverted_films_are_what_their_flags_say() -> None:
    plain = drawn(2)
    assert np.array_equal(drawn(2, flipped=True), plain[:, ::-1])
    assert np.allclose(drawn(2, inverted=True), 1 - plain)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_patient_depends_on_seed_and_number_only(count: int, seed: int) -> None:
    assert plan(count, seed, EFFECTS) == plan(count + 3, seed, EFFECTS)[:count]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--effect", "luck=1"], "there is no effect luck"),
        (["--effect", "kl"], "written NAME=VALUE"),
        (["--effect", "noise=-1"], "standard deviation"),
        (["--patients", "0"], "must be 1 or more"),
    ],
)
def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert cli.main(["synth", "mrkr", "--out", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_effects_are_checked() -> None:
    with pytest.raises(UsageError, match="there are base, kl, image"):
        effects({"luck": 1})


@pytest.mark.parametrize(("kl", "effusion"), [(0, 0.0), (2, 1.0), (4, 0.5)])
def test_the_shipped_finder_finds_every_drawn_knee(kl: int, effusion: float) -> None:
    from inference.finder import Finder

    finder = Finder.load()
    for shows, places in (("B", (0.25, 0.75)), ("L", (0.5,)), ("R", (0.5,))):
        pixels = drawn(kl, effusion, shows=shows)
        seen = [knee for knee in finder.look(pixels).knees if knee.score >= finder.thresholds.knee]
        found = sorted(knee.x / pixels.shape[1] for knee in seen)
        assert np.allclose(found, places, atol=0.05), shows


def test_what_was_not_made_here_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "real.dcm").write_bytes(b"a patient's")
    with pytest.raises(UsageError, match="was not made here and would be deleted"):
        make_mrkr(tmp_path, 1)
    assert (tmp_path / "images" / "real.dcm").read_bytes() == b"a patient's"
