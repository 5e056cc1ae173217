"""The knee finder's films, targets, fitting, figures and files, small."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.errors import DataError
from inference.finder import ACROSS, CAST, DOWN, EXTENT, FIBULA, INVERTED, METAL, SIZE, STRIDE, UNIT, Finder, Thresholds
from inference.findings import Side
from training.cli import main
from training.exposure import exposed, furnished, other_bones
from training.filmmaking import Look, Placed, drawn_leg, lateral_as_shown, make_film
from training.finder_export import write_finder
from training.finder_figures import choose_thresholds, measure
from training.finder_films import GRID, Sample, Shown, draw_sample, targets
from training.finder_fit import FinderConfig, fit_finder, loss_parts
from training.halves import rounded
from training.schematic import CROP, Schematic, schematic_knee

SMALL = FinderConfig(steps=4, block=2, batch_size=2, seed=1)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    rng = np.random.default_rng(0)
    edge = round((1 - CROP) / 2 * 330)
    knees = [schematic_knee(330, 330, rng, Schematic.draw(rng))[edge : edge + 224, edge : edge + 224] for _ in range(6)]
    return (np.stack(knees) * 255).astype(np.uint8)


def test_a_film_holds_the_crop_where_it_says(crops: np.ndarray) -> None:
    crop = crops[0].astype(np.float32) / 255
    look = replace(Look.draw(np.random.default_rng(1)), detail=1.0, shading=0.9)
    for tilt in (0.0, 10.0):
        placed = Placed(250, 300, 224, tilt, 1)
        film = make_film([(crop, placed)], (600, 480), np.random.default_rng(2), look).pixels
        part = film[188:412, 138:362]
        upright = np.corrcoef(part[60:-60, 60:-60].ravel(), crop[60:-60, 60:-60].ravel())[0, 1]
        assert (upright > 0.9) if tilt == 0 else (upright < 0.9)


def test_the_fibula_of_a_drawn_leg_lies_laterally() -> None:
    assert (lateral_as_shown(Side.RIGHT), lateral_as_shown(Side.LEFT)) == (-1, 1)
    crop = np.full((224, 224), 0.5, np.float32)
    placed = Placed(240, 250, 200, 0, 1)
    right, left = (
        make_film([(crop, replace(placed, lateral=lateral))], (700, 480), np.random.default_rng(3)).pixels
        for lateral in (1, -1)
    )
    shank = (right - left)[365:400]
    assert shank[:, 310:335].mean() > 0.05
    assert shank[:, 145:170].mean() < -0.05


@pytest.mark.parametrize("draw", [exposed, furnished])
def test_exposure_is_decided_by_its_generator(crops: np.ndarray, draw) -> None:  # type: ignore[no-untyped-def]
    film = crops[0].astype(np.float32) / 255
    first, again, other = (draw(film, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32
    assert 0 <= first.min() < first.max() <= 1


def test_no_exposure_changes_nothing(crops: np.ndarray) -> None:
    film = crops[0].astype(np.float32) / np.float32(255)
    assert np.allclose(exposed(film, np.random.default_rng(0), 0.0), film / film.max(), atol=1e-6)


def test_films_without_a_knee() -> None:
    rng = np.random.default_rng(0)
    for film in (other_bones((120, 90), rng), drawn_leg(Placed(45, -200, 100, 5, 1), (120, 90), rng).pixels):
        assert film.shape == (120, 90)
        assert 0 <= film.min() < film.max() <= 1


def samples(crops: np.ndarray, count: int, extent: int = SIZE) -> list[Sample]:
    rng = np.random.default_rng(7)
    others = [rng.random((80, 60)).astype(np.float32)]
    return [draw_sample(crops, others, rng, extent) for _ in range(count)]


def test_samples_are_of_every_kind(crops: np.ndarray) -> None:
    drawn = samples(crops, 300)
    assert {sample.film.shape for sample in drawn} == {(SIZE, SIZE)}
    assert all(np.isfinite(sample.film).all() and sample.film.min() >= 0 and sample.film.max() <= 1 for sample in drawn)
    assert {len(sample.knees) for sample in drawn} == {0, 1, 2}
    assert {knee.placed.lateral for sample in drawn for knee in sample.knees} == {-1, 1}
    for name in ("turned", "inverted", "other_view"):
        assert {bool(getattr(sample, name)) for sample in drawn} == {True, False}
    for name in ("metal", "cast"):
        assert {getattr(knee, name) for sample in drawn for knee in sample.knees} == {True, False}


def test_larger_samples_keep_their_shape(crops: np.ndarray) -> None:
    small, large = samples(crops, 40), samples(crops, 40, 2 * SIZE)
    assert {sample.film.shape for sample in large} == {(2 * SIZE, 2 * SIZE)}
    assert {len(sample.knees) for sample in small} >= {0, 1}
    sizes = [[knee.placed.size for sample in part for knee in sample.knees] for part in (small, large)]
    assert np.median(sizes[1]) == pytest.approx(2 * np.median(sizes[0]), rel=0.35)


def test_targets_say_where_and_what() -> None:
    knee = Shown(Placed(100.0, 60.0, 80.0, 10.0, -1), metal=True)
    heat, values, weight = targets(Sample(np.zeros((SIZE, SIZE), np.float32), (knee,), inverted=True))
    row, column = np.unravel_index(heat[0].argmax(), (GRID, GRID))
    x = (column + 0.5) * STRIDE + values[0, row, column] / 8 * 80
    y = (row + 0.5) * STRIDE + values[DOWN - ACROSS, row, column] / 8 * 80
    assert (x, y) == pytest.approx((100, 60), abs=1e-3)
    assert UNIT * np.exp(values[EXTENT - ACROSS, row, column]) == pytest.approx(80)
    found = [values[name - ACROSS, row, column] for name in (FIBULA, INVERTED, METAL, CAST)]
    assert found == [0, 1, 1, 0]
    assert weight[row, column] == 1
    turned, _, nothing = targets(Sample(np.zeros((SIZE, SIZE), np.float32), (knee,), turned=1))
    assert (turned[0].max(), turned[1].max(), nothing.max()) == (0, 1, 0)


def test_the_loss_is_small_for_the_right_answer() -> None:
    knee = Shown(Placed(100.0, 60.0, 80.0, 10.0, -1), metal=True)
    heat, values, weight = (torch.from_numpy(part)[None] for part in targets(Sample(np.zeros((1, 1)), (knee,))))
    batch = (torch.zeros(1), heat, values, weight, torch.zeros(1))
    right = torch.full((1, CAST + 1, GRID, GRID), -9.0)
    right[:, :2] += 18 * heat.ge(0.98)
    right[:, ACROSS:FIBULA] = values[:, : FIBULA - ACROSS]
    right[:, FIBULA:] = 18 * values[:, FIBULA - ACROSS :] - 9
    wrong = right.clone()
    wrong[:, ACROSS:] *= -1
    wrong[:, :3] *= -1
    good, bad = loss_parts(right, batch), loss_parts(wrong, batch)
    assert good.max() < 0.2
    assert bool((bad > good + 0.2).all())


def test_a_run_goes_on_where_it_stopped_and_ships(crops: np.ndarray, tmp_path: Path) -> None:
    said: list[dict[str, float]] = []
    whole = fit_finder(SMALL, crops, [], tmp_path / "whole", None, said.append)
    assert [figures["step"] for figures in said] == [2, 4]
    fit_finder(replace(SMALL, steps=2), crops, [], tmp_path / "parts", None, said.append)
    # The schedule knows the number of steps, so only the films and the place to go on from are the same.
    resumed = fit_finder(SMALL, crops, [], tmp_path / "parts", None, said.append)
    assert said[-1]["step"] == 4
    assert resumed.state_dict().keys() == whole.state_dict().keys()
    thresholds = choose_thresholds(rounded(whole), crops, [], 6)
    assert 0 < thresholds.knee <= 0.6
    metrics = measure(whole, thresholds, crops, [np.zeros((90, 70), np.float32)], 6)
    assert 0 <= metrics["recall"] <= 1
    assert metrics["real_images_without_knee"] == 1
    finder = write_finder(whole, thresholds, metrics, SMALL, tmp_path / "finder")
    assert Finder.load(tmp_path / "finder").digest == finder.digest
    assert finder.thresholds.knee == pytest.approx(thresholds.knee, abs=1e-4)
    assert json.loads((tmp_path / "finder" / "finder.json").read_text())["training"]["steps"] == 4


def test_figures_are_those_of_a_perfect_and_of_a_blind_finder(crops: np.ndarray) -> None:
    """The shipped network knows drawn knees; one whose limit nothing reaches finds none."""
    shipped = Finder.load()
    figures = measure(shipped.net, shipped.thresholds, crops, [], 24)
    assert figures["recall"] > 0.8
    assert figures["fibula_side_right"] > 0.8
    blind = replace(shipped.thresholds, knee=1.1)
    assert measure(shipped.net, blind, crops, [], 5)["recall"] == 0


def test_wrong_use_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["finder", "--run", str(tmp_path), "--labels", "x.csv", "--others", ".", "--work", "w", "--out", "o"]
    assert main([*command, "--steps", "0"]) == 2
    assert "--steps 0" in capsys.readouterr().err
    assert main(command) == 2
    assert "no run" in capsys.readouterr().err


def test_too_large_a_finder_is_not_written(crops: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.finder_export.LARGEST", 1000)
    shipped = Finder.load()
    with pytest.raises(DataError, match="at most 1000"):
        write_finder(shipped.net, Thresholds(0.4, 0.5, 0.5, 0.5, 0.5), {}, SMALL, tmp_path / "finder")
