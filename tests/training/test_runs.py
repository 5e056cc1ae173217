"""A run's folder is that of one set of inputs and one configuration of the same weights; anything else is an error."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference.errors import DataError
from tests import phantoms
from training import export_kl, runs
from training.config import read_config
from training.index import index_export
from training.runs import Run

TOML = """
name = "one"
version = "1"
tune_fraction = 0.3

[[member]]
name = "a"
backbone = "mobilenetv2_035"
epochs = 1
spec = { size = [64, 64] }

[[member]]
name = "b"
backbone = "mobilenetv2_035"
epochs = 1
spec = { size = [64, 96] }
augment = { p_flip = 0.5 }
"""
MORE = '\n[[member]]\nname = "c"\nbackbone = "mobilenetv2_035"\nepochs = 1\nspec = { size = [64, 64] }\n'
DATA = '\n[data]\ntitle = "Ours"\nlicence = "ours only"\n'


def make_export(folder: Path, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    rows = ["SOPInstanceUID,PatientID,side,kl,split"]
    for number in range(4):
        film = phantoms.wrap_dx(
            generator.integers(0, 256, (64, 64), np.uint8), "L", identity=f"{seed}-{number}",
            attributes={"Manufacturer": "Real Works"},
        )  # fmt: skip
        phantoms.write(film, folder / "images" / f"{number}.dcm")
        rows.append(f"{film.SOPInstanceUID},P{seed}-{number},L,{number},{'train' if number < 3 else 'val'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    index_export(folder, folder / "index.parquet", workers=1)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    export = tmp_path / "export"
    make_export(export)
    (tmp_path / "w.tflite").write_bytes(b"weights")
    (tmp_path / "run.toml").write_text(TOML)
    return Run(tmp_path / "run", export, export / "index.parquet", export / "labels.csv", (tmp_path / "w.tflite",))


@pytest.fixture
def config(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    runs.create(run, path)
    return path


def test_other_inputs_are_not_taken_up(run: Run, config: Path, tmp_path: Path) -> None:
    kept = (run.folder / "run.json").read_text()
    other = tmp_path / "other"
    make_export(other, seed=1)
    with pytest.raises(DataError, match=r"a run made with labels other than .*another folder with --run"):
        runs.create(replace(run, export=other, index=other / "index.parquet", labels=other / "labels.csv"), config)
    with pytest.raises(DataError, match="a run made with an index other than"):
        runs.create(replace(run, export=other, index=other / "index.parquet"), config)
    with pytest.raises(DataError, match=r"initial weights other than none .*now none"):
        runs.create(replace(run, initial_weights=()), config)
    (tmp_path / "w.tflite").write_bytes(b"other weights")
    with pytest.raises(DataError, match="initial weights other than"):
        runs.create(run, config)
    assert (run.folder / "run.json").read_text() == kept


def test_labels_changed_since_are_not_evaluated(run: Run, config: Path) -> None:
    assert {name: len(part) for name, part in runs.data(run).items()}["val"] == 1
    run.labels.write_text(run.labels.read_text().replace(",L,3,val", ",L,2,val"))
    with pytest.raises(DataError, match=r"labels other than .* put back what it was made from"):
        runs.data(runs.read(run.folder))


def test_the_same_inputs_elsewhere_or_written_again_are_the_same_run(run: Run, config: Path, tmp_path: Path) -> None:
    for path in (run.export / "images").iterdir():
        os.utime(path, ns=(1, 1))
    index_export(run.export, run.index, workers=1)
    runs.create(run, config)
    moved = tmp_path / "moved"
    run.export.rename(moved)
    elsewhere = replace(run, export=moved, index=moved / "index.parquet", labels=moved / "labels.csv")
    runs.create(elsewhere, config)
    assert runs.read(run.folder) == elsewhere


def test_a_run_of_before_the_hashes_goes_on_where_its_paths_are_the_same(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run.folder / "run.json"
    values = json.loads(path.read_text())
    digests = values.pop("sha256")
    path.write_text(json.dumps(values))
    runs.data(run)
    with pytest.raises(DataError, match=r"another initial_weights .*no hashes"):
        runs.create(replace(run, initial_weights=()), config)
    with pytest.raises(DataError, match="another labels"):
        runs.create(replace(run, labels=run.labels.rename(run.export / "renamed.csv")), config)
    (run.export / "renamed.csv").rename(run.labels)
    monkeypatch.chdir(run.export)
    runs.create(replace(run, labels=Path("labels.csv")), config)
    assert json.loads(path.read_text())["sha256"] == digests


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "# a comment\n" + text,
        lambda text: text.replace('version = "1"', 'version = "2"\ndecoder = "argmax"'),
        lambda text: text.replace('name = "a"', 'name = "a"\nships = false'),
        lambda text: text + DATA,
        lambda text: text + MORE,
        lambda text: text.replace("epochs = 1", "epochs = 1\nbatch_size = 16"),
    ],
)
def test_what_decides_no_weights_may_change(run: Run, config: Path, change: Callable[[str], str]) -> None:
    config.write_text(change(TOML))
    runs.create(run, config)
    assert (run.folder / "config.toml").read_text() == change(TOML)
    assert run.config == read_config(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("0.3", "0.2"), "tune_fraction is 0.2, in the run it is 0.3"),
        (lambda text: text.replace("epochs = 1", "epochs = 2"), "epochs of the member 'a' is 2, in the run it is 1"),
        (lambda text: text.replace("[64, 96]", "[64, 128]"), r"spec.size of the member 'b' is \(64, 128\)"),
        (lambda text: text.replace("0.5", "0.4"), "augment.p_flip of the member 'b' is 0.4, in the run it is 0.5"),
        (lambda text: text[: text.index('[[member]]\nname = "b"')], "the member 'b' is missing"),
    ],
)
def test_what_decides_weights_may_not(run: Run, config: Path, change: Callable[[str], str], message: str) -> None:
    config.write_text(change(TOML))
    with pytest.raises(DataError, match=message):
        runs.create(run, config)
    assert (run.folder / "config.toml").read_text() == TOML


def test_an_added_member_finds_no_network_of_its_name(run: Run, config: Path) -> None:
    (run.folder / "c").mkdir()
    config.write_text(TOML + MORE)
    with pytest.raises(DataError, match="a network 'c' that its configuration did not have"):
        runs.create(run, config)


def test_figures_of_another_ensemble_are_not_exported(
    run: Run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "networks", lambda _: [])
    config.write_text(TOML.replace('name = "a"', 'name = "a"\nships = false'))
    (run.folder / "metrics.json").write_text(json.dumps({"decoder": "median", "members": {"a": {}, "b": {}}}))
    runs.create(run, config)
    with pytest.raises(DataError, match="evaluated as median of a, b, its configuration says median of b"):
        export_kl.export_run(run, tmp_path / "bundle")


def test_splits_are_named_so_that_none_is_lost(run: Run, config: Path) -> None:
    text = run.labels.read_text()
    (run.folder / "run.json").unlink()
    run.labels.write_text(text.replace(",val", ",tune"))
    runs.create(run, config)
    with pytest.raises(DataError, match="the splits train, tune; one must be called train, and none fit or tune"):
        runs.data(run)


def test_where_the_knees_come_from_is_what_the_run_was_told(run: Run, config: Path, tmp_path: Path) -> None:
    assert runs.provenance(run).about is None
    assert not runs.provenance(run).synthetic
    config.write_text(TOML + DATA)
    runs.create(run, config)
    about = runs.provenance(run).about
    assert about is not None and about.title == "Ours"
    ours = json.loads((run.folder / "run.json").read_text())["sha256"]["labels"]
    for digest, known in ((ours, True), ("0" * 64, False)):
        config.write_text(f'{TOML}{DATA}labels_sha256 = "{digest}"\n')
        runs.create(run, config)
        assert (runs.provenance(run).about is not None) is known
    config.write_text(TOML + DATA + "synthetic = true\n")
    runs.create(run, config)
    assert runs.provenance(run).synthetic
    run.initial_weights[0].unlink()
    digest = hashlib.sha256(b"weights").hexdigest()
    assert list(runs.provenance(run).initial) == [("w.tflite", digest)], "what it started from, also when it is gone"


def test_made_knees_are_known_as_such(run: Run, config: Path) -> None:
    (run.export / "truth.json").write_text("{}")
    assert runs.provenance(run).synthetic
    (run.export / "truth.json").unlink()
    assert not runs.provenance(run).synthetic
    film = phantoms.wrap_dx(np.zeros((64, 64), np.uint8), "L", identity="0-0")
    phantoms.write(film, run.export / "images" / "0.dcm")
    index_export(run.export, run.index, workers=1)
    assert runs.provenance(run).synthetic, "the manufacturer of drawn phantoms"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("[data]\ntitel = 'x'\n", "titel"),
        ("[data]\nlicence = 4\n", r"licence of \[data\] is 4; it must be text"),
        ("[data]\nsynthetic = 'no'\n", r"synthetic of \[data\] is 'no'; it must be true or false"),
    ],
)
def test_a_wrong_data_section_is_an_error(tmp_path: Path, section: str, message: str) -> None:
    (tmp_path / "run.toml").write_text(TOML + section)
    with pytest.raises(DataError, match=message):
        read_config(tmp_path / "run.toml")
