"""What changes of a film cost: the changes do what they say, and the table says what came out."""

import re
from pathlib import Path

import numpy as np
import pytest

from inference.findings import Side
from inference.predictor import Predictor
from training.cli import main
from training.dicomize import LabelledImage
from training.robustness import KNEE, Case, Change, changes, make_case, run
from training.robustness_cli import BEGIN, END, table, write_into
from training.robustness_picture import draw
from training.schematic import CROP, Schematic, schematic_knee
from training.standin import write_random_bundle


def drawn(number: int) -> tuple[np.ndarray, LabelledImage]:
    rng = np.random.default_rng(number)
    edge = round((1 - CROP) / 2 * 330)
    knee = schematic_knee(330, 330, rng, Schematic(noise=0.005))[edge : edge + 224, edge : edge + 224]
    side = Side.LEFT if number % 2 else Side.RIGHT
    return (knee * 255).astype(np.uint8), LabelledImage(f"{number}.png", "val", number % 3, f"patient-{number}", side)


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(*drawn(1), np.random.default_rng(0))


def by_name(kind: str, step: str) -> Change:
    return next(change for change in changes() if (change.kind, change.step) == (kind, step))


def test_every_kind_of_the_issue_is_there() -> None:
    kinds = {change.kind for change in changes()}
    assert {"rotation", "contrast", "noise", "JPEG", "MONOCHROME1", "mirror", "crop offset", "resolution"} <= kinds
    assert any("scale" in kind for kind in kinds)
    assert len({(change.kind, change.step) for change in changes()}) == len(changes())


@pytest.mark.parametrize("change", changes(), ids=lambda change: f"{change.kind} {change.step}")
def test_a_change_changes_the_film_and_nothing_else(case: Case, change: Change) -> None:
    changed = change.apply(case, np.random.default_rng(1))
    again = change.apply(case, np.random.default_rng(1))
    assert np.array_equal(changed.film, again.film)
    assert changed.film.dtype == np.float32
    assert 0 <= changed.film.min() <= changed.film.max() <= 1
    assert changed.row is case.row
    if changed.photometric == case.photometric:
        assert changed.film.shape != case.film.shape or np.abs(changed.film - case.film).max() > 0.01


def test_steps_are_of_the_size_they_name(case: Case) -> None:
    rng = np.random.default_rng(2)
    shrunk = by_name("resolution", "knee of 96 pixels").apply(case, rng).film
    assert shrunk.shape[0] / case.film.shape[0] == pytest.approx(96 / KNEE, abs=0.01)
    noisy = by_name("noise", "deviation 0.05").apply(case, rng).film
    inside = (case.film > 0.3) & (case.film < 0.7)
    assert (noisy - case.film)[inside].std() == pytest.approx(0.05, abs=0.01)
    mirrored = by_name("mirror", "mirrored, not declared").apply(case, rng).film
    assert np.array_equal(mirrored[:, ::-1], case.film)
    declared = by_name("MONOCHROME1", "declared").apply(case, rng)
    assert (declared.photometric, np.abs(1 - declared.film - case.film).max() < 1e-6) == ("MONOCHROME1", True)
    cut = by_name("cut off", "50 % of the knee").apply(case, rng).film
    lost = [case.film.shape[axis] - cut.shape[axis] for axis in (0, 1)]
    assert max(lost) > 0.4 * KNEE
    assert min(lost) == 0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:  # type: ignore[type-arg]
    patch = pytest.MonkeyPatch()
    some = [by_name("MONOCHROME1", "declared"), by_name("mirror", "mirrored, not declared"),
            by_name("resolution", "knee of 50 pixels")]  # fmt: skip
    patch.setattr("training.robustness.changes", lambda: some)
    films = [drawn(number) for number in range(6)]
    bundle = write_random_bundle(tmp_path_factory.mktemp("bundle") / "random")  # the shipped one refuses drawn knees
    said: list[str] = []
    try:
        found = run(
            np.stack([crop for crop, _ in films]),
            [row for _, row in films],
            Predictor.load([bundle], threads=1),
            said.append,
        )
    finally:
        patch.undo()
    assert said[1:] == [f"{change.kind}: {change.step}" for change in some]
    return found


def test_films_go_through_what_the_service_does(results: dict) -> None:  # type: ignore[type-arg]
    assert (results["knees"], results["patients"]) == (6, 6)
    assert results["films"]["wrong_sides"] == 0
    rows = {row["kind"]: row for row in results["changes"]}
    assert rows["MONOCHROME1"]["refused"] == results["films"]["refused"]
    assert rows["MONOCHROME1"]["same_grade"] == 1
    assert rows["mirror"]["refused"] == 1
    assert set(rows["mirror"]["codes"]) == {"side_contradictory"}
    assert rows["resolution"]["refused"] == 1
    assert set(rows["resolution"]["codes"]) == {"knee_too_small"}


def test_table_and_picture(results: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
    text = table(results)
    assert re.match(r"[\w-]+ \d+\.\d+\.\d+ \([0-9a-f]{12}\), 6 knees of 6 patients\.\n", text)
    assert "| mirror | mirrored, not declared | - |" in text
    assert "`side_contradictory` 6" in text
    draw(results, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_into(page, text)
    assert page.read_text() == f"before\n{BEGIN}\n{text}\n{END}\nafter\n"


def test_wrong_use_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,split,kl,subject,side\na.png,val,1,p,L\n")
    command = ["robustness", "--images", str(tmp_path), "--labels", str(labels), "--out", str(tmp_path / "out")]
    assert main([*command, "--knees", "1"]) == 2
    assert "at least 2" in capsys.readouterr().err
    assert main(command) == 2
    assert "looks_inverted" in capsys.readouterr().err
    labels.write_text("file,split,kl,subject,side,looks_inverted\na.png,val,1,p,L,0\n")
    assert main(command) == 2
    assert "a.png" in capsys.readouterr().err
    page = tmp_path / "page.md"
    page.write_text("no marks")
    with pytest.raises(Exception, match="no lines"):
        write_into(page, "text")
