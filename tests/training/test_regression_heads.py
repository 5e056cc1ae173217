"""Heads on frozen embeddings: against other libraries, on planted effects, and as they are kept for a bundle."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import QuantileRegressor, Ridge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from inference.errors import DataError, UsageError
from training.final_head import FinalHead, read_head, write_head
from training.regression_attentive import AttentiveHead
from training.regression_boosting import BoostingHead
from training.regression_corn import CornHead
from training.regression_ridge import RidgeHead, median_line, ridge
from training.regression_samples import UNKNOWN, Design, Head, Samples
from training.regression_simple import ByGrade, Constant

BOUNDS = (0.0, 10.0)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for one another on a busy machine cost minutes."""
    with threadpool_limits(1):
        yield


class Held:
    """Tokens in memory; remembers the largest piece that was asked for, and what was learnt from with which seed."""

    def __init__(self, knees: Sequence[str], tokens: np.ndarray) -> None:
        self._rows = dict(zip(knees, tokens, strict=True))
        self.largest = 0
        self.epochs: list[tuple[int, set[str]]] = []

    @property
    def digest(self) -> str:
        return "held"

    def batches(self, knees: Sequence[str], size: int, seed: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if seed is not None:
            self.epochs.append((seed, set(knees)))
        order = np.arange(len(knees)) if seed is None else np.random.default_rng(seed).permutation(len(knees))
        for start in range(0, len(order), size):
            places = order[start : start + size]
            self.largest = max(self.largest, len(places))
            yield places, np.stack([self._rows[knees[place]] for place in places]).astype(np.float32)


def made(count: int = 400, width: int = 6, seed: int = 0, noise: float = 1.0) -> tuple[Samples, np.ndarray]:
    """Two knees a patient; pain from the first column of the image and from KL."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(count, width)).astype(np.float32) * np.linspace(0.1, 30, width, dtype=np.float32)
    grades = rng.choice(UNKNOWN + 1, count)
    pain = 4 + image[:, 0] / 0.1 + 0.6 * np.where(grades == UNKNOWN, 2, grades) + rng.normal(0, noise, count)
    samples = Samples(
        knees=np.array([f"k{n}" for n in range(count)]),
        patients=np.array([f"p{n // 2}" for n in range(count)]),
        image=image,
        grades=grades,
        age=np.where(rng.random(count) < 0.1, np.nan, rng.integers(40, 90, count)),
        sex=rng.choice(["F", "M", ""], count),
        race=rng.choice(["A", "B", ""], count),
    )
    return samples, np.clip(np.rint(pain), 0, 10)


def r2(truth: np.ndarray, found: np.ndarray) -> float:
    return float(1 - ((truth - found) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


@pytest.mark.parametrize(("count", "width"), [(300, 6), (40, 90)])
def test_ridge_is_that_of_scikit_learn(count: int, width: int) -> None:
    samples, target = made(count, width)
    found = ridge(samples.image, target, [0.01, 1.0], np.ones(width))
    z = StandardScaler().fit_transform(samples.image.astype(np.float64))
    for number, strength in enumerate([0.01, 1.0]):
        expected = Ridge(strength * count).fit(z, target).predict(z)
        assert np.allclose(found.predict(samples.image)[:, number], expected, atol=1e-4)


def test_the_line_of_the_median_has_least_absolute_error() -> None:
    rng = np.random.default_rng(1)
    score = rng.normal(4, 1, 300)
    target = np.where(rng.random(300) < 0.3, 0, np.clip(np.rint(1.2 * score + rng.normal(0, 1, 300)), 0, 10))
    slope, intercept = median_line(score, target)
    other = QuantileRegressor(quantile=0.5, alpha=0).fit(score[:, None], target).predict(score[:, None])
    error = np.abs(target - slope * score - intercept).mean()
    assert error <= np.abs(target - other).mean() + 1e-3
    assert error < np.abs(target - score - np.mean(target - score)).mean()


def test_scores_without_spread_give_no_wild_median() -> None:
    target = np.array([0.0, 0.0, 1.0, 5.0, 10.0])
    slope, intercept = median_line(np.full(5, 4.0) + 1e-9 * target, target)
    assert slope * 4 + intercept == pytest.approx(1.0, abs=1e-6)


def test_ridge_chooses_a_strong_penalty_for_noise_and_a_weak_one_for_signal() -> None:
    samples, target = made()
    noise = np.random.default_rng(3).integers(0, 11, len(target)).astype(float)
    weak, strong = (RidgeHead().fit(samples, values, 0).chosen["strength"] for values in (target, noise))
    assert weak < 1 <= strong


HEADS: list[Head] = [
    Constant("mean"),
    Constant("median"),
    ByGrade(),
    RidgeHead(("people",)),
    RidgeHead(),
    RidgeHead(("image", "grades")),
    CornHead(("image",), BOUNDS, (0.1, 0.01)),
    CornHead(("image", "grades"), BOUNDS, (0.1, 0.01)),
    BoostingHead(("image", "grades", "people"), trees=25),
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{type(head).__name__}-{head.name}")
def test_every_head_answers_with_a_mean_and_a_median_and_always_the_same(head: Head) -> None:
    samples, target = made(160)
    rows, rest = samples.take(np.arange(100)), samples.take(np.arange(100, 160))
    first, again = (head.fit(rows, target[:100], 0).predict(rest) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.shape == (60,)
        assert np.isfinite(one).all()
        assert one.tobytes() == other.tobytes()
    if isinstance(head, RidgeHead | BoostingHead | CornHead):
        assert (first[1] == np.rint(first[1])).all()  # as the scores are
    if isinstance(head, RidgeHead | BoostingHead):
        fractions = head.fit(rows, target[:100] / 2.5, 0).predict(rest)[1]
        assert (fractions != np.rint(fractions)).any()


def test_baselines_are_what_they_are_called() -> None:
    samples, target = made(200)
    assert Constant("mean").fit(samples, target, 0).predict(samples)[1][0] == target.mean()
    assert Constant("median").fit(samples, target, 0).predict(samples)[0][0] == np.median(target)
    known = samples.grades != 3
    mean, median = ByGrade().fit(samples.take(known), target[known], 0).predict(samples)
    for grade in range(UNKNOWN + 1):
        here = target[known & (samples.grades == grade)] if grade != 3 else target[known]
        assert mean[samples.grades == grade][0] == here.mean()
        assert median[samples.grades == grade][0] == np.median(here)


def test_grades_beside_an_image_are_hardly_penalised() -> None:
    samples, target = made()
    alone, both = (
        RidgeHead(parts).fit(samples, target, 0).predict(samples)[0] for parts in (("image",), ("image", "grades"))
    )
    assert r2(target, both) > r2(target, alone) + 0.05
    strict = RidgeHead(("image", "grades"), (100.0,)).fit(samples, target, 0)
    by_grade = ByGrade().fit(samples, target, 0).predict(samples)[0]
    assert np.corrcoef(strict.predict(samples)[0], by_grade)[0, 1] > 0.95


def test_missing_persons_data_take_the_same_path_everywhere() -> None:
    samples, _ = made(100)
    design = Design.of(samples, ("people",))
    nobody = samples.take(np.arange(1))
    nobody = Samples(
        nobody.knees, nobody.patients, nobody.image, nobody.grades, np.array([np.nan]), np.array([""]), np.array([""])
    )
    row = dict(enumerate(design.columns(nobody)[0]))
    assert row[0] == row[1] == 0  # the median age
    assert row[2] == row[5] == 1  # age and sex missing
    other = Samples(
        nobody.knees,
        nobody.patients,
        nobody.image,
        nobody.grades,
        np.array([50.0]),
        np.array(["F"]),
        np.array(["never seen"]),
    )
    assert design.columns(other).shape == design.columns(nobody).shape
    assert design.columns(other)[0, -1] == 1


def test_corn_finds_the_distribution_that_made_the_scores() -> None:
    rng = np.random.default_rng(0)
    samples, _ = made(3000, 2, noise=0)
    slope, cuts = 1.5, np.linspace(-3, 3, 10)
    z = samples.image[:, 0] / samples.image[:, 0].std()
    above = 1 / (1 + np.exp(-(slope * z[:, None] - cuts)))
    target = (rng.random((3000, 1)) < above).sum(axis=1).astype(float)
    mean, median = CornHead(("image",), BOUNDS, (0.001,)).fit(samples, target, 0).predict(samples)
    assert np.abs(mean - above.sum(axis=1)).mean() < 0.2
    assert np.abs(median - (above > 0.5).sum(axis=1)).mean() < 0.35
    assert set(median) <= set(range(11))


def test_corn_counts_a_score_between_two_levels_and_levels_that_nobody_has() -> None:
    samples, target = made(120)
    target = np.where(target > 6, 6, target)
    target[:3] = 2.5
    mean, median = CornHead(("image",), BOUNDS, (0.1,)).fit(samples, target, 0).predict(samples)
    assert np.isfinite(mean).all()
    assert mean.max() < 7.5
    assert median.max() <= 6


def test_corn_refuses_a_scale_without_levels() -> None:
    samples, target = made(60)
    with pytest.raises(UsageError, match=r"0 to 100 has 101 integers"):
        CornHead(("image",), (0.0, 100.0)).fit(samples, target, 0)


def test_boosting_sees_what_is_no_line() -> None:
    samples, _ = made(600, 3)
    target = np.clip(5 + 4 * np.sign(samples.image[:, 0] * samples.image[:, 1]), 0, 10).astype(float)
    trees = BoostingHead(trees=60).fit(samples.take(np.arange(400)), target[:400], 0)
    line = RidgeHead().fit(samples.take(np.arange(400)), target[:400], 0)
    rest = samples.take(np.arange(400, 600))
    assert r2(target[400:], trees.predict(rest)[0]) > 0.4 > r2(target[400:], line.predict(rest)[0]) + 0.2


def attended(count: int = 240) -> tuple[Samples, np.ndarray, Held]:
    """Of 12 tokens one carries the answer, where its first channel is high; the mean of all hardly does."""
    rng = np.random.default_rng(0)
    samples, _ = made(count)
    pain = rng.integers(0, 11, count).astype(float)
    tokens = rng.normal(size=(count, 12, 4)).astype(np.float32)
    tokens[:, :, 1] *= 3
    places = rng.integers(0, 12, count)
    tokens[:, :, 0] -= 2
    tokens[np.arange(count), places, 0] = 8
    tokens[np.arange(count), places, 1] = pain - 5
    held = Held(samples.knees.tolist(), tokens)
    return Samples(**{**vars(samples), "tokens": held}), pain, held


def test_the_probe_finds_the_token_that_matters_in_pieces() -> None:
    samples, pain, held = attended()
    head = AttentiveHead(queries=2, batch=16, epochs=25, patience=25, rate=2e-2)
    fitted = head.fit(samples.take(np.arange(180)), pain[:180], 0)
    mean, median = fitted.predict(samples.take(np.arange(180, 240)))
    assert r2(pain[180:], mean) > 0.6
    assert np.abs(median - pain[180:]).mean() < 1.8
    assert held.largest == 16
    assert {curve.name for curve in fitted.curves} == {"loss", "held_back_loss", "held_back_rmse"}
    assert fitted.chosen["epoch"] == 1 + np.argmin([c.value for c in fitted.curves if c.name == "held_back_loss"])


def test_the_probe_learns_from_all_rows_for_the_epochs_that_held_back_ones_chose() -> None:
    samples, pain, held = attended(96)
    fitted = AttentiveHead(epochs=4, patience=2, rate=2e-2).fit(samples, pain, 3)
    tried = len({curve.epoch for curve in fitted.curves})
    chosen = fitted.chosen["epoch"]
    assert [seed for seed, _ in held.epochs] == [3000 + n for n in [*range(1, tried + 1), *range(1, chosen + 1)]]
    everybody = set(samples.knees.tolist())
    assert all(knees < everybody for _, knees in held.epochs[:tried])
    assert chosen and all(knees == everybody for _, knees in held.epochs[tried:])
    assert (fitted.middle, fitted.spread) == (pain.mean(), pain.std())


def test_the_probe_learns_nothing_from_rows_it_is_not_given() -> None:
    samples, pain, held = attended(60)
    rows, rest = samples.take(np.arange(40)), samples.take(np.arange(40, 60))
    other = np.stack([tokens for _, batch in held.batches(samples.knees.tolist(), 60, None) for tokens in batch])
    other[41:] = 1e3
    spoilt = Samples(**{**vars(rows), "tokens": Held(samples.knees.tolist(), other)})
    head = AttentiveHead(epochs=2)
    clean, found = (head.fit(given, pain[:40], 0).predict(rest.take(np.arange(1))) for given in (rows, spoilt))
    assert clean[0].tobytes() == found[0].tobytes()


def test_the_probe_needs_tokens() -> None:
    samples, target = made(40)
    with pytest.raises(DataError, match="--features patches"):
        AttentiveHead(epochs=1).fit(samples, target, 0)


FINAL: list[Head] = [
    RidgeHead(),
    RidgeHead(("image", "grades")),
    CornHead(("image", "grades"), BOUNDS, (0.01,)),
    AttentiveHead(epochs=2),
]


@pytest.mark.parametrize("head", FINAL, ids=lambda head: f"{head.name}-{getattr(head, 'parts', '')}")
def test_a_kept_head_answers_as_the_fitted_one(head: Head, tmp_path: Path) -> None:
    samples, pain, held = attended(120)
    fitted = head.fit(samples, pain, 0)
    fields = fitted.final()
    assert fields is not None
    kept = FinalHead(
        features="x",
        embedding="e",
        target="pain",
        bounds=BOUNDS,
        unit="points",
        knees=1,
        patients=1,
        synthetic=True,
        **fields,
    )
    write_head(tmp_path / "final", kept)
    again = read_head(tmp_path / "final")
    if fields["kind"] == "attentive":
        features = next(held.batches(samples.knees.tolist(), 120, None))[1]
    else:
        features = Design(head.parts).columns(samples)  # type: ignore[attr-defined]
    for found, expected in zip(again.predict(features), fitted.predict(samples), strict=True):
        assert np.allclose(found, np.clip(expected, *BOUNDS), atol=2e-3)


def test_a_damaged_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no finished head"):
        read_head(tmp_path)
    samples, target = made(60)
    fields = RidgeHead().fit(samples, target, 0).final()
    assert fields is not None
    kept = FinalHead("ridge", "pooled", "e", "pain", BOUNDS, "points", 1, 1, fields["tensors"], True)
    write_head(tmp_path, kept)
    text = (tmp_path / "head.json").read_text("utf-8")
    (tmp_path / "head.json").write_text(text.replace('"ridge"', '"corn"'), encoding="utf-8")
    with pytest.raises(DataError, match="another version"):
        read_head(tmp_path)


def test_trees_are_not_exported() -> None:
    samples, target = made(60)
    assert BoostingHead(trees=2).fit(samples, target, 0).final() is None
