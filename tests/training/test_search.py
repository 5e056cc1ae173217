"""Hyperparameters are compared on `train` only, no fold knows of another, and noise chooses nothing."""

import csv
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from inference.bundle import decode
from inference.errors import DataError
from inference.preprocess import PreprocessSpec
from inference.reading import Instance, read_instance
from tests import phantom_pixels
from training import cli, crops, search
from training.config import MemberConfig, read_config
from training.crops import CropSet
from training.fit import Report, fit_member
from training.labels import read_label_table
from training.metrics import accuracy, log_loss, quadratic_kappa
from training.search import Source, promoted
from training.search_space import Candidate, Halving, Space, read_space
from training.search_table import Held, Row, calibrated, table, training_gflop
from training.search_text import as_csv, as_markdown, verdict

REPOSITORY = Path(__file__).parents[2]
TOML = """
folds = 2
halving = { folds = 1, keep = 1 }

[[member]]
name = "small"
backbone = "mobilenetv2_035"
epochs = 2
batch_size = 8
spec = { size = [32, 32] }
vary = { learning_rate = [1e-5, 2e-3], "augment.p_flip" = [0.5] }
"""
NAMES = ["small", "small-learning_rate-1e-05", "small-learning_rate-0.002", "small-augment.p_flip-0.5"]


class Silent:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []
        self.epochs: list[int] = []

    def read(self, done: int, total: int) -> None:
        pass

    def fits(self, candidate: str, fold: int, place: int, total: int) -> None:
        self.begun.append((candidate, fold))

    def epoch(self, candidate: str, fold: int, epochs: int, figures: Mapping[str, float]) -> None:
        self.epochs.append(int(figures["epoch"]))

    def rows(self, rows: Sequence[Row]) -> None:
        pass


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn knees of 12 patients of `train` and 4 of `val`; the files of `val` are rubbish by now."""
    source = tmp_path_factory.mktemp("source")
    rows = []
    for number in range(32):
        side = "LR"[number % 2]
        film = phantom_pixels.knee(side, 64, 64, seed=number, narrowing=(number % 5) / 5)
        Image.fromarray((np.clip(film, 0, 1) * 255).astype(np.uint8)).save(source / f"{number}.png")
        rows.append((f"{number}.png", "train" if number < 24 else "val", number % 5, f"p{number // 2}", side))
    with (source / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "split", "kl", "subject", "side"), *rows])
    folder = tmp_path_factory.mktemp("export")
    arguments = ["--images", str(source), "--labels", str(source / "labels.csv"), "--out", str(folder)]
    assert cli.main(["dicomize", *arguments]) == 0
    assert cli.main(["index", str(folder)]) == 0
    for path in (folder / "images" / "val").glob("*.dcm"):
        path.write_bytes(b"rubbish")
    return folder


@pytest.fixture
def space(tmp_path: Path) -> Space:
    path = tmp_path / "space.toml"
    path.write_text(TOML)
    return read_space(path)


def source_of(export: Path, out: Path) -> Source:
    return Source(export, export / "index.parquet", export / "labels.csv", out)


# What is compared


def test_values_change_one_at_a_time_and_in_tables_within(space: Space) -> None:
    assert [candidate.name for candidate in space.candidates] == NAMES
    first, slow, fast, flipped = (candidate.config for candidate in space.candidates)
    assert replace(slow, learning_rate=first.learning_rate) == first
    assert (slow.learning_rate, fast.learning_rate) == (1e-5, 2e-3)
    assert replace(flipped, augment=first.augment) == first
    assert (first.augment.p_flip, flipped.augment.p_flip) == (0, 0.5)
    assert flipped.augment.rotation == first.augment.rotation


def test_a_grid_has_every_combination(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(TOML.replace("vary", "grid = true\nvary").replace("[0.5]", "[0.25, 0.5]"))
    space = read_space(path)
    assert len(space.candidates) == 9
    assert len({(c.config.learning_rate, c.config.augment.p_flip) for c in space.candidates}) == 9


def test_crops_and_backbones_can_be_varied(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    vary = '"spec.size" = [[32, 48]], spec = [{ size = [48, 48], sigma = 0.1 }], backbone = ["mobilenetv2_100"]'
    path.write_text(TOML.replace('"augment.p_flip" = [0.5]', vary))
    *_, wide, other, large = read_space(path).candidates
    assert (wide.changed, wide.config.spec.size) == ("spec.size 32x48", (32, 48))
    assert (other.name, other.config.spec.sigma) == ("small-spec-no.-1", 0.1)
    assert large.config.backbone == "mobilenetv2_100"
    assert training_gflop(large.config) > training_gflop(wide.config) > 0


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("batch_size", "batchsize", "batchsize"),
        ("vary = {", "vary = { rate = [1],", "rate"),
        ("[0.5]", "0.5", "must be a list of values"),
        ("learning_rate = [", "seed = [1, 1], learning_rate = [", "stands there twice"),
        ("learning_rate = [1e-5", "learning_rate = [-1", "learning_rate -1"),
        ("learning_rate = [1e-5", 'learning_rate = ["fast"', "not supported"),
        ("epochs = 2", "epochs = 0", "epochs 0"),
        ("epochs = 2", 'epochs = 2\nstart = "other"', "networks that saw other folds"),
        ("vary = {", 'vary = { teachers = [["a"]],', "vary.teachers"),
        ('"mobilenetv2_035"', '"resnet"', "known are"),
        ("folds = 2\n", "folds = 1\n", "folds is 1"),
        ("folds = 1,", "folds = 2,", "fewer than 2"),
        ("folds = 2\n", "folds = 2\nshare = 0\n", "share is 0"),
        ("folds = 2\n", 'folds = 2\ndecoder = "best"\n', "decoder is 'best'"),
        ("[[member]]", "[[members]]", "the key 'member' is missing"),
        ("folds = 2\n", "folds = \n", "not valid TOML"),
    ],
)
def test_a_wrong_space_is_named(tmp_path: Path, before: str, after: str, said: str) -> None:
    path = tmp_path / "space.toml"
    assert TOML.count(before) >= 1
    path.write_text(TOML.replace(before, after, 1))
    with pytest.raises(DataError, match=said):
        read_space(path)


def test_one_of_the_candidates_comes_with_its_reference(space: Space) -> None:
    assert [c.name for c in space.only([NAMES[2]])] == [NAMES[0], NAMES[2]]
    assert [c.name for c in space.only(["small"])] == NAMES
    with pytest.raises(DataError, match="there is no candidate large; there are small, "):
        space.only(["large"])


def test_the_shipped_space_starts_from_the_shipped_values() -> None:
    shipped = {member.name: member for member in read_config(REPOSITORY / "training" / "kl.toml").members}
    for candidate in read_space(REPOSITORY / "training" / "kl_search.toml").candidates:
        if candidate.is_reference:
            ships = shipped[candidate.name.removesuffix("_long")]
            ours = replace(candidate.config, name=ships.name, epochs=ships.epochs, ships=ships.ships)
            assert ours == ships


# What a fit sees


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[MemberConfig, CropSet, CropSet, tuple[object, ...]]]:
    """Fits are noted and not done; the answers are the better the higher the learning rate is."""
    seen: list[tuple[MemberConfig, CropSet, CropSet, tuple[object, ...]]] = []

    def fit(
        config: MemberConfig,
        train: CropSet,
        tune: CropSet,
        folder: Path,
        weights: object,
        report: object,
        *more: object,
    ) -> torch.nn.Module:
        seen.append((config, train, tune, more))
        (folder / "checkpoint.safetensors").write_bytes(b"")
        (folder / "log.jsonl").write_text('{"epoch": 1, "seconds": 2.0}\n')
        return torch.nn.Linear(1, 1)

    def answer(_: object, config: MemberConfig, knees: npt.NDArray[np.uint8]) -> torch.Tensor:
        level = torch.from_numpy(knees.reshape(len(knees), -1).astype(np.float32)).std(dim=1, keepdim=True)
        return torch.cat([level * 0, level * 1e-3, level * 0, level * 0, level * 0], dim=1) * config.learning_rate

    monkeypatch.setattr(search, "fit_member", fit)
    monkeypatch.setattr(search, "predict_logits", answer)
    return seen


def test_val_is_never_read(
    export: Path,
    space: Space,
    tmp_path: Path,
    quick: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened: list[Path] = []

    def noted(path: Path) -> Instance:
        opened.append(path)
        return read_instance(path)

    monkeypatch.setattr(crops, "read_instance", noted)
    search.search(source_of(export, tmp_path / "out"), space, ["small"], Silent())
    train = {row.sop_instance_uid for row in read_label_table(export / "labels.csv") if row.split == "train"}
    assert len(opened) == len(train) == 24
    assert {path.parent.name for path in opened} == {"train"}
    assert {uid for _, knees, _, _ in quick for uid in knees.uids} == train
    # The same files stop a command that does read them.
    config = str(tmp_path / "space.toml")
    (tmp_path / "space.toml").write_text(_as_run(TOML))
    assert cli.main(["fit", "--export", str(export), "--config", config, "--run", str(tmp_path / "run")]) != 0
    assert "images/val" in capsys.readouterr().err


def _as_run(text: str) -> str:
    """A space as the configuration of a run: its members without what they vary."""
    body = text[text.index("[[member]]") : text.index("vary")]
    return f'name = "n"\nversion = "0"\n{body}'


def test_a_fit_knows_nothing_of_its_held_out_fold(export: Path, space: Space, tmp_path: Path, quick: list[Any]) -> None:
    source = source_of(export, tmp_path)
    knees = search.read_knees(source, space)
    data = search.fold(knees, space, ())
    listener = Silent()
    search.search(source, space, [], listener)
    everyone = set(knees.subjects)
    held_out = []
    for (_, number), (_, seen, tune, more) in zip(listener.begun, quick, strict=True):
        held = {subject for subject, place in zip(knees.subjects, data.folds, strict=True) if place == number}
        assert not held & set(seen.subjects)
        assert held | set(seen.subjects) == everyone
        assert len(tune) == 0, "nothing to stop by or to look at"
        assert more == (), "no networks of before"
        held_out.append(held)
    assert set.union(*held_out) == everyone


def test_folds_are_whole_patients_with_all_grades_in_each() -> None:
    generator = np.random.default_rng(0)
    subjects = tuple(f"p{number // 2}" for number in range(400))
    grades = np.repeat(generator.integers(0, 5, 200), 2).astype(np.int64)
    knees = CropSet(
        generator.integers(0, 255, (400, 8, 8)).astype(np.uint8),
        grades,
        subjects,
        ("L",) * 400,
        tuple(map(str, range(400))),
    )
    config = MemberConfig("m", "mobilenetv2_035", PreprocessSpec(), 1)
    space = Space((Candidate("m", "m", config),), folds=4)
    data = search.fold(knees, space, ())
    for subject in set(subjects):
        assert len({int(f) for f, s in zip(data.folds, subjects, strict=True) if s == subject}) == 1
    for grade in range(5):
        shares = [np.mean(data.folds[grades == grade] == number) for number in range(4)]
        assert max(shares) - min(shares) < 0.1
    assert data.key == search.fold(knees, space, ()).key
    other = replace(knees, grades=np.roll(grades, 2))
    assert data.key != search.fold(other, space, ()).key, "another truth is another fit"
    twice = knees.crops.copy()
    twice[data.folds.argmin()] = twice[data.folds.argmax()]
    with pytest.raises(DataError, match="very pixels of another PatientID"):
        search.fold(replace(knees, crops=twice), space, ())


def test_a_share_takes_whole_patients(export: Path, space: Space, tmp_path: Path) -> None:
    source = source_of(export, tmp_path)
    every, some = (search.read_knees(source, replace(space, share=share)) for share in (1.0, 0.5))
    assert 0 < len(some) < len(every) == 24
    assert all(every.subjects.count(subject) == some.subjects.count(subject) for subject in set(some.subjects))


def test_without_the_split_train_nothing_is_searched(export: Path, space: Space, tmp_path: Path) -> None:
    text = (export / "labels.csv").read_text().replace(",train", ",test")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match="has no row of the split 'train'"):
        search.read_knees(replace(source_of(export, tmp_path), labels=tmp_path / "labels.csv"), space)


# How it goes on


def test_halving_lets_the_reference_and_the_best_go_on(
    export: Path, space: Space, tmp_path: Path, quick: list[Any]
) -> None:
    listener = Silent()
    rows = search.search(source_of(export, tmp_path), space, [], listener)
    best = promoted(rows, space.candidates, 1)[1].name
    losses = {row.candidate.name: row.by_fold[0] for row in rows}
    assert losses[best] == min(losses[name] for name in NAMES[1:])
    assert listener.begun == [*((name, 0) for name in NAMES), ("small", 1), (best, 1)]
    assert {row.candidate.name for row in rows if len(row.folds) == 2} == {"small", best}
    again = Silent()
    search.search(source_of(export, tmp_path), replace(space, halving=Halving(1, keep=2)), [], again)
    assert len(again.begun) == 1, "what is done is not done again"
    named = replace(space.candidates[0], name="alias", member="alias")
    renamed = Silent()
    search.search(source_of(export, tmp_path), replace(space, candidates=(named,)), [], renamed)
    assert not renamed.begun, "nor under another name"


def test_the_command_is_killed_and_goes_on(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "space.toml"
    path.write_text(
        TOML.replace("halving", "# halving").replace(', "augment.p_flip" = [0.5]', "").replace("1e-5, ", "")
    )
    space = read_space(path)

    class Cut(Silent):
        def epoch(self, candidate: str, fold: int, epochs: int, figures: Mapping[str, float]) -> None:
            super().epoch(candidate, fold, epochs, figures)
            if len(self.epochs) == 3:
                raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        search.search(source_of(export, out), space, [], Cut())
    seen: list[int] = []

    def noted(
        config: MemberConfig, train: CropSet, tune: CropSet, folder: Path, initial: Sequence[Path], report: Report
    ) -> torch.nn.Module:
        def listening(figures: dict[str, float]) -> None:
            seen.append(int(figures["epoch"]))
            report(figures)

        return fit_member(config, train, tune, folder, initial, listening)

    monkeypatch.setattr(search, "fit_member", noted)
    command = ["search", "--export", str(export), "--space", str(path), "--out", str(out), "--threads", "1"]
    assert cli.main(command) == 0
    assert seen == [2, 1, 2, 1, 2], "the first fit was whole, the second had one epoch"
    printed = capsys.readouterr().out
    assert (out / "search.md").read_text() in printed
    assert not list(out.rglob("*.safetensors")), "what is done needs no checkpoint"
    with (out / "candidates.csv").open() as file:
        table_of = {row["candidate"]: row for row in csv.DictReader(file)}
    assert list(table_of) == ["small", "small-learning_rate-0.002"]
    assert {row["folds"] for row in table_of.values()} == {"0 1"}
    assert sum(row["chosen"] == "yes" for row in table_of.values()) == 1
    assert all(0 < float(row["log_loss_low"]) <= float(row["log_loss"]) for row in table_of.values())

    monkeypatch.setattr(search, "fit_member", lambda *_: pytest.fail("all is done"))
    assert cli.main(command) == 0
    text = (export / "labels.csv").read_text()
    shutil.copy(export / "labels.csv", tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text(text.replace(",0,train", ",1,train", 1))
    with pytest.raises(pytest.fail.Exception):
        cli.main([*command, "--labels", str(tmp_path / "labels.csv")])


# What the table says


def answers(truth: npt.NDArray[np.int64], *, sure: float, wrong: float, seed: int = 0) -> npt.NDArray[np.float32]:
    """Logits (N, 5): the true grade's neighbourhood with some noise."""
    generator = np.random.default_rng(seed)
    distance = np.abs(np.arange(5) - truth[:, None])
    return np.asarray(-sure * distance + wrong * generator.normal(size=distance.shape), np.float32)


Answer = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def made(answer: Answer, folds: int = 2, count: int = 300) -> list[Held]:
    """Folds of a candidate; the same knees for all candidates."""
    result = []
    for number in range(folds):
        truth = np.random.default_rng(number).integers(0, 5, count).astype(np.int64)
        patients = tuple(f"{number}-{row // 2}" for row in range(count))
        result.append(Held(number, answer(truth), truth, patients, 10.0))
    return result


def spaced(**epochs: int) -> Space:
    """The reference `m` and others of other lengths."""
    base = MemberConfig("m", "mobilenetv2_035", PreprocessSpec(size=(32, 32)), 4)
    others = [Candidate(f"m-{name}", "m", replace(base, epochs=count), name) for name, count in epochs.items()]
    return Space((Candidate("m", "m", base), *others), folds=2)


def test_figures_are_those_of_the_usual_functions() -> None:
    space = spaced(other=4)
    reference, other = (made(partial(answers, sure=1.5, wrong=wrong)) for wrong in (1.0, 1.6))
    rows = table(space, {"m": reference, "m-other": other})
    for row, held in zip(rows, (reference, other), strict=True):
        truth = np.concatenate([part.grades for part in held])
        chances = np.concatenate([calibrated(part) for part in held])
        grade = decode(chances, "median")
        for name, value in (
            ("log_loss", log_loss(truth, chances)),
            ("quadratic_kappa", quadratic_kappa(truth, grade)),
            ("accuracy", accuracy(truth, grade)),
        ):
            found = row.figures[name]
            assert found.value == pytest.approx(value, abs=1e-9)
            assert found.low is not None and found.high is not None
            assert found.low < value < found.high
        assert row.first_loss == pytest.approx(log_loss(truth, chances))
        assert (row.knees, row.patients, row.seconds) == (600, 300, 20.0)
    for name, difference in rows[1].differences.items():
        values = [row.figures[name].value for row in rows]
        assert values[0] is not None and values[1] is not None
        assert difference.value == pytest.approx(values[1] - values[0])


def test_differences_are_paired() -> None:
    """The same noise in both: their difference is known far better than either."""
    reference = made(partial(answers, sure=1.5, wrong=1.0))
    shifted = [replace(held, logits=held.logits + answers(held.grades, sure=0.1, wrong=0.0)) for held in reference]
    row = table(spaced(other=4), {"m": reference, "m-other": shifted})[1]
    alone, paired = row.figures["log_loss"], row.differences["log_loss"]
    assert alone.high is not None and alone.low is not None and paired.high is not None and paired.low is not None
    assert paired.high - paired.low < (alone.high - alone.low) / 4


def test_noise_chooses_the_reference_and_a_clear_gain_does_not() -> None:
    space = spaced(same=4, better=4)
    held = {
        "m": made(partial(answers, sure=1.5, wrong=1.0)),
        "m-same": made(partial(answers, sure=1.5, wrong=1.0, seed=3)),
    }
    rows = table(replace(space, candidates=space.candidates[:2]), held)
    assert [row.chosen for row in rows] == [True, False]
    assert verdict(rows[1]) == "within noise"
    assert (rows[1].differences["log_loss"].value or 0) < 0, "less log loss, but by less than a standard error"
    held["m-better"] = made(partial(answers, sure=2.5, wrong=1.0))
    rows = table(space, held)
    assert [row.chosen for row in rows] == [False, False, True]
    assert [verdict(row) for row in rows] == ["reference", "within noise", "better"]
    worse = table(spaced(worse=4), {"m": held["m"], "m-worse": made(partial(answers, sure=0.7, wrong=1.0))})
    assert (verdict(worse[1]), worse[0].chosen) == ("worse", True)


def test_of_equals_the_cheaper_one_is_chosen() -> None:
    held = {"m": made(partial(answers, sure=0.5, wrong=1.0))}
    held |= {name: made(partial(answers, sure=2.5, wrong=1.0)) for name in ("m-long", "m-short")}
    rows = table(spaced(long=9, short=2), held)
    assert [row.chosen for row in rows] == [False, False, True]
    assert [row.tied for row in rows] == [False, True, True]


def test_what_is_not_finished_is_shown_and_not_chosen() -> None:
    held = {"m": made(partial(answers, sure=1.5, wrong=1.0)), "m-later": [], "m-half": []}
    held["m-half"] = made(partial(answers, sure=2.5, wrong=1.0), folds=1)
    space = spaced(half=4, later=4)
    rows = table(space, held)
    assert [row.chosen for row in rows] == [True, False, False]
    assert [verdict(row) for row in rows] == ["reference", "better, on one fold", "not fitted"]
    assert rows[1].first_loss is None, "without halving, all folds are the first"
    text, lines = as_markdown(space, rows), list(csv.DictReader(as_csv(rows).splitlines()))
    assert "| later | none |" in text
    assert "`m`: the reference is chosen." in text
    assert [line["folds"] for line in lines] == ["0 1", "0", ""]
    halved = table(replace(space, halving=Halving(1, 1)), held)
    assert [c.name for c in promoted(halved, space.candidates, 1)] == ["m", "m-half"]


def test_folds_that_chose_stand_apart_from_those_that_did_not() -> None:
    """Lucky on the first fold, which let it go on, and no better on the other."""
    lucky, plain = (made(partial(answers, sure=sure, wrong=1.0)) for sure in (2.5, 1.5))
    space = replace(spaced(lucky=4), halving=Halving(1, 1))
    _, row = table(space, {"m": plain, "m-lucky": [lucky[0], plain[1]]})
    assert verdict(row) == "better"
    assert row.later["log_loss"].value == 0
    assert (row.differences["log_loss"].high or 0) < 0
    assert "| +0.000 (+0.000 to +0.000) |" in as_markdown(space, [row])
    assert not table(replace(space, halving=None), {"m": plain, "m-lucky": lucky})[1].later


def test_a_knee_has_no_part_in_its_own_temperature() -> None:
    held = made(partial(answers, sure=6.0, wrong=4.0), folds=1)[0]
    chances = calibrated(held)
    assert log_loss(held.grades, chances) < log_loss(held.grades, np.asarray(torch.tensor(held.logits).softmax(1)))
    patient = held.patients[0]
    mine = np.asarray([name == patient for name in held.patients])
    changed = calibrated(replace(held, grades=np.where(mine, 4 - held.grades, held.grades)))
    assert np.array_equal(changed[mine], chances[mine])
    everyone = calibrated(replace(held, grades=4 - held.grades))
    assert not np.allclose(everyone[mine], chances[mine])
