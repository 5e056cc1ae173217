"""`genu-train fit --cohort`: what is written, that it goes on where it stopped, and that no leak gets through."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from threadpoolctl import threadpool_limits

from inference.errors import DataError, UsageError
from tests.training.pain_cases import people, vectors, write_cohort, write_store
from training import cv_evidence, cv_fit, cv_run, systems
from training.card_parts import systems_table
from training.cli import main
from training.cv_cli import HEADS
from training.cv_evaluate import figures_of, unfinished
from training.cv_evidence import kind_of
from training.embeddings import EmbeddingStore
from training.final_head import read_head
from training.predictions import read_predictions, systems_of
from training.regression_boosting import BoostingHead
from training.regression_corn import CornHead
from training.regression_features import StoredTokens, fused
from training.regression_ridge import RidgeHead
from training.regression_samples import UNKNOWN, Head
from training.regression_simple import ByGrade
from training.report_about import lead
from training.systems import BASELINES, System

PATIENTS = 40


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for one another on a busy machine cost minutes."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def knees() -> pl.DataFrame:
    return people(PATIENTS).with_columns(kl=pl.when(pl.int_range(pl.len()) % 9 == 0).then(None).otherwise("kl"))


def written(folder: Path, knees: pl.DataFrame, **store: Any) -> tuple[Path, Path]:
    """A cohort and a store of it."""
    texts = np.random.default_rng(5).normal(size=(2, 5, 8))
    pooled = store.pop("pooled", vectors(knees))
    return write_cohort(folder / "cohort", knees), write_store(
        folder / "clip", knees["knee"].to_list(), pooled, texts=texts, **store
    )


def run_of(folder: Path, knees: pl.DataFrame, **options: Any) -> cv_run.CVRun:
    cohort, store = written(folder, knees)
    return cv_run.create(folder / "run", cohort, {"clip": store}, **options)


def quiet(_: str) -> None:
    """Nobody listens."""


def fit(run: cv_run.CVRun, system: System) -> Any:
    return cv_fit.fit_system(run, run.knees(), system, quiet)


def image(head: Head, name: str = "clip", **more: Any) -> System:
    return System(name, "a test's", "system", head, "clip", **more)


def test_the_command_writes_every_baseline_and_system(
    tmp_path: Path, knees: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, store = written(tmp_path, knees)
    arguments = ["fit", "--cohort", str(cohort), "--run", str(tmp_path / "run"), "--embeddings", f"clip={store}"]
    assert main([*arguments, "--seed", "3"]) == 0
    names = {system.name for system in BASELINES} | {"clip", "clip_text", "image_kl_clip"}
    assert set(systems_of(tmp_path / "run")) == names
    settings = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert (settings["kind"], settings["target"], settings["bounds"], settings["seed"]) == (
        "regression",
        "pain",
        [0, 10],
        3,
    )
    assert settings["systems"] == sorted(names)
    (fitted,) = settings["fits"]
    assert fitted["command"] == ["genu-train", *arguments, "--seed", "3"]
    assert {"genu", "python", "torch", "timm", "numpy", "scikit-learn"} <= set(fitted["versions"])
    assert settings["synthetic"] is True
    table = pl.read_parquet(tmp_path / "run" / "knees.parquet")
    assert table["fold"].n_unique() == 5
    assert (table["truth"] == table["pain"]).all()
    assert table.group_by("PatientID").agg(pl.col("fold").n_unique())["fold"].max() == 1
    for name in names:
        found = read_predictions(tmp_path / "run", name)
        assert found.knees == tuple(table["knee"])
        assert found.mean is not None
        assert found.median is not None
        assert found.mean.min() >= 0
        assert found.mean.max() <= 10
        about = found.about
        assert [fold["fold"] for fold in about["folds"]] == [0, 1, 2, 3, 4]
        assert sum(fold["knees"] for fold in about["folds"]) == len(table)
        assert about["kind"] == ("system" if name in {"clip", "clip_text"} else "baseline")
        assert about["synthetic"] is True
        assert about["deployed_use"] is (not about["embedding"])
    digest = EmbeddingStore(store).spec.digest
    assert read_predictions(tmp_path / "run", "clip").about["specification"] == digest
    assert "clip fold 5/5: 14 knees, RMSE" in capsys.readouterr().err
    constant = read_predictions(tmp_path / "run", "constant_mean").mean
    kl_only, both = (read_predictions(tmp_path / "run", name).mean for name in ("kl_only", "image_kl_clip"))
    truth = table["truth"].to_numpy()
    errors = [float(np.sqrt(((values - truth) ** 2).mean())) for values in (constant, kl_only, both)]
    assert errors[0] > errors[1] > errors[2]


def test_each_fit_of_a_run_is_told(tmp_path: Path, knees: pl.DataFrame) -> None:
    run = run_of(tmp_path, knees, command=["genu-train", "fit", "one"])
    folds = run.knees()["fold"]
    path = tmp_path / "run" / "run.json"
    settings = json.loads(path.read_text("utf-8"))
    assert cv_run.read(tmp_path / "run") == run
    for words, count in ((["genu-train", "fit", "one"], 1), (["genu-train", "fit", "two"], 2)):
        again = cv_run.create(tmp_path / "run", tmp_path / "cohort", {"clip": tmp_path / "clip"}, command=words)
        assert len(again.fits) == count
        assert again.knees()["fold"].equals(folds)
    path.write_text(json.dumps({**settings, "fits": 7}), encoding="utf-8")
    with pytest.raises(DataError, match="was changed"):
        cv_run.read(tmp_path / "run")


def test_grades_that_are_no_file_are_told(
    tmp_path: Path, knees: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, store = written(tmp_path, knees)
    (tmp_path / "grades").mkdir()
    pl.DataFrame({"knee": knees["knee"], "grade": [2] * len(knees)}).write_parquet(tmp_path / "grades" / "x.parquet")
    arguments = ["fit", "--cohort", str(cohort), "--run", str(tmp_path / "run"), "--embeddings", f"clip={store}"]
    for name in ("grades", "nowhere"):
        assert main([*arguments, "--grades", str(tmp_path / name)]) != 0
        assert "is no file: --grades names" in capsys.readouterr().err


def test_grades_that_fit_no_knee_are_an_error_and_some_that_lack_are_told(
    tmp_path: Path, knees: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, store = written(tmp_path, knees)
    path = tmp_path / "grades.parquet"
    arguments = ["fit", "--cohort", str(cohort), "--run", str(tmp_path / "run"), "--embeddings", f"clip={store}"]
    arguments += ["--grades", str(path), "--systems", "kl_only"]
    for keys in (knees["knee"].head(0), knees["knee"] + "of another cohort"):
        pl.DataFrame({"knee": keys, "grade": pl.repeat(2, len(keys), eager=True)}).write_parquet(path)
        assert main(arguments) != 0
        assert f"none of the {len(knees)} knees has a grade in {path}" in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()
    knees.head(len(knees) - 7).select("knee", grade=pl.lit(2)).write_parquet(path)
    assert main(arguments) == 0
    assert "7 of these knees have no KL grade" in capsys.readouterr().err


def test_a_final_head_learns_from_all_knees(tmp_path: Path, knees: pl.DataFrame) -> None:
    run = run_of(tmp_path, knees)
    fit(run, image(RidgeHead(("image", "grades")), exported=True))
    head = read_head(tmp_path / "run" / "systems" / "clip" / "final")
    assert (head.knees, head.patients, head.grades) == (2 * PATIENTS, PATIENTS, True)
    assert (head.embedding, head.features, head.target, head.bounds) == ("clip", "pooled", "pain", (0, 10))
    assert head.tensors["weight"].shape == (8 + 6,)
    assert head.synthetic


def test_what_is_done_is_not_done_again(tmp_path: Path, knees: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, knees)
    system = image(RidgeHead(), exported=True)
    fits: list[int] = []
    honest = RidgeHead.fit

    def counted(self: RidgeHead, samples: Any, target: Any, seed: int) -> Any:
        fits.append(len(samples))
        if len(fits) == 3:
            raise KeyboardInterrupt
        return honest(self, samples, target, seed)

    monkeypatch.setattr(RidgeHead, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        fit(run, system)
    assert systems_of(run.folder) == ()
    fit(run, system)
    assert len(fits) == 3 + 4  # two folds were there; three more and all knees
    first = read_predictions(run.folder, "clip")
    fit(run, system)
    assert len(fits) == 7
    (run.folder / "systems" / "clip" / "folds" / "fold-1.parquet").write_bytes(b"torn")
    again = fit(run, system)
    assert len(fits) == 8
    assert first.mean is not None
    assert again.mean.tobytes() == first.mean.tobytes()
    fit(run, replace(system, head=RidgeHead(strengths=(1.0, 2.0))))
    assert len(fits) == 8 + 6
    fit(replace(run, seed=1), replace(system, head=RidgeHead(strengths=(1.0, 2.0))))
    assert len(fits) == 14 + 6


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, knees: pl.DataFrame) -> None:
    cohort, store = written(tmp_path, knees)
    found = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        run = cv_run.create(tmp_path / name, cohort, {"clip": store}, seed=seed)
        fit(run, image(RidgeHead()))
        files = [run.folder / "knees.parquet", run.folder / "systems" / "clip" / "predictions.parquet"]
        found.append([path.read_bytes() for path in files])
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]


HEADS_WITH_IMAGE: list[Head] = [
    RidgeHead(("image", "grades", "people")),
    CornHead(("image",), (0.0, 10.0), (0.1,)),
    BoostingHead(("image", "grades", "people"), trees=8),
]


@pytest.mark.parametrize("head", [*HEADS_WITH_IMAGE, ByGrade(), RidgeHead(("people",))], ids=lambda head: head.name)
def test_nothing_is_fitted_outside_the_fold(tmp_path: Path, knees: pl.DataFrame, head: Head) -> None:
    """Whatever is done to held-out rows, the fold's model says the same of the others."""
    run = run_of(tmp_path, knees)
    table = run.knees()
    system = System("x", "a test's", "system", head, "clip" if head in HEADS_WITH_IMAGE else None)
    samples = cv_fit.samples_of(run, table, system)
    target, folds = cv_run.truth_of(table)
    held = folds == 2
    spoilt = np.flatnonzero(held)[:5]
    features, grades, age, other = samples.image.copy(), samples.grades.copy(), samples.age.copy(), target.copy()
    features[spoilt], grades[spoilt], age[spoilt], other[spoilt] = 1e4, 4, 500, 10
    race = np.where(np.isin(np.arange(len(target)), spoilt), "elsewhere", samples.race)
    dirty = replace(samples, image=features, grades=grades, age=age, race=race)
    clean, found = (
        cv_fit.fit_fold(rows, values, ~held, held, system, run, tmp_path / f"{number}.parquet")
        for number, (rows, values) in enumerate(((samples, target), (dirty, other)))
    )
    same = ~np.isin(np.flatnonzero(held), spoilt)
    assert same.sum() > 5
    assert clean.mean[same].tobytes() == found.mean[same].tobytes()
    assert clean.median[same].tobytes() == found.median[same].tobytes()


def test_a_patient_marker_in_the_features_teaches_nothing(tmp_path: Path) -> None:
    """Pain that is each patient's own, and an embedding that says who it is: folds by knee would shine."""
    rng = np.random.default_rng(0)
    knees = people(100)
    number = np.searchsorted(knees["PatientID"].unique().sort().to_list(), knees["PatientID"].to_list())
    marker = np.eye(100, dtype=np.float32)[number]
    knees = knees.with_columns(pain=rng.integers(0, 11, 100)[number].astype(float))
    cohort, store = written(tmp_path, knees, pooled=marker)
    run = cv_run.create(tmp_path / "run", cohort, {"clip": store})
    table = run.knees()
    system = image(RidgeHead(strengths=(1e-3,)))
    target, _ = cv_run.truth_of(table)

    def r2(values: np.ndarray) -> float:
        return float(1 - ((values - target) ** 2).sum() / ((target - target.mean()) ** 2).sum())

    honest = cv_fit.fit_system(run, table, system, quiet)
    assert honest.mean is not None
    assert abs(r2(honest.mean)) < 0.1
    by_knee = np.arange(len(table)) % 2 == 0  # one knee of each patient
    samples = cv_fit.samples_of(run, table, system)
    naive = np.zeros(len(table))
    for held in (by_knee, ~by_knee):
        fitted = system.head.fit(samples.take(~held), target[~held], 0)
        naive[held] = fitted.predict(samples.take(held))[0]
        with pytest.raises(DataError, match=r"knee\(s\) would be predicted by a model that learnt from their own"):
            cv_fit.fit_fold(samples, target, ~held, held, system, run, tmp_path / "naive.parquet")
    assert r2(naive) > 0.5


def test_folds_that_were_tampered_with_are_refused(tmp_path: Path, knees: pl.DataFrame) -> None:
    run = run_of(tmp_path, knees)
    table = run.knees()
    table.with_columns(fold=pl.int_range(pl.len()) % 5).write_parquet(run.folder / "knees.parquet")
    with pytest.raises(DataError, match="in more than one fold") as caught:
        cv_fit.fit_systems(run, BASELINES, quiet)
    assert "p000" not in str(caught.value)


def test_the_same_pixels_under_two_patients_stop_the_run(tmp_path: Path, knees: pl.DataFrame) -> None:
    names = knees["knee"].to_list()
    cohort, store = written(tmp_path, knees, pixels={names[number]: "one film" for number in range(0, 60, 2)})
    with pytest.raises(DataError, match="very pixels of another PatientID"):
        cv_run.create(tmp_path / "run", cohort, {"clip": store})
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_target_among_the_features_stops_the_system(tmp_path: Path, knees: pl.DataFrame) -> None:
    pooled = vectors(knees)
    pooled[:, 3] = 5 - knees["pain"].to_numpy() / 2
    cohort, store = written(tmp_path, knees, pooled=pooled)
    run = cv_run.create(tmp_path / "run", cohort, {"clip": store})
    with pytest.raises(DataError, match=r"clip column\[3\]"):
        fit(run, image(RidgeHead()))
    told = knees.with_columns(age=pl.col("pain") * 7)
    run = cv_run.create(tmp_path / "other", write_cohort(tmp_path / "told", told), {})
    with pytest.raises(DataError, match="age, sex, race column"):
        fit(run, BASELINES[3])
    copied = write_cohort(tmp_path / "copied", knees.with_columns(klg=pl.col("kl")))
    run = cv_run.create(tmp_path / "kl", copied, {}, target="klg", bounds=(0, 4))
    with pytest.raises(DataError, match="grade"):
        fit(run, BASELINES[2])


def test_the_grade_is_predicted_by_what_does_not_see_it(tmp_path: Path, knees: pl.DataFrame) -> None:
    cohort, store = written(tmp_path, knees)
    arguments = ["fit", "--cohort", str(cohort), "--embeddings", f"clip={store}", "--target", "kl"]
    assert main([*arguments, "--run", str(tmp_path / "run")]) == 0
    assert set(systems_of(tmp_path / "run")) == {"constant_mean", "constant_median", "demographics", "clip"}
    assert cv_run.read(tmp_path / "run").knees()["grade"].null_count() == knees["kl"].count()
    boosted = systems.systems([systems.Store("clip", "clip", "pooled", True)], ["boosting"], (0, 4), graded=False)
    assert not any("grades" in getattr(system.head, "parts", ()) for system in boosted)
    assert main(["evaluate", "--run", str(tmp_path / "run")]) == 0
    knees.select("knee", grade=pl.lit(2)).write_parquet(tmp_path / "grades.parquet")  # those of a grader may be seen
    given = cv_run.create(tmp_path / "given", cohort, {}, target="kl", grades=tmp_path / "grades.parquet")
    assert given.graded and given.knees()["grade"].null_count() == 0


def test_a_run_that_was_killed_says_what_is_missing_until_it_is_there(
    tmp_path: Path, knees: pl.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, store = written(tmp_path, knees)
    run = tmp_path / "run"
    arguments = ["fit", "--cohort", str(cohort), "--run", str(run), "--embeddings", f"clip={store}"]

    def killed(self: RidgeHead, *_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(RidgeHead, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            main(arguments)
    missing = ("clip", "clip_text", "demographics", "image_kl_clip")
    evidence = cv_evidence.read_evidence(run)
    assert evidence.unfinished == missing
    capsys.readouterr()
    assert main(["evaluate", "--run", str(run)]) == 0
    assert f"NOT FINISHED, and missing here: {', '.join(missing)}." in capsys.readouterr().out
    assert f"NOT FINISHED, and missing below: {', '.join(missing)}." in str(lead(evidence)[-1])
    assert "NOT FINISHED" in next(systems_table(figures_of(evidence), "kl_only", {"rmse": "RMSE"}))
    assert main([*arguments, "--systems", "clip"]) == 0  # asked for less, later: the rest stays asked for
    assert cv_evidence.read_evidence(run).unfinished == ("clip_text",)
    assert main(arguments) == 0
    assert unfinished(figures_of(cv_evidence.read_evidence(run))) is None
    settings = json.loads((run / "run.json").read_text("utf-8"))
    assert settings["asked"] == settings["systems"]


def test_a_system_brings_the_baseline_of_image_and_grade(tmp_path: Path, knees: pl.DataFrame) -> None:
    stores = [systems.Store(name, name, "patches", name == "two") for name in ("one", "two")]
    table = systems.systems(stores, HEADS, (0, 10))
    first = [system.name for system in BASELINES]
    for name, beside in {
        "one": "image_kl_one", "two_text": "image_kl_two", "one_corn": "image_kl_one_corn",
        "all_two_boosting": "image_kl_two_boosting", "one_attentive": "image_kl_one",
    }.items():  # fmt: skip
        assert set(systems.with_baselines(table, [name])) == {*first, name, beside}
    assert systems.with_baselines(table, ["image_kl_one"]) == [*first, "image_kl_one"]
    assert systems.with_baselines(table, None) == [system.name for system in table]
    alone = systems.systems(stores[:1], ["attentive"], (0, 10))
    assert [system.name for system in alone] == [*first, "one_attentive", "image_kl_one"]


def test_knees_without_grade_have_a_level_and_a_description_of_their_own(tmp_path: Path, knees: pl.DataFrame) -> None:
    run = run_of(tmp_path, knees)
    system = image(RidgeHead(), features="fused")
    samples = cv_fit.samples_of(run, run.knees(), system)
    ungraded = knees["kl"].is_null().to_numpy()
    assert (samples.grades[ungraded] == UNKNOWN).all()
    assert ungraded.sum() > 5
    store = EmbeddingStore(tmp_path / "clip")
    graded = np.flatnonzero(~ungraded)
    rows = knees[graded]
    plain = store.fused(rows["knee"].to_list(), rows["side"].to_list(), rows["kl"].to_list())
    assert np.allclose(samples.image[graded], plain)
    sides = knees["side"].to_list()
    every = [fused(store, knees["knee"].to_list(), sides, np.full(len(knees), grade)) for grade in range(5)]
    mean = np.mean([values[:, 8:] for values in every], axis=0)
    assert np.allclose(samples.image[ungraded, 8:], mean[ungraded], atol=1e-6)


def test_grades_of_a_grader_take_the_place_of_the_cohorts(tmp_path: Path, knees: pl.DataFrame) -> None:
    given = knees.select("knee", grade=pl.lit(3, pl.Int64)).head(30)
    given.write_parquet(tmp_path / "grades.parquet")
    run = run_of(tmp_path, knees, grades=tmp_path / "grades.parquet")
    assert run.knees()["grade"].to_list() == [3] * 30 + [None] * (2 * PATIENTS - 30)
    knees.select("knee").write_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"no table of knee and grade"):
        run_of(tmp_path / "again", knees, grades=tmp_path / "none.parquet")


def test_all_systems_are_judged_by_the_same_knees(tmp_path: Path, knees: pl.DataFrame) -> None:
    cohort = write_cohort(
        tmp_path / "cohort", knees.with_columns(pain=pl.when(pl.col("knee") == "1.2.3/L").then(None).otherwise("pain"))
    )
    some = knees.filter(pl.col("knee") != "1.2.5/R")
    store = write_store(tmp_path / "clip", some["knee"].to_list(), vectors(some))
    run = cv_run.create(tmp_path / "run", cohort, {"clip": store})
    assert run.left_out == {"without pain": 1, "without an embedding in clip": 1}
    assert len(run.knees()) == 2 * PATIENTS - 2


def test_a_run_grows_and_does_not_change(tmp_path: Path, knees: pl.DataFrame) -> None:
    cohort, store = written(tmp_path, knees)
    run = cv_run.create(tmp_path / "run", cohort, {"clip": store})
    run = cv_fit.fit_systems(run, BASELINES[:1], quiet)
    other = write_store(tmp_path / "other", knees["knee"].to_list(), vectors(knees, seed=9))
    run = cv_run.create(tmp_path / "run", cohort, {"other": other})
    assert set(run.embeddings) == {"clip", "other"}
    assert run.systems == ("constant_mean",)
    assert cv_run.read(tmp_path / "run") == run
    with pytest.raises(DataError, match="a run with other seed: name another folder"):
        cv_run.create(tmp_path / "run", cohort, {}, seed=1)
    with pytest.raises(DataError, match="other cohort_sha256"):
        cv_run.create(tmp_path / "run", write_cohort(tmp_path / "less", knees.head(60)), {})


def test_a_run_of_the_grader_is_left_alone(tmp_path: Path, knees: pl.DataFrame) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"export": "x"}', encoding="utf-8")
    assert kind_of(tmp_path / "run") is None
    with pytest.raises(DataError, match="run of the KL grader"):
        run_of(tmp_path, knees)


def test_values_outside_of_the_scale_and_unknown_scales_are_said(tmp_path: Path, knees: pl.DataFrame) -> None:
    cohort = write_cohort(tmp_path / "cohort", knees.with_columns(pain=pl.col("pain") + 5, other=pl.col("pain")))
    with pytest.raises(DataError, match=r"knee\(s\) have pain outside of 0 to 10"):
        cv_run.create(tmp_path / "run", cohort, {})
    with pytest.raises(UsageError, match="--bounds LOW HIGH"):
        cv_run.create(tmp_path / "run", cohort, {}, target="other")
    with pytest.raises(DataError, match="lacks the column"):
        cv_run.create(tmp_path / "run", cohort, {}, target="womac_pain")
    run = cv_run.create(tmp_path / "run", cohort, {}, target="other", bounds=(0, 20))
    assert run.bounds == (0, 20)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit", "--run", "RUN"], "give --export"),
        (["fit", "--run", "RUN", "--cohort", "C", "--embeddings", "nothing"], "NAME=FOLDER"),
        (["fit", "--run", "RUN", "--cohort", "C", "--embeddings", "../x=y"], "NAME=FOLDER"),
        (["fit", "--run", "RUN", "--cohort", "C", "--heads", "forest"], "there is no head forest"),
        (["fit", "--run", "RUN", "--cohort", "C", "--systems", "rad_dino"], "there is no system rad_dino"),
        (["fit", "--run", "RUN", "--cohort", "C", "--heads", "corn"], "--heads corn: heads are fitted on embeddings"),
        (["fit", "--run", "RUN", "--cohort", "C", "--embeddings", "e=E", "--heads", "attentive"], "needs patch tokens"),
        (
            ["fit", "--run", "RUN", "--cohort", "C", "--export", "E", "--backbone", "genu_kl", "--epochs", "3"],
            "--export, --backbone, --epochs: of fine-tuning, which needs --systems finetuned_genu_kl",
        ),
        (
            ["fit", "--run", "RUN", "--cohort", "C", "--systems", "convnext", "--batch", "3"],
            "--batch: of fine-tuning, which needs --systems convnext and --export EXPORT",
        ),
        (
            [
                "fit",
                "--run",
                "RUN",
                "--cohort",
                "C",
                "--systems",
                "convnext",
                "--export",
                "E",
                "--device",
                "cpu",
                "--precision",
                "fp16-mixed",
            ],
            "fp16-mixed needs a GPU",
        ),
        (["fit", "--run", "RUN", "--export", "E", "--loss", "mse"], "--loss: of cross-validated systems"),
        (
            ["fit", "--run", "RUN", "--cohort", "C", "--slices", "S", "--heads", "corn", "--export", "E"],
            "--heads, --export: of systems on radiographs",
        ),
    ],
)
def test_wrong_use_is_said(
    tmp_path: Path, knees: pl.DataFrame, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, store = written(tmp_path, knees)
    places = {"RUN": str(tmp_path / "run"), "C": str(cohort), "e=E": f"e={store}"}
    assert main([places.get(argument, argument) for argument in arguments]) == 2
    assert said in capsys.readouterr().err
    assert systems_of(tmp_path / "run") == ()


def test_the_table_of_systems() -> None:
    assert systems.HEADS == HEADS
    stores = [
        systems.Store("rad_dino", "rad_dino", "patches", False),
        systems.Store("biomedclip", "biomedclip", "pooled", True),
    ]
    table = {system.name: system for system in systems.systems(stores, HEADS, (0, 10))}
    assert [*table][:4] == ["constant_mean", "constant_median", "kl_only", "demographics"]
    named = {
        "rad_dino",
        "biomedclip",
        "biomedclip_text",
        "image_kl_rad_dino",
        "rad_dino_attentive",
        "biomedclip_text_corn",
    }
    assert named <= set(table)
    assert "biomedclip_attentive" not in table
    assert table["biomedclip_text"].features == "fused"
    assert not table["rad_dino_boosting"].exported
    assert table["rad_dino_attentive"].exported


def test_tokens_come_shard_by_shard_and_each_knee_once(
    tmp_path: Path, knees: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = knees["knee"].to_list()
    tokens = np.random.default_rng(0).normal(size=(len(names), 3, 4)).astype(np.float16)
    store = EmbeddingStore(write_store(tmp_path / "s", names, vectors(knees), patches=tokens, shards=4))
    asked: list[int] = []
    patches = EmbeddingStore.patches

    def counted(self: EmbeddingStore, keys: Any) -> Any:
        asked.append(len(keys))
        return patches(self, keys)

    monkeypatch.setattr(EmbeddingStore, "patches", counted)
    orders = []
    for seed in (None, 1, 1, 2):
        asked.clear()
        places = []
        for rows, values in StoredTokens.of(store).batches(names, 7, seed):
            assert len(rows) <= 7
            assert np.allclose(values, tokens[rows])
            places += rows.tolist()
        assert sorted(places) == list(range(len(names)))
        assert len(asked) == 4
        assert max(asked) == len(names) // 4
        orders.append(places)
    assert orders[1] == orders[2] != orders[3]
    with pytest.raises(DataError, match="--features patches"):
        StoredTokens.of(EmbeddingStore(write_store(tmp_path / "t", names, vectors(knees))))


def test_two_systems_of_one_name_are_refused(tmp_path: Path, knees: pl.DataFrame) -> None:
    for names in (["kl_only"], ["clip", "clip_text"], ["clip", "image_kl_clip"]):
        stores = [systems.Store(name, "biomedclip", "pooled", name == "clip") for name in names]
        with pytest.raises(UsageError, match=f"two systems would be called {names[-1]!r}"):
            systems.systems(stores, ["ridge"], (0, 10))
    assert systems.systems([systems.Store("clip", "biomedclip", "pooled", True)], ["ridge"], (0, 10))


def test_a_run_once_said_to_be_made_stays_so(tmp_path: Path, knees: pl.DataFrame) -> None:
    assert cv_run.create(tmp_path / "run", write_cohort(tmp_path / "cohort", knees), {}, synthetic=True).synthetic
    assert cv_run.create(tmp_path / "run", tmp_path / "cohort", {}).synthetic
    assert not cv_run.create(tmp_path / "other", tmp_path / "cohort", {}).synthetic


def test_other_embeddings_under_a_name_that_is_taken_are_refused(tmp_path: Path, knees: pl.DataFrame) -> None:
    run = run_of(tmp_path, knees)
    other = write_store(tmp_path / "other", knees["knee"].to_list(), vectors(knees))
    with pytest.raises(DataError, match="has systems of other embeddings called 'clip'"):
        cv_run.create(run.folder, run.cohort, {"clip": other})
    assert set(cv_run.create(run.folder, run.cohort, {"second": other}).embeddings) == {"clip", "second"}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"target": "side", "bounds": (0, 1)}, DataError, "side and age must be numbers"),
        ({"bounds": (0, float("inf"))}, UsageError, "two numbers, the first less"),
        ({"bounds": (float("nan"), 1)}, UsageError, "two numbers, the first less"),
    ],
)
def test_targets_and_bounds_that_are_no_numbers(
    tmp_path: Path, knees: pl.DataFrame, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run_of(tmp_path, knees, **options)


@pytest.mark.parametrize("change", [{"more": 1}, {"bounds": 3}, {"systems": None}])
def test_a_run_changed_by_hand_is_named(tmp_path: Path, knees: pl.DataFrame, change: dict[str, Any]) -> None:
    path = run_of(tmp_path, knees).folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match="was changed"):
        cv_run.read(path.parent)


def test_grades_of_random_weights_mark_the_run(tmp_path: Path, knees: pl.DataFrame) -> None:
    cohort = write_cohort(tmp_path / "cohort", knees)
    table = pa.table({"knee": knees["knee"].to_list(), "grade": [2] * len(knees)})
    for synthetic in (True, False):
        path, run = tmp_path / f"{synthetic}.parquet", tmp_path / f"run {synthetic}"
        pq.write_table(table.replace_schema_metadata({"genu": json.dumps({"synthetic": synthetic})}), path)
        assert cv_run.create(run, cohort, {}, grades=path).synthetic is synthetic


@pytest.mark.parametrize(("about", "made"), [('{"made": true}', True), ('{"made": false}', False), ("[", False)])
def test_a_cohort_of_made_knees_marks_its_run_wherever_it_lies(
    tmp_path: Path, knees: pl.DataFrame, about: str, made: bool
) -> None:
    cohort = write_cohort(tmp_path / "elsewhere" / "cohort", knees)
    (cohort / "cohort.json").write_text(about)
    assert cv_run.create(tmp_path / "run", cohort, {}).synthetic is made


@pytest.mark.parametrize("option", [("--seed", "-1"), ("--seed", "x"), ("--threads", "0"), ("--threads", "-2")])
def test_seeds_and_threads_that_cannot_be(
    tmp_path: Path, option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--cohort", str(tmp_path), "--run", str(tmp_path / "run"), *option])
    assert f"argument {option[0]}: {option[1]!r}: a whole number from" in capsys.readouterr().err
