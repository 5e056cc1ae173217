"""Pairs for readers: strata to the edge, nobody twice, pictures that are the series and tell nothing of whose it is."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from inference.errors import DataError, UsageError
from inference.mr_sequences import MRSequence
from tests.mr_phantoms import Grid, mr_series, sampled
from tests.phantoms import write
from tests.training import made_readers
from training import cli
from training.predictions import Predictions, write_predictions
from training.prepared import PreparedStore
from training.readers import STRATA, Strata, read_bench, read_truth
from training.readers_draw import Match, Wish, candidates, draw
from training.readers_pictures import UnfitError, from_series


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("readers")
    made_readers.write_cohort(out)
    assert run(out, out / "bench", "--strata", "2,4,2") == 0
    return out


def run(root: Path, out: Path, *options: str) -> int:
    inputs = ["--cohort", str(root / "cohort"), "--export", str(root / "images")]
    return cli.main(["readers", "draw", *inputs, "--out", str(out), *options])


def frame(count: int, seed: int) -> pl.DataFrame:
    """Rows of a large cohort, two visits of both knees of a patient."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(count // 4), 4)
    return pl.DataFrame({
        "knee": [f"{n}/{'LR'[n % 2]}/V" for n in range(count)], "SeriesInstanceUID": [str(n) for n in range(count)],
        "PatientID": [f"P{n}" for n in patients], "side": ["LR"[n % 2] for n in range(count)],
        "sequence": "COR_IW_TSE", "sex": generator.choice(["M", "F"], count), "age": generator.uniform(45, 79, count),
        "delta_mjsw": generator.normal(-0.1, 0.45, count).round(3), "fold": patients % 5,
    })  # fmt: skip


def test_the_pairs_of_the_paper_are_drawn_from_a_large_cohort_and_nobody_is_in_two() -> None:
    wish = Wish(Strata(), (Match("sex"), Match.read("age:5"), Match("fold")))
    rows, left_out = candidates(frame(6000, 0), "cor_iw_tse", wish)
    assert left_out == {"of another sequence": 0, "without delta_mjsw, patient or side": 0}
    choices = draw(rows, wish, np.random.default_rng(0))
    assert [sum(one.stratum == n for one in choices) for n in range(3)] == [10, 130, 10]
    found = rows.to_dicts()
    patients = [found[place]["PatientID"] for one in choices for place in (one.progressor, one.other)]
    assert len(set(patients)) == 300
    for one in choices:
        low, high = ((-np.inf, -1.1), (-1.1, -0.6), (-0.6, -0.5))[one.stratum]
        loser, other = found[one.progressor], found[one.other]
        assert low <= loser["change"] < high and other["change"] > -0.5
        assert loser["sex"] == other["sex"] and loser["fold"] == other["fold"] and abs(loser["age"] - other["age"]) <= 5
    again = draw(rows, wish, np.random.default_rng(0))
    assert again == choices != draw(rows, wish, np.random.default_rng(1))


def test_the_draw_favours_no_rows_and_no_order() -> None:
    wish = Wish(Strata((0, 20, 0)))
    rows, _ = candidates(frame(400, 1), "cor_iw_tse", wish)
    times = np.zeros(len(rows))
    for seed in range(200):
        for one in draw(rows, wish, np.random.default_rng(seed)):
            times[[one.progressor, one.other]] += 1
    stable = rows["change"].to_numpy() > -0.5
    # Each of some 340 rows is drawn in about 12 of 200 rounds; nobody always, nobody never.
    assert times[stable].min() >= 1 and times[stable].max() < 40
    early, late = times[stable][: stable.sum() // 2].mean(), times[stable][stable.sum() // 2 :].mean()
    assert early == pytest.approx(late, rel=0.1)


def test_with_both_knees_a_patient_may_be_in_two_pairs_but_never_against_himself() -> None:
    rows = pl.DataFrame({
        "knee": ["a", "b", "c", "d"], "PatientID": ["P", "P", "Q", "Q"], "side": ["L", "R", "L", "R"],
        "change": [-0.7, 0.1, -0.8, 0.2],
    })  # fmt: skip
    strata = Strata((0, 2, 0))
    with pytest.raises(DataError, match="2 of 2 knees that progressed find no partner: 0 patients"):
        draw(rows, Wish(strata), np.random.default_rng(0))
    for seed in range(5):
        choices = draw(rows, Wish(strata, once=False), np.random.default_rng(seed))
        assert {(one.progressor, one.other) for one in choices} == {(0, 3), (2, 1)}


def test_a_knee_of_exactly_the_edge_is_no_partner() -> None:
    rows = pl.DataFrame({"PatientID": ["P", "Q"], "side": ["L", "L"], "change": [-0.7, -0.5]})
    wish = Wish(Strata((0, 1, 0)))
    with pytest.raises(DataError, match="0 patients with a change above"):
        draw(rows, wish, np.random.default_rng(0))
    least = rows.with_columns(change=pl.Series([-0.7, -0.499]))
    assert [(one.progressor, one.other) for one in draw(least, wish, np.random.default_rng(0))] == [(0, 1)]


def test_strata_are_exact_to_their_edges(root: Path) -> None:
    bench = read_bench(root / "bench")
    truth = read_truth(bench)
    found = {name: sorted(one.changes[0] for one in truth.pairs if one.stratum == name) for name in STRATA}
    # There are just so many: every progressor but that of -0.5 is drawn.
    assert found == {
        "almost certain": [-1.9, -1.101], "likely": [-1.1, -0.85, -0.7, -0.601], "doubtful": [-0.6, -0.501],
    }  # fmt: skip
    assert all(one.changes[1] > -0.5 for one in truth.pairs)
    assert len({key for one in truth.pairs for key in one.keys}) == 16
    progressors = {one.progressor for one in truth.pairs}
    first = [one in progressors for _, one, _ in bench.pairs]
    assert any(first) and not all(first), "the order in bench.json tells nothing"


def test_the_same_seed_draws_the_same_files(root: Path, tmp_path: Path) -> None:
    assert run(root, tmp_path / "again", "--strata", "2,4,2") == 0
    first, second = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (root / "bench", tmp_path / "again")
    )
    assert first == second
    assert run(root, tmp_path / "other", "--strata", "0,1,0", "--seed", "1") == 0
    assert run(root, tmp_path / "third", "--strata", "0,1,0", "--seed", "2") == 0
    drawn = [read_truth(read_bench(tmp_path / name)).pairs[0].keys for name in ("other", "third")]
    assert drawn[0] != drawn[1]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing is left lying about"


def test_too_small_a_cohort_is_told_with_what_is_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, root / "none") == 2
    said = capsys.readouterr().err
    assert "almost certain (change < -1.1 mm): 10 asked, 2 there" in said
    assert "likely (-1.1 <= change < -0.6 mm): 130 asked, 4 there" in said
    assert "At most --strata 2,4,2 is possible" in said and not (root / "none").exists()
    assert run(root, root / "bench", "--strata", "1,1,1") == 2
    assert "never replaced" in capsys.readouterr().err
    assert run(root, root / "none", "--strata", "1,1,1", "--match", "height") == 2
    assert "lacks height" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [(-1.1, -0.6, -0.7), (-0.5, -0.6, -0.4), (float("nan"), -0.6, -0.5)])
def test_strata_ascend(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match="ascend"):
        Strata((1, 1, 1), *wrong)
    with pytest.raises(UsageError, match="three numbers"):
        Strata((0, 0, 0))


def test_the_pictures_are_the_series_as_measured(root: Path) -> None:
    bench = read_bench(root / "bench")
    cohort = {row["knee"]: row for row in pl.read_parquet(root / "cohort" / "cohort.parquet").to_dicts()}
    for one in read_truth(bench).pairs:
        for name, key in zip((one.progressor, one.other), one.keys, strict=True):
            number, side = int(cohort[key]["PatientID"][-3:]), cohort[key]["side"]
            grid = Grid(slices=11 + number % 3, rows=24 + number % 2, columns=28, row_mm=4.0, column_mm=3.5)
            volume = sampled(grid, side) + np.uint16(40 * number)
            # Coronal phantoms run from the back to the front; right knees are mirrored.
            shown = volume[::-1] if grid.positions()[0][1] > grid.positions()[-1][1] else volume
            shown = shown[:, :, ::-1] if side == "R" else shown
            knee = bench.knees[name]
            assert (knee.slices, knee.rows, knee.columns) == shown.shape
            assert (knee.row_mm, knee.column_mm) == (4.0, 3.5)
            assert (knee.edges, knee.order) == (("medial", "lateral"), ("front", "back"))
            for place in range(knee.slices):
                with Image.open(bench.picture(name, place + 1)) as image:
                    assert np.array_equal(np.asarray(image), shown[place])


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_right_knees_look_like_left_ones_unless_asked_otherwise(tmp_path: Path, plane: str) -> None:
    sequence = MRSequence.COR_IW_TSE if plane == "coronal" else MRSequence.SAG_IW_TSE
    found, series = {}, {}
    for side in "LR":
        name = f"{sequence.value.upper()}_{'LEFT' if side == 'L' else 'RIGHT'}"
        grid = Grid(plane, 13, 44, 44, 2.5, 2.5, flip_across=side == "R", transpose=side == "L")
        series[side] = mr_series(side, grid, identity=f"mirror-{side}-{plane}", description=name)
        for place, ds in enumerate(series[side]):
            write(ds, tmp_path / side / f"{place}.dcm")
        row = {"SeriesInstanceUID": str(series[side][0].SeriesInstanceUID), "path": side, "side": side}
        found[side] = from_series(tmp_path, row, sequence)
        found[f"{side} as it is"] = from_series(tmp_path, row, sequence, mirrored=False)
    left, right = found["L"], found["R"]
    # The phantom lies in the middle of the grid, so its mirror image is exact but for roundings.
    assert np.abs(left.values.astype(int) - right.values.astype(int)).max() <= 1
    assert (left.edges, left.order) == (right.edges, right.order)
    assert np.array_equal(found["L as it is"].values, left.values)
    plain = found["R as it is"]
    axis = 2 if plane == "coronal" else 0
    assert np.array_equal(np.flip(plain.values, axis), right.values)
    assert "lateral" in (plain.edges if plane == "coronal" else plain.order)[0]


def test_who_may_be_named_in_the_picture_is_not_shown(tmp_path: Path) -> None:
    series = mr_series("L", identity="burned", attributes={"BurnedInAnnotation": "YES"})
    write(series[0], tmp_path / "burned" / "1.dcm")
    row = {"SeriesInstanceUID": str(series[0].SeriesInstanceUID), "path": "burned", "side": "L"}
    with pytest.raises(UnfitError, match="Burned In Annotation is YES"):
        from_series(tmp_path, row, MRSequence.COR_IW_TSE)
    with pytest.raises(DataError, match="leads out of the export"):
        from_series(tmp_path, {**row, "path": "../burned"}, MRSequence.COR_IW_TSE)


def test_another_knee_is_drawn_for_one_that_cannot_be_shown(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "images", tmp_path / "images")
    shutil.copytree(root / "cohort", tmp_path / "cohort")
    assert run(tmp_path, tmp_path / "first", "--strata", "0,1,1") == 0
    drawn = read_truth(read_bench(tmp_path / "first")).pairs
    cohort = {row["knee"]: row for row in pl.read_parquet(root / "cohort" / "cohort.parquet").to_dicts()}
    gone = [drawn[0].keys[0], drawn[1].keys[1]]
    for key in gone:
        shutil.rmtree(tmp_path / "images" / cohort[key]["path"])
    assert run(tmp_path, tmp_path / "second", "--strata", "0,1,1") == 0
    truth = read_truth(read_bench(tmp_path / "second"))
    assert len(truth.pairs) == 2 and not set(gone) & {key for one in truth.pairs for key in one.keys}
    left_out = truth.about["left_out"]
    assert left_out["that cannot be shown (none of its files is in the export, or can be read)"] >= 2
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "images").mkdir()
    assert run(tmp_path, tmp_path / "empty", "--strata", "0,1,0") == 2
    assert not (tmp_path / "empty").exists()


def test_the_edges_can_be_moved(root: Path, tmp_path: Path) -> None:
    assert run(root, tmp_path / "bench", "--strata", "1,1,0", "--almost-certain", "-1.913", "--likely", "-1.5") == 2
    assert run(root, tmp_path / "bench", "--strata", "1,1,0", "--almost-certain", "-1.85", "--likely", "-1.1005") == 0
    truth = read_truth(read_bench(tmp_path / "bench"))
    assert {one.stratum: one.changes[0] for one in truth.pairs} == {"almost certain": -1.9, "likely": -1.101}
    assert truth.about["strata"]["likely"]["rule"] == "-1.85 <= change < -1.1005 mm"


def test_nothing_but_the_truth_says_who_it_is(root: Path) -> None:
    cohort = pl.read_parquet(root / "cohort" / "cohort.parquet")
    secrets = [made_readers.NAME, "Hidden", "SECRET", "delta", *cohort["SeriesInstanceUID"].to_list(), *STRATA]
    files = [path for path in (root / "bench").rglob("*") if path.is_file() and path.name != "truth.json"]
    assert len(files) > 16 * 11
    for path in files:
        raw = path.read_bytes()
        assert not [one for one in secrets if one.encode() in raw], path
        if path.suffix == ".png":
            assert {name for name in (b"tEXt", b"iTXt", b"zTXt", b"tIME", b"eXIf") if name in raw} == set()
    assert len({path.stat().st_mtime for path in files if path.suffix == ".png"}) == 1, "not even when it was drawn"
    assert "side" not in json.dumps(json.loads((root / "bench" / "bench.json").read_text("utf-8")))


def test_with_a_run_both_knees_are_of_one_fold_and_have_a_prediction(root: Path, tmp_path: Path) -> None:
    cohort = pl.read_parquet(root / "cohort" / "cohort.parquet").sort("delta_mjsw")
    left = cohort[0]["knee"].item()
    known = cohort.filter(pl.col("knee") != left).with_columns(fold=pl.int_range(pl.len()) % 2)
    known.write_parquet(tmp_path / "knees.parquet")
    p = np.full(len(known), 0.25)
    folds = known["fold"].to_numpy().astype(np.int64)
    keys = tuple(known["knee"].to_list())
    write_predictions(tmp_path, Predictions("image", keys, folds, probabilities=np.stack([1 - p, p], axis=1)))
    options = ("--strata", "1,2,1", "--run", str(tmp_path), "--system", "image")
    assert run(root, tmp_path / "bench", *options) == 0
    truth = read_truth(read_bench(tmp_path / "bench"))
    by_knee = dict(zip(keys, folds.tolist(), strict=True))
    assert all(by_knee[one.keys[0]] == by_knee[one.keys[1]] for one in truth.pairs)
    assert truth.about["matched"] == ["fold"] and truth.about["left_out"]["without a prediction of image"] == 1
    assert run(root, tmp_path / "more", "--strata", "2,2,1", *options[2:]) == 2, "the one left out is missing"
    assert run(root, tmp_path / "more", *options[:4]) == 2, "whose predictions?"


def test_without_an_export_the_prepared_slices_are_shown(root: Path, tmp_path: Path) -> None:
    inputs = ["--cohort", str(root / "cohort"), "--export", str(root / "images")]
    options = ["--out", str(tmp_path / "prepared"), "--size", "32", "--no-n4", "--workers", "0"]
    assert cli.main(["preprocess", *inputs, *options]) == 0
    draw_options = ["--prepared", str(tmp_path / "prepared"), "--out", str(tmp_path / "bench"), "--strata", "1,1,1"]
    assert cli.main(["readers", "draw", *inputs[:2], *draw_options]) == 0
    bench, store = read_bench(tmp_path / "bench"), PreparedStore(tmp_path / "prepared")
    assert bench.source == "prepared"
    for one in read_truth(bench).pairs:
        for name, key in zip((one.progressor, one.other), one.keys, strict=True):
            wanted, knee = store.slices([key])[0].astype(np.float64), bench.knees[name]
            assert (knee.slices, knee.rows, knee.columns) == wanted.shape == (8, 32, 32)
            # The square that is seen is as wide as the longer side: 28 columns of 3.5 mm, 24 or 25 rows of 4 mm.
            side_mm = 100.0 if key in odd(root) else 98.0
            assert knee.row_mm == knee.column_mm == pytest.approx(side_mm / 32)
            with Image.open(bench.picture(name, 3)) as image:
                assert np.abs(np.asarray(image) / 65535 - wanted[2]).max() < 1e-4
    assert (
        cli.main(["readers", "draw", *inputs[:2], *draw_options[:2], "--out", str(tmp_path / "x"), "--unmirrored"]) == 2
    )
    assert cli.main(["readers", "draw", *inputs[:2], "--out", str(tmp_path / "x")]) == 2
    wrong = ["--sequence", "sag_3d_dess"]
    assert cli.main(["readers", "draw", *inputs[:2], *draw_options[:2], "--out", str(tmp_path / "x"), *wrong]) == 2


def odd(root: Path) -> set[str]:
    """Keys of the knees that have a row more."""
    cohort = pl.read_parquet(root / "cohort" / "cohort.parquet").to_dicts()
    return {row["knee"] for row in cohort if int(row["PatientID"][-3:]) % 2}
