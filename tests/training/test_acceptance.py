"""The acceptance run: every kind of film is there and is what it says, faults are found, Genu passes a small one."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from inference.errors import DataError
from inference.findings import RefusalCode, Side
from inference.pixels import load_display
from inference.reading import read_instance
from tests import phantom_pixels
from training import acceptance, acceptance_films, cli
from training.acceptance import KINDS, Outcome, TrueFilm, judge, plan, read_truth, write_set, write_truth
from training.acceptance_films import Knees, Picture, There

MEANT = (  # as hospitals send it
    "Error - Empty attribute (no value) Type 1C Conditional Element=<PatientOrientation>",
    "Error - Unrecognized enumerated value <0x3> for value 1 of attribute <Number of Frames>",
)


@pytest.fixture(scope="module")
def knees() -> Knees:
    crops = [np.clip(phantom_pixels.knee("L", 224, 224, seed=seed), 0, 1).astype(np.float32) for seed in range(4)]
    return Knees(tuple(crops), ((crops[0], crops[1]), (crops[2], crops[3])))


@pytest.fixture(scope="module", autouse=True)
def small_films() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acceptance_films, "SMALLEST", 260)
        patch.setattr(acceptance_films, "CROP", (110, 180))
        yield


@pytest.fixture(scope="module")
def small_set(knees: Knees, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrueFilm]]:
    """One film of each kind."""
    out = tmp_path_factory.mktemp("set")
    return out, write_set(knees, len(KINDS), 3, out)


def test_two_hundred_films_hold_three_of_every_kind() -> None:
    counts = Counter(kind.name for kind, _ in plan(200))
    assert len(counts) == len(KINDS) and sum(counts.values()) == 200
    assert min(counts.values()) >= 3
    assert all(counts[kind.name] > 3 for kind in KINDS if kind.common)


@pytest.mark.parametrize("films", [1, 7, 60, 100, 500])
def test_any_number_of_films_can_be_asked_for(films: int) -> None:
    chosen = plan(films)
    assert len(chosen) == films == len({(kind.name, number) for kind, number in chosen})


def test_the_same_seed_makes_the_same_files(knees: Knees, tmp_path: Path) -> None:
    first, again, other = (write_set(knees, 4, seed, tmp_path / name) for seed, name in ((1, "a"), (1, "b"), (2, "c")))
    assert first == again != other
    for film in first:
        assert (tmp_path / "a" / film.file).read_bytes() == (tmp_path / "b" / film.file).read_bytes()


def test_the_table_holds_what_was_made(small_set: tuple[Path, list[TrueFilm]], tmp_path: Path) -> None:
    _, truth = small_set
    write_truth(truth, tmp_path / "truth.csv")
    read = read_truth(tmp_path / "truth.csv")
    assert [film.row() for film in read] == [film.row() for film in truth]
    assert {film.kind for film in read} == {kind.name for kind in KINDS}
    assert len({film.source for film in truth}) == len(truth)


def test_films_are_what_the_table_says(small_set: tuple[Path, list[TrueFilm]]) -> None:
    out, truth = small_set
    for film in truth:
        ds = pydicom.dcmread(out / film.file)
        assert (ds.StudyInstanceUID, ds.SOPInstanceUID) == (film.study, film.source)
        assert ds.PatientID.startswith("ACCEPTANCE-")
        if film.kind == "multi-frame":
            continue
        values = load_display(read_instance(out / film.file)).values
        assert max(values.shape) <= 2500
        for knee in film.knees:
            if film.kind != "cut off":
                assert 0 < knee.x < values.shape[1] and 0 < knee.y < values.shape[0]
        assert film.expected <= {knee.side for knee in film.knees}


def test_dciodvfy_finds_nothing_but_what_is_meant(small_set: tuple[Path, list[TrueFilm]]) -> None:
    out, truth = small_set
    for film in truth:
        try:
            done = subprocess.run(["dciodvfy", str(out / film.file)], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("dciodvfy is missing: apt-get install dicom3tools")
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert [line for line in errors if not line.startswith(MEANT)] == [], film.kind


def marked(rows: int = 60, columns: int = 90) -> Picture:
    """A film with one bright pixel in the middle of its knee."""
    pixels = np.zeros((rows, columns), np.float32)
    pixels[20, 30] = 1
    return Picture(pixels, (There(Side.LEFT, 30.5, 20.5, 20.0, 20.0),))


@pytest.mark.parametrize(
    "picture",
    [
        acceptance_films.mirrored(marked()),
        *[acceptance_films.turned(marked(), quarters) for quarters in (1, 2, 3)],
        acceptance_films.cut(marked(), 5, 40, 7, 80),
        acceptance_films.resized(marked(), 3.0, 2.0),
        acceptance_films.stacked(Picture(np.zeros((50, 90), np.float32)), marked()),
    ],
)
def test_knees_stay_where_they_are_when_a_film_is_changed(picture: Picture) -> None:
    (knee,) = picture.knees
    row, column = np.unravel_index(picture.pixels.argmax(), picture.pixels.shape)
    assert abs(row + 0.5 - knee.y) <= 1 and abs(column + 0.5 - knee.x) <= 1.5


@pytest.mark.parametrize("seed", range(6))
def test_letters_stand_beside_their_leg_and_not_over_a_joint(knees: Knees, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bare = acceptance_films.bilateral(knees.both(rng), rng, mirrored=bool(seed % 2))
    film = acceptance_films.lettered(bare, Side.RIGHT, rng, backwards=bool(seed % 3))
    rows, columns = np.nonzero(film.pixels != bare.pixels)
    right = next(knee for knee in bare.knees if knee.side is Side.RIGHT)
    left = next(knee for knee in bare.knees if knee.side is Side.LEFT)
    assert rows.size
    assert abs(columns.mean() - right.x) < abs(columns.mean() - left.x)
    for knee in bare.knees:
        inside = (abs(columns - knee.x) < 0.3 * knee.width) & (abs(rows - knee.y) < 0.5 * knee.height)
        assert not inside.any()


# ---- the judgement

BOX = [150.0, 250.0, 250.0, 350.0]
FILM = TrueFilm(
    "films/0.dcm",
    "1.2",
    "1.2.3",
    "a kind",
    frozenset({Side.LEFT}),
    frozenset(),
    (There(Side.LEFT, 200.0, 300.0, 100.0, 100.0), There(Side.RIGHT, 700.0, 300.0, 100.0, 100.0)),
    "a film",
)
REFUSED = replace(FILM, expected=frozenset(), codes=frozenset({RefusalCode.SIDE_UNKNOWN}))


def line(*knees: tuple[str, list[float]], codes: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    entries = [{"side": side, "source": "1.2.3", "box": box} for side, box in knees]
    refusals = [{"code": code, "reason": "why", "source": "1.2.3"} for code in codes]
    return {"study": "1.2", "status": "scored", "knees": entries, "refusals": refusals} | more


@pytest.mark.parametrize(
    ("film", "result", "outcome"),
    [
        (FILM, line(("L", BOX)), Outcome.SCORED),
        (FILM, line(("R", BOX)), Outcome.WRONG_SIDE),
        (FILM, line(("L", [650.0, 250.0, 750.0, 350.0])), Outcome.WRONG_SIDE),
        (FILM, line(("L", [400.0, 250.0, 500.0, 350.0])), Outcome.NO_KNEE),
        (replace(FILM, knees=()), line(("L", BOX)), Outcome.NO_KNEE),
        (FILM, line(("L", BOX), ("R", [650.0, 250.0, 750.0, 350.0])), Outcome.UNFIT),
        (FILM, line(codes=("side_unknown",)), Outcome.NEEDLESS),
        (replace(FILM, codes=REFUSED.codes), line(codes=("side_unknown",)), Outcome.REFUSED),
        (replace(FILM, expected=frozenset(Side)), line(("L", BOX)), Outcome.NEEDLESS),
        (REFUSED, line(codes=("side_unknown",)), Outcome.REFUSED),
        (REFUSED, line(codes=("no_knee_found",)), Outcome.OTHER_CODE),
        (REFUSED, line(("L", BOX)), Outcome.UNFIT),
        (REFUSED, line(("R", BOX)), Outcome.WRONG_SIDE),
        (REFUSED, line(), Outcome.LOST),
        (REFUSED, line(status="failed"), Outcome.LOST),
        (REFUSED, line(study="9.9"), Outcome.LOST),
    ],
)
def test_what_comes_of_a_film(film: TrueFilm, result: dict[str, Any], outcome: Outcome, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(json.dumps(result) + "\n")
    (judged,) = judge([film], tmp_path / "results.jsonl").films
    assert judged.outcome is outcome


@pytest.mark.parametrize(
    ("film", "result", "status"),
    [
        (FILM, line(("L", BOX)), 0),
        (FILM, line(codes=("side_unknown",)), 0),
        (FILM, line(("R", BOX)), 1),
        (replace(FILM, expected=frozenset(), knees=()), line(("R", BOX)), 1),
        (FILM, line(status="failed"), 1),
    ],
)
def test_the_command_fails_on_a_wrong_side_and_on_a_grade_on_no_knee(
    film: TrueFilm, result: dict[str, Any], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_truth([film], tmp_path / acceptance.TRUTH)
    (tmp_path / "results.jsonl").write_text(json.dumps(result) + "\n")
    arguments = ["acceptance", "--out", str(tmp_path), "--judge", str(tmp_path / "results.jsonl")]
    assert cli.main(arguments) == status
    told = capsys.readouterr()
    assert "| a kind | 1 |" in told.out
    assert ("not accepted" in told.err) == bool(status)
    assert (tmp_path / "verdict.csv").exists()


def test_wrong_use_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["acceptance", "--out", str(tmp_path)]) == 2
    assert "--images and --labels" in capsys.readouterr().err
    with pytest.raises(DataError, match="truth"):
        read_truth(tmp_path / "truth.csv")
    (tmp_path / "results.jsonl").write_text("nonsense\n")
    with pytest.raises(DataError, match="is not what"):
        judge([FILM], tmp_path / "results.jsonl")
    (tmp_path / "truth.csv").write_text(",".join(acceptance.COLUMNS) + "\nfilms/0.dcm,1,2,kind,score X,,,\n")
    with pytest.raises(DataError, match="line 2"):
        read_truth(tmp_path / "truth.csv")


def test_genu_passes_on_a_film_of_every_kind(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptance_films, "SMALLEST", 600)
    monkeypatch.setattr(acceptance_films, "CROP", (200, 400))
    knees = shared_data / "kl224"
    data = ["--images", str(knees / "val.tar"), "--labels", str(knees / "labels.csv")]
    status = cli.main(["acceptance", *data, "--out", str(tmp_path), "--films", "60"])
    told = capsys.readouterr().out
    assert status == 0, told
    assert "| **all** | 60 |" in told
